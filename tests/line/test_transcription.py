"""The words of a voicemail: asked for with TRANSCRIBE=1, kept, told to the owner, shown."""

import json
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import urldefrag, urljoin
from xml.etree.ElementTree import Element

import pytest

from phone_line.records import Transcript, read_record
from standins.backend import until
from standins.call import Phone
from standins.inside import ORIGIN, Inside, stored, webhook
from standins.media import RECORDING
from standins.sentences import say
from standins.sink import Sink
from standins.twiml import parse
from standins.upstash import Upstash
from standins.webhooks import Limits

PASSWORD: Final = "let-me-see-it"
LOGIN: Final = {"Authorization": f"Basic {b64encode(f'x:{PASSWORD}'.encode()).decode()}"}
WORDS: Final = "Hello, this is Sam. Please call me back."


@pytest.fixture
def sink() -> Iterator[Sink]:
    """The sink where the owner is told."""
    with Sink() as sink:
        yield sink


@pytest.fixture
def line(sink: Sink, tmp_path: Path) -> Inside:
    """A line that has nobody behind it, and wants the words of messages."""
    env = {"TRANSCRIBE": "1", "NOTIFY_URL": sink.url, "ADMIN_TOKEN": PASSWORD}
    return Inside({**env, "STATE_FILE": str(tmp_path / "calls")})


def ring(line: Inside) -> tuple[Phone, str]:
    """A caller who is about to leave a message, and the URL for its words."""
    phone = line.phone()
    phone.ring()
    phone.say("my invoice")
    assert phone.state == "record"
    return phone, verb_of(phone).get("transcribeCallback", "")


def verb_of(phone: Phone) -> Element:
    """The <Record> that a caller is at."""
    assert phone.last_webhook
    assert phone.last_webhook.answer
    document = parse(phone.last_webhook.answer.body.decode())
    assert isinstance(document, Element)
    [verb] = document.iter("Record")
    return verb


def target(url: str) -> str:
    """The request that Twilio makes when it is given a URL."""
    return urldefrag(urljoin("/voice/process", url)).url


def transcribed(phone: Phone, text: str = WORDS, status: str = "completed") -> dict[str, str]:
    """The fields with which Twilio brings the words of a message."""
    words = {"TranscriptionText": text, "TranscriptionStatus": status, "RecordingUrl": RECORDING}
    return webhook(CallSid=phone.call_sid, CallStatus="completed", **words)


def shown(line: Inside, phone: Phone, accept: str = "application/json") -> str:
    """The page of a call."""
    headers = {**LOGIN, "Accept": accept}
    return line.send("GET", f"/calls/{phone.call_sid}", headers=headers).body.decode()


def page(line: Inside, phone: Phone) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(shown(line, phone))
    return found


def test_without_the_setting_nothing_is_transcribed(tmp_path: Path) -> None:
    """It costs money, so it is off: three minutes may be recorded, and no words are asked for."""
    phone, url = ring(Inside({"STATE_FILE": str(tmp_path / "calls")}))
    assert url == ""
    assert verb_of(phone).get("maxLength") == "180"
    assert "transcribe" not in verb_of(phone).attrib


def test_a_message_is_to_be_transcribed(line: Inside) -> None:
    """Less than two minutes, or Twilio refuses; a URL that is asked again, and that ages."""
    phone, url = ring(line)
    verb = verb_of(phone)
    assert verb.get("transcribe") == "true"
    assert int(verb.get("maxLength", "")) < 120
    assert url.startswith("/voice/transcript?")
    assert "began=" in url
    assert Limits.of(urljoin(ORIGIN, url)).rc == 5
    assert phone.broken == []


def test_the_owner_is_told_of_the_words(line: Inside, sink: Sink) -> None:
    """Minutes after the message its words come: an event of its own, and the words on the page."""
    phone, url = ring(line)
    phone.leave_message(14)
    assert line.post(target(url), transcribed(phone)).status == 204
    assert sink.told(phone.call_sid) == ["voicemail", "transcript"]
    notice = sink.taken(phone.call_sid)[1]
    assert notice.key == f"{phone.call_sid}:transcript"
    assert notice.body["transcript"] == WORDS
    assert notice.body["recording"].startswith(f"{ORIGIN}/recordings/")
    assert notice.text == say("owner_transcript", caller="+15557654321", transcript=WORDS)
    assert page(line, phone)["transcript"] == WORDS
    assert WORDS in shown(line, phone, "text/html")


