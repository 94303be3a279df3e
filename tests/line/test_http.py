"""HTTP under one deadline: an answer is read as HTTP, a request is sent once, and all ends in time.

The servers are sockets that say what a test wrote down, byte for byte, and keep what they were
asked. One connection is one thread; a script of answers is used up over all connections.
"""

import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from typing import Final

import pytest
import trustme

from phone_line.connection import Server, connect, reach_any, tls_context
from phone_line.deadline import MOST_THREADS, in_background, seconds_left
from phone_line.http import KEPT, Endpoint, open_stream
from phone_line.http_answer import LARGEST_ANSWER, MOST_INTERIM
from standins.timing import LATE

OK: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
HI: Final = OK + b"hi"
BYE: Final = b""  # in a script: hang up without an answer
SILENCE: Final = None  # in a script: never answer


class Scripted:
    """A server that answers each request with the next piece of a script, and then with silence."""

    def __init__(self, script: list[bytes | None], tls: ssl.SSLContext | None = None) -> None:
        self.script, self.tls = script, tls
        self.requests: list[bytes] = []
        self.connections: list[socket.socket] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://localhost:{self.port}/path"

    def __enter__(self) -> "Scripted":
        threading.Thread(target=self.accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.listener.close()
        for each in self.connections:
            each.close()

    def accept(self) -> None:
        with suppress(OSError):
            while True:
                sock, _ = self.listener.accept()
                threading.Thread(target=self.serve, args=(sock,), daemon=True).start()

    def serve(self, sock: socket.socket) -> None:
        with suppress(OSError):
            if self.tls:
                sock = self.tls.wrap_socket(sock, server_side=True)
            self.connections.append(sock)
            while request := read_request(sock):
                self.requests.append(request)
                piece = self.script.pop(0) if self.script else SILENCE
                if piece is SILENCE:
                    continue
                if piece == BYE:
                    break
                sock.sendall(piece)
                if b"Content-Length" not in piece and b"chunked" not in piece.lower():
                    break
        sock.close()


def read_request(sock: socket.socket) -> bytes:
    """Read one request; nothing if the client is done."""
    request = b""
    while b"\r\n\r\n" not in request:
        piece = sock.recv(65_536)
        if not piece:
            return b""
        request += piece
    head, _, body = request.partition(b"\r\n\r\n")
    length = int(header_of(head, "Content-Length") or 0)
    while len(body) < length:
        body += sock.recv(65_536)
    return head + b"\r\n\r\n" + body


def header_of(request: bytes, name: str) -> str:
    """Find a header in a request; empty if it has none."""
    lines = request.partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
    found = dict(line.split(": ", 1) for line in lines)
    return found.get(name, "")


def soon(seconds: float = 5) -> float:
    """A moment that is far enough away for anything on this machine."""
    return time.monotonic() + seconds


def eventually(condition: Callable[[], object]) -> bool:
    """Wait for something that a thread brings about."""
    end = soon()
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    return bool(condition())


@contextmanager
def serving(*script: bytes | None) -> Iterator[tuple[Scripted, Endpoint]]:
    """A server with a script, and an endpoint that leads to it."""
    with Scripted(list(script)) as server:
        endpoint = Endpoint(server.url, {})
        yield server, endpoint
        endpoint.close()


# An answer is read as HTTP.

CHUNKED: Final = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
WELL: Final[dict[str, tuple[bytes, tuple[int, bytes, bool]]]] = {
    "a body of a length": (HI, (200, b"hi", True)),
    "small letters": (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi", (200, b"hi", True)),
    "an empty body": (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", (200, b"", True)),
    "chunks": (CHUNKED + b"2;x=y\r\nhi\r\n1\r\n!\r\n0\r\n\r\n", (200, b"hi!", True)),
    "chunks and a trailer": (CHUNKED + b"2\r\nhi\r\n0\r\nA: b\r\n\r\n", (200, b"hi", True)),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", (204, b"", True)),
    "a body up to the end": (b"HTTP/1.1 200 OK\r\n\r\nhi", (200, b"hi", False)),
    "the older HTTP": (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", (200, b"hi", False)),
    "a goodbye": (
        b"HTTP/1.1 502 Bad Gateway\r\nConnection: Close\r\nContent-Length: 2\r\n\r\nno",
        (502, b"no", False),
    ),
    "bare line ends": (b"HTTP/1.1 200 OK\nContent-Length: 2\n\nhi", (200, b"hi", True)),
    "interim answers": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"
        b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n" + HI,
        (200, b"hi", True),
    ),
    "no reason": (b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nhi", (200, b"hi", True)),
}

ILL: Final[dict[str, bytes]] = {
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n",
    "an odd status": b"HTTP/1.1 999 What\r\n\r\n",
    "headers cut off": b"HTTP/1.1 200 OK\r\nA: b\r\n",
    "no header": b"HTTP/1.1 200 OK\r\nwords\r\n\r\n",
    "headers without end": b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200,
    "a header without end": b"HTTP/1.1 200 OK\r\nA: " + b"b" * 3 * LARGEST_ANSWER,
    "interim answers without end": b"HTTP/1.1 100 Continue\r\n\r\n" * (MOST_INTERIM + 1) + HI,
    "a body cut off": b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhi",
    "chunks cut off": b"HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n5\r\nhi",
    "no chunk": CHUNKED + b"zz\r\nhi\r\n0\r\n\r\n",
    "a negative chunk": CHUNKED + b"-2\r\nhi\r\n",
    "a chunk larger than memory": CHUNKED + b"fffffffffffffff\r\nhi\r\n",
    "no length": b"HTTP/1.1 200 OK\r\ncontent-length: two\r\n\r\nhi",
    "a negative length": b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\nhi",
    "too much of a length": b"HTTP/1.1 200 OK\r\ncontent-length: 9999999\r\n\r\n"
    + b"x" * (LARGEST_ANSWER + 9),
    "too much without a length": b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (LARGEST_ANSWER + 9),
    "too much in chunks": CHUNKED + (b"80000\r\n" + b"x" * 0x80000 + b"\r\n") * 3,
}


@pytest.mark.parametrize("name", WELL)
def test_an_answer_is_read(name: str) -> None:
    """Status, body and if the connection can be kept, in every form that servers use."""
    raw, expected = WELL[name]
    with serving(raw) as (_, endpoint):
        answer = endpoint.post(b"{}", soon())
        assert (answer.status, answer.body, len(endpoint.idle) == 1) == expected


@pytest.mark.parametrize("name", ILL)
def test_what_is_no_answer_is_an_error(name: str) -> None:
    """Anything that is no whole answer, or more than anybody needs, is the network's fault."""
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        pool.submit(say_and_close, listener, ILL[name])
        endpoint = Endpoint(f"http://127.0.0.1:{listener.getsockname()[1]}/", {})
        with pytest.raises((HTTPException, ConnectionError)):
            endpoint.post(b"{}", soon())
        assert endpoint.idle == []


def say_and_close(listener: socket.socket, words: bytes) -> None:
    """Answer one request, however much of it is listened to."""
    sock, _ = listener.accept()
    with sock, suppress(OSError):
        read_request(sock)
        sock.sendall(words)


def test_headers_are_found_by_their_names_in_small_letters() -> None:
    """What a server says beside the body can be looked up, spaces around it taken away."""
    raw = b"HTTP/1.1 429 Wait\r\nRETRY-after:   7 \r\nContent-Length: 0\r\n\r\n"
    with serving(raw) as (_, endpoint):
        assert endpoint.post(b"", soon()).headers["retry-after"] == "7"


# What is sent.


def test_a_request_has_what_all_share_and_what_is_its_own() -> None:
    """Target, host, headers of the endpoint and of the request, length and body, in one piece."""
    with Scripted([HI]) as server:
        endpoint = Endpoint(f"http://127.0.0.1:{server.port}/ask/it?a=b%20c&d=ü", {"X-A": "1"})
        endpoint.post("é".encode(), soon(), {"Idempotency-Key": "CA1:2"})
        endpoint.close()
    first, *lines, _, body = server.requests[0].split(b"\r\n")
    assert first == b"POST /ask/it?a=b%20c&d=%C3%BC HTTP/1.1"
    assert body == "é".encode()
    assert sorted(lines) == [
        b"Content-Length: 2",
        b"Content-Type: application/json",
        f"Host: 127.0.0.1:{server.port}".encode(),
        b"Idempotency-Key: CA1:2",
        b"User-Agent: phone-line",
        b"X-A: 1",
    ]


@pytest.mark.parametrize(
    ("login", "headers", "expected"),
    [
        ("ann:b%3Ac%40d@", {}, "Basic YW5uOmI6Y0Bk"),
        ("ann@", {}, "Basic YW5uOg=="),
        ("ann:secret@", {"authorization": "Bearer t"}, ""),
        ("", {}, ""),
    ],
)
def test_a_login_in_the_url_is_sent(login: str, headers: dict[str, str], expected: str) -> None:
    """It becomes HTTP Basic, decoded, unless the operator set another Authorization."""
    with Scripted([HI]) as server:
        endpoint = Endpoint(f"http://{login}127.0.0.1:{server.port}/", headers)
        endpoint.post(b"", soon())
        endpoint.close()
    assert header_of(server.requests[0], "Authorization") == expected
    assert header_of(server.requests[0], "Host") == f"127.0.0.1:{server.port}"


@pytest.mark.parametrize("url", ["", "/path", "ftp://a/", "http://", "http:///x", "http://a:0/"])
def test_what_is_no_url_is_refused_at_once(url: str) -> None:
    """An address that leads nowhere is found when the line starts, not when it is called."""
    with pytest.raises(ValueError, match="expected"):
        Endpoint(url, {})


@pytest.mark.parametrize("value", ["a\r\nX-B: 1", "a\nb", "a\rb"])
def test_no_header_can_begin_another(value: str) -> None:
    """A line end in a value is refused, in what all requests share and in what one adds."""
    with pytest.raises(ValueError, match="one line"):
        Endpoint("http://127.0.0.1:9/", {"X-A": value})
    with pytest.raises(ValueError, match="one line"):
        Endpoint("http://127.0.0.1:9/", {}).post(b"", soon(), {"X-A": value})


# Connections are kept, and a request is sent once.


def test_one_connection_serves_many_requests() -> None:
    """A connection is used again, the one that was used last first."""
    with serving(HI, HI, HI) as (server, endpoint):
        for _ in range(3):
            endpoint.post(b"", soon())
        assert len(server.connections) == 1


@pytest.mark.parametrize("fault", [BYE, HI[:-1], b"rubbish"], ids=["closed", "cut off", "rubbish"])
def test_a_request_is_sent_once(fault: bytes) -> None:
    """A connection that breaks after a request was sent is an error: the backend was asked once."""
    with serving(HI, fault) as (server, endpoint):
        endpoint.post(b"first", soon())
        with pytest.raises((OSError, HTTPException)):
            endpoint.post(b"second", soon(0.3))
        assert len(server.requests) == 2


STRAY: Final = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 3\r\n\r\nold"


def test_an_answer_too_many_is_nobodys() -> None:
    """What comes in one piece with an answer and belongs to none ends the connection."""
    with serving(HI + STRAY, HI) as (server, endpoint):
        assert endpoint.post(b"", soon()).body == b"hi"
        assert endpoint.post(b"", soon()).body == b"hi"
        assert len(server.connections) == 2


@pytest.mark.parametrize("last_words", [STRAY, b""], ids=["408", "closed"])
def test_a_connection_that_spoke_while_idle_is_dead(last_words: bytes) -> None:
    """A time-out of the server, or its goodbye, is seen before the connection is used again."""
    with serving(HI, HI) as (server, endpoint):
        endpoint.post(b"", soon())
        server.connections[0].sendall(last_words)
        server.connections[0].shutdown(socket.SHUT_WR)
        time.sleep(0.05)
        assert endpoint.post(b"", soon()).body == b"hi"
        assert len(server.requests) == 2


def test_a_connection_that_was_reset_while_idle_is_dead() -> None:
    """A server that crashed says no goodbye; its reset is seen before the connection is used."""
    with serving(HI, HI) as (server, endpoint):
        endpoint.post(b"", soon())
        at_once = struct.pack("ii", 1, 0)  # to close is then to reset
        server.connections[0].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
        server.connections[0].shutdown(socket.SHUT_RD)  # its thread stops reading, and closes it
        assert eventually(lambda: server.connections[0].fileno() == -1)
        time.sleep(0.05)
        assert endpoint.post(b"", soon()).body == b"hi"
        assert len(server.requests) == 2


def test_an_old_connection_is_not_trusted() -> None:
    """Load balancers forget connections without a word, so one that idled for long is closed."""
    with serving(HI, HI) as (server, endpoint):
        endpoint.post(b"", soon())
        [(last_used, sock)] = endpoint.idle
        endpoint.idle[:] = [(last_used - KEPT, sock)]
        endpoint.post(b"", soon())
        assert len(server.connections) == 2
        assert sock.fileno() == -1


def test_what_broke_one_connection_may_have_broken_the_others() -> None:
    """After a time-out no other connection is trusted, so that a fault costs one attempt."""
    with serving(SILENCE, SILENCE, HI) as (server, endpoint):
        keep_connections(endpoint, server, 2)
        with pytest.raises(TimeoutError):
            endpoint.post(b"", soon(0.2))
        assert endpoint.idle == []


def test_a_goodbye_costs_no_other_connection() -> None:
    """An answer with Connection: close ends its own connection, and those that wait are kept."""
    goodbye = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi"
    with serving(goodbye) as (server, endpoint):
        keep_connections(endpoint, server, 2)
        endpoint.post(b"", soon())
        assert len(endpoint.idle) == 1


def test_without_time_no_connection_is_spent() -> None:
    """A request that comes too late is not sent, and those that wait are kept."""
    with serving() as (server, endpoint):
        keep_connections(endpoint, server, 1)
        with pytest.raises(TimeoutError):
            endpoint.post(b"", time.monotonic() - 1)
        assert len(endpoint.idle) == 1
        assert server.requests == []


def keep_connections(endpoint: Endpoint, server: Scripted, many: int) -> None:
    """Give an endpoint connections that it has not used yet."""
    for _ in range(many):
        endpoint.idle.append((time.monotonic(), connect(endpoint.server, soon())))
    assert eventually(lambda: len(server.connections) == many)


def test_many_at_once_get_their_own_answers() -> None:
    """Threads that share an endpoint never read each other's answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener, ExitStack() as opened:
        threading.Thread(target=echo_all, args=(listener, opened), daemon=True).start()
        endpoint = Endpoint(f"http://127.0.0.1:{listener.getsockname()[1]}/", {})
        bodies = [f"body {n}".encode() for n in range(200)]
        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda body: endpoint.post(body, soon()).body, bodies))
        assert answers == bodies
        assert len(endpoint.idle) <= 16
        endpoint.close()


def echo_all(listener: socket.socket, opened: ExitStack) -> None:
    """Answer every request with its own body."""

    def echo(sock: socket.socket) -> None:
        with suppress(OSError):
            while request := read_request(sock):
                body = request.partition(b"\r\n\r\n")[2]
                sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    with suppress(OSError):
        while True:
            sock = opened.enter_context(listener.accept()[0])
            threading.Thread(target=echo, args=(sock,), daemon=True).start()


# Everything ends in time.


def drip(sock: socket.socket) -> None:
    """Answer a byte every tenth of a second."""
    for byte in HI:
        sock.sendall(bytes([byte]))
        time.sleep(0.1)


def hang(sock: socket.socket) -> None:
    """Take what comes and say nothing."""
    while sock.recv(65_536):
        pass


def stop_halfway(sock: socket.socket) -> None:
    """Take what comes, and say half of an answer."""
    sock.sendall(HI[:20])
    hang(sock)


def read_nothing(sock: socket.socket) -> None:
    """Let the client's words pile up."""
    time.sleep(1)
    sock.close()


@pytest.mark.waits
@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
@pytest.mark.parametrize("ill", [drip, hang, stop_halfway, read_nothing])
def test_an_ill_server_is_given_up_in_time(
    ill: Callable[[socket.socket], None], secure: bool
) -> None:
    """Dripping, hanging, not reading, in the clear or instead of TLS: it ends at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept_one, args=(listener, ill), daemon=True).start()
        scheme = "https" if secure else "http"
        endpoint = Endpoint(f"{scheme}://127.0.0.1:{listener.getsockname()[1]}/", {})
        began = time.monotonic()
        with pytest.raises(OSError):  # whichever of them: the time is the point
            endpoint.post(b"x" * 9_000_000, began + 0.4)
        assert time.monotonic() - began < 0.8 + LATE


def accept_one(listener: socket.socket, behave: Callable[[socket.socket], None]) -> None:
    """Treat the first connection in some manner."""
    sock, _ = listener.accept()
    with sock, suppress(OSError):
        behave(sock)


@contextmanager
def swallowing() -> Iterator[tuple[str, int]]:
    """An address that swallows connections: its queue is full, so a SYN gets no answer."""
    with socket.socket() as listener, ExitStack() as queue:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = "127.0.0.1", listener.getsockname()[1]
        for _ in range(2):
            waiting = queue.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(address)
        time.sleep(0.05)
        yield address


@pytest.mark.waits
def test_the_second_address_is_tried_when_the_first_is_silent() -> None:
    """Of two addresses one swallows every attempt: the other gets its share of the time."""
    with swallowing() as silent, Scripted([]) as server:
        began = time.monotonic()
        with reach_any([silent, ("127.0.0.1", server.port)], began + 1, None) as sock:
            assert sock.getpeername() == ("127.0.0.1", server.port)
        assert 0.4 < time.monotonic() - began < 0.8 + LATE


def test_many_silent_addresses_leave_time_for_the_last() -> None:
    """However many addresses a host has, all are tried, and none is given up in an instant."""
    with swallowing() as silent, Scripted([]) as server:
        addresses = [silent] * 6 + [("127.0.0.1", server.port)]
        with reach_any(addresses, soon(2), None) as sock:
            assert sock.getpeername()[1] == server.port
    with swallowing() as silent, pytest.raises(TimeoutError):
        reach_any([silent] * 3, soon(0.3), None)


@pytest.mark.waits
def test_a_refused_address_costs_no_time() -> None:
    """An address where nobody listens says so at once, and the next one is tried."""
    with Scripted([]) as server:
        began = time.monotonic()
        reach_any([("127.0.0.1", 9), ("127.0.0.1", server.port)], began + 2, None).close()
        assert time.monotonic() - began < 0.5 + LATE


def test_a_name_that_is_none_is_the_networks_fault() -> None:
    """What DNS cannot look up, or what cannot even be asked, is an OSError like any other."""
    for host in ("no-such-host.invalid", "a" * 70, "x..y"):
        with pytest.raises(OSError):
            connect(Server(host, 80, secure=False), soon())


@pytest.mark.waits
def test_a_connection_that_comes_too_late_is_closed() -> None:
    """Nobody waits any more when it is there: it is hung up, not left open."""
    with Scripted([]) as server:

        def slow_look_up(_: str) -> None:
            time.sleep(0.4)

        began = time.monotonic()
        with pytest.raises(TimeoutError):
            connect(Server("127.0.0.1", server.port, secure=False), began + 0.2, slow_look_up)
        assert time.monotonic() - began < 0.35 + LATE
        assert eventually(lambda: server.connections)
        assert eventually(lambda: server.connections[0].fileno() == -1)  # it heard our goodbye


# TLS.


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[trustme.CA]:
    """An authority that is believed while the test runs."""
    authority = trustme.CA()
    bundle = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(str(bundle))
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    tls_context.cache_clear()
    yield authority
    tls_context.cache_clear()


def server_tls(authority: trustme.CA, host: str = "localhost") -> ssl.SSLContext:
    """The TLS of a server with a certificate for a host."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(host).configure_cert(tls)
    return tls


def test_a_tls_connection_is_kept(authority: trustme.CA) -> None:
    """Its session tickets are no stray answer; a stray answer is one, and so is a goodbye."""
    with Scripted([HI, HI, HI + STRAY, HI, HI], server_tls(authority)) as server:
        endpoint = Endpoint(server.url, {})
        for _ in range(3):
            assert endpoint.post(b"", soon()).body == b"hi"
        assert len(server.connections) == 1
        assert endpoint.post(b"", soon()).body == b"hi"
        assert len(server.connections) == 2
        server.connections[1].sendall(STRAY)
        time.sleep(0.05)
        assert endpoint.post(b"", soon()).body == b"hi"
        assert len(server.requests) == 5
        endpoint.close()


@pytest.mark.parametrize("fault", ["name", "authority"])
def test_who_cannot_prove_who_it_is_is_told_nothing(authority: trustme.CA, fault: str) -> None:
    """A certificate for another name or of an unknown authority ends it before the first byte."""
    other = {"name": (authority, "other.example"), "authority": (trustme.CA(), "localhost")}
    with Scripted([HI], server_tls(*other[fault])) as server:
        with pytest.raises(ssl.SSLCertVerificationError):
            Endpoint(server.url, {"Authorization": "Bearer secret"}).post(b"", soon())
        assert server.requests == []


# A stream.


def test_a_stream_is_read_piece_by_piece() -> None:
    """An answer of any size comes in pieces, over a connection of its own."""
    sound = bytes(range(256)) * 20_000  # five megabytes
    raw = b"HTTP/1.1 200 OK\r\nContent-Type: audio/mpeg\r\nContent-Length: %d\r\n\r\n" % len(sound)
    with Scripted([raw + sound]) as server:
        with open_stream(server.url, {"Range": "bytes=0-"}, soon()) as stream:
            assert (stream.status, stream.headers["content-type"]) == (200, "audio/mpeg")
            pieces = iter(lambda: stream.read(65_536, soon()), b"")
            assert b"".join(pieces) == sound
            assert stream.read(1, soon()) == b""
        assert server.requests[0].startswith(b"GET /path HTTP/1.1\r\n")
        assert header_of(server.requests[0], "Connection") == "close"
        assert header_of(server.requests[0], "Range") == "bytes=0-"


def test_a_stream_of_chunks_is_read() -> None:
    """A recording may come without a length."""
    raw = CHUNKED + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    with Scripted([raw]) as server, open_stream(server.url, {}, soon()) as stream:
        assert b"".join(iter(lambda: stream.read(2, soon()), b"")) == b"abcde"


@pytest.mark.parametrize("raw", [OK[:-5] + b"9\r\n\r\nhi", CHUNKED + b"9\r\nhi"])
def test_a_stream_that_breaks_off_is_no_whole_answer(raw: bytes) -> None:
    """Half a recording is not passed on as if it were the whole."""
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        pool.submit(say_and_close, listener, raw)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        with open_stream(url, {}, soon()) as stream:
            assert stream.read(99, soon()) == b"hi"
            with pytest.raises(HTTPException):
                stream.read(99, soon())


def test_each_piece_of_a_stream_has_its_moment() -> None:
    """A stream may take longer than any webhook; a piece that does not come is given up in time."""
    with Scripted([OK + b"h"]) as server, open_stream(server.url, {}, soon(0.3)) as stream:
        time.sleep(0.4)
        assert stream.read(9, soon()) == b"h"
        with pytest.raises(TimeoutError):
            stream.read(9, soon(0.2))


def test_an_address_that_must_not_be_reached_is_not() -> None:
    """Every address is checked before it is connected to, and what is refused gets no byte."""
    seen: list[str] = []

    def refuse(address: str) -> None:
        seen.append(address)
        raise OSError("not a public address")

    with Scripted([HI]) as server:
        with pytest.raises(OSError, match="not a public address"):
            open_stream(server.url, {}, soon(), refuse)
        assert "127.0.0.1" in seen
        assert server.connections == []
        with open_stream(server.url, {}, soon(), seen.append) as stream:
            assert stream.read(9, soon()) == b"hi"


# Moments, and work in the background.


def test_a_moment_that_has_passed_has_no_seconds() -> None:
    """Being out of time is an error of its own kind, before anything is begun."""
    assert 4 < seconds_left(soon()) <= 5
    with pytest.raises(TimeoutError):
        seconds_left(time.monotonic())


def test_work_in_the_background_has_a_result_or_an_error() -> None:
    """Whoever waits for the work hears how it ended, whatever happened."""
    assert in_background(pow, 2, 5).result(2) == 32
    with pytest.raises(ZeroDivisionError):
        in_background(divmod, 1, 0).result(2)
    with pytest.raises(SystemExit):
        in_background(exit_thread).result(2)


def exit_thread() -> None:
    raise SystemExit


def test_without_a_thread_there_is_no_network() -> None:
    """A system that has no thread left is told like a network fault, and recovered from."""
    threading.stack_size(1 << 60)  # more than any memory
    try:
        with pytest.raises(OSError):
            in_background(pow, 2, 5)
    finally:
        threading.stack_size(0)
    assert in_background(pow, 2, 5).result(2) == 32


def test_work_that_hangs_has_a_bound() -> None:
    """A thousand look-ups that hang do not become a thousand threads."""
    release = threading.Event()
    hanging: list[Future[bool]] = []
    try:
        with pytest.raises(OSError, match="too many"):
            hanging.extend(in_background(release.wait, 20) for _ in range(MOST_THREADS + 1))
        assert len(hanging) <= MOST_THREADS
    finally:
        release.set()
    assert all(each.result(5) for each in hanging)
    assert eventually(lambda: in_background(pow, 2, 5))


def test_authorities_are_those_of_the_system() -> None:
    """A context is made once, checks names and certificates, and is shared."""
    assert tls_context() is tls_context()
    assert tls_context().verify_mode == ssl.CERT_REQUIRED
    assert tls_context().check_hostname
