"""A chaos run's size, its fixed figures, and its books: what is counted, what was broken."""

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

PUBLIC: Final = "https://line.example"
TOKEN: Final = "chaos"
FORWARD: Final = "+15550100099"
BILLING, CANCEL = "+15550100001", "+15550100002"
DEADLINE: Final = 2.5  # seconds: RESPONSE_DEADLINE of every instance
MARGIN: Final = 0.5  # seconds more for a connection, a queue, and a machine that is busy
UNJUDGED: Final = "answers not judged, as this machine was too slow"
PACE: Final = 0.1  # real seconds for each second that a caller waits on hold


class Script(NamedTuple):
    """A caller: on hearing this, does that. Then the call ends with those words.

    `remembered` is a call that needs more than the step in the URL, which Redis alone knows: a
    guess, misses, what was asked. Only such a call may go another way when Redis is away.
    """

    name: str
    line: str
    scenes: tuple[tuple[str, str], ...]
    ends: str
    remembered: bool = False


@dataclass(frozen=True)
class Wishes:
    """The size and the wildness of a run; `only` rings again as one call of it did.

    `rate` is calls that begin in a second, `think` the seconds that a caller takes for each answer;
    `kill_every`, `storm_every` and `loiter_every` are seconds, on average. `storm` is how many
    more callers ring within ten seconds while Redis hangs. `scripts` are all if none is named.
    """

    calls: int = 1000
    seed: int = 1
    rate: float = 10.0
    think: float = 5.0
    instances: int = 3
    kill_every: float = 3.0
    storm_every: float = 20.0
    loiter_every: float = 2.0
    storm: int = 0
    scripts: Sequence[Script] = ()
    only: int | None = None


class Ledger:
    """The books of a run: what is counted, and every promise that was broken."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.broken: list[str] = []
        self.slowest, self.under_way = 0.0, 0
        self._lock = threading.Lock()

    def add(self, what: str, number: int = 1) -> None:
        with self._lock:
            self.counts[what] += number

    def breach(self, promise: str, **details: object) -> None:
        """Write down that a promise was broken, with all that helps to find out why."""
        told = ", ".join(f"{name} {value}" for name, value in details.items())
        with self._lock:
            self.broken.append(f"{promise}: {told}" if told else promise)

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
