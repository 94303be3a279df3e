"""Cells: settle once, read what stands, let it expire; and what a webhook is told in bad weather.

The contract at the top holds on every store: the embedded SQLite file, the REST dialect over a real
Redis (where one is installed), and that dialect over fakeredis. Below it the store blinks, refuses
and hangs, behind its real client.
"""

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import permutations
from pathlib import Path
from typing import Any, Final

import pytest
import upstash_redis.errors  # noqa: F401 # it is slow to load: no test should wait for it

from phone_line.cells import (
    FIRST_ATTEMPT,
    GLIMPSE,
    PAUSES,
    REMEMBERED,
    Cells,
    HangMemory,
    Store,
    StoreUnavailable,
)
from phone_line.sqlite import SQLite
from phone_line.upstash import Upstash
from standins.redis_server import FakeRedis, RedisServer
from standins.rows import long_beside, mostly_long
from standins.upstash import Command
from standins.upstash import Upstash as StandIn

Open = Callable[[], Cells]
NOISE: Final = 0.3  # seconds that a busy machine may add


@cache
def client(stand_in: StandIn) -> Upstash:
    """The client of a database, with its connections: there until the end, as in the server."""
    return Upstash(stand_in.url, stand_in.token)


def cells_in(store: Store, seconds: float = 5) -> Cells:
    """Cells as one webhook sees them, with some time to spare."""
    return Cells(store, time.monotonic() + seconds)


# The contract, on every store.


REDIS: Final = pytest.param("redis", marks=pytest.mark.needs("redis-server"))


FAKE: Final = pytest.param("fakeredis", marks=long_beside("redis-server"))


@pytest.fixture(scope="module", params=["file", REDIS, FAKE])
def open_cells(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Open]:
    """Opens the cells of one store, as each webhook does; all see the same cells."""
    if request.param == "file":
        store = SQLite(str(tmp_path_factory.mktemp("cells") / "calls"))
        yield lambda: cells_in(store)
        return
    redis: RedisServer | FakeRedis = RedisServer() if request.param == "redis" else FakeRedis()
    with redis as running, StandIn(running) as stand_in:
        yield lambda: cells_in(client(stand_in))


@pytest.fixture
def key() -> str:
    return f"call:{uuid.uuid4().hex}"


VALUES: Final = ["", "x", "0", "null", 'Ann\'s "bill" & 💸 \u202eא', "a\x00b\r\n", "long " * 20_000]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value[:9]))
def test_a_settled_cell_is_read_as_it_was_written(open_cells: Open, key: str, value: str) -> None:
    """Any text comes back unchanged, whoever reads it."""
    assert open_cells().settle(key, value) == value
    assert open_cells().read(key) == [value]


def test_the_first_to_settle_stays(open_cells: Open, key: str) -> None:
    """A second value changes nothing: whoever comes later is told what stands."""
    assert open_cells().settle(key, "first") == "first"
    assert [open_cells().settle(key, value) for value in ("second", "first", "")] == ["first"] * 3
    assert open_cells().read(key) == ["first"]


def test_cells_are_read_in_the_order_of_their_keys(open_cells: Open, key: str) -> None:
    """Several cells are one look; an empty one is None, and a key may come twice."""
    names = [f"{key}:{n}" for n in range(4)]
    open_cells().settle(names[2], "two")
    open_cells().settle(names[0], "zero")
    assert open_cells().read(*names, names[2]) == ["zero", None, "two", None, "two"]


def test_a_second_look_sees_what_stands(open_cells: Open, key: str) -> None:
    """To look at the primary finds a cell, leaves it as it is, and makes none where none was."""
    assert open_cells().read_primary(key) is None
    assert open_cells().settle(key, "mine", 60) == "mine"
    assert open_cells().read_primary(key) == "mine"


