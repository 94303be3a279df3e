"""Measures a caller's waits and an owner's costs: cold starts, webhooks, Redis, memory.

    python tests/bench.py                 # every row, about ten minutes, a table
    python tests/bench.py --only cold     # one row alone; each figure names the command for its own
    python tests/bench.py --json          # the same figures, for a program
    python tests/bench.py --quick         # a few seconds a row: it runs, but its figures are noise

Absolute times belong to one machine and one hour, so whatever is compared runs in turns: each round
measures every contestant once, each ratio is taken within a round, and a figure is the median of
those ratios, with the quartiles as its spread. The contestants are whole functions-framework
servers in processes of their own, all with bytecode, the same number of threads, and no packages
but those that requirements.txt brings to production:

- hello: the framework's own first example; the least that a cold start can cost;
- stateless: verifies with Twilio's library and says one sentence; keeps nothing;
- stateless, two round trips: the same, and as many bytes to Redis and back as the line's, over a
  connection that is kept, with nothing understood of them; the least that durable state can cost;
- naive: stateless, and one GET and one SET through the Upstash client as it comes;
- express: the same on Node, with Express 5 and @upstash/redis; left out, and said so, where Node or
  npm's registry is missing. It is the one contestant without functions-framework;
- line: `main.py` and its package; "as deployed" with the build's and the start's own commands.

Redis is played by a small asyncio server in a third process, in memory: the one
in tests/standins/upstash.py speaks the whole dialect over a real Redis, and takes longer for a
command than what is measured here.
"""

import argparse
import asyncio
import json
import os
import re
import selectors
import shutil
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
import urllib.request
import uuid
import venv
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib import metadata
from itertools import cycle
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import urlencode

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from standins.twiml import link
from standins.webhooks import Fields, sign, signed_url

ROOT: Final = Path(__file__).resolve().parent.parent
ORIGIN: Final = "https://line.example"
TOKEN: Final = "secret"
DOLLARS: Final = 0.20 / 100_000  # for a command, pay as you go: https://upstash.com/pricing/redis
SERVER: Final = ("python", "-m", "functions_framework", "--target=handler")
THREADS: Final = "32"  # the same for all, where threads are not what is measured
COUNTS: Final = ("4", "8", "16", "32", "64")
LEAST: Final = "stateless, two round trips"
NODE: Final = ("node", "server.mjs")
PACKAGES: Final = ("express@5", "twilio", "@upstash/redis")
HELD: Final = 60  # callers on hold at once; an instance works on 64 questions
PATIENCE: Final = 30.0  # seconds, then something hangs that should be mended


# ---- contestants -------------------------------------------------------------------------------

HELLO: Final = """
def handler(request):
    return "Hello, World!"
"""

STATELESS: Final = """
import os
from twilio.request_validator import RequestValidator
from twilio.twiml.voice_response import VoiceResponse

VALIDATOR = RequestValidator(os.environ["TWILIO_AUTH_TOKEN"])

def handler(request):
    url = os.environ["PUBLIC_URL"] + request.environ["RAW_URI"]
    if not VALIDATOR.validate(url, request.form, request.headers.get("X-Twilio-Signature", "")):
        return "forged", 403
    words = VoiceResponse()
    words.say("Thank you for calling. Goodbye.")
    return str(words), 200, {"Content-Type": "text/xml"}
"""

TRIPS: Final = """
import json
import os
import re
import socket
import threading
from urllib.parse import urlsplit
from twilio.request_validator import RequestValidator
from twilio.twiml.voice_response import VoiceResponse

VALIDATOR = RequestValidator(os.environ["TWILIO_AUTH_TOKEN"])
REDIS = urlsplit(os.environ["UPSTASH_REDIS_REST_URL"])
KEPT = threading.local()

def trip(*command):
    if not hasattr(KEPT, "redis"):
        KEPT.redis = socket.create_connection((REDIS.hostname, REDIS.port))
        KEPT.redis.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    body = json.dumps(command).encode()
    head = f"POST / HTTP/1.1\\r\\nUpstash-Encoding: base64\\r\\nContent-Length: {len(body)}"
    KEPT.redis.sendall(head.encode() + b"\\r\\n\\r\\n" + body)
    answer = b""
    while not (whole := re.match(rb"(?is).*?content-length: *([0-9]+).*?\\r\\n\\r\\n", answer)) or (
        len(answer) < whole.end() + int(whole[1])
    ):
        answer += KEPT.redis.recv(65536)

def handler(request):
    url = os.environ["PUBLIC_URL"] + request.environ["RAW_URI"]
    if not VALIDATOR.validate(url, request.form, request.headers.get("X-Twilio-Signature", "")):
        return "forged", 403
    key = "call:" + request.form["CallSid"]
    trip("MGET", key, key + ":2")
    trip("SET", key, "x" * 600, "NX", "GET", "EX", "86400")
    words = VoiceResponse()
    words.say("Thank you for calling. Goodbye.")
    return str(words), 200, {"Content-Type": "text/xml"}
"""

