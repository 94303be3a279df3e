"""A backend of which a test decides every answer, and callers for whom time is real.

with Backend(lambda question: says("Booked.", then="hangup")) as backend: ...
caller = Caller(first, second)          # rings at the first; `caller.instance` is where it rings
caller.ask("a ticket, please")          # real pauses: returns when the holding is over
assert caller.times("line: Booked.") == 1 and backend.of(caller)[0].key
"""

import json
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, NamedTuple, Self, TypeVar

from standins.asking import Clock
from standins.call import NotNow, Phone
from standins.instance import Instance
from standins.twilio_api import TwilioApi
from standins.webhooks import Answer, Fields, http_deliver

ORIGIN: Final = "https://line.example"  # where Twilio believes the line to be
Result = TypeVar("Result")
STEP: Final = 0.02  # seconds between looks at a condition


class Question(NamedTuple):
    """One request as the backend got it; `attempt` counts from 1 for each key."""

    key: str
    body: dict[str, Any]
    authorization: str
    at: float
    attempt: int

    @property
    def heard(self) -> str:
        """The caller's words; empty for an event."""
        return str(self.body.get("heard", ""))


class Reply(NamedTuple):
    """An answer as bytes; dripped a byte at a time, or cut off before the first one."""

    body: bytes
    status: int = 200
    kind: str = "application/json"
    drip: float = 0.0
    cut: bool = False


def says(words: str, then: str = "listen", **more: str) -> Reply:
    """An answer as the protocol wants it."""
    return Reply(json.dumps({"say": words, "then": then, **more}).encode())


Decide = Callable[[Question], Reply]


class Backend:
    """A real HTTP server whose `decide` may sleep, and keeps what it was asked."""

    def __init__(self, decide: Decide) -> None:
        self.decide = decide
        self.questions: list[Question] = []
        self.closing = threading.Event()
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._server = Door(self)
        self.url = f"http://127.0.0.1:{self._server.server_port}/ask"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()

    def of(self, caller: "Caller") -> list[Question]:
        """The questions about one call, events included."""
        sid = caller.call_sid
        return [question for question in tuple(self.questions) if question.body["call_sid"] == sid]

    def keep(self, headers: Mapping[str, str], body: bytes) -> Question:
        """Notes a question; the names of headers are in lower case."""
        key, at = headers.get("idempotency-key", ""), time.monotonic()
        with self._lock:
            attempt = 1 + sum(question.key == key for question in self.questions)
            found = Question(key, json.loads(body), headers.get("authorization", ""), at, attempt)
            self.questions.append(found)
        return found


def slow_backend(seconds: float) -> Backend:
    """A backend that takes its time, and books whatever is wanted."""

    def decide(_: Question) -> Reply:
        time.sleep(seconds)
        return says("Booked.")

    return Backend(decide)


class Door(ThreadingHTTPServer):
    """The server that takes questions."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, backend: Backend) -> None:
        super().__init__(("127.0.0.1", 0), self._handler(backend))

    @staticmethod
    def _handler(backend: Backend) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle(self) -> None:
                with suppress(ConnectionError):  # the instance was killed
                    super().handle()

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                reply = backend.decide(backend.keep(headers, body))
                with suppress(OSError):  # nobody waits for it any more
                    self.send(reply)

            def send(self, reply: Reply) -> None:
                if reply.cut:
                    self.close_connection = True
                    return
                self.send_response(reply.status)
                self.send_header("Content-Type", reply.kind)
                self.send_header("Content-Length", str(len(reply.body)))
                self.end_headers()
                if not reply.drip:
                    self.wfile.write(reply.body)
                    return
                for byte in reply.body:
                    self.wfile.write(bytes([byte]))
                    backend.closing.wait(reply.drip)

            def log_message(self, *_: object) -> None:
                return

        return Handler


@dataclass
class Pauses(Clock):
    """A clock on which a hold takes real seconds, unless the line fetches the caller out of it."""

    over: Callable[[], bool] = field(default=lambda: False)

    def hold(self, seconds: float) -> None:
        """Waits."""
        self.tick(seconds)
        until(self.over, seconds)


class Caller:
    """Somebody on the phone, for whom time is real; `events` has the moment of each event."""

    def __init__(
        self, *instances: Instance, token: str, api: TwilioApi | None = None, paused: bool = True
    ) -> None:
        self.instance = instances[0]
        self.events: list[tuple[float, str]] = []
        clock = Pauses() if paused else Clock()
        self.phone = Phone(ORIGIN, token=token, deliver=self.deliver, say=self.note, clock=clock)
        if isinstance(clock, Pauses):
            clock.over = lambda: self.phone.state != "hold"
        if api:
            api.calls[self.phone.call_sid] = self.phone

    def deliver(self, url: str, fields: Fields, headers: Mapping[str, str]) -> Answer:
        """Brings a webhook to the instance that the load balancer would choose."""
        return http_deliver(url.replace(ORIGIN, self.instance.url), fields, headers)

    def note(self, event: str) -> None:
        self.events.append((time.monotonic(), event))

    def ring(self) -> Self:
        """Rings, and listens to the greeting."""
        self.phone.ring()
        return self

    def say(self, words: str) -> Self:
        """Says something, and listens until the line expects something else or holds."""
        self.phone.say(words)
        return self

    def hold(self) -> Self:
        """Stays on hold for as long as it takes."""
        while self.phone.state in {"hold", "playing"}:
            with suppress(NotNow):  # fetched out of the hold just now
                self.phone.wait()
        return self

    def ask(self, *words: str) -> Self:
        """A conversation: rings, says one thing after the other, waits for the answers."""
        self.ring()
        for each in words:
            self.say(each).hold()
        return self

    def times(self, words: str) -> int:
        """The number of events with these words."""
        return sum(words in event for _, event in tuple(self.events))

    def moment(self, words: str) -> float:
        """The moment of the first event with these words."""
        return next(at for at, event in tuple(self.events) if words in event)

    @property
    def call_sid(self) -> str:
        """The name of the call."""
        return self.phone.call_sid

    def waited_for(self, words: str) -> float:
        """Seconds between the last thing that the caller said before and these words."""
        end = self.moment(words)
        return end - max(
            at for at, event in self.events if event.startswith("caller:") and at < end
        )

    @property
    def held(self) -> int:
        """The number of times that the caller was put on hold."""
        return self.times("line waits")

    @property
    def slowest(self) -> float:
        """The seconds of the slowest webhook that was answered."""
        return max(hook.answer.seconds for hook in self.phone.webhooks if hook.answer)


def until(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    """Waits for a condition, at most so long; whether it holds."""
    end = time.monotonic() + seconds
    while not (holds := condition()) and time.monotonic() < end:
        time.sleep(min(STEP, max(end - time.monotonic(), 0)))
    return holds


def together(*works: Callable[[], Result]) -> list[Result]:
    """Does everything at once; what each returned. Raises what was raised."""
    with ThreadPoolExecutor(len(works)) as pool:
        return [done.result() for done in [pool.submit(work) for work in works]]
