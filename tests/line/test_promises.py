"""The promises that hold for everything, looked for with inputs that nobody would think of.

The machine at the top plays callers, Twilio and bad luck at once: webhooks come, come again, race
each other and come late; releases change in mid-call, Redis forgets cells and fails. After each of
its moves the contract is looked at. Below it several instances share one backend and one store.

Nothing here is left to chance: the same examples are drawn in every run.
"""

import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Final, NamedTuple
from urllib.parse import parse_qs, urldefrag, urlsplit
from xml.etree import ElementTree

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from hypothesis.stateful import run_state_machine_as_test as run

from phone_line.cells import DAY
from phone_line.records import LAST_TURN, read_turn
from standins.backend import Backend, Caller, Question, Reply, says, together, until
from standins.examples import STEADY, as_many
from standins.inside import FORM, ORIGIN, TOKEN, Inside
from standins.instance import Instance
from standins.twilio_api import TwilioApi
from standins.twiml import judge
from standins.upstash import Upstash, once
from standins.webhooks import Answer, http_deliver, sign

FORWARD: Final = {"FORWARD_TO": "+15550100099"}
MENU: Final = {"DEPARTMENTS": "billing=+15550100001 lost_and-found=+15550100002"}

LINES: Final[Mapping[str, dict[str, str]]] = {
    "alone": {},
    "forward": FORWARD,
    "menu": MENU | FORWARD,
    "backend": {"BACKEND_URL": "", **MENU, **FORWARD},  # where the backend is, is filled in
}


class World(NamedTuple):
    """The store and the backend, which live longer than a release."""

    upstash: Upstash
    backend: Backend

    def line(self, name: str) -> Inside:
        """A fresh instance of one of LINES."""
        env = LINES[name] | ({"BACKEND_URL": self.backend.url} if name == "backend" else {})
        return Inside({**env, **self.upstash.settings})


def decide(question: Question) -> Reply:
    """The backend's answer to the caller's words."""
    if "person" in question.heard:
        return says("To a person.", "transfer", to="FORWARD_TO")
    return says(f"You said {question.heard}.")


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with ExitStack() as opened:
        yield World(opened.enter_context(Upstash()), opened.enter_context(Backend(decide)))


# --- the machine: callers, Twilio and bad luck ---


@dataclass
class Person:
    """A call as Twilio sees it: where the next webhook goes, and those that were sent."""

    sid: str
    target: str = "/voice/inbound"
    kind: str = "start"
    sent: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    lucky: bool = True  # no cell of it was forgotten, and no command about it failed


class Known(NamedTuple):
    """A document: what it waits for, at which target, and what it dials."""

    kind: str
    target: str
    dialled: set[str]


WAITS: Final = {"Gather": "gather", "Dial": "dial", "Record": "record", "Redirect": "redirect"}
SPEECH: Final = ("Ann, my bill", "billing", "lost and found", "yes", "no", "operator", "", "person")

BROUGHT: Final[Mapping[str, list[dict[str, str]]]] = {
    "start": [{}],
    "gather": [
        *({"SpeechResult": words} for words in SPEECH),
        {"SpeechResult": "billing", "Confidence": "0.1"},
        *({"Digits": key} for key in "012*#"),
    ],
    "dial": [{"DialCallStatus": how} for how in ("completed", "busy", "no-answer", "canceled")],
    "record": [{"RecordingUrl": "https://api.example/RE1", "Digits": "hangup"}, {}],
    "redirect": [{}],
    "over": [{}],
}

QUICK_FAULTS: Final = ("502", "drop", "apply-then-drop", "apply-then-502", "garbage", "quota")
COMMANDS: Final = ("MGET", "GETEX", "SET", "")  # the empty one: all of them
PICK: Final = st.integers(0, 9)
NAMES: Final = st.sampled_from(sorted(LINES))


def turn_of(target: str) -> int:
    """The turn that a target names; 0 when it begins a call."""
    return int(parse_qs(urlsplit(target).query).get("turn", ["0"])[0])


def parsed(document: str) -> ElementTree.Element:
    return ElementTree.fromstring(document)  # noqa: S314 (it is the line's own)


def known_of(twiml: str) -> Known:
    """The next step of Twilio after a document, once it has spoken."""
    dialled = {number.text or "" for number in parsed(twiml).iter("Number")}
    for verb in parsed(twiml):
        if verb.tag in WAITS and (way := verb.get("action") or (verb.text or "").strip()):
            return Known(WAITS[verb.tag], way.partition("#")[0], dialled)
    return Known("over", "", dialled)


def has_words(twiml: str) -> bool:
    """Tells if a caller hears something; a call that is not even answered needs no words."""
    root = parsed(twiml)
    spoken = any((say.text or "").strip() for say in root.iter("Say"))
    return spoken or root.find("Reject") is not None


