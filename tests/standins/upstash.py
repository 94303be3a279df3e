"""A stand-in for Upstash: its REST dialect, spoken over a real Redis, able to fail on demand.

The official client cannot tell it from the service, so the line is tested through that client:

    with Upstash() as upstash:  # starts a redis-server of its own
        line = Line({**upstash.settings, "TWILIO_AUTH_TOKEN": "secret"})
        upstash.fault = lambda command: "apply-then-drop" if command[0] == "SET" else None
        upstash.before = once("SET", deliver_the_rival_webhook)
        assert upstash.round_trips == 2 and upstash.commands[-1][0] == "SET"

From a shell, for other processes: `python tests/standins/upstash.py --latency-ms 5` prints the
variables to export and runs until Ctrl-C. They steer it with `POST /_control` and count with
`GET /_control` (see `Upstash.control` and `Upstash.report`).

The dialect is that of Upstash's documentation (redis/features/restapi): POST / for one command,
/pipeline, /multi-exec, and the path form; statuses 200, 400, 401 and 405. What a malformed body is
told is a guess: the wording is documented nowhere.
"""

import argparse
import json
import math
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from io import BufferedIOBase
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import Any, Final, NamedTuple, Self, TypeVar, cast
from urllib.parse import parse_qsl, unquote

Command = list[str]
Hook = Callable[[Command], None]
Judge = Callable[[Command], str | None]
Address = str | tuple[str, int]
Reply = int | bytes | str | None | list["Reply"]
Answer = TypeVar("Answer")


# Redis, and the few lines of RESP it takes to keep every reply exactly as Redis gave it.


class Failure(str):
    """An error reply, with its prefix: `ERR ...`, `NOSCRIPT ...`, `WRONGTYPE ...`."""


class Resp:
    """A connection to Redis. Its errors are replies; a lost connection is a ConnectionError."""

    def __init__(self, address: Address) -> None:
        self._socket = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
        try:
            self._socket.connect(address)
        except OSError:
            self._socket.close()
            raise
        self._replies = self._socket.makefile("rb")

    def ask(self, *commands: Sequence[str]) -> list[Reply]:
        """Send all commands in one write and return their replies in the same order."""
        self._socket.sendall(b"".join(map(self._packed, commands)))
        return [self._reply() for _ in commands]

    def close(self) -> None:
        self._replies.close()
        self._socket.close()

    @staticmethod
    def _packed(command: Sequence[str]) -> bytes:
        words = [word.encode(errors="replace") for word in command]
        return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(w), w) for w in words)

    def _reply(self) -> Reply:
        head = self._replies.readline()
        if not head.endswith(b"\r\n"):
            raise ConnectionError("Redis hung up")
        kind, rest = head[:1], head[1:-2]
        if kind == b"+":
            return rest
        if kind == b"-":
            return Failure(rest.decode(errors="replace"))
        size = int(rest)
        if kind == b":":
            return size
        if size < 0:
            return None
        if kind == b"$":
            return self._replies.read(size + 2)[:-2]
        return [self._reply() for _ in range(size)]


class RedisServer:
    """A redis-server on a socket file, keeping nothing on disk, gone at the end of the `with`."""

    address: Address

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="redis-")
        self.address = str(Path(self._folder.name) / "redis.sock")
        program = ["redis-server", "--port", "0", "--unixsocket", self.address]
        program += ["--save", "", "--appendonly", "no", "--dir", self._folder.name]
        self._process = subprocess.Popen(program, stdout=subprocess.DEVNULL)
        try:
            self._wait_until_it_answers(time.monotonic() + 10)
        except BaseException:
            self.__exit__()
            raise
        return self

    def _wait_until_it_answers(self, deadline: float) -> None:
        while self._process.poll() is None and time.monotonic() < deadline:
            with suppress(OSError):
                resp = Resp(self.address)
                resp.ask(["PING"])
                return resp.close()
            time.sleep(0.005)
        raise RuntimeError("redis-server did not come up")

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._folder.cleanup()


