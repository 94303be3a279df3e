"""The stores do as Redis does: the same commands bring the same results on each of them.

A machine draws sequences of commands over a handful of keys and runs them on the embedded file and
on the REST dialect over Redis. Upstash's own client is the judge of how that dialect is read.
"""

import json
import subprocess
import sys
import threading
import time
import uuid
from base64 import b64encode
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import closing, suppress
from http.client import HTTPException
from multiprocessing import get_context
from pathlib import Path
from sqlite3 import connect
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from upstash_redis import Redis
from upstash_redis.http import format_response, make_headers

from phone_line.cells import Cells, Refused
from phone_line.http import HttpAnswer
from phone_line.sqlite import BETWEEN_TIDYINGS, SETUP, SQLite, make_private, open_file
from phone_line.upstash import Upstash, headers_for, read_result
from standins.examples import as_many
from standins.inside import Inside
from standins.settling import settle_all
from standins.timing import LATE
from standins.upstash import Upstash as StandIn

ROOT: Final = Path(__file__).parents[2]
STEADY: Final = settings(
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=as_many(25),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


def soon() -> float:
    """A moment that is far enough away for anything on this machine."""
    return time.monotonic() + 5


# The same results on each.

KEYS: Final = ("a", "b:1")  # few, so that commands meet
KEY: Final = st.sampled_from(KEYS)
VALUE: Final = st.sampled_from(["", "OK", "x", "null", 'Ann\'s "bill" 💸 \u202eא', "a\x00b\r\n"])
COMMAND: Final = st.one_of(
    st.lists(KEY, min_size=1, max_size=4).map(lambda keys: ["MGET", *keys]),
    st.tuples(KEY, VALUE).map(lambda cell: ["SET", *cell, "NX", "GET", "EX", "600"]),
    KEY.map(lambda key: ["GETEX", key]),
    KEY.map(lambda key: ["GETEX", key, "EX", "900"]),
    KEY.map(lambda key: ["DEL", key]),
    KEY.map(lambda key: ["time passes for", key]),
)


class File:
    """The embedded store, and a way to let a cell's time pass."""

    def __init__(self, path: Path) -> None:
        self.store = SQLite(str(path))

    def execute(self, command: list[str]) -> Any:  # noqa: ANN401 # Redis' types
        return self.store.execute(command, soon())

    def expire(self, key: str) -> None:
        with closing(connect(self.store.path)) as file, file:
            file.execute("UPDATE cells SET ends = ? WHERE key = ?", (time.time(), key))


class Database:
    """The store over REST, and a way to let a cell's time pass."""

    def __init__(self, stand_in: StandIn) -> None:
        self.store, self.stand_in = Upstash(stand_in.url, stand_in.token), stand_in

    def execute(self, command: list[str]) -> Any:  # noqa: ANN401 # Redis' types
        return self.store.execute(command, soon())

    def expire(self, key: str) -> None:
        self.stand_in.quietly(["PEXPIRE", key, "0"])


@pytest.fixture(scope="module")
def stand_in() -> Iterator[StandIn]:
    with StandIn() as running:
        yield running


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> File:
    return File(tmp_path_factory.mktemp("cells") / "calls")


@pytest.fixture(scope="module")
def database(stand_in: StandIn) -> Iterator[Database]:
    database = Database(stand_in)
    yield database
    database.store.close()


def run_all(
    store: File | Database, prefix: str, commands: list[list[str]]
) -> list[tuple[list[str], Any]]:
    """Run commands under keys of their own; what each was told."""
    told = []
    for name, *words in commands:
        command = [name, *(prefix + word if word in KEYS else word for word in words)]
        if name == "time passes for":
            store.expire(command[1])
        else:
            told.append(([name, *words], store.execute(command)))
    return told


GONE: Final = [["SET", "a", "x", "NX", "GET", "EX", "600"], ["time passes for", "a"]]


@STEADY
@given(commands=st.lists(COMMAND, min_size=8, max_size=20))
@example(commands=[*GONE, ["MGET", "a"], ["SET", "a", "y", "NX", "GET", "EX", "600"]])
@example(commands=[*GONE, ["GETEX", "a"], ["GETEX", "a", "EX", "900"], ["DEL", "a"]])
def test_a_file_does_as_redis_does(
    file: File, database: Database, commands: list[list[str]]
) -> None:
    """Whatever is settled, read, renewed, removed and expired, both tell the same."""
    prefix = uuid.uuid4().hex + ":"
    assert run_all(file, prefix, commands) == run_all(database, prefix, commands)


@pytest.mark.parametrize("kind", ["file", "database"])
@pytest.mark.parametrize("count", [1, 3, 100])
def test_keys_are_found_by_a_pattern(file: File, database: Database, kind: str, count: int) -> None:
    """SCAN goes through all keys, some at a time: those that match and live, and no other."""
    stores: dict[str, File | Database] = {"file": file, "database": database}
    store = stores[kind]
    prefix = uuid.uuid4().hex
    for name in ("CA1:1", "CA1:2", "CA2:1", "CA3:1", "CA9:1"):
        store.execute(["SET", f"{prefix}:{name}", "value", "NX", "GET", "EX", "60"])
    store.expire(f"{prefix}:CA3:1")
    cells = Cells(store.store, soon())
    cursor, found = cells.scan("0", f"{prefix}:CA?:1", count)
    while cursor != "0":
        cursor, more = cells.scan(cursor, f"{prefix}:CA?:1", count)
        found += more
    assert set(found) == {f"{prefix}:{name}" for name in ("CA1:1", "CA2:1", "CA9:1")}


@pytest.mark.parametrize(
    "command", [["SET", "key", "value"], ["EVAL", "return 1", "0"], ["FLUSHALL"]]
)
def test_a_file_takes_only_what_cells_use(file: File, command: list[str]) -> None:
    """A command that the file does not know is an error, never a wrong result."""
    with pytest.raises(ValueError, match="cells do not use"):
        file.execute(command)


# Upstash's own client is the judge.

TEXT: Final = st.text(max_size=20) | st.just("OK")
ENCODED: Final = TEXT.map(lambda text: text if text == "OK" else b64encode(text.encode()).decode())
PLAIN: Final = ENCODED | st.none() | st.integers()
RESULT: Final = st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=4), max_leaves=6)
ODD: Final = st.sampled_from(["no base64!", "////", "b", 1.5, {"a": 1}, True])


