"""An inbound phone line as one stateless function: Twilio asks, it answers with TwiML.

A call is a series of numbered turns. Every URL that we hand to Twilio names the turn that will
come back to it (`/voice/process?turn=3&step=menu`). Twilio signs that URL and repeats it verbatim
when it retries, so the turn number is idempotency key, lock and version at once.

No call is kept in this process. Redis holds write-once cells: whoever settles a cell first wins,
and everybody else is handed what stands. The cell `call:{CallSid}:{n}` is the call after n answers,
together with the TwiML of the n-th.

This file is the function: the table of paths, the way of one webhook, and how the server starts.
What happens to a webhook of a call is told in `phone_line/turn.py`; what callers hear stands in
`phone_line/words/*.toml`, the steps of a call in `phone_line/flow.py`, and everything that is kept
in Redis in `phone_line/records.py`.
"""

from __future__ import annotations

import gc
import os

if __name__ == "__main__":  # above the rest, because the server loads this file again
    gc.disable()  # what is loaded before the first call is no garbage, and to look takes long
    from phone_line.server import serve

    serve(__file__)

import atexit
import io
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Final
from urllib.parse import urlsplit

from flask import Request, Response
from werkzeug.exceptions import (
    BadRequest,
    HTTPException,
    MethodNotAllowed,
    NotFound,
    RequestEntityTooLarge,
)
from werkzeug.routing import Map, Rule

from phone_line.apology import apologise
from phone_line.backend import Backend
from phone_line.cells import Cells
from phone_line.deadline import Moment
from phone_line.events import Teller
from phone_line.health import Health
from phone_line.line import open_line
from phone_line.log import find_cause, warn_sparingly, write_log
from phone_line.reception import LARGEST_BODY, find_arrival
from phone_line.server import guard
from phone_line.settings import read_settings
from phone_line.slow_work import Desk
from phone_line.turn import answer_webhook
from phone_line.visit import SETTLE, begin_visit
from phone_line.webhook import (
    Webhook,
    check_dates,
    is_stale,
    place_webhook,
    read_query,
    read_transcript,
    read_webhook,
    verify_request,
)
from phone_line.whisper import whisper_call

METHOD_REFUSED: Final = "refused: the number's webhook has the wrong method. Set it to HTTP POST"
TURN_REFUSED: Final = "refused: no turn. The voice URL of a number ends in /voice/inbound"
PATH_REFUSED: Final = "refused: no such path. The voice URL of a number ends in /voice/inbound"
STATUS_REFUSED: Final = "a call rings at /voice/status. Is it set as the voice URL of a number?"

# The paths. A redirect would lose what the caller said, so none is ever answered with one.
NEW_CALL: Final = ("/", "/voice", "/voice/inbound", "/webhook/voice")
PATHS: Final = Map(
    [
        *(Rule(path, endpoint="begin", methods=["POST"]) for path in NEW_CALL),
        Rule("/voice/process", endpoint="go_on", methods=["POST"]),
        Rule("/voice/accept", endpoint="whisper", methods=["POST"]),
        Rule("/voice/status", endpoint="end", methods=["POST"]),
        Rule("/voice/fallback", endpoint="pick_up", methods=["POST"]),
        Rule("/voice/transcript", endpoint="take_transcript", methods=["POST"]),
        Rule("/calls", endpoint="list_calls"),
        Rule("/calls/<call_sid>", endpoint="show_call"),
        Rule("/recordings/<account>/<recording>", endpoint="show_recording"),
        Rule("/healthz", endpoint="report_health", methods=["GET"]),
    ],
    strict_slashes=False,
    merge_slashes=False,
    redirect_defaults=False,
).bind("line")


