"""Redis fails at each single command of a held call: before it, after it, or instead of it.

A caller says something that the backend thinks about for longer than a webhook may take. Two
instances answer in turn; with and without a login that lets the line push the caller. For every
command that the undisturbed call sends, and every fault, once, twice, and for a second and more:

- the backend is asked under one key, and once;
- the caller hears the answer once and goes on talking, or hears once that there is none, and a
  person is rung once: that is so only where the question could not be settled.
"""

import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import cycle
from typing import Final, NamedTuple

import pytest

from standins.backend import Backend, Pauses, Question, Reply, says, together
from standins.call import NotNow, Phone
from standins.inside import ORIGIN, TOKEN, Inside
from standins.twilio_api import TwilioApi
from standins.upstash import Command, Upstash
from standins.webhooks import Answer, Fields

PERSON: Final = "+15550100099"
ANSWER: Final = "line: You are booked."
SECOND: Final = "line: Anything else."
AT_ONCE: Final = 16  # calls that are played side by side: they mostly wait
LONGEST: Final = 12  # looks: more is for ever


class Fault(NamedTuple):
    """A fault at the n-th command of a call, and for how long."""

    place: int
    kind: str
    times: int  # commands that it strikes; 0: all that come within `seconds`
    seconds: float = 0.0


KINDS: Final = ("drop", "apply-then-drop", "502", "apply-then-empty")
LENGTHS: Final = {"once": (1, 0.0), "twice": (2, 0.0), "for a second": (0, 1.2)}
STORMS: Final = {
    f"{length}-{way}": (*LENGTHS[length], way == "pushing")
    for length in LENGTHS
    for way in ("looking", "pushing")
}
SETTLING: Final = 1  # the command that settles the question
PLACES: Final = 8  # commands of the undisturbed call, from the caller's words to the answer


@dataclass
class Story:
    """One call and the fault that meets it."""

    phone: Phone
    fault: Fault | None = None
    commands: int = 0
    began: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)
    listening: bool = False
    stood: bool = False  # a lease was asked for, so the question had been settled

    def strike(self, command: Command) -> str | None:
        """The fault that meets the next command of this call."""
        with self.lock:
            if not self.listening or not self.fault:
                return None
            place, self.commands = self.commands, self.commands + 1
            self.stood = self.stood or command[1].endswith(":lease")
            if place < self.fault.place:
                return None
            self.began = self.began or time.monotonic()
            if self.fault.times:
                is_struck = place < self.fault.place + self.fault.times
            else:
                is_struck = time.monotonic() < self.began + self.fault.seconds
            return self.fault.kind if is_struck else None

    @property
    def is_delayed(self) -> bool:
        """The machine stood still for so long that the question met the fault meant for later."""
        return self.fault is not None and self.fault.place > SETTLING and not self.stood


def think(question: Question) -> Reply:
    """Takes longer than a webhook has for the first words, and knows the second ones at once."""
    if question.heard == "a ticket":
        time.sleep(2)
        return says("You are booked.")
    return says("Anything else.")


@contextmanager
def proxied(api: TwilioApi) -> Iterator[None]:
    """This process finds Twilio's REST API through its stand-in."""
    before = dict(os.environ)
    os.environ.update(api.settings)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def play(story: Story) -> None:
    """The call: a question, the hold, and one more sentence."""
    phone = story.phone
    phone.ring()
    story.listening = True
    phone.say("a ticket")
    stay_on_hold(phone)
    story.listening = False
    if phone.state == "gather":
        phone.say("thanks")
        stay_on_hold(phone)  # not even a busy machine loses an answer


def stay_on_hold(phone: Phone) -> None:
    """Come back to look as often as it makes sense."""
    for _ in range(LONGEST):
        if phone.state not in ("hold", "playing"):
            return
        with suppress(NotNow):  # fetched out of the hold just now
            phone.wait()


def judge_story(story: Story, backend: Backend) -> str:
    """The broken promise of a call; nothing if all were kept."""
    heard = story.phone.transcript
    asked = [q for q in tuple(backend.questions) if q.body["call_sid"] == story.phone.call_sid]
    first = [q for q in asked if q.heard == "a ticket"]
    dials = [event for event in heard if event.startswith("line dials")]
    if len(first) != 1:
        return f"asked {len(first)} times"
    if dials:
        settled = story.fault and story.fault.place > SETTLING
        wrong = settled or heard.count(ANSWER) or dials != [f"line dials {PERSON}"]
        return "a person, although the question stood" if wrong else ""
    if heard.count(ANSWER) != 1 or heard.count(SECOND) != 1:
        return f"heard {heard.count(ANSWER)} and {heard.count(SECOND)} times"
    return ""


@pytest.mark.waits
@pytest.mark.long
@pytest.mark.parametrize(("times", "seconds", "pushing"), STORMS.values(), ids=STORMS)
def test_redis_fails_at_any_command_of_a_held_call(
    upstash: Upstash, times: int, seconds: float, *, pushing: bool
) -> None:
    """Whatever fails, the question is asked once, and its answer heard once or a person rung."""
    with Backend(think) as backend, TwilioApi(TOKEN) as api, proxied(api):
        env = {**upstash.settings, "BACKEND_URL": backend.url, "FORWARD_TO": PERSON}
        env |= {"RESPONSE_DEADLINE": "2", "THREADS": "64"}
        if pushing:
            env |= {"TWILIO_ACCOUNT_SID": api.account}
        instances = [Inside(env), Inside(env)]
        by_sid: dict[str, Story] = {}

        def strike(command: Command) -> str | None:
            story = by_sid.get(command[1].split(":")[1])
            return story.strike(command) if story else None

        def tell(fault: Fault, tries: int = 3) -> Story:
            story = Story(new_phone(instances), fault)
            by_sid[story.phone.call_sid] = story
            api.calls[story.phone.call_sid] = story.phone
            play(story)
            return tell(fault, tries - 1) if story.is_delayed and tries > 1 else story

        upstash.fault = strike
        faults = [Fault(place, kind, times, seconds) for place in range(PLACES) for kind in KINDS]
        stories: list[Story] = []
        for start in range(0, len(faults), AT_ONCE):
            stories += together(*[lambda f=f: tell(f) for f in faults[start : start + AT_ONCE]])
        found = {story.fault: judge_story(story, backend) for story in stories}
        wrong = {fault: words for fault, words in found.items() if words}
        transcripts = [s.phone.transcript for s in stories if s.fault in wrong]
        assert wrong == {}, transcripts[0]


def new_phone(instances: list[Inside]) -> Phone:
    """A phone whose webhooks meet one instance and the other in turn."""
    turns = cycle(instances)

    def deliver(url: str, fields: Fields, headers: Mapping[str, str]) -> Answer:
        return next(turns).deliver(url, fields, headers)

    clock = Pauses()
    phone = Phone(ORIGIN, token=TOKEN, deliver=deliver, clock=clock)
    clock.over = lambda: phone.state != "hold"  # a push ends a pause
    return phone
