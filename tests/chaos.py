"""A chaos run: hundreds of calls at once, on instances that die, over a Redis that misbehaves.

    python tests/chaos.py --calls 1000 --seed 7   # two minutes; the exit status is the verdict
    python tests/chaos.py --calls 10000 --json    # a quarter of an hour; the table as JSON
    python tests/chaos.py --calls 600 --storm     # and 300 more within ten seconds, as Redis hangs

Two lines run, each as several real instances, every second of them with two processes: a menu of
departments, and a desk that consults a backend. Callers follow scripts (`tools/chaos_scripts.py`),
and so do the people whose phones are rung: they take the call, press a wrong key, hang up, or are a
mailbox. Meanwhile

- instances are killed with -9 and started again, and strangers leave connections open;
- webhooks are lost on the way in or out, delayed, delivered twice at once or long after their turn;
  Twilio retries and falls back;
- Twilio's REST API, which brings a late answer, takes three or four seconds, or says no;
- the stand-in for Upstash fails in every way of STRIKES (`tools/chaos_weather.py`), and forgets.

Whatever is random comes from the seed, but threads and processes race as they like, so a seed
repeats the plan of a run and not its every interleaving.

What is promised is checked for every call (`tools/chaos_audit.py`): every webhook is answered
within the deadline, and a call is held to its script word by word. Only what the contract itself
allows excuses a detour, and each excuse is something that this run did to that call, never
something the line says about itself:

- `away`: Redis failed so often at one command of this call that all its attempts were used up. It
  goes on from the step in the URL; what it cannot know then is asked again, or a person is found.
- `amnesia`: Redis forgot cells of this call. The same.
- `fallback`: Twilio gave a webhook up, because this run lost every attempt or killed its instance.
  The question is asked again, and whoever was being connected may find voicemail.
- `unscreened`: the same with the webhook of a phone that is rung. The caller finds voicemail.

A single fault of Redis, a killed instance, a retry, a duplicate, a late push and a connection that
is never closed excuse nothing.
"""

import argparse
import contextlib
import json
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import Any, Final

from tools.chaos_audit import Audit
from tools.chaos_backend import Backend
from tools.chaos_caller import Caller
from tools.chaos_fleet import Fleet, LateApi
from tools.chaos_ledger import DEADLINE, FORWARD, PUBLIC, TOKEN, UNJUDGED, Ledger, Wishes
from tools.chaos_machine import MOST, Machine, list_processors, stop_garbage_collection
from tools.chaos_weather import Station, Weather

LEASE: Final = 12.0  # seconds within which a claim on slow work must be gone
THREADS: Final = 16  # of each process; in a storm twice as many callers wait for them
STORM: Final = 300  # callers
STORM_SECONDS: Final = 10.0  # within which they ring, while Redis hangs
LOITER_HELP: Final = "seconds between strangers who leave connections open"
STORM_HELP: Final = f"{STORM} more calls within ten seconds while Redis hangs"