NAIVE: Final = """
import json
import os
from twilio.request_validator import RequestValidator
from twilio.twiml.voice_response import VoiceResponse
from upstash_redis import Redis

VALIDATOR = RequestValidator(os.environ["TWILIO_AUTH_TOKEN"])
REDIS = Redis.from_env()

def handler(request):
    url = os.environ["PUBLIC_URL"] + request.environ["RAW_URI"]
    if not VALIDATOR.validate(url, request.form, request.headers.get("X-Twilio-Signature", "")):
        return "forged", 403
    key = "call:" + request.form["CallSid"]
    call = json.loads(REDIS.get(key) or "[]")
    call.append(request.form.get("SpeechResult", ""))
    REDIS.set(key, json.dumps(call), ex=86400)
    words = VoiceResponse()
    words.say("Thank you for calling. Goodbye.")
    return str(words), 200, {"Content-Type": "text/xml"}
"""

EXPRESS: Final = """
import cluster from "node:cluster";
import express from "express";
import twilio from "twilio";
import { Redis } from "@upstash/redis";

if (cluster.isPrimary && process.env.WORKERS > 1) {
  for (let i = 0; i < process.env.WORKERS; i++) cluster.fork();
} else {
  const redis = Redis.fromEnv();
  const app = express();
  app.use(express.urlencoded({ extended: false }));
  app.use(async (request, response) => {
    const url = process.env.PUBLIC_URL + request.originalUrl;
    const signature = request.get("X-Twilio-Signature") ?? "";
    const token = process.env.TWILIO_AUTH_TOKEN;
    if (!twilio.validateRequest(token, signature, url, request.body)) {
      return response.status(403).send("forged");
    }
    const key = "call:" + request.body.CallSid;
    const call = (await redis.get(key)) ?? [];
    call.push(request.body.SpeechResult ?? "");
    await redis.set(key, JSON.stringify(call), { ex: 86400 });
    const words = new twilio.twiml.VoiceResponse();
    words.say("Thank you for calling. Goodbye.");
    response.type("text/xml").send(words.toString());
  });
  app.listen(process.env.PORT, process.env.HOST);
}
"""


# ---- Redis -------------------------------------------------------------------------------------


HEAD: Final = (  # as long as the service's own: to read headers takes time, too
    b"HTTP/1.1 200 OK\r\nDate: Mon, 05 Jan 2026 09:00:00 GMT\r\nConnection: keep-alive\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\nUpstash-Sync-Token: 0123456789abcdefg"
    b"\r\nStrict-Transport-Security: max-age=31536000; includeSubDomains\r\n\r\n"
)


class Cells(asyncio.Protocol):
    """The commands that the contestants use, in Upstash's dialect. Nothing expires."""

    latency = 0.0
    held: Final[dict[str, str]] = {}
    counted: Final = Counter[str]()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport, self.waiting = transport, b""

    def data_received(self, data: bytes) -> None:
        self.waiting += data
        head, found, rest = self.waiting.partition(b"\r\n\r\n")
        lines = head.lower()
        length = re.search(rb"content-length: *(\d+)", lines)
        size = int(length[1]) if length else 0
        if not found or len(rest) < size:
            return
        self.waiting = rest[size:]
        if lines.startswith(b"get "):
            self.send(self.report())
        else:
            self.obey(json.loads(rest[:size]), b"upstash-encoding" in lines)

    def obey(self, request: list[Any], in_base64: bool) -> None:
        """Answer one command, or several of them (/pipeline), after the latency."""
        self.counted["round_trips"] += 1
        commands = request if isinstance(request[0], list) else [request]
        answers = []
        for command in commands:
            result = self.run([str(word) for word in command])
            answers.append({"result": encoded(result) if in_base64 else result})
        answer = answers if isinstance(request[0], list) else answers[0]
        if self.latency:
            asyncio.get_running_loop().call_later(self.latency, self.send, answer)
        else:
            self.send(answer)

    def send(self, answer: object) -> None:
        body = json.dumps(answer).encode()
        self.transport.write(HEAD % len(body) + body)

    def run(self, command: list[str]) -> object:
        name, *words = command
        self.counted["commands"] += 1
        match name.upper():
            case "GET" | "GETEX":
                return self.held.get(words[0])
            case "MGET":
                return [self.held.get(key) for key in words]
            case "SET":
                return self.set(words[0], words[1], words[2:])
            case _:
                raise ValueError(command)

    def set(self, key: str, value: str, options: Sequence[str]) -> str | None:
        old = self.held.get(key)
        if old is None or "NX" not in options:
            self.held[key] = value
        return old if "GET" in options else "OK"

    def report(self) -> dict[str, int]:
        size = sum(len(value.encode()) for value in self.held.values())
        return {**self.counted, "cells": len(self.held), "bytes": size}


def encoded(result: object) -> object:
    """A result as `Upstash-Encoding: base64` has it: every string but a plain OK."""
    if isinstance(result, list):
        return [encoded(element) for element in result]
    if not isinstance(result, str) or result == "OK":
        return result
    return b64encode(result.encode()).decode()


async def stand_in(latency: float, certificate: str) -> None:
    """Serve until killed; the first line on stdout is the port."""
    Cells.latency, context = latency, None
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Cells, "127.0.0.1", 0, ssl=context, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


# ---- processes ---------------------------------------------------------------------------------


class Process:
    """A process in a group of its own, gone at the end of the `with`."""

    def __init__(self, command: Sequence[str], **how: Any) -> None:  # noqa: ANN401 (as Popen)
        self.running = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, start_new_session=True, **how
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.running.pid, signal.SIGKILL)
        self.running.wait()
        if self.running.stdout:
            self.running.stdout.close()


