"""Calls as plain text: `Transcript` plays the notation of `Phone.transcript` again and compares.

    call = Transcript.read(Path("tests/calls/forward.call"))
    with Instance(base | call.settings) as instance:
        hooks = {"instance is killed": instance.restart}
        assert call.play(Phone(instance.url, token=token), hooks) == []

What the terminal prints is in this notation: a call that was tried by hand can be kept as a test.
"""

import re
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final, Self

from standins.call import MESSAGE_SECONDS, TALK_SECONDS, NotNow, Phone
from standins.callee import ORDINALS

OVERHEARD: Final = "callee hears: "
TOLD: Final = "owner is told: "
TELLING_SECONDS: Final = 5.0  # real ones, in which an owner is told


class Transcript:
    """A call in the notation of `Phone.transcript`: played again, every `line ...` is compared.

        set FORWARD_TO=+15550100099
        rings
        line: Hello ...                 (a trailing " ..." stands for any rest)
        caller: help (confidence 0.3)
        line dials +15550100099
        callee answers                  (hears the whisper, presses 1, and they talk)
        callee hears: A call for you ...    (which need not be written)
        callee presses 5
        line records
        caller leaves a message
        owner is told: Voicemail from ...   (wherever it is written: it comes when it comes)
        # comments and empty lines are skipped

    Callees also do: `callee is busy`, `callee does not answer`, `callee fails`, `callee is silent`,
    `callee hangs up`, `callee's voicemail answers`; of several, `the second phone answers`. Who
    answers and is not said to do anything else presses 1.

    `settings` holds what the `set` lines say; whoever plays it starts the function with them.
    """

    def __init__(self, text: str) -> None:
        lines = [line.strip() for line in text.splitlines()]
        events = [line for line in lines if line and not line.startswith("#")]
        pairs = (event[4:].partition("=") for event in events if event.startswith("set "))
        self.settings = {name: value for name, _, value in pairs}
        self.events = [event for event in events if not event.startswith("set ")]
        self._read, self._overheard, self._told = 0, 0, 0

    @property
    def tells_owner(self) -> bool:
        """Tells if the owner is told of something, so that the line needs a NOTIFY_URL."""
        return any(event.startswith(TOLD) for event in self.events)

    @classmethod
    def read(cls, path: Path) -> Self:
        return cls(path.read_text(encoding="utf-8"))

    def play(
        self, phone: Phone, hooks: Mapping[str, Callable[[], object]] | None = None
    ) -> list[str]:
        """Plays the call; answers the differences, none when it went as written.

        `hooks` are events of the outside world: {"instance is killed": instance.restart}.
        """
        self._read, self._overheard, self._told = 0, 0, 0
        for place, event in enumerate(self.events, 1):
            if found := self._event(phone, event, hooks or {}):
                return [f"event {place}, {event!r}: {found}", *phone.transcript]
        extra = self._said(phone)
        if phone.state not in {"new", "ended"}:
            phone.hang_up()
        return [f"not in the transcript: {extra!r}", *phone.transcript] if extra else []

    def _event(
        self, phone: Phone, event: str, hooks: Mapping[str, Callable[[], object]]
    ) -> str | None:
        """Plays one event; answers what was wrong with it."""
        if event.startswith("line"):
            return self._compare(phone, event)
        if event.startswith(OVERHEARD):
            return self._compare_overheard(phone, event)
        if event.startswith(TOLD):
            return self._compare_told(phone, event)
        if extra := self._said(phone):
            return f"before it came {extra!r}"
        if "answers" in event:
            self._overheard = len(phone.transcript)
        if event in hooks:
            phone.tell(event)
            hooks[event]()
            return None
        try:
            return perform(phone, event, stepwise=True)
        except NotNow as misplaced:
            return str(misplaced)

    def _said(self, phone: Phone) -> str | None:
        """The line's next event that was not compared yet."""
        said = (e for e in phone.transcript[self._read :] if e.startswith("line"))
        return next(said, None)

    def _compare(self, phone: Phone, expected: str) -> str | None:
        while (said := self._said(phone)) is None and phone.state in {"hold", "screening"}:
            phone.wait() if phone.state == "hold" else phone.callee_presses("1")
        if said is None:
            return f"the line does nothing; the call waits for {phone.state}"
        self._read = phone.transcript.index(said, self._read) + 1
        return differs(said, expected)

    def _compare_told(self, phone: Phone, expected: str) -> str | None:
        """Waits for what the owner is told, which comes when it comes, and compares it."""
        end = time.monotonic() + TELLING_SECONDS
        while time.monotonic() < end:
            for place, event in enumerate(phone.transcript[self._told :], self._told + 1):
                if event.startswith(TOLD):
                    self._told = place
                    return differs(event, expected)
            time.sleep(0.02)
        return "the owner is told nothing"

    def _compare_overheard(self, phone: Phone, expected: str) -> str | None:
        """Compares what was said to a phone that the line rings, which may be left out."""
        rest = phone.transcript[self._overheard :]
        heard = next((event for event in rest if event.startswith(OVERHEARD)), None)
        if heard is None:
            return f"the callee hears nothing; the call waits for {phone.state}"
        self._overheard = phone.transcript.index(heard, self._overheard) + 1
        return differs(heard, expected)


