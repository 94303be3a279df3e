"""Strangers who know the URL and play with connections: no caller waits for any of them.

Each attack is made on a real line with two threads, started in both ways, and while it lasts a
signed webhook has to be answered. The rest is about the start itself: DEBUG, WORKERS, and what of
gunicorn and functions-framework `phone_line/server.py` and `reception.py` rely on.
"""

import inspect
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlencode

import gunicorn  # type: ignore[import-untyped] # it has no types
import pytest
from flask import Flask
from functions_framework._http import HTTPServer
from gunicorn.config import Config  # type: ignore[import-untyped] # the same
from gunicorn.http.parser import RequestParser  # type: ignore[import-untyped] # the same
from gunicorn.workers.gthread import TConn, ThreadWorker  # type: ignore[import-untyped] # the same

from phone_line import server
from phone_line.reception import (
    LARGEST_BODY,
    PATIENCE,
    Reception,
    count_missing,
    find_arrival,
    is_writable,
)
from standins.backend import ORIGIN, Backend, Caller, Question, Reply, says, until
from standins.call import Phone
from standins.inside import FORM, TOKEN
from standins.instance import ROOT, Instance, free_port
from standins.rows import first_quick, mostly_long
from standins.sentences import say
from standins.upstash import Upstash
from standins.webhooks import sign

pytestmark = [pytest.mark.waits, pytest.mark.xdist_group("strangers")]  # they meet one process

THREADS: Final = 2
STRANGERS: Final = 12  # at once: more than there are threads
SOON: Final = 3.0  # seconds for a webhook, on a machine that is busy with other tests
STARTS: Final = {
    "python -m main": ("-m", "main"),
    "functions-framework": ("-m", "functions_framework", "--target=handler"),
}
WAYS: Final = {name: (command,) for name, command in STARTS.items()}  # as rows of a test
HEALTH: Final = b"GET /healthz HTTP/1.1\r\nHost: line.example\r\n\r\n"
LAST_HEALTH: Final = b"GET /healthz HTTP/1.1\r\nHost: line.example\r\nConnection: close\r\n\r\n"
POST: Final = b"POST /voice/inbound HTTP/1.1\r\nHost: line.example\r\n"


class Started(Instance):
    """An instance that is started with a command of the test's choice."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str]) -> None:
        self.command = command
        super().__init__({"THREADS": str(THREADS), **env})

    def restart(self) -> Self:
        self.kill()
        with self._output.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, *self.command],
                cwd=ROOT,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._await()
        return self


@pytest.fixture(scope="module", params=mostly_long(WAYS, "python -m main"))
def line(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Instance]:
    """A line, started in each of the two ways."""
    with Started(request.param, settings(tmp_path_factory.mktemp("strangers"))) as running:
        yield running


@pytest.fixture
def strangers(line: Instance) -> Iterator[Callable[[bytes], socket.socket]]:
    """Opens a connection and sends some bytes; all are closed when the test is over."""
    with ExitStack() as stack:

        def send(first: bytes) -> socket.socket:
            client = stack.enter_context(connect(line))
            client.sendall(first)
            return client

        yield send


Strangers = Callable[[bytes], socket.socket]


def settings(folder: Path) -> dict[str, str]:
    """A line with a store of its own."""
    return {
        "TWILIO_AUTH_TOKEN": TOKEN,
        "PUBLIC_URL": ORIGIN,
        "FORWARD_TO": "+15550100099",
        "STATE_FILE": str(folder / "calls"),
    }


def processor_seconds(line: Instance) -> float:
    """The processor's time that a line has used: of its process and those that it started."""
    used = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # ended meanwhile
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[2]) == line.pid:  # the process group
                used += int(fields[11]) + int(fields[12])
    return used / os.sysconf("SC_CLK_TCK")


def connect(line: Instance) -> socket.socket:
    """A connection that waits long enough to see how long an answer takes."""
    return socket.create_connection(("127.0.0.1", line.port), timeout=20)


def new_call(framing: str = "Content-Length: {size}") -> tuple[bytes, bytes]:
    """Head and body of the first webhook of a call, signed; `framing` says how the body comes."""
    fields = [("CallSid", f"CA{uuid.uuid4().hex}"), ("From", "+15557654321")]
    body = urlencode(fields).encode()
    lines = [
        "POST /voice/inbound HTTP/1.1",
        "Host: line.example",
        f"Content-Type: {FORM}",
        f"X-Twilio-Signature: {sign(TOKEN, ORIGIN + '/voice/inbound', fields)}",
        framing.format(size=len(body)),
    ]
    return "\r\n".join([*lines, "", ""]).encode(), body


