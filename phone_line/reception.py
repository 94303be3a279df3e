"""Reception: where connections wait until somebody has time for them, and they for us.

gunicorn's worker has one loop that watches connections, and threads that answer. As it comes, a
few strangers can hold all of it: half a request keeps a thread until the rest arrives, which may
be never, and whoever does not hang up after an answer stops the loop for two seconds. gunicorn has
no setting for either, so this worker replaces the moments at which it would wait for a client.

Rules of this room:
- A thread answers a request when all of it is here, and never waits for more. Half a request waits
  at the loop, where it costs one open file and the bytes that were sent of it.
- The loop waits for nobody. After an answer it listens until the client hangs up, as it listens
  for anything else that a client may send.
- A client has `PATIENCE` seconds for either, and to take each piece of an answer. Nobody gets an
  answer who has not read the answers before.
- If there is no room for a new connection, the one that waits longest makes room.

What this room relies on is checked, name by name, by tests/line/test_strangers.py, so that a new
gunicorn cannot undo it unnoticed.
"""

import re
import select
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Any, Final

from gunicorn.http import get_parser  # type: ignore[import-untyped] # gunicorn has no types
from gunicorn.workers.gthread import ThreadWorker  # type: ignore[import-untyped] # the same

from phone_line.deadline import Moment
from phone_line.log import warn_sparingly

LARGEST_BODY: Final = 64 * 1024  # bytes; Twilio's webhooks have about one kilobyte
LARGEST_HEAD: Final = 32 * 1024  # bytes; Railway's proxy lets no more through
LARGEST: Final = LARGEST_HEAD + LARGEST_BODY
MOST_CHUNKS: Final = 256  # of a body; proxies pass on a kilobyte or more at a time
MOST_DRAINED: Final = 1024 * 1024  # bytes that a client may go on sending after a refusal
PATIENCE: Final = 5  # seconds; a proxy sends a webhook in one piece, and hangs up at once
SEND_TIMEOUT: Final = struct.pack("ll", PATIENCE, 0)  # as the system wants it
CONNECTIONS_FULL: Final = "too many connections: the one that waited longest had to go"

END_OF_HEAD: Final = re.compile(rb"\n\r?\n")
LENGTH: Final = re.compile(rb"(?i)\ncontent-length:[ \t]*([0-9]{1,12})")
CHUNKED: Final = re.compile(rb"(?i)\ntransfer-encoding:")
LAST_CHUNK: Final = b"0\r\n\r\n"
EXPECTED: Final = re.compile(rb"(?i)\nexpect:[ \t]*100-continue")
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

Connection = Any  # gunicorn's TConn
Request = Any  # gunicorn's, not Flask's

thread: Final = threading.local()


def find_arrival() -> Moment:
    """Tell when the request that this thread answers had arrived as a whole, before it queued."""
    arrived: Moment = getattr(thread, "arrived", 0.0)
    return arrived or time.monotonic()


@dataclass(eq=False, slots=True)
class Waiting:
    """A connection that waits at the loop, for a whole request or for its client to hang up."""

    connection: Connection
    until: Moment
    drained: int = 0  # bytes that came after the last answer


Listen = Callable[[Waiting, object], None]


class Progress(Enum):
    """The progress of a request."""

    INCOMPLETE = "some of it is missing"
    WHOLE = "all of it is here"
    TOO_LARGE = "it is not waited for, and refused"
    GONE = "the client hung up before it was whole"


