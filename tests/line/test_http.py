"""What comes back over HTTP is read as HTTP, and never for longer than it may take."""

import io
import socket
import threading
import time
from http.client import HTTPException

import pytest

import main
from standins.timing import LATE

LARGE = main.LARGEST_ANSWER

WELL: dict[str, tuple[bytes, tuple[int, bytes, bool]]] = {
    "a body of a length": (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", (200, b"hi", True)),
    "an empty body": (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", (200, b"", True)),
    "chunks": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nhi\r\n1\r\n!\r\n0\r\n\r\n",
        (200, b"hi!", True),
    ),
    "chunks and a trailer": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n2\r\nhi\r\n0\r\nA: b\r\n\r\n",
        (200, b"hi", True),
    ),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", (204, b"", True)),
    "a body up to the end": (b"HTTP/1.1 200 OK\r\n\r\nhi", (200, b"hi", False)),
    "the older HTTP": (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", (200, b"hi", False)),
    "a server that closes": (
        b"HTTP/1.1 502 Bad Gateway\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno",
        (502, b"no", False),
    ),
    "bare line ends": (b"HTTP/1.1 200 OK\nContent-Length: 2\n\nhi", (200, b"hi", True)),
}

ILL: dict[str, bytes] = {
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n",
    "an odd status": b"HTTP/1.1 999 What\r\n\r\n",
    "headers cut off": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n",
    "headers without end": b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200,
    "a body cut off": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhi",
    "a chunk cut off": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhi",
    "no chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhi\r\n0\r\n\r\n",
    "a negative chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-2\r\nhi\r\n",
    "no length": b"HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\nhi",
    "a negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nhi",
    "too much of a length": b"HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\n"
    + b"x" * (LARGE + 9),
    "too much without a length": b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (LARGE + 9),
    "too much in chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    + (b"80000\r\n" + b"x" * 0x80000 + b"\r\n") * 3,
}


@pytest.mark.parametrize("name", WELL)
def test_an_answer_is_read(name: str) -> None:
    """Status, body and whether the connection can be kept, in every form that servers use."""
    raw, expected = WELL[name]
    assert main.read_response(io.BufferedReader(io.BytesIO(raw))) == expected


@pytest.mark.parametrize("name", ILL)
def test_what_is_no_answer_is_an_error(name: str) -> None:
    """Anything that is no whole answer, or more than one needs, is the network's fault."""
    with pytest.raises(HTTPException):
        main.read_response(io.BufferedReader(io.BytesIO(ILL[name])))


def test_a_close_without_an_answer_is_a_lost_connection() -> None:
    """Nothing at all means that the other side has closed: a kept connection is then replaced."""
    with pytest.raises(ConnectionError):
        main.read_response(io.BufferedReader(io.BytesIO(b"")))


@pytest.mark.waits
def test_a_server_that_drips_is_given_up_in_time() -> None:
    """A byte now and then does not extend the moment by which an answer has to be there."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=drip, args=(server,), daemon=True).start()
        wire = main.Wire(f"http://127.0.0.1:{server.getsockname()[1]}")
        began = time.monotonic()
        with pytest.raises(OSError):  # whichever of them: the time is the point
            wire.post(b"{}", began + 0.5)
        assert time.monotonic() - began < 0.9 + LATE


def test_a_server_that_says_goodbye_costs_no_other_connection() -> None:
    """An answer with Connection: close ends its own connection, and those that wait are kept."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        wire = main.Wire(f"http://127.0.0.1:{server.getsockname()[1]}/")
        until = time.monotonic() + 5
        other, mine = wire.open(5), wire.open(5)
        wire.idle += [(time.monotonic(), other), (time.monotonic(), mine)]
        server.accept()[0].close()
        with server.accept()[0] as theirs:
            theirs.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi")
            assert wire.post(b"", until) == (200, b"hi")
        assert [sock for _used, sock in wire.idle] == [other]
        with pytest.raises(TimeoutError):
            wire.post(b"", time.monotonic() - 1)
        assert len(wire.idle) == 1
        wire.close()


def drip(server: socket.socket) -> None:
    """Answers a byte every tenth of a second, until nobody listens."""
    connection, _ = server.accept()
    with connection:
        try:
            for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello":
                connection.sendall(bytes([byte]))
                time.sleep(0.1)
        except OSError:
            return
