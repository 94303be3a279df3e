"""The task of telling somebody what happened in a call.

It is work for a desk, like a question to the backend: the same lease, retry and bound, and one
teller across all instances; only that nobody speaks its answer. Who can be told is a `Sink`.
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from phone_line.backend import Backend, BackendFailed
from phone_line.cells import Cells, Store, StoreUnavailable
from phone_line.deadline import Moment
from phone_line.log import write_log
from phone_line.outcome import read_turns
from phone_line.records import (
    ENDED,
    MISSED,
    TRANSCRIPT,
    VOICEMAIL,
    Ending,
    Message,
    Record,
    Transcript,
    read_record,
)
from phone_line.slow_work import ATTEMPT
from phone_line.webhook import Webhook

Fact = Message | Transcript | Ending
Events = Mapping[str, Fact]  # by name
ORDER: Final = (VOICEMAIL, MISSED, TRANSCRIPT, ENDED)  # in which they are told
STANDING: Final[Mapping[str, tuple[str, type[Any]]]] = {  # where what is to be told stands
    VOICEMAIL: ("voicemail", Message),
    TRANSCRIPT: ("transcript", Transcript),
    ENDED: ("end", Ending),
}


class Sink(Protocol):
    """Somebody who is told. The names are parts of cells: see the table of `records.py`."""

    @property
    def name(self) -> str:
        """The name of whoever is told, for the log."""

    @property
    def mark(self) -> str:
        """The last part of the cell that says: told of this event."""

    @property
    def lease(self) -> str:
        """The part that names the lease. It is one for all events, so that they come in order."""

    @property
    def events(self) -> tuple[str, ...]:
        """The events to tell of."""

    @property
    def wants_past(self) -> bool:
        """Tell if what was said in the call has to be read before."""

    def tell(
        self, webhook: Webhook, event: str, fact: Fact, past: Sequence[Record], until: Moment
    ) -> None:
        """One attempt to bring an event. Raises BackendFailed."""


class ToldBackend:
    """The service at BACKEND_URL, as somebody who is told."""

    name: Final = "backend"
    mark: Final = "sent"
    lease: Final = "events"
    events: Final = (VOICEMAIL, ENDED)
    wants_past: Final = False

    def __init__(self, backend: Backend) -> None:
        self.backend = backend

    def tell(
        self, webhook: Webhook, event: str, fact: Fact, _past: Sequence[Record], until: Moment
    ) -> None:
        """One attempt to bring an event. Raises BackendFailed."""
        fields: dict[str, object]
        match fact:
            case Message():
                fields = {"recording_url": fact.recording_url}
            case Ending():
                fields = {"status": fact.status, "seconds": fact.seconds}
            case Transcript():
                fields = {"transcript": fact.text}
        self.backend.tell(webhook, event, fields, until)


@dataclass(slots=True)
class Telling:
    """The task of telling somebody a call's events, in order. Its result: the names of those told.

    `events` are those that the webhook at hand knows; the cells may know of more.
    """

    store: Store
    sink: Sink
    webhook: Webhook
    events: Events
    past: Sequence[Record] = ()
    told: set[str] = field(default_factory=set)
    alone: bool = False

    @property
    def name(self) -> str:
        """The cell whose lease is the teller's."""
        return self.webhook.cell(self.sink.lease)

    @property
    def asked(self) -> str:
        """Whom an attempt turns to."""
        return self.sink.name

    @property
    def call_sid(self) -> str:
        """The call that the events are about."""
        return self.webhook.call_sid

    @property
    def until(self) -> Moment:
        """The attempts are bounded by their number, not by a time."""
        return time.monotonic() + ATTEMPT

    def find_result(self, cells: Cells) -> frozenset[str] | None:
        """The names of the events, if all of them are told. Raises StoreUnavailable."""
        names = [*self.events]
        marks = cells.read(*(self.webhook.cell(name, self.sink.mark) for name in names))
        self.told |= {name for name, mark in zip(names, marks, strict=True) if mark}
        return frozenset(self.told) if all(marks) else None

    def prepare(self, cells: Cells) -> bool:
        """Add what the cells know. Raises StoreUnavailable."""
        self.events = {**read_events(self.sink, self.webhook, cells), **self.events}
        if self.sink.wants_past:
            self.past = read_turns(cells, self.call_sid)
        return True

    def attempt(self, until: Moment) -> frozenset[str]:
        """Tell what is not told yet. Raises BackendFailed."""
        for name in sorted(self.events, key=ORDER.index):
            if name not in self.told:
                self.tell(name, until)
                self.told.add(name)
        return frozenset(self.told)

    def tell(self, name: str, until: Moment) -> None:
        """Tell one event, and settle that it was. Raises BackendFailed if telling may yet help."""
        try:
            self.sink.tell(self.webhook, name, self.events[name], self.past, until)
        except BackendFailed as error:
            if not error.final:
                raise
            write_log("error", "event refused", call=self.call_sid, event=name, cause=str(error))
            return
        with suppress(StoreUnavailable):  # at worst it is told twice, under the same key
            cells = Cells(self.store, time.monotonic() + 4)
            cells.settle(self.webhook.cell(name, self.sink.mark), "1")

    def put_off(self) -> None:
        """Nobody is on hold for an event."""

    def give_up(self) -> None:
        """Nothing to settle: Twilio brings the event again."""

    def keep(self, result: frozenset[str]) -> frozenset[str]:
        """Each event was settled when it was told."""
        return result

    def follow_up(self, owner: str) -> None:
        """Nobody waits for an event."""


def read_events(sink: Sink, webhook: Webhook, cells: Cells) -> dict[str, Fact]:
    """The events of a call that stand in cells and are not told yet. Raises StoreUnavailable."""
    names = [name for name in sink.events if name in STANDING]
    facts = [webhook.cell(STANDING[name][0]) for name in names]
    marks = [webhook.cell(name, sink.mark) for name in names]
    values = cells.read(*facts, *marks)
    events: dict[str, Fact] = {}
    for name, value, mark in zip(names, values[: len(names)], values[len(names) :], strict=True):
        fact = read_record(STANDING[name][1], value)
        if fact and not mark:
            events[name] = fact
    return events