class Redis(Process):
    """The stand-in, in its own process. `settings` lead a function to it."""

    def __init__(self, latency: float = 0.0, certificate: Path | None = None) -> None:
        words = [sys.executable, __file__, "--stand-in", str(latency), str(certificate or "")]
        super().__init__(words, stdout=subprocess.PIPE)
        assert self.running.stdout
        self.port = int(self.running.stdout.readline())
        scheme = "https" if certificate else "http"
        self.settings = {
            "UPSTASH_REDIS_REST_URL": f"{scheme}://127.0.0.1:{self.port}",
            "UPSTASH_REDIS_REST_TOKEN": TOKEN,
        } | ({"SSL_CERT_FILE": "", "SSL_CERT_DIR": str(certificate.parent)} if certificate else {})

    def report(self) -> Counter[str]:
        """Commands and round trips so far, cells and their bytes."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/") as answer:
            return Counter(json.loads(answer.read()))


def reserved_port() -> socket.socket:
    """A socket that keeps others from being given its port by chance, until it is closed.

    On Linux a server that asks for this port by number still gets it, since both allow reuse and
    this one does not listen. Elsewhere the port is only known to have been free.
    """
    reserved = socket.socket()
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reserved.bind(("127.0.0.1", 0))
    return reserved


class Server(Process):
    """One contestant under functions-framework. Answers when `connect` has returned."""

    def __init__(self, command: Sequence[str], folder: Path, env: Mapping[str, str]) -> None:
        self.reserved = reserved_port()
        self.port, self.began = self.reserved.getsockname()[1], time.perf_counter()
        if sys.platform != "linux":
            self.reserved.close()
        own = {**env, "PORT": str(self.port), "HOST": "127.0.0.1"}
        self.output, self.seen = folder / f"output-{self.port}", 0
        with self.output.open("wb") as output:
            super().__init__(command, cwd=folder, env=own, stdout=output, stderr=output)

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self.reserved.close()

    def connect(self) -> socket.socket:
        """A connection, as soon as there can be one."""
        until = time.perf_counter() + PATIENCE
        while time.perf_counter() < until and self.running.poll() is None:
            with suppress(OSError):
                made = socket.create_connection(("127.0.0.1", self.port), PATIENCE)
                made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return made
            time.sleep(0.001)
        raise RuntimeError(f"a contestant did not start: {self.running.args!r}")

    def logged(self) -> list[dict[str, Any]]:
        """The JSON lines that were written since this was last asked."""
        text = self.output.read_text()
        fresh, self.seen = text[self.seen :], len(text)
        return [json.loads(line) for line in fresh.splitlines() if line.startswith("{")]

    def memory(self) -> int:
        """Bytes of the largest process of the group: the worker."""
        return max(self.memories().values())

    def whole_memory(self) -> int:
        """Bytes of all processes of the group; what they share counts once, where Linux says so."""
        return sum(proportional_size(pid) or size for pid, size in self.memories().items())

    def memories(self) -> dict[int, int]:
        """The processes of the group, and the bytes of each that are in memory."""
        listing = subprocess.run(
            ["ps", "-A", "-o", "pid=,pgid=,rss="], capture_output=True, text=True, check=True
        )
        rows = [map(int, line.split()) for line in listing.stdout.splitlines()]
        return {pid: rss * 1024 for pid, group, rss in rows if group == self.running.pid}


def proportional_size(pid: int) -> int:
    """Bytes of a process, with its share of what others use as well; 0 where nobody knows."""
    with suppress(OSError):
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        found = re.search(r"^Pss: +(\d+) kB", rollup, re.MULTILINE)
        return int(found[1]) * 1024 if found else 0
    return 0


# ---- calls -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Webhook:
    """One request of a call, for any CallSid."""

    target: str
    fields: Fields

    def signed(self, call_sid: str) -> bytes:
        """The whole request as Twilio sends it."""
        fields = [*self.fields, ("CallSid", call_sid)]
        signature = sign(TOKEN, signed_url(ORIGIN + self.target), fields)
        body = urlencode(fields).encode()
        head = (
            f"POST {self.target} HTTP/1.1\r\nHost: line.example\r\nX-Twilio-Signature: {signature}"
            f"\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}"
        )
        return f"{head}\r\n\r\n".encode() + body


WHERE: Final = ("City", "State", "Zip", "Country")
SENT: Final[Fields] = [  # with what a later webhook adds, the 25 fields that Twilio sends
    ("AccountSid", "AC" + "0" * 32),
    ("ApiVersion", "2010-04-01"),
    ("CallStatus", "in-progress"),
    ("Direction", "inbound"),
    *((side, "+15557654321") for side in ("From", "Caller")),
    *((side, "+15550100000") for side in ("To", "Called")),
    *((side + what, "SOMEWHERE") for side in ("From", "To", "Caller", "Called") for what in WHERE),
]
HEARD: Final[Fields] = [
    ("SpeechResult", "This is Ann, and my bill is wrong."),
    ("Confidence", "0.93"),
    ("Language", "en-US"),
]
DIALLED: Final[Fields] = [("DialCallStatus", "completed"), ("DialCallDuration", "61")]
RINGING: Final = Webhook("/voice/inbound", SENT)
ENDED: Final[Fields] = [("CallStatus", "completed"), ("CallDuration", "80")]
OVER: Final = Webhook("/voice/status", [pair for pair in SENT if pair[0] != "CallStatus"] + ENDED)


def new_sid() -> str:
    return "CA" + uuid.uuid4().hex


def exchange(connection: socket.socket, request: bytes) -> bytes:
    """Send a request and return the whole answer, which has a Content-Length or is a 204."""
    connection.sendall(request)
    answer = b""
    while not whole(answer):
        some = connection.recv(65536)
        if not some:
            raise ConnectionError("the contestant hung up")
        answer += some
    return answer


def whole(answer: bytes) -> bool:
    """Tell whether all of an answer is there. Raises RuntimeError for one that is no success."""
    head, found, body = answer.partition(b"\r\n\r\n")
    if not found:
        return False
    if not head.startswith(b"HTTP/1.1 20"):
        raise RuntimeError(f"a contestant answered {answer[:300]!r}")
    length = re.search(rb"(?i)content-length: *(\d+)", head)
    return len(body) >= (int(length[1]) if length else 0)


def learn(server: Server) -> list[Webhook]:
    """The webhooks of one call, each at the URL that the answer before it gave."""
    call_sid, script = new_sid(), [RINGING]
    with server.connect() as connection:
        while True:
            answer = exchange(connection, script[-1].signed(call_sid)).decode()
            way_back = re.search(r'<(Gather|Dial)\b[^>]* action="([^"]*)"', answer)
            if not way_back:
                return script
            target = way_back[2].replace("&amp;", "&").partition("#")[0]
            assert link(target) is None, target
            said = HEARD if way_back[1] == "Gather" else DIALLED
            script.append(Webhook(target, [*SENT, *said]))


def play(
    servers: Server | Sequence[Server], calls: Iterable[Sequence[bytes]], callers: int
) -> list[list[float]]:
    """Seconds of every webhook, a list for each call. `callers` speak at once, in one thread.

    Of several servers each gets a webhook in turn, as instances do.
    """
    doors = [servers] if isinstance(servers, Server) else servers
    left, done = iter(calls), list[list[float]]()
    with selectors.DefaultSelector() as ready, ExitStack() as stack:
        for _ in range(callers):
            connections = [stack.enter_context(door.connect()) for door in doors]
            line = Conversation(connections, left, done)
            if line.speak():
                for connection in connections:
                    ready.register(connection, selectors.EVENT_READ, line)
        while ready.get_map():
            heard = ready.select(PATIENCE)
            if not heard:
                raise TimeoutError("a contestant has fallen silent")
            for key, _ in heard:
                if not key.data.listen():
                    for connection in key.data.connections:
                        ready.unregister(connection)
    return done


class Conversation:
    """Connections, used in turn, on which one call is spoken after the other."""

    def __init__(
        self,
        connections: Sequence[socket.socket],
        left: Iterator[Sequence[bytes]],
        done: list[list[float]],
    ) -> None:
        self.connections, self.left, self.done = connections, left, done
        self.turns = cycle(connections)
        self.requests: Iterator[bytes] = iter(())
        self.answer, self.sent = b"", 0.0

    def speak(self) -> bool:
        """Send the next webhook, of the next call if need be; False when all calls are over."""
        request = next(self.requests, None)
        if request is None:
            call = next(self.left, None)
            if call is None:
                return False
            self.requests = iter(call)
            self.done.append([])
            self.mine, request = self.done[-1], next(self.requests)
        self.connection = next(self.turns)
        self.answer, self.sent = b"", time.perf_counter()
        self.connection.sendall(request)
        return True

    def listen(self) -> bool:
        """Take what has come; when that was all, speak on."""
        some = self.connection.recv(65536)
        if not some:
            raise ConnectionError("the contestant hung up")
        self.answer += some
        if not whole(self.answer):
            return True
        self.mine.append(time.perf_counter() - self.sent)
        return self.speak()


# ---- figures -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Figure:
    """One line of the table: a median, its ratio to `to`, and the quartiles of that ratio."""

    row: str
    name: str
    value: float
    unit: str
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    to: str = ""

    @property
    def repeat(self) -> str:
        """The command that measures this row alone."""
        return f"python tests/bench.py --only {self.row}"


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """The lower quartile, the median and the upper quartile; one value is all three."""
    several = values if values[1:] else [*values, *values]
    low, middle, high = statistics.quantiles(several, n=4, method="inclusive")
    return low, middle, high


def compared(
    row: str, what: str, unit: str, rounds: Mapping[str, Sequence[float]], to: str
) -> list[Figure]:
    """A figure for each contestant: its ratio to one of them, taken round by round."""
    figures = []
    for name, values in rounds.items():
        ratios = [mine / base for mine, base in zip(values, rounds[to], strict=True)]
        low, ratio, high = quartiles(ratios)
        value = statistics.median(values)
        figures.append(Figure(row, f"{what}{name}", value, unit, ratio, low, high, to))
    return figures


def written(figures: Sequence[Figure]) -> str:
    """The table, a paragraph for each row."""
    lines, row = [], ""
    for figure in figures:
        if figure.row != row:
            row = figure.row
            lines += ["", (ROWS[row].__doc__ or "").rstrip("."), f"    {figure.repeat}"]
        ratio = f"{figure.ratio:8.2f} x" if figure.ratio is not None else " " * 10
        spread = f"{figure.low:.2f}-{figure.high:.2f}" if figure.low is not None else ""
        digits = 0 if figure.value == int(figure.value) or figure.value >= 1000 else 2
        value = f"{figure.value:,.{digits}f} {figure.unit}"
        lines.append(f"  {figure.name:<64}{ratio}  {spread:<12} {value:>14}")
    return "\n".join(lines[1:])


# ---- the bench ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Size:
    """The size of a measurement: rounds of each kind, and calls in a round."""

    cold: int = 15
    warm: int = 45  # many and short: what else a machine does weighs on all contestants alike
    warm_calls: int = 16
    busy: int = 7
    busy_calls: int = 400
    crowd: int = 3
    crowd_calls: int = 192
    memory_calls: int = 10_000


QUICK: Final = Size(1, 2, 4, 2, 40, 1, 64, 100)


class LeftOut(Exception):
    """A row cannot be measured on this machine, and why."""


def production(folder: Path) -> Path:
    """The folder of a `python` with the packages of requirements.txt, and none of the tests'."""
    venv.create(folder)
    packages = next(folder.glob("lib/python*/site-packages"))
    waiting, known = (ROOT / "requirements.txt").read_text().splitlines(), set[str]()
    for line in waiting:
        wish = Requirement(line) if line and not line.startswith("#") else None
        if not wish or (wish.marker and not wish.marker.evaluate({"extra": ""})):
            continue
        if (name := canonicalize_name(wish.name)) not in known:
            known.add(name)
            waiting += metadata.requires(name) or []
            place(metadata.distribution(name), packages)
    return folder / "bin"


