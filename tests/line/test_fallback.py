"""The fallback picks a call up at the turn whose webhook failed."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from phone_line.records import Record, write_record
from standins.backend import slow_backend, until
from standins.inside import (
    ORIGIN,
    Inside,
    dialled,
    fill_cell,
    judged,
    line_with,
    new_call,
    stored,
    webhook,
)
from standins.sentences import in_twiml
from standins.upstash import Upstash

PERSON: Final = "+15550100099"
GREETING: Final = in_twiml("greeting")
QUESTION: Final = in_twiml("ask_reason")
VOICE_PATHS: Final = ("/", "/voice", "/voice/inbound", "/webhook/voice")


def failed(url: str, **more: str) -> dict[str, str]:
    return webhook(ErrorCode="11200", ErrorUrl=url, **more)


def test_the_fallback_says_what_was_settled(line: Inside) -> None:
    """A webhook whose answer got lost is answered once more, to the letter."""
    phone = line.phone()
    phone.ring()
    phone.say("Ann, my bill")
    for sent in phone.webhooks:
        assert sent.answer is not None
        form = failed(sent.url, CallSid=phone.call_sid)
        assert line.post("/voice/fallback", form).body == sent.answer.body


def test_the_fallback_asks_again_what_was_not_answered(line: Inside) -> None:
    """What the caller said is lost with the webhook, so the question is asked again, kindly."""
    phone = line.phone()
    phone.ring()
    url = f"{ORIGIN}/voice/process?turn=1&step=reason"
    said = judged(line.post("/voice/fallback", failed(url, CallSid=phone.call_sid)))
    assert QUESTION in said
    assert in_twiml("not_heard") not in said
    assert "turn=2" in said


@pytest.mark.parametrize("url", [*(ORIGIN + path for path in VOICE_PATHS), ORIGIN, "", "\x00"])
def test_the_fallback_begins_a_call_that_nobody_answered(line: Inside, url: str) -> None:
    """When the first webhook failed, or nobody says which, the call begins at the fallback."""
    assert GREETING in judged(line.post("/voice/fallback", failed(url)))


def test_the_fallback_of_a_transfer_offers_voicemail(line: Inside) -> None:
    """How the transfer went got lost: the caller hears so and may leave a message."""
    phone = line.phone()
    phone.ring()
    phone.say("Ann, my bill")
    url = f"{ORIGIN}/voice/process?turn=2&step=connect"
    said = judged(line.post("/voice/fallback", failed(url, CallSid=phone.call_sid)))
    assert in_twiml("interrupted") in said
    assert "<Record" in said


@pytest.mark.parametrize(
    "url",
    [
        "http://[",
        "not a URL",
        f"{ORIGIN}/elsewhere",
        f"{ORIGIN}/voice/process",
        f"{ORIGIN}/voice/process?turn=abc",
        f"{ORIGIN}/voice/process?turn=101",
        f"{ORIGIN}/voice/process?step=reason",
    ],
)
def test_the_fallback_of_an_unknown_url_is_an_apology(
    line: Inside, file: Path, url: str, log: Callable[[], list[dict[str, Any]]]
) -> None:
    """An ErrorUrl that names no turn of ours still gets words and a person, and makes no cell."""
    said = judged(line.post("/voice/fallback", failed(url)))
    assert in_twiml("apology") in said
    assert dialled(said) == [PERSON]
    assert stored(file) == {}
    assert [entry["message"] for entry in log()] == ["a webhook failed"]


LISTEN = "/voice/process?turn=1&step=listen"


@pytest.fixture
def upstash() -> Iterator[Upstash]:
    """A database of the test's own."""
    with Upstash() as upstash:
        yield upstash


def test_the_fallback_knows_what_the_caller_said(upstash: Upstash) -> None:
    """A webhook fails while a worker thinks: the caller gets its answer, and is not asked again."""
    with slow_backend(2) as backend:
        here = line_with(upstash, backend, RESPONSE_DEADLINE="1")
        phone = here.phone()
        phone.ring()
        held = here.post(LISTEN, webhook(CallSid=phone.call_sid, SpeechResult="a ticket"))
        assert in_twiml("hold_1") in held.body.decode()
        time.sleep(2)
        url = "https://line.example/voice/process?turn=1&step=listen"
        said = here.post("/voice/fallback", webhook(CallSid=phone.call_sid, ErrorUrl=url)).body
        assert b"Booked." in said
        assert len(backend.questions) == 1


@pytest.mark.parametrize("step", ["goodbye", "operator", "voicemail", "blocked", "start"])
@pytest.mark.parametrize("brought", [{"SpeechResult": "a ticket"}, {}])
def test_an_answer_that_nobody_heard_does_not_end_the_talk(
    upstash: Upstash, step: str, brought: dict[str, str]
) -> None:
    """A worker settled the place of a question that was asked again: its caller is not greeted."""
    with slow_backend(0) as backend:
        here = line_with(upstash, backend)
        call = new_call()
        unheard = Record(turn=2, step=step, twiml="<Response>Booked. Goodbye.</Response>", late=1)
        fill_cell(here, f"call:{call}:2", write_record(unheard))
        said = judged(here.post(LISTEN.replace("1", "2"), webhook(CallSid=call, **brought)))
        assert GREETING not in said
        assert ("Booked." if brought else in_twiml("not_heard")) in said
        assert [question.heard for question in backend.questions] == [*brought.values()]