class Reception(ThreadWorker):  # type: ignore[misc] # a class without types
    """gunicorn's worker with threads, except for the moments at which that waits for a client.

    `handle` and `handle_request` run in a thread, all else on the loop. The first seven methods are
    gunicorn's own, and it calls them.
    """

    def __init__(self, *arguments: Any, **more: Any) -> None:  # noqa: ANN401 # gunicorn's own
        super().__init__(*arguments, **more)
        self.waiting: dict[Connection, Waiting] = {}  # the first has waited longest
        self.max_keepalived = self.worker_connections // 2  # the rest is for those who speak

    def accept(self, listener: socket.socket) -> None:
        """Take a new connection. If it were the last that fits, the longest waiting one goes."""
        full = self.nr_conns >= self.worker_connections - 1
        if full and self.waiting:
            warn_sparingly("connections", CONNECTIONS_FULL, most=self.worker_connections)
            self.drop(next(iter(self.waiting.values())))
        super().accept(listener)

    def enqueue_req(self, conn: Connection) -> None:
        """Note when a request arrived; from now on it waits for a thread."""
        conn.arrived = time.monotonic()
        super().enqueue_req(conn)

    def handle(self, conn: Connection) -> bool | Progress:
        """Answer a request, in a thread. Tell whether to keep the connection.

        A request that is not whole is left to the loop: INCOMPLETE.
        """
        progress = take_request(conn)
        if progress is Progress.INCOMPLETE:
            return progress
        if progress is Progress.GONE:
            return False
        conn.is_whole = progress is Progress.WHOLE and not is_crumbled(conn.received)
        request = bytes(conn.received) if conn.is_whole else head_alone(conn.received)
        conn.parser = get_parser(self.cfg, iter([request]), conn.client)
        conn.received = bytearray()
        conn.data_ready = True  # or gunicorn's own method would wait for some
        return bool(super().handle(conn))

    def handle_request(self, req: Request, conn: Connection) -> bool:
        """Answer, in a thread. Whoever does not take the answer is given up."""
        if not is_writable(conn.sock):
            return False
        thread.arrived = conn.arrived
        conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, SEND_TIMEOUT)
        if not conn.is_whole:
            req.force_close()  # nobody knows where the next request would begin
        try:
            return bool(super().handle_request(req, conn))
        except BlockingIOError:  # out of patience
            return False

    def finish_request(self, conn: Connection, fs: Future[bool | Progress]) -> None:
        """Take a connection back: for another request, for the rest of this one, or to its end.

        To close it at once could destroy the answer on its way, if the client is still sending.
        """
        failed = fs.cancelled() or fs.exception()
        result = not failed and fs.result()
        if result is Progress.INCOMPLETE:
            self.wait(conn, self.receive)
        elif result:
            super().finish_request(conn, fs)
        else:
            with suppress(OSError):
                conn.sock.shutdown(socket.SHUT_WR)
            self.wait(conn, self.drain)

    def murder_pending(self) -> None:
        """Give up on those whose time is over. gunicorn's loop comes here at least every second."""
        now = time.monotonic()
        for waiting in [*self.waiting.values()]:
            if waiting.until > now:
                break
            self.drop(waiting)

    def wait(self, conn: Connection, listen: Listen) -> None:
        """Let a connection wait at the loop, which calls `listen` whenever something comes."""
        waiting = Waiting(conn, time.monotonic() + PATIENCE)
        self.waiting[conn] = waiting
        try:
            self.poller.register(conn.sock, selectors.EVENT_READ, partial(listen, waiting))
        except (OSError, ValueError):  # closed already
            self.drop(waiting)

    def receive(self, waiting: Waiting, _: object) -> None:
        """Take more of a request; when there is no more to wait for, a thread answers it."""
        if self.waiting.get(waiting.connection) is not waiting:
            return  # dropped after the loop saw this event
        if take_request(waiting.connection) is not Progress.INCOMPLETE:
            self.forget(waiting)
            self.enqueue_req(waiting.connection)

    def drain(self, waiting: Waiting, _: object) -> None:
        """Throw away what comes after the last answer, until the client hangs up."""
        if self.waiting.get(waiting.connection) is not waiting:
            return
        more = read_available(waiting.connection.sock)
        waiting.drained += len(more or b"")
        if more == b"" or waiting.drained > MOST_DRAINED:
            self.drop(waiting)

    def drop(self, waiting: Waiting) -> None:
        """Close a waiting connection."""
        self.forget(waiting)
        self.nr_conns -= 1
        waiting.connection.close()

    def forget(self, waiting: Waiting) -> None:
        """Take a connection off the list and off the loop."""
        del self.waiting[waiting.connection]
        with suppress(KeyError, ValueError):
            self.poller.unregister(waiting.connection.sock)


def take_request(conn: Connection) -> Progress:
    """Read what has come of a request into `conn.received`, without waiting for more."""
    if not hasattr(conn, "received"):
        conn.received = bytearray()
    received: bytearray = conn.received
    if conn.parser:
        received += conn.parser.unreader.take_buffered()  # came together with the last request
    if not count_missing(received):
        return Progress.WHOLE
    more = read_available(conn.sock)
    received += more or b""
    missing = count_missing(received)
    if not missing:
        return Progress.WHOLE
    if len(received) + missing > LARGEST:
        return Progress.TOO_LARGE
    if more == b"":
        return Progress.GONE
    if is_hesitating(received):
        with suppress(OSError):
            conn.sock.send(CONTINUE)
    return Progress.INCOMPLETE


def read_available(client: socket.socket) -> bytes | None:
    """Read what has come, at most `LARGEST` bytes: None is nothing yet, b"" the end."""
    try:
        return client.recv(LARGEST, socket.MSG_DONTWAIT)
    except BlockingIOError:
        return None
    except OSError:
        return b""


def is_writable(client: socket.socket) -> bool:
    """Tell whether the system takes an answer for a client at once: a third of its buffer is free.

    An answer in words always fits into that.
    """
    poll = select.poll()
    poll.register(client, select.POLLOUT)
    return bool(poll.poll(0))


def count_missing(received: bytearray) -> int:
    """Count the bytes that a request still lacks, as far as its beginning tells: 0 is all here.

    This only decides how long to wait. gunicorn reads the request anew, and strictly.
    """
    head = END_OF_HEAD.search(received)
    if not head:
        return 1
    if CHUNKED.search(received, 0, head.end()):
        return 0 if received.endswith(LAST_CHUNK, head.end()) else 1
    length = LENGTH.search(received, 0, head.end())
    if not length:
        return 0
    return max(0, head.end() + int(length[1]) - len(received))


def is_crumbled(received: bytearray) -> bool:
    """Tell whether a body comes in crumbs: gunicorn copies what is left of it with each chunk."""
    head = END_OF_HEAD.search(received)
    if not head or not CHUNKED.search(received, 0, head.end()):
        return False
    return received.count(b"\n", head.end()) > 2 * MOST_CHUNKS  # each has two line ends


def head_alone(received: bytearray) -> bytes:
    """The head of a request that is refused: to read its body would only take time."""
    head = END_OF_HEAD.search(received)
    return bytes(received[: head.end()] if head else received)


def is_hesitating(received: bytearray) -> bool:
    """Tell whether a client has sent the head alone, and waits for a word before the body."""
    head = END_OF_HEAD.search(received)
    if not head or head.end() < len(received):
        return False
    return EXPECTED.search(received) is not None
