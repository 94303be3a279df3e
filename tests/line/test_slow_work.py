"""Slow work, with everything real but the services: processes, HTTP, Redis, and time itself.

The backend thinks, instances die, Redis goes away, Twilio refuses: the caller is held, never lost.
"""

import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Final

import httpx
import pytest

from phone_line.push import SILENCE
from standins.backend import ORIGIN, Backend, Caller, Question, Reply, says, together, until
from standins.inside import Inside
from standins.instance import ROOT, Instance
from standins.sentences import say
from standins.timing import LATE
from standins.transcript import Transcript
from standins.twilio_api import Push, TwilioApi
from standins.upstash import Command, Upstash
from standins.webhooks import Answer, http_deliver
from tickets import PAYMENT_SECONDS, TicketLine, Tickets

pytestmark = pytest.mark.waits  # for a backend that thinks, a pause that passes, a lease that ends
of_the_scenes = pytest.mark.xdist_group("scenes")  # in one worker: the scenes are played once

TOKEN: Final = "12345"
PERSON: Final = "+15550100099"
SORRY: Final = f"line: {say('no_result')}"


@pytest.fixture
def upstash() -> Iterator[Upstash]:
    """A Redis of the test's own."""
    with Upstash() as upstash:
        yield upstash


@pytest.fixture
def api() -> Iterator[TwilioApi]:
    """A Twilio that moves calls."""
    with TwilioApi(TOKEN) as api:
        yield api


def settings(upstash: Upstash, backend: Backend | Tickets, **more: str) -> dict[str, str]:
    """A line that asks the backend, and has one person behind it."""
    return {
        **upstash.settings,
        "TWILIO_AUTH_TOKEN": TOKEN,
        "PUBLIC_URL": ORIGIN,
        "BACKEND_URL": backend.url,
        "BACKEND_TOKEN": "open-sesame",
        "FORWARD_TO": PERSON,
        **more,
    }


def on_a(*instances: Instance, api: TwilioApi | None = None, paused: bool = True) -> Caller:
    """A caller whose phone rings at the first of these instances."""
    return Caller(*instances, token=TOKEN, api=api, paused=paused)


def cell(upstash: Upstash, caller: Caller, name: str) -> str | None:
    """The value in one of the call's cells."""
    value = upstash.quietly(["GET", f"call:{caller.call_sid}:{name}"])[0]
    return value.decode() if isinstance(value, bytes) else None


def errors(instance: Instance, caller: Caller) -> list[str]:
    """The errors that the instance logged about a call."""
    entries = [e for e in instance.log() if e.get("call") == caller.call_sid]
    return [str(entry["message"]) for entry in entries if entry["level"] == "error"]


def after(seconds: float, words: str, then: str = "listen") -> Callable[[Question], Reply]:
    """A backend that thinks for so long, then says this; events are taken at once."""

    def decide(question: Question) -> Reply:
        if question.heard:
            time.sleep(seconds)
        return says(words, then)

    return decide


# --- calls that take long: they are made side by side, and each test then looks at its own ---


def pay_for_twelve_seconds() -> tuple[list[Caller], list[Push], Tickets]:
    """Two callers buy a ticket, one on a line that cannot push, one on a line that can."""
    with (
        Upstash() as upstash,
        TwilioApi(TOKEN) as api,
        Tickets("open-sesame") as tickets,
        Instance(settings(upstash, tickets)) as plain,
        Instance(settings(upstash, tickets, **api.settings)) as pushing,
    ):
        callers = [on_a(plain), on_a(pushing, api=api)]
        buy = ("from Berlin to Hamburg", "yes please")
        together(*[partial(caller.ask, *buy) for caller in callers])
    return callers, api.pushes, tickets


def kill_a_thinking_instance() -> tuple[list[Caller], Tickets]:
    """Two callers wait for a payment, one on hold, one in a webhook, when their instance dies."""
    with (
        Upstash() as upstash,
        Tickets("open-sesame", payment_seconds=5) as tickets,
        Instance(settings(upstash, tickets)) as first,
        Instance(settings(upstash, tickets)) as second,
    ):
        holding, waiting = callers = [on_a(first).ask("from Berlin to Munich") for _ in range(2)]

        def kill() -> None:
            assert until(lambda: holding.held == 1)
            time.sleep(0.9)
            for caller in callers:
                caller.instance = second
            first.kill()

        def pay_later() -> None:
            time.sleep(2.5)
            waiting.say("yes please").hold()

        together(kill, pay_later, lambda: holding.say("yes please").hold())
    return callers, tickets


