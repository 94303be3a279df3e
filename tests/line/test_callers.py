"""Callers who are turned away, and callers who are counted."""

import uuid
from pathlib import Path
from typing import Final

import pytest

from standins.call import Phone
from standins.inside import Inside, webhook
from standins.sentences import in_twiml
from standins.upstash import Upstash
from standins.webhooks import Answer

PERSON: Final = {"FORWARD_TO": "+15550100099"}
CALLER: Final = "+15557654321"


def heard(line: Inside, caller: str = CALLER) -> Phone:
    """A phone that has rung there; whether its answer kept Twilio's rules is the judge's to say."""
    phone = line.phone(caller)
    phone.ring()
    assert phone.broken == []
    return phone


def first(line: Inside, call_sid: str, caller: str = CALLER) -> Answer:
    """The first webhook of a call."""
    return line.post("/voice", {"CallSid": call_sid, "From": caller, "To": "+15550001111"})


def sid() -> str:
    return "CA" + uuid.uuid4().hex


@pytest.mark.parametrize(
    ("caller", "served"),
    [
        ("+15550100066", False),
        ("anonymous", False),
        ("+15550100067", True),
        ("+1555010006", True),
        ("unknown", False),
    ],
)
def test_a_blocked_caller_is_turned_away(tmp_path: Path, caller: str, *, served: bool) -> None:
    """Exactly those named are rejected before the call is answered, so that nothing is billed."""
    state = {"STATE_FILE": str(tmp_path / "calls")}
    line = Inside({**state, **PERSON, "BLOCKED": "+15550100066 anonymous"})
    said = first(line, sid(), caller).body.decode()
    assert ('<Reject reason="rejected"' in said) is not served
    assert ("<Gather" in said) is served


def test_a_caller_has_so_many_calls_an_hour(upstash: Upstash) -> None:
    """With CALLS_PER_HOUR=2 the third call of a number hears busy; another number does not."""
    line = Inside({**upstash.settings, **PERSON, "CALLS_PER_HOUR": "2"})
    said = [first(line, sid()).body.decode() for _ in range(4)]
    assert ['<Reject reason="busy"' in each for each in said] == [False, False, True, True]
    assert b"<Gather" in first(line, sid(), "+15550100001").body


def test_the_limit_holds_for_all_instances(upstash: Upstash) -> None:
    """Who has used up the calls at one instance has used them up at every one."""
    env = {**upstash.settings, **PERSON, "CALLS_PER_HOUR": "1"}
    assert b"<Gather" in first(Inside(env), sid()).body
    assert b"<Reject" in first(Inside(env), sid()).body


def test_a_repeated_first_webhook_is_counted_once(upstash: Upstash) -> None:
    """Twilio's repeats are the same call: the next call of the caller is still served."""
    line = Inside({**upstash.settings, **PERSON, "CALLS_PER_HOUR": "2"})
    one = sid()
    answers = {first(line, one).body for _ in range(5)}
    assert len(answers) == 1
    assert b"<Gather" in first(line, sid()).body
    assert b"<Reject" in first(line, sid()).body


def test_a_repeat_after_a_lost_answer_is_counted_once(upstash: Upstash) -> None:
    """The place was taken, then Redis failed: the same call again finds its own place."""
    line = Inside({**upstash.settings, **PERSON, "CALLS_PER_HOUR": "1", "RESPONSE_DEADLINE": "1"})
    one = sid()
    upstash.fault = lambda command: "drop" if command[1].startswith("call:") else None
    assert b"<Gather" in first(line, one).body
    upstash.fault = None
    assert b"<Gather" in first(line, one).body
    assert b"<Reject" in first(line, sid()).body


def test_a_call_in_progress_is_not_counted_again(upstash: Upstash) -> None:
    """The limit is asked at the first webhook only: later ones cost what they always cost."""
    line = Inside({**upstash.settings, **PERSON, "CALLS_PER_HOUR": "1"})
    phone = heard(line)
    upstash.forget()
    phone.say("my bill")
    assert phone.state == "dial"
    assert [command[0] for command in upstash.commands] == ["MGET", "SET"]


def test_without_a_limit_nothing_is_asked(upstash: Upstash) -> None:
    """Unset, CALLS_PER_HOUR costs no command: the first webhook is one, and there is no counter."""
    first(Inside({**upstash.settings, **PERSON}), sid())
    assert [command[0] for command in upstash.commands] == ["SET"]
    assert not [key for key in list(upstash.keys()) if key.startswith("caller:")]


def test_who_hides_the_number_is_not_counted(upstash: Upstash) -> None:
    """Callers without a number have nothing in common: one does not use up the calls of another."""
    line = Inside({**upstash.settings, **PERSON, "CALLS_PER_HOUR": "1"})
    said = [first(line, sid(), "anonymous").body for _ in range(3)]
    assert all(b"<Gather" in each for each in said)


def test_the_counter_forgets_and_hides_who_called(upstash: Upstash) -> None:
    """A counter lives for an hour, and no key of Redis has a phone number in it."""
    first(Inside({**upstash.settings, **PERSON, "CALLS_PER_HOUR": "2"}), sid())
    counters = {key: ttl for key, ttl in upstash.keys().items() if key.startswith("caller:")}
    assert counters
    assert all(0 < ttl <= 3600 for ttl in counters.values())
    assert not [key for key in list(upstash.keys()) if "7654321" in key]


def test_without_redis_callers_are_not_limited() -> None:
    """The counter is out of reach: a caller too many is better than one who is turned away."""
    away = {"UPSTASH_REDIS_REST_URL": "http://127.0.0.1:1", "UPSTASH_REDIS_REST_TOKEN": "t"}
    line = Inside({**away, **PERSON, "CALLS_PER_HOUR": "1"})
    assert all(b"<Gather" in first(line, sid()).body for _ in range(2))


@pytest.mark.parametrize(
    "caller", ["+266696687", "+7378742833", "+2562533", "+86282452253", "+8656696", "+7748283"]
)
def test_a_withheld_number_is_known_by_its_letters_on_the_keypad(
    caller: str, tmp_path: Path
) -> None:
    """Twilio spells "anonymous" and the like as numbers: refused as such, and nobody's to count."""
    file = {"STATE_FILE": str(tmp_path / "calls")}
    counting = Inside({**file, "CALLS_PER_HOUR": "1"})
    for blocked in ("anonymous", caller):
        refusing = Inside({**file, "BLOCKED": blocked})
        assert b"<Reject" in refusing.post("/voice", webhook(From=caller)).body
    for _ in range(2):
        said = counting.post("/voice", webhook(From=caller)).body
        assert in_twiml("greeting") in said.decode()