@pytest.mark.parametrize(
    ("asked", "stands", "said"),
    [
        ("listen", "menu", "Booked."),
        ("menu", "listen", "+15550100001"),
        ("listen", "of another release", GREETING),
        ("of another release", "menu", "+15550100001"),
        ("start", "menu", "+15550100001"),
        ("", "menu", "+15550100001"),
    ],
)
def test_a_key_answers_the_question_that_was_heard(
    upstash: Upstash, asked: str, stands: str, said: str
) -> None:
    """A record of another question was not heard, unless the URL has a step that asks nothing."""
    with slow_backend(0) as backend:
        here = line_with(upstash, backend, DEPARTMENTS="billing=+15550100001")
        call = new_call()
        record = Record(turn=2, step=stands, twiml="<Response/>")
        fill_cell(here, f"call:{call}:2", write_record(record))
        target = f"/voice/process?turn=2&step={asked}"
        assert said in judged(here.post(target, webhook(CallSid=call, Digits="1")))


def test_a_language_that_was_chosen_twice_dials_nobody(upstash: Upstash) -> None:
    """The first choice was settled and not heard; the fallback, without Redis, offered it again."""
    env = {"LANGUAGE": "en-US es-US", "DEPARTMENTS": "billing=+15550100001 sales=+15550100002"}
    here = Inside({**upstash.settings, **env, "RESPONSE_DEADLINE": "1"})
    call = new_call()
    here.post("/voice/inbound", webhook(CallSid=call))
    choice = webhook(CallSid=call, Digits="2")
    here.post("/voice/process?turn=1&step=language", choice)
    upstash.fault = lambda _: "502"
    url = f"{ORIGIN}/voice/process?turn=1&step=language"
    offered = judged(here.post("/voice/fallback", failed(url, CallSid=call)))
    assert "turn=2&amp;step=language" in offered
    upstash.fault = None
    said = judged(here.post("/voice/process?turn=2&step=language", choice))
    assert dialled(said) == []
    assert in_twiml("greeting", "es") in said


def test_the_fallback_asks_the_primary_what_the_caller_said(upstash: Upstash) -> None:
    """A replica may lag: a question that a worker thinks about is not asked for again."""
    with slow_backend(2) as backend:
        here = line_with(upstash, backend, RESPONSE_DEADLINE="1")
        phone = here.phone()
        phone.ring()
        here.post(LISTEN, webhook(CallSid=phone.call_sid, SpeechResult="a ticket"))
        asked = f"call:{phone.call_sid}:1:asked"
        held: list[object] = []

        def hide(command: list[str]) -> None:
            if command[0] == "MGET" and asked in command:
                held.extend(upstash.quietly(["GETDEL", asked]))
            if command[:2] == ["GETEX", asked]:
                [value] = held
                assert isinstance(value, bytes)
                upstash.quietly(["SET", asked, value.decode(), "EX", "600"])

        upstash.before = hide
        form = failed(f"{ORIGIN}{LISTEN}", CallSid=phone.call_sid)
        assert in_twiml("ask_help") not in judged(here.post("/voice/fallback", form))


def test_the_fallback_leaves_the_voice_to_a_push(upstash: Upstash) -> None:
    """A worker settles the answer just before the question is asked again: the push says it."""
    with slow_backend(0) as backend:
        here = line_with(upstash, backend, TWILIO_ACCOUNT_SID="AC" + "0" * 32)
        call = new_call()
        late = Record(turn=2, step="listen", twiml="<Response>Booked.</Response>", late=1)

        def overtake(command: list[str]) -> None:
            if command[0] == "SET" and command[1] == f"call:{call}:2":
                upstash.quietly(["SET", f"call:{call}:2", write_record(late), "EX", "600"])
                upstash.quietly(["SET", f"call:{call}:1:voice", "push by somebody", "EX", "600"])

        upstash.before = overtake
        form = failed(f"{ORIGIN}{LISTEN}", CallSid=call, AccountSid="AC" + "0" * 32)
        said = here.post("/voice/fallback", form).body.decode()
        assert "Booked." not in said
        assert "pushed=1" in said


def test_who_waits_is_not_sent_away_by_an_answer_that_nobody_heard(upstash: Upstash) -> None:
    """The same on hold, where the question is forgotten as well: it is asked again."""
    with slow_backend(0) as backend:
        here = line_with(upstash, backend)
        call = new_call()
        unheard = Record(turn=2, step="voicemail", twiml="<Response><Record/></Response>", late=1)
        fill_cell(here, f"call:{call}:2", write_record(unheard))
        look = f"/voice/process?turn=2&step=think&hold=1&since={int(time.time())}"
        assert in_twiml("ask_help") in judged(here.post(look, webhook(CallSid=call)))


def test_a_question_that_is_asked_again_is_not_cut_short(upstash: Upstash) -> None:
    """Redis is away, so the fallback knows of no worker: its answer may not end the new talk."""
    account = "AC" + "0" * 32
    with slow_backend(0) as backend:
        here = line_with(upstash, backend, TWILIO_ACCOUNT_SID=account, RESPONSE_DEADLINE="1")
        call = new_call()
        upstash.fault = lambda _: "502"
        form = failed(f"https://line.example{LISTEN}", CallSid=call, AccountSid=account)
        assert in_twiml("ask_help") in judged(here.post("/voice/fallback", form))
        upstash.fault = None
        voice = ["GET", f"call:{call}:1:voice"]
        assert until(lambda: upstash.quietly(voice) == [b"person"])
