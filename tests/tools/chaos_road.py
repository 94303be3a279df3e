"""The way of a webhook in a chaos run: lost, delayed, doubled, or delivered long after its turn."""

import contextlib
import time
from collections.abc import Mapping
from concurrent.futures import Future
from contextvars import copy_context
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs, urlsplit

from standins.webhooks import Answer, Failed, Fields, http_deliver
from tools.chaos_fleet import Member
from tools.chaos_ledger import DEADLINE, MARGIN, PUBLIC, UNJUDGED

if TYPE_CHECKING:
    from chaos import World

LOSSES: Final = {"refused": 0.02, "unheard": 0.03, "overtaken": 0.03}  # of a webhook's attempts
DOOMED: Final = 0.02  # share of the webhooks of which every attempt is lost
TWINS, STALE, DELAYED = 0.08, 0.10, 0.10  # delivered twice at once, again later, late


@dataclass
class Delivery:
    """One attempt that reached an instance, and the answer."""

    began: float
    ended: float
    status: int
    body: str


@dataclass
class Post:
    """One webhook, however often it is delivered."""

    url: str
    fields: Fields
    headers: Mapping[str, str]
    doom: str = ""
    attempts: int = 0
    losses: int = 0
    deliveries: list[Delivery] = field(default_factory=list)

    @property
    def path(self) -> str:
        return urlsplit(self.url).path

    @property
    def turn(self) -> int:
        """The turn that this webhook, or the failed one that it stands for, comes back to."""
        query = parse_qs(urlsplit(dict(self.fields).get("ErrorUrl", self.url)).query)
        return int(query.get("turn", ["0"])[0])

    @property
    def keys(self) -> str:
        """The keys that were pressed."""
        return dict(self.fields).get("Digits", "")


class Road:
    """The way between Twilio and the instances of one line, for one call."""

    def __init__(self, world: "World", line: str, dice: Random) -> None:
        self.world, self.line, self.dice = world, line, dice
        self.posts: dict[tuple[str, tuple[tuple[str, str], ...]], Post] = {}
        self.stale: list[Post] = []
        self.under_way: list[Future[None]] = []

    def deliver(self, url: str, fields: Fields, headers: Mapping[str, str]) -> Answer:
        """An attempt of Twilio's, with what chaos adds or takes away."""
        post = self.posts.setdefault((url, tuple(fields)), Post(url, fields, headers))
        post.attempts += 1
        self.world.ledger.add("webhooks" if post.attempts == 1 else "retries")
        if post.attempts == 1:
            self._first(post)
        if fate := self._fate(post):
            self._lose(post, fate)
        if self.dice.random() < DELAYED:
            self.world.ledger.add("delayed")
            time.sleep(self.dice.uniform(0, 0.4))
        member = self._member(post)
        if self.dice.random() < TWINS:
            self._in_background(post, "duplicates at once", 0)
        if self.dice.random() < STALE:
            self.stale.append(post)
        return self.attempt(post, member)

    def _first(self, post: Post) -> None:
        if post.path == "/voice/fallback":
            self.world.ledger.add("fallbacks")
        elif post.path != "/voice/status" and self.dice.random() < DOOMED:
            post.doom = self.dice.choice([*LOSSES])
        if post.path == "/voice/accept":
            self.world.ledger.add("whispers")

    def _fate(self, post: Post) -> str:
        if post.doom or post.losses >= 2:
            return post.doom
        kind = self.dice.choices([*LOSSES, ""], [*LOSSES.values(), 1 - sum(LOSSES.values())])[0]
        post.losses += bool(kind)
        return kind

    def _lose(self, post: Post, fate: str) -> None:
        """Twilio sees a failure: nothing arrived, or its answer did not, or both come too late."""
        self.world.ledger.add(f"webhooks {fate}")
        if fate == "refused":
            raise Failed(11205, "chaos: no connection", "ct", 2.0)
        if fate == "unheard":
            with contextlib.suppress(Failed):
                self.attempt(post, self._member(post))
        else:
            late = self.dice.choice([0.02, 2.0])  # while Twilio turns elsewhere, or long after
            self._in_background(post, "duplicates out of order", self.dice.uniform(0, late))
        raise Failed(11205, f"chaos: {fate}", "rt", 3.0)

    def _in_background(self, post: Post, kind: str, seconds: float) -> None:
        member = self._member(post, alive=True)

        def again() -> None:
            time.sleep(seconds)
            with contextlib.suppress(Failed):
                self.attempt(post, member)

        self.world.ledger.add(kind)
        self.under_way.append(self.world.pool.submit(copy_context().run, again))

    def _member(self, post: Post, alive: bool = False) -> Member:
        """Any instance, for a retry one that lives: by then the edge has noticed."""
        members = self.world.fleet.lines[self.line]
        if alive or post.attempts > 1:
            members = [member for member in members if member.up] or members
        return self.dice.choice(members)

    def attempt(self, post: Post, member: Member) -> Answer:
        """Deliver once to an instance, and write down what came of it."""
        url = post.url.replace(PUBLIC, member.instance.url, 1)
        began = time.monotonic()
        try:
            answer = http_deliver(url, post.fields, post.headers)
        except Failed as failed:
            if not member.was_down(began, time.monotonic()):
                self.blame("a living instance answers", post, began, failed.seconds, why=failed)
            raise
        self.world.ledger.took(answer.seconds)
        ended = time.monotonic()
        post.deliveries.append(Delivery(began, ended, answer.status, answer.body.decode()))
        if answer.seconds > DEADLINE + MARGIN:
            self.blame("the deadline", post, began, answer.seconds)
        return answer

    def blame(
        self, promise: str, post: Post, began: float, seconds: float, **details: object
    ) -> None:
        """A promise about time was broken, by the line or by this machine."""
        if self.world.machine.was_slow(began, time.monotonic()):
            self.world.ledger.add(UNJUDGED)
        else:
            self.world.ledger.breach(promise, url=post.url, seconds=seconds, **details)

    def deliver_stale(self, share: float) -> None:
        """Deliver webhooks of the past once more."""
        due = [post for post in self.stale if self.dice.random() < share]
        for post in due:
            self.stale.remove(post)
            self.world.ledger.add("duplicates long after")
            with contextlib.suppress(Failed):
                self.attempt(post, self._member(post, alive=True))

    def settle_down(self) -> None:
        """Wait until nothing of this call is on its way any more."""
        self.deliver_stale(1.0)
        for future in self.under_way:
            future.result()