def read_answer(client: socket.socket) -> bytes:
    """One answer, or what came of it until the line hung up."""
    answer = b""
    with suppress(OSError):
        while more := client.recv(65536):
            answer += more
            head, _, body = answer.partition(b"\r\n\r\n")
            length = re.search(rb"(?i)content-length: *(\d+)", head)
            if length and len(body) >= int(length[1]):
                break
    return answer


def read_all(client: socket.socket) -> bytes:
    """All that comes until the line hangs up."""
    received = b""
    with suppress(OSError):
        while more := client.recv(65536):
            received += more
    return received


def ask_for_health(line: Instance) -> bytes:
    """The answer of the health page, with its head."""
    with connect(line) as client:
        client.sendall(LAST_HEALTH)
        return read_all(client)


def call(line: Instance) -> float:
    """Ring the line; the seconds until it answered."""
    started = time.monotonic()
    with connect(line) as client:
        client.sendall(b"".join(new_call()))
        answer = read_answer(client)
    assert answer.startswith(b"HTTP/1.1 200 "), answer[:200]
    assert b"<Response>" in answer
    return time.monotonic() - started


# --- connections that are never closed ---


def test_nobody_waits_for_a_stranger_to_hang_up(line: Instance, strangers: Strangers) -> None:
    """A dozen who asked for the last answer and stay on the line do not delay the next caller."""
    clients = [strangers(LAST_HEALTH) for _ in range(STRANGERS)]
    assert all(read_answer(client).startswith(b"HTTP/1.1 200 ") for client in clients)
    assert call(line) < SOON


def test_the_last_answer_ends_at_once(strangers: Strangers) -> None:
    """Who waits for the line to hang up need not wait, and the line waits for them."""
    started = time.monotonic()
    assert read_all(strangers(LAST_HEALTH)).startswith(b"HTTP/1.1 200 ")
    assert time.monotonic() - started < SOON


HALVES: Final = {
    "nothing": b"",
    "half a head": POST,
    "half a body": POST + b"Content-Length: 500\r\n\r\nab",
    "half a second request": HEALTH + b"GET /healthz HTTP/1.1\r\nHo",
    "half a chunk that ends like the last": (
        POST + b"Transfer-Encoding: chunked\r\n\r\nff\r\n0\r\n\r\n"
    ),
    "less than a body of the largest size": (
        POST + b"Content-Length: %d\r\n\r\n" % LARGEST_BODY + b"a" * (LARGEST_BODY - 1)
    ),
}


@pytest.mark.parametrize("half", mostly_long(HALVES, "half a body"))
def test_half_a_request_takes_no_thread(line: Instance, strangers: Strangers, half: bytes) -> None:
    """However much of a request is sent, callers are answered while its rest is missing."""
    for _ in range(STRANGERS):
        strangers(half)
    assert call(line) < SOON
    assert call(line) < SOON


@pytest.mark.long
def test_half_a_request_is_given_up(line: Instance, strangers: Strangers) -> None:
    """Whoever is silent, or sends a byte now and then, is hung up on when time is over."""
    silent, slow = strangers(b""), strangers(POST + b"X: ")
    started = time.monotonic()
    with suppress(OSError):
        while time.monotonic() - started < 3 * PATIENCE:
            slow.sendall(b"x")
            time.sleep(0.2)
    assert PATIENCE - 1 < time.monotonic() - started < PATIENCE + 4
    assert read_all(silent) == b""
    assert call(line) < SOON


def test_strangers_cannot_take_all_connections(line: Instance) -> None:
    """With more connections than there is room for, the oldest silent one makes room."""
    with ExitStack() as stack:
        for _ in range(600):
            stack.enter_context(connect(line))
        assert call(line) < SOON
    assert until(lambda: "too many connections" in line.output(), 2)


def test_whoever_does_not_read_gets_no_more_answers(tmp_path: Path) -> None:
    """Strangers who ask and ask and never read hold no thread: they are hung up on instead."""
    with Started(STARTS["python -m main"], settings(tmp_path)) as line, ExitStack() as stack:
        asking = []
        for _ in range(THREADS):
            client = stack.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
            client.settimeout(60)
            client.connect(("127.0.0.1", line.port))
            asking.append(threading.Thread(target=ask_without_reading, args=(client,), daemon=True))
            asking[-1].start()
        started = time.monotonic()
        while any(each.is_alive() for each in asking):
            assert time.monotonic() - started < 60
            assert call(line) < SOON
            time.sleep(0.2)