def play_every_ending() -> tuple[dict[str, Caller], list[str], Tickets]:
    """The ticket line's calls, as written below, and where they differ from that."""
    found: list[str] = []
    with (
        Upstash() as upstash,
        Tickets("open-sesame", payment_seconds=2.5) as tickets,
        Instance(settings(upstash, tickets, RESPONSE_DEADLINE="3")) as instance,
    ):
        callers = {name: on_a(instance) for name in ENDINGS}

        def play(name: str) -> None:
            found.extend(Transcript(ENDINGS[name]).play(callers[name].phone))

        together(*[partial(play, name) for name in ENDINGS])
    return callers, found, tickets


ENDINGS: Final = {
    "booked": f"""
        rings
        line: {say("greeting")}
        line: {say("ask_help")}
        caller: a ticket please
        line: Where from, and where to?
        caller: from Berlin to Hamburg
        line: A train to Hamburg leaves at 9:15, for 29 euros. Shall I book it?
        caller: yes please
        line: {say("hold_1")}
        line waits 4 s
        line: You are booked to Hamburg. Have a good trip!
        line hangs up
    """,
    "payment refused": f"""
        rings
        line: {say("greeting")}
        line: {say("ask_help")}
        caller: I want to go from Berlin to Paris
        line: A train to Paris leaves at 7:05, for 139 euros. Shall I book it?
        caller: yes
        line: {say("hold_1")}
        line waits 4 s
        line: Your payment was refused, nothing is booked.
        line hangs up
    """,
    "no such train": f"""
        rings
        line: {say("greeting")}
        line: {say("ask_help")}
        caller: from Berlin to Reykjavik
        line: There is no train from Berlin to Reykjavik. Goodbye.
        line hangs up
    """,
}
PAYMENTS: Final = {"booked": 1, "payment refused": 0, "no such train": 0}


def mends(question: Question) -> Reply:
    """Fails twice, then knows the answer."""
    return says("Here at last.") if question.attempt > 2 else Reply(b"oops", 500)


GARBLED: Final = "Bell \x07, escape \x1b[31m, nul \x00, and <Dial>+15550666</Dial> end."
MISDEEDS: Final[dict[str, Callable[[Question], Reply]]] = {
    "fails": lambda _: Reply(b"oops", 500),
    "cuts": lambda _: Reply(b"", cut=True),
    "answers HTML": lambda _: Reply(b"<!doctype html><title>Hi</title>", 200, "text/html"),
    "answers five megabytes": lambda _: Reply(b'{"say": "' + b"a" * 5_000_000 + b'"}'),
    "invents a then": lambda _: says("hello", "sing"),
    "answers a list": lambda _: Reply(b"[1, 2]"),
    "nests deeply": lambda _: Reply(b"[" * 100_000),
    "transfers to a stranger": lambda _: says("hello", "transfer", to="+15550666000"),
    "transfers to nobody": lambda _: says("hello", "transfer", to="sales"),
}
AFTER_ALL: Final[Mapping[str, tuple[Callable[[Question], Reply], str]]] = {
    "mends": (mends, "line: Here at last."),
    "has no then": (lambda _: Reply(b'{"say": "hello"}'), "line: hello"),
    "talks a lot": (lambda _: says("long " * 2_000), "line: long long"),
    "garbles": (lambda _: says(GARBLED), "line: Bell, escape 31m, nul, and +15550666 end."),
}
REFUSALS: Final = {"knows us not": 401, "has moved": 404, "dislikes the question": 422}


ATTEMPTS: Final[dict[str, tuple[int, int]]] = {
    "cuts": (5, 10),  # a kept connection may have died: then a fresh one is tried at once
    "mends": (3, 3),
    **dict.fromkeys(("has no then", "talks a lot", "garbles", *REFUSALS), (1, 1)),
}


def misbehave(question: Question) -> Reply:
    """Does what the caller says."""
    if status := REFUSALS.get(question.heard):
        return Reply(b"no", status)
    known = MISDEEDS | {name: decide for name, (decide, _) in AFTER_ALL.items()}
    return known[question.heard](question) if question.heard else says("")


def ask_who_misbehaves(*names: str) -> tuple[dict[str, Caller], Backend]:
    """One caller for each thing that a backend can do wrong."""
    with (
        Upstash() as upstash,
        TwilioApi(TOKEN) as api,
        Backend(misbehave) as backend,
        Instance(settings(upstash, backend, **api.settings)) as instance,
    ):
        callers = {name: on_a(instance, api=api) for name in names}
        asking = [partial(caller.ask, name) for name, caller in callers.items()]
        together(*[partial(one_after_another, nth, ask) for nth, ask in enumerate(asking)])
    return callers, backend


