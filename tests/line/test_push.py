"""A held caller is moved by Twilio's own library, and only when nobody speaks the answer yet."""

import os
import time
from collections.abc import Iterator

import pytest
from twilio.base.exceptions import TwilioRestException

from phone_line import push as push_room
from phone_line.answers import Line
from phone_line.cells import Cells
from phone_line.push import (
    LIMIT,
    LOOKS,
    SILENCE,
    forbid_push,
    may_speak,
    open_client,
    push_caller,
    redirect_call,
)
from phone_line.records import Heard
from phone_line.settings import read_settings
from phone_line.slow_work import Job
from phone_line.webhook import Webhook
from standins.bounds import changed
from standins.inside import ORIGIN, TOKEN, Inside
from standins.twilio_api import TwilioApi
from standins.upstash import Upstash

SID = "CA" + "1" * 32
BEGAN = 1_800_000_000
HOOK = Webhook(
    SID, "+15557654321", "+15550001111", "https://l.example", Heard(), turn=1, began=BEGAN
)


@pytest.fixture
def api() -> Iterator[TwilioApi]:
    """Twilio's REST API, which this process finds as a proxy and trusts, while the test lasts."""
    with TwilioApi(TOKEN) as api:
        before = dict(os.environ)
        os.environ.update(api.settings)
        try:
            yield api
        finally:
            os.environ.clear()
            os.environ.update(before)


def pushing(api: TwilioApi, upstash: Upstash) -> Line:
    """A line that may move its callers."""
    return Inside({**upstash.settings, "TWILIO_ACCOUNT_SID": api.account}).line.line


def cells_of(line: Line) -> Cells:
    """The cells of a line, for two seconds."""
    return Cells(line.store, time.monotonic() + 2)


def push(line: Line) -> None:
    """The worker's push of the caller who is on hold."""
    push_caller(line, HOOK, "think", "owner")


def test_a_held_caller_is_moved(api: TwilioApi, upstash: Upstash) -> None:
    """The call is sent to the very turn that waits, marked as a push."""
    push(pushing(api, upstash))
    [moved] = api.pushes
    assert (moved.call_sid, moved.method) == (SID, "POST")
    place = f"turn=1&step=think&hold=1&pushed=1&began={BEGAN}#"
    assert moved.url.startswith(f"{ORIGIN}/voice/process?{place}")


@pytest.mark.parametrize("cell", ["3", "2:asked", "end", "1:voice"])
def test_a_caller_who_has_gone_on_is_left_alone(
    api: TwilioApi, upstash: Upstash, cell: str
) -> None:
    """The caller has replied, asks the next question, has hung up, or a look speaks: no push."""
    line = pushing(api, upstash)
    upstash.quietly(["SET", HOOK.cell(cell), LOOKS, "EX", "60"])
    push(line)
    assert api.pushes == []


def test_a_caller_who_goes_on_during_the_claim_is_left_alone(
    api: TwilioApi, upstash: Upstash
) -> None:
    """A look could not claim, has spoken all the same, and the caller replied just now: no push."""
    line = pushing(api, upstash)

    def reply(command: list[str]) -> None:
        if command[0] == "SET" and command[1].endswith(":voice"):
            upstash.quietly(["SET", HOOK.cell("3"), "{}", "EX", "60"])

    upstash.before = reply
    push(line)
    assert api.pushes == []


def test_a_person_who_took_over_is_not_interrupted(api: TwilioApi, upstash: Upstash) -> None:
    """Redis was away and a person talks with the caller: the answer comes too late for a push."""
    line = pushing(api, upstash)
    forbid_push(line, HOOK, time.monotonic() + 5)
    push(line)
    assert api.pushes == []


def test_who_loses_to_a_push_does_not_speak(api: TwilioApi, upstash: Upstash) -> None:
    """One of them gets the voice; what a push has brought here always speaks."""
    line = pushing(api, upstash)
    push(line)
    assert not may_speak(line, cells_of(line), HOOK)
    assert may_speak(line, cells_of(line), HOOK._replace(pushed=True))


def test_a_look_that_comes_twice_speaks_twice(api: TwilioApi, upstash: Upstash) -> None:
    """A repeated look has the voice already; the push that comes then gets nothing."""
    line = pushing(api, upstash)
    assert [may_speak(line, cells_of(line), HOOK) for _ in range(2)] == [True, True]
    push(line)
    assert api.pushes == []


def test_a_silence_outlasts_the_push() -> None:
    """Whoever loses to a push says nothing until no push can come any more."""
    assert SILENCE > LIMIT


def test_a_busy_api_is_asked_again(api: TwilioApi, upstash: Upstash) -> None:
    """429 was never processed, so the push comes once more; then it arrives."""
    line = pushing(api, upstash)
    faults = iter(["429"])
    api.fault = lambda _push: next(faults, None)
    with changed(push_room, LATEST=20):  # seconds, in which even a busy machine has asked twice
        push(line)
    assert len(api.pushes) == 2


@pytest.mark.parametrize(("fault", "done"), [("21220", True), ("429", False)])
def test_what_the_api_refuses_is_understood(api: TwilioApi, fault: str, *, done: bool) -> None:
    """A call that is over is fine; too many requests may be repeated."""
    api.fault = lambda _push: fault
    settings = read_settings({"TWILIO_AUTH_TOKEN": TOKEN, "TWILIO_ACCOUNT_SID": api.account})
    assert redirect_call(open_client(settings), SID, "https://l.example/") is done


def test_a_push_that_fails_for_good_is_logged(
    api: TwilioApi, upstash: Upstash, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another error is no reason to lose the caller, who comes back to look; the log tells it."""
    api.fault = lambda _push: "500"
    line = pushing(api, upstash)
    with pytest.raises(TwilioRestException):
        redirect_call(open_client(line.settings), SID, "https://l.example/")
    push(line)
    assert "push failed" in capsys.readouterr().out


class Nothing:
    """A task of which only the name matters."""

    name, call_sid, until, alone = HOOK.cell(1), SID, 0.0, True


def test_a_graceful_stop_gives_leases_back(upstash: Upstash) -> None:
    """What this instance works on is free for the next one at once."""
    desk = Inside(upstash.settings).line.desk
    job = Job(Nothing())  # type: ignore[arg-type] # nobody works on it
    assert Cells(desk.store, time.monotonic() + 2).settle(job.lease, job.owner, 60) == job.owner
    job.renewed = time.monotonic()
    desk.jobs[job.task.name] = job
    desk.give_back()
    assert upstash.quietly(["EXISTS", job.lease]) == [0]
