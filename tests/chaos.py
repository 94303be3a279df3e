"""A chaos run: hundreds of calls at once, on instances that die, over a Redis that misbehaves.

    python tests/chaos.py --calls 1000 --seed 7   # two minutes; the exit status is the verdict
    python tests/chaos.py --calls 10000 --json    # a quarter of an hour; the table as JSON

Two lines run, each as several real processes: a menu of departments, and a desk that consults a
backend. Callers follow the SCRIPTS below. Meanwhile instances are killed with -9 and started again;
webhooks are lost on the way in or out, delayed, delivered twice at once or long after their turn;
Twilio retries and falls back; and the stand-in for Upstash (upstash.py) fails in every way of
STRIKES and forgets cells. Whatever is random comes from the seed, but threads and processes race
as they like, so a seed repeats the plan of a run and not its every interleaving.

What is promised is checked for every call by `audit`. A call is held to its script word by word.
Only what the contract itself allows excuses a detour, and each excuse is something that this file
did to that call, never something the line says about itself:

- `away`: Redis failed twice in a row at one and the same command of this call. It goes on from the
  step in the URL; what it cannot know then is asked again, or a person is found.
- `amnesia`: Redis forgot cells of this call. The same.
- `fallback`: Twilio gave a webhook up, because this file lost every attempt or killed its instance.
  The question is asked again, and whoever was being connected may find voicemail.

A single fault of Redis, a killed instance, a retry and a duplicate excuse nothing.
"""

import argparse
import contextlib
import json
import re
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field
from hashlib import md5
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random
from typing import Any, Final, cast
from urllib.parse import parse_qs, urlsplit

from standins.call import Clock, Phone
from standins.instance import Instance
from standins.sentences import say
from standins.transcript import perform
from standins.upstash import Command, Upstash
from standins.webhooks import Answer, Failed, Fields, http_deliver

# --- what callers do ---


def hearing(name: str, /, **blanks: str) -> str:
    """The pattern of a sentence of the line."""
    return re.escape(say(name, **blanks))


FORWARD: Final = "+15550100099"
BILLING, CANCEL = "+15550100001", "+15550100002"
MENU: Final = hearing("menu_item", name="billing", key="1")
HELP: Final = hearing("ask_help")
ANSWER: Final = "Answer to {case} is yes"
ASK: Final = "caller: please answer {} about {{case}}"
GOODBYE: Final = hearing("goodbye")
RECORDED: Final = hearing("message_taken")
BUG: Final = say("apology")
NOT_HEARD: Final = hearing("not_heard")
GIVING_UP: Final = hearing("giving_up")
NO_RESULT: Final = hearing("no_result")
HOLDING: Final = "line waits"
GREETING: Final = say("greeting")


@dataclass(frozen=True)
class Script:
    """A caller: on hearing this, does that. Then the call ends with those words.

    `remembered` is a call that needs more than the step in the URL, which Redis alone knows: a
    guess, misses, what was asked. Only such a call may go another way when Redis is away.
    """

    name: str
    line: str
    scenes: tuple[tuple[str, str], ...]
    ends: str
    remembered: bool = False