class FakeRedis:
    """What stands in for redis-server on a machine without one: the package fakeredis."""

    address: Address

    def __enter__(self) -> Self:
        from fakeredis import TcpFakeServer  # only wanted where redis-server is missing

        self._server = TcpFakeServer(("127.0.0.1", 0))
        self._server.RequestHandlerClass = outliving_errors(self._server.RequestHandlerClass)
        self.address = cast("tuple[str, int]", self._server.server_address)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def outliving_errors(handler: Any) -> Any:  # noqa: ANN401 (the class has no public name)
    """A handler of fakeredis that goes on after an error reply, as Redis does, and not hangs up."""
    from redis import ResponseError

    class Handler(handler):  # type: ignore[misc]  # for the same reason
        def setup(self) -> None:
            super().setup()
            read = self.current_client.read_response

            def read_response() -> object:
                try:
                    return read()
                except ResponseError as error:
                    return error

            self.current_client.read_response = read_response

    return Handler


def server() -> RedisServer | FakeRedis:
    """The Redis to run on: a real one where it is installed, and always in CI."""
    if shutil.which("redis-server"):
        return RedisServer()
    if os.environ.get("CI"):
        raise RuntimeError("in CI nothing stands in for Redis: apt-get install redis-server")
    return FakeRedis()


# The dialect: how a request becomes commands, and replies become an answer.

# Connection, blocking and subscription commands, which Upstash does not take over REST. They would
# also spoil the one connection to Redis that all clients share.
REFUSED: Final = frozenset(
    {"AUTH", "HELLO", "SELECT", "CLIENT", "QUIT", "RESET", "MONITOR", "SYNC", "SHUTDOWN", "WAIT"}
    | {"MULTI", "EXEC", "DISCARD", "WATCH", "UNWATCH", "SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE"}
    | {"BLPOP", "BRPOP", "BLMOVE", "BLMPOP", "BRPOPLPUSH", "BZPOPMIN", "BZPOPMAX", "BZMPOP"}
)
ALL_ARE_KEYS: Final = frozenset({"MGET", "DEL", "UNLINK", "EXISTS", "TOUCH"})
METHODS: Final = ("HEAD", "GET", "POST", "PUT")
REASONS: Final = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    405: "Method Not Allowed",
    502: "Bad Gateway",
}
BATCHES: Final = ("/pipeline", "/multi-exec")
EXPIRED: Final = (
    -2,
    0,
)  # of a key that was still there a moment ago: https://redis.io/commands/pttl