def ask_without_reading(client: socket.socket) -> None:
    """Ask until the line hangs up."""
    with suppress(OSError):
        while True:
            client.sendall(HEALTH * 10)


def test_a_full_buffer_is_seen() -> None:
    """A client that takes nothing is told from one that reads."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert is_writable(ours)
        ours.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                ours.send(b"x" * 1000)
        assert not is_writable(ours)


# --- requests that are too large, or odd ---


def test_a_request_line_of_megabytes_is_refused_at_once(
    line: Instance, strangers: Strangers
) -> None:
    """Its end is not waited for, and nobody else waits."""
    client = strangers(b"")
    started = time.monotonic()
    with suppress(OSError):
        client.sendall(b"GET /" + b"a" * 16_000_000)
    assert read_answer(client).startswith(b"HTTP/1.1 414 ")
    assert time.monotonic() - started < SOON
    assert call(line) < SOON


@pytest.mark.parametrize("sent_first", first_quick([0, 10, 2 * LARGEST_BODY]))
def test_what_follows_a_refused_body_is_no_request(strangers: Strangers, sent_first: int) -> None:
    """A body that is too large gets one answer, 413, even if it looks like requests itself."""
    body = HEALTH * (2 * LARGEST_BODY // len(HEALTH) + 1)
    client = strangers(POST + b"Content-Length: %d\r\n\r\n" % len(body) + body[:sent_first])
    answer = read_answer(client)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"Connection: close" in answer
    with suppress(OSError):
        client.sendall(HEALTH)
    assert read_all(client) == b""


@pytest.mark.parametrize("chunks", first_quick([15_000, 33_000, 150_000]))
def test_a_body_in_crumbs_costs_no_time(strangers: Strangers, line: Instance, chunks: int) -> None:
    """A chunk for each byte kept a thread busy for a second, and everybody else with it."""
    head = POST + b"Transfer-Encoding: chunked\r\n\r\n"
    before = processor_seconds(line)
    for _ in range(5):
        client = strangers(head)
        with suppress(OSError):  # refused, and hung up on, before all of it is sent
            client.sendall(b"1\r\na\r\n" * chunks + b"0\r\n\r\n")
        assert read_answer(client).startswith(b"HTTP/1.1 400 ")
    assert processor_seconds(line) - before < 0.4


@pytest.mark.parametrize(
    "name", first_quick(["SCRIPT_NAME", "Script-Name", "PATH_INFO", "RAW_URI"])
)
def test_no_header_moves_a_path(strangers: Strangers, name: str) -> None:
    """Nobody is believed to be a proxy that replaces the path, not even from this machine."""
    prefixed = f"GET /voice/healthz HTTP/1.1\r\nHost: x\r\n{name}: /voice\r\n\r\n"
    assert read_answer(strangers(prefixed.encode())).startswith(b"HTTP/1.1 404 ")


# --- requests that are as they should be ---


def test_a_webhook_may_come_in_pieces(strangers: Strangers) -> None:
    """A request is put together from whatever pieces the network makes of it."""
    request = b"".join(new_call())
    client = strangers(request[:30])
    for start in range(30, len(request), 90):
        time.sleep(0.05)
        client.sendall(request[start : start + 90])
    assert b"<Response>" in read_answer(client)


@pytest.mark.long
def test_a_webhook_may_come_in_chunks(strangers: Strangers) -> None:
    """A proxy that does not know a body's length sends it in chunks."""
    head, body = new_call("Transfer-Encoding: chunked")
    client = strangers(head + b"5\r\n" + body[:5] + b"\r\n")
    time.sleep(0.1)
    client.sendall(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body) - 5, body[5:]))
    assert b"<Response>" in read_answer(client)


@pytest.mark.long
def test_a_client_may_ask_before_it_sends_the_body(strangers: Strangers) -> None:
    """Expect: 100-continue is answered before the body has come."""
    framing = "Expect: 100-continue\r\nConnection: close\r\nContent-Length: {size}"
    head, body = new_call(framing)
    client = strangers(head)
    assert client.recv(100).startswith(b"HTTP/1.1 100 ")
    client.sendall(body)
    assert b"<Response>" in read_all(client)


