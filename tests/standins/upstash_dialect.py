"""The dialect of Upstash's REST API: requests become commands, and replies become an answer."""

import json
from base64 import b64encode
from collections.abc import Mapping
from contextlib import suppress
from io import BufferedIOBase
from typing import Final, NamedTuple
from urllib.parse import parse_qsl, unquote

from standins.redis_server import Failure, Reply

Command = list[str]

# Connection, blocking and subscription commands, which Upstash does not take over REST. They would
# also spoil the one connection to Redis that all clients share.
REFUSED: Final = frozenset(
    {"AUTH", "HELLO", "SELECT", "CLIENT", "QUIT", "RESET", "MONITOR", "SYNC", "SHUTDOWN", "WAIT"}
    | {"MULTI", "EXEC", "DISCARD", "WATCH", "UNWATCH", "SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE"}
    | {"BLPOP", "BRPOP", "BLMOVE", "BLMPOP", "BRPOPLPUSH", "BZPOPMIN", "BZPOPMAX", "BZMPOP"}
)
METHODS: Final = ("HEAD", "GET", "POST", "PUT")
REASONS: Final = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    405: "Method Not Allowed",
    502: "Bad Gateway",
}
BATCHES: Final = ("/pipeline", "/multi-exec")


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


def unavailable(command: Command) -> Failure | None:
    if command[0].upper() not in REFUSED:
        return None
    where = "https://upstash.com/docs/redis/overall/compatibility"
    return Failure(f"ERR Command is not available: '{command[0].upper()}'. See {where} for details")