def read_as_client(reply: Any) -> Any:  # noqa: ANN401 # JSON
    """The result that the client reads in a reply, or its kind of error."""
    try:
        return format_response(reply, "base64")
    except Exception:  # whichever
        return Exception


def read_as_here(reply: Any) -> Any:  # noqa: ANN401 # JSON
    """The result that the line reads in it."""
    try:
        return read_result(HttpAnswer(200, {}, json.dumps(reply).encode()))
    except Exception:  # whichever
        return Exception


@STEADY
@given(result=RESULT | ODD, more=st.sampled_from([{}, {"error": ""}, {"error": "ERR"}, {"a": 1}]))
def test_a_reply_is_read_as_the_client_reads_it(result: object, more: dict[str, Any]) -> None:
    """Text, numbers, lists in lists, and what is none of them: value for value, error for error."""
    reply = {"result": result, **more}
    assert read_as_here(reply) == read_as_client(reply)


@pytest.mark.parametrize("reply", [{}, {"error": "ERR no"}, [], [{"result": None}], None, 7, "x"])
def test_what_has_no_result_is_an_error(reply: object) -> None:
    """A reply without a result is none, for the line as for the client."""
    assert read_as_here(reply) is read_as_client(reply) is Exception


@pytest.mark.parametrize("token", ["token", "AX_t-0=", "a b"])
def test_the_headers_are_those_of_the_client(token: str) -> None:
    """The login and the encoding, without telemetry."""
    assert headers_for(token) == make_headers(token, "base64", allow_telemetry=False)


def test_the_client_and_the_line_see_the_same_cells(stand_in: StandIn, database: Database) -> None:
    """What one writes the other reads, in every script and with every sign."""
    with Redis(stand_in.url, stand_in.token, rest_retries=0) as client:
        for value in ("plain", "", "OK", "naïve ☎ 電話", "a\0b\r\n", "x" * 90_000):
            key = uuid.uuid4().hex
            command: list[Any] = ["SET", key, value, "NX", "GET", "EX", "60"]
            assert database.execute(command) is None
            assert client.execute(command) == value
            assert client.get(key) == value
            assert database.execute(["MGET", key, "none"]) == client.mget(key, "none")
            assert database.execute(["DEL", key]) == 1


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (401, b'{"error": "WRONGPASS invalid or missing auth token"}', Refused),
        (400, b'{"error": "ERR max requests limit exceeded."}', Refused),
        (200, b'{"error": "NOPERM no permissions"}', Refused),
        (500, b'{"error": "ERR internal"}', HTTPException),
        (429, b'{"error": "ERR slow down"}', HTTPException),
        (500, b'{"result": null}', HTTPException),
        (404, b'{"result": "b2xk"}', HTTPException),
    ],
)
def test_an_error_of_the_database_is_told_from_a_gateways(
    status: int, body: bytes, error: type[Exception]
) -> None:
    """What the database refuses stays refused; what a gateway says may be over in an instant."""
    with pytest.raises((Refused, HTTPException)) as raised:
        read_result(HttpAnswer(status, {}, body))
    assert raised.type is error


