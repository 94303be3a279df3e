"""The outcomes of calls, judged from their records alone, for their owner.

    talked       somebody and the caller were connected
    voicemail    there is a message
    refused      the line did not take the call
    ended by the backend
    missed       none of these

A judgement may come too early: the webhooks of a call arrive in any order, and the end of a call
can overtake what a transfer or a recording came to. Then `is_open` says that more may come. It
does so as well where the last record is so old that one may be missing, because Redis was away.
"""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, TypeVar

from phone_line.cells import Cells
from phone_line.flow import End, Flow, Refuse, Transfer, Voicemail
from phone_line.records import LAST_TURN, Record, name_cell, read_turn

Item = TypeVar("Item")

TALKED: Final = "talked"
MESSAGE: Final = "voicemail"
REFUSED: Final = "refused"
BY_BACKEND: Final = "ended by the backend"
MISSED: Final = "missed"

CONNECTED: Final = ("completed", "answered")  # DialCallStatus of a talk
AT_ONCE: Final = 20  # turns that are read by one command; a hundred could be more than an answer
TAIL: Final = 5  # cells at the end of them: if these are empty, there are no more
# Seconds that a transfer may go on beyond RING_SECONDS before anybody is connected: Twilio adds
# five, and whoever picks up is told twice who calls, and then has five to press the key.
SCREENING: Final = 45


TOGETHER: Final = 5  # calls that are read by one command, with so many turns of each
BEGINNING: Final = 10


class Outcome(NamedTuple):
    """The outcome of a call. `seconds` are those of the talk or of the message."""

    kind: str
    seconds: int = 0
    is_open: bool = False


def read_turns(cells: Cells, call_sid: str) -> list[Record]:
    """The records of a call, in order; one command for most calls. Raises StoreUnavailable.

    A record may be missing, because the store was away.
    """
    records: list[Record] = []
    for first in range(1, LAST_TURN + 2, AT_ONCE):
        last = min(first + AT_ONCE, LAST_TURN + 2)
        values = cells.read(*(name_cell(call_sid, turn) for turn in range(first, last)))
        records += filter(None, map(read_turn, values))
        if not any(values[-TAIL:]):
            break
    return records


def read_calls(cells: Cells, call_sids: Sequence[str]) -> list[list[Record]]:
    """The records of several calls, in few commands. Raises StoreUnavailable."""
    calls: list[list[Record]] = []
    turns = range(1, BEGINNING + 1)
    for some in in_portions(call_sids, TOGETHER):
        names = [name_cell(call_sid, turn) for call_sid in some for turn in turns]
        beginnings = in_portions(cells.read(*names), BEGINNING)
        for call_sid, values in zip(some, beginnings, strict=True):
            records = list(filter(None, map(read_turn, values)))
            if any(values[-TAIL:]):  # it may be longer
                records = read_turns(cells, call_sid)
            calls.append(records)
    return calls


def judge_call(
    flow: Flow, records: Sequence[Record], ended_at: float = 0.0, ring_seconds: int = 0
) -> Outcome:
    """Judge a call from its records, of which there is at least one.

    `ended_at` is the Unix time of its end, if that is known. A transfer that went on for longer
    than anybody lets it ring was a talk, even if Twilio never says so.
    """
    last = records[-1]
    step = flow.get(last.step)
    for record in records:
        if record.dial in CONNECTED:
            return Outcome(TALKED, record.lasted)
    for record in records:
        if record.recording:
            return Outcome(MESSAGE, record.lasted)
    if isinstance(step, Refuse):
        return Outcome(REFUSED)
    if isinstance(step, End) and last.late:  # a worker's answer, and the last words
        return Outcome(BY_BACKEND)
    if isinstance(step, End):
        return Outcome(MISSED)
    since = round(ended_at - last.at)
    is_long = since > ring_seconds + SCREENING
    if isinstance(step, Transfer) and is_long:
        return Outcome(TALKED, since)
    return Outcome(MISSED, is_open=is_long or isinstance(step, Transfer | Voicemail))


def is_over(flow: Flow, records: Sequence[Record]) -> bool:
    """Tell whether the line itself has ended a call, going by its last words."""
    return isinstance(flow.get(records[-1].step), End | Refuse)


def find_words(records: Sequence[Record]) -> str:
    """The first words of the caller; none if nothing was said."""
    return next((record.heard for record in records if record.heard), "")


def find_department(flow: Flow, records: Sequence[Record]) -> str:
    """The department that the caller was last sent to; none for the person for everything."""
    for record in reversed(records):
        step = flow.get(record.step)
        if isinstance(step, Transfer) and step.to != "FORWARD_TO":
            return step.to
    return ""


def in_portions(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """Items, so many at a time."""
    for first in range(0, len(items), size):
        yield items[first : first + size]