class Machine(RuleBasedStateMachine):
    """Two instances that share a store, their callers, and whatever happens to them."""

    world: World
    sids = map("CA{:032x}".format, count(1))  # of its own for each call: the backend remembers

    def __init__(self) -> None:
        super().__init__()
        self.upstash = self.world.upstash
        self.upstash.flush()
        self.lines = [self.world.line("forward"), self.world.line("menu")]
        self.callers: list[Person] = []
        self.stood: dict[str, str] = {}

    def teardown(self) -> None:
        self.upstash.fault = self.upstash.before = None
        self.upstash.release()

    # What happens.

    @rule(n=PICK)
    def a_call_comes_in(self, n: int) -> None:
        """Somebody rings."""
        self.callers.append(Person(next(self.sids)))
        self.deliver(n, self.callers[-1], {})

    @rule(n=PICK, turn=st.integers(1, 100), step=st.sampled_from(("reason", "menu", "x", "think")))
    def a_call_comes_from_nowhere(self, n: int, turn: int, step: str) -> None:
        """A call of which no cell is left, far into its turns."""
        target = f"/voice/process?turn={turn}&step={step}"
        self.callers.append(Person(next(self.sids), target, "gather", lucky=False))
        self.deliver(n, self.callers[-1], {})

    @precondition(lambda self: self.callers)
    @rule(n=PICK, who=PICK, what=PICK)
    def the_call_goes_on(self, n: int, who: int, what: int) -> None:
        """The caller speaks, presses a key, is silent, hangs on, or a transfer ends."""
        caller = self.caller(who)
        self.deliver(n, caller, self.brought(caller, what))

    @precondition(lambda self: self.callers)
    @rule(n=PICK, who=PICK, which=PICK)
    def twilio_repeats(self, n: int, who: int, which: int) -> None:
        """Any earlier webhook comes again, at any instance."""
        caller = self.caller(who)
        target, brought = caller.sent[which % len(caller.sent)]
        self.post(self.line(n), caller, target, brought)

    @precondition(lambda self: self.callers)
    @rule(n=PICK, who=PICK, which=PICK, what=PICK)
    def something_else_comes_late(self, n: int, who: int, which: int, what: int) -> None:
        """A turn is asked once more, and this time it brings something else."""
        caller = self.caller(who)
        target, _ = caller.sent[which % len(caller.sent)]
        self.post(self.line(n), caller, target, self.brought(caller, what))

    @precondition(lambda self: self.callers)
    @rule(n=PICK, who=PICK, what=PICK, other=PICK)
    def two_instances_race(self, n: int, who: int, what: int, other: int) -> None:
        """The rival's webhook, with other words, comes just before our first write."""
        caller, theirs = self.caller(who), list[Answer]()
        target, rival = caller.target, self.lines[(n + 1) % 2]
        form = self.form(caller, self.brought(caller, other))
        self.upstash.before = once("SET", lambda: theirs.append(rival.post(target, form)))
        answer = self.deliver(n, caller, self.brought(caller, what), racing=True)
        self.upstash.before = None
        assert all(each.body == answer.body for each in theirs)

    @precondition(lambda self: self.callers)
    @rule(n=PICK, who=PICK, what=PICK, struck=st.sampled_from(COMMANDS), share=st.integers(1, 3))
    def redis_fails(self, n: int, who: int, what: int, struck: str, share: int) -> None:
        """The answer is in words whatever becomes of the commands; every second fault may pass."""
        caller = self.caller(who)
        caller.lucky = False
        strikes = iter(range(1, 99))
        fault = QUICK_FAULTS[(what + share) % len(QUICK_FAULTS)]

        def strike(command: list[str]) -> str | None:
            hit = command[0] in (struck or command[0]) and next(strikes) % share == 0
            return fault if hit else None

        self.upstash.fault = strike
        self.deliver(n, caller, self.brought(caller, what))
        self.upstash.fault = None

    @precondition(lambda self: self.callers)
    @rule(n=PICK, who=PICK, which=PICK)
    def a_webhook_falls_back(self, n: int, who: int, which: int) -> None:
        """Twilio could not use an answer, and asks the fallback URL."""
        caller = self.caller(who)
        target, _ = caller.sent[which % len(caller.sent)]
        error = {"ErrorCode": "11200", "ErrorUrl": ORIGIN + target}
        self.post(self.line(n), caller, target, error, "/voice/fallback")

    @rule(n=PICK, name=NAMES)
    def a_release_changes(self, n: int, name: str) -> None:
        """A deploy: a fresh instance, perhaps with another table of steps."""
        self.lines[n % 2] = self.world.line(name)

    @precondition(lambda self: self.callers)
    @rule(who=PICK, which=st.integers(0, 4))
    def redis_forgets(self, who: int, which: int) -> None:
        """One of a call's cells is gone, or all of them."""
        caller = self.caller(who)
        keys = sorted(key for key in self.stood if caller.sid in key)
        lost = keys[which : which + 1] if which else keys
        if lost:
            caller.lucky = False
            self.upstash.quietly(["DEL", *lost])
            for key in lost:
                del self.stood[key]

    @precondition(lambda self: self.callers)
    @rule(n=PICK, who=PICK)
    def the_call_ends(self, n: int, who: int) -> None:
        """The caller hangs up, which is reported, and reported again."""
        caller = self.caller(who)
        form = self.form(caller, {"CallStatus": "completed", "CallDuration": "7"})
        assert self.line(n).post("/voice/status", form).status == 204
        assert self.cell(f"call:{caller.sid}:end") is not None

    # What must hold.

    @invariant()
    def a_cell_is_written_once_and_expires(self) -> None:
        """No value changes, leases aside, and no cell stays for ever."""
        for key, seconds in self.upstash.keys().items():
            gone = seconds == -2 and key.endswith(":lease")  # given back since we asked for keys
            assert gone or 0 <= seconds <= DAY, key
            value = self.cell(key)
            if value is not None and not key.endswith(":lease"):
                assert self.stood.setdefault(key, value) == value

    @invariant()
    def nothing_is_asked_twice(self) -> None:
        """The backend hears each question of a call once, unless a cell of the call was lost."""
        sids = {caller.sid for caller in self.callers if caller.lucky}
        asked = Counter(each.key for each in self.world.backend.questions if each.heard)
        assert [key for key, times in asked.items() if times > 1 and key[:34] in sids] == []

    # How it is done.

    def caller(self, who: int) -> Person:
        return self.callers[who % len(self.callers)]

    def line(self, n: int) -> Inside:
        return self.lines[n % 2]

    def brought(self, caller: Person, what: int) -> dict[str, str]:
        choices = BROUGHT[caller.kind]
        return choices[what % len(choices)]

    def cell(self, key: str) -> str | None:
        value = self.upstash.quietly(["GET", key])[0]
        return value.decode() if isinstance(value, bytes) else None

    def form(self, caller: Person, brought: Mapping[str, str]) -> dict[str, str]:
        return {"CallSid": caller.sid, "From": "+15557654321", "CallStatus": "ringing", **brought}

    def deliver(
        self, n: int, caller: Person, brought: dict[str, str], racing: bool = False
    ) -> Answer:
        """The next webhook of a call; the call goes on as the answer says."""
        if caller.kind == "over":  # Twilio asks no more, but what it has asked may come again
            caller.target, _ = caller.sent[-1]
        caller.sent.append((caller.target, brought))
        answer = self.post(self.line(n), caller, caller.target, brought, racing=racing)
        known = known_of(answer.body.decode())
        caller.kind, caller.target = known.kind, known.target or caller.target
        return answer

    def post(
        self,
        line: Inside,
        caller: Person,
        target: str,
        brought: Mapping[str, str],
        path: str = "",
        racing: bool = False,
    ) -> Answer:
        """One webhook, whose answer is held to every promise."""
        turn = turn_of(target)
        before = read_turn(self.cell(f"call:{caller.sid}:{turn + 1}"))
        answer = line.post(path or target, self.form(caller, brought))
        said = answer.body.decode()
        known = known_of(said)
        assert (answer.status, judge(said, ORIGIN + (path or target))) == (200, [])
        assert has_words(said)
        after = read_turn(self.cell(f"call:{caller.sid}:{turn + 1}"))
        held = known.kind == "redirect"
        if not self.upstash.fault:
            assert (before or held or after) is not None
            assert said == (before.twiml if before else after.twiml if after else said)
        if known.target:
            assert turn_of(known.target) == (turn if held else turn + 1) <= LAST_TURN
        lines = self.lines if racing or before else [line]
        configured = LINES.values() if before else [each.env for each in lines]
        assert known.dialled <= {number for env in configured for number in numbers(env)}
        return answer


