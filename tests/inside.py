"""A line inside the test's own process: everything of an instance except the socket.

    line = Inside({"FORWARD_TO": "+15550100099", "STATE_FILE": "/tmp/calls"})
    phone = line.phone()                                # a whole call, played by phone.py
    answer = line.post("/voice/inbound", fields)    # one webhook, signed as Twilio signs
    answer = line.send("GET", "/healthz")               # any request, byte for byte

A request reaches `main.Line` as gunicorn would bring it: with the target as it came in RAW_URI, and
with the path decoded. Several of these in one process are several instances: they share nothing but
the store that they are told to use.
"""

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from io import BytesIO
from pathlib import Path
from typing import Final
from urllib.parse import unquote_to_bytes, urldefrag, urlencode, urlsplit

from flask import Request
from phone import Answer, Fields, Phone, sign, signed_url

import main

ORIGIN: Final = "https://line.example"
TOKEN: Final = "secret"
FORM: Final = "application/x-www-form-urlencoded"


def environ(method: str, target: str, body: bytes, headers: Mapping[str, str]) -> dict[str, object]:
    """A WSGI environment for one request on its raw target, as gunicorn makes it."""
    path, _, query = target.partition("?")
    host = headers.get("Host", urlsplit(ORIGIN).netloc)
    fixed = {
        "REQUEST_METHOD": method,
        "RAW_URI": target,
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query,
        "SCRIPT_NAME": "",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": host,
        "CONTENT_LENGTH": str(len(body)),
        "CONTENT_TYPE": headers.get("Content-Type", ""),
        "wsgi.url_scheme": "http",
        "wsgi.input": BytesIO(body),
    }
    lines = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in headers.items()}
    return lines | fixed


class Inside:
    """One instance, set up by `env`; a token and the origin it is reached at are filled in."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self.env = {"TWILIO_AUTH_TOKEN": TOKEN, "PUBLIC_URL": ORIGIN} | dict(env)
        self.line = main.Line(self.env)

    def send(
        self, method: str, target: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Answer:
        """One request as it is, and what was answered."""
        request = Request(environ(method, target, body, headers or {}))
        response = self.line.answer(request)
        return Answer(response.status_code, dict(response.headers), response.get_data())

    def post(self, target: str, fields: Fields | Mapping[str, str]) -> Answer:
        """One webhook of Twilio's at this target of ORIGIN, signed."""
        form = list(fields.items()) if isinstance(fields, Mapping) else fields
        signature = sign(TOKEN, ORIGIN + target, form)
        headers = {"Content-Type": FORM, "X-Twilio-Signature": signature}
        return self.send("POST", target, urlencode(form).encode(), headers)

    def deliver(self, url: str, fields: Fields, headers: Mapping[str, str]) -> Answer:
        """One webhook of the phone's: what a Phone calls `deliver`."""
        assert signed_url(url).startswith(ORIGIN)
        target = urldefrag(url).url.removeprefix(ORIGIN)
        return self.send("POST", target, urlencode(fields).encode(), headers)

    def phone(self, caller: str = "+15557654321") -> Phone:
        """A phone that calls this instance."""
        return Phone(ORIGIN, token=TOKEN, deliver=self.deliver, caller=caller)


def stored(path: Path) -> dict[str, str]:
    """Every cell of an embedded file with its value; none when there is no file yet."""
    if not path.exists():
        return {}
    with closing(sqlite3.connect(path)) as database:
        return dict(database.execute("SELECT key, value FROM cells").fetchall())
