"""One phone call as Twilio makes it: `Phone` asks the function for TwiML and plays what comes back.

    phone = Phone(instance.url, token="secret")
    phone.ring()                    # plays until the caller has to do something
    phone.say("billing please")     # or press("1"), silent(), callee("busy"), wait(), hang_up()
    phone.callee("completed")       # hears the whisper, presses 1, talks; or step by step:
    phone.pick_up()                 # then callee_presses("1"), callee_silent(), callee_hangs_up()
    assert phone.heard == ["Connecting you."] and phone.state == "dial" and not phone.broken

Like Twilio it sends every usual field, signs each webhook, obeys the connection overrides in a
URL's fragment, repeats a failed webhook, falls back to the fallback URL, and reports the end of the
call. Unlike Twilio it says aloud which rules a document breaks (`broken`, `warned`; they stand in
twiml.py). Its clock is virtual: silence and pauses cost seconds that nobody waits for. What happens
is written to `transcript`, one event per line (transcript.py plays such lines again).

Here is what people do in a call. How Twilio plays a document stands in playing.py. How it asks for
one stands in asking.py. What a phone hears that the line rings stands in callee.py.

Where Twilio's documentation is silent: `<Dial action>` is also asked when the caller hangs up
first, and its answer is ignored.
"""

import contextlib
import re
from collections.abc import Callable
from typing import Final

from standins.asking import Retried, Webhook, recorded, seconds_to_say
from standins.callee import ORDINALS, Callee
from standins.playing import Player
from standins.webhooks import Answer, Ask, Failed

OUTCOMES: Final = {
    "busy": "callee is busy",
    "no-answer": "callee does not answer",
    "failed": "callee fails",
    "canceled": "callee is called off",
}
EVERY_KEY: Final = "1234567890*#"  # what ends a Record that names no finishOnKey
TALK_SECONDS: Final = 60
MESSAGE_SECONDS: Final = 10


class NotNow(Exception):
    """The call does not wait for what was asked of the phone."""


