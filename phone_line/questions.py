"""A question to the backend, as work for a desk: asked until it is answered, and settled as words.

`consult.keep_question` settles the question before anybody works on it, so no retry and no death
of an instance loses it. Whoever works on it settles turn n+1, the next answer of the call, so that
the backend's answer exists once, as words. Within two minutes it may be asked again; then, or when
the backend fails for good, the answer is an apology, and a person or voicemail.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from phone_line.answers import Line, settle_answer, write_answer
from phone_line.backend import Backend, Exchange
from phone_line.cells import Cells, StoreUnavailable
from phone_line.conversation import Reply, decide
from phone_line.deadline import Moment
from phone_line.push import push_caller
from phone_line.records import Answer, Call, Heard, Question, Record, read_turn
from phone_line.webhook import Webhook

PATIENCE: Final = 120  # seconds after which a held caller gets a person
HISTORY: Final = 20  # turns that the backend is told about
FAILED: Final = Answer(failed=True)


@dataclass(slots=True)
class Asking:
    """The task of having one question answered. Its result is the record of the next turn."""

    line: Line
    backend: Backend
    webhook: Webhook
    question: Question
    before: Call  # the call when the caller spoke
    thinking: Call  # the call at the step that asks the backend
    says: tuple[str, ...]  # what is said on the way there
    history: Sequence[Exchange] = ()
    alone: bool = True
    asked: str = "backend"
    is_overtaken: bool = False  # the turn got another answer, which a webhook has spoken
    was_away: bool = False  # the store was, and a webhook may have gone on without it meanwhile

    @property
    def name(self) -> str:
        """The cell of the turn, whose lease is the worker's."""
        return self.webhook.cell(self.webhook.turn)

    @property
    def call_sid(self) -> str:
        """The call that waits."""
        return self.webhook.call_sid

    @property
    def until(self) -> Moment:
        """The moment at which the two minutes are over."""
        return time.monotonic() + self.question.at + PATIENCE - time.time()

    def find_result(self, cells: Cells) -> Record | None:
        """The answer that stands, asked of the primary: a replica that lags must not ask twice."""
        answered = self.webhook.cell(self.webhook.turn + 1)
        return read_turn(cells.read_primary(answered))

    def prepare(self, cells: Cells) -> bool:
        """Read what was said in the call. False: the caller is gone, so nobody is asked."""
        webhook, past = self.webhook, range(1, self.webhook.turn + 1)[-HISTORY:]
        turns = [webhook.cell(turn) for turn in past]
        end, *values = cells.read(webhook.cell("end"), *turns)
        records = filter(None, map(read_turn, values))
        self.history = [Exchange(r.heard or r.keys, r.said) for r in records]
        return end is None

    def attempt(self, until: Moment) -> Record:
        """Ask the backend once; its answer as words. Raises BackendFailed."""
        return self.answer_with(self.ask(until))

    def ask(self, until: Moment) -> Answer:
        """Ask the backend once; its answer. Raises BackendFailed."""
        language = self.line.plan.words.tag
        return self.backend.ask(self.webhook, self.question, self.history, language, until)

    def put_off(self) -> None:
        """Take note that the caller is put on hold, for the page of the call."""
        self.webhook = self.webhook._replace(hold=self.webhook.hold + 1)

    def give_up(self) -> Record:
        """The words for a backend that has failed: an apology, and a person or voicemail."""
        return self.answer_with(FAILED)

    def keep(self, result: Record) -> Record:
        """Settle the answer; the one that stands. Raises StoreUnavailable."""
        cells = Cells(self.line.store, time.monotonic() + 2)
        try:
            standing = settle_answer(cells, self.webhook, result)
        except StoreUnavailable:
            self.was_away = True
            raise
        self.is_overtaken = not standing.late
        return standing

    def follow_up(self, owner: str) -> None:
        """Push the caller to the answer, with a login, unless somebody may have spoken since."""
        if self.line.settings.rest_logins and not self.is_overtaken and not self.was_away:
            push_caller(self.line, self.webhook, self.question, owner)

    def answer_with(self, answer: Answer) -> Record:
        """The next turn of the call, as the backend's answer makes it."""
        plan = self.line.plan
        thinking = replace(self.thinking, turn=self.before.turn)
        after, reply = decide(plan, thinking, Heard(answer=answer))
        reply = Reply((*self.says, *reply.says), reply.step, reply.patience)
        waited = round((time.time() - self.question.at) * 1000)
        measured = {
            "ms": max(waited, 0),
            "seconds": answer.seconds,
            "usage": answer.usage,
            "late": 1,
        }
        words, asker = self.question, self.before.step
        return write_answer(self.line, self.webhook, asker, words, after, reply, **measured)
