"""The contract of cells, on every store: settle once, read what stands, let it expire.

The same tests run on the embedded SQLite file, on the REST dialect over a real Redis (where one is
installed), and on that dialect over fakeredis. What concerns the file alone, that several processes
share it and that kill -9 loses nothing, stands at the end.
"""

import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context
from pathlib import Path
from typing import Final

import pytest

import main
from standins.inside import stored
from standins.timing import LATE
from standins.upstash import FakeRedis, RedisServer, Upstash

ROOT: Final = Path(main.__file__).parent
Open = Callable[[], main.Cells]


@cache
def client(upstash: Upstash) -> main.Upstash:
    """The client of a database, with its connections: there until the end, as in the server."""
    return main.Upstash(upstash.url, upstash.token)


def cells_in(store: main.Store, seconds: float = 5) -> main.Cells:
    """Cells as one webhook sees them, with some time to spare."""
    return main.Cells(store, time.monotonic() + seconds)


def embedded(path: Path) -> main.Cells:
    """Cells in a file that is opened afresh."""
    return cells_in(main.SQLite(str(path)))


REDIS: Final = pytest.param("redis", marks=pytest.mark.needs("redis-server"))


@pytest.fixture(scope="module", params=["file", REDIS, "fakeredis"])
def open_cells(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Open]:
    """Opens the cells of one store, as each webhook does; all see the same cells."""
    if request.param == "file":
        store = main.SQLite(str(tmp_path_factory.mktemp("cells") / "calls"))
        yield lambda: cells_in(store)
        return
    redis: RedisServer | FakeRedis = RedisServer() if request.param == "redis" else FakeRedis()
    with redis as running, Upstash(running) as upstash:
        yield lambda: cells_in(client(upstash))


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
    cells = open_cells()
    assert cells.read(*names, names[2]) == ["zero", None, "two", None, "two"]
    assert cells.commands == 1


def test_a_second_look_sees_what_stands(open_cells: Open, key: str) -> None:
    """To look again finds a cell, leaves it as it is, and makes none where there was none."""
    assert open_cells().look_again(key) is None
    assert open_cells().settle(key, "mine", 60) == "mine"
    assert open_cells().look_again(key) == "mine"


def test_an_expired_cell_is_an_empty_cell(open_cells: Open, key: str) -> None:
    """When its time is over a cell reads as empty, is not renewed, and may be settled anew."""
    open_cells().settle(key, "first", 1)
    time.sleep(1.1)
    assert open_cells().read(key) == [None]
    assert open_cells().look_again(key) is None
    assert open_cells().renew(key, 60) is None
    assert open_cells().settle(key, "second", 60) == "second"
    assert open_cells().read(key) == ["second"]


def test_to_settle_again_does_not_prolong(open_cells: Open, key: str) -> None:
    """Whoever comes second cannot keep the first one's cell alive."""
    open_cells().settle(key, "first", 1)
    open_cells().settle(key, "second", 60)
    time.sleep(1.1)
    assert open_cells().read(key) == [None]


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
    open_cells().ask("DEL", key)
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
    with pytest.raises(main.StoreUnavailable):
        cells.read(key)
    assert cells.lost


# The REST dialect in bad weather.


