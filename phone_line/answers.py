"""An answer of the line: rendered, and settled as the record of its turn.

A webhook settles the answers that it decides; the worker of a slow question settles that one. Both
come here, so that an answer exists once, as words, whoever gave it.
"""

import time
from dataclasses import dataclass
from typing import Any

from phone_line.cells import Cells, Store
from phone_line.conversation import Reply
from phone_line.plan import Plan
from phone_line.records import STATE, Call, Heard, Record, read_turn, write_record
from phone_line.settings import Settings
from phone_line.text import SAID
from phone_line.twiml import render_reply
from phone_line.webhook import Webhook


@dataclass(frozen=True, slots=True)
class Line:
    """A phone line: what the environment says, the plan of its calls, and where they live."""

    settings: Settings
    plan: Plan
    store: Store


def write_answer(
    line: Line,
    webhook: Webhook,
    asker: str,
    heard: Heard,
    after: Call,
    reply: Reply,
    **measured: Any,  # noqa: ANN401 # fields of a Record
) -> Record:
    """The record of an answer: the call after it, its TwiML, and what the page of a call shows.

    `measured` is what only the caller of this function knows: `ms`, and of a worker some more.
    The caller's number is kept once, and only where there is a page that shows it.
    """
    keeps_caller = after.turn == 1 and bool(line.settings.admin_token)
    return Record(
        **{name: getattr(after, name) for name in STATE},
        twiml=render_reply(line.settings, line.plan, webhook, after, reply),
        asker=asker,
        heard=heard.speech,
        confidence=heard.confidence if heard.speech else None,
        keys=heard.keys,
        dial=heard.dial,
        said=" ".join(reply.says)[:SAID],
        at=round(time.time(), 3),
        hold=webhook.hold,
        caller=webhook.caller if keeps_caller else "",
        lasted=webhook.talked or webhook.recorded,
        **measured,
    )


def settle_answer(cells: Cells, webhook: Webhook, record: Record) -> Record:
    """Settle the record of a turn; the one that stands. Raises StoreUnavailable."""
    value = write_record(record)
    standing = cells.settle(webhook.cell(record.turn), value)
    if standing == value:
        return record
    return read_turn(standing) or record
