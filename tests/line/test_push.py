"""A held caller is fetched by Twilio's own library, and only when nobody speaks the answer yet."""

import os
import time
from collections.abc import Iterator

import pytest
from twilio.base.exceptions import TwilioRestException

import main
from standins.inside import TOKEN, Inside
from standins.twilio_api import TwilioApi
from standins.upstash import Upstash

SID = "CA" + "1" * 32


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


@pytest.fixture
def upstash() -> Iterator[Upstash]:
    """A database of the test's own."""
    with Upstash() as upstash:
        yield upstash


def held(api: TwilioApi, upstash: Upstash) -> tuple[main.Desk, main.Job]:
    """A line's desk, and a question whose caller is on hold."""
    here = Inside({**upstash.settings, "TWILIO_ACCOUNT_SID": api.account})
    hook = main.Hook(SID, "+15557654321", "+15550001111", "https://l.example", main.Heard(), turn=1)
    return here.line.desk, main.Job(hook, main.Asked("a ticket", at=time.time(), step="think"))


def test_a_held_caller_is_fetched(api: TwilioApi, upstash: Upstash) -> None:
    """The call is sent to the very turn that waits, marked as a push."""
    desk, job = held(api, upstash)
    desk.push(job)
    [push] = api.pushes
    assert (push.call_sid, push.method) == (SID, "POST")
    assert push.url.startswith("https://l.example/voice/process?turn=1&step=think&hold=1&pushed=1#")


@pytest.mark.parametrize("cell", ["2", "end", "1:voice"])
def test_a_caller_who_hears_it_already_is_left_alone(
    api: TwilioApi, upstash: Upstash, cell: str
) -> None:
    """The next turn stands, the call is over, or somebody else speaks: no push."""
    desk, job = held(api, upstash)
    upstash.quietly(["SET", job.hook.cell(cell), "look", "EX", "60"])
    desk.push(job)
    assert api.pushes == []


def test_a_person_who_took_over_is_not_interrupted(api: TwilioApi, upstash: Upstash) -> None:
    """Redis was away and a person talks with the caller: the answer comes too late for a push."""
    desk, job = held(api, upstash)
    desk.leave_alone(job.hook)
    desk.push(job)
    assert api.pushes == []


def test_a_busy_api_is_asked_again(api: TwilioApi, upstash: Upstash) -> None:
    """429 was never processed, so the push comes once more; then it arrives."""
    desk, job = held(api, upstash)
    faults = iter(["429"])
    api.fault = lambda _push: next(faults, None)
    desk.push(job)
    assert len(api.pushes) == 2


@pytest.mark.parametrize(("fault", "done"), [("21220", True), ("429", False)])
def test_what_the_api_refuses_is_understood(api: TwilioApi, fault: str, *, done: bool) -> None:
    """A call that is over is fine; too many requests may be repeated."""
    api.fault = lambda _push: fault
    settings = main.read_settings({"TWILIO_AUTH_TOKEN": TOKEN, "TWILIO_ACCOUNT_SID": api.account})
    assert main.redirected(settings, SID, "https://l.example/") is done


def test_a_push_that_fails_for_good_is_logged(
    api: TwilioApi, upstash: Upstash, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another error is no reason to lose the caller, who comes back to look; the log tells it."""
    api.fault = lambda _push: "500"
    desk, job = held(api, upstash)
    with pytest.raises(TwilioRestException):
        main.redirected(desk.settings, SID, "https://l.example/")
    desk.push(job)
    assert "push failed" in capsys.readouterr().out


def test_a_graceful_stop_gives_leases_back(api: TwilioApi, upstash: Upstash) -> None:
    """What this instance works on is free for the next one at once."""
    desk, job = held(api, upstash)
    assert main.Cells(desk.store, time.monotonic() + 2).settle(job.lease, job.owner, 60)
    job.renewed = time.monotonic()
    desk.jobs[job.lease] = job
    desk.give_back()
    assert upstash.quietly(["EXISTS", job.lease]) == [0]