@pytest.mark.long
def test_several_requests_may_come_at_once(strangers: Strangers) -> None:
    """Requests on one connection are all answered, in their order."""
    client = strangers(HEALTH + b"".join(new_call()) + LAST_HEALTH)
    answers = read_all(client)
    assert re.findall(rb"HTTP/1.1 (\d+)", answers) == [b"200"] * 3
    assert re.findall(rb"Content-Type: (\S+/\w+)", answers)[1] == b"text/xml"


@pytest.mark.long
def test_a_connection_may_rest_between_two_webhooks(strangers: Strangers) -> None:
    """A proxy keeps its connections; one that rested for seconds is not closed under it."""
    client = strangers(HEALTH)
    assert read_answer(client).startswith(b"HTTP/1.1 200 ")
    time.sleep(4)
    client.sendall(b"".join(new_call()))
    assert b"<Response>" in read_answer(client)


WHOLE: Final = {
    HEALTH: 0,
    HEALTH[:-1]: 1,
    b"": 1,
    b"GET /healthz HTTP/1.0\n\n": 0,  # gunicorn refuses it, and need not be waited for
    POST + b"Content-Length: 7\r\n\r\n": 7,
    POST + b"content-length:7\r\n\r\nabc": 4,
    POST + b"Content-Length: 3\r\n\r\nabcGET": 0,
    POST + b"X: Content-Length: 7\r\n\r\n": 0,
    POST + b"Content-Length: many\r\n\r\n": 0,
    POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n": 0,
    POST + b"Transfer-Encoding: chunked\r\nX: 0\r\n\r\n": 1,
}


@pytest.mark.parametrize(("received", "missing"), WHOLE.items(), ids=repr)
def test_a_beginning_tells_how_much_is_missing(received: bytes, missing: int) -> None:
    """One is the least that can be missing as long as the end is not known."""
    assert count_missing(bytearray(received)) == missing


SLOW_FUNCTION: Final = """
import time
from phone_line.reception import find_arrival
from phone_line.server import guard

guard(threads=1, workers=1)

def handler(request):
    if request.path == "/long":
        return "x" * 50_000_000
    return str(time.monotonic() - find_arrival())
"""


@pytest.mark.long
def test_a_long_answer_that_nobody_takes_is_given_up(tmp_path: Path) -> None:
    """Its thread is free after some waits of the system; who waited for it knows for how long."""
    (tmp_path / "main.py").write_text(SLOW_FUNCTION)
    command = (*STARTS["functions-framework"], f"--source={tmp_path}/main.py")
    with Started(command, {}) as function, connect(function) as stranger:
        stranger.sendall(b"GET /long HTTP/1.1\r\n\r\n")
        stranger.recv(1)
        started = time.monotonic()
        with connect(function) as client:
            client.sendall(b"GET / HTTP/1.1\r\n\r\n")
            waited = float(read_answer(client).partition(b"\r\n\r\n")[2])
        assert PATIENCE - 1 < waited < time.monotonic() - started < 5 * PATIENCE


def test_without_a_server_a_request_arrives_now() -> None:
    """In a test, say: nobody has noted an arrival."""
    assert abs(find_arrival() - time.monotonic()) < 1


# --- how the server starts ---


def test_debug_is_ignored_as_deployed(tmp_path: Path) -> None:
    """With DEBUG set no debugger is started, and the log says so."""
    with Started(STARTS["python -m main"], {**settings(tmp_path), "DEBUG": "1"}) as line:
        with connect(line) as client:
            client.sendall(b"GET /?__debugger__=yes&cmd=resource&f=debugger.js HTTP/1.1\r\n\r\n")
            answer = read_answer(client)
        warnings = [each["message"] for each in line.log() if each["level"] == "warning"]
    assert b"Server: gunicorn" in answer
    assert b"text/plain" in answer
    assert server.DEBUG_IGNORED in warnings


@pytest.mark.long
def test_a_variable_of_another_function_refuses_no_call(tmp_path: Path) -> None:
    """The framework would serve events alone, and answer 405 to every webhook."""
    other = {"FUNCTION_SIGNATURE_TYPE": "cloudevent", "FUNCTION_TARGET": "theirs"}
    start = STARTS["python -m main"]
    with Started(start, {**settings(tmp_path), **other}) as line, connect(line) as client:
        client.sendall(b"".join(new_call()))
        assert b"<Response>" in read_answer(client)