# The embedded file: shared, killed, deleted, read by others.


@pytest.mark.long
def test_processes_share_a_file(tmp_path: Path) -> None:
    """Four processes settle the same cells of a new file at once: each cell has one value."""
    path, many = str(tmp_path / "calls"), 100
    with ProcessPoolExecutor(4, mp_context=get_context("spawn")) as pool:
        work = [pool.submit(settle_all, path, "cell", f"process {n}", many) for n in range(4)]
        told = [each.result(60) for each in work]
    assert [len(set(values)) for values in zip(*told, strict=True)] == [1] * many
    cells = Cells(SQLite(path), soon())
    assert cells.read(*(f"cell:{n}" for n in range(many))) == told[0]


def test_threads_share_a_file(tmp_path: Path) -> None:
    """Sixteen threads settle a cell at the same moment, in rounds: all are told the same value."""
    store = SQLite(str(tmp_path / "calls"))

    def settle(n: int) -> str:
        return Cells(store, soon()).settle(f"cell:{n // 16}", f"value {n}")

    with ThreadPoolExecutor(16) as pool:
        told = list(pool.map(settle, range(160)))
    assert [len(set(told[n : n + 16])) for n in range(0, 160, 16)] == [1] * 10


WRITER: Final = """
import itertools, sys, time
from phone_line.cells import Cells
from phone_line.sqlite import SQLite
store = SQLite(sys.argv[1])
for n in itertools.count():
    Cells(store, time.monotonic() + 5).settle(f"cell:{n}", f"value {n}")
    print(n, flush=True)
"""


def test_kill_9_loses_nothing_that_was_settled(tmp_path: Path) -> None:
    """A process is killed with -9 while it writes: every cell that it settled is there."""
    path = str(tmp_path / "calls")
    command = [sys.executable, "-c", WRITER, path]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as writer:
        try:
            assert writer.stdout is not None
            settled = [int(next(writer.stdout)) for _ in range(100)]
        finally:
            writer.kill()
    assert settled == list(range(100))
    cells = Cells(SQLite(path), soon())
    assert cells.read(*(f"cell:{n}" for n in settled)) == [f"value {n}" for n in settled]
    assert cells.settle("cell:0", "another") == "value 0"


def test_what_has_expired_is_gone_from_the_file(tmp_path: Path) -> None:
    """A minute later at the latest the next write overwrites it, and keeps what lives."""
    path = tmp_path / "calls"
    file = File(path)
    cells = Cells(file.store, soon())
    for n in range(50):
        cells.settle(f"cell:{n}", "what the caller said " * 100)
        file.expire(f"cell:{n}")
    cells.settle("kept", "alive")
    assert b"what the caller said" in path.read_bytes()
    file.store.next_tidying -= BETWEEN_TIDYINGS
    cells.settle("another", "alive")
    assert b"what the caller said" not in path.read_bytes()
    assert cells.read("cell:0", "kept", "another") == [None, "alive", "alive"]


def test_a_file_overwrites_what_it_deletes(tmp_path: Path) -> None:
    """It is asked for, because not every build of SQLite does so by itself."""
    with open_file(str(tmp_path / "calls"), soon()) as file:
        assert file.execute("PRAGMA secure_delete").fetchone() == (1,)
    assert "PRAGMA secure_delete = ON" in SETUP


def test_a_new_file_is_nobody_elses_from_the_first_moment(tmp_path: Path) -> None:
    """It is made with its owner's rights alone, not made first and closed to others afterwards."""
    path = tmp_path / "calls"
    seen: list[int] = []
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            with suppress(FileNotFoundError):
                seen.append(path.stat().st_mode & 0o777)

    watcher = threading.Thread(target=watch)
    watcher.start()
    while len(seen) < 20:
        make_private(str(path))
        path.unlink()
    done.set()
    watcher.join()
    assert set(seen) == {0o600}