def numbers(env: Mapping[str, str]) -> set[str]:
    """The numbers in an environment."""
    departments = env.get("DEPARTMENTS", "").split()
    return {pair.split("=")[-1] for pair in (*departments, env.get("FORWARD_TO", ""))} - {""}


@pytest.mark.waits
def test_whatever_happens_every_promise_is_kept(world: World) -> None:
    """Repeats, races, deploys, lost cells and failing commands: each answer is words, and once."""

    class Here(Machine):
        pass

    Here.world = world
    run(Here, settings=settings(STEADY, max_examples=as_many(80), stateful_step_count=25))


# --- the backend and the store, as several instances share them ---


def held(answer: Answer) -> str:
    """The target of a caller who is put on hold."""
    known = known_of(answer.body.decode())
    assert known.kind == "redirect"
    return known.target


def test_a_question_is_asked_by_one_instance(world: World) -> None:
    """The same webhook reaches two instances at once: one asks, and both say what it learned."""
    with Backend(lambda _: Reply(says("Once.").body, drip=0.02)) as slow:
        env = {**FORWARD, "BACKEND_URL": slow.url, **world.upstash.settings}
        lines, target = [Inside(env), Inside(env)], "/voice/process?turn=1&step=listen"
        form = {"CallSid": next(Machine.sids), "SpeechResult": "a ticket"}
        answers: list[Answer] = []
        together(*[partial(lambda it: answers.append(it.post(target, form)), it) for it in lines])
    assert [b"Once." in each.body for each in answers] == [True, True]
    assert answers[0].body == answers[1].body
    assert len(slow.questions) == 1


