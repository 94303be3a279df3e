"""The owner hears of every call, each event under one key, while sinks and instances die.

A small chaos run: real processes that are killed with -9, a sink that mostly fails, and callbacks
that Twilio repeats until they are taken. What is random comes from a seed.
"""

import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import cycle
from pathlib import Path
from random import Random
from typing import Final

import pytest

from standins.backend import until
from standins.call import Phone
from standins.examples import as_many
from standins.inside import ORIGIN, TOKEN
from standins.instance import Instance
from standins.sink import Fault, Sink
from standins.webhooks import Answer, Failed, Fields, http_deliver

EACH: Final = as_many(4)  # calls of each kind
SECONDS: Final = 60.0  # within which every callback is taken; the run takes a part of it
KILLING: Final = 1.5  # seconds between the deaths of two instances
BRISK: Final = {"RESPONSE_DEADLINE": "1.5"}
FAULTS: Final[tuple[Fault, ...]] = (500, "cut", 429, "redirect")
PERSON: Final = "+15550100099"


class Twilio:
    """Delivers to one of some instances, and asks again until it is answered well."""

    def __init__(self, instances: list[Instance], random: Random) -> None:
        self.instances, self.random = instances, random

    def deliver(self, url: str, fields: Fields, headers: Mapping[str, str]) -> Answer:
        end = time.monotonic() + SECONDS
        while True:
            instance = self.random.choice(self.instances)
            try:
                answer = http_deliver(url.replace(ORIGIN, instance.url), fields, headers)
                if answer.status < 500 or time.monotonic() > end:
                    return answer
            except Failed:
                if time.monotonic() > end:
                    raise
            time.sleep(0.1)

    def call(self, ending: str) -> Phone:
        """A whole call, that ends as it is said."""
        phone = Phone(ORIGIN, token=TOKEN, deliver=self.deliver)
        phone.ring()
        if ending == "hangs up":
            phone.hang_up()
            return phone
        phone.say("my invoice")
        if ending == "talk":
            phone.callee("completed")
            return phone
        phone.callee("no-answer")
        if ending == "message":
            phone.leave_message(5)
        else:
            phone.silent()
        return phone


EXPECTED: Final = {
    "talk": set[str](),
    "hangs up": {"missed"},
    "message": {"voicemail"},
    "silence": {"missed"},
}


@contextmanager
def dying(instances: list[Instance]) -> Iterator[None]:
    """A while in which one instance after the other is killed, and started afresh."""
    over = threading.Event()

    def kill_in_turn() -> None:
        for instance in cycle(instances):
            if over.wait(KILLING):
                return
            instance.restart()

    killer = threading.Thread(target=kill_in_turn)
    killer.start()
    try:
        yield
    finally:
        over.set()
        killer.join()


@pytest.mark.long
def test_every_event_is_told_while_everything_dies(tmp_path: Path) -> None:
    """Each event at least once, under one key and in the same words, and none that is not true."""
    random = Random(7)
    faults = [random.choice(FAULTS) if random.random() < 0.5 else None for _ in range(500)]
    with ExitStack() as running:
        sink = running.enter_context(Sink())
        sink.fault = lambda nth: faults[nth % len(faults)]
        env = {"TWILIO_AUTH_TOKEN": TOKEN, "PUBLIC_URL": ORIGIN, "FORWARD_TO": PERSON}
        env |= {"NOTIFY_URL": sink.url, "STATE_FILE": str(tmp_path / "calls")}
        instances = [running.enter_context(Instance(env | BRISK)) for _ in range(2)]
        twilio = Twilio(instances, random)
        endings = [*EXPECTED] * EACH
        with dying(instances), ThreadPoolExecutor(4) as callers:
            phones = [*callers.map(twilio.call, endings)]
        expected = set()
        for phone, ending in zip(phones, endings, strict=True):
            expected |= {f"{phone.call_sid}:{event}" for event in EXPECTED[ending]}
        assert until(lambda: {notice.key for notice in sink.taken()} == expected, 20)
        texts = {(notice.key, notice.text) for notice in sink.notices}
        assert len(texts) == len(expected)
        assert len(sink.notices) > len(expected)  # some had to be told again