@pytest.mark.parametrize(
    ("text", "status"),
    [
        pytest.param("", "failed", id="failed"),
        pytest.param("(blank)", "failed", id="failed with a text"),
        pytest.param("", "completed", id="no words"),
    ],
)
def test_a_failed_transcription_is_said_as_such(
    line: Inside, sink: Sink, text: str, status: str
) -> None:
    """The owner reads that there are no words, with the link to listen; so does the page."""
    phone, url = ring(line)
    phone.leave_message(14)
    assert line.post(target(url), transcribed(phone, text, status)).status == 204
    notice = sink.taken(phone.call_sid)[1]
    assert notice.body["transcript"] == ""
    link = notice.body["recording"]
    assert notice.text == say("owner_transcript_failed", caller="+15557654321", link=link)
    assert page(line, phone)["transcript_failed"]
    assert "could not make out the words" in shown(line, phone, "text/html")


def test_the_words_are_told_once(line: Inside, sink: Sink) -> None:
    """Twilio brings them again, with other words even: what stands is what was told first."""
    phone, url = ring(line)
    phone.leave_message(14)
    for words in (WORDS, WORDS, "something else"):
        assert line.post(target(url), transcribed(phone, words)).status == 204
    assert sink.told(phone.call_sid) == ["voicemail", "transcript"]
    assert page(line, phone)["transcript"] == WORDS


def test_the_words_bring_a_message_that_was_not_told(line: Inside, sink: Sink) -> None:
    """The sink refused the message when it came: with the words it is told of both, in order."""
    phone, url = ring(line)
    phone.status = None
    sink.fault = 404
    phone.leave_message(14)
    assert until(lambda: len(sink.notices) == 1)
    sink.fault = None
    assert line.post(target(url), transcribed(phone)).status == 204
    assert sink.told(phone.call_sid) == ["voicemail", "transcript"]


def test_words_without_a_sink_are_kept_for_the_page(tmp_path: Path) -> None:
    """Nobody is told, and whoever looks can read them."""
    env = {"TRANSCRIBE": "1", "ADMIN_TOKEN": PASSWORD, "STATE_FILE": str(tmp_path / "calls")}
    line = Inside(env)
    phone, url = ring(line)
    phone.leave_message(14)
    assert line.post(target(url), transcribed(phone)).status == 204
    assert page(line, phone)["transcript"] == WORDS


def test_words_with_markup_are_text_on_the_page(line: Inside) -> None:
    """Markup, control characters and turned-around text are words like others."""
    phone, url = ring(line)
    phone.leave_message(14)
    hostile = "<script>alert(1)</script> \u202etxet\u202c \x07 שלום"
    assert line.post(target(url), transcribed(phone, hostile)).status == 204
    html = shown(line, phone, "text/html")
    assert "<script>" not in html
    assert "\u202e" not in html
    assert "\x07" not in html
    assert "שלום" in html


def test_a_novel_is_cut(line: Inside, sink: Sink) -> None:
    """Two minutes have some 2000 letters: what is far more is not kept."""
    phone, url = ring(line)
    assert line.post(target(url), transcribed(phone, "novel " * 8000)).status == 204
    assert len(sink.taken(phone.call_sid)[0].body["transcript"]) <= 4000


def test_while_the_store_is_away_the_words_come_again(sink: Sink, upstash: Upstash) -> None:
    """What can be kept nowhere is neither lost nor told twice: 503, and Twilio repeats it."""
    env = {"TRANSCRIBE": "1", "NOTIFY_URL": sink.url, "RESPONSE_DEADLINE": "1"}
    line = Inside({**env, **upstash.settings})
    phone, url = ring(line)
    upstash.fault = lambda _: "502"
    assert line.post(target(url), transcribed(phone)).status == 503
    upstash.fault = None
    assert line.post(target(url), transcribed(phone)).status == 204
    assert sink.told(phone.call_sid) == ["transcript"]


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("", 400),
        ("?turn=x", 400),
        ("?turn=101", 400),
        ("?turn=2&began=soon", 400),
        ("?turn=2&began=1000000000", 403),
        ("?turn=2", 204),
    ],
)
def test_words_are_believed_for_a_day(
    line: Inside, sink: Sink, query: str, status: int, tmp_path: Path
) -> None:
    """A recorded webhook has no effect after a day; a malformed URL has none at all."""
    fields = transcribed(line.phone())
    assert line.post(f"/voice/transcript{query}", fields).status == status
    kept = read_record(
        Transcript, stored(tmp_path / "calls").get(f"call:{fields['CallSid']}:transcript")
    )
    assert (kept is not None) == (status == 204)
    assert len(sink.notices) == (status == 204)


def test_words_that_twilio_did_not_sign_are_refused(line: Inside, sink: Sink) -> None:
    """403 without a signature, before anything else."""
    assert line.send("POST", "/voice/transcript?turn=2").status == 403
    assert line.send("GET", "/voice/transcript?turn=2").status == 405
    assert sink.notices == []