def test_an_expired_cell_is_an_empty_cell(open_cells: Open, key: str) -> None:
    """When its time is over a cell reads as empty, is not renewed, and may be settled anew."""
    open_cells().settle(key, "first", 1)
    open_cells().settle(key, "second", 60)  # which does not prolong the first
    time.sleep(1.1)
    assert open_cells().read(key) == [None]
    assert open_cells().read_primary(key) is None
    assert open_cells().renew(key, 60) is None
    assert open_cells().settle(key, "third", 60) == "third"
    assert open_cells().read(key) == ["third"]


def test_a_lease_lives_as_long_as_it_is_renewed(open_cells: Open, key: str) -> None:
    """A renewal says whose the lease is, and gives it time; nobody else can take it meanwhile."""
    open_cells().settle(key, "owner", 1)
    assert open_cells().renew(key, 60) == "owner"
    time.sleep(1.1)
    assert open_cells().settle(key, "rival", 1) == "owner"


def test_a_lease_given_back_is_free_at_once(open_cells: Open, key: str) -> None:
    """The owner gives its lease back: the next who asks has it, and nothing else is touched."""
    open_cells().settle(key, "owner", 60)
    open_cells().settle(f"{key}:1", "record", 60)
    open_cells().release(key)
    assert open_cells().settle(key, "rival", 60) == "rival"
    assert open_cells().read(f"{key}:1") == ["record"]


def test_of_many_at_once_one_settles(open_cells: Open, key: str) -> None:
    """Sixteen threads settle a cell at the same moment: all are told the same value."""
    with ThreadPoolExecutor(16) as pool:
        told = list(pool.map(lambda n: open_cells().settle(key, f"value {n}"), range(64)))
    assert len(set(told)) == 1
    assert open_cells().read(key) == [told[0]]


def test_without_time_there_is_no_store(open_cells: Open, key: str) -> None:
    """Once the moment has passed nothing is asked any more: the store counts as unavailable."""
    cells = cells_in(open_cells().store, -1)
    with pytest.raises(StoreUnavailable):
        cells.read(key)
    assert cells.lost
    assert open_cells().read(key) == [None]  # and nobody believes that it hangs


# Good weather costs one command.


@pytest.fixture(scope="module")
def database() -> Iterator[StandIn]:
    with StandIn() as running:
        yield running


@pytest.fixture
def stand_in(database: StandIn) -> Iterator[StandIn]:
    """The stand-in, empty and in good health; healthy again afterwards."""
    database.start_afresh()
    yield database
    database.recover()


@pytest.fixture
def store(stand_in: StandIn) -> Iterator[Upstash]:
    """A client of the test's own, which knows nothing yet."""
    store = Upstash(stand_in.url, stand_in.token)
    yield store
    store.close()


def test_each_operation_is_one_command_and_one_round_trip(
    stand_in: StandIn, store: Upstash
) -> None:
    """Every operation costs what Upstash charges for one command, over one connection."""
    cells = cells_in(store)
    cells.read("a", "b")
    cells.settle("a", "value", 60)
    cells.read_primary("a")
    cells.renew("a", 90)
    cells.release("a")
    assert stand_in.commands == [
        ("MGET", "a", "b"),
        ("SET", "a", "value", "NX", "GET", "EX", "60"),
        ("GETEX", "a"),
        ("GETEX", "a", "EX", "90"),
        ("DEL", "a"),
    ]
    assert (stand_in.round_trips, cells.commands, cells.lost) == (5, 5, None)
    assert len(stand_in.connections) == 1
    assert 0 < cells.seconds < 5


# A blink: an attempt fails at once.


BLINKS: Final = ["drop", "apply-then-drop", "502", "empty", "garbage", "no-result"]


@pytest.mark.parametrize("fault", BLINKS)
def test_a_single_fault_is_made_up_for(stand_in: StandIn, store: Upstash, fault: str) -> None:
    """One lost attempt costs nothing; it is counted, and remembered for the log."""
    strikes = iter([fault])
    stand_in.fault = lambda _: next(strikes, None)
    cells = cells_in(store, 2)
    assert cells.settle("cell", "mine") == "mine"
    assert cells.commands == 2
    assert cells.lost
    assert cells.seconds < NOISE


