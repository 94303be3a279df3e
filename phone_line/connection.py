"""A connection to a server: look its name up, reach one of its addresses, agree on TLS, in time.

DNS knows no time-out, and a connection to a host of several addresses has one for each. So all of
it happens on a thread of its own, and whoever wants the connection waits until the moment.
"""

import os
import socket
import ssl
from collections.abc import Callable
from concurrent.futures import Future
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

from phone_line.deadline import Moment, in_background, seconds_left

AddressCheck = Callable[[str], None]  # raises OSError for an IP address that must not be reached
Address = tuple[str, int]  # an IP address and a port
# No address gets less than a quarter of the time that is left: with more of them, none would get
# enough for a long way. One that refuses takes no time, so all are tried in any case.
MOST_SHARES: Final = 4


class Server(NamedTuple):
    """Where to connect to."""

    host: str
    port: int
    secure: bool


def connect(
    server: Server, until: Moment, check_address: AddressCheck | None = None
) -> socket.socket:
    """Open a connection. Raises OSError; a connection that comes too late is closed.

    `check_address` is handed each IP address as text, and the connection goes to the very address
    that was checked.
    """
    dialling = in_background(dial, server, until, check_address)
    try:
        return dialling.result(seconds_left(until))
    except TimeoutError:
        dialling.add_done_callback(close_late)
        raise


def close_late(dialling: Future[socket.socket]) -> None:
    """Close a connection that nobody waits for any more."""
    if not dialling.exception():
        dialling.result().close()


def dial(server: Server, until: Moment, check_address: AddressCheck | None) -> socket.socket:
    """Look the host up, reach it, and agree on TLS if the connection is to be secure."""
    try:
        found = socket.getaddrinfo(server.host, server.port, type=socket.SOCK_STREAM)
    except ValueError:  # it cannot even be asked for
        raise OSError("no host can have this name") from None
    addresses = [(str(place[0]), server.port) for *_, place in found]
    sock = reach_any(addresses, until, check_address)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if not server.secure:
        return sock
    return secure(sock, server.host, until)


def reach_any(
    addresses: list[Address], until: Moment, check_address: AddressCheck | None
) -> socket.socket:
    """Connect to the first address that answers. Each of those left gets its share of the time.

    Raises the OSError of the last.
    """
    *others, last = addresses
    for position, address in enumerate(others):
        shares = min(len(addresses) - position, MOST_SHARES)
        try:
            return reach(address, seconds_left(until) / shares, check_address)
        except OSError:
            continue
    return reach(last, seconds_left(until), check_address)


def reach(address: Address, seconds: float, check_address: AddressCheck | None) -> socket.socket:
    """Connect to one address, if it may be reached. A number is not looked up again."""
    if check_address:
        check_address(address[0])
    return socket.create_connection(address, timeout=seconds)


def secure(sock: socket.socket, host: str, until: Moment) -> ssl.SSLSocket:
    """Agree on TLS over a connection, which is closed if that fails."""
    try:
        sock.settimeout(seconds_left(until))
        return tls_context().wrap_socket(sock, server_hostname=host)
    except BaseException:
        sock.close()
        raise


@cache
def tls_context() -> ssl.SSLContext:
    """Load whom we trust, once: a folder is searched as needed, a bundle is parsed in 15 ms."""
    folder = Path("/etc/ssl/certs")
    elsewhere = {"SSL_CERT_FILE", "SSL_CERT_DIR"} & os.environ.keys()
    if not elsewhere and next(folder.glob("????????.0"), None):
        return ssl.create_default_context(capath=str(folder))
    import httpx  # came with the Upstash client; it finds the authorities on any system

    return httpx.create_ssl_context()


def send_all(sock: socket.socket, request: bytes, until: Moment) -> None:
    """Send a request, however slowly the other side takes it, but not beyond the moment."""
    rest = memoryview(request)
    while rest:
        sock.settimeout(seconds_left(until))
        rest = rest[sock.send(rest) :]


def is_silent(sock: socket.socket) -> bool:
    """Try to read from an idle connection. Silence is health: nothing is owed to us.

    Bytes belong to no request of ours, and none at all is a goodbye. With TLS the attempt takes in
    what the server sends for its own purposes (session tickets); select and poll would mistake that
    for such bytes.
    """
    try:
        sock.settimeout(0)
        sock.recv(1)
    except (BlockingIOError, ssl.SSLWantReadError):
        return True
    except OSError:
        return False
    return False
