"""The fields of one webhook, odd ones and missing ones, and the answer to each."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from phone_line.records import read_turn
from phone_line.webhook import read_share
from standins.inside import FORM, ORIGIN, TOKEN, Inside, dialled, judged, stored, webhook
from standins.sentences import in_twiml
from standins.webhooks import sign

PERSON: Final = "+15550100099"
QUESTION: Final = in_twiml("ask_reason")
VOICE_PATHS: Final = ("/", "/voice", "/voice/inbound", "/webhook/voice")
PATHS: Final = (*VOICE_PATHS, "/voice/process?turn=1&step=reason", "/voice/status")


@pytest.mark.parametrize(
    "call_sid",
    [
        "",
        "CA123",
        "CA" + "g" * 32,
        "CA" + "1" * 33,
        "MZ" + "1" * 32,
        "CA" + "1" * 32 + "\n",
        "../x",
    ],
    ids=repr,
)
@pytest.mark.parametrize("path", [*PATHS, "/voice/fallback"])
def test_a_call_needs_a_name(line: Inside, file: Path, path: str, call_sid: str) -> None:
    """A webhook whose CallSid is no CallSid is 400 in plain words, and makes no cell."""
    answer = line.post(path, webhook(CallSid=call_sid))
    assert (answer.status, answer.kind) == (400, "text/plain")
    assert stored(file) == {}


@pytest.mark.parametrize(
    "turn",
    ["abc", "", "-1", "101", "99999999999", "1.5", "1e1", "0x1", "%2B1", "%D9%A3", "1%00", "%20"],
)
def test_a_turn_is_a_number_up_to_100(line: Inside, file: Path, turn: str) -> None:
    """Any other turn is 400 in plain words, and makes no cell."""
    answer = line.post(f"/voice/process?turn={turn}&step=reason", webhook())
    assert (answer.status, answer.kind) == (400, "text/plain")
    assert stored(file) == {}


def test_a_turn_must_be_named(line: Inside) -> None:
    """The path for later webhooks is no use without a turn."""
    assert line.post("/voice/process", webhook()).status == 400


@pytest.mark.parametrize("step", ["", "nowhere", "%00", "%F0%9F%92%A9", "a" * 5000, "blocked"])
def test_a_step_that_nobody_knows_is_the_first_question(line: Inside, step: str) -> None:
    """Without a record and without a known step the call begins again, in words."""
    target = f"/voice/process?turn=5&step={step}"
    assert QUESTION in judged(line.post(target, webhook()), target)


@pytest.mark.parametrize(
    "more", ["hold=1", "hold=abc", "hold=-1", "hold=100&pushed=1", "hold=&x=y"]
)
def test_a_hold_that_was_never_asked_for_is_answered(line: Inside, more: str) -> None:
    """A line that holds nobody answers a look for slow work with the question, or as it stands."""
    target = f"/voice/process?turn=1&step=reason&{more}"
    assert QUESTION in judged(line.post(target, webhook()), target)


SPEECHES: Final = {
    "NUL": "Ann\x00 my bill",
    "control characters": "".join(map(chr, range(32))) + "Ann\x7f\ufffe\uffff",
    "emoji": "Ann 👩🏽‍🚀 " * 100,
    "right to left": "\u202eאבג " * 50,
    "10,000 characters": "word " * 2000,
    "10,000 characters without a space": "x" * 10_000,
    "5,000 wide characters": "猫" * 5_000,
    "markup": "</Say><Dial>+19005550100</Dial><Say>&amp; &#0; ]]>",
    "braces": "{heard} {0} {name.__class__} %s",
    "half a surrogate": "a\ud800b".encode("utf-8", "surrogatepass").decode("utf-8", "replace"),
}


@pytest.mark.parametrize("speech", SPEECHES.values(), ids=SPEECHES)
def test_any_speech_is_answered(line: Inside, file: Path, speech: str) -> None:
    """Whatever was recognised, the caller is connected to FORWARD_TO, and little of it is kept."""
    target, form = "/voice/process?turn=1&step=reason", webhook(SpeechResult=speech)
    said = judged(line.post(target, form), target)
    assert dialled(said) == [PERSON]
    [cell] = stored(file).values()
    record = read_turn(cell)
    assert record is not None
    assert len(record.heard) <= 1000
    assert "\x00" not in cell


FIELDS: Final = {
    "Confidence": ["", "NaN", "inf", "-1", "1e400", "0.5.5", "9" * 500, "٣"],
    "Digits": ["", "A", "1" * 500, "hangup", "\x00", "٣", "1;DROP"],
    "DialCallStatus": ["", "unheard-of", "\x00", "x" * 1000],
    "RecordingUrl": ["", "javascript:alert(1)", "https://é", "x" * 1000, "http://a b"],
    "From": ["", "anonymous", "sip:ann@example.com", "\x00", "+" + "1" * 500],
    "CallStatus": ["", "unheard-of"],
    "SpeechResult": ["", " ", "\n"],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in FIELDS.items() for value in values]
)
@pytest.mark.parametrize("path", ["/voice", "/voice/process?turn=1&step=reason"])
def test_odd_fields_are_answered_in_words(line: Inside, path: str, name: str, value: str) -> None:
    """No value of a field, however odd, costs the caller the answer."""
    judged(line.post(path, webhook(SpeechResult="Ann, my bill") | {name: value}), path)


@pytest.mark.parametrize(
    "doubt",
    [
        *("9.5E-4", "1e-05", "0.00095", "9.5e-004", "1e-100", ".3", "0.3E0", "2E-1", " 0.3", "0."),
        "0.12345678901234567890123",
    ],
)
def test_a_small_confidence_may_be_written_in_any_way(doubt: str, file: Path) -> None:
    """Python and JavaScript write 0.00095 as 9.5E-4: that is a doubt, and the line asks back."""
    here = Inside({"DEPARTMENTS": f"billing={PERSON}", "STATE_FILE": str(file)})
    heard = webhook(SpeechResult="billing", Confidence=doubt)
    said = judged(here.post("/voice/process?turn=1&step=menu", heard))
    assert in_twiml("did_you_say", name="billing") in said


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        ({"SpeechResult": "billing", "Confidence": "0.31"}, 0.31),
        ({"SpeechResult": "billing", "Confidence": "0.0"}, 0.0),
        ({"SpeechResult": "billing"}, None),
        ({"SpeechResult": "billing", "Confidence": "high"}, None),
        ({"Digits": "1", "Confidence": "0.0"}, None),  # nothing was recognised
    ],
)
def test_the_record_keeps_how_sure_recognition_was(
    fields: dict[str, str], kept: float | None, file: Path
) -> None:
    """The page of a call shows it as JSON, and with it why the line asked back."""
    here = Inside({"DEPARTMENTS": f"billing={PERSON}", "STATE_FILE": str(file)})
    heard = webhook(**fields)
    here.post("/voice/process?turn=1&step=menu", heard)
    cell = json.loads(stored(file)[f"call:{heard['CallSid']}:2"])
    assert cell.get("confidence") == kept


@pytest.mark.parametrize(
    "share", ["", "e", ".", "1.2", "-0.1", "NaN", "inf", "0,3", "1_0", "\u0663"]
)
def test_a_confidence_that_is_none_is_no_doubt(share: str) -> None:
    """What is no number from 0 to 1 counts as absent: then the words are trusted."""
    assert read_share(share) is None


@pytest.mark.parametrize(
    ("status", "leads_to"),
    [
        *((status, "leave_message") for status in ("in-progress", "ringing", "queued")),
        *((status, "goodbye") for status in ("completed", "failed", "")),
    ],
)
def test_a_dial_that_is_called_off_is_no_answer(status: str, leads_to: str, line: Inside) -> None:
    """While the caller is still there, canceled is not the caller's doing: voicemail follows."""
    outcome = webhook(DialCallStatus="canceled", CallStatus=status)
    assert in_twiml(leads_to) in judged(line.post("/voice/process?turn=1&step=connect", outcome))


