"""A language model's endpoint: OpenAI's /chat/completions, of which a test decides every answer.

    with Model(lambda talk: says("We open at five.")) as model:
        line = Inside({**model.settings, "FORWARD_TO": "+15550100099"})
    assert model.talks[0].heard == "when do you open" and model.complaints == []

It is as strict as the strictest service: a question has a model and messages and nothing else, the
first message is the system's, the second the user's, user and assistant take turns, the last is the
user's, and no message is empty. What breaks that is refused with 400 and kept in `complaints`. A
wrong key is refused with 401, a model of another name with 404.
"""

import json
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, NamedTuple, Self

Message = dict[str, Any]

PATH: Final = "/v1/chat/completions"
KEY: Final = "sk-stand-in-0123456789"
NAME: Final = "stand-in:1b"
TOKENS: Final = 57  # that an answer costs, unless it says otherwise


class Talk(NamedTuple):
    """One request as the endpoint got it; `attempt` counts from 1 for each Idempotency-Key."""

    key: str
    messages: list[Message]
    at: float
    attempt: int

    @property
    def heard(self) -> str:
        """The last words of the caller."""
        return str(self.messages[-1]["content"])

    @property
    def instructions(self) -> str:
        """The instructions to the model, before the conversation."""
        return str(self.messages[0]["content"])


class Reply(NamedTuple):
    """An answer as bytes; `seconds` late, or cut off before the first byte."""

    body: bytes
    status: int = 200
    headers: Mapping[str, str] = {}
    seconds: float = 0.0
    cut: bool = False


def says(words: object, seconds: float = 0.0, tokens: int = TOKENS) -> Reply:
    """A completion with this content, which is text unless a test wants it otherwise."""
    return writes({"role": "assistant", "content": words}, seconds, tokens)


def does(then: str, **more: str) -> Reply:
    """A completion that acts: transfer, voicemail or hangup."""
    return says(json.dumps({"then": then, **more}))


def writes(message: object, seconds: float = 0.0, tokens: int = TOKENS) -> Reply:
    """A completion with any message."""
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    usage = {"prompt_tokens": 0, "completion_tokens": tokens, "total_tokens": tokens}
    answer = {"object": "chat.completion", "model": NAME, "choices": [choice], "usage": usage}
    return Reply(json.dumps(answer).encode(), seconds=seconds)


def fails(status: int, **headers: str) -> Reply:
    """A refusal as services word it; `Retry_After="2"` becomes a header."""
    error = {"message": f"You get {status} and {KEY} is wrong.", "type": "error", "code": None}
    lines = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(json.dumps({"error": error}).encode(), status, lines)


class Model:
    """A real HTTP server; `decide` finds each answer, and may take its time."""

    def __init__(self, decide: Callable[[Talk], Reply], port: int = 0) -> None:
        self.decide = decide
        self.port = port
        self.talks: list[Talk] = []
        self.requests: list[str] = []  # their paths, those that were refused included
        self.complaints: list[str] = []
        self._lock = threading.Lock()
        self._server: Door | None = None

    def __enter__(self) -> Self:
        self._server = Door(self)
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}{PATH}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.die()

    def die(self) -> None:
        """Nobody listens at the port any more. Harmless when nobody did."""
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    @property
    def settings(self) -> dict[str, str]:
        """The settings that make a line ask this model."""
        return {"BACKEND_URL": self.url, "BACKEND_TOKEN": KEY, "BACKEND_MODEL": NAME}

    def of(self, call_sid: str) -> list[Talk]:
        """The questions about one call."""
        return [talk for talk in tuple(self.talks) if talk.key.startswith(call_sid)]

    def answer(self, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """The answer to a request: a refusal, or what the test decides."""
        self.requests.append(path)
        if path != PATH:
            return fails(404)
        if headers.get("Authorization") != f"Bearer {KEY}":
            return fails(401)
        asked = json.loads(body)
        complaint = find_complaint(asked)
        if complaint:
            self.complaints.append(complaint)
            return fails(400)
        if asked["model"] != NAME:
            return fails(404)
        return self.decide(self.keep(headers.get("Idempotency-Key", ""), asked["messages"]))

    def keep(self, key: str, messages: list[Message]) -> Talk:
        """Keep what was asked."""
        with self._lock:
            attempt = 1 + sum(talk.key == key for talk in self.talks)
            talk = Talk(key, messages, time.monotonic(), attempt)
            self.talks.append(talk)
        return talk


def find_complaint(asked: Mapping[str, Any]) -> str:
    """The complaints of the strictest of services about a question; none, if it is well."""
    if asked.keys() != {"model", "messages"}:
        return f"fields {sorted(asked)}"
    roles = [message["role"] for message in asked["messages"]]
    turns = ["user", "assistant"] * len(roles)
    if roles[:1] != ["system"] or roles[1:] != turns[: len(roles) - 1] or roles[-1] != "user":
        return f"roles {roles}"
    if not all(isinstance(m["content"], str) and m["content"] for m in asked["messages"]):
        return "a message without words"
    return ""


class Door(ThreadingHTTPServer):
    """The server that takes questions."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, model: Model) -> None:
        super().__init__(("127.0.0.1", model.port), make_handler(model))


def make_handler(model: Model) -> type[BaseHTTPRequestHandler]:
    """The handler of one connection."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            reply = model.answer(self.path, dict(self.headers), body)
            time.sleep(reply.seconds)
            if reply.cut:
                return
            with suppress(OSError):  # nobody waits for it any more
                self.send(reply)

        def send(self, reply: Reply) -> None:
            self.send_response(reply.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(reply.body)))
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(reply.body)

        def log_message(self, *_: object) -> None:
            return

    return Handler