class Request(NamedTuple):
    """One HTTP request as it came; header names are in lower case."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def token(self) -> str:
        bearer = self.headers.get("authorization", "").removeprefix("Bearer ")
        return bearer or dict(parse_qsl(self.query)).get("_token", "")


def read_request(stream: BufferedIOBase) -> Request | None:
    """The next request on a connection; None when the client is done, or speaks no HTTP."""
    words = stream.readline(65_536).decode("latin-1").split()
    if len(words) != 3:
        return None
    headers = {}
    while (line := stream.readline(65_536)) not in (b"\r\n", b"\n", b""):
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.lower()] = value.strip()
    path, _, query = words[1].partition("?")
    return Request(
        words[0], path, query, headers, stream.read(int(headers.get("content-length", 0)))
    )


def page(status: int, body: bytes, headers: str = "Content-Type: application/json") -> bytes:
    """A whole HTTP answer, ready for a single write."""
    head = f"HTTP/1.1 {status} {REASONS[status]}\r\n{headers}\r\nContent-Length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


def refusal(status: int, words: str) -> bytes:
    return page(status, json.dumps({"error": words}).encode())


def commands_of(request: Request) -> list[Command]:
    """The commands a request carries; a ValueError tells the client why there are none."""
    if request.path in BATCHES:
        rows = from_json(request.body)
    elif request.path == "/":
        rows = [from_json(request.body)]
    else:
        rows = [from_path(request)]
    if not rows:
        raise ValueError("ERR empty pipeline request")
    return [as_command(row) for row in rows]


def from_json(body: bytes) -> list[object]:
    with suppress(ValueError):
        if isinstance(row := json.loads(body), list):
            return row
    raise ValueError("ERR failed to parse command")


def from_path(request: Request) -> list[object]:
    """`POST /set/key?EX=60` with a body is SET key body EX 60."""
    row: list[object] = [unquote(word) for word in request.path.strip("/").split("/")]
    row += [request.body.decode(errors="replace")] if request.body else []
    options = parse_qsl(request.query, keep_blank_values=True)
    return row + [word for pair in options if pair[0] != "_token" for word in pair if word]


def as_command(row: object) -> Command:
    if not isinstance(row, list) or not all(isinstance(word, str | int | float) for word in row):
        raise ValueError("ERR failed to parse command")
    if not row:
        raise ValueError("ERR empty command")
    return [word if isinstance(word, str) else json.dumps(word) for word in row]


def told(reply: Reply, in_base64: bool) -> object:
    """A reply as JSON has it. In base64 every string is encoded, save OK."""
    if isinstance(reply, list):
        return [told(item, in_base64) for item in reply]
    if not isinstance(reply, bytes):
        return reply
    if in_base64 and reply != b"OK":
        return b64encode(reply).decode()
    return reply.decode(errors="replace")


def boxed(reply: Reply, in_base64: bool) -> dict[str, object]:
    return {"error" if isinstance(reply, Failure) else "result": told(reply, in_base64)}


# Faults: each is told how to get the answer (which applies the commands), and decides its fate.


class Exchange(NamedTuple):
    """One request while it is being answered."""

    wire: "Wire"
    commands: list[Command]
    answer: Callable[[], bytes]


def hang(exchange: Exchange) -> None:
    """Nothing, until the client gives up or `Upstash.release` closes the connection."""
    wire = exchange.wire
    wire.upstash.hanging.add(wire.connection)
    while wire.connection.recv(1024):
        pass
    drop(exchange)


def drip(exchange: Exchange) -> None:
    for byte in exchange.answer():
        exchange.wire.send(bytes([byte]))
        exchange.wire.upstash.closing.wait(exchange.wire.upstash.drip_seconds)


def late(exchange: Exchange) -> None:
    if exchange.wire.upstash.closing.wait(exchange.wire.upstash.late_seconds):
        drop(exchange)
    exchange.wire.send(exchange.answer())


def drop(_: Exchange) -> None:
    raise ConnectionAbortedError


def forget(exchange: Exchange) -> None:
    """Amnesia: the keys are gone before the command comes, or with `apply-then-`, after it."""
    keys = [key for command in exchange.commands for key in keys_of(command)]
    exchange.wire.upstash.quietly(["DEL", *keys])
    exchange.wire.send(exchange.answer())


def instead(whole: bytes) -> Callable[[Exchange], None]:
    return lambda exchange: exchange.wire.send(whole)


def keys_of(command: Command) -> Command:
    if command[0].upper() in ALL_ARE_KEYS:
        return command[1:]
    if command[0].upper() in ("EVAL", "EVALSHA"):
        return command[3 : 3 + int(command[2])]
    return command[1:2]


# A fault strikes before its command reaches Redis. `apply-then-` in front of any of these lets
# the command take effect first, so that only the answer suffers (which is all a drip ever does).
FAULTS: Final[Mapping[str, Callable[[Exchange], None]]] = {
    "hang": hang,
    "drip": drip,
    "late": late,
    "drop": drop,
    "forget": forget,
    "502": instead(page(502, b"<h1>502 Bad Gateway</h1>", "Content-Type: text/html")),
    "empty": instead(page(200, b"")),
    "garbage": instead(page(200, b"<!doctype html><title>Please wait</title>")),
    "no-result": instead(page(200, b'{"status": "ok"}')),
    "quota": instead(
        refusal(400, "ERR max requests limit exceeded. Limit: 500000, Usage: 500000.")
    ),
    "read-only": instead(
        refusal(400, "NOPERM this user has no permissions to run the 'set' command")
    ),
}
APPLIED: Final = "apply-then-"


def strike(name: str, exchange: Exchange) -> None:
    """Answer an exchange the way the named fault does."""
    if name.startswith(APPLIED):
        whole = exchange.answer()
        exchange = exchange._replace(answer=lambda: whole)
    FAULTS[name.removeprefix(APPLIED)](exchange)


def at_random(name: str, share: float, seed: int, match: str | None) -> Judge:
    """A judge that strikes this share of the commands called `match` (None: of all of them)."""
    if name.removeprefix(APPLIED) not in FAULTS:
        raise ValueError(f"ERR no such fault: {name}")
    dice = random.Random(seed)

    def judge(command: Command) -> str | None:
        meant = match is None or match == command[0].upper()
        return name if meant and dice.random() < share else None

    return judge


def once(name: str, action: Callable[[], object]) -> Hook:
    """A hook that acts at the first command of this name, and lets all others pass."""
    pending = threading.Lock()

    def hook(command: Command) -> None:
        if command[0].upper() == name and pending.acquire(blocking=False):
            action()

    return hook


# The server.


class Wire(StreamRequestHandler):
    """One kept-alive HTTP connection of a client, in a thread of its own."""

    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.upstash = cast("Door", self.server).upstash
        self.era = self.upstash.era
        self.upstash.connections.add(self.connection)

    def finish(self) -> None:
        self.upstash.connections.discard(self.connection)
        self.upstash.hanging.discard(self.connection)
        with suppress(OSError):
            super().finish()

    def handle(self) -> None:
        with suppress(OSError):  # the client, Redis or a fault broke the line
            while request := read_request(self.rfile):
                self._travel()
                self._serve(request)
                if request.headers.get("connection", "").lower() == "close":
                    return

    def send(self, whole: bytes) -> None:
        self._travel()
        self.connection.sendall(whole)

    def _travel(self) -> None:
        if self.upstash.latency:
            time.sleep(self.upstash.latency / 2)  # half on the way in, half on the way out

    def _serve(self, request: Request) -> None:
        if request.method not in METHODS:
            return self.send(refusal(405, "ERR method not allowed"))
        if not secrets.compare_digest(request.token.encode(), self.upstash.token.encode()):
            return self.send(refusal(401, "WRONGPASS invalid or missing auth token"))
        try:
            if request.path == "/_control":
                return self.send(self._controlled(request))
            commands = commands_of(request)
        except (ValueError, TypeError) as error:
            return self.send(refusal(400, str(error)))
        number, fault = self.upstash.announce(commands, self.era)
        exchange = Exchange(self, commands, lambda: self._answer(request, commands, number))
        return strike(fault, exchange) if fault else self.send(exchange.answer())

    def _controlled(self, request: Request) -> bytes:
        if request.method == "POST":
            self.upstash.control(json.loads(request.body))
        return page(200, json.dumps(self.upstash.report()).encode())

    def _answer(self, request: Request, commands: list[Command], number: int) -> bytes:
        replies = self.upstash.apply(commands, self.era, together=request.path == "/multi-exec")
        in_base64 = request.headers.get("upstash-encoding") == "base64"
        if isinstance(replies, list) and request.path in BATCHES:
            status, answer = 200, json.dumps([boxed(reply, in_base64) for reply in replies])
        else:
            reply = replies[0] if isinstance(replies, list) else replies
            status = 400 if isinstance(reply, Failure) else 200
            answer = json.dumps(boxed(reply, in_base64))
        headers = f"Content-Type: application/json\r\nUpstash-Sync-Token: {number}"
        return page(status, b"" if request.method == "HEAD" else answer.encode(), headers)


class Door(ThreadingTCPServer):
    """Where clients come in; it only ever listens on this machine."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, upstash: "Upstash", port: int) -> None:
        self.upstash = upstash
        super().__init__(("127.0.0.1", port), Wire)