class Phone(Player):
    """One call, and what caller and callee do in it. `state` says what it waits for."""

    _talk = TALK_SECONDS

    def ring(self) -> list[str]:
        """Calls the line. Every method here answers what the line said since the last input."""
        self._expect("new")
        self.tell("rings" if self.caller.startswith("+") else f"rings from {self.caller}")
        return self._run(Ask(self.url))

    def say(self, speech: str, confidence: float | None = 0.9) -> list[str]:
        """Speaks. A confidence of None is left out, as Twilio may do."""
        self._expect("gather")
        doubt = "" if confidence == 0.9 else f" (confidence {confidence})".lower()
        self._input(f"caller: {speech}{doubt}")
        self.clock.tick(seconds_to_say(speech))
        if "speech" not in self._verb.get("input", "dtmf").split():
            return self._run(self._nothing())
        sure = [] if confidence is None else [("Confidence", f"{confidence:.7g}")]
        return self._run(self._onward([("SpeechResult", speech), *sure]))

    def press(self, keys: str) -> list[str]:
        """Presses keys; what follows finishOnKey or exceeds numDigits is lost."""
        self._expect("gather", "record")
        if not re.fullmatch(r"[0-9*#]+", keys):
            raise ValueError(f"not keys: {keys!r}")
        if self.state == "record":
            return self._press_at_record(keys)
        digits, pressed = self._digits(keys)
        self._input(f"caller presses {pressed}")
        if not digits or "dtmf" not in self._verb.get("input", "dtmf").split():
            return self._run(self._nothing())
        return self._run(self._onward([("Digits", digits)]))

    def _press_at_record(self, keys: str) -> list[str]:
        """Only a key in finishOnKey ends a recording; of any other the tone is recorded."""
        ends = self._verb.get("finishOnKey", EVERY_KEY)
        if key := next((key for key in keys if key in ends), ""):
            return self.leave_message(key=key)
        self._input(f"caller presses {keys}")
        self.tell(f"# the recording goes on: {f'only {ends}' if ends else 'no key'} ends it")
        return self.heard

    def silent(self) -> list[str]:
        """Says and presses nothing until the line stops waiting."""
        self._expect("gather", "record")
        self._input("caller is silent")
        if self.state == "record":  # Twilio never reports an empty recording
            self.clock.tick(self._number("timeout", 5))
            return self._run(None)
        return self._run(self._nothing())

    def callee(self, outcome: str, duration: int = TALK_SECONDS) -> list[str]:
        """Ends a Dial: completed (after `duration` seconds), busy, no-answer, failed, canceled.

        Who is asked to take the call presses 1. "voicemail" is a mailbox that answers.
        """
        if outcome == "completed":
            self.pick_up(duration)
            return self.callee_presses("1") if self.state == "screening" else self.heard
        if outcome == "voicemail":
            return self.mailbox()
        self._expect("dial")
        self._input(OUTCOMES[outcome])
        self.clock.tick(self._number("timeout", 30) if outcome == "no-answer" else 4)
        if any(callee.state != "rings" for callee in self.callees):
            outcome = "completed"  # one was picked up, and the call was not taken there
        return self._end_dial(outcome)

    def pick_up(self, duration: int = TALK_SECONDS, which: int | None = None) -> list[str]:
        """Somebody answers and hears the whisper, if there is one; else they talk at once.

        `which` of the Dial's phones, from 0; else the first one that rings.
        """
        length = f" ({duration} s)" if duration != TALK_SECONDS else ""
        answers = "callee answers" if which is None else f"the {ORDINALS[which]} phone answers"
        callee = self._ringing(which)
        self._talk = duration
        self._input(answers + length)
        return self._screen(callee, callee.pick_up)

    def mailbox(self, which: int | None = None) -> list[str]:
        """A mailbox answers: it listens to the whisper, presses nothing, and records the rest."""
        callee = self._ringing(which)
        whose = "callee" if which is None else f"the {ORDINALS[which]} phone"
        self._talk = TALK_SECONDS
        self._input(f"{whose}'s voicemail answers")
        heard = self._screen(callee, callee.pick_up)
        while callee.state == "asked" and self.state == "screening":
            heard = self._screen(callee, callee.wait)
        return heard

    def callee_presses(self, keys: str) -> list[str]:
        """Whoever picked up presses keys at the question."""
        callee = self._screened()
        self._input(f"callee presses {keys}")
        return self._screen(callee, lambda: callee.press(keys))

    def callee_silent(self) -> list[str]:
        """Whoever picked up does nothing until the line stops waiting."""
        callee = self._screened()
        self._input("callee is silent")
        return self._screen(callee, callee.wait)

    def callee_hangs_up(self) -> list[str]:
        """Whoever picked up hangs up before taking the call."""
        callee = self._screened()
        self._input("callee hangs up")
        return self._screen(callee, callee.hang_up)

    def leave_message(self, seconds: int = MESSAGE_SECONDS, key: str = "") -> list[str]:
        """Speaks after the beep and stays on the line; silence, or `key`, ends the recording."""
        self._expect("record")
        length = "" if seconds == MESSAGE_SECONDS else f" ({seconds} s)"
        self._input(f"caller leaves a message{length}")
        seconds = min(seconds, self._number("maxLength", 3600))
        self.clock.tick(seconds + (0 if key else self._number("timeout", 5)))
        return self._run(self._onward(recorded(self.account, seconds, key)))

    def hang_up_after_beep(self, seconds: int = 2) -> list[str]:
        """Hangs up while the line records; Twilio reports the recording with Digits=hangup."""
        self._expect("record")
        self.clock.tick(seconds)
        return self.hang_up(seconds)

    def hang_up(self, seconds: int = 2) -> list[str]:
        """Ends the call, and a recording of so many seconds; also while a webhook is answered."""
        if self.state in {"new", "ended"}:
            raise NotNow(f"there is no call to hang up: {self.state}")
        self._gone = True
        if self._playing:
            return self.heard
        self._input("caller hangs up")
        self.call_status = "completed"
        dialled = self._dialled("canceled")
        parting = {"record": recorded(self.account, seconds, "hangup"), "dial": dialled}
        parting["screening"] = dialled
        for callee in self.callees:
            callee.hang_up()
        with contextlib.suppress(Failed):
            if fields := parting.get(self.state) if "action" in self._verb.attrib else None:
                self._fetch(Ask(self._target(), fields))
        self._end()
        return self.heard

    def wait(self, times: int = 1) -> list[str]:
        """Lets a pause pass (state "hold"), `times` of them while the line keeps holding."""
        self._expect("hold")
        for _ in range(times):
            if self.state == "hold":
                pause = self._verb
                self.clock.hold(self._number("length", 1))
                with self._turn:  # unless a push has ended the pause meanwhile
                    if self.state == "hold" and self._verb is pause:
                        self._run(None)
                self._follow_push()
        return self.heard

    def retry(self, webhook: Webhook | None = None) -> Retried:
        """Delivers the last voice webhook (or the given one) again, unchanged. Plays nothing."""
        again = webhook or self.last_webhook
        if again is None:
            raise NotNow("nothing was delivered yet")
        self.tell("twilio retries")
        try:
            answer = self._deliver(again.url, again.fields, again.headers)
        except Failed as failed:
            answer = Answer(0, {}, failed.words.encode(), failed.seconds)
        first = again.answer
        return Retried(answer, first is not None and first.body == answer.body)

    def redirect(self, url: str) -> bool:
        """The REST API moves the live call to `url`: the verb or webhook under way is abandoned.

        False when the call is not in progress (error 21220). May be called from another thread.
        """
        if self.state in {"new", "ended"}:
            return False
        self._pushed = Ask(url)
        self._follow_push()
        return True

    def _expect(self, *states: str) -> None:
        with self._turn:  # another thread may just play what a redirect brought
            found = self.state
        if found not in states:
            raise NotNow(f"the call is in state {found!r}, not {' or '.join(states)}")

    def _input(self, event: str) -> None:
        self.heard, self._idle = [], 0
        self.tell(event)

    def _nothing(self) -> Ask | None:
        """No usable input: the action with neither speech nor keys, or on to the next verb."""
        self.clock.tick(self._number("timeout", 5))
        return self._onward([]) if self._verb.get("actionOnEmptyResult") == "true" else None

    def _digits(self, keys: str) -> tuple[str, str]:
        """The keys that count, and those up to the end; without an ending key, time ends them."""
        finish = self._verb.get("finishOnKey", "#")
        taken, ended, _ = keys.partition(finish) if finish else (keys, "", "")
        most = self._number("numDigits", len(taken) + 1)
        if not ended and len(taken) < most:
            self.clock.tick(self._number("timeout", 5))
        return taken[:most], taken[:most] + (ended if len(taken) < most else "")

    def _ringing(self, which: int | None) -> Callee:
        """One of the Dial's phones that still rings."""
        self._expect("dial")
        wanted = self.callees if which is None else self.callees[which : which + 1]
        found = [callee for callee in wanted if callee.state == "rings"]
        if not found:
            raise NotNow("that phone does not ring")
        return found[0]

    def _screened(self) -> Callee:
        """The phone that was picked up and is asked for a key."""
        self._expect("screening")
        return next(callee for callee in self.callees if callee.state == "asked")

    def _screen(self, callee: Callee, act: Callable[[], None]) -> list[str]:
        """Lets a callee act; then they talk, the others ring on, or the Dial is over."""
        with self._turn:
            self._playing = True
            try:
                act()
            finally:
                self._playing = False
            self._go_on(callee)
        self._follow_push()
        return self.heard

    def _go_on(self, callee: Callee) -> None:
        if self._interrupted:
            self._run(None)
        elif callee.state == "asked":
            self.state = "screening"
        elif callee.state == "joined":
            self.clock.tick(self._talk)
            self._end_dial("completed", self._talk, callee)
        elif any(each.state == "rings" for each in self.callees):
            self.state = "dial"
        else:
            self._end_dial("completed", None, callee)

    def _end_dial(
        self, outcome: str, duration: int | None = None, callee: Callee | None = None
    ) -> list[str]:
        """The Dial is over: its action is told, else the next verb is played."""
        fields = self._dialled(outcome, duration, callee)
        return self._run(self._onward(fields) if "action" in self._verb.attrib else None)
