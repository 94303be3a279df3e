"""The backend of a chaos run. It keeps books of what it was asked, and must do each thing once.

A caller says how it is to answer: "answer slow then transfer about case7".
"""

import contextlib
import json
import re
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random
from typing import Any, Final, cast

from tools.chaos_ledger import TOKEN, Ledger

ANSWER: Final = "Answer to {case} is yes"
MANNERS: Final[Mapping[str, tuple[str, ...]]] = {
    "quick": ("well",),
    "slow": ("well",),
    "flaky": ("503", "garbage", "well"),
    "lossy": ("lost", "well"),
    "broken": ("422",),
}  # what becomes of the first attempt, the second, ...; the last stays


@dataclass
class Work:
    """The questions to the backend under one Idempotency-Key."""

    case: str
    manner: str
    others: list[str] = field(default_factory=list)  # cases that came under the key of this one
    asks: list[list[float]] = field(default_factory=list)  # when each began and ended
    answer: bytes = b""
    effects: int = 0


class Backend(ThreadingHTTPServer):
    """A service that decides what happens next, and keeps books of what it was asked."""

    daemon_threads, request_queue_size = True, 128

    def __init__(self, ledger: Ledger) -> None:
        super().__init__(("127.0.0.1", 0), Connection)
        self.url = f"http://127.0.0.1:{self.server_address[1]}/decide"
        self.works: dict[str, dict[str, Work]] = defaultdict(dict)  # by call, by key
        self.events: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        self.ledger, self.lock = ledger, threading.Lock()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 (as there)
        """Say nothing of an instance that was killed while it asked."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    def note(self, key: str, event: Mapping[str, Any]) -> None:
        with self.lock:
            self.events[event["call_sid"], event["event"]][key] += 1

    def begin(self, key: str, question: Mapping[str, Any]) -> tuple[Work, list[float]]:
        """Write an attempt down, and whether its key has brought another question before."""
        manner, case = re.findall(r"answer (\w+) then \w+ about (\w+)", question["heard"])[0]
        now = time.monotonic()
        with self.lock:
            work = self.works[question["call_sid"]].setdefault(key, Work(case, manner))
            if key != f"{question['call_sid']}:{question['turn']}":
                self.ledger.breach("the key names call and turn", key=key)
            if work.case != case:
                work.others.append(case)
            work.asks.append([now, now])
            return work, work.asks[-1]

    def carry_out(self, work: Work, question: Mapping[str, Any]) -> bytes:
        """The effect, once for each key; then the same answer for ever."""
        with self.lock:
            if not work.answer:
                then = re.findall(r"then (\w+) about", question["heard"])[0]
                to = {"to": "billing"} if then == "transfer" else {}
                say = f"{ANSWER.format(case=work.case)}."
                work.answer = json.dumps({"say": say, "then": then, **to}).encode()
                work.effects += 1
            return work.answer


class Connection(BaseHTTPRequestHandler):
    """One connection to the backend."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    @property
    def backend(self) -> Backend:
        return cast("Backend", self.server)

    def do_POST(self) -> None:
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        key = self.headers["Idempotency-Key"]
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            self.backend.ledger.breach("the backend knows who asks", key=key)
        if "event" in message:
            self.backend.note(key, message)
            return self.reply(200, b"{}")
        work, ask = self.backend.begin(key, message)
        time.sleep(Random(key).uniform(*((3, 5) if work.manner == "slow" else (0, 0.3))))
        outcomes = MANNERS[work.manner]
        self.finish_with(outcomes[min(len(work.asks), len(outcomes)) - 1], work, message)
        ask[1] = time.monotonic()
        return None

    def finish_with(self, outcome: str, work: Work, question: Mapping[str, Any]) -> None:
        if outcome.isdigit():
            return self.reply(int(outcome), b"no")
        if outcome == "garbage":
            return self.reply(200, b"<h1>It works!</h1>")
        answer = self.backend.carry_out(work, question)
        if outcome == "lost":
            self.close_connection = True
            return None
        return self.reply(200, answer)

    def reply(self, status: int, body: bytes) -> None:
        with contextlib.suppress(OSError):  # whoever asked was killed
            head = f"HTTP/1.1 {status} -\r\nContent-Length: {len(body)}\r\n\r\n"
            self.wfile.write(head.encode() + body)

    def log_message(self, *_: object) -> None:
        """Nothing: there is a table at the end."""
