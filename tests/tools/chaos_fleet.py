"""The instances of a chaos run, and what happens to them: kills, loiterers, a late REST API."""

import socket
import threading
import time
from collections import deque
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from random import Random
from typing import Final
from urllib.parse import urlsplit

from standins.instance import Instance
from standins.twilio_api import Push, TwilioApi
from tools.chaos_backend import Backend
from tools.chaos_ledger import BILLING, CANCEL, TOKEN, Ledger, Wishes

DEPARTMENTS: Final = f"billing={BILLING} cancel={CANCEL}"
SETTINGS: Final = {
    "menu": {"DEPARTMENTS": DEPARTMENTS},
    "desk": {"DEPARTMENTS": DEPARTMENTS, "BACKEND_TOKEN": TOKEN},
}
LOITERERS: Final = {
    "half a line": b"POST /voice/pro",
    "half a request": b"POST / HTTP/1.1\r\nHost: line\r\nContent-Length: 900\r\n\r\nCallSid=",
    "no goodbye": b"GET /nothing HTTP/1.1\r\nHost: line\r\nConnection: close\r\n\r\n",
}  # what they send before they fall silent
AT_ONCE: Final = 12  # loiterers that come together: more than an instance has threads to spare
STAYING: Final = 60  # of whom so many stay; the others hang up at last
PUSHED: Final = {"": 6, "late": 10, "late answer": 3, "429": 2, "500": 1}
LATE: Final = (3.0, 4.0)  # seconds that Twilio's REST API takes under load


class Member:
    """One instance and the spans of time in which it was not to be relied upon."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self.instance = Instance(env)
        self.groups = [self.instance.pid]
        self.downs: list[list[float]] = []
        self.up = True

    def die(self, seconds: float) -> None:
        """Kill it with -9, and start a fresh process after a while."""
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
    """All instances of both lines, and the one who kills them: never more than one at a time.

    Every second instance has two processes: to the others they are two instances more.
    """

    def __init__(
        self, wishes: Wishes, env: Mapping[str, str], backend: Backend, api: TwilioApi
    ) -> None:
        asking = {**SETTINGS["desk"], "BACKEND_URL": backend.url, **api.settings}
        settings = SETTINGS | {"desk": asking}
        with ThreadPoolExecutor(4) as starters:
            started = {
                name: [
                    starters.submit(Member, {**env, **own, "WORKERS": str(1 + number % 2)})
                    for number in range(wishes.instances)
                ]
                for name, own in settings.items()
            }
        self.lines = {name: [each.result() for each in all_] for name, all_ in started.items()}

    @property
    def members(self) -> list[Member]:
        return [member for line in self.lines.values() for member in line]

    def kill_at_random(self, wishes: Wishes, ledger: Ledger, over: threading.Event) -> None:
        """Kill one instance after the other until it is over."""
        dice = Random(f"{wishes.seed} killer")
        while not over.wait(dice.uniform(0.5, 1.5) * wishes.kill_every):
            dice.choice(self.members).die(dice.uniform(0, 1))
            ledger.add("kills")

    def killed(self, line: str, began: float, ended: float) -> bool:
        return any(member.was_down(began, ended) for member in self.lines[line])

    def loiter(self, wishes: Wishes, ledger: Ledger, over: threading.Event) -> None:
        """Open connections that say little or nothing more, and are not closed."""
        dice, staying = Random(f"{wishes.seed} loiterers"), deque[socket.socket]()
        while not over.wait(dice.uniform(0.5, 1.5) * wishes.loiter_every):
            address = urlsplit(dice.choice(self.members).instance.url)
            words = dice.choice([*LOITERERS.values()])
            for _ in range(AT_ONCE):
                with suppress(OSError):  # the instance has just been killed
                    place = (address.hostname or "", address.port or 0)
                    staying.append(socket.create_connection(place, timeout=1))
                    staying[-1].sendall(words)
                    ledger.add("connections left open")
            while len(staying) > STAYING:
                staying.popleft().close()
        for each in staying:
            each.close()


class LateApi(TwilioApi):
    """Twilio's REST API on a bad day: it moves a call late, answers late, or not now."""

    def __init__(self, wishes: Wishes, ledger: Ledger) -> None:
        super().__init__(TOKEN)
        self.dice, self.ledger = Random(f"{wishes.seed} pushes"), ledger

    def take(self, push: Push) -> str | None:
        """Move the call, before or after a delay; else what is wrong."""
        kind = self.dice.choices([*PUSHED], [*PUSHED.values()])[0]
        seconds = self.dice.uniform(*LATE)
        self.ledger.add(f"pushes, {kind or 'in time'}")
        if kind.isdigit():
            self.pushes.append(push)
            return kind
        if kind == "late":
            self.closing.wait(seconds)
        found = super().take(push)
        if kind == "late answer":
            self.closing.wait(seconds)
        return found
