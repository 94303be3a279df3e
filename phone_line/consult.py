"""The backend decides what comes next; the caller hears its answer, or is held.

What the caller said is settled before anybody is asked, so that nothing loses it. For a store that
is away there is one rule:

    A caller who is on hold (the URL says so), or whose question is known to stand in the store,
    stays on hold for as long as no answer can be read, until two minutes after the question; then
    comes an apology, and a person or voicemail. A question that cannot be put into the store is
    asked within this webhook, if a thread is free for it: its answer is said, or the same apology.
    Words that could not be settled may not be cut short by a push (`push.py` moves a held caller to
    the answer): the store is told so as soon as it is back.

A caller on hold whose cells cannot even be read is held by `turn.find_answer`, which reads them.
"""

import time
from contextlib import suppress

from phone_line.answers import settle_answer
from phone_line.backend import BackendFailed
from phone_line.cells import DAY, StoreUnavailable
from phone_line.deadline import in_background
from phone_line.push import forbid_push, may_speak
from phone_line.questions import FAILED, PATIENCE, Asking
from phone_line.records import (
    Answer,
    Question,
    Record,
    read_answer_of_before,
    read_record,
    write_record,
)
from phone_line.twiml import HOLDS
from phone_line.visit import ASKED, SLOW, Visit
from phone_line.webhook import Webhook


def consult_backend(
    visit: Visit, asking: Asking, *, is_kept: bool, old_answer: Answer | None
) -> str:
    """The TwiML for a turn that the backend decides.

    `is_kept`: the question stands in the store. `old_answer` is the backend's, as the release
    before this one kept it.
    """
    # 1. Keep the question; one that cannot be kept is asked once.
    if not is_kept:
        try:
            old_answer = keep_question(visit, asking)
        except StoreUnavailable:
            return ask_once(visit, asking)
    # 2. An answer at last: the release before this one had it, or two minutes are over.
    if old_answer:
        return conclude(visit, asking.answer_with(old_answer))
    if time.monotonic() > asking.until:
        return conclude(visit, asking.give_up())
    # 3. Wait for the worker, who may be in another instance.
    try:
        record, is_ours = visit.desk.wait_for(asking, visit.cells, visit.moment(SLOW))
    except StoreUnavailable:
        record, is_ours = None, False
    if record is None:
        return visit.hold(asking.question.step, asking.question.at)
    # 4. Speak, unless a push is about to.
    if is_ours:
        return say_record(visit, record)
    return say_if_allowed(visit, record)


def keep_question(visit: Visit, asking: Asking) -> Answer | None:
    """Settle what the caller said, before anybody works on it. Raises StoreUnavailable.

    If it stood already, the release before this one may have had it answered: the answer.
    """
    if visit.is_away:
        raise StoreUnavailable("the cells of this call could not be read")
    key = visit.webhook.cell(visit.webhook.turn, "asked")
    value = write_record(asking.question)
    standing = visit.cells.settle(key, value, DAY, visit.moment(ASKED))
    if standing == value:
        return None
    asking.question = read_record(Question, standing) or asking.question
    result = visit.webhook.cell(visit.webhook.turn, "result")
    with suppress(StoreUnavailable):  # the question stands: it is not asked a second time here
        return read_answer_of_before(*visit.cells.read(result, until=visit.moment(ASKED)))
    return None


def ask_once(visit: Visit, asking: Asking) -> str:
    """Ask the backend within this webhook, if a thread is free; say what came of it."""
    answer = FAILED
    with visit.desk.take_place() as may_wait, suppress(BackendFailed):
        if may_wait:
            answer = asking.ask(visit.moment(SLOW))
    return conclude(visit, asking.answer_with(answer))


def conclude(visit: Visit, record: Record) -> str:
    """Settle an answer that no worker settles, and say what stands."""
    if not visit.is_away:
        with suppress(StoreUnavailable):
            standing = settle_answer(visit.cells, visit.webhook, record)
            return say_if_allowed(visit, standing)
    keep_voice(visit)
    return say_record(visit, record)


def keep_voice(visit: Visit) -> None:
    """Let no push end the talk that begins now, as soon as the store can be told."""
    if visit.line.settings.rest_logins and visit.line.settings.backend_url:
        with suppress(OSError):  # no thread is left: then a push may come, as for any look
            until = time.monotonic() + PATIENCE
            in_background(forbid_push, visit.line, visit.webhook, until)


def say_if_allowed(visit: Visit, record: Record) -> str:
    """Say a late answer, unless a push is about to bring it."""
    if may_speak(visit.line, visit.cells, visit.webhook):
        return say_record(visit, record)
    return visit.keep_silent()


def say_record(visit: Visit, record: Record) -> str:
    """The words of a record."""
    visit.trail |= {"from": record.asker or None, "to": record.step}
    return record.twiml


def is_hold_over(webhook: Webhook) -> bool:
    """Tell whether a held caller has waited for two minutes, from the URL alone.

    A URL of the release before may name no time: then the holds are counted.
    """
    if webhook.since:
        return time.time() > webhook.since + PATIENCE
    longest = HOLDS[-1][1]
    return webhook.hold * longest > PATIENCE
