"""A held caller is moved by Twilio's own library, and only when nobody speaks the answer yet."""

import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress

import pytest
from twilio.base.exceptions import TwilioRestException

from phone_line import push as push_room
from phone_line import records
from phone_line.answers import Line
from phone_line.cells import Cells, StoreUnavailable
from phone_line.push import (
    LIMIT,
    LOOKS,
    SILENCE,
    forbid_push,
    may_speak,
    open_clients,
    push_caller,
    redirect_call,
)
from phone_line.questions import Asking
from phone_line.records import Heard
from phone_line.settings import read_settings
from phone_line.slow_work import Job
from phone_line.webhook import Webhook
from standins.backend import Backend, Pauses, Question, Reply, says
from standins.bounds import changed
from standins.call import NotNow, Phone
from standins.inside import ORIGIN, TOKEN, Inside, webhook
from standins.twilio_api import TwilioApi
from standins.upstash import Upstash
from standins.webhooks import Answer, Fields

SID = "CA" + "1" * 32
BEGAN = 1_800_000_000
HOOK = Webhook(
    SID, "+15557654321", "+15550001111", "https://l.example", Heard(), turn=1, began=BEGAN
)
QUESTION = records.Question("a ticket", at=BEGAN + 5.5, step="think")


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


def pushing(api: TwilioApi, upstash: Upstash, **more: str) -> Line:
    """A line that may move its callers."""
    return Inside({**upstash.settings, "TWILIO_ACCOUNT_SID": api.account, **more}).line.line


def cells_of(line: Line) -> Cells:
    """The cells of a line, for two seconds."""
    return Cells(line.store, time.monotonic() + 2)


def push(line: Line) -> None:
    """The worker's push of the caller who is on hold."""
    push_caller(line, HOOK, QUESTION, "owner")


def test_a_held_caller_is_moved(api: TwilioApi, upstash: Upstash) -> None:
    """The call is sent to the very turn that waits, marked as a push."""
    push(pushing(api, upstash))
    [moved] = api.pushes
    assert (moved.call_sid, moved.method) == (SID, "POST")
    place = f"turn=1&step=think&hold=1&since={BEGAN + 5}&pushed=1&began={BEGAN}#"
    assert moved.url.startswith(f"{ORIGIN}/voice/process?{place}")


def test_a_push_remembers_the_language(api: TwilioApi, upstash: Upstash) -> None:
    """Redis may be away when the moved call arrives: then the URL says how to speak."""
    push_caller(pushing(api, upstash), HOOK._replace(language="es-US"), QUESTION, "owner")
    [moved] = api.pushes
    assert "&language=es-US&" in moved.url


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
    assert may_speak(line, cells_of(line), HOOK)  # no push is waited for


def test_who_loses_to_a_push_does_not_speak(api: TwilioApi, upstash: Upstash) -> None:
    """One of them gets the voice; what a push has brought here always speaks."""
    line = pushing(api, upstash)
    push(line)
    assert not may_speak(line, cells_of(line), HOOK)
    assert may_speak(line, cells_of(line), HOOK._replace(pushed=True))


def test_what_a_push_has_brought_remembers_that_on_hold(api: TwilioApi, upstash: Upstash) -> None:
    """Redis is away when the moved call arrives: no later look waits for the push once more."""
    with Backend(lambda _: says("Booked.")) as backend:
        env = {"BACKEND_URL": backend.url, "TWILIO_ACCOUNT_SID": api.account}
        here = Inside({**upstash.settings, **env, "RESPONSE_DEADLINE": "1"})
        upstash.fault = lambda _: "502"
        since = int(time.time())
        moved = f"/voice/process?turn=1&step=think&hold=1&since={since}&pushed=1"
        said = here.post(moved, webhook(AccountSid=api.account)).body.decode()
        assert f"hold=2&amp;since={since}&amp;pushed=1" in said


def test_an_answer_that_could_not_be_kept_at_once_is_not_pushed(
    api: TwilioApi, upstash: Upstash
) -> None:
    """While Redis was away somebody may have spoken without it: a look brings the answer."""
    with Backend(lambda _: says("Booked.")) as backend:
        env = {"BACKEND_URL": backend.url, "TWILIO_ACCOUNT_SID": api.account}
        here = Inside({**upstash.settings, **env, "RESPONSE_DEADLINE": "1"})
        teller = Asking(
            here.line.line, here.line.backend, HOOK, QUESTION, records.Call(turn=1),
            records.Call(turn=1, step="think"), (),
        )  # fmt: skip
        answer = teller.attempt(time.monotonic() + 5)
        upstash.fault = lambda _: "502"
        with pytest.raises(StoreUnavailable):
            teller.keep(answer)
        upstash.fault = None
        assert teller.keep(answer) == answer
        teller.follow_up("owner")
        assert api.pushes == []