SCRIPTS: Final = (
    Script(
        "presses a key, talks",
        "menu",
        ((MENU, "caller presses 1"), (f"dials \\{BILLING}$", "callee answers")),
        GOODBYE,
    ),
    Script(
        "says a word, it is busy, leaves a message",
        "menu",
        (
            (MENU, "caller: I would like to cancel my contract"),
            (f"dials \\{CANCEL}$", "callee is busy"),
            (f"{hearing('busy')}.*line records", "caller leaves a message"),
        ),
        RECORDED,
    ),
    Script(
        "mumbles, confirms, talks",
        "menu",
        (
            (MENU, "caller: billing (confidence 0.3)"),
            (hearing("did_you_say", name="billing"), "caller: yes"),
            (f"dials \\{BILLING}$", "callee answers"),
        ),
        GOODBYE,
        remembered=True,
    ),
    Script(
        "is silent until a person comes",
        "menu",
        (
            (MENU, "caller is silent"),
            (f"{NOT_HEARD}.*{MENU}", "caller is silent"),
            (f"{NOT_HEARD}.*{hearing('help')}.*{MENU}", "caller is silent"),
            (f"{GIVING_UP}.*dials \\{FORWARD}$", "callee answers"),
        ),
        GOODBYE,
        remembered=True,
    ),
    Script(
        "wants a person, nobody answers, hangs up after the beep",
        "menu",
        (
            (MENU, "caller presses 0"),
            (f"dials \\{FORWARD}$", "callee does not answer"),
            (f"{hearing('no-answer')}.*line records", "caller hangs up"),
        ),
        "",
    ),
    Script(
        "talks nonsense, has it repeated, leaves a message",
        "menu",
        (
            (MENU, "caller: purple monkey dishwasher"),
            (f"{hearing('not_understood')}.*{MENU}", "caller presses *"),
            (MENU, "caller: two"),
            (f"dials \\{CANCEL}$", "callee fails"),
            (f"{hearing('failed')}.*line records", "caller leaves a message"),
        ),
        RECORDED,
    ),
    Script("hangs up at the menu", "menu", ((MENU, "caller hangs up"),), ""),
    Script(
        "consults twice, is connected",
        "desk",
        (
            (HELP, ASK.format("quick then listen")),
            (f"{ANSWER}.$", ASK.format("quick then transfer")),
            (f"{ANSWER}.*dials \\{BILLING}$", "callee answers"),
        ),
        GOODBYE,
        remembered=True,
    ),
    Script(
        "waits for an answer, leaves a message",
        "desk",
        (
            (HELP, ASK.format("slow then voicemail")),
            (f"{ANSWER}.*line records", "caller leaves a message"),
        ),
        RECORDED,
        remembered=True,
    ),
    Script(
        "gets an answer at the third attempt",
        "desk",
        ((HELP, ASK.format("flaky then hangup")),),
        ANSWER,
        remembered=True,
    ),
    Script(
        "gets an answer though the first one was lost",
        "desk",
        (
            (HELP, ASK.format("lossy then transfer")),
            (f"{ANSWER}.*dials \\{BILLING}$", "callee answers"),
        ),
        GOODBYE,
        remembered=True,
    ),
    Script(
        "gets a person since the backend refuses",
        "desk",
        (
            (HELP, ASK.format("broken then hangup")),
            (f"{NO_RESULT}.*dials \\{FORWARD}$", "callee answers"),
        ),
        GOODBYE,
        remembered=True,
    ),
    Script(
        "hangs up on hold",
        "desk",
        ((HELP, ASK.format("slow then hangup")), (HOLDING, "caller hangs up")),
        f"{ANSWER}|^$",
        remembered=True,
    ),
)
# What an excused call may hear in addition to its script, and what its caller does then.
DETOURS: Final = (
    ("line records$", "caller leaves a message"),
    (f"({NO_RESULT}|{GIVING_UP}).*dials \\{FORWARD}$", "callee answers"),
)
DETOUR_ENDS: Final = f"{GOODBYE}|{RECORDED}"
MOST_EVENTS: Final = 40

# --- what goes wrong ---

PUBLIC: Final = "https://line.example"
TOKEN: Final = "chaos"
DEADLINE: Final = 2.5  # seconds: RESPONSE_DEADLINE of every instance
MARGIN: Final = 0.5  # seconds more for a connection, a queue, and a machine that is busy
PACE: Final = 0.1  # real seconds for each second that a caller waits on hold
LEASE: Final = 12.0  # seconds within which a claim on slow work must be gone
STRIKES: Final = {
    "hang": 3,
    "drip": 3,
    "late": 3,
    "drop": 3,
    "apply-then-drop": 4,
    "apply-then-hang": 2,
    "502": 3,
    "apply-then-502": 2,
    "empty": 1,
    "garbage": 1,
    "quota": 1,
}  # the stand-in's faults (FAULTS in upstash.py), and how often each one comes
CALM, STORM = 0.03, 0.5  # shares of the commands that are struck
FORGOTTEN: Final = 0.01  # share of the commands before which their cells are forgotten
LOSSES: Final = {"refused": 0.02, "unheard": 0.03, "overtaken": 0.03}  # of a webhook's attempts
DOOMED: Final = 0.02  # share of the webhooks of which every attempt is lost
TWINS, STALE, DELAYED = 0.08, 0.10, 0.10  # delivered twice at once, again later, late

SETTINGS: Final = {
    "menu": {"DEPARTMENTS": f"billing={BILLING} cancel={CANCEL}"},
    "desk": {"DEPARTMENTS": f"billing={BILLING} cancel={CANCEL}", "BACKEND_TOKEN": TOKEN},
}


@dataclass(frozen=True)
class Wishes:
    """How large and how wild a run is; `only` rings again as one call of it did.

    `rate` is calls that begin in a second, `think` the seconds that a caller takes for each answer;
    `kill_every` and `storm_every` are seconds, on average.
    """

    calls: int = 1000
    seed: int = 1
    rate: float = 10.0
    think: float = 5.0
    instances: int = 3
    kill_every: float = 3.0
    storm_every: float = 20.0
    scripts: Sequence[Script] = SCRIPTS
    only: int | None = None


