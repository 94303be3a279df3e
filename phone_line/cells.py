"""Write-once cells, the two operations that everything durable is built on: `read` and `settle`.

A store takes commands of Redis (`Store`); `Cells` is the store as one webhook sees it: within a
moment, counted, and asked again where that can help. To ask again is safe: reads only read, and
to settle twice is to settle once. What goes wrong, and what is done about it:

    the attempt fails at once      a blink (a restart, a lost connection): again after PAUSES,
                                   which outlast half a second
    the store refuses the command  once more: a wrong token or a used-up quota stays what it is
    no answer comes in time        the connection may be dead, so another attempt is made with the
                                   time that is left; if the store is known to hang, with a GLIMPSE

A command that finds no answer is a StoreUnavailable. Nothing else is ever raised.
"""

import time
from collections.abc import Callable
from functools import partial
from threading import Lock
from typing import Any, Final, Protocol, TypeVar

from phone_line.deadline import Moment

Result = TypeVar("Result")

DAY: Final = 24 * 3600  # seconds that a cell lives: longer than any call

# Seconds between attempts that fail at once. Together 0.51, because half a second without Redis (a
# failover, a proxy that restarts) must not cost a conversation; and not more, because of 96 callers
# on 32 threads the last wait for two others, and three times 0.51 is far from the deadline.
PAUSES: Final = (0.01, 0.02, 0.04, 0.08, 0.16, 0.2)

# Seconds that a first attempt may take. A store on the other side of the world answers in a third
# of it, with a new connection. More would be taken from the second attempt, and from all who wait.
FIRST_ATTEMPT: Final = 1.0

# Seconds that a command may take while the store is known to hang. Of 96 callers on 32 threads the
# first 32 find that out, with two commands each, in 1.6 seconds; two more rounds of two commands
# end at 2.8. It is enough for a new connection and a command on the same continent.
GLIMPSE: Final = 0.3

# Seconds that it is remembered that the store hangs; then one command is given its full time, and
# the others go on without. It is more than the usual deadline, so that who waits behind the first
# gains by it, and little for a store that only became slow to be judged anew.
REMEMBERED: Final = 5.0


class StoreUnavailable(Exception):
    """The store gave no usable answer in time: the network's fault. Every webhook survives it."""


class Refused(Exception):
    """The store answered, and its answer is an error: to ask the same again changes little."""


class HangMemory:
    """Remembers for some seconds that a store hangs: it neither answers nor refuses.

    Each store has one, for all callers: it is knowledge about the network, not about a call.
    Without it, callers who wait for a thread wait for the time-outs of those before them.
    """

    def __init__(self) -> None:
        self.next_trial: Moment = 0.0  # when a command gets its full time again; 0: all of them do
        self.settled: Moment | None = None  # when a cell was last settled, if all went well since
        self.lock = Lock()

    def grant_full_time(self) -> bool:
        """Say if a command may take its full time: always, or for one in so many seconds."""
        if not self.next_trial:
            return True
        with self.lock:
            now = time.monotonic()
            granted = now >= self.next_trial
            if granted and self.next_trial:
                self.next_trial = now + REMEMBERED
            return granted

    def note_hang(self) -> bool:
        """Remember that a command with its full time got no answer; say if it is the first."""
        with self.lock:
            is_first = not self.next_trial
            self.next_trial = time.monotonic() + REMEMBERED
            return is_first

    def forget(self) -> None:
        """Believe in the store again, at once and for all: it has answered."""
        self.next_trial = 0.0


class Store(Protocol):
    """Where cells are: it takes a command of Redis, and raises anything but a result in time."""

    hang_memory: HangMemory

    def execute(self, command: list[str], until: Moment) -> Any:  # noqa: ANN401 # Redis' types
        """Execute MGET, SET key value NX GET EX, GETEX, DEL or SCAN. TimeoutError: no answer."""