def one_after_another(nth: int, ask: Callable[[], object]) -> None:
    """Ask a little later than whoever came before.

    All at once they would keep a busy machine from answering for Redis in time, and a question that
    cannot be kept is asked at most once: that is another promise, and has tests of its own.
    """
    time.sleep(0.15 * nth)
    ask()


class Refusing(Backend):
    """A backend whose port is closed."""

    def __init__(self) -> None:
        super().__init__(lambda _: says(""))
        with self:
            pass


WAITED: Final = 112  # seconds that a caller seems to have waited already


def wait_long(upstash: Upstash, caller: Caller, words: str) -> None:
    """A call whose question was settled long ago: the same cell as of another call, but older."""
    other = on_a(caller.instance).ring().say(words)
    asked = json.loads(cell(upstash, other, "1:asked") or "")
    asked["at"] -= WAITED
    upstash.quietly(["SET", f"call:{caller.call_sid}:1:asked", json.dumps(asked), "EX", "600"])
    caller.ask(words)


def wait_two_minutes() -> dict[str, Caller]:
    """Callers of backends that hang, that drip, and that are not there."""

    def decide(question: Question) -> Reply:
        if question.heard == "hang":
            backend.closing.wait(60)
        return Reply(says("x" * 500).body, drip=0.5)

    with (
        Upstash() as upstash,
        Backend(decide) as backend,
        Instance(settings(upstash, backend, RESPONSE_DEADLINE="2")) as instance,
        Instance(settings(upstash, Refusing(), RESPONSE_DEADLINE="2", FORWARD_TO="")) as lonely,
    ):
        callers = {"hang": on_a(instance), "drip": on_a(instance), "refuse": on_a(lonely)}
        together(*[partial(wait_long, upstash, caller, words) for words, caller in callers.items()])
    return callers


class Scenes:
    """Calls that take long and need no other test's services, played at once at the first need."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self.payment = pool.submit(pay_for_twelve_seconds)
        self.death = pool.submit(kill_a_thinking_instance)
        self.endings = pool.submit(play_every_ending)
        self.misdeeds = pool.submit(ask_who_misbehaves, *MISDEEDS)
        self.patience = pool.submit(wait_two_minutes)


@pytest.fixture(scope="module")
def scenes() -> Iterator[Scenes]:
    """The long calls; ask for the result of one."""
    with ThreadPoolExecutor(5) as pool:
        yield Scenes(pool)


@pytest.mark.long
@of_the_scenes
def test_a_payment_of_twelve_seconds_is_waited_for(scenes: Scenes) -> None:
    """Held in words; with credentials the caller hears the answer a second after the bank's."""
    booked = "line: You are booked to Hamburg."
    callers, pushes, tickets = scenes.payment.result()
    for caller in callers:
        print(f"held {caller.held} times, booked after {caller.waited_for(booked):.2f} s")
        assert caller.times(booked) == 1
        assert caller.times(say("hold_2")) == 1
        assert caller.phone.state == "ended"
        assert caller.phone.broken == []
        assert caller.slowest < 4.5 + LATE
    looked, pushed = (caller.waited_for(booked) for caller in callers)
    assert PAYMENT_SECONDS < pushed < PAYMENT_SECONDS + 1 + LATE
    assert PAYMENT_SECONDS < looked < PAYMENT_SECONDS + 11 + LATE
    assert [push.call_sid for push in pushes] == [callers[1].call_sid]
    assert max(Counter(tickets.keys).values()) == 1
    assert len(tickets.line.payments) == 2


@pytest.mark.long
@of_the_scenes
def test_the_death_of_a_thinking_instance_costs_the_caller_only_time(scenes: Scenes) -> None:
    """After kill -9 another instance takes the question over; answered once, and paid once."""
    booked = "line: You are booked to Munich."
    callers, tickets = scenes.death.result()
    assert callers[1].times("# twilio tries again") == 1
    for caller in callers:
        late = caller.waited_for(booked) - 5
        print(f"the answer was {late:.2f} s late")
        assert caller.times(booked) == 1
        assert late < 15.5 + LATE
        assert tickets.keys.count(f"{caller.call_sid}:2") == 2
        assert [call for call, _ in tickets.line.payments].count(caller.call_sid) == 1


@pytest.mark.long
@of_the_scenes
def test_every_ending_of_the_ticket_line_is_told_to_the_caller(scenes: Scenes) -> None:
    """Booked, payment refused, no such train: in words, and paid for once or not at all."""
    callers, found, tickets = scenes.endings.result()
    assert found == []
    for name, caller in callers.items():
        assert [sid for sid, _ in tickets.line.payments].count(caller.call_sid) == PAYMENTS[name]
        assert tickets.keys.count(f"{caller.call_sid}:ended") == 1
    assert max(Counter(tickets.keys).values()) == 1
    assert len(tickets.line.events) == len(ENDINGS)