def place(package: metadata.Distribution, folder: Path) -> None:
    """Link what a package consists of, which stays where it is, into a folder."""
    for top in {file.parts[0] for file in package.files or ()} - {"..", "__pycache__"}:
        with suppress(FileExistsError):  # a folder may be shared by several packages
            (folder / top).symlink_to(Path(str(package.locate_file(top))))


@dataclass
class Bench:
    """A place to run in, its contestants compiled, and how much to measure."""

    folder: Path
    size: Size = field(default_factory=Size)
    say: Callable[[str], object] = lambda _: None

    def __post_init__(self) -> None:
        sources = {"hello": HELLO, "stateless": STATELESS, LEAST: TRIPS, "naive": NAIVE}
        for name, source in sources.items():
            (self.folder / name).mkdir()
            (self.folder / name / "main.py").write_text(source)
        self.bin = production(self.folder / "production")
        self.fixed = {
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "HOME": str(self.folder),
            "PYTHONPYCACHEPREFIX": str(self.folder / "bytecode"),
            "TWILIO_AUTH_TOKEN": TOKEN,
            "PUBLIC_URL": ORIGIN,
            "FORWARD_TO": "+15550100099",
            "STATE_FILE": str(self.folder / "calls.sqlite3"),
        }
        self.build_line(self.folder / "line")

    def build_line(self, folder: Path) -> None:
        """Copy what is deployed, and compile it as the build does; how it is started then."""
        without_bytecode = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "phone_line", folder / "phone_line", ignore=without_bytecode)
        shutil.copy(ROOT / "main.py", folder)
        recipe = tomllib.loads((ROOT / "nixpacks.toml").read_text())
        compiling = recipe["phases"]["build"]["cmds"][0]
        subprocess.run(["/bin/sh", "-c", compiling], cwd=folder, env=self.fixed, check=True)
        self.deployed = ("/bin/sh", "-c", recipe["start"]["cmd"])

    def serve(self, name: str, command: Sequence[str] = SERVER, **env: str) -> Server:
        """A contestant's process; bytecode is kept in the bench's own folder."""
        return Server(command, self.folder / name, self.fixed | env)

    def install_express(self) -> None:
        """Fetch the contestant on Node. Raises LeftOut where Node or npm's registry is missing."""
        if not shutil.which("node") or not shutil.which("npm"):
            raise LeftOut("Node is not installed: apt-get install nodejs npm")
        folder = self.folder / "express"
        folder.mkdir()
        (folder / "server.mjs").write_text(EXPRESS)
        fetching = ["npm", "install", "--no-audit", "--no-fund", "--silent", *PACKAGES]
        try:
            subprocess.run(fetching, cwd=folder, check=True, capture_output=True, timeout=PATIENCE)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
            raise LeftOut(f"npm could not install {', '.join(PACKAGES)}") from None

    def rounds(self, row: str, count: int) -> Iterator[int]:
        """Counts the rounds of a row, and says so."""
        for number in range(count):
            self.say(f"{row}: round {number + 1} of {count}")
            yield number

    def certificate(self) -> Path:
        """A certificate for the loopback, in a folder of authorities as a Linux system has it."""
        folder = self.folder / "authorities"
        folder.mkdir(exist_ok=True)
        key, own = self.folder / "key.pem", self.folder / "own.pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
             "-nodes", "-days", "2", "-subj", "/CN=bench", "-addext", "subjectAltName=IP:127.0.0.1",
             "-keyout", key, "-out", own],
            check=True, capture_output=True,
        )  # fmt: skip
        look = ["openssl", "x509", "-hash", "-noout", "-in", str(own)]
        name = subprocess.run(look, check=True, capture_output=True, text=True).stdout.strip()
        certificate = folder / f"{name}.0"
        certificate.write_text(key.read_text() + own.read_text())
        return certificate