class Ledger:
    """What is counted, and every promise that was broken."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.broken: list[str] = []
        self.slowest, self.under_way = 0.0, 0
        self._lock = threading.Lock()

    def add(self, what: str, number: int = 1) -> None:
        with self._lock:
            self.counts[what] += number

    def fault(self, kind: str) -> None:
        with self._lock:
            self.faults[kind] += 1

    def breach(self, promise: str, **known: object) -> None:
        details = ", ".join(f"{name} {value}" for name, value in known.items())
        with self._lock:
            self.broken.append(f"{promise}: {details}" if details else promise)

    def took(self, seconds: float) -> None:
        with self._lock:
            self.slowest = max(self.slowest, seconds)

    @contextlib.contextmanager
    def busy(self) -> Iterator[None]:
        """A call that is under way meanwhile."""
        with self._lock:
            self.under_way += 1
            most = max(self.under_way, self.counts["most calls at once"])
            self.counts["most calls at once"] = most
        try:
            yield
        finally:
            with self._lock:
                self.under_way -= 1


# --- Redis ---


@dataclass
class Luck:
    """What Redis did to one call."""

    struck: dict[tuple[str, ...], float] = field(default_factory=dict)  # command: when last
    excuses: set[str] = field(default_factory=set)
    strikes: list[float] = field(default_factory=list)
    stood: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))  # then forgotten


class Weather:
    """Decides which commands Redis fails at. It is calm, with a storm now and then."""

    def __init__(self, upstash: Upstash, ledger: Ledger, wishes: Wishes) -> None:
        self.upstash, self.ledger, self.wishes = upstash, ledger, wishes
        self.dice = Random(f"{wishes.seed} weather")
        self.lucks: dict[str, Luck] = defaultdict(Luck)
        self.storm, self._lock = "", threading.Lock()
        upstash.late_seconds, upstash.drip_seconds = 0.2, 0.05
        upstash.fault = self.judge

    def judge(self, command: Command) -> str | None:
        """The fault that strikes this command, None for most."""
        found = re.match(r"call:(CA[0-9a-f]{32}):", command[1] if len(command) > 1 else "")
        if not found:
            return None
        with self._lock:
            luck = self.lucks[found[1]]
            if self.dice.random() < FORGOTTEN:
                self._forget(command, luck)
            if self.dice.random() >= (STORM if self.storm else CALM):
                return None
            kind = self.storm or self.dice.choices(*zip(*STRIKES.items(), strict=True))[0]
            self._strike(command, luck, kind)
        return kind

    def _strike(self, command: Command, luck: Luck, kind: str) -> None:
        now, words = time.monotonic(), tuple(command)
        self.ledger.fault(kind)
        luck.strikes.append(now)
        if now - luck.struck.get(words, -DEADLINE) < DEADLINE:
            luck.excuses.add("away")
        luck.struck[words] = now

    def _forget(self, command: Command, luck: Luck) -> None:
        keys = command[1:] if command[0] == "MGET" else command[1:2]
        values, _ = self.upstash.quietly(["MGET", *keys], ["DEL", *keys])
        for key, value in zip(keys, cast("list[bytes | None]", values), strict=True):
            if value is not None:
                luck.stood[key].add(value.decode())
                luck.excuses.add("amnesia")
                self.ledger.fault("forget")

    def change(self, over: threading.Event) -> None:
        """Lets storms come and go until it is over."""
        dice = Random(self.dice.random())
        while not over.wait(dice.uniform(0.5, 1.5) * self.wishes.storm_every):
            self.storm = dice.choice([*STRIKES])
            over.wait(dice.uniform(0.7, 1.7))
            self.storm = ""
            self.upstash.forget()


# --- the backend ---


@dataclass
class Work:
    """What the backend was asked under one Idempotency-Key."""

    case: str
    manner: str
    asks: list[list[float]] = field(default_factory=list)  # when each began and ended
    answer: bytes = b""
    effects: int = 0


MANNERS: Final[Mapping[str, tuple[str, ...]]] = {
    "quick": ("well",),
    "slow": ("well",),
    "flaky": ("503", "garbage", "well"),
    "lossy": ("lost", "well"),
    "broken": ("422",),
}  # what becomes of the first attempt, the second, ...; the last stays


class Backend(ThreadingHTTPServer):
    """A service that decides what happens next, and keeps books of what it was asked."""

    daemon_threads, request_queue_size = True, 128

    def __init__(self, ledger: Ledger) -> None:
        super().__init__(("127.0.0.1", 0), Desk)
        self.url = f"http://127.0.0.1:{self.server_address[1]}/decide"
        self.works: dict[str, dict[str, Work]] = defaultdict(dict)  # by call, by key
        self.events: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        self.ledger, self.lock = ledger, threading.Lock()

    def note(self, key: str, known: Mapping[str, Any]) -> None:
        with self.lock:
            self.events[known["call_sid"], known["event"]][key] += 1

    def begin(self, key: str, known: Mapping[str, Any]) -> tuple[Work, list[float]]:
        """Writes an attempt down; the same key must always bring the same question."""
        manner, case = re.findall(r"answer (\w+) then \w+ about (\w+)", known["heard"])[0]
        now = time.monotonic()
        with self.lock:
            work = self.works[known["call_sid"]].setdefault(key, Work(case, manner))
            if work.case != case or key != f"{known['call_sid']}:{known['turn']}":
                self.ledger.breach("one key, one question", key=key, first=work.case, then=case)
            work.asks.append([now, now])
            return work, work.asks[-1]

    def carry_out(self, work: Work, known: Mapping[str, Any]) -> bytes:
        """The effect, once for each key; then the same answer for ever."""
        with self.lock:
            if not work.answer:
                then = re.findall(r"then (\w+) about", known["heard"])[0]
                to = {"to": "billing"} if then == "transfer" else {}
                say = f"{ANSWER.format(case=work.case)}."
                work.answer = json.dumps({"say": say, "then": then, **to}).encode()
                work.effects += 1
            return work.answer


class Desk(BaseHTTPRequestHandler):
    """One connection to the backend."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    @property
    def backend(self) -> Backend:
        return cast("Backend", self.server)

    def do_POST(self) -> None:
        known = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        key = self.headers["Idempotency-Key"]
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            self.backend.ledger.breach("the backend knows who asks", key=key)
        if "event" in known:
            self.backend.note(key, known)
            return self.reply(200, b"{}")
        work, ask = self.backend.begin(key, known)
        time.sleep(Random(key).uniform(*((3, 5) if work.manner == "slow" else (0, 0.3))))
        outcomes = MANNERS[work.manner]
        self.finish_with(outcomes[min(len(work.asks), len(outcomes)) - 1], work, known)
        ask[1] = time.monotonic()
        return None

    def finish_with(self, outcome: str, work: Work, known: Mapping[str, Any]) -> None:
        if outcome.isdigit():
            return self.reply(int(outcome), b"no")
        if outcome == "garbage":
            return self.reply(200, b"<h1>It works!</h1>")
        answer = self.backend.carry_out(work, known)
        if outcome == "lost":
            self.close_connection = True
            return None
        return self.reply(200, answer)

    def reply(self, status: int, body: bytes) -> None:
        with contextlib.suppress(OSError):  # whoever asked was killed
            head = f"HTTP/1.1 {status} -\r\nContent-Length: {len(body)}\r\n\r\n"
            self.wfile.write(head.encode() + body)

    def log_message(self, *_: object) -> None:
        """Nothing: there is a table at the end."""


