"""Redis is slow, down, forgetful or wrong: the caller's words, and the cells that are kept."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from standins.backend import together
from standins.inside import Inside, judged, webhook
from standins.rows import first_quick, mostly_long
from standins.sentences import in_twiml, say
from standins.timing import LATE
from standins.upstash import Command, Upstash

PERSON: Final = "+15550100099"
GREETING: Final = in_twiml("greeting")
MENU: Final = {"DEPARTMENTS": "billing=+15550100001 sales=+15550100002", "FORWARD_TO": PERSON}


def test_the_first_webhook_costs_one_command_and_later_ones_two(upstash: Upstash) -> None:
    """Three turns, a whisper and the end are seven commands, each in a round trip of its own."""
    phone = Inside({"FORWARD_TO": PERSON, **upstash.settings}).phone()
    spent = []
    for act in (phone.ring, lambda: phone.say("Ann, my bill"), lambda: phone.callee("completed")):
        act()
        spent.append((len(upstash.commands), upstash.round_trips))
    assert phone.state == "ended"  # with the status callback's command in the last sum
    assert spent == [(1, 1), (3, 3), (7, 7)]
    assert [command[0] for command in upstash.commands] == [
        "SET",
        "MGET",
        "SET",
        "GETEX",
        "MGET",
        "SET",
        "SET",
    ]


def test_a_repeated_webhook_costs_no_more_than_the_first(upstash: Upstash) -> None:
    """A repeat looks, and keeps that there was one: two commands, at the first turn one."""
    phone = Inside({"FORWARD_TO": PERSON, **upstash.settings}).phone()
    phone.ring()
    phone.retry()
    phone.say("Ann, my bill")
    upstash.forget()
    phone.retry()
    assert [command[0] for command in upstash.commands] == ["MGET", "SET"]


def test_a_missing_record_is_asked_of_the_primary(upstash: Upstash) -> None:
    """A replica may lag behind: nothing counts as lost before the primary was asked."""
    line = Inside({"FORWARD_TO": PERSON, **upstash.settings})
    line.post("/voice/process?turn=5&step=reason", webhook(SpeechResult="Ann, my bill"))
    assert [command[0] for command in upstash.commands] == ["MGET", "GETEX", "SET"]


def test_a_replica_that_lags_does_not_lose_the_call(upstash: Upstash) -> None:
    """The record that MGET does not see yet is found by the second look, guess and all."""
    phone = Inside({**MENU, **upstash.settings}).phone()
    phone.ring()
    phone.say("sales", confidence=0.2)
    held: dict[str, str] = {}

    def hide(command: list[str]) -> None:
        if command[0] == "MGET":
            value = upstash.quietly(["GETDEL", command[1]])[0]
            held[command[1]] = value.decode() if isinstance(value, bytes) else ""
        if command[0] == "GETEX":
            upstash.quietly(["SET", command[1], held[command[1]], "EX", "600"])

    upstash.before = hide
    phone.say("yes")
    assert phone.state == "dial"
    assert "sales" in phone.heard[0]


DEADLINE: Final = 1.0
NOISE: Final = 0.3  # seconds that a busy machine may add, to what takes 2 without a deadline

FAULTS: Final = [
    "hang",
    "drip",
    "late",
    "502",
    "empty",
    "garbage",
    "no-result",
    "quota",
    "drop",
    "apply-then-drop",
    "apply-then-hang",
    "apply-then-502",
]

LOOKS: Final = ("MGET", "GETEX")
WRITES: Final = ("SET",)
STRUCK: Final = {"read": LOOKS, "settle": WRITES, "both": (*LOOKS, *WRITES)}
ILLS: Final = {f"{fault}-{name}": (fault, STRUCK[name]) for fault in FAULTS for name in STRUCK}


@pytest.mark.waits
@pytest.mark.parametrize(
    ("fault", "struck"), mostly_long(ILLS, "502-settle", "drop-read", "hang-both")
)
def test_a_caller_is_answered_while_redis_is_ill(
    upstash: Upstash, log: Callable[[], list[dict[str, Any]]], fault: str, struck: tuple[str, ...]
) -> None:
    """Within the deadline the call goes on from the step in the URL, in words, and it is logged."""
    line = Inside({"FORWARD_TO": PERSON, "RESPONSE_DEADLINE": str(DEADLINE), **upstash.settings})
    phone = line.phone()
    phone.ring()
    log()
    upstash.fault = lambda command: fault if command[0] in struck else None
    began = time.monotonic()
    phone.say("Ann, my bill")
    assert time.monotonic() - began <= DEADLINE + NOISE + LATE
    assert phone.heard == [say("heard_connecting", heard="Ann, my bill")]
    assert phone.state == "dial"
    mine = [entry for entry in log() if entry.get("call") == phone.call_sid]
    assert [entry["level"] for entry in mine] == ["error"]
    upstash.fault = None
    upstash.release()
    phone.callee("no-answer")
    assert phone.state == "record"
    assert [*phone.broken, *phone.warned] == []


@pytest.mark.parametrize(
    ("command", "fault"), [("MGET", "forget"), ("SET", "forget"), ("SET", "apply-then-forget")]
)
def test_a_redis_that_forgets_is_made_up_for(upstash: Upstash, command: str, fault: str) -> None:
    """A cell is lost at once: the call goes on from the step in the URL all the same."""
    phone = Inside({"FORWARD_TO": PERSON, **upstash.settings}).phone()
    phone.ring()
    upstash.fault = lambda sent: fault if sent[0] == command else None
    phone.silent()
    assert phone.heard == [say("not_heard"), say("ask_reason")]
    phone.say("Ann, my bill")
    assert phone.heard == [say("heard_connecting", heard="Ann, my bill")]
    phone.callee("busy")
    phone.leave_message()
    assert phone.state == "ended"
    assert [*phone.broken, *phone.warned] == []


@pytest.mark.waits
@pytest.mark.parametrize("fault", first_quick(FAULTS))
def test_a_call_begins_while_redis_is_ill(upstash: Upstash, fault: str) -> None:
    """The first webhook is answered within the deadline whatever Redis does."""
    line = Inside({"FORWARD_TO": PERSON, "RESPONSE_DEADLINE": str(DEADLINE), **upstash.settings})
    upstash.fault = lambda _: fault
    began = time.monotonic()
    assert GREETING in judged(line.post("/voice", webhook()))
    assert time.monotonic() - began <= DEADLINE + NOISE + LATE


@pytest.mark.parametrize(
    "fault", ["apply-then-drop", "apply-then-502", "apply-then-garbage", "drop"]
)
def test_a_write_whose_answer_is_lost_counts(upstash: Upstash, fault: str) -> None:
    """The write landed, or is done again: either way a repeat hears what the caller heard."""
    phone = Inside({"FORWARD_TO": PERSON, **upstash.settings}).phone()
    phone.ring()
    strikes = iter([fault])
    upstash.fault = lambda command: next(strikes, None) if command[0] == "SET" else None
    phone.say("Ann, my bill")
    assert phone.retry().same
    assert upstash.faults[fault] == 1


def test_a_repeat_does_not_wait_for_its_mark(upstash: Upstash) -> None:
    """That a webhook came again is noted for the page of the call, and no caller waits for it."""
    phone = Inside({"FORWARD_TO": PERSON, **upstash.settings}).phone()
    phone.ring()
    phone.say("Ann, my bill")
    upstash.fault = lambda command: "hang" if command[0] == "SET" else None
    began = time.monotonic()
    assert phone.retry().same
    assert time.monotonic() - began < 1 + LATE


def test_a_line_that_was_dropped_once_costs_nothing(upstash: Upstash) -> None:
    """One dropped connection is made up for within the webhook: nothing is lost, guess and all."""
    phone = Inside({**MENU, **upstash.settings}).phone()
    phone.ring()
    phone.say("sales", confidence=0.2)
    strikes = iter(["drop"])
    upstash.fault = lambda command: next(strikes, None) if command[0] == "MGET" else None
    phone.say("yes")
    assert phone.state == "dial"


def test_a_cell_that_was_lost_costs_only_what_it_knew(upstash: Upstash) -> None:
    """Redis forgets the record of a guess: the yes means nothing any more, so the menu again."""
    phone = Inside({**MENU, **upstash.settings}).phone()
    phone.ring()
    phone.say("sales", confidence=0.2)
    upstash.flush()
    phone.say("yes")
    assert phone.state == "gather"
    assert say("menu_item", name="billing", key="1") in phone.heard[-1]


def test_the_end_is_taken_while_redis_is_away(upstash: Upstash) -> None:
    """The status callback is answered 204: there is nobody left who could hear of the trouble."""
    line = Inside({"RESPONSE_DEADLINE": str(DEADLINE), **upstash.settings})
    upstash.fault = lambda _: "502"
    assert line.post("/voice/status", webhook(CallStatus="completed")).status == 204


def test_ill_health_is_told(upstash: Upstash) -> None:
    """With a Redis that does not write, /healthz is 503 and says where to look."""
    line = Inside({"RESPONSE_DEADLINE": str(DEADLINE), **upstash.settings})
    upstash.fault = lambda _: "quota"
    answer = line.send("GET", "/healthz")
    assert answer.status == 503
    assert b"UPSTASH_REDIS_REST_URL" in answer.body
    assert upstash.token.encode() not in answer.body


@pytest.mark.parametrize(
    "env", [{"UPSTASH_REDIS_REST_TOKEN": "wrong"}, {"UPSTASH_REDIS_REST_URL": "http://127.0.0.1:9"}]
)
def test_a_wrong_address_or_token_is_found_before_the_first_call(
    upstash: Upstash, env: dict[str, str]
) -> None:
    """A Redis that cannot be reached or refuses the token makes the line unhealthy, not mute."""
    line = Inside({**upstash.settings, "RESPONSE_DEADLINE": str(DEADLINE), **env})
    assert line.send("GET", "/healthz").status == 503
    assert GREETING in judged(line.post("/voice", webhook()))


def test_a_state_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """A wrong STATE_FILE is named by /healthz; callers are served without memory all the same."""
    line = Inside({"STATE_FILE": str(tmp_path / "nowhere" / "calls"), "FORWARD_TO": PERSON})
    answer = line.send("GET", "/healthz")
    assert answer.status == 503
    assert b"STATE_FILE" in answer.body
    phone = line.phone()
    phone.ring()
    phone.say("Ann, my bill")
    assert phone.state == "dial"


@pytest.fixture
def upstash() -> Iterator[Upstash]:
    """A database of the test's own."""
    with Upstash() as upstash:
        yield upstash


@pytest.mark.waits
def test_connections_that_have_gone_silent_cost_one_attempt(upstash: Upstash) -> None:
    """A load balancer forgot several at once: one webhook waits for one, and nothing is lost."""
    here = Inside({**upstash.settings, "FORWARD_TO": PERSON, "RESPONSE_DEADLINE": "2"})
    phones = [here.phone() for _ in range(5)]
    upstash.latency = 0.1  # so that they need five connections
    together(*[phone.ring for phone in phones])
    upstash.latency = 0
    before = set(threading.enumerate())  # each of the stand-in's connections has a thread
    assert len(upstash.connections) >= 3

    def silent(_: Command) -> str | None:
        return "hang" if threading.current_thread() in before else None

    upstash.fault = silent
    took = []
    for phone in phones:
        began = time.monotonic()
        phone.say("Ann")
        took.append(time.monotonic() - began)
    assert took[0] < 0.9 + LATE
    assert max(took[1:]) < 0.4 + LATE
    assert {f"call:{phone.call_sid}:2" for phone in phones} <= upstash.keys().keys()