@pytest.mark.long
@of_the_scenes
def test_a_backend_that_misbehaves_leads_to_a_person(scenes: Scenes) -> None:
    """Held and asked again where that helps, under one key; then a person, and no other number."""
    callers, backend = scenes.misdeeds.result()
    judge_who_misbehaves(callers, backend)
    waits = [caller.waited_for(SORRY) for caller in callers.values()]
    print(f"a person after {min(waits):.1f} to {max(waits):.1f} s")


@pytest.mark.long
def test_a_backend_that_refuses_or_mends_is_not_asked_for_long() -> None:
    """A refusal leads to a person at once; an answer that can be used at last is heard."""
    judge_who_misbehaves(*ask_who_misbehaves(*AFTER_ALL, *REFUSALS))


def judge_who_misbehaves(callers: Mapping[str, Caller], backend: Backend) -> None:
    """Hold calls to what is promised of a backend that does something wrong."""
    for name, caller in callers.items():
        keys = [question.key for question in backend.of(caller) if question.heard]
        least, most = ATTEMPTS.get(name, (5, 5))
        assert set(keys) == {f"{caller.call_sid}:1"}, name
        assert least <= len(keys) <= most, name
        assert caller.phone.broken == [], name
        assert caller.slowest < 4.5 + LATE, name
        dialled = [event for _, event in caller.events if "line dials" in event]
        lost = name not in AFTER_ALL
        assert caller.times(SORRY if lost else AFTER_ALL[name][1]) == 1, caller.phone.transcript
        assert dialled == ([f"line dials {PERSON}"] if lost else []), name


@pytest.mark.long
@of_the_scenes
def test_nobody_waits_longer_than_two_minutes(scenes: Scenes) -> None:
    """A backend that hangs, or drips, or is not there: when patience ends somebody else is."""
    callers = scenes.patience.result()
    for name, caller in callers.items():
        print(f"{name}: given up {caller.waited_for(SORRY):.1f} s later")
        assert 4 < caller.waited_for(SORRY) < 120 - WAITED + 10 + LATE
        assert caller.slowest < 2 + LATE
        assert caller.times("line dials") == caller.times(f"line dials {PERSON}")
    assert [caller.phone.state for caller in callers.values()] == ["dial", "dial", "record"]


@pytest.mark.parametrize(
    ("words", "booked"),
    [("yes", True), ("Yes.", True), ("Yes, please.", True), ("No.", False), ("yesterday", False)],
)
def test_a_yes_buys_a_ticket_however_it_is_written(words: str, booked: bool) -> None:
    """Recognition sends sentences, with capitals and stops."""
    line = TicketLine(payment_seconds=0)
    line.answer("CA1", "I go from Berlin to Hamburg.")
    assert line.payments == []
    line.answer("CA1", words)
    assert (len(line.payments) == 1) is booked