def cold(bench: Bench) -> list[Figure]:
    """Cold start: from the start of the process to the first signed webhook answered."""
    with ExitStack() as stack:
        redis = stack.enter_context(Redis()).settings
        secure = stack.enter_context(Redis(certificate=bench.certificate())).settings
        starts: dict[str, Callable[[], Server]] = {
            "hello": lambda: bench.serve("hello"),
            "naive": lambda: bench.serve("naive", **redis),
            "line, embedded file": lambda: bench.serve("line"),
            "line": lambda: bench.serve("line", **redis),
            "line, as deployed": lambda: bench.serve("line", bench.deployed, **redis),
            "line, as deployed, Redis over TLS": lambda: bench.serve(
                "line", bench.deployed, **secure
            ),
        }
        for start in starts.values():
            first_answer(start)  # writes the bytecode
        rounds: dict[str, list[float]] = {"bare interpreter": [], **{name: [] for name in starts}}
        for _ in bench.rounds("cold", bench.size.cold):
            rounds["bare interpreter"].append(bare())
            for name, start in starts.items():
                rounds[name].append(first_answer(start))
    return compared("cold", "", "ms", rounds, "hello")


def bare() -> float:
    """Milliseconds of an interpreter that does nothing."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    return (time.perf_counter() - began) * 1000


def first_answer(start: Callable[[], Server]) -> float:
    """Milliseconds from a process's start to its first answer."""
    with start() as server:
        return until_answered(server)


