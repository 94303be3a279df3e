"""Everything that stands in Redis, and the types of what a call knows.

A cell is written once and expires by itself. `{sid}` is a CallSid, `{n}` the number of a turn.

    key                        says                                               lives
    call:{sid}:{n}             Record: the call after n answers, with the TwiML   a day
                               of the n-th. Written by the webhook that brings
                               answer n, or by the worker of a slow question
    call:{sid}:{n}:asked       Question: what the caller said at turn n that the  a day
                               backend has to answer. Written before it is asked
    call:{sid}:{n}:lease       a random name: the worker of turn n is alive. It   8 s
                               renews the cell, and takes it away at the end
    call:{sid}:{n}:voice       who speaks a late answer: `look`, `push by ...`;   a day
                               `person`: the talk went on without it. Written
                               by whoever is about to
    call:{sid}:{n}:again       1: the webhook came once more (for the page)       a day
    call:{sid}:voicemail       Message: written by the webhook that brings it     a day
    call:{sid}:transcript      Transcript: written by the webhook that brings it  a day
    call:{sid}:end             Ending: written by the status callback             a day
    call:{sid}:{event}:sent    1: the backend was told of the event, by whoever   a day
                               told it
    call:{sid}:events:lease    a random name: who tells the backend is alive      8 s
    call:{sid}:{event}:notified   1: the same, for the owner's NOTIFY_URL         a day
    call:{sid}:notices:lease   a random name: who tells the owner is alive        8 s
    caller:{hash}:{i}          a CallSid: one of the calls that this number may   an hour
                               make (CALLS_PER_HOUR). Written when it begins
    health                     well: written when somebody looks at /healthz      60 s

Records outlive deploys, so a reader ignores fields that it does not know and fills in those that
are missing; and a value counts only as far as its type fits, because others can write to Redis.

The release before this one also kept `call:{sid}:{n}:result`, an `Answer` that a later webhook
turned into words. It is still read, so that calls go on during the deploy. Cells live a day: from
2027-02-01 on this line, `read_answer_of_before` and its callers can go.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, TypeVar

LAST_TURN: Final = 100  # turns of one call: then a person, else goodbye
FURTHEST: Final = 1e11  # no date, in Unix seconds, is later, and no count is higher

# Events that others are told of. Those with a cell of the same name stand there.
VOICEMAIL: Final = "voicemail"
TRANSCRIPT: Final = "transcript"
MISSED: Final = "missed"
ENDED: Final = "ended"


@dataclass(frozen=True, slots=True)
class Call:
    """The state of a call after `turn` answers."""

    turn: int = 0
    step: str = ""  # whose question the caller is answering; none before the first answer
    misses: int = 0  # silences and nonsense in a row
    repeats: int = 0  # how often the question was asked for again in a row
    guess: str = ""  # the step that "did you say" offers
    quote: str = ""  # what the caller said last, short enough to be read back
    prompt: str = ""  # a question of the backend's, in place of the step's own
    recording: str = ""  # URL of the voicemail
    choices: tuple[str, ...] = ()  # the menu as it was read out: key 1 is the first of them
    language: str = ""  # the one that the caller has chosen, like es-US; none: the line's first


@dataclass(frozen=True, slots=True)
class Record(Call):
    """The call after an answer, the answer, and what the page of a call shows of the turn."""

    twiml: str = ""
    asker: str = ""  # the step that had asked
    heard: str = ""
    confidence: float | None = None  # of speech recognition in what was heard, 0 to 1
    keys: str = ""
    dial: str = ""
    said: str = ""
    at: float = 0.0  # Unix time
    ms: int = 0  # from the webhook's arrival to its answer
    hold: int = 0  # how often the caller was put on hold before
    late: int = 0  # 1: a worker's answer, which a look or a push may bring: see `push.py`
    seconds: float = 0.0  # that the backend took
    usage: int = 0  # tokens that a language model counted
    caller: str = ""  # From; in the first turn, for the list of calls
    lasted: int = 0  # seconds of the talk, or of the message, that was over before this answer


STATE: Final = tuple(field.name for field in fields(Call))


@dataclass(frozen=True, slots=True)
class Answer:
    """The backend's answer. `failed`: there is none, and there will be none."""

    say: str = ""
    then: str = "listen"
    to: str = ""
    failed: bool = False
    seconds: float = 0.0  # that it took
    usage: int = 0  # tokens that a language model counted