@pytest.mark.parametrize("url", ["javascript:alert(1)", "https://a b", "//x", "https://x\n", "x"])
def test_a_recording_is_at_an_address(line: Inside, file: Path, url: str) -> None:
    """What is no plain http address is no recording: it is neither believed nor kept."""
    said = judged(line.post("/voice/process?turn=1&step=voicemail", webhook(RecordingUrl=url)))
    assert in_twiml("message_taken") not in said
    assert "recording" not in "".join(stored(file).values())


@pytest.mark.parametrize("shown", ["0", "1"])
def test_the_log_shows_words_and_numbers_only_when_told(
    file: Path, log: Callable[[], list[dict[str, Any]]], shown: str
) -> None:
    """What callers say, and their numbers, stand in the log with LOG_WORDS=1 and not without."""
    phone = Inside({"LOG_WORDS": shown, "STATE_FILE": str(file)}).phone()
    phone.ring()
    phone.say("Ann, my bill")
    phone.hang_up()
    logged = json.dumps(log())
    assert ("Ann, my bill" in logged) == (shown == "1")
    assert (phone.caller in logged) == (shown == "1")
    assert phone.call_sid in logged


def test_a_repeated_field_and_a_field_without_name_do_no_harm(line: Inside) -> None:
    """A form may repeat names, and have unheard-of ones; with a nameless field it is nobody's."""
    odd = [*webhook().items(), ("Digits", "0"), ("Digits", "1"), ("Unheard", "of")]
    target = "/voice/process?turn=1&step=reason"
    assert dialled(judged(line.post(target, odd))) == [PERSON]
    assert line.post(target, [*odd, ("", "x")]).status == 403


def test_a_body_counts_whatever_it_is_called(line: Inside) -> None:
    """No Content-Type takes a body out of the signature; and a call is named by a form alone."""
    signature = {"X-Twilio-Signature": sign(TOKEN, ORIGIN + "/voice", [])}
    for kind in ("application/json", "", "multipart/form-data", "text/plain", FORM):
        headers = signature | {"Content-Type": kind}
        answer = line.send("POST", "/voice", b'{"CallSid": 1}', headers)
        assert (answer.status, answer.kind) == (403, "text/plain")
        answer = line.send("POST", "/voice", b"", headers)
        assert (answer.status, answer.kind) == (400, "text/plain")