# --- instances ---


class Member:
    """One instance and the spans of time in which it was not to be relied upon."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self.instance = Instance(env)
        self.groups = [self.instance.pid]
        self.downs: list[list[float]] = []
        self.up = True

    def die(self, seconds: float) -> None:
        """Kills it with -9, and starts a fresh process after a while."""
        span = [time.monotonic(), float("inf")]
        self.downs.append(span)
        self.up = False
        self.instance.kill()
        time.sleep(seconds)
        self.instance.restart()
        self.groups.append(self.instance.pid)
        self.up, span[1] = True, time.monotonic()

    def was_down(self, began: float, ended: float) -> bool:
        return any(down <= ended and began <= up for down, up in self.downs)


class Fleet:
    """All instances of both lines, and the one who kills them: never more than one at a time."""

    def __init__(self, wishes: Wishes, env: Mapping[str, str], backend: Backend) -> None:
        settings = SETTINGS | {"desk": SETTINGS["desk"] | {"BACKEND_URL": backend.url}}
        with ThreadPoolExecutor(4) as starters:
            started = {
                name: [starters.submit(Member, dict(env) | own) for _ in range(wishes.instances)]
                for name, own in settings.items()
            }
        self.lines = {name: [each.result() for each in all_] for name, all_ in started.items()}

    @property
    def members(self) -> list[Member]:
        return [member for line in self.lines.values() for member in line]

    def kill_at_random(self, wishes: Wishes, ledger: Ledger, over: threading.Event) -> None:
        dice = Random(f"{wishes.seed} killer")
        while not over.wait(dice.uniform(0.5, 1.5) * wishes.kill_every):
            dice.choice(self.members).die(dice.uniform(0, 1))
            ledger.add("kills")

    def killed(self, line: str, began: float, ended: float) -> bool:
        return any(member.was_down(began, ended) for member in self.lines[line])


# --- the way of a webhook ---


@dataclass
class Delivery:
    """One attempt that reached an instance, and the answer."""

    began: float
    ended: float
    status: int
    body: str


@dataclass
class Post:
    """One webhook, however often it is delivered."""

    url: str
    fields: Fields
    headers: Mapping[str, str]
    doom: str = ""
    attempts: int = 0
    losses: int = 0
    deliveries: list[Delivery] = field(default_factory=list)

    @property
    def path(self) -> str:
        return urlsplit(self.url).path

    @property
    def turn(self) -> int:
        """The turn that this webhook, or the failed one that it stands for, comes back to."""
        query = parse_qs(urlsplit(dict(self.fields).get("ErrorUrl", self.url)).query)
        return int(query.get("turn", ["0"])[0])


class Road:
    """What lies between Twilio and the instances of one line, for one call."""

    def __init__(self, world: "World", line: str, dice: Random) -> None:
        self.world, self.line, self.dice = world, line, dice
        self.posts: dict[tuple[str, tuple[tuple[str, str], ...]], Post] = {}
        self.stale: list[Post] = []
        self.under_way: list[Future[None]] = []

    def deliver(self, url: str, fields: Fields, headers: Mapping[str, str]) -> Answer:
        """An attempt of Twilio's, with what chaos adds or takes away."""
        post = self.posts.setdefault((url, tuple(fields)), Post(url, fields, headers))
        post.attempts += 1
        self.world.ledger.add("webhooks" if post.attempts == 1 else "retries")
        if post.attempts == 1:
            self._first(post)
        if fate := self._fate(post):
            self._lose(post, fate)
        if self.dice.random() < DELAYED:
            self.world.ledger.add("delayed")
            time.sleep(self.dice.uniform(0, 0.4))
        member = self._member(post)
        if self.dice.random() < TWINS:
            self._in_background(post, "duplicates at once", 0)
        if self.dice.random() < STALE:
            self.stale.append(post)
        return self.attempt(post, member)

    def _first(self, post: Post) -> None:
        if post.path == "/voice/fallback":
            self.world.ledger.add("fallbacks")
        elif post.path != "/voice/status" and self.dice.random() < DOOMED:
            post.doom = self.dice.choice([*LOSSES])

    def _fate(self, post: Post) -> str:
        if post.doom or post.losses >= 2:
            return post.doom
        kind = self.dice.choices([*LOSSES, ""], [*LOSSES.values(), 1 - sum(LOSSES.values())])[0]
        post.losses += bool(kind)
        return kind

    def _lose(self, post: Post, fate: str) -> None:
        """Twilio sees a failure: nothing arrived, or its answer did not, or both come too late."""
        self.world.ledger.add(f"webhooks {fate}")
        if fate == "refused":
            raise Failed(11205, "chaos: no connection", "ct", 2.0)
        if fate == "unheard":
            with contextlib.suppress(Failed):
                self.attempt(post, self._member(post))
        else:
            late = self.dice.choice([0.02, 2.0])  # while Twilio turns elsewhere, or long after
            self._in_background(post, "duplicates out of order", self.dice.uniform(0, late))
        raise Failed(11205, f"chaos: {fate}", "rt", 3.0)

    def _in_background(self, post: Post, kind: str, seconds: float) -> None:
        member = self._member(post, alive=True)

        def again() -> None:
            time.sleep(seconds)
            with contextlib.suppress(Failed):
                self.attempt(post, member)

        self.world.ledger.add(kind)
        self.under_way.append(self.world.pool.submit(copy_context().run, again))

    def _member(self, post: Post, alive: bool = False) -> Member:
        """Any instance, for a retry one that lives: by then the edge has noticed."""
        members = self.world.fleet.lines[self.line]
        if alive or post.attempts > 1:
            members = [member for member in members if member.up] or members
        return self.dice.choice(members)

    def attempt(self, post: Post, member: Member) -> Answer:
        """Delivers once to an instance, and writes down what came of it."""
        url = post.url.replace(PUBLIC, member.instance.url, 1)
        began = time.monotonic()
        try:
            answer = http_deliver(url, post.fields, post.headers)
        except Failed as failed:
            if not member.was_down(began, time.monotonic()):
                self.world.ledger.breach(
                    "a living instance answers", url=post.url, why=failed, after=failed.seconds
                )
            raise
        self.world.ledger.took(answer.seconds)
        ended = time.monotonic()
        post.deliveries.append(Delivery(began, ended, answer.status, answer.body.decode()))
        if answer.seconds > DEADLINE + MARGIN:
            self.world.ledger.breach("the deadline", url=post.url, seconds=answer.seconds)
        return answer

    def deliver_stale(self, share: float) -> None:
        """Delivers webhooks of the past once more."""
        due = [post for post in self.stale if self.dice.random() < share]
        for post in due:
            self.stale.remove(post)
            self.world.ledger.add("duplicates long after")
            with contextlib.suppress(Failed):
                self.attempt(post, self._member(post, alive=True))

    def settle_down(self) -> None:
        """Waits until nothing of this call is on its way any more."""
        self.deliver_stale(1.0)
        for future in self.under_way:
            future.result()