class Upstash:
    """The database as a client sees it, and as only a test can: counted, slowed down and broken.

    `fault` names the fault (see FAULTS) that strikes the request with this command; None is good
    health. `before` and `after` are called around each command that is applied, in its request's
    thread and under no lock: what a hook sends through this same server is served meanwhile (and
    meets the hook too: `once` guards against that). An exception in any of the three does not reach
    the client; it is raised when the `with` ends. All times are in seconds.
    """

    def __init__(
        self,
        redis: RedisServer | FakeRedis | None = None,
        *,
        port: int = 0,
        token: str = "",
        latency: float = 0.0,
    ) -> None:
        self.redis = redis or server()
        self.token = token or secrets.token_hex(16)
        self.latency = latency
        self.late_seconds, self.drip_seconds = 2.0, 1.0
        self.fault: Judge | None = None
        self.before: Hook | None = None
        self.after: Hook | None = None
        self.errors: list[Exception] = []
        self.connections: set[socket.socket] = set()
        self.hanging: set[socket.socket] = set()
        self.closing = threading.Event()
        self._owns_redis, self._port = redis is None, port
        self._resp: Resp | None = None
        self._lock = threading.Lock()
        self._requests = 0
        self.era = 0  # counts fresh starts: what a connection of an older one sends is abandoned
        self.forget()

    @property
    def settings(self) -> dict[str, str]:
        """The variables by which a client finds it."""
        return {"UPSTASH_REDIS_REST_URL": self.url, "UPSTASH_REDIS_REST_TOKEN": self.token}

    def __enter__(self) -> Self:
        with ExitStack() as opened:
            if self._owns_redis:
                opened.enter_context(self.redis)
            self._door = opened.enter_context(Door(self, self._port))
            self._closing = opened.pop_all()
        self.url = f"http://127.0.0.1:{self._door.server_address[1]}"
        threading.Thread(target=self._door.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, _: object, failure: BaseException | None, *__: object) -> None:
        self.closing.set()
        self._door.shutdown()
        cut(self.connections)
        with self._lock:
            self._hang_up()
        self._closing.close()
        if self.errors and failure is None:
            raise self.errors[0]

    def start_afresh(self) -> None:
        """Become what it was at first: empty, in good health, nothing counted, nobody connected.

        Commands that are still under way are abandoned, so that none of them takes effect in the
        next test: a `late` one would, long after its client has gone.
        """
        with self._lock:
            self.era += 1
        cut(self.connections)
        self.recover()
        self.flush()
        self.forget()

    def recover(self) -> None:
        """Be in good health again, and hang up where it hangs."""
        self.fault, self.before, self.after = None, None, None
        self.latency = 0.0
        self.release()

    def forget(self) -> None:
        """Start counting afresh. A request that only holds PING is no round trip: it is free."""
        self.commands: list[tuple[str, ...]] = []
        self.pings = 0
        self.round_trips = 0
        self.faults: Counter[str] = Counter()

    def flush(self) -> None:
        """Empty the database."""
        self.quietly(["FLUSHALL"])

    def keys(self) -> dict[str, int]:
        """Every key with the seconds it has left, begun ones counted; -1 is for ever."""
        names = [name.decode() for name in cast("list[bytes]", self.quietly(["KEYS", "*"])[0])]
        lives = cast("list[int]", self.quietly(*(["PTTL", name] for name in names)))
        return {
            name: math.ceil(milliseconds / 1000) if milliseconds > 0 else -1
            for name, milliseconds in zip(names, lives, strict=True)
            if milliseconds not in EXPIRED
        }

    def release(self) -> None:
        """Close the connections that hang."""
        cut(self.hanging)

    def control(self, wish: object) -> None:
        """Do what `POST /_control` asks for; a ValueError says what is wrong with it.

        {"fault": a name, or null to stop and release, "share": 0.0 to 1.0, "seed": a number,
        "match": "SET" or null, "latency": seconds, "forget": true, "flush": true}, all optional.
        """
        if not isinstance(wish, dict):
            raise ValueError("ERR a wish is an object")  # noqa: TRY004 (the client's fault, a 400)
        if "latency" in wish:
            self.latency = float(wish["latency"])
        if wish.get("fault"):
            share, seed = float(wish.get("share", 1.0)), int(wish.get("seed", 0))
            self.fault = at_random(str(wish["fault"]), share, seed, wish.get("match"))
        elif "fault" in wish:
            self.fault = None
            self.release()
        if wish.get("forget"):
            self.forget()
        if wish.get("flush"):
            self.flush()

    def report(self) -> dict[str, object]:
        """What `GET /_control` tells."""
        with self._lock:
            names = Counter(command[0].upper() for command in self.commands)
        return {
            "commands": names.total(),
            "by_name": names,
            "round_trips": self.round_trips,
            "pings": self.pings,
            "faults": self.faults,
            "without_ttl": [key for key, ttl in self.keys().items() if ttl == -1],
        }

    def announce(self, commands: list[Command], era: int) -> tuple[int, str | None]:
        """Count a request in; its number, and the fault that strikes it."""
        self._abandon_older_than(era)
        fault = next(filter(None, (self._call(self.fault, command) for command in commands)), None)
        with self._lock:
            self._abandon_older_than(era)
            self._requests += 1
            self.round_trips += any(command[0].upper() != "PING" for command in commands)
            self.faults.update([fault] if fault else [])
            return self._requests, fault

    def apply(self, commands: list[Command], era: int, *, together: bool) -> list[Reply] | Failure:
        """Reply to each command, one by one or in one transaction; a Failure discards it whole."""
        if not together:
            return [unavailable(each) or self._around([each], [each], era)[0] for each in commands]
        refused = next(filter(None, map(unavailable, commands)), None)
        whole = [["MULTI"], *commands, ["EXEC"]]
        return refused or cast("list[Reply] | Failure", self._around(commands, whole, era)[-1])

    def quietly(self, *commands: Command) -> list[Reply]:
        """Ask Redis on the test's own behalf: not counted, no hooks, no faults."""
        return self._reach_redis(list(commands), [], self.era)

    def _around(self, commands: list[Command], whole: list[Command], era: int) -> list[Reply]:
        self._abandon_older_than(era)
        for command in commands:
            self._call(self.before, command)
        replies = self._reach_redis(whole, commands, era)
        for command in commands:
            self._call(self.after, command)
        return replies

    def _reach_redis(
        self, commands: list[Command], counted: list[Command], era: int
    ) -> list[Reply]:
        with self._lock:  # one at a time, so that the log has the order in which Redis took them
            self._abandon_older_than(era)
            if self.closing.is_set():
                raise ConnectionError("the stand-in is closed")
            try:
                self._resp = self._resp or Resp(self.redis.address)
                replies = self._resp.ask(*commands)
            except OSError:
                self._hang_up()
                raise
            asked = [tuple(command) for command in counted if command[0].upper() != "PING"]
            self.commands += asked
            self.pings += len(counted) - len(asked)
            return replies

    def _abandon_older_than(self, era: int) -> None:
        if era < self.era:
            raise ConnectionAbortedError("sent before the stand-in started afresh")

    def _hang_up(self) -> None:
        if self._resp:
            self._resp.close()
        self._resp = None

    def _call(self, hook: Callable[[Command], Answer] | None, command: Command) -> Answer | None:
        try:
            return hook(command) if hook else None
        except Exception as error:
            self.errors.append(error)
            return None


def unavailable(command: Command) -> Failure | None:
    if command[0].upper() not in REFUSED:
        return None
    where = "https://upstash.com/docs/redis/overall/compatibility"
    return Failure(f"ERR Command is not available: '{command[0].upper()}'. See {where} for details")


def cut(connections: set[socket.socket]) -> None:
    for connection in tuple(connections):
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)


def main() -> None:
    """Run until Ctrl-C (or SIGTERM), for clients in other processes."""
    parser = argparse.ArgumentParser(
        description="A stand-in for Upstash's REST API, over a Redis of its own."
    )
    parser.add_argument("--port", type=int, default=0, help="default: any free one")
    parser.add_argument("--token", default="", help="default: a random one")
    parser.add_argument("--latency-ms", type=float, default=0.0, help="added to every answer")
    wanted = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with Upstash(port=wanted.port, token=wanted.token, latency=wanted.latency_ms / 1000) as upstash:
        for name, value in upstash.settings.items():
            print(f"export {name}={value}", flush=True)
        with suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()
