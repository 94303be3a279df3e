"""One webhook of a call, from what Twilio brings to what the caller hears.

    read cells n, n+1 > (n+1 stands? say it) > decide > (ask the backend: `consult.py`)
                      > render > settle n+1 > say what stands

Whoever loses a race (a retry, a rival instance, a write whose reply got lost) is handed the
winner's record, and says exactly that. When the store is away nothing is known of the call but
what the URL says, and nothing can be settled; what is decided is said all the same, and a caller on
hold stays there (`consult.py` has the rule).
"""

import time
from contextlib import suppress
from dataclasses import replace
from typing import Final, NamedTuple

from phone_line.answers import settle_answer, write_answer
from phone_line.cells import StoreUnavailable
from phone_line.consult import conclude, consult_backend, is_hold_over, keep_voice, say_if_allowed
from phone_line.conversation import Reply, decide
from phone_line.entrance import find_door, find_entrance
from phone_line.events import Teller
from phone_line.flow import Ask, Consult, End, Flow, Offer, Refuse, Tell, follow_steps
from phone_line.questions import FAILED, Asking
from phone_line.records import (
    Answer,
    Call,
    Heard,
    Question,
    Record,
    read_answer_of_before,
    read_record,
    read_state,
    read_turn,
)
from phone_line.visit import ASKED, READ, SLOW, Visit
from phone_line.webhook import Webhook

MARK: Final = 0.3  # seconds for a mark that only the page of the call shows: the caller waits


class Found(NamedTuple):
    """The cells of a turn."""

    before: Call  # the call before it
    answered: Record | None = None  # its answer
    question: Question | None = None  # what the backend is asked
    old_answer: Answer | None = None  # the backend's, as the release before this one kept it


def answer_webhook(visit: Visit) -> str:
    """The TwiML that answers a webhook; a line in the log says how that went."""
    try:
        return find_answer(visit)
    except Exception:
        keep_voice(visit)  # for the person whom an apology rings
        raise
    finally:
        visit.write_trail()


def find_answer(visit: Visit) -> str:
    """Say again what was said; or decide, and say what then stands."""
    webhook = visit.webhook
    try:
        found = read_cells(visit)
    except StoreUnavailable:
        visit.is_away = True
        if webhook.hold and not is_hold_over(webhook):
            visit.speak(webhook.language)
            return visit.hold(webhook.step, webhook.since)
        found = Found(place_call(webhook))
    visit.speak(found.before.language)
    if found.answered:
        return repeat_answer(visit, found.answered)
    heard = found.question or hear_caller(visit)
    after, reply = decide_turn(visit, found, heard)
    if after.recording != found.before.recording:
        teller = Teller(visit.line, visit.desk, visit.backend)
        teller.announce_message(visit.cells, webhook, after.recording, visit.moment(SLOW))
    if not isinstance(reply.step, Consult):
        return settle_reply(visit, found.before, heard, after, reply)
    question = found.question or write_question(heard, after.step)
    asking = Asking(visit.line, visit.backend, webhook, question, found.before, after, reply.says)
    is_kept = bool(found.question or webhook.hold)
    return consult_backend(visit, asking, is_kept=is_kept, old_answer=found.old_answer)


def read_cells(visit: Visit) -> Found:
    """Read the cells of this turn. Raises StoreUnavailable.

    A replica may lag, so a cell that must be there is asked for once more, of the primary.
    """
    webhook, turn = visit.webhook, visit.webhook.turn
    if turn == 0:
        return Found(Call())  # a new call: nothing is known of it
    names = [webhook.cell(turn), webhook.cell(turn + 1)]
    if webhook.hold or webhook.heard.again:
        names += [webhook.cell(turn, "asked"), webhook.cell(turn, "result")]
    values = visit.cells.read(*names, until=visit.moment(READ))
    before, after, asked, result = [*values, None, None][:4]
    if not before and not after:
        before = visit.cells.read_primary(names[0], until=visit.moment(ASKED))
    if names[2:] and not after and not asked:
        asked = visit.cells.read_primary(names[2], until=visit.moment(ASKED))
    return Found(
        before=read_call(visit.line.plan.flow, before, webhook),
        answered=read_turn(after),
        question=read_record(Question, asked),
        old_answer=read_answer_of_before(result),
    )