@contextmanager
def canned(answer: bytes, status: int = 200) -> Iterator[str]:
    """The URL of a server that gives one answer to everything."""

    class Says(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Nothing: a test's output is for its failures."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Says) as running:
        threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def test_a_dropped_line_is_asked_again() -> None:
    """One lost connection is made up for, counted, and remembered for the log."""
    with Upstash() as upstash:
        cells = cells_in(client(upstash), 2)
        strikes = iter(["drop"])
        upstash.fault = lambda _: next(strikes, None)
        assert cells.settle("cell", "mine") == "mine"
        assert cells.commands == 2
        assert cells.lost


@pytest.mark.waits
@pytest.mark.parametrize("fault", ["hang", "drip", "late", "502", "garbage", "no-result", "quota"])
def test_a_sick_store_is_given_up_in_time(fault: str) -> None:
    """After two attempts, and before the moment has passed, the store counts as unavailable."""
    with Upstash() as upstash:
        upstash.fault = lambda _: fault
        began = time.monotonic()
        cells = cells_in(client(upstash), 0.5)
        with pytest.raises(main.StoreUnavailable):
            cells.settle("cell", "mine")
        assert time.monotonic() - began <= 0.5 + 0.3 + LATE
        assert cells.commands == 2


@pytest.mark.parametrize(
    "answer",
    [
        b'{"result": []}',
        b'{"result": ["bWluZQ=="]}',
        b'{"result": {"a": 1}}',
        b'{"result": "no base64!"}',
        b'[{"result": "bWluZQ=="}]',
        b"null",
        b"7",
    ],
)
def test_an_answer_of_another_kind_is_none(answer: bytes) -> None:
    """What is not the result of the command, though it be JSON, is not taken for one."""
    with canned(answer) as url:
        cells = cells_in(main.Upstash(url, "token"), 1)
        with pytest.raises(main.StoreUnavailable):
            cells.read("one", "two")
        with pytest.raises(main.StoreUnavailable):
            cells.settle("cell", "mine")


def test_an_answer_with_a_bad_status_is_none() -> None:
    """A gateway that says 500 has nothing to tell, even if it looks like a result."""
    with canned(b'{"result": null}', 500) as url:
        cells = cells_in(main.Upstash(url, "token"), 1)
        with pytest.raises(main.StoreUnavailable):
            cells.settle("cell", "mine")


# The embedded file, shared and killed.


def settle_all(path: Path, prefix: str, who: str, many: int) -> list[str]:
    """What one process is told when it settles many cells."""
    return [embedded(path).settle(f"{prefix}:{n}", who) for n in range(many)]


def test_processes_share_a_file(tmp_path: Path, key: str) -> None:
    """Four processes settle the same cells of a new file at once: each cell has one value."""
    path, many = tmp_path / "calls", 100
    with ProcessPoolExecutor(4, mp_context=get_context("spawn")) as pool:
        work = [pool.submit(settle_all, path, key, f"process {n}", many) for n in range(4)]
        told = [each.result(60) for each in work]
    assert [len(set(values)) for values in zip(*told, strict=True)] == [1] * many
    assert embedded(path).read(*(f"{key}:{n}" for n in range(many))) == told[0]


WRITER: Final = """
import itertools, sys, time
import main
store = main.SQLite(sys.argv[1])
for n in itertools.count():
    main.Cells(store, time.monotonic() + 5).settle(f"cell:{n}", f"value {n}")
    print(n, flush=True)
"""


def test_kill_9_loses_nothing_that_was_settled(tmp_path: Path) -> None:
    """A process is killed with -9 while it writes: every cell that it settled is there."""
    path = tmp_path / "calls"
    command = [sys.executable, "-c", WRITER, str(path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as writer:
        try:
            assert writer.stdout is not None
            numbers = (line for line in writer.stdout if line.strip().isdigit())
            settled = [int(next(numbers)) for _ in range(200)]
        finally:
            writer.kill()
    assert settled == list(range(200))
    values = embedded(path).read(*(f"cell:{n}" for n in settled))
    assert values == [f"value {n}" for n in settled]
    assert embedded(path).settle("cell:0", "another") == "value 0"


def test_an_old_file_is_tidied_up(tmp_path: Path) -> None:
    """What has expired goes when the file is opened next: it does not grow for ever."""
    path = tmp_path / "calls"
    for n in range(50):
        embedded(path).settle(f"cell:{n}", "x" * 1000, 1)
    embedded(path).settle("kept", "value", 60)
    time.sleep(1.1)
    embedded(path).read("any")
    assert set(stored(path)) == {"kept"}
