"""The fallback picks a call up at the turn whose webhook failed."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from standins.backend import slow_backend
from standins.inside import ORIGIN, Inside, dialled, judged, line_with, stored, webhook
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
