"""A server with fixed answers: it stands where the line stands otherwise.

The phone is tested against it. It answers TwiML by path, and keeps what it is sent.
"""

import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import parse_qsl

from standins.call import Phone
from standins.webhooks import Fields

TOKEN = "12345"


class Asked(NamedTuple):
    """One request as the server saw it."""

    target: str
    fields: Fields
    headers: Mapping[str, str]

    @property
    def form(self) -> dict[str, str]:
        """The fields by name."""
        return dict(self.fields)


class Reply(NamedTuple):
    """One fixed answer; a delay in seconds, or a line that is cut instead of an answer."""

    body: str
    status: int = 200
    kind: str = "text/xml"
    delay: float = 0.0
    cut: bool = False
    lost: int = 0  # bytes that are promised and never come


class Canned:
    """A server that answers by path; a list of answers is used up down to its last one."""

    def __init__(self) -> None:
        self.answers: dict[str, list[Reply]] = {}
        self.asked: list[Asked] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        self.on("/voice/status", Reply("", 204, ""))
        self.on("/healthz", Reply('{"ok": true, "problems": []}', kind="application/json"))

    def on(self, path: str, *replies: str | Reply) -> None:
        """Sets what a path answers: the inside of a <Response>, or a whole Reply."""
        self.answers[path] = [
            Reply(f"<Response>{reply}</Response>") if isinstance(reply, str) else reply
            for reply in replies
        ]

    def forms(self, path: str) -> list[dict[str, str]]:
        """The fields that a path was sent, in order."""
        return [asked.form for asked in self.asked if asked.target.split("?")[0] == path]

    def reply(self, asked: Asked) -> Reply:
        """Keeps the request and finds its answer."""
        self.asked.append(asked)
        found = self.answers.get(asked.target.split("?")[0], [Reply("not here", 404)])
        return found.pop(0) if len(found) > 1 else found[0]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        canned = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.answer([])

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                self.answer(parse_qsl(body, keep_blank_values=True))

            def answer(self, fields: Fields) -> None:
                reply = canned.reply(Asked(self.path, fields, dict(self.headers)))
                time.sleep(reply.delay)
                if reply.cut:
                    self.close_connection = True
                    return
                self.send_response(reply.status)
                if reply.kind:
                    self.send_header("Content-Type", reply.kind)
                body = reply.body.encode()
                if reply.lost:
                    self.send_header("Content-Length", str(len(body) + reply.lost))
                with suppress(ConnectionError):  # whoever asked has given up
                    self.end_headers()
                    self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                return

        return Handler

    def close(self) -> None:
        """Ends the server."""
        self._server.shutdown()
        self._server.server_close()


def ring(line: Canned, twiml: str, path: str = "/voice/inbound") -> Phone:
    """A phone that has rung at a line whose first document is `twiml`."""
    line.on(path, twiml)
    phone = Phone(line.url, token=TOKEN)
    phone.ring()
    return phone


GATHER = '<Gather input="dtmf speech" action="/next" {}><Say>Which?</Say></Gather><Say>Bye.</Say>'


def gather(line: Canned, attributes: str = "") -> Phone:
    """A phone that waits in a Gather whose action says "Thanks."."""
    line.on("/next", "<Say>Thanks.</Say>")
    return ring(line, GATHER.format(attributes))


def voicemail(line: Canned) -> Phone:
    """A phone, not yet rung, at a line that transfers and then takes a message."""
    line.on("/voice/inbound", GATHER.format(""))
    line.on(
        "/next",
        '<Say>Connecting you now.</Say><Dial action="/dialled" timeLimit="60">+15550100099</Dial>',
    )
    line.on("/dialled", '<Record action="/recorded"/>')
    line.on("/recorded", '<Say>Thank you.</Say><Pause length="2"/><Say>Goodbye.</Say>')
    return Phone(line.url, token=TOKEN)