class Cells:
    """The cells of a store, for one webhook.

    `commands` counts the attempts, `seconds` what they took, `lost` is the last fault as text.
    """

    def __init__(self, store: Store, until: Moment) -> None:
        """See a store until a moment; each operation may be given one of its own."""
        self.store, self.until = store, until
        self.commands, self.seconds = 0, 0.0
        self.lost: str | None = None

    def read(self, *keys: str, until: Moment | None = None) -> list[str | None]:
        """Read cells in one command, None where one is empty. A replica may answer."""
        return self.ask(["MGET", *keys], partial(understand_values, len(keys)), until)

    def read_primary(self, key: str, until: Moment | None = None) -> str | None:
        """Read a cell that must be there: to Redis GETEX is a write, so only the primary answers.

        Source: https://upstash.com/docs/redis/features/replication
        """
        return self.ask(["GETEX", key], understand_value, until)

    def settle(self, key: str, value: str, ttl: int = DAY, until: Moment | None = None) -> str:
        """Write a cell for `ttl` seconds if it is empty; either way return what stands in it."""
        command = ["SET", key, value, "NX", "GET", "EX", str(ttl)]
        standing = self.ask(command, understand_value, until)
        self.store.hang_memory.settled = time.monotonic()
        return value if standing is None else standing

    def renew(self, key: str, ttl: int) -> str | None:
        """Let a lease live for `ttl` seconds from now; return its owner, None if it is gone."""
        return self.ask(["GETEX", key, "EX", str(ttl)], understand_value)

    def release(self, key: str) -> None:
        """Give a lease back. Never raises: a lease that cannot be given back runs out.

        There is one attempt. If its answer was lost, another might remove a successor's lease.
        """
        began = time.monotonic()
        try:
            self.attempt(["DEL", key], understand_count, self.until)
        except Exception as error:  # the stores' errors share no ancestor
            self.lost = describe_error(error)
        self.seconds += time.monotonic() - began

    def scan(self, cursor: str, pattern: str, count: int) -> tuple[str, list[str]]:
        """Look for keys that match a pattern, some at a time: the next cursor, and keys.

        The first cursor is "0", and so is the one after the last keys. A key may come twice, and
        one that is settled meanwhile may be missed. Source: https://redis.io/docs/commands/scan
        """
        command = ["SCAN", cursor, "MATCH", pattern, "COUNT", str(count)]
        return self.ask(command, understand_page)

    def ask(
        self, command: list[str], understand: Callable[[Any], Result], until: Moment | None = None
    ) -> Result:
        """Execute a command, again if need be. Raises StoreUnavailable with the last fault."""
        began = time.monotonic()
        attempts = Attempts(self.store.hang_memory, until or self.until)
        try:
            while True:
                try:
                    return self.attempt(command, understand, attempts.begin())
                except Exception as error:  # the stores' errors share no ancestor
                    self.lost = describe_error(error)
                    if not attempts.wait_after(error):
                        self.store.hang_memory.settled = None
                        raise StoreUnavailable(self.lost) from None
        finally:
            self.seconds += time.monotonic() - began

    def attempt(
        self, command: list[str], understand: Callable[[Any], Result], until: Moment
    ) -> Result:
        """Execute a command once. Raises whatever the store raises, or ValueError."""
        self.commands += 1
        result = understand(self.store.execute(command, until))
        self.store.hang_memory.forget()
        return result


class Attempts:
    """The attempts of one command: how long each may take, and if there is another."""

    def __init__(self, memory: HangMemory, until: Moment) -> None:
        self.memory, self.until = memory, until
        self.pauses = list(PAUSES)
        self.began = time.monotonic()
        self.has_full_time = memory.grant_full_time()
        self.refusals = 0
        self.is_scout = False  # the first whom the store did not answer: it looks properly

    def begin(self) -> Moment:
        """Begin an attempt; tell the moment by which it has to be over."""
        self.began = time.monotonic()
        if self.is_scout:
            return self.until
        if not self.has_full_time:
            return min(self.began + GLIMPSE, self.until)
        half = (self.until - self.began) / 2
        return self.began + min(half, FIRST_ATTEMPT)

    def wait_after(self, error: Exception) -> bool:
        """Wait until it makes sense to try again after an error; False if it does not."""
        if isinstance(error, TimeoutError):
            return self.allow_after_time_out()
        self.refusals += isinstance(error, Refused)
        if self.refusals > 1 or not self.pauses:
            return False
        pause = self.pauses.pop(0)
        if time.monotonic() + pause >= self.until:
            return False
        time.sleep(pause)
        return True

    def allow_after_time_out(self) -> bool:
        """Allow a second attempt to whoever had time for the first, and none after that.

        Less than a GLIMPSE proves nothing about the store.
        """
        if not self.has_full_time:
            return False
        self.has_full_time = False
        waited = time.monotonic() - self.began
        self.is_scout = waited < GLIMPSE or self.memory.note_hang()
        return True


def understand_value(result: object) -> str | None:
    """Take a result for a value, or None. Raises ValueError for any other kind."""
    if result is None or isinstance(result, str):
        return result
    raise ValueError("a result of another kind")


def understand_values(count: int, result: object) -> list[str | None]:
    """Take a result for so many values. Raises ValueError for any other kind."""
    if isinstance(result, list) and len(result) == count:
        return [understand_value(each) for each in result]
    raise ValueError("a result of another kind")


def understand_count(result: object) -> int:
    """Take a result for a number. Raises ValueError for any other kind."""
    if isinstance(result, int):
        return result
    raise ValueError("a result of another kind")


def understand_page(result: object) -> tuple[str, list[str]]:
    """Take a result for a cursor and keys. Raises ValueError for any other kind."""
    match result:
        case [str() | int() as cursor, list() as keys] if all(isinstance(k, str) for k in keys):
            return str(cursor), keys
    raise ValueError("a result of another kind")


def describe_error(error: Exception) -> str:
    """Name a fault for the log: its kind and its words, without what would break a line."""
    words = f"{type(error).__name__}: {error}"[:120]
    return "".join(letter if letter.isprintable() else " " for letter in words)
