"""Two instances that share a store: on them every transcript in tests/calls is played.

    call = Transcript.read(path)
    pool = Pool(settings_of(call) | upstash.settings)
    call.play(Phone(ORIGIN, token=TOKEN, deliver=pool.each), {KILLED: pool.replace})

In the settings of a transcript "Yesterday" stands for the name of yesterday's weekday, so that a
line can be closed whenever the call is played.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from itertools import cycle
from typing import Final

from standins.inside import Inside
from standins.sink import Sink
from standins.transcript import Transcript
from standins.webhooks import Answer, Fields

KILLED: Final = "instance is killed"


def settings_of(call: Transcript, sink: Sink | None = None) -> dict[str, str]:
    """The settings of a transcript, with yesterday's weekday filled in, and the owner's `sink`.

    A ValueError if the call needs a backend: nobody plays one.
    """
    if "BACKEND_URL" in call.settings:
        raise ValueError(
            "a transcript holds what a line says by itself: "
            "a call that needs a backend is a test like those in tests/line/test_slow_work.py"
        )
    weekday = (datetime.now(UTC) - timedelta(days=1)).strftime("%a")
    found = {name: value.replace("Yesterday", weekday) for name, value in call.settings.items()}
    if sink and call.tells_owner:
        found["NOTIFY_URL"] = sink.url
    return found


class Pool:
    """Two instances that share a store; each is asked in turn, and can be replaced."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self.env = env
        self.replace()

    def replace(self) -> None:
        """Fresh instances in place of those that were: nothing but the store is left."""
        self.instances = [Inside(self.env), Inside(self.env)]
        self.turns = cycle(self.instances)

    def first(self, url: str, fields: Fields, headers: Mapping[str, str]) -> Answer:
        """The first instance's answer."""
        return self.instances[0].deliver(url, fields, headers)

    def each(self, url: str, fields: Fields, headers: Mapping[str, str]) -> Answer:
        """The next instance's answer."""
        return next(self.turns).deliver(url, fields, headers)

    def both(self, url: str, fields: Fields, headers: Mapping[str, str]) -> Answer:
        """The answer of both instances to the same webhook, which has to be the same."""
        first, second = (one.deliver(url, fields, headers) for one in self.instances)
        assert (first.status, first.body) == (second.status, second.body)
        return first
