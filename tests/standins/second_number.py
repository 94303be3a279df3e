"""A number that is told by TwiML to call the line: it speaks, presses keys, waits, hangs up.

Nobody listens there, so it goes by the clock alone, as Twilio does. What the line makes of it is
played by `Phone`: its virtual clock says how long the line speaks and how long it then listens.
`speed` seconds of the script pass in a real one, so that the moments which the line writes down are
those of a call.

Where only a live call can tell: `interrupts` says whether speech cuts a prompt short; if not, what
is said meanwhile is lost. Keys always do. What is said to nobody (a transfer, a hold) is lost.
"""

import time
from dataclasses import dataclass, field
from typing import Final
from xml.etree import ElementTree

from standins.asking import seconds_to_say
from standins.call import Phone
from standins.twiml import words

SILENCE: Final = 5  # seconds after which Gather and Record give up, if they do not say


class CallingPhone(Phone):
    """A phone that knows when the line stops waiting for it."""

    def due(self) -> float:
        """The virtual second at which what the line waits for runs out; never, if for nothing."""
        length = {
            "gather": self._number("timeout", SILENCE),
            "record": self._number("timeout", SILENCE),
            "hold": self._number("length", 1),
            "dial": self._number("timeout", 30),
        }
        if self.state not in length:
            return float("inf")
        return self.clock.now + length[self.state]


@dataclass
class SecondNumber:
    """One call. `pause` are the seconds after speech until recognition is done with it."""

    phone: CallingPhone
    speed: float = 1.0
    interrupts: bool = True
    callee: str = "no-answer"  # what becomes of a transfer: see Phone.callee
    pause: float = 2.0
    now: float = 0.0  # seconds of the script since the call was answered
    began: float = field(default_factory=time.monotonic)
    is_stopped: bool = False

    def play(self, twiml: str) -> None:
        """Ring the line and play a script to its end."""
        self.phone.ring()
        self.began = time.monotonic()
        for verb in ElementTree.fromstring(twiml):  # noqa: S314 (it comes from our own command)
            if self.phone.state == "ended" or self.is_stopped:
                return
            match verb.tag:
                case "Pause":
                    self.pass_time(float(verb.get("length", "1")))
                case "Say":
                    self.speak(words(verb))
                case "Play":
                    self.press(verb.get("digits", ""))
                case "Hangup":
                    break
                case _:
                    raise ValueError(f"a second number cannot play {verb.tag}")
        self.stop()

    def stop(self) -> None:
        """Hang up, if the call is still there."""
        self.is_stopped = True
        if self.phone.state not in ("new", "ended"):
            self.phone.hang_up()

    def pass_time(self, seconds: float) -> None:
        """Be silent; what the line waits for meanwhile may run out."""
        until = self.now + seconds
        while self.phone.due() <= until and not self.is_stopped:
            self.sleep_until(self.phone.due())
            self.run_out()
        self.now = until
        self.sleep_until(until)

    def run_out(self) -> None:
        """The line waits for something that did not come."""
        if self.phone.state == "hold":
            self.phone.wait()
        elif self.phone.state == "dial":
            self.phone.callee(self.callee)
        else:
            self.phone.silent()

    def speak(self, text: str) -> None:
        """Say words, into a question or after a beep."""
        seconds = seconds_to_say(text)
        clock = self.phone.clock
        if self.phone.state == "record":
            spoken = self.now + seconds - max(self.now, clock.now)
            self.now += seconds
            self.sleep_until(self.now)
            clock.now = self.now - max(spoken, 0)
            self.phone.leave_message(round(spoken))
            return
        if self.phone.state != "gather" or (self.now < clock.now and not self.interrupts):
            self.pass_time(seconds)
            return
        clock.now = self.now + self.pause
        self.now += seconds
        self.sleep_until(self.now + self.pause)
        self.phone.say(text)

    def press(self, digits: str) -> None:
        """Press keys; w is half a second."""
        self.pass_time(0.5 * len(digits))
        keys = digits.replace("w", "")
        if self.phone.state in ("gather", "record"):
            self.phone.clock.now = self.now
            self.phone.press(keys)

    def sleep_until(self, moment: float) -> None:
        """Let real time pass up to a moment of the script."""
        time.sleep(max(self.began + moment / self.speed - time.monotonic(), 0))