def test_a_look_that_comes_twice_speaks_twice(api: TwilioApi, upstash: Upstash) -> None:
    """A repeated look has the voice already; the push that comes then gets nothing."""
    line = pushing(api, upstash)
    assert [may_speak(line, cells_of(line), HOOK) for _ in range(2)] == [True, True]
    push(line)
    assert api.pushes == []


def test_a_silence_outlasts_the_push() -> None:
    """Whoever loses to a push says nothing until no push can come any more."""
    assert SILENCE > LIMIT


class Look:
    """A caller on hold who comes back to look just when the push has claimed the voice."""

    def __init__(self, upstash: Upstash, api: TwilioApi, backend: Backend) -> None:
        settings = {"BACKEND_URL": backend.url, "FORWARD_TO": "+15550100099"}
        more = {"TWILIO_ACCOUNT_SID": api.account, "RESPONSE_DEADLINE": "1"}
        self.worker, self.other = (Inside({**upstash.settings, **settings, **more}) for _ in "ab")
        self.claimed = threading.Event()
        clock = Pauses(over=self.is_over)
        self.phone = Phone(ORIGIN, token=TOKEN, deliver=self.deliver, clock=clock)
        api.calls[self.phone.call_sid] = self.phone
        self.looked = False

    def deliver(self, url: str, fields: Fields, headers: Mapping[str, str]) -> Answer:
        """The look comes to the instance that does not work on the question."""
        here = self.other if "hold=" in url and "pushed=" not in url else self.worker
        return here.deliver(url, fields, headers)

    def is_over(self) -> bool:
        """Tell whether a pause ends: with the claim, once, and by the push."""
        if self.claimed.is_set() and not self.looked:
            self.looked = True
            return True
        return self.phone.state != "hold"

    def play(self) -> None:
        """Ask, wait for the answer, and say one thing more if the line still listens."""
        self.phone.ring()
        self.phone.say("a ticket")
        for _ in range(6):
            if self.phone.state not in ("hold", "playing"):
                break
            with suppress(NotNow):  # fetched out of the hold just now
                self.phone.wait()
        if self.phone.state == "gather":
            self.phone.say("thanks")


@pytest.mark.long
@pytest.mark.waits
@pytest.mark.parametrize("then", ["listen", "transfer"])
@pytest.mark.parametrize("seconds", [0.0, 3.4, 4.2, 4.9])
def test_a_late_push_speaks_an_answer_once(
    api: TwilioApi, upstash: Upstash, seconds: float, then: str
) -> None:
    """Twilio takes seconds to move a call, and a look falls just after the claim: one speaks."""

    def decide(question: Question) -> Reply:
        if question.heard != "a ticket":
            return says("Anything else.")
        time.sleep(1.5)
        return says("You are booked.", then)

    api.fault = lambda _push: time.sleep(seconds)
    with Backend(decide) as backend:
        look = Look(upstash, api, backend)
        voice = f"call:{look.phone.call_sid}:1:voice"
        upstash.after = lambda command: look.claimed.set() if command[1] == voice else None
        look.play()
        time.sleep(seconds + 0.5)  # a push that comes too late would come now
        asked = [question.heard for question in backend.questions]
    heard = look.phone.transcript
    assert look.looked
    assert len(api.pushes) == 1
    assert heard.count("line: You are booked.") == 1
    assert heard.count("line dials +15550100099") == (then == "transfer")
    assert heard.count("line: Anything else.") == (then == "listen")
    assert asked == ["a ticket", "thanks"][: 1 + (then == "listen")]


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
    assert redirect_call(open_clients(settings), SID, "https://l.example/") is done


@pytest.mark.parametrize("tokens", [f"old,{TOKEN}", f"{TOKEN},new"])
def test_a_push_comes_while_the_token_is_rotated(
    api: TwilioApi, upstash: Upstash, tokens: str
) -> None:
    """Before and after the switch Twilio takes one of the two tokens; the other is no failure."""
    line = pushing(api, upstash, TWILIO_AUTH_TOKEN=tokens)
    with changed(push_room, LATEST=20):
        push(line)
    assert len(api.pushes) == 1


def test_a_push_that_fails_for_good_is_logged(
    api: TwilioApi, upstash: Upstash, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another error is no reason to lose the caller, who comes back to look; the log tells it."""
    api.fault = lambda _push: "500"
    line = pushing(api, upstash)
    with pytest.raises(TwilioRestException):
        redirect_call(open_clients(line.settings), SID, "https://l.example/")
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