def differs(said: str, expected: str) -> str | None:
    """The words that were said, unless they are what was expected."""
    return None if fits(expected, said) else f"it was {said!r}"


def fits(expected: str, said: str) -> bool:
    """Tells whether the line did what is written; a trailing " ..." stands for any rest."""
    start = expected.removesuffix(" ...")
    return said == expected or (start != expected and said.startswith(start))


def run_script(
    phone: Phone, lines: Iterable[str], hooks: Mapping[str, Callable[[], object]] | None = None
) -> list[str]:
    """Plays the lines of a transcript on a phone; answers the differences."""
    return Transcript("\n".join(lines)).play(phone, hooks)


def perform(phone: Phone, event: str, *, stepwise: bool = False) -> str | None:
    """Does what one event of the caller, the callee or Twilio says; answers what was wrong.

    `stepwise`: who answers does not press 1 at once, because later events may say what is done.
    """
    for pattern, action in EVENTS.items():
        if found := re.fullmatch(pattern, event):
            wrong = action(phone, *found.groups())
            if "answers" in event and phone.state == "screening" and not stepwise:
                phone.callee_presses("1")
            return wrong
    return "this is no event that a phone knows"


def _ring(phone: Phone, caller: str | None) -> None:
    phone.caller = caller or phone.caller
    phone.ring()


def _speak(phone: Phone, speech: str, confidence: str | None) -> None:
    sure = float(confidence or 0.9) if confidence != "none" else None
    phone.say(speech, sure)


def _again(phone: Phone) -> str | None:
    """Retries; another answer is wrong, unless the first one only asked for patience."""
    holding = phone.state == "hold"
    same = phone.retry().same
    return None if same or holding else "the repeated webhook was answered differently"


WHICH: Final = "|".join(ORDINALS)
EVENTS: Final[dict[str, Callable[..., str | None]]] = {
    r"rings(?: from (.+))?": _ring,
    r"caller: (.*?)(?: \(confidence (none|[\d.]+)\))?": _speak,
    r"caller presses ([0-9*#]+)": lambda phone, keys: _done(phone.press(keys)),
    r"caller is silent": lambda phone: _done(phone.silent()),
    r"caller leaves a message(?: \((\d+) s\))?": lambda phone, seconds: _done(
        phone.leave_message(int(seconds or MESSAGE_SECONDS))
    ),
    r"caller hangs up": lambda phone: _done(phone.hang_up()),
    r"callee answers(?: \((\d+) s\))?": lambda phone, seconds: _done(
        phone.pick_up(int(seconds or TALK_SECONDS))
    ),
    rf"the ({WHICH}) phone answers(?: \((\d+) s\))?": lambda phone, which, seconds: _done(
        phone.pick_up(int(seconds or TALK_SECONDS), ORDINALS.index(which))
    ),
    r"callee's voicemail answers": lambda phone: _done(phone.mailbox()),
    rf"the ({WHICH}) phone's voicemail answers": lambda phone, which: _done(
        phone.mailbox(ORDINALS.index(which))
    ),
    r"callee presses ([0-9*#]+)": lambda phone, keys: _done(phone.callee_presses(keys)),
    r"callee is silent": lambda phone: _done(phone.callee_silent()),
    r"callee hangs up": lambda phone: _done(phone.callee_hangs_up()),
    r"callee is busy": lambda phone: _done(phone.callee("busy")),
    r"callee does not answer": lambda phone: _done(phone.callee("no-answer")),
    r"callee fails": lambda phone: _done(phone.callee("failed")),
    r"callee is called off": lambda phone: _done(phone.callee("canceled")),
    r"twilio retries": _again,
}


def _done(_: object) -> None:
    return None