@dataclass(frozen=True, slots=True)
class Heard:
    """Everything that one webhook brings: words, keys, or how a transfer or a recording went."""

    speech: str = ""
    confidence: float | None = None  # 0 to 1; Twilio does not promise to send it
    keys: str = ""
    dial: str = ""  # DialCallStatus
    recording: str = ""  # RecordingUrl
    entrance: str = "start"  # the step at which a new call begins
    again: bool = False  # nobody spoke: Twilio came back because a webhook of ours had failed
    answer: Answer | None = None  # the backend's, for a Consult


@dataclass(frozen=True, slots=True)
class Question(Heard):
    """The words of the caller that the backend has to answer, when, and at which step."""

    at: float = 0.0  # Unix time
    step: str = ""


@dataclass(frozen=True, slots=True)
class Message:
    """A voicemail."""

    recording_url: str = ""
    seconds: int = 0  # RecordingDuration
    at: float = 0.0  # Unix time


@dataclass(frozen=True, slots=True)
class Transcript:
    """The words of a voicemail. Without a text Twilio could not make it out."""

    text: str = ""
    recording_url: str = ""
    at: float = 0.0  # Unix time


@dataclass(frozen=True, slots=True)
class Ending:
    """The end of a call."""

    status: str = ""  # CallStatus
    seconds: int = 0  # CallDuration
    at: float = 0.0  # Unix time


AnyRecord = Record | Answer | Question | Message | Transcript | Ending
Kind = TypeVar("Kind", Record, Answer, Question, Message, Transcript, Ending)

DEFAULTS: Final[Mapping[type[AnyRecord], Mapping[str, object]]] = {
    kind: {field.name: field.default for field in fields(kind)}
    for kind in (Record, Answer, Question, Message, Transcript, Ending)
}
as_json: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def name_cell(call_sid: str, *parts: object) -> str:
    """The key of one of a call's cells."""
    return ":".join(["call", call_sid, *map(str, parts)])


def write_record(record: AnyRecord) -> str:
    """A record as the value of a cell: JSON, without the fields that have their default."""
    found = {}
    for name, default in defaults_of(type(record)).items():
        value = getattr(record, name)
        if value != default:
            found[name] = value
    return as_json(found)


def read_record(kind: type[Kind], value: str | None) -> Kind | None:
    """The record in a cell; None for an empty cell, and for one that holds no record."""
    if not value:
        return None
    try:
        found = json.loads(value)
        if isinstance(found, dict):
            return kind(**fitting_fields(found, defaults_of(kind)))
    except (ValueError, RecursionError):
        return None
    return None


def read_turn(value: str | None) -> Record | None:
    """The record of a turn, if there is one in the cell that can be said again."""
    record = read_record(Record, value)
    return record if record and record.twiml else None


def read_state(record: Call, turn: int) -> Call:
    """The state of a call alone, out of a record; after `turn` answers."""
    state = {name: getattr(record, name) for name in STATE}
    return Call(**state | {"turn": turn})


def defaults_of(kind: type[AnyRecord]) -> Mapping[str, object]:
    """The fields of a kind of record with their defaults."""
    return DEFAULTS[kind]


def fitting_fields(found: Mapping[str, Any], defaults: Mapping[str, object]) -> dict[str, Any]:
    """The fields that exist, each with a value of its default's type."""
    fitting = {}
    for name in found.keys() & defaults.keys():
        value = found[name]
        if isinstance(value, list):
            value = tuple(value)
        if fits_type(value, defaults[name]):
            fitting[name] = value
    return fitting


def fits_type(value: object, default: object) -> bool:
    """Tell whether a value is of a default's type. A default of None stands for a number."""
    match default:
        case bool():
            return isinstance(value, bool)
        case int():
            return is_number(value) and isinstance(value, int)
        case float() | None:
            return is_number(value)
        case str():
            return is_text(value)
        case tuple():
            return isinstance(value, tuple) and all(map(is_text, value))
        case _:  # no record has a field of another type
            return False


def is_number(value: object) -> bool:
    """Tell whether a value is a number from 0 up; true and false are none, and neither is NaN."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 0 <= value <= FURTHEST


def is_text(value: object) -> bool:
    """Tell whether a value is text. Raises UnicodeEncodeError, a ValueError, for half a character.

    It could not be spoken, and whoever wrote it did not write the rest either.
    """
    if not isinstance(value, str):
        return False
    value.encode()
    return True


def read_answer_of_before(value: str | None) -> Answer | None:
    """The backend's answer as the release before this one kept it. To go: see the top."""
    return read_record(Answer, value)
