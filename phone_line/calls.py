"""The owner's look at the line: the calls of the last day, from their cells alone.

A call is found when somebody looks, by going through the keys of the store; no command on a call's
way is spent on that. The store may be shared, and hold millions of keys of others. So a look is
bounded in commands, calls and seconds, and says so when it has not seen everything.
"""

import hmac
import json
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC
from typing import Any, Final

from flask import Request, Response
from werkzeug.exceptions import MethodNotAllowed, NotFound, ServiceUnavailable, Unauthorized

from phone_line.answers import Line
from phone_line.cells import Cells, StoreUnavailable
from phone_line.links import link_recording
from phone_line.outcome import (
    find_department,
    find_words,
    in_portions,
    is_over,
    judge_call,
    read_calls,
    read_turns,
)
from phone_line.pages import answer_kind, headers_for, render_call, render_calls
from phone_line.records import (
    TRANSCRIPT,
    Ending,
    Record,
    Transcript,
    name_cell,
    read_record,
    read_turn,
)
from phone_line.webhook import forwarded_origin, read_count

HIDDEN: Final = (
    *("twiml", "guess", "prompt", "quote", "recording", "choices", "late", "repeats"),
    *("caller", "language"),
)
METHODS: Final = ("GET", "HEAD")

MOST_SCANS: Final = 100
KEYS: Final = 1000  # that the store looks at for one SCAN
MOST_CALLS: Final = 5000
LOOKING: Final = 5.0  # seconds of going through keys
PATIENCE: Final = 12.0  # seconds for everything; whoever looks is no caller
FIRST_TURNS: Final = 100  # records that are read by one command: of greetings, about 200 kB
PAGE: Final = 50  # calls on a page
SILENT: Final = 70 * 60  # seconds after its last words when a call is over, whatever was reported


def check_owner(line: Line, request: Request) -> None:
    """Let only the owner in: whoever knows ADMIN_TOKEN (HTTP Basic, any user name).

    Without ADMIN_TOKEN there is nothing here, for any method: NotFound. Else MethodNotAllowed or
    Unauthorized.
    """
    token = line.settings.admin_token
    if not token:
        raise NotFound("There is nothing at this path.")
    if request.method not in METHODS:
        raise MethodNotAllowed(METHODS, "Use GET.")
    given = None
    with suppress(ValueError):  # a header that is no text
        given = request.authorization and request.authorization.password
    if not hmac.compare_digest((given or "").encode(), token.encode()):
        challenge = Response("Who are you?\n", 401, {"WWW-Authenticate": 'Basic realm="calls"'})
        raise Unauthorized("Who are you?", response=challenge)


def answer_page(line: Line, request: Request, content: Mapping[str, Any]) -> Response:
    """A call or a list of calls: a page, or the same as JSON."""
    kind = answer_kind(request.headers.get("Accept", ""))
    if kind == "json":
        return Response(json.dumps(content), headers=headers_for(kind))
    hours = line.settings.hours
    zone = hours.zone if hours else UTC
    render = render_calls if "calls" in content else render_call
    return Response(render(content, zone), headers=headers_for(kind))


def link_message(line: Line, request: Request, record: Record) -> str:
    """A link that plays the message of a call; none where there is no message."""
    path = link_recording(line.settings, record.recording, record.at)
    if not path:
        return record.recording
    origins = line.settings.public_url or (forwarded_origin(request),)
    return origins[-1] + path


# ---- one call ----------------------------------------------------------------------------------


def show_call(line: Line, request: Request, call_sid: str) -> Response:
    """The page of a call, or the same as JSON. Raises NotFound, ServiceUnavailable."""
    check_owner(line, request)
    cells = Cells(line.store, time.monotonic() + line.settings.response_deadline)
    try:
        call = tell_call(line, request, cells, call_sid)
    except StoreUnavailable as error:
        raise ServiceUnavailable(f"The store does not answer: {error}") from None
    return answer_page(line, request, call)


def tell_call(line: Line, request: Request, cells: Cells, call_sid: str) -> Mapping[str, Any]:
    """A call as plain values: its turns in order, its message, its end.

    Raises NotFound, StoreUnavailable.
    """
    records = read_turns(cells, call_sid)
    if not records:
        raise NotFound("No such call, or it is more than a day ago.")
    marks = [name_cell(call_sid, record.turn, "again") for record in records]
    names = [name_cell(call_sid, "end"), name_cell(call_sid, TRANSCRIPT)]
    end, words, *again = cells.read(*names, *marks)
    turns = []
    before = Record()
    for record, mark in zip(records, again, strict=True):
        turns.append(tell_turn(record, before, repeated=bool(mark)))
        before = record
    ending, transcript = read_record(Ending, end), read_record(Transcript, words)
    with_message = [record for record in records if record.recording]
    return {
        "call_sid": call_sid,
        "from": records[0].caller,
        "turns": turns,
        "recording": link_message(line, request, with_message[0]) if with_message else "",
        "transcript": transcript.text if transcript else "",
        "transcript_failed": bool(transcript and not transcript.text),
        "end": asdict(ending) if ending else {},
    }


