"""How Twilio asks a line for a document: with every usual field, signed, and as often as it may.

The connection overrides in a URL's fragment are obeyed: attempts, time-outs, what is worth a retry
(https://www.twilio.com/docs/usage/webhooks/webhooks-connection-overrides). An answer is read by its
Content-Type, as Twilio does, and its TwiML is judged on the way.

Where Twilio's documentation is silent: a connection cut without an answer counts as a read timeout.
Not played: cookies, GET, HTTP redirects.
"""

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final, NamedTuple
from urllib.parse import urldefrag
from xml.etree.ElementTree import Element

from standins.twiml import MOST_BYTES, Problem, judge, judge_screening, parse
from standins.webhooks import LIMITS, Answer, Ask, Deliver, Failed, Fields, Limits, sign, signed_url

OVERRIDES: Final = "#rc=5&rp=all&ct=2000&rt=5000"  # what a number that calls this line should carry
TRIAL_SECONDS: Final = 5.0
ACCOUNT: Final = "AC" + "0123456789abcdef" * 2
PLACES: Final = {"From": ("SPRINGFIELD", "IL", "62701", "US"), "To": ("", "", "", "US")}
ALIASES: Final = {"Caller": "From", "Called": "To"}


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


def recorded(account: str, seconds: int, key: str) -> Fields:
    """The fields of a recording that ended after some seconds: by a key, "hangup", or silence."""
    sid = "RE" + uuid.uuid4().hex
    home = f"https://api.twilio.com/2010-04-01/Accounts/{account}/Recordings/{sid}"
    return [
        ("RecordingUrl", home),
        ("RecordingSid", sid),
        ("RecordingDuration", str(seconds)),
        ("Digits", key),
    ]


def seconds_to_say(text: str) -> float:
    return 0.5 + len(text.split()) / 2.5


class Asker:
    """Twilio's side of one call, as far as it asks for documents and keeps books."""

    def __init__(
        self,
        token: str,
        parties: tuple[str, str, str],
        deliver: Deliver,
        clock: Clock,
        *,
        trial: bool,
        say: Callable[[str], None] | None,
    ) -> None:
        """`parties` are caller, called number and account; `say` is told every event."""
        self.token, self.trial, self.clock, self._deliver = token, trial, clock, deliver
        self.caller, self.called, self.account = parties
        self.call_sid, self.call_status = "CA" + uuid.uuid4().hex, "ringing"
        self.transcript: list[str] = []
        self.broken: list[Problem] = []
        self.warned: list[Problem] = []
        self.webhooks: list[Webhook] = []
        self.last_webhook: Webhook | None = None
        self.last_status: Webhook | None = None
        self._say = say

    def tell(self, event: str) -> None:
        """Writes one event to the transcript."""
        self.transcript.append(event)
        if self._say:
            self._say(event)

    def find(self, problem: Problem) -> None:
        (self.broken if problem.broken else self.warned).append(problem)
        self.tell(f"# {'broken' if problem.broken else 'warning'} {problem}")

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

    def _verbs(self, answer: Answer, url: str, *, screening: bool = False) -> list[Element]:
        """Reads an answer as Twilio does, by its Content-Type; judges TwiML on the way."""
        text = answer.body.decode("utf-8", "replace")
        if len(answer.body) > MOST_BYTES:
            raise Failed(11750, "the answer is larger than 64 kB")
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


def _element(tag: str, text: str) -> Element:
    element = Element(tag)
    element.text = text
    return element