class World:
    """Everything that runs, and is gone at the end of the `with`."""

    def __init__(self, wishes: Wishes) -> None:
        self.wishes, self.ledger = wishes, Ledger()
        self.over = threading.Event()
        self.began = time.monotonic()
        self.calls: list[threading.Thread] = []

    def __enter__(self) -> "World":
        with contextlib.ExitStack() as opened:
            self.station = opened.enter_context(Station(self.wishes))
            self.api = opened.enter_context(LateApi(self.wishes, self.ledger))
            self.backend = opened.enter_context(Backend(self.ledger))
            self._start(self.backend.serve_forever, 0.02)
            opened.callback(self.backend.shutdown)
            self.machine = Machine(self.station.settings)
            env = self.station.settings | {"TWILIO_AUTH_TOKEN": TOKEN, "PUBLIC_URL": PUBLIC}
            env |= {"FORWARD_TO": FORWARD, "RESPONSE_DEADLINE": str(DEADLINE)}
            env |= {"THREADS": str(THREADS)}
            self.fleet = Fleet(self.wishes, env, self.backend, self.api)
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
            self._start(self.progress, self.over),
            *(self._start(self.machine.watch, self.over, each) for each in list_processors()),
            self._start(self.fleet.kill_at_random, self.wishes, self.ledger, self.over),
            self._start(self.fleet.loiter, self.wishes, self.ledger, self.over),
        ]
        storm = self._start(self.brew_storm)
        dice, only = Random(f"{self.wishes.seed} arrivals"), self.wishes.only
        for number in range(self.wishes.calls) if only is None else [only]:
            self.calls.append(self._start(self.one_call, number))
            time.sleep(dice.expovariate(self.wishes.rate))
        storm.join()
        for thread in self.calls:
            thread.join()
        self.over.set()
        for thread in chaos:
            thread.join()

    def brew_storm(self) -> None:
        """Halfway through, so many more callers ring within ten seconds, and Redis hangs."""
        if not self.wishes.storm:
            return
        time.sleep(self.wishes.calls / self.wishes.rate / 2)
        self.machine.is_away = True
        self.station.ask(Weather.turn, "hang")
        for number in range(self.wishes.storm):
            self.calls.append(self._start(self.one_call, self.wishes.calls + number))
            time.sleep(STORM_SECONDS / self.wishes.storm)
        self.station.ask(Weather.turn, "")
        self.machine.is_away = False

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
                f"{seconds:5.0f} s: {counts['calls']} of {self.wishes.calls + self.wishes.storm} "
                f"calls are over, {self.ledger.under_way} under way, {counts['webhooks']} "
                f"webhooks, {counts['kills']} kills, {len(self.ledger.broken)} promises broken",
                file=sys.stderr,
                flush=True,
            )
            if ended:
                return

    def check_cells(self) -> None:
        """No cell without an end, and no claim on work that nobody does."""
        until = time.monotonic() + LEASE
        while leases := [key for key in self.lives() if key.endswith(":lease")]:
            if time.monotonic() > until:
                self.ledger.breach("every claim ends", leases=leases[:5])
                break
            time.sleep(0.2)
        lives = self.lives()
        self.ledger.add("cells at the end", len(lives))
        for key, ttl in lives.items():
            if ttl == -1 or ttl > 24 * 3600:
                self.ledger.breach("every cell ends", key=key, ttl=ttl)

    def lives(self) -> dict[str, int]:
        lives: dict[str, int] = self.station.ask(Weather.lives)
        return lives

    def check_logs(self) -> None:
        for member in self.fleet.members:
            output = member.instance.output()
            for sign in ("Traceback", '"a bug', "slow work failed"):
                if sign in output:
                    where = output.index(sign)
                    self.ledger.breach("no bug", log=output[max(0, where - 300) : where + 600])

    def check_machine(self) -> None:
        """A run that could not judge much is no proof."""
        counts = self.ledger.counts
        answers = sum(number for name, number in counts.items() if name.startswith("answers"))
        if counts[UNJUDGED] > MOST * answers:
            slowest = round(self.machine.slowest, 2)
            self.ledger.breach("this machine can judge a run of this size", slowest=slowest)

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
        world.check_machine()
        faults: Counter[str] = world.station.ask(Weather.count)
    world.check_processes()
    ledger = world.ledger
    return {
        "seed": wishes.seed,
        "seconds": round(time.monotonic() - world.began, 1),
        **dict(sorted(ledger.counts.items())),
        "faults of Redis": faults.total(),
        **{f"  {kind}": number for kind, number in sorted(faults.items())},
        "slowest webhook, seconds": round(ledger.slowest, 2),
        "promises broken": len(ledger.broken),
        "broken": ledger.broken,
    }


def show(table: Mapping[str, Any]) -> None:
    """Print a table, and what was broken."""
    broken: Sequence[str] = table["broken"]
    for name, value in table.items():
        if name != "broken":
            print(f"{name:42} {value:>10}")
    for each in broken[:50]:
        print(f"\n{each}")


def main() -> int:
    """Run what the command line asks for. The exit status is 0 when every promise was kept."""
    parser = argparse.ArgumentParser(description="Calls by the hundred while everything breaks.")
    parser.add_argument("--calls", type=int, default=Wishes.calls)
    parser.add_argument("--seed", type=int, default=Wishes.seed)
    parser.add_argument("--rate", type=float, default=Wishes.rate, help="calls that begin a second")
    parser.add_argument("--think", type=float, default=Wishes.think, help="a caller's seconds")
    parser.add_argument("--instances", type=int, default=Wishes.instances, help="of each line")
    parser.add_argument("--loiter-every", type=float, default=Wishes.loiter_every, help=LOITER_HELP)
    parser.add_argument("--storm", action="store_const", const=STORM, default=0, help=STORM_HELP)
    parser.add_argument("--only", type=int, metavar="N", help="ring just as call number N did")
    parser.add_argument("--json", action="store_true", help="the table as JSON on stdout")
    wishes = vars(parser.parse_args())
    as_json = wishes.pop("json")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # whoever stops it stops it whole
    stop_garbage_collection()
    table = run(Wishes(**wishes))
    if as_json:
        print(json.dumps(table, indent=1))
    else:
        show(table)
    return 1 if table["broken"] else 0


if __name__ == "__main__":
    sys.exit(main())