@pytest.mark.long
@pytest.mark.parametrize("value", first_quick(["0", "false", ""]))
def test_debug_that_is_off_is_nobodys_business(tmp_path: Path, value: str) -> None:
    """A variable that says no leaves no warning."""
    with Started(STARTS["python -m main"], {**settings(tmp_path), "DEBUG": value}) as line:
        assert "DEBUG" not in line.output()


DEBUG: Final = {"variable": ({"DEBUG": "1"}, []), "option": ({}, ["--debug"])}


@pytest.mark.parametrize(("more", "arguments"), mostly_long(DEBUG, "variable"))
def test_debug_keeps_the_frameworks_own_command_from_starting(
    tmp_path: Path, more: dict[str, str], arguments: list[str]
) -> None:
    """What the framework has read before us cannot be taken back: one sentence, and no server."""
    ended = subprocess.run(
        [sys.executable, *STARTS["functions-framework"], *arguments],
        cwd=ROOT,
        env={**os.environ, **settings(tmp_path), "PORT": str(free_port()), **more},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert ended.returncode == 1
    assert ended.stderr == server.DEBUG_REFUSED + "\n"


def workers_of(line: Instance) -> set[int]:
    """The processes that answer: the children of the one that was started."""
    listed = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True
    )
    pairs = [each.split() for each in listed.stdout.splitlines()]
    return {int(pid) for pid, parent in pairs if int(parent) == line.pid}


@pytest.mark.needs("ps")
@pytest.mark.parametrize("start", mostly_long(WAYS, "python -m main"))
def test_several_workers_are_one_line(tmp_path: Path, start: Sequence[str]) -> None:
    """With WORKERS=2 two processes answer; one that dies is replaced, and nobody waits for it."""
    with Started(start, {**settings(tmp_path), "WORKERS": "2"}) as line:
        assert until(lambda: len(workers_of(line)) == 2, 5)
        before = workers_of(line)
        os.kill(next(iter(before)), signal.SIGKILL)
        assert call(line) < SOON
        assert until(lambda: len(workers_of(line)) == 2 and workers_of(line) != before, 5)


@pytest.mark.long
def test_numbers_that_are_none_keep_no_line_from_starting(tmp_path: Path) -> None:
    """The framework fails over a variable that is no number; ours is read first, and reported."""
    wrong = {"THREADS": "many", "WORKERS": "many"}
    with Started(STARTS["functions-framework"], {**settings(tmp_path), **wrong}) as line:
        report = json.loads(ask_for_health(line).partition(b"\r\n\r\n")[2])
    assert [name for name in wrong if name not in str(report["problems"])] == []


@pytest.mark.long
def test_every_worker_gives_its_questions_back(upstash: Upstash) -> None:
    """A stop reaches each worker: what any of them has claimed is free at once."""
    ready = threading.Event()

    def decide(_: Question) -> Reply:
        ready.wait(20)
        return says("Here you are.")

    with Backend(decide) as backend:
        env = {
            **upstash.settings,
            "TWILIO_AUTH_TOKEN": TOKEN,
            "PUBLIC_URL": ORIGIN,
            "BACKEND_URL": backend.url,
            "FORWARD_TO": "+15550100099",
            "RESPONSE_DEADLINE": "1",
            "WORKERS": "2",
        }
        with Started(STARTS["python -m main"], env) as line:
            callers = [Caller(line, token=TOKEN).ring().say("think") for _ in range(8)]
            leases = [f"call:{caller.phone.call_sid}:1:lease" for caller in callers]
            assert upstash.quietly(["EXISTS", *leases]) == [8]
            threading.Thread(target=line.stop, daemon=True).start()
            assert until(lambda: upstash.quietly(["EXISTS", *leases]) == [0], 5)
            ready.set()


@pytest.mark.long
def test_a_stop_answers_who_is_under_way(tmp_path: Path) -> None:
    """SIGTERM takes no answer away, and no stranger's open connection keeps the process alive."""
    with Started(STARTS["python -m main"], settings(tmp_path)) as line, ExitStack() as stack:
        for half in HALVES.values():
            stack.enter_context(connect(line)).sendall(half)
        head, body = new_call()
        caller = stack.enter_context(connect(line))
        caller.sendall(head)
        time.sleep(0.2)
        threading.Timer(0.5, caller.sendall, [body]).start()
        assert line.stop() < PATIENCE + 3
        assert b"<Response>" in read_answer(caller)