def test_the_ticket_line_runs_as_a_command() -> None:
    """Started from a shell it sells to whoever knows the token, and once for each key."""
    command = [sys.executable, "tests/tickets.py", "--port=0", "--token=t", "--payment-seconds=0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        url = process.stdout.readline().strip().removeprefix("BACKEND_URL=")
        trip = {"call_sid": "CA1", "heard": "from Berlin to Munich"}
        refused = httpx.post(url, json=trip, headers={"Idempotency-Key": "CA1:1"})
        asks = [("CA1:1", trip), ("CA1:2", trip | {"heard": "yes"}), ("CA1:2", trip)]
        headers = [{"Authorization": "Bearer t", "Idempotency-Key": key} for key, _ in asks]
        answers = [httpx.post(url, json=asks[n][1], headers=headers[n]).json() for n in range(3)]
        process.terminate()
    assert refused.status_code == 401
    assert answers[0]["then"] == "listen"
    assert answers[1] == {"say": "You are booked to Munich. Have a good trip!", "then": "hangup"}
    assert answers[2] == answers[1]


# --- how long a caller waits ---


def test_a_backend_that_takes_a_second_is_not_noticed(upstash: Upstash) -> None:
    """One second of thought fits into a webhook: nobody is held, and the backend learns it all."""
    with (
        Backend(after(1, "It rains.")) as backend,
        Instance(settings(upstash, backend)) as instance,
    ):
        caller = on_a(instance).ask("what is the weather")
        caller.say("and tomorrow")
    assert caller.held == 0
    assert caller.times("line: It rains.") == 2
    first, second = backend.of(caller)
    assert first.authorization == "Bearer open-sesame"
    assert first.key == f"{caller.call_sid}:1"
    assert first.body["heard"] == "what is the weather"
    assert second.body["history"][-1] == {"heard": "what is the weather", "said": "It rains."}
    assert caller.phone.broken == []


@pytest.mark.long
def test_callers_on_hold_leave_room_for_new_ones(upstash: Upstash, api: TwilioApi) -> None:
    """Fifty held callers on eight threads: new calls are answered in time, then everybody is."""

    def decide(question: Question) -> Reply:
        time.sleep(7)  # they are held, and have come back once to look
        return says(f"Answer to {question.heard}.")

    with (
        Backend(decide) as backend,
        Instance(settings(upstash, backend, **api.settings)) as instance,
    ):
        held = [on_a(instance, api=api).ring() for _ in range(50)]
        fresh = [on_a(instance, api=api) for _ in range(40)]

        def arrive() -> None:
            for caller in fresh:
                time.sleep(0.15)
                caller.ring()

        together(
            arrive, *[lambda n=n, c=c: c.say(f"question {n}").hold() for n, c in enumerate(held)]
        )
    new, old = (max(caller.slowest for caller in callers) for callers in (fresh, held))
    print(f"slowest webhook: {new:.2f} s of new calls, {old:.2f} s of held ones")
    assert max(new, old) < 4.5 + LATE
    for n, caller in enumerate(held):
        assert caller.times(f"line: Answer to question {n}.") == 1
        assert len(backend.of(caller)) == 1
        assert caller.phone.broken == []


@pytest.mark.long
def test_a_conversation_goes_on_as_long_as_the_backend_wants(upstash: Upstash) -> None:
    """Thirty questions and answers; the backend is told of the last twenty, in order."""
    with (
        Backend(lambda question: says(f"Reply to {question.heard}.")) as backend,
        Instance(settings(upstash, backend)) as instance,
    ):
        caller = on_a(instance).ask(*[f"remark {n}" for n in range(30)])
    assert caller.phone.state == "gather"
    last = backend.of(caller)[-1].body
    assert (last["turn"], last["heard"]) == (30, "remark 29")
    assert last["history"] == [
        {"heard": f"remark {n}", "said": f"Reply to remark {n}."} for n in range(9, 29)
    ]


@pytest.mark.long
def test_a_duplicate_waits_for_the_same_answer(upstash: Upstash, api: TwilioApi) -> None:
    """The same webhook on another instance while the backend thinks: asked once, the same words."""
    with (
        Backend(after(2, "Only once.")) as backend,
        Instance(settings(upstash, backend, **api.settings)) as first,
        Instance(settings(upstash, backend, **api.settings)) as second,
    ):
        caller = on_a(first, api=api).ring()
        answers: list[bytes] = []

        def repeat(instance: Instance) -> None:
            assert until(lambda: len(backend.questions) == 1)
            hook = caller.phone.webhooks[-1]
            where = hook.url.replace(ORIGIN, instance.url)
            answers.append(http_deliver(where, hook.fields, hook.headers).body)

        together(lambda: caller.say("think"), partial(repeat, first), partial(repeat, second))
        time.sleep(1)  # a push that nobody needs would come now
    answer = caller.phone.webhooks[-1].answer
    assert answer is not None
    assert answers == [answer.body] * 2
    assert caller.times("line: Only once.") == 1
    assert len(backend.of(caller)) == 1
    assert api.pushes == []


# --- instances that die ---


@pytest.mark.long
def test_a_stopped_instance_gives_its_questions_back(upstash: Upstash) -> None:
    """SIGTERM, as a deploy sends it: the claim is free at once, and the next look takes it over."""
    ready = threading.Event()

    def decide(_: Question) -> Reply:
        ready.wait(10)
        return says("Here you are.")

    with (
        Backend(decide) as backend,
        Instance(settings(upstash, backend, RESPONSE_DEADLINE="2")) as first,
        Instance(settings(upstash, backend, RESPONSE_DEADLINE="2")) as second,
    ):
        caller = on_a(first).ring().say("think")
        assert caller.held == 1
        assert cell(upstash, caller, "1:lease")
        caller.instance = second
        stopped = time.monotonic()
        threading.Thread(target=first.stop, daemon=True).start()
        assert until(lambda: not cell(upstash, caller, "1:lease"))
        free = time.monotonic() - stopped
        threading.Timer(0.5, ready.set).start()
        caller.hold()
    print(f"free {free:.2f} s after SIGTERM")
    assert free < 1 + LATE
    assert caller.times("line: Here you are.") == 1
    assert [question.key for question in backend.of(caller)] == [f"{caller.call_sid}:1"] * 2


# --- pushes ---


class Meeting:
    """Makes two commands wait for each other at the stand-in: `first` is applied before `second`.

    Each is known by a word that its last argument starts with; both write the same cell.
    """

    def __init__(self, upstash: Upstash, key: str, first: str, second: str) -> None:
        self.key, self.first, self.second = key, first, second
        self.came = {first: threading.Event(), second: threading.Event()}
        self.applied = threading.Event()
        upstash.before, upstash.after = self.before, self.after

    def writer(self, command: Command) -> str | None:
        """The writer of the cell with this command, if it is one of the two."""
        if command[0] != "SET" or command[1] != self.key:
            return None
        return next((word for word in self.came if command[2].startswith(word)), None)

    def before(self, command: Command) -> None:
        writer = self.writer(command)
        if writer:
            self.came[writer].set()
        if writer == self.first:
            self.came[self.second].wait(1)
        if writer == self.second:
            self.applied.wait(1)

    def after(self, command: Command) -> None:
        if self.writer(command) == self.first:
            self.applied.set()

    @property
    def happened(self) -> bool:
        """True once both came."""
        return all(event.is_set() for event in self.came.values())


class NearMiss:
    """Keeps the reply of a look that found nothing until the answer is there and being pushed."""

    def __init__(self, upstash: Upstash, turn: str, ready: threading.Event) -> None:
        self.turn, self.ready, self.pushing = turn, ready, threading.Event()
        upstash.after = self.after

    def after(self, command: Command) -> None:
        look = {f"{self.turn}:asked", f"{self.turn}:result"} & set(command[1:])
        if command[0] == "MGET" and look and not self.ready.is_set():
            self.ready.set()
            self.pushing.wait(1)
        if command[:2] in (["SET", f"{self.turn}:voice"], ["DEL", f"{self.turn}:lease"]):
            self.pushing.set()

    @property
    def happened(self) -> bool:
        """True once the look was overtaken."""
        return self.pushing.is_set()


def race(kind: str) -> tuple[Caller, int]:
    """A caller who comes back to look just when the answer is pushed; the number of pushes."""
    ready = threading.Event()

    def decide(question: Question) -> Reply:
        if question.heard:
            ready.wait(20)
        return says("Only once.")

    with (
        Upstash() as upstash,
        TwilioApi(TOKEN) as api,
        Backend(decide) as backend,
        Instance(settings(upstash, backend, RESPONSE_DEADLINE="4", **api.settings)) as worker,
        Instance(settings(upstash, backend, RESPONSE_DEADLINE="4", **api.settings)) as other,
    ):
        caller = on_a(worker, api=api).ring().say("race")
        turn = f"call:{caller.call_sid}:1"
        scene: Meeting | NearMiss
        if kind == "look overtaken":
            scene = NearMiss(upstash, turn, ready)
        else:
            first, second = kind.split(" before ")
            scene = Meeting(upstash, f"{turn}:voice", first, second)
            caller.instance = other
            threading.Timer(4.5, ready.set).start()  # the caller comes back to look after 4 seconds
        caller.hold()
        time.sleep(1)  # a push that nobody needs would come now
        assert scene.happened, kind
        assert len(backend.of(caller)) == 1
        return caller, len(api.pushes)


@pytest.mark.long
def test_a_push_and_a_look_that_race_give_one_answer() -> None:
    """Whoever comes first to the answer, the push or the caller: it is spoken once."""
    pushes = {"push before look": 1, "look before push": 0, "look overtaken": 1}
    with ThreadPoolExecutor() as pool:
        races = {kind: pool.submit(race, kind) for kind in pushes}
    for kind, done in races.items():
        caller, pushed = done.result()
        assert caller.times("line: Only once.") == 1, kind
        assert pushed == pushes[kind], kind


FAULTS: Final[Mapping[str, list[str | None]]] = {
    "too many requests": ["429", None],
    "too many for long": ["429", "429", "429", "429", None],
    "the call is over": ["21220"],
    "Twilio fails": ["500"],
    "Twilio hangs": ["hang"],
}


@pytest.mark.long
def test_a_push_that_fails_costs_at_most_the_pause(upstash: Upstash, api: TwilioApi) -> None:
    """Too many requests: pushed again. Otherwise the next look finds the answer; heard once."""
    lines: dict[str, Caller] = {}

    def fault(push: Push) -> str | None:
        name = next(n for n, c in lines.items() if c.call_sid == push.call_sid)
        return FAULTS[name][min(len(api.pushes_of(lines[name].call_sid)), len(FAULTS[name])) - 1]

    api.fault = fault
    with (
        Backend(after(3, "Only once.")) as backend,
        Instance(settings(upstash, backend, RESPONSE_DEADLINE="2", **api.settings)) as instance,
    ):
        lines.update({name: on_a(instance, api=api) for name in FAULTS})
        together(*[partial(caller.ask, "think") for caller in lines.values()])
        time.sleep(3.5)  # a late push that nobody needs would come now
        wrong = {name: errors(instance, caller) for name, caller in lines.items()}
    for name, caller in lines.items():
        took = caller.moment("line: Only once.") - caller.moment("caller: think")
        print(f"{name}: {len(api.pushes_of(caller.call_sid))} pushes, answered after {took:.2f} s")
        assert caller.times("line: Only once.") == 1, name
        assert took < 3 + 4 + SILENCE + LATE, (
            name
        )  # the thought, a pause, and the silence of a loser
    quick = lines["too many requests"]
    assert len(api.pushes_of(quick.call_sid)) == 2
    assert quick.moment("line: Only once.") - quick.moment("caller: think") < 3 + 1.5 + LATE
    assert wrong["the call is over"] == wrong["too many requests"] == []
    assert wrong["Twilio fails"] == wrong["Twilio hangs"] == ["push failed"]


# --- Redis goes away ---


@pytest.mark.long
def test_redis_that_goes_away_in_mid_thought_loses_nobody(upstash: Upstash, api: TwilioApi) -> None:
    """Asked once within the deadline, else a person; a hold goes on, however often it is looked."""
    ready = threading.Event()

    def decide(question: Question) -> Reply:
        if question.heard == "slow":
            time.sleep(4)
        if question.heard == "deep":
            ready.wait(20)
        return says("Here you are.")

    with (
        Backend(decide) as backend,
        Instance(settings(upstash, backend, RESPONSE_DEADLINE="2.5", **api.settings)) as instance,
    ):
        quick, slow, deep = (on_a(instance, api=api).ring() for _ in range(3))
        hurried = on_a(instance, api=api, paused=False).ring()  # whose pauses take no time
        together(lambda: deep.say("deep"), lambda: hurried.say("deep"))
        upstash.fault = lambda _: "hang"
        together(
            lambda: quick.say("quick"),
            lambda: slow.say("slow"),
            deep.phone.wait,
            lambda: hurried.phone.wait(5),
        )
        assert (deep.phone.state, deep.held) == ("hold", 2)
        assert (hurried.phone.state, hurried.held) == ("hold", 6)
        upstash.fault = None
        upstash.release()
        ready.set()
        deep.hold()
        hurried.hold()
    assert quick.times("line: Here you are.") == 1
    assert slow.times(f"line dials {PERSON}") == 1
    assert deep.times("line: Here you are.") == hurried.times("line: Here you are.") == 1
    assert all(len(backend.of(caller)) == 1 for caller in (quick, slow, deep, hurried))
    assert all(caller.slowest < 2.5 + LATE for caller in (quick, slow, deep, hurried))


# --- the end of a call ---


@pytest.mark.long
def test_nothing_more_is_asked_for_a_caller_who_has_gone(upstash: Upstash, api: TwilioApi) -> None:
    """After the caller hangs up there is no further attempt, and nobody to push."""

    def decide(question: Question) -> Reply:
        if question.heard == "think":
            time.sleep(3)
        return says("too late") if question.heard != "fail" else Reply(b"oops", 500)

    with (
        Backend(decide) as backend,
        Instance(settings(upstash, backend, RESPONSE_DEADLINE="1.5", **api.settings)) as instance,
    ):
        failing, thinking = on_a(instance, api=api).ring(), on_a(instance, api=api).ring()
        together(lambda: failing.say("fail"), lambda: thinking.say("think"))
        for caller in (failing, thinking):
            caller.phone.hang_up()
        asked = len([q for q in backend.of(failing) if q.heard])
        time.sleep(5)
    assert asked <= 2
    assert len([q for q in backend.of(failing) if q.heard]) == asked
    assert [question.heard for question in backend.of(thinking) if question.heard] == ["think"]
    assert api.pushes == []
    assert failing.phone.warned == thinking.phone.warned == []


@pytest.mark.long
def test_events_outlive_the_instance_that_should_have_brought_them(upstash: Upstash) -> None:
    """A voicemail and the end of its call reach the backend, though the messenger is killed."""
    lives = threading.Event()
    lives.set()

    def decide(question: Question) -> Reply:
        if question.heard:
            return says("Please leave a message.", "voicemail")
        if lives.is_set() and question.attempt == 2:
            caller.instance = second
            first.kill()
            lives.clear()
        return Reply(b"not now", 503) if lives.is_set() else says("")

    with (
        Backend(decide) as backend,
        Instance(settings(upstash, backend, RESPONSE_DEADLINE="2", FORWARD_TO="")) as first,
        Instance(settings(upstash, backend, RESPONSE_DEADLINE="2", FORWARD_TO="")) as second,
    ):
        caller = on_a(first).ask("nobody is there")
        caller.phone.leave_message()
        events = backend.of(caller)[1:]
        assert caller.phone.retry(caller.phone.last_status).answer.status == 204
        again = backend.of(caller)[1 + len(events) :]
    sid, recording = caller.call_sid, caller.phone.webhooks[-2].form["RecordingUrl"]
    voicemail, ended = (event.body for event in events[-2:])
    assert {event.key for event in events} == {f"{sid}:voicemail", f"{sid}:ended"}
    assert (voicemail["event"], voicemail["recording_url"]) == ("voicemail", recording)
    assert (ended["event"], ended["status"]) == ("ended", "completed")
    assert ended["seconds"] > 10
    assert again == []
    assert caller.phone.warned == []


@pytest.mark.long
def test_the_end_of_a_call_is_reported_until_the_backend_has_it(upstash: Upstash) -> None:
    """A backend that is down when a call ends hears of it as soon as it is up."""

    def decide(question: Question) -> Reply:
        return Reply(b"not now", 503) if question.attempt < 4 else says("")

    with (
        Backend(decide) as backend,
        Instance(settings(upstash, backend, RESPONSE_DEADLINE="2")) as instance,
    ):
        caller = on_a(instance).ring()
        caller.phone.hang_up()
        assert until(lambda: cell(upstash, caller, "ended:sent") is not None)
    assert {q.key for q in backend.of(caller)} == {f"{caller.call_sid}:ended"}
    assert len(backend.of(caller)) >= 4
    assert caller.phone.warned == []


# --- nothing to do ---


@pytest.mark.long
def test_a_line_without_held_callers_is_silent(upstash: Upstash, api: TwilioApi) -> None:
    """On hold only the claim is renewed; with nobody on hold nothing is sent at all."""
    with (
        Backend(after(5, "Here you are.")) as backend,
        Instance(settings(upstash, backend, RESPONSE_DEADLINE="2", **api.settings)) as instance,
    ):
        caller = on_a(instance, api=api).ring().say("think")
        upstash.forget()
        time.sleep(3)
        on_hold, others = list(upstash.commands), len(backend.questions)
        caller.hold()
        time.sleep(2.5)  # the last renewal would come within two seconds
        upstash.forget()
        connections = set(upstash.connections)
        time.sleep(4)
        idle = list(upstash.commands)
    lease = f"call:{caller.call_sid}:1:lease"
    assert {command[1] for command in on_hold} == {lease}
    assert len(on_hold) <= 2
    assert others == 1
    assert caller.times("line: Here you are.") == 1
    assert caller.phone.state == "gather"
    assert idle == []
    assert upstash.pings == 0
    assert upstash.round_trips == 0
    assert upstash.connections <= connections


def test_one_instance_works_on_a_question_once_whatever_redis_forgets(upstash: Upstash) -> None:
    """Redis forgets a lease at once and a duplicate comes: one worker all the same, and it ends."""

    def decide(_: Question) -> Reply:
        time.sleep(1)
        return says("Only once.")

    with Backend(decide) as backend, ThreadPoolExecutor(1) as pool:
        here = Inside({**upstash.settings, "BACKEND_URL": backend.url, "FORWARD_TO": PERSON})
        phone = here.phone()
        phone.ring()
        duplicates: list[Future[Answer]] = []

        def forgetful(command: Command) -> None:
            if command[0] == "SET" and command[1].endswith(":lease") and not duplicates:
                upstash.quietly(["DEL", command[1]])
                url, form = "/voice/process?turn=1&step=listen", {"SpeechResult": "race"}
                call = {"CallSid": phone.call_sid, "From": phone.caller}
                duplicates.append(pool.submit(here.post, url, call | form))
                time.sleep(0.4)

        upstash.after = forgetful
        phone.say("race")
        assert phone.heard == ["Only once."]
        assert b"Only once." in duplicates[0].result().body
        assert until(lambda: not here.line.desk.jobs)
        assert len(backend.questions) == 1