@pytest.mark.parametrize("fault", BLINKS)
def test_a_blink_costs_no_conversation(stand_in: StandIn, store: Upstash, fault: str) -> None:
    """A store that is away for half a second is waited for, and what it answers then counts."""
    cells_in(store).settle("cell", "stands")
    back = time.monotonic() + 0.45
    stand_in.fault = lambda _: fault if time.monotonic() < back else None
    cells = cells_in(store, 2)
    assert cells.read("cell") == ["stands"]
    assert 0.4 < cells.seconds < 0.45 + PAUSES[-1] + NOISE


def test_a_store_that_restarts_costs_no_conversation() -> None:
    """Connections are cut and new ones refused, until it listens again at the same place."""
    with FakeRedis() as redis:
        with StandIn(redis) as first:
            store = Upstash(first.url, first.token)
            cells_in(store).settle("cell", "stands")
        port = int(first.url.rpartition(":")[2])
        again = StandIn(redis, port=port, token=first.token)
        threading.Timer(0.3, again.__enter__).start()
        assert cells_in(store, 2).read("cell") == ["stands"]
        store.close()
        again.__exit__(None, None)


def test_an_outage_is_not_waited_for(store: Upstash, stand_in: StandIn) -> None:
    """A store that is away for longer than a blink costs every command the same short time."""
    stand_in.fault = lambda _: "502"
    for _ in range(2):
        cells = cells_in(store, 4)
        with pytest.raises(StoreUnavailable):
            cells.read("cell")
        assert sum(PAUSES) <= cells.seconds < sum(PAUSES) + NOISE
        assert cells.commands == 1 + len(PAUSES)


# A refusal: the store answers, and the answer is an error.

TWO_FAULTS: Final = {
    f"{first}, {second}": (first, second)
    for first, second in permutations(["502", "drop", "empty", "quota", "hang"], 2)
}


@pytest.mark.parametrize("fault", ["quota", "read-only"])
def test_a_refusal_is_heard_out_once_more(stand_in: StandIn, store: Upstash, fault: str) -> None:
    """A used-up quota stays used up: it is asked twice, and costs the caller no time."""
    stand_in.fault = lambda _: fault
    cells = cells_in(store)
    with pytest.raises(StoreUnavailable, match="Refused"):
        cells.settle("cell", "mine")
    assert cells.commands == 2
    assert cells.seconds < NOISE


@pytest.mark.parametrize(("first", "second"), mostly_long(TWO_FAULTS, "quota, drop"))
def test_two_faults_of_different_kinds_are_outlived(
    stand_in: StandIn, store: Upstash, first: str, second: str
) -> None:
    """A refusal and then a blink, or a hang and then either: the third attempt gets through."""
    faults = iter([first, second])
    stand_in.fault = lambda _: next(faults, None)
    assert cells_in(store, 4).settle("cell", "mine") == "mine"


def test_a_wrong_token_is_told(stand_in: StandIn) -> None:
    """Who set up the line learns from the fault what to mend."""
    store = Upstash(stand_in.url, "wrong")
    cells = cells_in(store)
    with pytest.raises(StoreUnavailable, match="WRONGPASS"):
        cells.read("cell")
    assert cells.commands == 2
    store.close()


# A hang: no answer in time.


@pytest.mark.parametrize("fault", ["hang", "drip", "late", "apply-then-hang"])
def test_a_hanging_store_is_given_up_in_time(stand_in: StandIn, store: Upstash, fault: str) -> None:
    """After two attempts, and by the moment, the store counts as unavailable."""
    stand_in.fault = lambda _: fault
    cells = cells_in(store, 0.5)
    with pytest.raises(StoreUnavailable, match="TimeoutError"):
        cells.settle("cell", "mine")
    assert cells.commands == 2
    assert cells.seconds < 0.5 + NOISE


def test_a_silent_connection_costs_one_attempt(stand_in: StandIn, store: Upstash) -> None:
    """A load balancer forgot a connection: a new one is tried with the rest of the time."""
    cells_in(store).settle("cell", "stands")
    forgotten = threading.enumerate()  # each of the stand-in's connections has a thread
    stand_in.fault = lambda _: "hang" if threading.current_thread() in forgotten else None
    cells = cells_in(store, 1)
    assert cells.read("cell") == ["stands"]
    assert 0.4 < cells.seconds < 0.5 + NOISE
    assert quick_read(store) == ["stands"]


