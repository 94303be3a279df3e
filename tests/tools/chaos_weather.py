"""Redis in a chaos run: which commands it fails at, and what that excuses.

A command has several attempts. Each fault uses up its share of them (`SHARES`); only when all are
used up may the line go on without Redis. A hang does more: a store that hangs is remembered, so
that the commands after it have one short attempt.

All of this is a process of its own (`Station`): hundreds of callers beside it would keep Redis
waiting, and a slow Redis is nothing that the line should be blamed for. Moments are those of
`time.monotonic`, which processes of one machine share.
"""

import multiprocessing
import re
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from random import Random
from typing import Any, Final, Self, cast

from standins.upstash import Command, Upstash
from tools.chaos_ledger import DEADLINE, Wishes
from tools.chaos_machine import stop_garbage_collection

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
SLOW: Final = ("hang", "drip", "late", "apply-then-hang")
SHARES: Final = {**dict.fromkeys(STRIKES, 0.2), **dict.fromkeys((*SLOW, "quota"), 0.5)}
REMEMBERED: Final = 5.0  # seconds for which a line may have less patience after a hang (cells.py)
CALM, STORM = 0.03, 0.5  # shares of the commands that are struck
FORGOTTEN: Final = 0.01  # share of the commands before which their cells are forgotten


@dataclass
class Luck:
    """The luck of one call, which is one of a line, with Redis."""

    line: str = ""
    struck: dict[tuple[str, ...], list[tuple[float, float]]] = field(
        default_factory=lambda: defaultdict(list)
    )  # command: when, and which share of its attempts that cost
    excuses: set[str] = field(default_factory=set)
    strikes: list[float] = field(default_factory=list)
    stood: dict[str, set[str]] = field(default_factory=dict)  # cells, until they were forgotten