# --- callers ---


class Caller:
    """One call that follows a script."""

    def __init__(self, world: "World", number: int) -> None:
        self.world, self.dice = world, Random(f"{world.wishes.seed} caller {number}")
        self.script = self.dice.choice(world.wishes.scripts)
        self.road = Road(world, self.script.line, self.dice)
        self.phone = Phone(
            PUBLIC, token=TOKEN, deliver=self.road.deliver, clock=Clock(PACE), caller="+15557654321"
        )
        sid = md5(f"{world.wishes.seed} {number}".encode(), usedforsecurity=False)
        self.phone.call_sid = "CA" + sid.hexdigest()
        self.number, self.cases = number, list[str]()
        self.case, self.place, self.mark = "", 0, 0
        self.detours: list[str] = []
        self.messages = 0

    @property
    def luck(self) -> Luck:
        return self.world.weather.lucks[self.phone.call_sid]

    @property
    def excuses(self) -> set[str]:
        fallen = any(post.path == "/voice/fallback" for post in self.road.posts.values())
        return self.luck.excuses | ({"fallback"} if fallen else set())

    def call(self) -> None:
        """Rings, follows the script to the end, and lets stragglers arrive."""
        self.phone.ring()
        for _ in range(MOST_EVENTS):
            if self.phone.state == "ended":
                break
            self._event()
        if self.phone.state != "ended":
            self.breach("every call ends", heard=self.words())
            self.phone.hang_up()
        self.road.settle_down()

    def words(self) -> str:
        """What the line said and did since the caller last acted."""
        return " | ".join(e for e in self.phone.transcript[self.mark :] if e.startswith("line"))

    def _event(self) -> None:
        if self.phone.state != "hold":
            time.sleep(self.dice.uniform(0, 2) * self.world.wishes.think)
        self.road.deliver_stale(0.3)
        does = self._next_of_script()
        if self.phone.state == "hold" and does != "caller hangs up":
            self.phone.wait()
            return
        if not does:
            self.breach("the caller knows what to do", heard=self.words())
            self.phone.hang_up()
            return
        if "{case}" in does:
            self.case = f"case{self.number}x{len(self.cases) + 1}"
            self.cases.append(self.case)
        self.messages += self.phone.state == "record"
        self.mark = len(self.phone.transcript)
        if wrong := perform(self.phone, does.replace("{case}", self.case)):
            self.breach("the caller can do it", does=does, wrong=wrong)

    def _next_of_script(self) -> str:
        """What the caller does now: by the script, else by a scene of it, else by a detour."""
        words, scenes = self.words(), self.script.scenes
        if self.place < len(scenes) and self._hears(scenes[self.place][0], words):
            self.place += 1
            return scenes[self.place - 1][1]
        if self.phone.state == "hold":
            return ""
        self.detours.append(words)
        for place in sorted(range(len(scenes)), key=lambda i: abs(i - self.place + 0.5)):
            if self._hears(scenes[place][0], words, rf"case{self.number}x\d+"):
                self.place = place + 1
                return scenes[place][1]
        return next((does for hears, does in DETOURS if self._hears(hears, words)), "")

    def _hears(self, pattern: str, words: str, case: str = "") -> bool:
        """Whether these are the words, about the question asked last or whichever is allowed."""
        return bool(re.search(pattern.replace("{case}", case or self.case or "nothing yet"), words))

    def breach(self, promise: str, **known: object) -> None:
        """A broken promise, with what it takes to understand it and to ring again."""
        known |= {"number": self.number, "call": self.phone.call_sid, "script": self.script.name}
        known |= {"excuses": sorted(self.excuses), "strikes": len(self.luck.strikes)}
        self.world.ledger.breach(promise, **known, transcript=self.phone.transcript[-16:])


