"""Somebody at a terminal, or a script, plays the caller: what is typed becomes what happens.

The command is tests/phone.py; `COMMANDS`, below, holds what may be typed besides words and keys.
"""

import math
import os
import re
import select
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from standins.asking import seconds_to_say
from standins.call import MESSAGE_SECONDS, TALK_SECONDS, NotNow, Phone
from standins.history import cells_of, described
from standins.instance import Instance
from standins.screen import one_line, paint, take_back, tell
from standins.verdict import examine, explain_refusal, sum_up

UNSURE: Final = 0.3
TRANSCRIPT: Final = r"set [A-Z][A-Z0-9_]*=.*|rings( from .+)?"  # how one begins
WAITS: Final = {
    "gather": "you speak; #1 presses a key; an empty line is silence; !help",
    "dial": "the callee: !answer [seconds], !voicemail, !busy, !no-answer, !fail; !help",
    "screening": "the callee: #1 takes the call, another key or an empty line does not; !help",
    "record": "after the beep: say the message; #1 presses a key; !help",
}
HELP: Final = """\
# words              what the caller says; after the beep it is the message
# !unsure words      the same, badly understood (confidence 0.3)
# #1                 keys that the caller presses (## is the key #)
# an empty line      silence
# !answer [seconds]  the callee picks up, hears who calls, and is asked for a key (a script takes
#                    the call); !voicemail: a mailbox answers; also !busy, !no-answer, !fail
# !message [seconds] the caller leaves a message of this length
# !retry             Twilio delivers the last webhook again; are the words the same?
# !kill              kill -9 the function in mid-call, and start a fresh process
# !history           what was written down about this call; !history json: to the letter
# !hangup            the caller hangs up (so does the end of the input)
# !help              these lines, at any prompt"""


# The input.


class Script:
    """Standard input that is no keyboard: its lines, and those that nobody came to ask for."""

    def __init__(self, number: int) -> None:
        self._number, self._read = number, b""

    def line(self) -> str:
        """The next line; EOFError when there is none."""
        while b"\n" not in self._read and (some := os.read(self._number, 65536)):
            self._read += some
        if not self._read:
            raise EOFError
        line, _, self._read = self._read.partition(b"\n")
        return line.decode(errors="replace").strip()

    def is_transcript(self) -> bool:
        """Tells whether the input begins as tests/calls/*.call do; waits for nothing."""
        if select.select([self._number], [], [], 0)[0]:
            self._read += os.read(self._number, 65536)
        lines = [line.strip() for line in self._read.decode(errors="replace").splitlines()]
        first = next((line for line in lines if line and not line.startswith("#")), "")
        return re.fullmatch(TRANSCRIPT, first) is not None

    def rest(self) -> list[str]:
        """The lines that are there already and were never asked for; waits for no others."""
        while select.select([self._number], [], [], 0)[0]:
            if not (some := os.read(self._number, 65536)):
                break
            self._read += some
        return [line.strip() for line in self._read.decode(errors="replace").rstrip().splitlines()]


def is_typed() -> bool:
    """Tells whether somebody sits at a keyboard and reads along."""
    return sys.stdin.isatty() and sys.stdout.isatty()


# The call.


