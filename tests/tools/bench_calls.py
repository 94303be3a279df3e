"""The calls of a bench: webhooks signed beforehand, spoken by many callers in one thread."""

import re
import selectors
import socket
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import cycle
from typing import Final
from urllib.parse import urlencode

from standins.twiml_tables import link
from standins.webhooks import Fields, sign, signed_url
from tools.bench_contestants import ORIGIN, TOKEN
from tools.bench_processes import PATIENCE, Server


@dataclass(frozen=True)
class Webhook:
    """One request of a call, for any CallSid."""

    target: str
    fields: Fields

    def signed(self, call_sid: str) -> bytes:
        """The whole request as Twilio sends it."""
        fields = [*self.fields, ("CallSid", call_sid)]
        signature = sign(TOKEN, signed_url(ORIGIN + self.target), fields)
        body = urlencode(fields).encode()
        head = (
            f"POST {self.target} HTTP/1.1\r\nHost: line.example\r\nX-Twilio-Signature: {signature}"
            f"\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}"
        )
        return f"{head}\r\n\r\n".encode() + body


WHERE: Final = ("City", "State", "Zip", "Country")
SENT: Final[Fields] = [  # with what a later webhook adds, the 25 fields that Twilio sends
    ("AccountSid", "AC" + "0" * 32),
    ("ApiVersion", "2010-04-01"),
    ("CallStatus", "in-progress"),
    ("Direction", "inbound"),
    *((side, "+15557654321") for side in ("From", "Caller")),
    *((side, "+15550100000") for side in ("To", "Called")),
    *((side + what, "SOMEWHERE") for side in ("From", "To", "Caller", "Called") for what in WHERE),
]
HEARD: Final[Fields] = [
    ("SpeechResult", "This is Ann, and my bill is wrong."),
    ("Confidence", "0.93"),
    ("Language", "en-US"),
]
DIALLED: Final[Fields] = [("DialCallStatus", "completed"), ("DialCallDuration", "61")]
RINGING: Final = Webhook("/voice/inbound", SENT)
ENDED: Final[Fields] = [("CallStatus", "completed"), ("CallDuration", "80")]
OVER: Final = Webhook("/voice/status", [pair for pair in SENT if pair[0] != "CallStatus"] + ENDED)


def new_sid() -> str:
    return "CA" + uuid.uuid4().hex


def exchange(connection: socket.socket, request: bytes) -> bytes:
    """Send a request and return the whole answer, which has a Content-Length or is a 204."""
    connection.sendall(request)
    answer = b""
    while not whole(answer):
        some = connection.recv(65536)
        if not some:
            raise ConnectionError("the contestant hung up")
        answer += some
    return answer


def whole(answer: bytes) -> bool:
    """Tell whether all of an answer is there. Raises RuntimeError for one that is no success."""
    head, found, body = answer.partition(b"\r\n\r\n")
    if not found:
        return False
    if not head.startswith(b"HTTP/1.1 20"):
        raise RuntimeError(f"a contestant answered {answer[:300]!r}")
    length = re.search(rb"(?i)content-length: *(\d+)", head)
    return len(body) >= (int(length[1]) if length else 0)


def learn(server: Server) -> list[Webhook]:
    """The webhooks of one call, each at the URL that the answer before it gave."""
    call_sid, script = new_sid(), [RINGING]
    with server.connect() as connection:
        while True:
            answer = exchange(connection, script[-1].signed(call_sid)).decode()
            way_back = re.search(r'<(Gather|Dial)\b[^>]* action="([^"]*)"', answer)
            if not way_back:
                return script
            target = way_back[2].replace("&amp;", "&").partition("#")[0]
            assert link(target) is None, target
            said = HEARD if way_back[1] == "Gather" else DIALLED
            script.append(Webhook(target, [*SENT, *said]))


def play(
    servers: Server | Sequence[Server], calls: Iterable[Sequence[bytes]], callers: int
) -> list[list[float]]:
    """Seconds of every webhook, a list for each call. `callers` speak at once, in one thread.

    Of several servers each gets a webhook in turn, as instances do.
    """
    doors = [servers] if isinstance(servers, Server) else servers
    left, done = iter(calls), list[list[float]]()
    with selectors.DefaultSelector() as ready, ExitStack() as stack:
        for _ in range(callers):
            connections = [stack.enter_context(door.connect()) for door in doors]
            line = Conversation(connections, left, done)
            if line.speak():
                for connection in connections:
                    ready.register(connection, selectors.EVENT_READ, line)
        while ready.get_map():
            heard = ready.select(PATIENCE)
            if not heard:
                raise TimeoutError("a contestant has fallen silent")
            for key, _ in heard:
                if not key.data.listen():
                    for connection in key.data.connections:
                        ready.unregister(connection)
    return done


class Conversation:
    """Connections, used in turn, on which one call is spoken after the other."""

    def __init__(
        self,
        connections: Sequence[socket.socket],
        left: Iterator[Sequence[bytes]],
        done: list[list[float]],
    ) -> None:
        self.connections, self.left, self.done = connections, left, done
        self.turns = cycle(connections)
        self.requests: Iterator[bytes] = iter(())
        self.answer, self.sent = b"", 0.0

    def speak(self) -> bool:
        """Send the next webhook, of the next call if need be; False when all calls are over."""
        request = next(self.requests, None)
        if request is None:
            call = next(self.left, None)
            if call is None:
                return False
            self.requests = iter(call)
            self.done.append([])
            self.mine, request = self.done[-1], next(self.requests)
        self.connection = next(self.turns)
        self.answer, self.sent = b"", time.perf_counter()
        self.connection.sendall(request)
        return True

    def listen(self) -> bool:
        """Take what has come; when that was all, speak on."""
        some = self.connection.recv(65536)
        if not some:
            raise ConnectionError("the contestant hung up")
        self.answer += some
        if not whole(self.answer):
            return True
        self.mine.append(time.perf_counter() - self.sent)
        return self.speak()