def quick_read(store: Store) -> list[str | None]:
    """Read a cell; it must not take as long as a store that hangs."""
    cells = cells_in(store, 4)
    values = cells.read("cell")
    assert cells.seconds < NOISE
    assert cells.commands == 1
    return values


def teach_hang(stand_in: StandIn, store: Upstash) -> None:
    """Let a store hang until that is known."""
    stand_in.fault = lambda _: "hang"
    with pytest.raises(StoreUnavailable):
        cells_in(store, 2 * GLIMPSE + 0.1).read("cell")


def test_a_store_that_is_known_to_hang_costs_a_glimpse(stand_in: StandIn, store: Upstash) -> None:
    """Whoever comes next does not wait for what the one before has found out."""
    teach_hang(stand_in, store)
    for _ in range(2):
        cells = cells_in(store, 4)
        with pytest.raises(StoreUnavailable):
            cells.settle("cell", "mine")
        assert cells.commands == 1
        assert cells.seconds < GLIMPSE + NOISE


def test_a_recovered_store_is_believed_at_once(stand_in: StandIn, store: Upstash) -> None:
    """The first answer is enough: everybody has the full time again, however many ask at once."""
    teach_hang(stand_in, store)
    stand_in.fault = None
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda _: cells_in(store).read("cell"), range(8))) == [[None]] * 8
    stand_in.latency = 2 * GLIMPSE
    assert cells_in(store).read("cell") == [None]


def test_a_store_that_only_became_slow_is_found_out(stand_in: StandIn, store: Upstash) -> None:
    """After some seconds one command has its full time; its answer makes all others believe."""
    teach_hang(stand_in, store)
    stand_in.fault, stand_in.latency = None, 1.5 * GLIMPSE
    with pytest.raises(StoreUnavailable):
        cells_in(store).read("cell")
    store.hang_memory.next_trial -= REMEMBERED
    assert [cells_in(store).read("cell") for _ in range(2)] == [[None], [None]]


def test_one_command_at_a_time_looks_if_it_still_hangs(stand_in: StandIn, store: Upstash) -> None:
    """When the memory runs out not everybody waits again: one does, for all."""
    teach_hang(stand_in, store)
    store.hang_memory.next_trial -= REMEMBERED
    with ThreadPoolExecutor(8) as pool:
        took = sorted(pool.map(lambda _: seconds_of_failure(store), range(8)))
    assert took[-2] < GLIMPSE + NOISE
    assert FIRST_ATTEMPT <= took[-1] < FIRST_ATTEMPT + GLIMPSE + NOISE


def seconds_of_failure(store: Store) -> float:
    """Read from a store that fails; how long that took."""
    cells = cells_in(store, 4)
    with pytest.raises(StoreUnavailable):
        cells.read("cell")
    return cells.seconds


@pytest.mark.parametrize("fault", ["502", "drop", "quota"])
def test_what_fails_at_once_is_no_hang(stand_in: StandIn, store: Upstash, fault: str) -> None:
    """A store that refuses or drops is asked with full time as soon as it is back."""
    stand_in.fault = lambda _: fault
    seconds_of_failure(store)
    stand_in.fault, stand_in.latency = None, 1.5 * GLIMPSE
    assert cells_in(store).read("cell") == [None]


def test_little_time_proves_nothing(stand_in: StandIn, store: Upstash) -> None:
    """A command that came late and got a few milliseconds says nothing about the store."""
    stand_in.latency = GLIMPSE / 2
    with pytest.raises(StoreUnavailable):
        cells_in(store, 0.1).read("cell")
    stand_in.latency = 1.5 * GLIMPSE
    assert cells_in(store).read("cell") == [None]