class Terminal:
    """A phone at a keyboard, or fed by a script: one line of input is one event."""

    def __init__(
        self,
        phone: Phone,
        script: Script,
        instance: Instance | None = None,
        state: Path | None = None,
    ) -> None:
        self.phone, self._instance, self._state = phone, instance, state
        self._script = script
        self._unusable = 0

    def converse(self) -> int:
        """Asks how the line is, rings, and obeys until the call ends. Answers the exit status."""
        problems = examine(self.phone.url)
        try:
            self.phone.ring()
            explain_refusal(self.phone, ours=self._instance is not None)
            while self.phone.state != "ended":
                self._turn()
        except (KeyboardInterrupt, EOFError):
            if is_typed():
                print()
            if self.phone.state not in {"new", "ended"}:
                self.phone.hang_up()
        self._tell_unused()
        unusable = 0 if sys.stdin.isatty() else self._unusable
        well = sum_up(self.phone, self._instance, problems=problems, unusable=unusable)
        return 0 if well else 1

    def _turn(self) -> None:
        """Lets a pause pass, or takes one line of input."""
        if self.phone.state == "hold":
            self.phone.wait()
            return
        try:
            self._obey(self._line())
        except NotNow:
            self.refuse(f"not now: {WAITS[self.phone.state]}")

    def _line(self) -> str:
        """The next line of input; EOFError at its end. What was typed gives way to its event."""
        if not is_typed():
            return self._script.line()
        line = input(paint(f"# {WAITS[self.phone.state]}\n", "2") + "> ")
        take_back(2)
        return line.strip()

    def _obey(self, line: str) -> None:
        """Does what one line of input says."""
        name, _, rest = line.partition(" ")
        if self.phone.state == "screening" and not line.startswith("!"):
            self._screen(line)
        elif not line:
            self.phone.silent()
        elif re.fullmatch(r"#[0-9*#]+", line):
            self.phone.press(line[1:])
        elif not line.startswith(("#", "!")):
            self._speak(line)
        elif name in COMMANDS and re.fullmatch(COMMANDS[name][0], rest.strip()):
            COMMANDS[name][1](self, rest.strip())
        else:
            self.refuse(f"not understood: {line} (!help lists what is)")

    def answer(self, seconds: int) -> None:
        """The callee picks up; who types decides by key, a script takes the call."""
        if is_typed():
            self.phone.pick_up(seconds)
        else:
            self.phone.callee("completed", seconds)

    def _screen(self, line: str) -> None:
        """The callee has heard who calls: presses a key, or does nothing."""
        keys = line.removeprefix("#")
        if keys:
            self.phone.callee_presses(keys)
        else:
            self.phone.callee_silent()

    def _speak(self, words: str) -> None:
        """Says words; after the beep they are a message, as long as it takes to say them."""
        if self.phone.state == "record":
            tell(f"# the message: {words}")
            self.phone.leave_message(math.ceil(seconds_to_say(words)))
            return
        self.phone.say(words)
        if re.fullmatch("[0-9*]", words):
            tell(f"# heard as the word {words}; #{words} presses the key")

    def retry(self) -> None:
        """Delivers the last webhook again, and compares."""
        answer, same = self.phone.retry()
        tell(f"# {'the same words' if same else 'another answer'}: HTTP {answer.status}")

    def kill(self) -> None:
        """Kills the function, and starts a fresh process."""
        if not self._instance:
            self.refuse("a function at --url is not ours to kill")
            return
        self.phone.tell("instance is killed")
        self._instance.restart()

    def tell_history(self, form: str) -> None:
        """Prints what was written down about this call: for people, or as JSON."""
        if not self._state or not self._state.exists():
            self.refuse("the cells of a function at --url cannot be read from here")
            return
        for name, value in cells_of(self._state, self.phone.call_sid):
            lines = [f"{name}: {value}"] if form == "json" else described(name, value)
            for line in lines:
                tell(f"# {line}")

    def refuse(self, why: str) -> None:
        """Says why a line of input was of no use."""
        tell(f"# {why}")
        self._unusable += 1

    def _tell_unused(self) -> None:
        """Says which lines of a script came too late."""
        if unused := [] if is_typed() else self._script.rest():
            lines = "1 line" if len(unused) == 1 else f"{len(unused)} lines"
            words = one_line(", ".join(map(repr, unused)))
            tell(f"# the call had ended, {lines} of the script never used: {words}")


NOTHING: Final = ""
SECONDS: Final = r"\d*"
Command = Callable[[Terminal, str], object]
COMMANDS: Final[dict[str, tuple[str, Command]]] = {  # what may follow, and what is done
    "!help": (NOTHING, lambda _, __: tell(HELP)),
    "!unsure": (r".+", lambda terminal, words: terminal.phone.say(words, UNSURE)),
    "!answer": (SECONDS, lambda terminal, n: terminal.answer(int(n or TALK_SECONDS))),
    "!voicemail": (NOTHING, lambda terminal, _: terminal.phone.callee("voicemail")),
    "!busy": (NOTHING, lambda terminal, _: terminal.phone.callee("busy")),
    "!no-answer": (NOTHING, lambda terminal, _: terminal.phone.callee("no-answer")),
    "!fail": (NOTHING, lambda terminal, _: terminal.phone.callee("failed")),
    "!message": (
        SECONDS,
        lambda terminal, n: terminal.phone.leave_message(int(n or MESSAGE_SECONDS)),
    ),
    "!retry": (NOTHING, lambda terminal, _: terminal.retry()),
    "!kill": (NOTHING, lambda terminal, _: terminal.kill()),
    "!history": ("|json", Terminal.tell_history),
    "!hangup": (NOTHING, lambda terminal, _: terminal.phone.hang_up()),
}
