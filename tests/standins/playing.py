"""How Twilio plays documents: verb after verb, until one waits for somebody or the call is over.

When a document cannot be had, the fallback is asked; when the call is over, the status callback is
told. The REST API may move a call at any moment, from another thread.

Where Twilio's documentation is silent: the fallback is asked with ErrorUrl but without the failed
webhook's own fields; a rejected call is reported as busy or no-answer; a Dial with a wrong callerId
fails at once. What a phone hears that a Dial rings stands in callee.py.
"""

import math
import re
import threading
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Final
from urllib.parse import urldefrag, urljoin, urlsplit
from xml.etree.ElementTree import Element

from standins.asking import ACCOUNT, OVERRIDES, Asker, Clock, seconds_to_say
from standins.callee import Callee
from standins.twiml import Problem, judge_caller_id, words
from standins.webhooks import Ask, Deliver, Failed, Fields, http_deliver

TRIAL_HOPS: Final = 10
REJECTED: Final = {"busy": "busy", "rejected": "no-answer"}
IDLE_DOCUMENTS: Final = 20  # documents in a row without anything that takes the caller's time
APOLOGY: Final = "line plays Twilio's error message"


class Player(Asker):
    """A call that is played. `state`: new playing gather dial screening record hold ended."""

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
        parties = (caller, called, account)
        super().__init__(token, parties, deliver, clock or Clock(), trial=trial, say=say)
        whole = urlsplit(url).path.strip("/") != ""
        self.url = url if whole else urljoin(url, "/voice/inbound" + OVERRIDES)
        self.fallback = fallback and urljoin(self.url, fallback)
        self.status = status and urljoin(self.url, status)
        self.state, self.hops, self.own = "new", 0, (called, *own)
        self.heard: list[str] = []
        self.callees: list[Callee] = []
        self._rest: deque[Element] = deque()
        self._verb, self._here, self._idle = Element("Response"), self.url, 0
        self._turn, self._playing = threading.RLock(), False
        self._pushed: Ask | None = None
        self._gone = False

    @property
    def duration(self) -> int:
        """Virtual seconds since the call rang."""
        return round(self.clock.now)

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
        verbs = self._verbs(self._fetch(ask), urldefrag(ask.url).url)
        self._here = urldefrag(ask.url).url
        self.call_status = "in-progress"
        return verbs

    def screen(self, ask: Ask, fields: Mapping[str, str]) -> list[Element]:
        """The verbs of a document for a phone that was picked up. Raises Failed."""
        return self._verbs(self._fetch(ask, leg=fields), urldefrag(ask.url).url, screening=True)

    def _number(self, name: str, default: int) -> int:
        """A number that the waiting verb carries; what Twilio would not take counts as absent."""
        value = self._verb.get(name, "")
        return int(value) if re.fullmatch(r"0*[1-9]\d*", value) else default

    def _target(self) -> str:
        return urljoin(self._here, self._verb.get("action", ""))

    def _onward(self, fields: Fields) -> Ask:
        return Ask(self._target(), fields)

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


VERBS: Final[dict[str, Callable[[Player, Element], Ask | None]]] = {
    "Say": Player._play_say,
    "Play": Player._play_file,
    "Pause": Player._play_pause,
    "Gather": Player._play_gather,
    "Dial": Player._play_dial,
    "Record": Player._play_record,
    "Redirect": Player._play_redirect,
    "Hangup": Player._play_hangup,
    "Reject": Player._play_reject,
}