def test_a_held_caller_is_answered_by_any_instance(world: World) -> None:
    """What was said and what was answered are cells: another instance carries both on."""
    ready = threading.Event()

    def late(_: Question) -> Reply:
        ready.wait(5)
        return says("At last.")

    with Backend(late) as slow:
        more = {"BACKEND_URL": slow.url, "RESPONSE_DEADLINE": "1"}
        env = {**FORWARD, **more, **world.upstash.settings}
        form = {"CallSid": next(Machine.sids), "SpeechResult": "a ticket"}
        first = Inside(env).post("/voice/process?turn=1&step=listen", form)
        names = [f"call:{form['CallSid']}:{name}" for name in ("1:asked", "2", "1:lease")]
        asked, result, _claim = world.upstash.quietly(*(["GET", name] for name in names))
        assert 1 <= world.upstash.keys()[names[2]] <= 10
        assert b"a ticket" in (asked if isinstance(asked, bytes) else b"")
        assert result is None
        still = Inside(env).post(held(first), {"CallSid": form["CallSid"]})
        ready.set()
        assert until(lambda: bool(world.upstash.quietly(["EXISTS", names[1]])[0]))
        done = Inside(env).post(held(still), {"CallSid": form["CallSid"]})
    assert b"At last." in done.body
    assert len(slow.questions) == 1


def test_a_caller_who_has_gone_on_is_not_pushed_back(world: World) -> None:
    """The turn got another answer meanwhile, so that of the backend comes too late for a push."""
    ready = threading.Event()

    def late(_: Question) -> Reply:
        ready.wait(10)
        return says("Too late.")

    with Backend(late) as slow, TwilioApi(TOKEN) as api:
        more = {"BACKEND_URL": slow.url, "RESPONSE_DEADLINE": "1", "PUBLIC_URL": ORIGIN}
        more |= {"TWILIO_AUTH_TOKEN": TOKEN}
        with Instance({**FORWARD, **more, **world.upstash.settings, **api.settings}) as instance:
            caller = Caller(instance, token=TOKEN, api=api, paused=False).ring().say("a ticket")
            [back] = [each.url for each in caller.phone.webhooks if "turn=1" in each.url]
            target = "/voice/process?" + urldefrag(back).url.partition("?")[2]
            form = [("CallSid", caller.call_sid), ("AccountSid", api.account), ("Digits", "0")]
            headers = {"Content-Type": FORM}
            headers["X-Twilio-Signature"] = sign(TOKEN, ORIGIN + target, form)
            gone_on = http_deliver(instance.url + target, form, headers)
            ready.set()
            lease = f"call:{caller.call_sid}:1:lease"
            assert until(lambda: not world.upstash.quietly(["EXISTS", lease])[0])
            time.sleep(1)
    assert b"<Dial" in gone_on.body
    assert caller.held == 1
    assert api.pushes == []


@pytest.mark.parametrize("fault", ["502", "empty", "garbage", "no-result"])
def test_a_single_fault_costs_nothing(world: World, fault: str) -> None:
    """The store fails once: it is asked again within the webhook, and the guess is not lost."""
    phone = world.line("menu").phone()
    phone.ring()
    phone.say("billing", confidence=0.2)
    strikes = iter([fault])
    world.upstash.fault = lambda command: next(strikes, None) if command[0] == "MGET" else None
    phone.say("yes")
    world.upstash.fault = None
    assert phone.state == "dial"
    assert "billing" in phone.heard[0]


@pytest.mark.long
def test_a_connection_outlives_the_silence_between_two_turns(world: World) -> None:
    """Callers think: six seconds later the store is asked over the same connection."""
    line = world.line("forward")
    phone = line.phone()
    phone.ring()
    kept = set(world.upstash.connections)
    time.sleep(6)
    phone.say("Ann, my bill")
    assert set(world.upstash.connections) <= kept
