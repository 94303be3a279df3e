"""The service that decides what comes next, asked over HTTP.

It is one of your own, or with BACKEND_MODEL a language model's; both get one POST a question, with
`Authorization: Bearer BACKEND_TOKEN` and `Idempotency-Key: {CallSid}:{turn}`, the same on every
attempt. What stands in it is the dialect's: `protocol.py`, which also tells how any answer is
understood, or `model.py`. Neither is loaded before somebody has to be asked.
"""

import json
import re
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from email.utils import parsedate_to_datetime
from functools import cached_property
from http.client import HTTPException
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from phone_line.deadline import Moment
from phone_line.http import Endpoint
from phone_line.log import find_cause, write_log
from phone_line.records import Answer, Question
from phone_line.settings import Settings
from phone_line.webhook import Webhook

if TYPE_CHECKING:
    from phone_line.protocol import Received

AGAIN: Final = (408, 425, 429)  # a refusal that may end by itself; any other 4xx is final


class BackendFailed(Exception):
    """The backend gave no usable answer.

    `final`: to ask again would not help. `retry_after`: seconds before which it would not, either.
    """

    def __init__(self, reason: str, *, final: bool = False, retry_after: float = 0.0) -> None:
        super().__init__(reason)
        self.final, self.retry_after = final, retry_after


class Exchange(NamedTuple):
    """One turn of the conversation so far, as the backend is told of it."""

    heard: str
    said: str


class Dialect(Protocol):
    """A way to write questions, and to read what is answered."""

    @property
    def refusals(self) -> Mapping[int, str]:
        """Advice for the owner, by the status that the service refuses with."""

    def write_question(
        self, webhook: Webhook, question: Question, history: Sequence[Exchange], language: str
    ) -> Mapping[str, Any]:
        """The body of a question, which is sent as JSON."""

    def read_answer(self, body: bytes) -> "Received":
        """The text of an answer and its cost."""


class Backend:
    """The service at BACKEND_URL."""

    def __init__(self, settings: Settings, names: Collection[str]) -> None:
        """`names` are the departments, and FORWARD_TO, that a caller can be connected to."""
        self.settings, self.names = settings, names

    @cached_property
    def dialect(self) -> Dialect:
        """The way in which the service is spoken to, loaded when it is needed first."""
        if self.settings.backend_model:
            from phone_line.model import LanguageModel

            return LanguageModel(self.settings, self.names)
        from phone_line.protocol import OwnService

        return OwnService()

    @cached_property
    def endpoint(self) -> Endpoint:
        """The connections to the service, made when it is needed first."""
        headers = {"Content-Type": "application/json", "User-Agent": "phone-line"}
        if self.settings.backend_token:
            headers["Authorization"] = f"Bearer {self.settings.backend_token}"
        return Endpoint(self.settings.backend_url, headers)

    def ask(
        self,
        webhook: Webhook,
        question: Question,
        history: Sequence[Exchange],
        language: str,
        until: Moment,
    ) -> Answer:
        """One attempt to have a question answered. Raises BackendFailed.

        What it cost, in seconds and tokens, stands in the log and in the answer.
        """
        from phone_line.protocol import NotUnderstood, understand_answer  # no call begins with it

        began = time.monotonic()
        message = self.dialect.write_question(webhook, question, history, language)
        body = self.post(message, f"{webhook.call_sid}:{webhook.turn}", until)
        received = self.dialect.read_answer(body)
        seconds = round(time.monotonic() - began, 3)
        call = {"call": webhook.call_sid, "turn": webhook.turn}
        tokens = received.tokens or None
        write_log("info", "backend answered", **call, seconds=seconds, tokens=tokens)
        try:
            answer = understand_answer(received, self.names)
        except NotUnderstood as fault:
            raise BackendFailed(str(fault)) from None
        return replace(answer, seconds=seconds, usage=received.tokens)

    def tell(
        self, webhook: Webhook, event: str, fields: Mapping[str, object], until: Moment
    ) -> None:
        """One attempt to bring an event. Raises BackendFailed."""
        message = {
            "event": event,
            "call_sid": webhook.call_sid,
            "from": webhook.caller,
            "to": webhook.called,
            **fields,
        }
        self.post(message, f"{webhook.call_sid}:{event}", until)

    def post(self, message: Mapping[str, Any], key: str, until: Moment) -> bytes:
        """Bring a message; the body of the answer. Raises BackendFailed."""
        body = json.dumps(message).encode()
        try:
            status, headers, answer = self.endpoint.post(body, until, {"Idempotency-Key": key})
        except (OSError, HTTPException) as error:
            raise BackendFailed(find_cause(error)) from None
        if 200 <= status < 300:
            return answer
        reason = self.dialect.refusals.get(status)
        raise BackendFailed(
            f"it answered {status}: {reason}" if reason else f"it answered {status}",
            final=status < 500 and status not in AGAIN,
            retry_after=read_retry_after(headers.get("retry-after", "")),
        )


def read_retry_after(header: str) -> float:
    """The seconds that a Retry-After asks for, which may be a date; 0 for what is neither.

    https://www.rfc-editor.org/rfc/rfc9110#field.retry-after
    """
    if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", header):
        return float(header)
    with suppress(ValueError, OverflowError, OSError):
        moment = parsedate_to_datetime(header).timestamp()
        return max(moment - time.time(), 0.0)
    return 0.0