# --- the audit of a call ---


class Audit:
    """What must hold for a call that is over."""

    def __init__(self, caller: Caller) -> None:
        self.caller, self.world, self.phone = caller, caller.world, caller.phone
        self.posts = list(caller.road.posts.values())
        self.settled = self._settled()
        self.first_settled: dict[int, float] = {}  # by turn: when its settled answer was given

    def _settled(self) -> dict[int, set[str]]:
        """The TwiML that stands, or stood before it was forgotten, by turn."""
        turns = range(1, max(post.turn for post in self.posts) + 2)
        keys = [f"call:{self.phone.call_sid}:{turn}" for turn in turns]
        now = cast("list[bytes | None]", self.world.upstash.quietly(["MGET", *keys])[0])
        found = {}
        for turn, key, value in zip(turns, keys, now, strict=True):
            values = self.caller.luck.stood[key] | ({value.decode()} if value else set())
            found[turn] = {str(json.loads(each)["twiml"]) for each in values}
        return found

    def run(self) -> None:
        self.follow_script()
        self.check_answers()
        for problem in self.phone.broken:
            if problem.code not in (11205, 11217):
                self.caller.breach("valid TwiML", problem=problem)
        if self.caller.script.line == "desk":
            self.check_effects()
            self.check_events()
        ledger = self.world.ledger
        ledger.add("calls")
        for excuse in self.caller.excuses:
            ledger.add(f"calls that met {excuse}")
        ledger.add("calls that took a detour", bool(self.caller.detours))

    def follow_script(self) -> None:
        """Ended in words, as the script demands."""
        caller, script = self.caller, self.caller.script
        said, ends = " ".join(self.phone.transcript), script.ends.replace("{case}", caller.case)
        last = caller.words()
        allowed = caller.excuses if script.remembered else caller.excuses & {"fallback"}
        if caller.detours and not allowed:
            caller.breach("the call goes by its script", heard=caller.detours)
        if said.count(GREETING) > 1:
            caller.breach("no call begins anew")
        if caller.detours and ends:
            ends += f"|{DETOUR_ENDS}"
        if not re.search(ends, last):
            caller.breach("the call ends in its words", last=last)
        if BUG in said or "error message" in said:
            caller.breach("no apology for a bug")
        left = [hears for hears, _ in script.scenes[caller.place :] if hears != HOLDING]
        if left and not caller.detours:
            caller.breach("the whole script is played", left=left)

    def check_answers(self) -> None:
        """Every answer, in the order in which the webhooks came."""
        given = [(each, post) for post in self.posts for each in post.deliveries]
        for delivery, post in sorted(given, key=lambda pair: pair[0].began):
            if post.path == "/voice/status":
                if delivery.status not in (204, 503):
                    self.caller.breach("the end is taken", status=delivery.status)
            elif delivery.status != 200:
                self.caller.breach("no webhook is refused", url=post.url, status=delivery.status)
            else:
                self.check_words(post, delivery)

    def check_words(self, post: Post, delivery: Delivery) -> None:
        """One answer: what stands in the cell of its turn, or what need not stand anywhere."""
        ledger, luck = self.world.ledger, self.caller.luck
        struck = any(delivery.began <= at <= delivery.ended for at in luck.strikes)
        known = self.first_settled.get(post.turn, delivery.ended) < delivery.began
        held = f"<Redirect>/voice/process?turn={post.turn}&amp;" in delivery.body
        if delivery.body in self.settled[post.turn + 1]:
            ledger.add("answers settled")
            ledger.add("duplicates answered alike", known)
            if not struck:  # else the same words may have been said before they were settled
                self.first_settled.setdefault(post.turn, delivery.ended)
        elif held and (struck or not known or "amnesia" in luck.excuses):
            ledger.add("answers on hold")
        elif struck:
            ledger.add("answers unsettled, as Redis was away")
        else:
            stands = sorted(self.settled[post.turn + 1])
            self.caller.breach(
                "every answer is settled", url=post.url, said=delivery.body, stands=stands
            )

    def check_effects(self) -> None:
        """What a caller asked for happened once; the backend was not asked more than it needed."""
        sid, happened = self.phone.call_sid, Counter[str]()
        with self.world.backend.lock:
            works = [*self.world.backend.works[sid].values()]
        for work in works:
            happened[work.case] += work.effects
            self.check_workers(work)
        self.world.ledger.add("effects", happened.total())
        wanted = "broken" not in self.caller.script.scenes[0][1]
        waited = self.phone.transcript.count("caller hangs up") == 0
        for case in self.caller.cases:
            if happened[case] > 1:
                self.caller.breach("each effect once", case=case)
            if wanted and waited and not happened[case] and not self.caller.excuses:
                self.caller.breach("no effect is missing", case=case)

    def check_workers(self, work: Work) -> None:
        """A question is repeated to the backend only after a kill, or in a call with an excuse."""
        spare = len(work.asks) - len(MANNERS[work.manner])
        if spare <= 0:
            return
        self.world.ledger.add("questions repeated to the backend", spare)
        killed = self.world.fleet.killed("desk", work.asks[0][0], work.asks[-1][1])
        if not killed and not self.caller.excuses:
            self.caller.breach("one worker at a time", case=work.case, asks=work.asks)

    def check_events(self) -> None:
        """The backend has been told of every end, and of every message."""
        sid = self.phone.call_sid
        with self.world.backend.lock:
            events = {name: self.world.backend.events[sid, name] for name in ("ended", "voicemail")}
        if max(map(len, events.values())) > 1:
            self.caller.breach("each event has one key", events=events)
        status = [p for p in self.posts if p.path == "/voice/status"]
        taken = any(each.status == 204 for p in status for each in p.deliveries)
        if taken and not events["ended"]:
            self.caller.breach("the backend is told of the end")
        left = self.caller.messages and not self.caller.excuses
        if taken and left and not events["voicemail"]:
            self.caller.breach("the backend is told of the message")