class PhoneLine:
    """A phone line: one environment, one store, no state of any call."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self.line = open_line(read_settings(env))
        self.settings = settings = self.line.settings
        self.desk = Desk(self.line.store, settings.threads)
        self.backend = Backend(settings, settings.numbers)
        self.teller = Teller(self.line, self.desk, self.backend)
        self.health = Health(self.line)
        if settings.problems:
            write_log("error", "not ready: " + "; ".join(settings.problems))
        for warning in settings.warnings:
            write_log("warning", warning)

    def answer(self, request: Request) -> Response:
        """Any request, answered. Never raises; a caller always gets words."""
        arrived = find_arrival()
        try:
            return self.dispatch(request, arrived)
        except HTTPException as refusal:
            return refuse(refusal)
        except Exception as error:
            cause, path = find_cause(error), request.path[:80]
            write_log("error", "a bug: apologised to the caller", path=path, cause=cause)
            return apologise(self.line, request)

    def dispatch(self, request: Request, arrived: Moment) -> Response:
        """Find what a path asks for, verify who asks, and hand it on."""
        read_body(request)
        endpoint, names = match_path(request)
        if endpoint == "report_health":
            return self.health.report()
        if endpoint in ("list_calls", "show_call", "show_recording"):
            return self.show_page(request, endpoint, names)
        base, form = verify_request(self.settings, request)
        webhook = read_webhook(self.settings, base, form)
        if endpoint == "end":
            return self.end_call(webhook, form, arrived)
        if endpoint in ("go_on", "whisper", "take_transcript"):
            webhook = place_request(webhook, request)
        if endpoint == "take_transcript":
            return self.take_transcript(webhook, form, arrived)
        if endpoint == "whisper":
            until = arrived + SETTLE * self.settings.response_deadline
            caller_sid = form.get("ParentCallSid", "")
            return answer_twiml(whisper_call(self.line, webhook, caller_sid, until))
        if endpoint == "pick_up":
            failed = find_failed(webhook, form)
            if not failed:
                return apologise(self.line, request)
            webhook = failed
        visit = begin_visit(self.line, self.desk, self.backend, webhook, arrived)
        return answer_twiml(answer_webhook(visit))

    def show_page(self, request: Request, endpoint: str, names: Mapping[str, str]) -> Response:
        """Show what the owner looks at. It is loaded here, because no caller should wait for it."""
        if endpoint == "show_recording":
            from phone_line.recordings import show_recording

            return show_recording(self.settings, request, **names)
        from phone_line.calls import list_calls, show_call

        if endpoint == "list_calls":
            return list_calls(self.line, request)
        return show_call(self.line, request, **names)

    def take_transcript(
        self, webhook: Webhook, form: Mapping[str, str], arrived: Moment
    ) -> Response:
        """The words of a voicemail, minutes after the call."""
        deadline = arrived + SETTLE * self.settings.response_deadline
        cells = Cells(self.line.store, deadline)
        self.teller.take_transcript(cells, webhook, read_transcript(form), deadline)
        return Response(status=204)

    def end_call(self, webhook: Webhook, form: Mapping[str, str], arrived: Moment) -> Response:
        """A status callback. One that is no end, or is over a day old, ends nothing."""
        if webhook.status == "ringing":
            warn_sparingly("status", STATUS_REFUSED)
        if webhook.is_over and not is_stale(form):
            deadline = arrived + SETTLE * self.settings.response_deadline
            self.teller.end_call(Cells(self.line.store, deadline), webhook)
        return Response(status=204)


def read_body(request: Request) -> None:
    """Read the body whole. Raises RequestEntityTooLarge, or BadRequest if it breaks off."""
    request.max_content_length = LARGEST_BODY
    try:
        request.get_data()
    except Exception as error:  # werkzeug's errors and the server's share no ancestor
        request.stream = io.BytesIO()  # functions-framework reads on when we have answered
        if isinstance(error, RequestEntityTooLarge):
            reason = f"A body may have {LARGEST_BODY} bytes."
            raise RequestEntityTooLarge(reason) from None
        raise BadRequest("The body breaks off.") from None


def match_path(request: Request) -> tuple[str, Mapping[str, str]]:
    """The endpoint of a path, and the names in it. Raises NotFound or MethodNotAllowed.

    What looks like a wrongly configured number leaves a warning, with what to change.
    """
    try:
        endpoint, names = PATHS.match(request.path, request.method)
    except MethodNotAllowed as refusal:
        allowed = sorted(refusal.valid_methods or ())
        if "POST" in allowed:
            warn_sparingly("method", METHOD_REFUSED, path=request.path[:80])
        elif is_twilios(request):
            warn_sparingly("path", PATH_REFUSED, path=request.path[:80])
        best = "POST" if "POST" in allowed else "GET"
        raise MethodNotAllowed(allowed, f"Use {best}.") from None
    except HTTPException:
        endpoint, names = "", {}
    if not endpoint or not re.fullmatch(
        "CA[0-9a-fA-F]{32}", names.get("call_sid", "CA" + "0" * 32)
    ):
        if is_twilios(request):
            warn_sparingly("path", PATH_REFUSED, path=request.path[:80])
        raise NotFound("There is nothing at this path.")
    return str(endpoint), names


def is_twilios(request: Request) -> bool:
    """Tell whether a request at a wrong path may be a webhook: it is signed, or looks for one."""
    if "X-Twilio-Signature" in request.headers:
        return True
    return bool(re.search("(?i)voice|webhook|twilio|twiml", request.path))


def place_request(webhook: Webhook, request: Request) -> Webhook:
    """The webhook, placed where its URL says. Raises BadRequest or Forbidden.

    A number's webhook that is set to such a URL brings no turn, and leaves a warning.
    """
    try:
        return place_webhook(webhook, request.environ["RAW_URI"])
    except BadRequest:
        warn_sparingly("turn", TURN_REFUSED, path=request.path[:80])
        raise


def find_failed(webhook: Webhook, form: Mapping[str, str]) -> Webhook | None:
    """The webhook of ours that failed, as ErrorUrl says; None if that is no URL of ours.

    Nobody spoke: the question is asked again. Raises BadRequest or Forbidden for a wrong date.
    """
    url, code = form.get("ErrorUrl", ""), form.get("ErrorCode", "")[:9]
    write_log("error", "a webhook failed", call=webhook.call_sid, code=code)
    webhook = webhook._replace(heard=replace(webhook.heard, again=True))
    with suppress(ValueError):
        if (urlsplit(url).path.rstrip("/") or "/") in NEW_CALL:
            return webhook
        check_dates(read_query(url))
        with suppress(BadRequest):
            return place_webhook(webhook, url)
    return None


def refuse(refusal: HTTPException) -> Response:
    """A refusal as plain text, with the headers that it needs."""
    if refusal.response is not None:
        return refusal.get_response()  # type: ignore[return-value] # it is the one we made
    headers = [header for header in refusal.get_headers() if header[0] != "Content-Type"]
    return answer_plain(refusal.code or 500, refusal.description or "", dict(headers))


def answer_plain(status: int, reason: str, headers: Mapping[str, str] | None = None) -> Response:
    """A sentence as plain text."""
    return Response(reason + "\n", status, headers, content_type="text/plain; charset=utf-8")


def answer_twiml(document: str) -> Response:
    """TwiML, with the content type that Twilio parses."""
    return Response(document, content_type="text/xml; charset=utf-8")


LINE: Final = PhoneLine(os.environ)
guard(LINE.settings.threads, LINE.settings.workers)  # in time: the server starts after this file
atexit.register(LINE.desk.give_back)
gc.freeze()  # what is loaded by now stays: never looked through again, and shared with the worker
gc.enable()


def handler(request: Request) -> Response:
    """The function that functions-framework serves: every path of the line."""
    return LINE.answer(request)