DEADLINE: Final = 4.5  # seconds within which Twilio has its answer
STORMS: Final = {
    "a first webhook, hang": ("hang", ["settle"]),
    "hang": ("hang", ["read", "settle"]),
    "a first webhook, late": ("late", ["settle"]),
    "a first webhook, 502": ("502", ["settle"]),
    "drop": ("drop", ["read", "settle"]),
    "quota": ("quota", ["read", "settle"]),
}


@pytest.mark.parametrize(("fault", "steps"), mostly_long(STORMS, "hang"))
def test_a_storm_is_answered_within_the_deadline(
    stand_in: StandIn, store: Upstash, fault: str, steps: list[str]
) -> None:
    """96 callers ring at once on 32 threads while the store is ill; then every call goes on."""
    calls = [uuid.uuid4().hex for _ in range(96)]
    stand_in.fault = lambda _: fault
    began = time.monotonic()

    def webhook(call: str) -> float:
        moment = time.monotonic()
        cells = Cells(store, moment + 0.9 * DEADLINE)
        try:
            if "read" in steps:
                cells.read(call, until=moment + 0.45 * DEADLINE)
            cells.settle(call, "answer")
        except StoreUnavailable:
            pass
        return time.monotonic() - began

    with ThreadPoolExecutor(32) as pool:
        answered = list(pool.map(webhook, calls))
        assert max(answered) < DEADLINE
        stand_in.fault = None
        stand_in.release()
        assert list(pool.map(lambda call: cells_in(store).settle(call, "x", 60), calls))
    assert {*calls} <= stand_in.keys().keys()


# A lease is given back once.


@pytest.mark.parametrize("fault", ["drop", "apply-then-drop", "502", "hang", "quota"])
def test_a_lease_is_given_back_with_one_attempt(
    stand_in: StandIn, store: Upstash, fault: str
) -> None:
    """Another attempt might take the lease from a successor; that it failed is only remembered."""
    cells_in(store).settle("lease", "owner", 60)
    stand_in.forget()
    stand_in.fault = lambda _: fault
    cells = cells_in(store, 0.3)
    cells.release("lease")
    assert stand_in.faults == {fault: 1}
    assert cells.commands == 1
    assert cells.lost


# What is no result.


class Odd:
    """A store that answers everything with the same thing."""

    def __init__(self, result: Any) -> None:  # noqa: ANN401 # that is the point
        self.result, self.hang_memory = result, HangMemory()

    def execute(self, _command: Command, _until: float) -> Any:  # noqa: ANN401 # Redis' types
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


ODD: Final = [[], ["mine"], [1, 2], {"a": 1}, 7, True, b"mine", ["a", {}], ("a", "b")]


@pytest.mark.parametrize("result", ODD, ids=repr)
def test_a_result_of_another_kind_is_none(result: object) -> None:
    """What is not the result that the command has is not taken for one."""
    asks: list[Callable[[Cells], object]] = [
        lambda cells: cells.read("one", "two"),
        lambda cells: cells.settle("cell", "mine"),
        lambda cells: cells.read_primary("cell"),
        lambda cells: cells.renew("cell", 9),
        lambda cells: cells.scan("0", "*", 9),
    ]
    for ask in asks:
        with pytest.raises(StoreUnavailable, match="another kind"):
            ask(cells_in(Odd(result), 0.02))


def test_a_fault_is_told_in_one_short_line() -> None:
    """What went wrong last is kept for the log, without what could break or flood it."""
    cells = cells_in(Odd(OSError("no\r\nroute\x00 to \u202ehost" + "x" * 999)), 0.02)
    with pytest.raises(StoreUnavailable):
        cells.read("cell")
    assert cells.lost == ("OSError: no  route  to  host" + "x" * 999)[:120]


def test_stores_do_not_share_what_they_know(tmp_path: Path) -> None:
    """One store hangs: another, in the same process, has its full time."""
    first, second = SQLite(str(tmp_path / "a")), SQLite(str(tmp_path / "b"))
    assert first.hang_memory.note_hang()
    assert not first.hang_memory.note_hang()
    assert not first.hang_memory.grant_full_time()
    assert second.hang_memory.grant_full_time()
