"""The way into the stand-in for Upstash: HTTP over connections that are kept."""

import json
import secrets
import time
from contextlib import suppress
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import TYPE_CHECKING, cast

from standins.redis_server import Failure
from standins.upstash_dialect import (
    BATCHES,
    METHODS,
    Command,
    Request,
    boxed,
    commands_of,
    page,
    read_request,
    refusal,
)
from standins.upstash_faults import Exchange, strike

if TYPE_CHECKING:
    from standins.upstash import Upstash


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
    """The server for clients; it only ever listens on this machine."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, upstash: "Upstash", port: int) -> None:
        self.upstash = upstash
        super().__init__(("127.0.0.1", port), Wire)
