"""One webhook on its way: what it may use, how long it has, and what the log will say of it."""

import time
from dataclasses import dataclass, field, replace
from typing import Final

from phone_line.answers import Line
from phone_line.backend import Backend
from phone_line.cells import Cells
from phone_line.deadline import Moment
from phone_line.log import write_log
from phone_line.push import SILENCE
from phone_line.slow_work import Desk
from phone_line.text import mask_phone
from phone_line.twiml import next_url, render_hold, render_silence
from phone_line.webhook import Webhook

# Shares of the deadline, counted from the webhook's arrival: after each, what comes next still has
# time. The last tenth is for everything that is not under our control.
READ: Final = 0.45
ASKED: Final = 0.55
SLOW: Final = 0.7
SETTLE: Final = 0.9


@dataclass(slots=True)
class Visit:
    """A webhook that is being answered."""

    line: Line
    desk: Desk
    backend: Backend
    webhook: Webhook
    arrived: Moment
    cells: Cells
    is_away: bool = False  # the store did not say how the call stands
    trail: dict[str, object] = field(default_factory=dict)  # for the log

    def moment(self, share: float) -> Moment:
        """The moment at which a share of the deadline is over."""
        return self.arrived + share * self.line.settings.response_deadline

    @property
    def elapsed(self) -> int:
        """Milliseconds since the webhook arrived."""
        return round((time.monotonic() - self.arrived) * 1000)

    def speak(self, language: str) -> None:
        """Go on in the language that the caller has chosen; none: the line's first."""
        if language:
            plan = self.line.plan.in_language(language)
            self.line = replace(self.line, plan=plan)

    def hold(self, step: str, since: float) -> str:
        """Not yet: words and a pause, then Twilio comes back to this same turn."""
        self.trail["held"] = nth = self.webhook.hold + 1
        pushed = {"pushed": 1} if self.webhook.pushed else {}  # a push that has come comes but once
        url = self.same_turn(step=step, hold=nth, since=int(since), **pushed)
        return render_hold(self.line.settings, self.line.plan, url, nth)

    def keep_silent(self) -> str:
        """A push is about to bring the answer: a silence that outlasts it, then the answer."""
        self.trail["held"] = nth = self.webhook.hold + 1
        since = self.webhook.since or int(time.time())
        url = self.same_turn(step=self.webhook.step, hold=nth, since=since, pushed=1)
        return render_silence(url, SILENCE)

    def same_turn(self, **query: object) -> str:
        """A URL that brings the caller back to this turn."""
        place = {"turn": self.webhook.turn, **query}
        if self.webhook.language:
            place["language"] = self.webhook.language
        return next_url(self.line.settings, self.webhook.began, place)

    def write_trail(self) -> None:
        """One line in the log for this webhook: words and numbers only if the operator asked."""
        webhook, cells = self.webhook, self.cells
        line = {"call": webhook.call_sid, "turn": webhook.turn, **self.trail, "ms": self.elapsed}
        line |= {"redis_ms": round(cells.seconds * 1000, 1), "commands": cells.commands}
        line |= {"degraded": cells.lost, "caller": mask_phone(webhook.caller)}
        if self.line.settings.log_words:
            heard = webhook.heard
            line |= {"heard": heard.speech or None, "keys": heard.keys or None}
            line |= {"caller": webhook.caller}
        level = "error" if cells.lost else "info"
        write_log(level, "webhook", **line)


def begin_visit(
    line: Line, desk: Desk, backend: Backend, webhook: Webhook, arrived: Moment
) -> Visit:
    """A webhook arrives. A line never rings itself, nor whoever calls or forwarded the call."""
    if not webhook.began:
        webhook = webhook._replace(began=int(time.time()))
    own = (webhook.caller, webhook.called, webhook.forwarded_from)
    plan = line.plan.leave_out(own)
    if plan is not line.plan:
        line = replace(line, plan=plan)
    deadline = arrived + SETTLE * line.settings.response_deadline
    return Visit(line, desk, backend, webhook, arrived, Cells(line.store, deadline))
