"""The audit of a call in a chaos run: what must hold for every call that is over."""

import json
import re
from collections import Counter
from typing import TYPE_CHECKING, Final

from tools.chaos_backend import ANSWER, MANNERS, Work
from tools.chaos_ledger import UNJUDGED
from tools.chaos_scripts import BUG, DETOUR_ENDS, GREETING
from tools.chaos_weather import Weather

if TYPE_CHECKING:
    from chaos import World
    from tools.chaos_caller import Caller
    from tools.chaos_road import Delivery, Post

EXPECTED: Final = (11205, 11217)  # problems that this run makes: attempts lost, and refused


class Audit:
    """The promises for a call that is over."""

    def __init__(self, caller: "Caller") -> None:
        self.caller, self.phone = caller, caller.phone
        self.world: World = caller.world
        self.posts = list(caller.road.posts.values())
        self.settled = self._settled()
        self.first_settled: dict[int, float] = {}  # by turn: when its settled answer was given

    def _settled(self) -> dict[int, set[str]]:
        """The TwiML that stands, or stood before it was forgotten, by turn."""
        turns = range(1, max(post.turn for post in self.posts) + 2)
        keys = [f"call:{self.phone.call_sid}:{turn}" for turn in turns]
        now = self.world.station.read(*keys)
        found = {}
        for turn, key, value in zip(turns, keys, now, strict=True):
            values = self.caller.luck.stood.get(key, set()) | ({value} if value else set())
            found[turn] = {str(json.loads(each)["twiml"]) for each in values}
        return found

    def run(self) -> None:
        self.check_answers()
        if not self.caller.is_lost:
            self.follow_script()
        for problem in self.phone.broken:
            if problem.code not in EXPECTED:
                self.caller.breach("valid TwiML", problem=problem)
        if self.caller.script.line == "desk":
            self.check_effects()
            self.check_voice()
            self.check_events()
        ledger = self.world.ledger
        ledger.add("calls")
        for excuse in self.caller.excuses:
            ledger.add(f"calls that met {excuse}")
        ledger.add("calls that took a detour", bool(self.caller.detours))

    def follow_script(self) -> None:
        """Ended in words, as the script demands."""
        caller, script = self.caller, self.caller.script
        events = " ".join(self.phone.transcript)
        case = rf"case{caller.number}x\d+" if caller.detours else caller.case
        ends = script.ends.replace("{case}", case)
        last = caller.words()
        allowed = caller.excuses - (set() if script.remembered else {"away", "amnesia"})
        if caller.detours and not allowed:
            caller.breach("the call goes by its script", heard=caller.detours)
        if len(re.findall(GREETING, events)) > 1:
            caller.breach("no call begins anew")
        if caller.detours and ends:
            ends += f"|{DETOUR_ENDS}"
        if not re.search(ends, last):
            caller.breach("the call ends in its words", last=last)
        if re.search(BUG, events) or "error message" in events:
            caller.breach("no apology for a bug")
        left = caller.left_scenes()
        if left and not caller.detours:
            caller.breach("the whole script is played", left=left)

    def check_answers(self) -> None:
        """Every answer, in the order in which the webhooks came."""
        given = [(each, post) for post in self.posts for each in post.deliveries]
        for delivery, post in sorted(given, key=lambda pair: pair[0].began):
            if post.path == "/voice/status":
                if delivery.status not in (204, 503):
                    self.caller.breach("the end is taken", status=delivery.status)
            elif delivery.status != 200:
                self.caller.breach("no webhook is refused", url=post.url, status=delivery.status)
            elif post.path == "/voice/accept":
                self.check_whisper(post, delivery)
            else:
                self.check_words(post, delivery)

    def check_whisper(self, post: "Post", delivery: "Delivery") -> None:
        """The key 1 joins the legs, and nothing else does; a repeat hears the same.

        Who calls and why is left out while Redis is away, with the excuses of any other answer.
        """
        joins = "<Hangup" not in delivery.body
        if joins != (post.keys == "1"):
            self.caller.breach("only the key 1 accepts", keys=post.keys, said=delivery.body)
        first = post.deliveries[0]
        if delivery.body == first.body or self.caller.luck.excuses & {"away", "amnesia"}:
            return
        excuses = [self.find_excuse(each, struck=False) for each in (first, delivery)]
        if excuse := next(filter(None, excuses), ""):
            self.world.ledger.add(excuse)
        else:
            words = {"first": first.body, "then": delivery.body}
            self.caller.breach("a whisper is repeated alike", **words)

    def check_words(self, post: "Post", delivery: "Delivery") -> None:
        """One answer: what stands in the cell of its turn, or what need not stand anywhere."""
        ledger, luck = self.world.ledger, self.caller.luck
        struck = any(delivery.began <= at <= delivery.ended for at in luck.strikes)
        known = self.first_settled.get(post.turn, delivery.ended) < delivery.began
        held = f"<Redirect>/voice/process?turn={post.turn}&amp;" in delivery.body
        silent = held and "pushed=1" in delivery.body and self.is_pushed(post.turn)
        if delivery.body in self.settled[post.turn + 1]:
            ledger.add("answers settled")
            ledger.add("duplicates answered alike", known)
            if not struck:  # else the same words may have been said before they were settled
                self.first_settled.setdefault(post.turn, delivery.ended)
        elif silent:  # whoever comes while a push holds the voice, or after it
            ledger.add("silences until a push")
        elif held and (struck or not known or "amnesia" in luck.excuses):
            ledger.add("answers on hold")
        elif excuse := self.find_excuse(delivery, struck=struck):
            ledger.add(excuse)
        else:
            stands = sorted(self.settled[post.turn + 1])
            self.caller.breach(
                "every answer is settled", url=post.url, said=delivery.body, stands=stands
            )

    def find_excuse(self, delivery: "Delivery", *, struck: bool) -> str:
        """The reason why an answer need not be settled, as the table of the run names it."""
        if struck:
            return "answers unsettled, as Redis was away"
        reason = ""
        if self.has_hung(delivery):
            reason = "answers unsettled, as Redis had hung"
        elif self.world.machine.was_slow(delivery.began, delivery.ended):
            reason = UNJUDGED
        if reason:
            self.caller.luck.excuses.add("away")
        return reason

    def has_hung(self, delivery: "Delivery") -> bool:
        """Tell whether the line had met a hanging Redis shortly before."""
        line, times = self.caller.luck.line, (delivery.began, delivery.ended)
        return bool(self.world.station.ask(Weather.has_hung, line, *times))

    def is_pushed(self, turn: int) -> bool:
        """Tell whether the right to speak the answer of a turn is, or was, a push's."""
        key = f"call:{self.phone.call_sid}:{turn}:voice"
        stood = self.caller.luck.stood.get(key, set()) | {*self.world.station.read(key)}
        return any(holder.startswith("push") for holder in stood if holder)

    def check_effects(self) -> None:
        """What a caller asked for happened once; the backend was not asked more than it needed."""
        sid, happened = self.phone.call_sid, Counter[str]()
        with self.world.backend.lock:
            works = [*self.world.backend.works[sid].values()]
        for work in works:
            happened[work.case] += work.effects
            self.check_workers(work)
        self.world.ledger.add("effects", happened.total())
        wanted = "broken" not in self.caller.script.scenes[0][1]
        waited = self.phone.transcript.count("caller hangs up") == 0
        for case in self.caller.cases:
            if happened[case] > 1:
                self.caller.breach("each effect once", case=case)
            if wanted and waited and not happened[case] and not self.caller.excuses:
                self.caller.breach("no effect is missing", case=case)

    def check_workers(self, work: Work) -> None:
        """A key brings one question. It is repeated only after a kill, or in an excused call.

        Where Redis forgot what was asked at a turn, nothing is left that knows of the question.
        """
        if work.others and "amnesia" not in self.caller.excuses:
            self.caller.breach("one key, one question", first=work.case, then=work.others)
        spare = len(work.asks) - len(MANNERS[work.manner])
        if spare <= 0:
            return
        self.world.ledger.add("questions repeated to the backend", spare)
        killed = self.world.fleet.killed("desk", work.asks[0][0], work.asks[-1][1])
        if not killed and not self.caller.excuses:
            self.caller.breach("one worker at a time", case=work.case, asks=work.asks)

    def check_voice(self) -> None:
        """One speaks an answer: the look that waited, or the push, however late it comes."""
        transcript = self.phone.transcript
        self.world.ledger.add("calls that were pushed", any("is moved" in e for e in transcript))
        if self.caller.excuses:
            return
        for case in self.caller.cases:
            spoken = sum(ANSWER.format(case=case) in event for event in transcript)
            if spoken > 1:
                self.caller.breach("an answer is said once", case=case, spoken=spoken)
        dialled = sum(event.startswith("line dials") for event in transcript)
        if dialled > 1:
            self.caller.breach("a transfer is dialled once", dialled=dialled)

    def check_events(self) -> None:
        """The backend has been told of every end, and of every message."""
        sid = self.phone.call_sid
        with self.world.backend.lock:
            events = {name: self.world.backend.events[sid, name] for name in ("ended", "voicemail")}
        if max(map(len, events.values())) > 1:
            self.caller.breach("each event has one key", events=events)
        status = [p for p in self.posts if p.path == "/voice/status"]
        taken = any(each.status == 204 for p in status for each in p.deliveries)
        if taken and not events["ended"]:
            self.caller.breach("the backend is told of the end")
        left = self.caller.messages and not self.caller.excuses
        if taken and left and not events["voicemail"]:
            self.caller.breach("the backend is told of the message")
