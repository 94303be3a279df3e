"""A service that an owner is told by: it takes POSTs of JSON, and keeps what it is told.

    with Sink() as sink:
        line = Inside({"NOTIFY_URL": sink.url, ...})
        sink.fault = 500                # or "hang", "cut", "redirect"; None is good health
        ...
        assert sink.told(phone.call_sid) == ["voicemail"]

`follow(phone)` writes into a phone's transcript what its owner is told, as "owner is told: ...".
"""

import json
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, NamedTuple, Self, cast

from standins.call import Phone

Fault = int | str | None
ELSEWHERE: Final = "/elsewhere"  # where a redirect leads


class Notice(NamedTuple):
    """One POST; `answered` is the status that it got, 0 for none."""

    key: str
    body: dict[str, Any]
    path: str
    at: float
    answered: int

    @property
    def event(self) -> str:
        """The name of the event."""
        return str(self.body["event"])

    @property
    def text(self) -> str:
        """The sentence for people."""
        return str(self.body["text"])


class Sink:
    """A real HTTP server. `fault` may also be a function of the number of POSTs before."""

    def __init__(self) -> None:
        self.notices: list[Notice] = []
        self.fault: Fault | Callable[[int], Fault] = None
        self.closing = threading.Event()
        self._phones: dict[str, Phone] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._server = Door(self)
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook?secret=geheim"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()

    def follow(self, phone: Phone) -> Phone:
        """Let a phone's transcript say what its owner is told."""
        self._phones[phone.call_sid] = phone
        return phone

    def taken(self, call_sid: str = "") -> list[Notice]:
        """The kinds of notices that were told and taken, of one call or of all."""
        notices = [each for each in tuple(self.notices) if 200 <= each.answered < 300]
        return [each for each in notices if call_sid in each.body["call_sid"]]

    def told(self, call_sid: str = "") -> list[str]:
        """The names of the events that were told and taken, in order."""
        return [notice.event for notice in self.taken(call_sid)]

    def keep(self, key: str, path: str, body: bytes) -> Fault:
        """Note a POST; what is wrong with its answer."""
        found = json.loads(body)
        with self._lock:
            fault = self.fault(len(self.notices)) if callable(self.fault) else self.fault
            status = fault if isinstance(fault, int) else {None: 204, "redirect": 302}.get(fault, 0)
            self.notices.append(Notice(key, found, path, time.monotonic(), status))
        phone = self._phones.get(found["call_sid"])
        if phone and status == 204:
            phone.tell(f"owner is told: {found['text']}")
        return fault


class Handler(BaseHTTPRequestHandler):
    """The handler of one connection."""

    protocol_version = "HTTP/1.1"

    def handle(self) -> None:
        with suppress(ConnectionError):  # the instance was killed
            super().handle()

    def do_POST(self) -> None:
        sink = cast("Door", self.server).sink
        body = self.rfile.read(int(self.headers["Content-Length"]))
        fault = sink.keep(self.headers.get("Idempotency-Key", ""), self.path, body)
        if fault == "hang":
            sink.closing.wait(60)
        if fault in ("hang", "cut"):
            self.close_connection = True
            return
        status = fault if isinstance(fault, int) else 302 if fault == "redirect" else 204
        self.send_response(status)
        if fault == "redirect":
            self.send_header("Location", ELSEWHERE)
        if status != 204:
            self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        return


class Door(ThreadingHTTPServer):
    """The server that takes notices."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, sink: Sink) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.sink = sink