def tell_turn(record: Record, before: Record, *, repeated: bool) -> Mapping[str, Any]:
    """A turn as plain values."""
    turn = {name: value for name, value in asdict(record).items() if name not in HIDDEN}
    return {
        **turn,
        "message": record.recording not in ("", before.recording),
        "accepted": "not accepted" if record.dial == "not-accepted" else "",
        "repeated": repeated,
    }


# ---- all calls ---------------------------------------------------------------------------------


def list_calls(line: Line, request: Request) -> Response:
    """The calls of the last day, newest first, fifty a page, or the same as JSON.

    Raises NotFound for a page that is not there, ServiceUnavailable.
    """
    check_owner(line, request)
    page = read_count(request.args.get("page", "1"), MOST_CALLS)
    if not page:
        raise NotFound("There is no such page.")
    cells = Cells(line.store, time.monotonic() + PATIENCE)
    try:
        found, is_complete = find_calls(cells, time.monotonic() + LOOKING)
        newest = sort_calls(cells, found)
        chosen = newest[(page - 1) * PAGE : page * PAGE]
        rows = tell_calls(line, request, cells, chosen)
    except StoreUnavailable as error:
        raise ServiceUnavailable(f"The store does not answer: {error}") from None
    pages = max(1, -(-len(newest) // PAGE))
    if page > pages:
        raise NotFound("There is no such page.")
    listing = {"calls": rows, "incomplete": not is_complete, "page": page, "pages": pages}
    return answer_page(line, request, listing)


def find_calls(cells: Cells, until: float) -> tuple[list[str], bool]:
    """The CallSids in a store, and whether they are all. Raises StoreUnavailable."""
    found: dict[str, None] = {}
    cursor = "0"
    for _ in range(MOST_SCANS):
        cursor, keys = cells.scan(cursor, name_cell("CA*", 1), KEYS)
        for key in keys:
            call = re.fullmatch("call:(CA[0-9a-fA-F]{32}):1", key)
            if call:
                found[call[1]] = None
        if cursor == "0":
            return [*found][:MOST_CALLS], len(found) <= MOST_CALLS
        if len(found) > MOST_CALLS or time.monotonic() > until:
            break
    return [*found][:MOST_CALLS], False


def sort_calls(cells: Cells, call_sids: Sequence[str]) -> list[str]:
    """Calls by their beginning, newest first, without those that are gone by now."""
    begun: list[tuple[float, str]] = []
    for some in in_portions(call_sids, FIRST_TURNS):
        values = cells.read(*(name_cell(call_sid, 1) for call_sid in some))
        for call_sid, record in zip(some, map(read_turn, values), strict=True):
            if record:
                begun.append((record.at, call_sid))
    return [call_sid for _, call_sid in sorted(begun, reverse=True)]


def tell_calls(
    line: Line, request: Request, cells: Cells, call_sids: Sequence[str]
) -> list[Mapping[str, Any]]:
    """Calls as plain values, a row each, in the same order. Raises StoreUnavailable."""
    if not call_sids:
        return []
    ends = cells.read(*(name_cell(call_sid, "end") for call_sid in call_sids))
    rows: list[Mapping[str, Any]] = []
    for call_sid, records, end in zip(call_sids, read_calls(cells, call_sids), ends, strict=True):
        if records:
            row = tell_row(line, records, read_record(Ending, end))
            with_message = [record for record in records if record.recording]
            link = link_message(line, request, with_message[0]) if with_message else ""
            rows.append({"call_sid": call_sid, **row, "recording": link})
    return rows


def tell_row(line: Line, records: Sequence[Record], end: Ending | None) -> Mapping[str, Any]:
    """The story of a call: who, when, what about, and what came of it ("": it goes on).

    `seconds` are those of the talk or the message, else of the call.
    """
    flow, ring_seconds = line.plan.flow, line.settings.ring_seconds
    outcome = judge_call(flow, records, end.at if end else 0.0, ring_seconds)
    goes_on = not end and not is_over(flow, records) and time.time() < records[-1].at + SILENT
    return {
        "from": records[0].caller,
        "at": records[0].at,
        "department": find_department(flow, records),
        "heard": find_words(records),
        "ended": "" if goes_on else outcome.kind,
        "seconds": outcome.seconds or (end.seconds if end else 0),
    }