def until_answered(server: Server) -> float:
    """Milliseconds from the start of a process that has just been started to its first answer."""
    with server.connect() as connection:
        exchange(connection, RINGING.signed(new_sid()))
    return (time.perf_counter() - server.began) * 1000


def imports(bench: Bench) -> list[Figure]:
    """The imports of a cold start, by module, as a share of the whole start (-X importtime)."""
    shares: dict[str, list[float]] = {}
    with Redis() as redis:
        env = {"PYTHONPROFILEIMPORTTIME": "1", **redis.settings}
        first_answer(lambda: bench.serve("line", **env))  # writes the bytecode
        for _ in bench.rounds("imports", max(1, bench.size.cold // 3)):
            with bench.serve("line", **env) as server:
                took = until_answered(server)
            spent = import_times(server.output.read_text())
            spent["all imports"] = sum(spent.values())
            for name, milliseconds in spent.items():
                shares.setdefault(name, []).append(milliseconds / took * 100)
    medians = {name: statistics.median(values) for name, values in shares.items()}
    top = sorted(medians, key=lambda name: -medians[name])[:16]
    return [Figure("imports", name, medians[name], "%") for name in top]


def import_times(report: str) -> dict[str, float]:
    """Milliseconds of each top-level package, its own modules only, without what they import."""
    spent: dict[str, float] = {}
    for own, name in re.findall(r"import time: +(\d+) \| +\d+ \| +(\S+)", report):
        top = name.partition(".")[0]
        spent[top] = spent.get(top, 0.0) + int(own) / 1000
    return spent


def contestants(bench: Bench, stack: ExitStack, redis: Redis) -> dict[str, Server]:
    """Those that answer webhooks, warm and reachable."""
    servers = {
        name: stack.enter_context(bench.serve(name, THREADS=THREADS, **redis.settings))
        for name in ("stateless", LEAST, "naive", "line")
    }
    for server in servers.values():
        server.connect().close()
    return servers


def calls_of(script: Sequence[Webhook], count: int) -> list[list[bytes]]:
    """Calls with every signature made beforehand."""
    sids = [new_sid() for _ in range(count)]
    return [[webhook.signed(sid) for webhook in script] for sid in sids]


def percentile(values: Sequence[float], share: float) -> float:
    """The value, in milliseconds, below which that share of the values lies."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] * 1000


def warm(bench: Bench) -> list[Figure]:
    """A warm webhook, one caller: p50 and p99 of those after a call's first."""
    middle: dict[str, list[float]] = {}
    worst: dict[str, list[float]] = {}
    with ExitStack() as stack:
        redis = stack.enter_context(Redis())
        servers = contestants(bench, stack, redis)
        script = learn(servers["line"])
        for server in servers.values():
            play(server, calls_of(script, 20), 1)
        for _ in bench.rounds("warm", bench.size.warm):
            for name, server in servers.items():
                later = spoken_later(server, calls_of(script, bench.size.warm_calls))
                middle.setdefault(name, []).append(percentile(later, 0.5))
                worst.setdefault(name, []).append(percentile(later, 0.99))
    least = {name: middle[name] for name in (LEAST, "line")}
    return [
        *compared("warm", "p50 ", "ms", middle, "stateless"),
        *compared("warm", f"p50 against {LEAST}: ", "ms", least, LEAST)[1:],
        *compared("warm", "p99 ", "ms", worst, "stateless"),
    ]


def spoken_later(server: Server, calls: list[list[bytes]]) -> list[float]:
    """Seconds of each webhook but the first of each call: a line's take two round trips each."""
    return [seconds for call in play(server, calls, 1) for seconds in call[1:]]


def busy(bench: Bench) -> list[Figure]:
    """Throughput: 32 callers at once, Redis without latency."""
    rounds: dict[str, list[float]] = {}
    with ExitStack() as stack:
        servers = contestants(bench, stack, stack.enter_context(Redis()))
        script = learn(servers["line"])
        for server in servers.values():
            play(server, calls_of(script, 40), 32)
        for _ in bench.rounds("busy", bench.size.busy):
            for name, server in servers.items():
                calls = calls_of(script, bench.size.busy_calls)
                rounds.setdefault(name, []).append(rate(server, calls, 32)[0])
    return compared("busy", "", "webhooks/s", rounds, "naive")


def rate(
    servers: Server | Sequence[Server], calls: list[list[bytes]], callers: int
) -> tuple[float, list[float]]:
    """Webhooks a second, and the seconds that each of them took."""
    began = time.perf_counter()
    spoken = play(servers, calls, callers)
    flat = [seconds for call in spoken for seconds in call]
    return len(flat) / (time.perf_counter() - began), flat


def instances(bench: Bench) -> list[Figure]:
    """1, 2 and 4 instances over one store: 32 callers, whose webhooks meet them in turn."""
    rates: dict[str, list[float]] = {}
    slowest: dict[str, list[float]] = {}
    with ExitStack() as stack:
        redis = stack.enter_context(Redis()).settings
        servers = [stack.enter_context(bench.serve("line", **redis)) for _ in range(4)]
        script = learn(servers[0])
        play(servers, calls_of(script, 80), 32)
        for _ in bench.rounds("instances", bench.size.busy):
            for count in (1, 2, 4):
                calls = calls_of(script, bench.size.busy_calls)
                found, seconds = rate(servers[:count], calls, 32)
                rates.setdefault(f"{count}", []).append(found)
                slowest.setdefault(f"{count}", []).append(max(seconds) * 1000)
    return [
        *compared("instances", "", "webhooks/s", rates, "1"),
        *compared("instances", "the slowest: ", "ms", slowest, "1"),
    ]


def hold(bench: Bench) -> list[Figure]:
    """New calls at an instance of 8 threads, while others wait on hold for a backend."""
    rounds: dict[str, list[float]] = {}
    with ExitStack() as stack:
        redis = stack.enter_context(Redis()).settings
        silent = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=512))
        backend = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        env = {"THREADS": "8", "RESPONSE_DEADLINE": "1", "BACKEND_URL": backend, **redis}
        free, full = (stack.enter_context(bench.serve("line", **env)) for _ in range(2))
        for server in (free, full):
            play(server, calls_of([RINGING], 100), 8)
        bench.say(f"hold: {HELD} callers speak")
        play(full, calls_of(learn(full), HELD), HELD)  # ends when all of them are told to wait
        servers = {"nobody on hold": free, f"{HELD} callers on hold": full}
        for _ in bench.rounds("hold", bench.size.busy):
            for name, server in servers.items():
                calls = calls_of([RINGING], bench.size.busy_calls)
                rounds.setdefault(name, []).append(rate(server, calls, 8)[0])
    return compared("hold", "", "webhooks/s", rounds, "nobody on hold")


