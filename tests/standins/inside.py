"""A line inside the test's own process: everything of an instance except the socket.

    line = Inside({"FORWARD_TO": "+15550100099", "STATE_FILE": "/tmp/calls"})
    phone = line.phone()                                # a whole call, played by call.py
    answer = line.post("/voice/inbound", fields)    # one webhook, signed as Twilio signs
    answer = line.send("GET", "/healthz")               # any request, byte for byte

A request reaches `main.PhoneLine` as gunicorn would bring it: with the target as it came in
RAW_URI, and with the path decoded. Several of these in one process are several instances: they
share nothing but the store that they are told to use.
"""

import re
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, redirect_stdout
from dataclasses import fields
from io import BytesIO, StringIO
from pathlib import Path
from typing import Final
from urllib.parse import unquote_to_bytes, urldefrag, urlencode, urlsplit

from flask import Request

from phone_line import line as line_room
from phone_line.cells import Cells
from phone_line.plan import Plan
from phone_line.settings import Settings
from standins.backend import Backend
from standins.call import Phone
from standins.twiml import judge
from standins.upstash import Upstash
from standins.webhooks import Answer, Fields, sign, signed_url

with redirect_stdout(StringIO()):  # where it would log what its own process lacks
    import main

ORIGIN: Final = "https://line.example"
TOKEN: Final = "secret"
FORM: Final = "application/x-www-form-urlencoded"

# Settings on which no plan depends: they differ from one test to the next.
ELSEWHERE: Final = frozenset(
    {"upstash_redis_rest_url", "upstash_redis_rest_token", "state_file", "backend_token"}
    | {"twilio_auth_token", "public_url", "admin_token", "twilio_api_key", "twilio_api_secret"}
)


def once(
    build: Callable[[Settings], tuple[Plan, list[str]]],
) -> Callable[[Settings], tuple[Plan, list[str]]]:
    """The same plan, which never changes, for all lines of the same settings.

    A line reads its words and rehearses its flow before the first call. That takes a server a
    fiftieth of a second, once; the tests make thousands of lines, of few kinds.
    """
    built: dict[str, tuple[Plan, list[str]]] = {}

    def build_plan(settings: Settings) -> tuple[Plan, list[str]]:
        wanted = {f.name: getattr(settings, f.name) for f in fields(settings)}
        key = repr([wanted[name] for name in sorted(wanted.keys() - ELSEWHERE)])
        if key not in built:
            built[key] = build(settings)
        plan, faults = built[key]
        return plan, [*faults]

    return build_plan


setattr(line_room, "build_plan", once(line_room.build_plan))  # noqa: B010 # mypy wants it so


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
        self.line = main.PhoneLine(self.env)

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


def replace_cell(path: Path, call_sid: str, turn: int, value: str) -> None:
    """Puts a cell into an embedded file by hand, in place of what stands there."""
    assert Inside({"STATE_FILE": str(path)}).send("GET", "/healthz").status == 200
    cell = (f"call:{call_sid}:{turn}", value, time.time() + 600)
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("REPLACE INTO cells(key, value, ends) VALUES(?, ?, ?)", cell)


def fill_cell(here: Inside, cell: str, value: str) -> None:
    """Fills an empty cell with whatever."""
    assert Cells(here.line.line.store, time.monotonic() + 2).settle(cell, value) == value


@contextmanager
def no_threads() -> Iterator[None]:
    """A while in which nobody can start a thread: its stack would be larger than any memory."""
    threading.stack_size(1 << 60)
    try:
        yield
    finally:
        threading.stack_size(0)


def new_call() -> str:
    """The CallSid of a call that nobody made yet."""
    return "CA" + uuid.uuid4().hex


def webhook(**more: str) -> dict[str, str]:
    """The fields of a webhook, of a call of its own unless `CallSid` is given."""
    usual = {
        "CallSid": new_call(),
        "From": "+15557654321",
        "To": "+15550001111",
        "CallStatus": "in-progress",
    }
    return usual | more


def judged(answer: Answer, target: str = "/") -> str:
    """The TwiML of a good answer, which has passed the judge."""
    assert (answer.status, answer.kind) == (200, "text/xml")
    twiml = answer.body.decode()
    assert judge(twiml, ORIGIN + target) == []
    return twiml


def dialled(said: str | bytes) -> list[str]:
    """The phones that a document rings, in order; none if it dials nobody."""
    twiml = said.decode() if isinstance(said, bytes) else said
    return re.findall("<(?:Number|Sip)[^>]*>([^<]*)</", twiml)


def line_with(upstash: Upstash, backend: Backend, **env: str) -> Inside:
    """A line with a backend and a person, on a database."""
    asking = {"BACKEND_URL": backend.url, "FORWARD_TO": "+15550100099"}
    return Inside({**upstash.settings, **asking, **env})