def test_a_new_process_tidies_with_its_first_write(tmp_path: Path) -> None:
    """A file that grew old while nothing ran is tidied before it grows again."""
    file = File(tmp_path / "calls")
    Cells(file.store, soon()).settle("old", "value")
    file.expire("old")
    Cells(SQLite(file.store.path), soon()).settle("new", "value")
    with closing(connect(file.store.path)) as found:
        assert found.execute("SELECT key FROM cells").fetchall() == [("new",)]


def test_a_file_of_the_release_before_is_understood(tmp_path: Path) -> None:
    """Calls in progress during a deploy go on: the table has the columns that it had."""
    path = tmp_path / "calls"
    with closing(connect(path)) as file, file:
        file.execute("PRAGMA journal_mode=WAL")
        file.execute("CREATE TABLE cells(key TEXT PRIMARY KEY, value TEXT, ends REAL)")
        file.execute("INSERT INTO cells VALUES('cell', 'theirs', ?)", (time.time() + 60,))
    assert Cells(SQLite(str(path)), soon()).settle("cell", "mine") == "theirs"


def rights(folder: Path) -> set[int]:
    """The rights of all files in a folder."""
    return {path.stat().st_mode & 0o777 for path in folder.iterdir()}


def test_a_file_is_its_owners_alone(tmp_path: Path) -> None:
    """Nobody else on the machine reads what callers said, in the file or beside it."""
    store = SQLite(str(tmp_path / "calls"))
    Cells(store, soon()).settle("cell", "value")
    with closing(connect(store.path)) as other:  # while it is open its log stands beside it
        other.execute("SELECT count(*) FROM cells").fetchone()
        Cells(store, soon()).settle("second", "value")
        assert len([*tmp_path.iterdir()]) == 3
        assert rights(tmp_path) == {0o600}


def test_a_file_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    """A file of the release before had everybody's rights: the next command takes them away."""
    store = SQLite(str(tmp_path / "calls"))
    Cells(store, soon()).settle("cell", "value")
    with closing(connect(store.path)) as other:
        other.execute("SELECT count(*) FROM cells").fetchone()
        for path in tmp_path.iterdir():
            path.chmod(0o644)
        assert Cells(store, soon()).read("cell") == ["value"]
        assert rights(tmp_path) == {0o600}


def test_a_folder_in_place_of_the_file_keeps_its_rights(tmp_path: Path) -> None:
    """STATE_FILE=/data: it is said, and whatever else lives in that folder can still be reached."""
    tmp_path.chmod(0o755)
    line = Inside({"STATE_FILE": str(tmp_path)})
    health = line.send("GET", "/healthz")
    assert health.status == 503
    assert "is no file" in health.body.decode()
    assert tmp_path.stat().st_mode & 0o777 == 0o755


def test_a_file_that_is_deleted_is_one_new_file_for_all(tmp_path: Path) -> None:
    """Threads that used the old file all see what is settled in the new one."""
    store = SQLite(str(tmp_path / "calls"))

    def settle(value: str) -> str:
        return Cells(store, soon()).settle("cell", value)

    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as two:
        assert {one.submit(settle, "old").result(), two.submit(settle, "x").result()} == {"old"}
        for path in tmp_path.iterdir():
            path.unlink()
        assert one.submit(settle, "new").result() == "new"
        assert two.submit(settle, "split").result() == "new"


@pytest.mark.waits
def test_a_locked_file_is_given_up_in_time(tmp_path: Path) -> None:
    """Somebody keeps the file for himself: the moment holds all the same."""
    store = SQLite(str(tmp_path / "calls"))
    Cells(store, soon()).settle("cell", "value")
    with closing(connect(store.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        with pytest.raises(Exception, match="locked"):
            store.execute(["SET", "a", "b", "NX", "GET", "EX", "9"], began + 0.3)
        assert 0.2 < time.monotonic() - began < 0.6 + LATE
        assert store.execute(["MGET", "cell"], soon()) == ["value"]


def test_a_database_never_loads_sqlite() -> None:
    """Nor does a webhook's command load Upstash's client: both would be paid by a cold start."""
    program = "import sys, phone_line.upstash as u; u.Upstash('http://127.0.0.1:9', 't')\n"
    program += "print({'sqlite3', 'upstash_redis', 'httpx'} & sys.modules.keys())"
    command = [sys.executable, "-c", program]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "set()"


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """A wrong STATE_FILE is an error that names itself; nothing is made in other places."""
    store = SQLite(str(tmp_path / "nowhere" / "calls"))
    with pytest.raises(FileNotFoundError):
        store.execute(["MGET", "cell"], soon())
    assert [*tmp_path.iterdir()] == []
