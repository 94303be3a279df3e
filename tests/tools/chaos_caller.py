"""A caller of a chaos run: rings, follows a script, and knows what excuses a detour."""

import re
import time
from hashlib import md5
from random import Random
from typing import TYPE_CHECKING, Final

from standins.asking import Clock
from standins.call import NotNow, Phone
from standins.instance import ROOT
from standins.transcript import perform
from tools.chaos_ledger import PACE, PUBLIC, TOKEN
from tools.chaos_road import Road
from tools.chaos_scripts import DETOURS, HOLDING, SCRIPTS
from tools.chaos_weather import Luck, Weather

if TYPE_CHECKING:
    from chaos import World

MOST_EVENTS: Final = 60
PUSH: Final = (ROOT / "phone_line/push.py").read_text(encoding="utf-8")
SILENCE: Final = int(re.findall(r"^SILENCE: Final = (\d+)", PUSH, re.MULTILINE)[0])
MOVED: Final = "# the call is moved"
HEARD: Final = ("line", "callee hears")  # how the events begin that somebody hears


class PacedClock(Clock):
    """Holds pass quickly. A silence outlasts a push, and pushes take their real time."""

    def hold(self, seconds: float) -> None:
        if seconds != SILENCE:
            return super().hold(seconds)
        self.tick(seconds)
        time.sleep(seconds)
        return None


class Caller:
    """One call that follows a script."""

    def __init__(self, world: "World", number: int) -> None:
        self.world, self.dice = world, Random(f"{world.wishes.seed} caller {number}")
        self.script = self.dice.choice(world.wishes.scripts or SCRIPTS)
        self.road = Road(world, self.script.line, self.dice)
        clock = PacedClock(PACE)
        self.phone = Phone(
            PUBLIC, token=TOKEN, deliver=self.road.deliver, clock=clock, caller="+15557654321"
        )
        sid = md5(f"{world.wishes.seed} {number}".encode(), usedforsecurity=False)
        self.phone.call_sid = "CA" + sid.hexdigest()
        world.api.calls[self.phone.call_sid] = self.phone
        self.luck = Luck()  # as far as it was looked at
        world.station.ask(Weather.expect, self.phone.call_sid, self.script.line)
        self.number, self.cases = number, list[str]()
        self.case, self.place, self.mark = "", 0, 0
        self.detours: list[str] = []
        self.messages = 0
        self.is_lost = False  # it cannot do what its script says

    @property
    def excuses(self) -> set[str]:
        """The faults of this run that allow the call to leave its script."""
        excuses = set(self.luck.excuses)
        for post in self.road.posts.values():
            if post.path == "/voice/fallback":
                excuses.add("fallback")
            if post.path == "/voice/accept" and (post.doom or not post.deliveries):
                excuses.add("unscreened")
        return excuses

    def call(self) -> None:
        """Ring, follow the script to the end, and let stragglers arrive."""
        self.phone.ring()
        for _ in range(MOST_EVENTS):
            self._wait_for_the_line()
            if self.phone.state == "ended":
                break
            self._event()
        if self.phone.state != "ended":
            self._give_up("every call ends", heard=self.words())
        self.road.settle_down()
        self.luck = self.world.station.luck_of(self.phone.call_sid)

    def _wait_for_the_line(self) -> None:
        """Listen to the end while a push moves the call."""
        until = time.monotonic() + 20
        while self.phone.state == "playing" and time.monotonic() < until:
            time.sleep(0.02)

    def words(self) -> str:
        """The events since the caller or callee last acted."""
        return " | ".join(e for e in self.phone.transcript[self.mark :] if e.startswith(HEARD))

    def _event(self) -> None:
        if self.phone.state != "hold":
            time.sleep(self.dice.uniform(0, 2) * self.world.wishes.think)
        self.road.deliver_stale(0.3)
        self._wait_for_the_line()
        state = self.phone.state
        does = "" if state == "ended" else self._next_of_script()
        if state == "hold" and does != "caller hangs up":
            self._hold()
        elif does:
            self._act(does)
        elif state != "ended":
            self._give_up("the caller knows what to do", heard=self.words())

    def _hold(self) -> None:
        try:
            self.phone.wait()
        except NotNow:  # a push was quicker
            self.world.ledger.add("holds ended by a push")

    def _act(self, does: str) -> None:
        if "{case}" in does:
            self.case = f"case{self.number}x{len(self.cases) + 1}"
            self.cases.append(self.case)
        self.messages += self.phone.state == "record"
        self.mark = len(self.phone.transcript)
        event = does.replace("{case}", self.case)
        try:
            if wrong := perform(self.phone, event, stepwise=True):
                self._give_up("the caller can do it", does=does, wrong=wrong)
        except NotNow as misplaced:
            self._meet_push(does, str(misplaced))

    def _meet_push(self, does: str, wrong: str) -> None:
        """A push has moved a call that did not wait for it, which only a lost claim excuses."""
        self.luck = self.world.station.luck_of(self.phone.call_sid)
        events = self.phone.transcript
        moved = [place for place, event in enumerate(events) if event.startswith(MOVED)]
        if not moved or not self.excuses & {"away", "amnesia"}:
            self._give_up("nothing ends a talk but who talks", does=does, wrong=wrong)
            return
        self.world.ledger.add("talks that a push has ended")
        self.detours.append(wrong)
        self.mark = moved[-1]

    def _give_up(self, promise: str, **details: object) -> None:
        """The script leads no further."""
        self.is_lost = True
        self.breach(promise, **details)
        self.phone.hang_up()

    def _next_of_script(self) -> str:
        """The caller's next action: by the script, else by a scene of it, else by a detour."""
        words, scenes = self.words(), self.script.scenes
        if self.place < len(scenes) and self._hears(scenes[self.place][0], words):
            self.place += 1
            return scenes[self.place - 1][1]
        if self.phone.state == "hold":
            return ""
        self.detours.append(words)
        for place in sorted(range(len(scenes)), key=lambda i: abs(i - self.place + 0.5)):
            if self._hears(scenes[place][0], words, rf"case{self.number}x\d+"):
                self.place = place + 1
                return scenes[place][1]
        return next((does for hears, does in DETOURS if self._hears(hears, words)), "")

    def _hears(self, pattern: str, words: str, case: str = "") -> bool:
        """Tell whether these are the words, about the question asked last or one that may be."""
        return bool(re.search(pattern.replace("{case}", case or self.case or "nothing yet"), words))

    def left_scenes(self) -> list[str]:
        """The words that the caller never heard."""
        return [hears for hears, _ in self.script.scenes[self.place :] if hears != HOLDING]

    def breach(self, promise: str, **details: object) -> None:
        """A broken promise, with what it takes to understand it and to ring again."""
        self.luck = self.world.station.luck_of(self.phone.call_sid)
        details |= {"number": self.number, "call": self.phone.call_sid, "script": self.script.name}
        details |= {"excuses": sorted(self.excuses), "strikes": len(self.luck.strikes)}
        self.world.ledger.breach(promise, **details, transcript=self.phone.transcript[-16:])
