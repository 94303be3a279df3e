"""The machine that a chaos run runs on: when it was too slow to blame the line for anything.

A line promises seconds. Where other work takes a processor away (on a virtual machine the host does
that, and to one of them alone), or the stand-in for Redis falls behind, a late answer says nothing
about the line; so such an answer is counted and not judged. A run in which many are is no proof,
and fails.

Whoever judges an answer waits for the look that was due meanwhile. After a stall everybody wakes up
at once, and the thread that has an answer may well be quicker than the one that looks.
"""

import gc
import http.client
import math
import os
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Final
from urllib.parse import urlsplit

EVERY: Final = 0.1  # seconds between two looks
LATE: Final = 0.15  # seconds of delay that are too many: a line may give Redis 0.3 (cells.py)
UNTIL: Final = 0.5  # seconds around such a look that are not judged either
MOST: Final = 0.1  # share of the answers that may go without a judgement


def list_processors() -> list[int | None]:
    """The processors that a thread can look at one by one; None is all of them together."""
    return [*os.sched_getaffinity(0)] if sys.platform == "linux" else [None]


def stop_garbage_collection() -> None:
    """Look for garbage no more: after 1,000 calls one look stops this process for 0.3 seconds."""
    gc.disable()


class Machine:
    """Looks again and again how late this process wakes up, and how soon Redis answers it."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        self._redis = urlsplit(settings["UPSTASH_REDIS_REST_URL"])
        self._headers = {"Authorization": f"Bearer {settings['UPSTASH_REDIS_REST_TOKEN']}"}
        self._slow: list[tuple[float, float]] = []
        self._looked: dict[object, float] = {}  # until when each watcher has looked
        self.is_away = False  # Redis is not to answer just now
        self.slowest = 0.0

    def watch(self, over: threading.Event, processor: int | None = None) -> None:
        """Look until it is over; on Linux a thread can do so on a processor of its own."""
        if sys.platform == "linux" and processor is not None:
            os.sched_setaffinity(0, {processor})  # of this thread alone
        began = time.monotonic()
        try:
            while not over.wait(EVERY):
                delay = time.monotonic() - began - EVERY
                if not self.is_away:
                    delay = max(delay, self._ask_redis())
                if delay > LATE:
                    self._slow.append((began - UNTIL, time.monotonic() + UNTIL))
                    self.slowest = max(self.slowest, delay)
                self._looked[processor] = began = time.monotonic()
        finally:
            self._looked[processor] = math.inf  # nobody waits for it any more

    def _ask_redis(self) -> float:
        """The seconds that a command takes."""
        began = time.monotonic()
        host, port = self._redis.hostname or "", self._redis.port
        connection = http.client.HTTPConnection(host, port, timeout=5)
        with suppress(OSError, http.client.HTTPException):
            connection.request("POST", "/", '["GET", "nothing"]', self._headers)
            connection.getresponse().read()
        connection.close()
        return time.monotonic() - began

    def was_slow(self, began: float, ended: float) -> bool:
        """Tell whether the machine was too slow at some moment of a while, once that is known."""
        while any(looked < ended for looked in self._looked.copy().values()):
            time.sleep(EVERY)
        return any(since <= ended and began <= until for since, until in self._slow)