def read_call(flow: Flow, value: str | None, webhook: Webhook) -> Call:
    """The call as its record says it; without one that the caller has heard, as the URL says it."""
    record = read_turn(value)
    if not record or is_unheard(flow, record, webhook):
        return place_call(webhook)
    return read_state(record, webhook.turn)


def is_unheard(flow: Flow, record: Record, webhook: Webhook) -> bool:
    """Tell whether the caller, who replies to the step in the URL, has heard another answer.

    An answer got lost on the way, and while Redis was away or had forgotten it, another one was
    given. On hold the URL has the step that asks the backend, to which the record's must lead.
    """
    asked, stands = flow.get(webhook.step), flow.get(record.step)
    if webhook.step == record.step or not asked or not stands:
        return False
    if webhook.hold:
        waits = isinstance(stands, Ask | Offer | Consult)
        return not waits and webhook.step not in follow_steps(stands)
    return not isinstance(asked, Tell | End | Refuse)  # those wait for nobody


def place_call(webhook: Webhook) -> Call:
    """The call as the URL of a webhook says it."""
    return Call(turn=webhook.turn, step=webhook.step, language=webhook.language)


def repeat_answer(visit: Visit, settled: Record) -> str:
    """Say what stands. Who was on hold comes to look; anybody else comes once more."""
    if settled.late and visit.webhook.hold:
        return say_if_allowed(visit, settled)
    visit.trail["replayed"] = True
    with suppress(StoreUnavailable):
        key = visit.webhook.cell(settled.turn, "again")
        visit.cells.settle(key, "1", until=time.monotonic() + MARK)
    if settled.late:
        return say_if_allowed(visit, settled)
    return settled.twiml


def hear_caller(visit: Visit) -> Heard:
    """Take what this webhook brings. On hold nobody speaks; a new call has to find its entrance."""
    webhook = visit.webhook
    if webhook.turn == 0:
        entrance = find_entrance(visit.line.settings, visit.cells, webhook)
        return replace(webhook.heard, entrance=entrance)
    if webhook.step == "language":
        return replace(webhook.heard, entrance=find_door(visit.line.settings))
    if webhook.hold and visit.is_away:
        return replace(webhook.heard, answer=FAILED)
    if webhook.hold:
        return replace(webhook.heard, again=True)
    return webhook.heard


def decide_turn(visit: Visit, found: Found, heard: Heard) -> tuple[Call, Reply]:
    """The next state of the call, and what the caller hears.

    A question that stands is asked, even if no words had led to it, but a message or a transfer.
    """
    plan = visit.line.plan
    after, reply = decide(plan, found.before, heard)
    if found.question and not isinstance(reply.step, Consult):
        return decide(plan, replace(found.before, step=found.question.step), heard)
    return after, reply


def write_question(heard: Heard, step: str) -> Question:
    """The words of the caller, as a question to the backend."""
    return Question(heard.speech, heard.confidence, heard.keys, at=time.time(), step=step)


def settle_reply(visit: Visit, before: Call, heard: Heard, after: Call, reply: Reply) -> str:
    """Settle what is to be said; say what stands."""
    visit.trail |= {"from": before.step or None, "to": after.step, "dial": heard.dial or None}
    took = visit.elapsed
    record = write_answer(visit.line, visit.webhook, before.step, heard, after, reply, ms=took)
    if visit.is_away and (visit.webhook.hold or heard.again):
        return conclude(visit, record)  # the talk goes on without an answer: no push may end it
    if visit.is_away:
        return record.twiml
    with suppress(StoreUnavailable):  # if the write did land, it is the same text
        standing = settle_answer(visit.cells, visit.webhook, record)
        visit.trail["replayed"] = standing is not record or None
        return say_if_allowed(visit, standing) if standing.late else standing.twiml
    return record.twiml