class Weather:
    """Decides which commands Redis fails at. It is calm, with a storm now and then.

    `outage` is the fault that strikes every command while it lasts.
    """

    def __init__(self, upstash: Upstash, wishes: Wishes) -> None:
        self.upstash, self.wishes = upstash, wishes
        self.dice = Random(f"{wishes.seed} weather")
        self.lucks: dict[str, Luck] = {}
        self.hangs: dict[str, list[float]] = defaultdict(list)  # line: when commands of it hung
        self.faults: Counter[str] = Counter()
        self.storm, self.outage = "", ""
        self._lock = threading.Lock()
        upstash.late_seconds, upstash.drip_seconds = 0.2, 0.05
        upstash.fault = self.judge

    def judge(self, command: Command) -> str | None:
        """The fault that strikes this command, None for most."""
        found = re.match(r"call:(CA[0-9a-f]{32}):", command[1] if len(command) > 1 else "")
        if not found:
            return self.outage or None
        with self._lock:
            luck = self.lucks.setdefault(found[1], Luck())
            if self.dice.random() < FORGOTTEN and not self.outage:
                self._forget(command, luck)
            kind = self.outage or self._draw()
            if kind:
                self._strike(command, luck, kind)
        return kind or None

    def _draw(self) -> str:
        if self.dice.random() >= (STORM if self.storm else CALM):
            return ""
        return self.storm or self.dice.choices(*zip(*STRIKES.items(), strict=True))[0]

    def _strike(self, command: Command, luck: Luck, kind: str) -> None:
        now, strikes = time.monotonic(), luck.struck[tuple(command)]
        self.faults[kind] += 1
        luck.strikes.append(now)
        strikes.append((now, SHARES[kind]))
        lost = sum(share for when, share in strikes if now - when < DEADLINE)
        hangs = kind in SLOW and self._has_hung(luck.line, now, now)
        if lost > 0.99 or hangs or self.outage:
            luck.excuses.add("away")
        if kind in SLOW:
            self.hangs[luck.line].append(now)

    def _forget(self, command: Command, luck: Luck) -> None:
        keys = command[1:] if command[0] == "MGET" else command[1:2]
        values, _ = self.upstash.quietly(["MGET", *keys], ["DEL", *keys])
        for key, value in zip(keys, cast("list[bytes | None]", values), strict=True):
            if value is not None:
                luck.stood.setdefault(key, set()).add(value.decode())
                luck.excuses.add("amnesia")
                self.faults["forget"] += 1

    def _has_hung(self, line: str, began: float, ended: float) -> bool:
        hangs = reversed(self.hangs[line])  # the last one comes first
        latest = next((when for when in hangs if when < ended), 0.0)
        return latest > began - REMEMBERED

    def change(self, over: threading.Event) -> None:
        """Let storms come and go until it is over."""
        dice = Random(self.dice.random())
        while not over.wait(dice.uniform(0.5, 1.5) * self.wishes.storm_every):
            self.storm = dice.choice([*STRIKES])
            over.wait(dice.uniform(0.7, 1.7))
            self.storm = ""
            self.upstash.forget()

    # What a run asks the station for.

    def expect(self, call_sid: str, line: str) -> None:
        """A call of a line is about to begin."""
        with self._lock:
            self.lucks[call_sid] = Luck(line)

    def luck_of(self, call_sid: str) -> Luck:
        """The faults that met a call so far."""
        with self._lock:
            luck = self.lucks[call_sid]
            return Luck(luck.line, {}, {*luck.excuses}, [*luck.strikes], dict(luck.stood))

    def has_hung(self, line: str, began: float, ended: float) -> bool:
        """Tell whether commands of a line hung during some time, or so shortly before."""
        with self._lock:
            return self._has_hung(line, began, ended)

    def read(self, *keys: str) -> list[str | None]:
        """The cells as they stand."""
        values = cast("list[bytes | None]", self.upstash.quietly(["MGET", *keys])[0])
        return [value.decode() if value is not None else None for value in values]

    def lives(self) -> dict[str, int]:
        """Every key with the seconds it has left; -1 is for ever."""
        return self.upstash.keys()

    def turn(self, outage: str) -> None:
        """Let a fault strike every command from now on; none: Redis comes back."""
        self.outage = outage
        if not outage:
            self.upstash.release()

    def count(self) -> Counter[str]:
        """The faults so far."""
        return Counter(self.faults)


class Station:
    """The weather and its Redis, in a process of their own. What is asked is a method of Weather's.

    `settings` lead an instance to its database.
    """

    def __init__(self, wishes: Wishes) -> None:
        self._wishes, self._lock = wishes, threading.Lock()

    def __enter__(self) -> Self:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=serve, args=(self._wishes, other), daemon=True)
        self._process.start()
        other.close()
        self.settings: dict[str, str] = self._pipe.recv()
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._pipe.send(None)
        self._process.join(10)
        self._process.kill()
        self._pipe.close()

    def ask(self, what: Callable[..., Any], *arguments: object) -> Any:  # noqa: ANN401 (as that method)
        """The result of a method."""
        with self._lock:
            self._pipe.send((what.__name__, arguments))
            return self._pipe.recv()

    def luck_of(self, call_sid: str) -> Luck:
        """The faults that met a call so far."""
        luck: Luck = self.ask(Weather.luck_of, call_sid)
        return luck

    def read(self, *keys: str) -> list[str | None]:
        """The cells as they stand."""
        values: list[str | None] = self.ask(Weather.read, *keys)
        return values


def serve(wishes: Wishes, pipe: Connection) -> None:
    """The station's process."""
    stop_garbage_collection()
    over = threading.Event()
    with Upstash() as upstash:
        weather = Weather(upstash, wishes)
        threading.Thread(target=weather.change, args=(over,), daemon=True).start()
        pipe.send(upstash.settings)
        while wish := pipe.recv():
            name, arguments = wish
            pipe.send(getattr(weather, name)(*arguments))
        over.set()