# --- what this relies on ---

HOOKS: Final = {
    # ours: what it takes, and which of gunicorn's own methods calls it in which words
    "accept": (["self", "listener"], "set_accept_enabled", "self.accept"),
    "enqueue_req": (["self", "conn"], "accept", "self.enqueue_req(conn)"),
    "handle": (["self", "conn"], "enqueue_req", "self.tpool.submit(self.handle, conn)"),
    "finish_request": (["self", "conn", "fs"], "enqueue_req", "self.finish_request, conn, fut"),
    "handle_request": (["self", "req", "conn"], "handle", "self.handle_request(req, conn)"),
    "murder_pending": (["self"], "run", "self.murder_pending()"),
}
WORDS: Final = {
    # gunicorn's own: words of it that have to stay true
    "on_client_socket_readable": ["self.enqueue_req(conn)"],
    "finish_request": ["conn.parser.unreader.buf.getvalue()", "self.enqueue_req(conn)"],
    "handle": ["not conn.data_ready", "conn.init()", "req = next(conn.parser)"],
    "run": ["self.nr_conns < self.worker_connections", "while self.nr_conns > 0"],
}


def test_gunicorn_is_the_one_that_was_read() -> None:
    """Reception builds on methods that gunicorn does not promise to keep."""
    assert gunicorn.version_info[0] == server.READ


class Rebuilt(Instance):
    """A line in a build that has brought another gunicorn than was read."""

    program: Sequence[str] = (
        "-c",
        "from phone_line import server; server.READ -= 1; server.serve('main.py')",
    )


def test_another_gunicorn_serves_with_its_own_worker(tmp_path: Path) -> None:
    """A build that brings a gunicorn nobody has read still answers calls, and says what is lost."""
    assert server.choose_worker(server.READ) is Reception
    env = {"TWILIO_AUTH_TOKEN": TOKEN, "STATE_FILE": str(tmp_path / "calls")}
    with Rebuilt(env) as rebuilt:
        phone = Phone(rebuilt.url, token=TOKEN)
        phone.ring()
        assert phone.transcript[1] == f"line: {say('greeting')}"
        told = [entry["message"] for entry in rebuilt.log() if entry.get("level") == "error"]
    assert told == [server.GUNICORN_UNREAD]


@pytest.mark.parametrize("name", HOOKS)
def test_gunicorn_calls_what_reception_replaces(name: str) -> None:
    """A method that nobody calls any more would be a rule that nobody keeps."""
    takes, caller, words = HOOKS[name]
    for worker in (ThreadWorker, Reception):
        assert [*inspect.signature(getattr(worker, name)).parameters] == takes
    assert words in inspect.getsource(getattr(ThreadWorker, caller))


@pytest.mark.parametrize(("name", "words"), [(n, w) for n, each in WORDS.items() for w in each])
def test_gunicorn_still_does_what_reception_relies_on(name: str, words: str) -> None:
    """The places at which our code and gunicorn's meet are as they were read."""
    assert words in inspect.getsource(getattr(ThreadWorker, name))


def test_a_thread_reads_what_it_is_given_and_no_socket() -> None:
    """A parser over bytes ends where they end; a connection that has one keeps it."""
    assert "if self.parser is None" in inspect.getsource(TConn.init)
    parser = RequestParser(Config(), iter([HEALTH + b"rest"]), ("127.0.0.1", 1))
    assert next(parser).path == "/healthz"
    assert parser.unreader.take_buffered() == b"rest"


def test_the_framework_takes_our_server() -> None:
    """Both starts ask for the class that `guard` has put in its place, and get our settings."""
    framework = HTTPServer(Flask("any"), debug=False)  # type: ignore[no-untyped-call] # it has none
    assert framework.server_class is server.PatientServer
    ours = server.PatientServer(Flask("any"), "127.0.0.1", 0, debug=False)  # type: ignore[no-untyped-call] # the same
    cfg = ours.cfg
    assert (cfg.worker_class, cfg.threads) == (Reception, int(os.environ["THREADS"]))
    assert (cfg.limit_request_line, cfg.forwarded_allow_ips, cfg.keepalive) == (8190, [], 75)
    assert cfg.control_socket_disable
