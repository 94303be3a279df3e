"""HTTP with one deadline: DNS, connecting, TLS, headers and body end by the same moment.

httpx and requests limit every wait alone: a server that sends a byte a second outlasts each of
their time-outs, and nothing limits DNS. A caller on the phone waits for all of it.

    endpoint = Endpoint("https://example.upstash.io", {"Authorization": "Bearer ..."})
    answer = endpoint.post(b'["GET","a"]', until=time.monotonic() + 2)

Rules of this room:
- A request is sent once. Only whoever calls knows if it may be repeated.
- Whatever fails is an OSError or an HTTPException; being out of time is a TimeoutError.
- A connection is used again only if its last answer was read to the end and nothing came since.
  After a stray answer, or a 408 to an idle connection, every answer would belong to the request
  before.
"""

import math
import socket
import time
from base64 import b64encode
from collections.abc import Mapping
from http.client import HTTPException, IncompleteRead
from typing import Final, Self
from urllib.parse import SplitResult, quote, unquote, urlsplit

from phone_line.connection import AddressCheck, Server, connect, is_silent, send_all
from phone_line.deadline import Moment, in_background, seconds_left
from phone_line.http_answer import AnswerReader, HttpAnswer, read_answer

__all__ = [
    "Endpoint",
    "HttpAnswer",
    "Moment",
    "Stream",
    "in_background",
    "open_stream",
    "seconds_left",
]

KEPT: Final = 240  # seconds that an idle connection is used again: a call's turns are often a
# minute apart, and load balancers forget a silent connection after some minutes
PORTS: Final = {"http": 80, "https": 443}
AS_IT_IS: Final = "/?%:@!$&'()*+,;=~[]"  # signs that a request's first line takes unquoted
NO_HEADERS: Final[Mapping[str, str]] = {}


class Endpoint:
    """One URL that takes POSTs, and the connections to its server that are kept."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        """Prepare what all requests share; the body is JSON unless a Content-Type says otherwise.

        A login in the URL (`https://user:password@host/`) is sent as HTTP Basic, unless there is
        an Authorization header. Raises ValueError for what is no URL, or no header.
        """
        parts = read_url(url)
        self.server = server_of(parts)
        self.head = request_head("POST", parts, {"Content-Type": "application/json", **headers})
        self.idle: list[tuple[Moment, socket.socket]] = []  # the last used is the last

    def post(
        self, body: bytes, until: Moment, headers: Mapping[str, str] = NO_HEADERS
    ) -> HttpAnswer:
        """Send one request, once. `headers` are added to those of the endpoint.

        Raises OSError or HTTPException when there is no whole answer before the moment.
        """
        seconds_left(until)  # raises, before a connection is spent
        head = f"{self.head}{header_lines(headers)}Content-Length: {len(body)}\r\n\r\n"
        request = head.encode() + body
        sock = self.take_idle() or connect(self.server, until)
        keep = False
        try:
            send_all(sock, request, until)
            answer, keep = read_answer(sock, until)
        except (OSError, HTTPException):
            self.close()  # what broke this connection may have broken the others
            raise
        finally:
            if keep:
                self.idle.append((time.monotonic(), sock))
            else:
                sock.close()
        return answer

    def take_idle(self) -> socket.socket | None:
        """Take the connection that was used last among those kept, if one is still good."""
        while self.idle:
            try:
                last_used, sock = self.idle.pop()
            except IndexError:  # another thread was quicker
                return None
            is_fresh = time.monotonic() < last_used + KEPT
            if is_fresh and is_silent(sock):
                return sock
            sock.close()
        return None

    def close(self) -> None:
        """Hang up all connections that are kept."""
        while True:
            try:
                self.idle.pop()[1].close()
            except IndexError:
                return

    def __del__(self) -> None:
        if hasattr(self, "idle"):  # it is not there if the URL was none
            self.close()


class Stream:
    """An answer of any size that is read piece by piece, over a connection of its own."""

    def __init__(self, sock: socket.socket, until: Moment) -> None:
        self.sock = sock
        self.reader = AnswerReader(sock, until)
        self.reader.source.most = math.inf  # whoever reads it decides how much is too much
        self.status = self.reader.status
        self.headers: Mapping[str, str] = self.reader.fields

    def read(self, size: int, until: Moment) -> bytes:
        """Read at most so many bytes, as soon as there are some; b"" is the end of the answer.

        Raises OSError or HTTPException, also when the answer breaks off.
        """
        self.reader.source.until = until
        piece = self.reader.read1(size)
        if not piece and self.reader.length:
            raise IncompleteRead(b"", self.reader.length)
        return piece

    def close(self) -> None:
        """Hang up."""
        self.sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_stream(
    url: str, headers: Mapping[str, str], until: Moment, check_address: AddressCheck | None = None
) -> Stream:
    """GET a URL and read the head of the answer; the body is read from the stream.

    `check_address` is handed each IP address of the host as text and raises OSError to refuse it;
    the connection goes to the very address that was checked. A redirect is an answer like any
    other. Raises OSError, HTTPException, or ValueError for what is no URL.
    """
    parts = read_url(url)
    fixed = {"Accept-Encoding": "identity", "Connection": "close"}
    request = request_head("GET", parts, {**fixed, **headers}) + "\r\n"
    sock = connect(server_of(parts), until, check_address)
    try:
        send_all(sock, request.encode(), until)
        return Stream(sock, until)
    except BaseException:
        sock.close()
        raise


def read_url(url: str) -> SplitResult:
    """Take a URL apart. Raises ValueError unless it is http(s) with a host."""
    parts = urlsplit(url)
    if parts.scheme not in PORTS or not parts.hostname or parts.port == 0:
        raise ValueError("expected http:// or https:// and a host")
    return parts


def server_of(url: SplitResult) -> Server:
    """Tell where a URL's server is."""
    port = url.port or PORTS[url.scheme]
    return Server(url.hostname or "", port, secure=url.scheme == "https")


def request_head(method: str, url: SplitResult, headers: Mapping[str, str]) -> str:
    """Write the lines of a request that are the same each time."""
    target = (url.path or "/") + (f"?{url.query}" if url.query else "")
    fixed = {"Host": url.netloc.rpartition("@")[2], "User-Agent": "phone-line"}
    if url.username is not None and "authorization" not in map(str.lower, headers):
        login = f"{unquote(url.username)}:{unquote(url.password or '')}"
        fixed["Authorization"] = f"Basic {b64encode(login.encode()).decode()}"
    first_line = f"{method} {quote(target, AS_IT_IS)} HTTP/1.1\r\n"
    return first_line + header_lines({**fixed, **headers})


def header_lines(headers: Mapping[str, str]) -> str:
    """Write headers. Raises ValueError for a line end in one, which would begin another."""
    if not headers:
        return ""
    lines = [f"{name}: {value}\r\n" for name, value in headers.items()]
    written = "".join(lines)
    if written.count("\r") != len(lines) or written.count("\n") != len(lines):
        raise ValueError("a header has one line")
    return written
