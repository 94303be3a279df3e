"""Events that others have to hear of: messages, and the ends of calls.

Who is told of what, each event under one Idempotency-Key, `{CallSid}:{event}`:

    a backend of our own protocol    voicemail, ended
    a language model                 nothing
    the owner, at NOTIFY_URL         voicemail, missed, transcript

An event is a job whose answer nobody speaks: the same lease, retry and bound as a question, and one
teller across all instances. What is to be told stands in cells, so that it outlives the instance;
a cell for each event says that it was told. While it was not, Twilio's callback is answered 503:
Twilio asks again (with rp=all in its URL), and brings it once more.
"""

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from werkzeug.exceptions import ServiceUnavailable

from phone_line.answers import Line
from phone_line.backend import Backend
from phone_line.cells import Cells, StoreUnavailable
from phone_line.deadline import Moment
from phone_line.log import write_log
from phone_line.outcome import MESSAGE, judge_call, read_turns
from phone_line.outcome import MISSED as NOBODY
from phone_line.records import (
    ENDED,
    MISSED,
    TRANSCRIPT,
    VOICEMAIL,
    Ending,
    Message,
    Transcript,
    read_record,
    read_turn,
    write_record,
)
from phone_line.slow_work import Desk
from phone_line.telling import Events, Fact, Sink, Telling, ToldBackend, read_events
from phone_line.text import mask_phone
from phone_line.webhook import Webhook

YET_TO_BE_TOLD: Final = "Somebody has yet to be told of this call."


class TooEarly(Exception):
    """The outcome of the call cannot be known yet."""