def commands(bench: Bench) -> list[Figure]:
    """Redis: what each webhook of a call costs in commands and round trips, and in money."""
    bench.say("commands: one call")
    with Redis() as redis, bench.serve("line", **redis.settings) as server:
        script = [*learn(server), OVER]
        before, spent, call_sid = redis.report(), list[Counter[str]](), new_sid()
        with server.connect() as connection:
            for webhook in script:
                exchange(connection, webhook.signed(call_sid))
                now = redis.report()
                spent.append(Counter({name: now[name] - before[name] for name in now}))
                before = now
    total = sum(spent, Counter[str]())
    return [
        *(
            Figure("commands", webhook.target, cost["commands"], "commands")
            for webhook, cost in zip(script, spent, strict=True)
        ),
        Figure("commands", "a call", total["commands"], "commands"),
        Figure("commands", "a call", total["round_trips"], "round trips"),
        Figure("commands", "a cell", total["bytes"] / total["cells"], "bytes"),
        Figure("commands", "1,000 calls", total["commands"] * 1000 * DOLLARS * 100, "cents"),
    ]


def threads(bench: Bench) -> list[Figure]:
    """64 callers at once, Redis 20 ms away, by the number of server threads."""
    speed, wait = dict[str, list[float]](), dict[str, list[float]]()
    with ExitStack() as stack:
        redis = stack.enter_context(Redis(latency=0.02)).settings
        servers = {"as main.py sets it": stack.enter_context(bench.serve("line", **redis))}
        for count in COUNTS:
            servers[count] = stack.enter_context(bench.serve("line", THREADS=count, **redis))
        script = learn(servers["as main.py sets it"])
        for server in servers.values():
            play(server, calls_of(script, 64), 64)
        for _ in bench.rounds("threads", bench.size.crowd):
            for name, server in servers.items():
                calls = calls_of(script, bench.size.crowd_calls)
                webhooks, took = rate(server, calls, 64)
                speed.setdefault(name, []).append(webhooks)
                wait.setdefault(name, []).append(percentile(took, 0.99))
    return [
        *compared("threads", "THREADS ", "webhooks/s", speed, "as main.py sets it"),
        *compared("threads", "p99, THREADS ", "ms", wait, "as main.py sets it"),
    ]