# --- the run ---


class World:
    """Everything that runs, and is gone at the end of the `with`."""

    def __init__(self, wishes: Wishes) -> None:
        self.wishes, self.ledger = wishes, Ledger()
        self.over = threading.Event()
        self.began = time.monotonic()

    def __enter__(self) -> "World":
        with contextlib.ExitStack() as opened:
            self.upstash = opened.enter_context(Upstash())
            self.backend = opened.enter_context(Backend(self.ledger))
            self._start(self.backend.serve_forever, 0.02)
            opened.callback(self.backend.shutdown)
            self.weather = Weather(self.upstash, self.ledger, self.wishes)
            env = self.upstash.settings | {"TWILIO_AUTH_TOKEN": TOKEN, "PUBLIC_URL": PUBLIC}
            env |= {"FORWARD_TO": FORWARD, "RESPONSE_DEADLINE": str(DEADLINE), "THREADS": "64"}
            self.fleet = Fleet(self.wishes, env, self.backend)
            for member in self.fleet.members:
                opened.callback(member.instance.kill)
            self.pool = opened.enter_context(ThreadPoolExecutor(64, "straggler"))
            self._closing = opened.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self._closing.close()

    def _start(self, work: Callable[..., object], *arguments: object) -> threading.Thread:
        """A thread whose failure is a broken promise of this file's own."""

        def guarded() -> None:
            try:
                work(*arguments)
            except Exception:
                self.ledger.breach("chaos itself works", error=traceback.format_exc())

        thread = threading.Thread(target=guarded, daemon=True)
        thread.start()
        return thread

    def run(self) -> None:
        """All calls, then what must hold when they are over."""
        chaos = [
            self._start(self.weather.change, self.over),
            self._start(self.progress, self.over),
            self._start(self.fleet.kill_at_random, self.wishes, self.ledger, self.over),
        ]
        dice, calls = Random(f"{self.wishes.seed} arrivals"), []
        only = self.wishes.only
        for number in range(self.wishes.calls) if only is None else [only]:
            calls.append(self._start(self.one_call, number))
            time.sleep(dice.expovariate(self.wishes.rate))
        for thread in calls:
            thread.join()
        self.over.set()
        for thread in chaos:
            thread.join()

    def one_call(self, number: int) -> None:
        with self.ledger.busy():
            caller = Caller(self, number)
            caller.call()
            Audit(caller).run()

    def progress(self, over: threading.Event) -> None:
        """A line every few seconds, for whoever waits."""
        counts = self.ledger.counts
        while True:
            ended = over.wait(5)
            seconds = time.monotonic() - self.began
            print(
                f"{seconds:5.0f} s: {counts['calls']} of {self.wishes.calls} calls are over, "
                f"{self.ledger.under_way} under way, {counts['webhooks']} webhooks, "
                f"{counts['kills']} kills, {len(self.ledger.broken)} promises broken",
                file=sys.stderr,
                flush=True,
            )
            if ended:
                return

    def check_cells(self) -> None:
        """No cell without an end, and no claim on work that nobody does."""
        until = time.monotonic() + LEASE
        while leases := [key for key, _ in self.upstash.keys().items() if key.endswith(":lease")]:
            if time.monotonic() > until:
                self.ledger.breach("every claim ends", leases=leases[:5])
                break
            time.sleep(0.2)
        lives = self.upstash.keys()
        self.ledger.add("cells at the end", len(lives))
        for key, ttl in lives.items():
            if ttl == -1 or ttl > 24 * 3600:
                self.ledger.breach("every cell ends", key=key, ttl=ttl)

    def check_logs(self) -> None:
        for member in self.fleet.members:
            output = member.instance.output()
            for sign in ("Traceback", '"a bug', "slow work failed"):
                if sign in output:
                    where = output.index(sign)
                    self.ledger.breach("no bug", log=output[max(0, where - 300) : where + 600])

    def check_processes(self) -> None:
        """Nothing runs any more: called when the `with` is over."""
        groups = {group for member in self.fleet.members for group in member.groups}
        until = time.monotonic() + 2
        while left := groups & living_groups():
            if time.monotonic() > until:
                self.ledger.breach("nothing is left running", groups=left)
                break
            time.sleep(0.1)