class Teller:
    """Brings the events of calls to whoever has to hear of them."""

    def __init__(self, line: Line, desk: Desk, backend: Backend) -> None:
        self.line, self.desk = line, desk
        self.sinks = list_sinks(line, backend)

    def announce_message(
        self, cells: Cells, webhook: Webhook, recording: str, until: Moment
    ) -> None:
        """Tell of a voicemail; settled first, so that the message outlives us.

        Who has hung up hears nothing: then ServiceUnavailable makes Twilio ask again until it is
        told, because the end of this call may have come, and told what it knew, before.
        """
        if not self.sinks:
            return
        message = Message(recording, webhook.recorded, round(time.time(), 3))
        with suppress(StoreUnavailable):
            standing = cells.settle(webhook.cell(VOICEMAIL), write_record(message))
            settled = read_record(Message, standing)
            if settled and settled.recording_url:
                message = settled
        events = {VOICEMAIL: message}
        if not webhook.is_over:
            for sink in self.sinks:
                self.desk.start(self.task(sink, webhook, events), cells)
        elif not self.tell_all([(sink, events) for sink in self.sinks], webhook, cells, until):
            raise ServiceUnavailable(YET_TO_BE_TOLD)

    def take_transcript(
        self, cells: Cells, webhook: Webhook, transcript: Transcript, until: Moment
    ) -> None:
        """Settle the words of a voicemail, and tell the owner.

        Raises ServiceUnavailable while they are neither kept nor told.
        """
        standing = None
        with suppress(StoreUnavailable):
            value = cells.settle(webhook.cell(TRANSCRIPT), write_record(transcript))
            standing = read_record(Transcript, value)
        events = {TRANSCRIPT: standing or transcript}
        told = [(sink, events) for sink in self.sinks if TRANSCRIPT in sink.events]
        if not standing or not self.tell_all(told, webhook, cells, until):
            raise ServiceUnavailable(YET_TO_BE_TOLD)

    def end_call(self, cells: Cells, webhook: Webhook) -> None:
        """The call is over: settle that, log one summary, tell of what is not told yet.

        Raises ServiceUnavailable while something is not told, or cannot be known.
        """
        ending, is_first = settle_end(cells, webhook)
        found: list[tuple[Sink, Events]] = []
        is_known = True
        for sink in self.sinks:
            events: dict[str, Fact] = {ENDED: ending} if ENDED in sink.events else {}
            try:
                events = {**read_events(sink, webhook, cells), **events}
                if MISSED in sink.events:
                    events |= self.read_outcome(cells, webhook, ending, is_first)
            except (StoreUnavailable, TooEarly):
                is_known = False
            found.append((sink, events))
        if not self.tell_all(found, webhook, cells, cells.until) or not is_known:
            raise ServiceUnavailable(YET_TO_BE_TOLD)

    def read_outcome(
        self,
        cells: Cells,
        webhook: Webhook,
        ending: Ending,
        is_first: bool,  # noqa: FBT001 # both words stand in the call
    ) -> dict[str, Fact]:
        """The event that the records alone know of: a missed call, or a message without a cell.

        Raises StoreUnavailable, and TooEarly once, for a call that ends while it rings or records,
        or long after its last record: what comes of that may be on its way. A call of which nothing
        is known is not missed: it may have been a talk.
        """
        # 1. Told already, or there is a message.
        names = ((MISSED, "notified"), (VOICEMAIL,), (TRANSCRIPT,))
        if any(cells.read(*(webhook.cell(*name) for name in names))):
            return {}
        # 2. As the records say. A replica may lag, so a last one is asked of the primary.
        flow, ring_seconds = self.line.plan.flow, self.line.settings.ring_seconds
        records = read_turns(cells, webhook.call_sid)
        if not records:
            return {}
        outcome = judge_call(flow, records, ending.at, ring_seconds)
        if outcome.is_open:
            latest = read_turn(cells.read_primary(webhook.cell(records[-1].turn + 1)))
            records += [latest] if latest else []
            outcome = judge_call(flow, records, ending.at, ring_seconds)
        # 3. The repeat of this callback decides, if this one cannot.
        if outcome.is_open and is_first:
            raise TooEarly
        if outcome.kind == MESSAGE:  # Redis was away when it came
            left = next(record for record in records if record.recording)
            return {VOICEMAIL: Message(left.recording, left.lasted, left.at)}
        return {MISSED: ending} if outcome.kind == NOBODY else {}

    def tell_all(
        self, found: Sequence[tuple[Sink, Events]], webhook: Webhook, cells: Cells, until: Moment
    ) -> bool:
        """Tell everybody; whether that was done in time. Nobody waits for anybody else."""
        tellings = [(sink, events) for sink, events in found if events]
        for sink, events in tellings[1:]:
            self.desk.start(self.task(sink, webhook, events), cells)
        done = [self.tell(sink, webhook, events, cells, until) for sink, events in tellings]
        return all(done)

    def tell(
        self, sink: Sink, webhook: Webhook, events: Events, cells: Cells, until: Moment
    ) -> bool:
        """Tell somebody of events; whether that was done in time.

        A teller who is at it already may have begun before it could know of all of them: then a
        second one tells the rest.
        """
        for _ in range(2):
            with suppress(StoreUnavailable):
                task = self.task(sink, webhook, events)
                told, _ours = self.desk.wait_for(task, cells, until)
                if told is None:
                    return False
                if {*events} <= told:
                    return True
        return False

    def task(self, sink: Sink, webhook: Webhook, events: Events) -> Telling:
        """The task of telling somebody of events."""
        return Telling(self.line.store, sink, webhook, events)


def settle_end(cells: Cells, webhook: Webhook) -> tuple[Ending, bool]:
    """Settle the end of a call, and log it once; the end that stands, and whether it is ours."""
    ending = Ending(webhook.status, webhook.seconds, time.time())
    value = write_record(ending)
    standing = value
    with suppress(StoreUnavailable):
        standing = cells.settle(webhook.cell("end"), value)
    if standing != value:
        settled = read_record(Ending, standing)
        if settled and settled.status:
            ending = settled
        return ending, False
    write_log(
        "error" if cells.lost else "info",
        "call ended",
        call=webhook.call_sid,
        status=ending.status,
        seconds=ending.seconds,
        caller=mask_phone(webhook.caller),
        degraded=cells.lost,
    )
    return ending, True


def list_sinks(line: Line, backend: Backend) -> list[Sink]:
    """Everybody who is told."""
    settings = line.settings
    sinks: list[Sink] = []
    if settings.backend_url and not settings.backend_model:
        sinks.append(ToldBackend(backend))
    if settings.notify_url:
        from phone_line.owner import Owner  # few lines need it

        sinks.append(Owner(line))
    return sinks
