"""A train-ticket line: the worked example of a backend of your own.

    python tests/tickets.py --port 9000 --token open-sesame
    # and for the phone line: BACKEND_URL=http://127.0.0.1:9000 BACKEND_TOKEN=open-sesame

The phone line brings what a caller said as JSON, and this service answers what to say and what
comes `then`: listen (to the caller's next words), transfer, voicemail or hangup. It may take its
time: the line keeps the caller company. A question can come twice, after a lost connection say,
but with the same Idempotency-Key, so `Once` makes sure that nobody pays twice.

A call ends in one of three ways: booked, payment refused, or no such train.
"""

import argparse
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from hmac import compare_digest
from typing import Any, Final, NamedTuple, Self

from flask import Flask, Response, abort, jsonify, request
from werkzeug.serving import WSGIRequestHandler, make_server


class Train(NamedTuple):
    """A connection of the timetable."""

    leaves: str
    euros: int


TIMETABLE: Final = {
    ("berlin", "hamburg"): Train("9:15", 29),
    ("berlin", "munich"): Train("10:30", 89),
    ("berlin", "paris"): Train("7:05", 139),
}
CARD_LIMIT: Final = 100  # euros that the bank lets a caller spend
PAYMENT_SECONDS: Final = 12.0  # a bank is slow, and so is this one, on purpose
Answer = dict[str, str]


class TicketLine:
    """Sells tickets by phone. A real one would keep `journeys` and `payments` in its database."""

    def __init__(self, payment_seconds: float = PAYMENT_SECONDS) -> None:
        self.payment_seconds = payment_seconds
        self.journeys: dict[str, tuple[str, str]] = {}  # by call: what the caller may buy
        self.payments: list[tuple[str, int]] = []  # call and euros
        self.events: list[dict[str, Any]] = []  # voicemails, and calls that have ended

    def answer(self, call_sid: str, heard: str) -> Answer:
        """The next words for the caller."""
        if call_sid in self.journeys:
            return self.sell(call_sid, wanted=bool(re.search(r"\byes\b", heard.lower())))
        cities = re.search(r"from (\w+) to (\w+)", heard.lower())
        if not cities:
            return {"say": "Where from, and where to?", "then": "listen"}
        start, end = cities[1], cities[2]
        train = TIMETABLE.get((start, end))
        if not train:
            words = f"There is no train from {start.title()} to {end.title()}. Goodbye."
            return {"say": words, "then": "hangup"}
        self.journeys[call_sid] = (start, end)
        words = f"A train to {end.title()} leaves at {train.leaves}, for {train.euros} euros."
        return {"say": f"{words} Shall I book it?", "then": "listen"}

    def sell(self, call_sid: str, wanted: bool) -> Answer:
        """Takes the money, or leaves it."""
        start, end = self.journeys.pop(call_sid)
        if not wanted:
            return {"say": "Then tell me another journey.", "then": "listen"}
        if not self.pay(call_sid, TIMETABLE[start, end].euros):
            return {"say": "Your payment was refused, nothing is booked.", "then": "hangup"}
        return {"say": f"You are booked to {end.title()}. Have a good trip!", "then": "hangup"}

    def pay(self, call_sid: str, euros: int) -> bool:
        """Asks the bank, which takes its time. Whether the money is ours."""
        time.sleep(self.payment_seconds)
        if euros > CARD_LIMIT:
            return False
        self.payments.append((call_sid, euros))
        return True

    def note(self, event: dict[str, Any]) -> Answer:
        """Hears of a voicemail, or of the end of a call. Nobody waits for words."""
        self.events.append(event)
        return {}


class Once:
    """Answers each Idempotency-Key once; whoever repeats it waits for that same answer."""

    def __init__(self) -> None:
        self._answers: dict[str, Future[Answer]] = {}
        self._lock = threading.Lock()

    def answer(self, key: str, work: Callable[[], Answer]) -> Answer:
        """The answer that stands for a key; `work` finds it, unless somebody is at it already."""
        with self._lock:
            first = key not in self._answers
            answer = self._answers.setdefault(key, Future())
        if first:
            try:
                answer.set_result(work())
            except Exception as error:
                answer.set_exception(error)
        return answer.result()


def service(line: TicketLine, token: str, asked: list[tuple[str, dict[str, Any]]]) -> Flask:
    """The ticket line over HTTP. What it is asked is kept in `asked`: (Idempotency-Key, body)."""
    app, once = Flask(__name__), Once()
    expected = f"Bearer {token}" if token else ""

    @app.post("/")
    def ask() -> Response:
        if not compare_digest(request.headers.get("Authorization", ""), expected):
            abort(401)
        key, body = request.headers["Idempotency-Key"], request.get_json()
        asked.append((key, body))
        if "event" in body:
            return jsonify(once.answer(key, lambda: line.note(body)))
        return jsonify(once.answer(key, lambda: line.answer(body["call_sid"], body["heard"])))

    return app


class Quiet(WSGIRequestHandler):
    """Says nothing about each request."""

    def log_request(self, *_: object) -> None:
        return


class Tickets:
    """The service on a port of this machine, from `with` to its end."""

    def __init__(
        self, token: str = "", payment_seconds: float = PAYMENT_SECONDS, port: int = 0
    ) -> None:
        self.line, self.asked = TicketLine(payment_seconds), list[tuple[str, dict[str, Any]]]()
        self.token, self.port = token, port

    def __enter__(self) -> Self:
        app = service(self.line, self.token, self.asked)
        self.server = make_server("127.0.0.1", self.port, app, True, request_handler=Quiet)
        self.url = f"http://127.0.0.1:{self.server.port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    @property
    def keys(self) -> list[str]:
        """The Idempotency-Keys as they came, repeats included."""
        return [key for key, _ in self.asked]


def main() -> None:
    """Sell tickets until Ctrl-C."""
    parser = argparse.ArgumentParser(description="A train-ticket line for BACKEND_URL.")
    parser.add_argument("--port", type=int, default=9000)
    parser.add_argument("--token", default="", help="what BACKEND_TOKEN holds; default: none")
    parser.add_argument("--payment-seconds", type=float, default=PAYMENT_SECONDS)
    wanted = parser.parse_args()
    with Tickets(wanted.token, wanted.payment_seconds, wanted.port) as tickets:
        print(f"BACKEND_URL={tickets.url}", flush=True)
        with suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()