def living_groups() -> set[int]:
    """The process groups in which something runs; the dead whom nobody has buried do not count."""
    listed = subprocess.run(["ps", "-A", "-o", "pgid=,stat="], capture_output=True, check=True)
    rows = (line.split() for line in listed.stdout.decode().splitlines())
    return {int(group) for group, state in rows if not state.startswith("Z")}


def run(wishes: Wishes) -> dict[str, Any]:
    """A whole chaos run; the table that it ends with, where `broken` has to be empty."""
    world = World(wishes)
    with world:
        world.run()
        world.check_cells()
        world.check_logs()
    world.check_processes()
    ledger = world.ledger
    return {
        "seed": wishes.seed,
        "seconds": round(time.monotonic() - world.began, 1),
        **dict(sorted(ledger.counts.items())),
        "faults of Redis": ledger.faults.total(),
        **{f"  {kind}": number for kind, number in sorted(ledger.faults.items())},
        "slowest webhook, seconds": round(ledger.slowest, 2),
        "promises broken": len(ledger.broken),
        "broken": ledger.broken,
    }


def show(table: Mapping[str, Any]) -> None:
    broken: Sequence[str] = table["broken"]
    for name, value in table.items():
        if name != "broken":
            print(f"{name:42} {value:>10}")
    for each in broken[:50]:
        print(f"\n{each}")


def main() -> int:
    """Runs what the command line asks for. The exit status is 0 when every promise was kept."""
    parser = argparse.ArgumentParser(description="Calls by the hundred while everything breaks.")
    parser.add_argument("--calls", type=int, default=Wishes.calls)
    parser.add_argument("--seed", type=int, default=Wishes.seed)
    parser.add_argument("--rate", type=float, default=Wishes.rate, help="calls that begin a second")
    parser.add_argument("--think", type=float, default=Wishes.think, help="a caller's seconds")
    parser.add_argument("--instances", type=int, default=Wishes.instances, help="of each line")
    parser.add_argument("--only", type=int, metavar="N", help="ring just as call number N did")
    parser.add_argument("--json", action="store_true", help="the table as JSON on stdout")
    wishes = vars(parser.parse_args())
    as_json = wishes.pop("json")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # whoever stops it stops it whole
    table = run(Wishes(**wishes))
    if as_json:
        print(json.dumps(table, indent=1))
    else:
        show(table)
    return 1 if table["broken"] else 0


if __name__ == "__main__":
    sys.exit(main())
