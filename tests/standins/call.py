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

Where Twilio's documentation is silent: a connection cut without an answer counts as a read timeout;
the fallback is asked with ErrorUrl but without the failed webhook's own fields; `<Dial action>` is
also asked when the caller hangs up first, and its answer is ignored; a rejected call is reported as
busy or no-answer; a Dial with a wrong callerId fails at once. Not played: cookies, GET, HTTP
redirects. What a phone hears that the line rings stands in callee.py.
"""

import contextlib
import math
import re
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from itertools import groupby
from typing import Final, NamedTuple
from urllib.parse import urldefrag, urljoin, urlsplit
from xml.etree.ElementTree import Element

from standins.callee import ORDINALS, Callee
from standins.twiml import (
    MOST_BYTES,
    Problem,
    judge,
    judge_caller_id,
    judge_screening,
    parse,
    words,
)
from standins.webhooks import (
    LIMITS,
    Answer,
    Ask,
    Deliver,
    Failed,
    Fields,
    Limits,
    http_deliver,
    sign,
    signed_url,
)

# --- values ---

TRIAL_SECONDS: Final = 5.0
TRIAL_HOPS: Final = 10
OVERRIDES: Final = "#rc=5&rp=all&ct=2000&rt=5000"  # what a number that calls this line should carry


@dataclass
class Clock:
    """Virtual seconds. With `pace`, a second on hold also takes that many real ones."""

    pace: float = 0.0
    now: float = 0.0

    def tick(self, seconds: float) -> None:
        self.now += seconds

    def hold(self, seconds: float) -> None:
        self.tick(seconds)
        time.sleep(seconds * self.pace)


@dataclass
class Webhook:
    """One webhook as sent; `answer` is None when every attempt failed."""

    url: str
    fields: Fields
    headers: dict[str, str]
    answer: Answer | None = None
    attempts: int = 0

    @property
    def form(self) -> dict[str, str]:
        return dict(self.fields)


class Retried(NamedTuple):
    """The answer to a repeated webhook, and whether its body was the first one's."""

    answer: Answer
    same: bool


class NotNow(Exception):
    """The call does not wait for what was asked of the phone."""


PLACES: Final = {"From": ("SPRINGFIELD", "IL", "62701", "US"), "To": ("", "", "", "US")}
ALIASES: Final = {"Caller": "From", "Called": "To"}
OUTCOMES: Final = {
    "busy": "callee is busy",
    "no-answer": "callee does not answer",
    "failed": "callee fails",
    "canceled": "callee is called off",
}
REJECTED: Final = {"busy": "busy", "rejected": "no-answer"}
EVERY_KEY: Final = "1234567890*#"  # what ends a Record that names no finishOnKey
ACCOUNT: Final = "AC" + "0123456789abcdef" * 2
TALK_SECONDS: Final = 60
MESSAGE_SECONDS: Final = 10
IDLE_DOCUMENTS: Final = 20  # documents in a row without anything that takes the caller's time
APOLOGY: Final = "line plays Twilio's error message"


def seconds_to_say(text: str) -> float:
    return 0.5 + len(text.split()) / 2.5


# --- a call ---