def memory(bench: Bench) -> list[Figure]:
    """Memory of the worker (RSS): at rest, and as calls go by."""
    total = bench.size.memory_calls
    marks = [total // 10, total // 2, total]
    with ExitStack() as stack:
        redis = stack.enter_context(Redis()).settings
        server = stack.enter_context(bench.serve("line", **redis))
        hello = stack.enter_context(bench.serve("hello"))
        with hello.connect() as connection:
            exchange(connection, RINGING.signed(new_sid()))
        script, done = [*learn(server), OVER], 0
        sizes = {"hello, at rest": hello.memory(), "line, at rest": server.memory()}
        for mark in marks:
            bench.say(f"memory: {done} of {total} calls")
            play(server, calls_of(script, mark - done), 32)
            done = mark
            sizes[f"line, after {done:,} calls"] = server.memory()
    rounds = {name: [size / 2**20] for name, size in sizes.items()}
    return compared("memory", "", "MiB", rounds, f"line, after {marks[0]:,} calls")


def express(bench: Bench) -> list[Figure]:
    """Beside Express 5 with @upstash/redis, by WORKERS: a start, one caller, 32 callers, memory."""
    bench.say("express: npm install")
    bench.install_express()
    with ExitStack() as stack:
        redis = stack.enter_context(Redis()).settings

        def start(name: str, workers: int) -> Server:
            command = NODE if name == "express" else bench.deployed
            return bench.serve(name, command, WORKERS=str(workers), **redis)

        starts: dict[str, Callable[[], Server]] = {
            f"{name}, WORKERS={workers}": partial(start, name, workers)
            for workers in (1, 2)
            for name in ("express", "line")
        }
        figures = starts_compared(bench, starts)
        servers = {name: stack.enter_context(begin()) for name, begin in starts.items()}
        return figures + crowds_compared(bench, servers)


def starts_compared(bench: Bench, starts: Mapping[str, Callable[[], Server]]) -> list[Figure]:
    """Milliseconds from a process's start to its first answer."""
    rounds: dict[str, list[float]] = {name: [] for name in starts}
    for begin in starts.values():
        first_answer(begin)
    for _ in bench.rounds("express, start", bench.size.cold):
        for name, begin in starts.items():
            rounds[name].append(first_answer(begin))
    return compared("express", "start: ", "ms", rounds, next(iter(starts)))


def crowds_compared(bench: Bench, servers: Mapping[str, Server]) -> list[Figure]:
    """One caller's milliseconds, the webhooks a second of 32 callers, and memory after that."""
    one: dict[str, list[float]] = {name: [] for name in servers}
    many: dict[str, list[float]] = {name: [] for name in servers}
    script = learn(servers["line, WORKERS=1"])
    for server in servers.values():
        play(server, calls_of(script, 40), 32)
    for _ in bench.rounds("express, callers", bench.size.busy):
        for name, server in servers.items():
            later = spoken_later(server, calls_of(script, bench.size.warm_calls))
            one[name].append(percentile(later, 0.5))
            many[name].append(rate(server, calls_of(script, bench.size.busy_calls), 32)[0])
    sizes = {name: [server.whole_memory() / 2**20] for name, server in servers.items()}
    base = next(iter(servers))
    return [
        *compared("express", "one caller, p50: ", "ms", one, base),
        *compared("express", "32 callers: ", "webhooks/s", many, base),
        *compared("express", "memory, all processes: ", "MiB", sizes, base),
    ]


Row = Callable[[Bench], list[Figure]]
ROWS: Final[Mapping[str, Row]] = {
    row.__name__: row
    for row in (cold, imports, warm, busy, instances, hold, commands, threads, memory, express)
}


def measure(names: Sequence[str], size: Size, say: Callable[[str], object]) -> list[Figure]:
    """The figures of these rows, in a folder that is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    try:
        bench = Bench(folder, size, say)
        figures: list[Figure] = []
        for name in names:
            try:
                figures += ROWS[name](bench)
            except LeftOut as reason:
                say(f"{name}: left out. {reason}\n")
        return figures
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def progress(line: str) -> None:
    """One line on stderr; on a terminal always the same one."""
    end = "\r" if sys.stderr.isatty() else "\n"
    print(f"{line:<60}", end=end, file=sys.stderr, flush=True)


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--only", action="append", choices=ROWS, help="this row; may be repeated")
    parser.add_argument("--quick", action="store_true", help="a few seconds a row, rough figures")
    parser.add_argument("--json", action="store_true", help="figures instead of a table")
    parser.add_argument("--stand-in", nargs=2, help=argparse.SUPPRESS)
    wish = parser.parse_args()
    if wish.stand_in:
        asyncio.run(stand_in(float(wish.stand_in[0]), wish.stand_in[1]))
    figures = measure(wish.only or list(ROWS), QUICK if wish.quick else Size(), progress)
    if wish.json:
        print(json.dumps([asdict(figure) | {"repeat": figure.repeat} for figure in figures]))
    else:
        print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}\n\n{written(figures)}")


if __name__ == "__main__":
    main()