class Phone:
    """One call. `state` says what it waits for: new gather dial screening record hold ended."""

    def __init__(
        self,
        url: str,
        *,
        token: str,
        say: Callable[[str], None] | None = None,
        caller: str = "+15557654321",
        called: str = "+15550001111",
        account: str = ACCOUNT,
        deliver: Deliver = http_deliver,
        trial: bool = False,
        clock: Clock | None = None,
        fallback: str | None = "/voice/fallback" + OVERRIDES,
        status: str | None = "/voice/status" + OVERRIDES,
        own: Sequence[str] = (),
    ) -> None:
        """`url` is the line's origin, or its whole voice URL; `say` is told every event.

        `own` are further numbers of the account, which a Dial may show.
        """
        whole = urlsplit(url).path.strip("/") != ""
        self.url = url if whole else urljoin(url, "/voice/inbound" + OVERRIDES)
        self.fallback = fallback and urljoin(self.url, fallback)
        self.status = status and urljoin(self.url, status)
        self.token, self.caller, self.called, self.account = token, caller, called, account
        self.trial, self.clock, self._deliver, self._say = trial, clock or Clock(), deliver, say
        self.call_sid = "CA" + uuid.uuid4().hex
        self.state, self.call_status, self.hops = "new", "ringing", 0
        self.heard: list[str] = []
        self.transcript: list[str] = []
        self.broken: list[Problem] = []
        self.warned: list[Problem] = []
        self.webhooks: list[Webhook] = []
        self.last_webhook: Webhook | None = None
        self.last_status: Webhook | None = None
        self._rest: deque[Element] = deque()
        self._verb, self._here, self._idle = Element("Response"), self.url, 0
        self._turn, self._playing = threading.RLock(), False
        self._pushed: Ask | None = None
        self._gone = False
        self.own = (called, *own)
        self.callees: list[Callee] = []
        self._talk = TALK_SECONDS

    # -- what the caller does --

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
        return self._run(self._onward(self._recorded(seconds, key)))

    def hang_up_after_beep(self, seconds: int = 2) -> list[str]:
        """Hangs up while the line records; Twilio reports the recording with Digits=hangup."""
        self._expect("record")
        self.clock.tick(seconds)
        return self.hang_up(recorded=seconds)

    def hang_up(self, recorded: int = 2) -> list[str]:
        """Ends the call from the caller's side, at any moment, also while a webhook is answered."""
        if self.state in {"new", "ended"}:
            raise NotNow(f"there is no call to hang up: {self.state}")
        self._gone = True
        if self._playing:
            return self.heard
        self._input("caller hangs up")
        self.call_status = "completed"
        dialled = self._dialled("canceled")
        parting = {"record": self._recorded(recorded, "hangup"), "dial": dialled}
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

    @property
    def duration(self) -> int:
        """Virtual seconds since the call rang."""
        return round(self.clock.now)

    # -- the machine: documents, verbs, waits --

    def _expect(self, *states: str) -> None:
        with self._turn:  # another thread may just play what a redirect brought
            found = self.state
        if found not in states:
            raise NotNow(f"the call is in state {found!r}, not {' or '.join(states)}")

    def tell(self, event: str) -> None:
        """Writes one event to the transcript."""
        self.transcript.append(event)
        if self._say:
            self._say(event)

    def _input(self, event: str) -> None:
        self.heard, self._idle = [], 0
        self.tell(event)

    def find(self, problem: Problem) -> None:
        (self.broken if problem.broken else self.warned).append(problem)
        self.tell(f"# {'broken' if problem.broken else 'warning'} {problem}")

    def _run(self, ask: Ask | None) -> list[str]:
        """Fetches what is asked, then plays verbs until one waits or none is left."""
        with self._turn:
            self._playing, self.state = True, "playing"
            try:
                while self.state == "playing":
                    ask = self._step(ask)
            finally:
                self._playing = False
        self._follow_push()
        return self.heard

    def _step(self, ask: Ask | None) -> Ask | None:
        if self._gone:
            self.tell("caller hangs up")
            self.call_status = "completed"
            self._end()
        elif self._pushed:
            ask, self._pushed = self._pushed, None
            self.tell(f"# the call is moved to {ask.url}")
            return ask
        elif ask:
            self._rest = deque(self._open(ask))
        elif self._rest:
            return self._play(self._rest.popleft())
        else:
            self._end("line hangs up")
        return None

    def _follow_push(self) -> None:
        """Plays a redirect from the REST API, unless a webhook under way will see it anyway."""
        while self._pushed and self._turn.acquire(blocking=False):
            try:
                if self._playing or self.state == "ended":
                    return
                self._run(None)
            finally:
                self._turn.release()

    def _play(self, verb: Element) -> Ask | None:
        if self.trial and verb.tag in {"Record", "Dial"}:
            self._speak(f"The {verb.tag} verb is not available on trial accounts.")
            return None
        play = VERBS.get(verb.tag)
        return play(self, verb) if play else None  # the judge has said it already

    def _wait(self, state: str, verb: Element) -> None:
        self._verb, self.state, self._idle = verb, state, 0

    def _speak(self, text: str) -> None:
        self.clock.tick(seconds_to_say(text))
        self.heard.append(text)
        self.tell(f"line: {text}")

    def _play_say(self, verb: Element) -> Ask | None:
        if text := words(verb):
            self._speak(text)
        return None

    def _play_file(self, verb: Element) -> Ask | None:
        self.clock.tick(5.0)
        self.tell(f"line plays {words(verb) or verb.get('digits', '')}")
        return None

    def _play_pause(self, verb: Element) -> Ask | None:
        self.tell(f"line waits {verb.get('length', '1')} s")
        self._wait("hold", verb)
        return None

    def _play_gather(self, verb: Element) -> Ask | None:
        for prompt in verb:
            if prompt.tag == "Pause":
                length = prompt.get("length", "1")
                self.clock.tick(int(length) if length.isdigit() else 1)
            elif prompt.tag in {"Say", "Play"}:
                VERBS[prompt.tag](self, prompt)
        self._wait("gather", verb)
        return None

    def _play_dial(self, verb: Element) -> Ask | None:
        targets = [*verb] or [verb]
        self.tell(f"line dials {', '.join(map(words, targets))}")
        self._wait("dial", verb)
        shown = verb.get("callerId", self.caller)
        self.callees = [Callee(self, target, self._here, shown) for target in targets]
        wrong = judge_caller_id(verb, self.caller, self.own)
        for problem in wrong:
            self.find(problem)
        if not wrong:
            return None
        self.state = "playing"
        return self._onward(self._dialled("failed")) if "action" in verb.attrib else None

    def _play_record(self, verb: Element) -> Ask | None:
        self.tell("line records")
        self._wait("record", verb)
        return None

    def _play_redirect(self, verb: Element) -> Ask | None:
        return Ask(urljoin(self._here, words(verb)))

    def _play_hangup(self, _: Element) -> Ask | None:
        self._end("line hangs up")
        return None

    def _play_reject(self, verb: Element) -> Ask | None:
        self.call_status = REJECTED.get(verb.get("reason", "rejected"), "no-answer")
        self._end("line rejects")
        return None

    def _end(self, event: str = "") -> None:
        """Ends the call and reports it to the status callback, as Twilio does after every call."""
        if event:
            self.tell(event)
        self.state, self._pushed = "ended", None
        if self.call_status in {"ringing", "in-progress"}:
            self.call_status = "completed"
        if self.status:
            self._report(self.status)

    def _report(self, url: str) -> None:
        report = [
            ("CallDuration", str(self.duration)),
            ("Duration", str(math.ceil(self.duration / 60))),
            ("Timestamp", format_datetime(datetime.now(UTC))),
            ("SequenceNumber", "0"),
            ("CallbackSource", "call-progress-events"),
        ]
        try:
            answer = self._fetch(Ask(url, report), voice=False)
        except Failed as failed:
            self.find(Problem(15003, f"the status callback failed: {failed.words}", broken=False))
            return
        if answer.status != 204 and answer.kind not in {"text/xml", "application/xml"}:
            words = f"the status callback was answered {answer.status} {answer.kind}"
            self.find(Problem(15003, words, broken=False))

    # -- the phones that a Dial rings --

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

    def screen(self, ask: Ask, fields: Mapping[str, str]) -> list[Element]:
        """The verbs of a document for a phone that was picked up. Raises Failed."""
        answer = self._fetch(ask, leg=fields)
        if len(answer.body) > MOST_BYTES:
            raise Failed(11750, "the answer is larger than 64 kB")
        return self._verbs(answer, urldefrag(ask.url).url, screening=True)

    # -- the answers to verbs --

    def _number(self, name: str, default: int) -> int:
        """A number that the waiting verb carries; what Twilio would not take counts as absent."""
        value = self._verb.get(name, "")
        return int(value) if re.fullmatch(r"0*[1-9]\d*", value) else default

    def _target(self) -> str:
        return urljoin(self._here, self._verb.get("action", ""))

    def _onward(self, fields: Fields) -> Ask:
        return Ask(self._target(), fields)

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

    def _dialled(
        self, outcome: str, duration: int | None = None, callee: Callee | None = None
    ) -> Fields:
        length = [] if duration is None else [("DialCallDuration", str(duration))]
        bridged = "true" if duration is not None else "false"
        return [
            ("DialCallStatus", outcome),
            ("DialCallSid", callee.call_sid if callee else "CA" + uuid.uuid4().hex),
            *length,
            ("DialBridged", bridged),
        ]

    def _recorded(self, seconds: int, key: str) -> Fields:
        sid = "RE" + uuid.uuid4().hex
        home = f"https://api.twilio.com/2010-04-01/Accounts/{self.account}/Recordings/{sid}"
        return [
            ("RecordingUrl", home),
            ("RecordingSid", sid),
            ("RecordingDuration", str(seconds)),
            ("Digits", key),
        ]

    # -- fetching a document --

    def _open(self, ask: Ask) -> list[Element]:
        """The verbs of the next document: from its URL, else from the fallback, else none."""
        self.hops += self.call_status != "ringing"
        self._idle += 1
        if self._idle > IDLE_DOCUMENTS:
            self.find(Problem(0, f"{IDLE_DOCUMENTS} documents without a pause: a Redirect loop"))
            self._end(APOLOGY)
            return []
        if self.trial and self.hops > TRIAL_HOPS:
            self._speak("This trial call has reached its limit of ten requests.")
            self._end("line hangs up")
            return []
        try:
            return self._read(ask)
        except Failed as failed:
            return self._fall_back(ask, failed)

    def _fall_back(self, ask: Ask, failed: Failed) -> list[Element]:
        bare = urldefrag(ask.url).url
        self.find(Problem(failed.code, f"{failed.words} (from {bare})"))
        if self.fallback and not self._interrupted:
            blame = [("ErrorCode", str(failed.code)), ("ErrorUrl", bare)]
            try:
                return self._read(Ask(self.fallback, blame))
            except Failed as again:
                self.find(Problem(again.code, f"the fallback failed as well: {again.words}"))
        if not self._interrupted:
            self._end(APOLOGY)
        return []

    @property
    def _interrupted(self) -> bool:
        """Tells if the caller has gone, or was moved on, while a webhook was under way."""
        return self._gone or self._pushed is not None

    def _read(self, ask: Ask) -> list[Element]:
        answer = self._fetch(ask)
        if len(answer.body) > MOST_BYTES:
            raise Failed(11750, "the answer is larger than 64 kB")
        verbs = self._verbs(answer, urldefrag(ask.url).url)
        self._here = urldefrag(ask.url).url
        self.call_status = "in-progress"
        return verbs

    def _verbs(self, answer: Answer, url: str, *, screening: bool = False) -> list[Element]:
        """Reads an answer as Twilio does, by its Content-Type; judges TwiML on the way."""
        text = answer.body.decode("utf-8", "replace")
        if not answer.kind:
            raise Failed(11200, "the answer has no Content-Type")
        if answer.kind.startswith("audio/"):
            return [_element("Play", url), Element("Hangup")]
        if answer.kind not in {"text/xml", "application/xml", "text/html", "text/plain"}:
            raise Failed(12300, f"the answer's Content-Type is {answer.kind!r}")
        root = parse(text)
        if isinstance(root, Problem):
            if answer.kind != "text/plain":
                raise Failed(root.code, root.words)
            return [_element("Say", text), Element("Hangup")]
        for problem in judge_screening(text) if screening else judge(text, url):
            self.find(problem)
        return list(root)

    def _fetch(
        self, ask: Ask, *, voice: bool = True, leg: Mapping[str, str] | None = None
    ) -> Answer:
        """Delivers one webhook: as often as its overrides allow, within 15 seconds altogether.

        `leg` has the fields in which a webhook of another leg than the caller's differs.
        """
        limits, webhook = Limits.of(ask.url), self._webhook(ask, leg or {})
        left = min(limits.tt, TRIAL_SECONDS) if self.trial else limits.tt
        if voice:
            self.last_webhook = webhook
        else:
            self.last_status = webhook
        self.webhooks.append(webhook)
        again: list[str] = []
        try:
            while True:
                try:
                    return self._attempt(webhook, limits.within(left))
                except Failed as failed:
                    left -= failed.seconds
                    if left < 0.1 or webhook.attempts > limits.rc or not limits.retry(failed.kind):
                        raise
                    again.append(failed.words)
        finally:
            self._tell_attempts(again)

    def _tell_attempts(self, again: Sequence[str]) -> None:
        """Why a webhook was repeated: one line for as many attempts as failed alike."""
        for why, alike in groupby(again):
            times = len([*alike])
            self.tell(f"# twilio tries again{f', {times} times' if times > 1 else ''}: {why}")

    def _attempt(self, webhook: Webhook, limits: Limits) -> Answer:
        webhook.attempts += 1
        token = LIMITS.set(limits)
        try:
            answer = self._deliver(webhook.url, webhook.fields, webhook.headers)
        except Failed as failed:
            self.clock.now += failed.seconds
            raise
        finally:
            LIMITS.reset(token)
        self.clock.now += answer.seconds
        webhook.answer = answer
        if answer.seconds > min(limits.rt, limits.tt):
            words = f"the answer took {answer.seconds:.1f} s"
            raise Failed(11205, words, "rt", answer.seconds)
        if not 200 <= answer.status < 300:
            words = f"the answer was HTTP {answer.status}"
            raise Failed(11217, words, f"{answer.status // 100}xx", answer.seconds)
        return answer

    def _webhook(self, ask: Ask, leg: Mapping[str, str]) -> Webhook:
        url = urldefrag(ask.url).url
        fields = sorted([*self._usual(leg).items(), *ask.fields])
        headers = {
            "User-Agent": "TwilioProxy/1.1",
            "Accept": "*/*",
            "Content-Type": "application/x-www-form-urlencoded; charset=UTF-8",
            "X-Home-Region": "us1",
            "I-Twilio-Idempotency-Token": str(uuid.uuid4()),
            "X-Twilio-Signature": sign(self.token, signed_url(url), fields),
            "Connection": "close",
        }
        return Webhook(url, fields, headers)

    def _usual(self, leg: Mapping[str, str]) -> dict[str, str]:
        """The fields of every webhook, blanks included."""
        usual = {
            "AccountSid": self.account,
            "ApiVersion": "2010-04-01",
            "CallSid": self.call_sid,
            "CallStatus": self.call_status,
            "Direction": "inbound",
            "From": self.caller,
            "To": self.called,
            **leg,
        }
        for end, (city, region, code, country) in PLACES.items():
            place = {"City": city, "State": region, "Zip": code, "Country": country}
            usual |= {end + name: value for name, value in place.items()}
        for alias, end in ALIASES.items():
            usual |= {alias + k[len(end) :]: v for k, v in usual.items() if k.startswith(end)}
        if self.call_status == "ringing":
            usual |= {"StirVerstat": "TN-Validation-Passed-A"}
            usual |= {"CallToken": "%7B%22parentCallInfoToken%22%3A%22e30%3D%22%7D"}
        return usual


VERBS: Final[dict[str, Callable[[Phone, Element], Ask | None]]] = {
    "Say": Phone._play_say,
    "Play": Phone._play_file,
    "Pause": Phone._play_pause,
    "Gather": Phone._play_gather,
    "Dial": Phone._play_dial,
    "Record": Phone._play_record,
    "Redirect": Phone._play_redirect,
    "Hangup": Phone._play_hangup,
    "Reject": Phone._play_reject,
}


def _element(tag: str, text: str) -> Element:
    element = Element(tag)
    element.text = text
    return element
