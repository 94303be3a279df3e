"""Every transcript in tests/calls, played: whole calls, as callers live through them.

A file there opens with a sentence that says what it shows. To add a case is to add a file; what
`python tests/phone.py` prints can be kept as one, if the line needed no backend for it. In its
settings "Yesterday" stands for the name of yesterday's weekday, so that a line can be closed
whenever the tests run.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from itertools import cycle
from pathlib import Path
from typing import Final

import pytest
from inside import ORIGIN, TOKEN, Inside
from instance import Instance
from phone import Answer, Deliver, Fields, Phone, Transcript
from upstash import Upstash

KILLED: Final = "instance is killed"
CALLS: Final = sorted(Path(__file__).parent.glob("calls/*.call"))
DEADLY: Final = [path for path in CALLS if KILLED in path.read_text("utf-8")]

every_call = pytest.mark.parametrize("path", CALLS, ids=lambda path: str(path.stem))
deadly_calls = pytest.mark.parametrize("path", DEADLY, ids=lambda path: str(path.stem))


@pytest.fixture(scope="module")
def upstash() -> Iterator[Upstash]:
    with Upstash() as running:
        yield running


def settings(call: Transcript) -> dict[str, str]:
    """The settings of a transcript, with yesterday's weekday filled in."""
    assert "BACKEND_URL" not in call.settings, (
        "a transcript holds what a line says by itself: "
        "a call that needs a backend is a test like those in tests/test_slow.py"
    )
    weekday = (datetime.now(UTC) - timedelta(days=1)).strftime("%a")
    return {name: value.replace("Yesterday", weekday) for name, value in call.settings.items()}


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


def phone_to(deliver: Deliver) -> Phone:
    return Phone(ORIGIN, token=TOKEN, deliver=deliver)


def test_a_transcript_that_needs_a_backend_is_refused() -> None:
    """Nobody plays the backend of a saved call: it fails with a sentence that says so."""
    with pytest.raises(AssertionError, match="what a line says by itself"):
        settings(Transcript("set BACKEND_URL=http://127.0.0.1:5077\nrings"))


@every_call
def test_every_transcript_says_what_it_shows(path: Path) -> None:
    """The first line of a transcript is a comment, and a sentence."""
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# ")
    assert first.endswith(".")


@every_call
def test_call_on_one_instance(path: Path, tmp_path: Path) -> None:
    """The call goes as written on one instance with the embedded store."""
    call = Transcript.read(path)
    pool = Pool(settings(call) | {"STATE_FILE": str(tmp_path / "calls")})
    assert pool.instances[0].send("GET", "/healthz").status == 200
    play(call, phone_to(pool.first), pool)


@every_call
def test_call_on_two_instances(path: Path, upstash: Upstash) -> None:
    """The call goes as written when each webhook meets another instance; every cell expires."""
    call = Transcript.read(path)
    pool = Pool(settings(call) | upstash.settings)
    play(call, phone_to(pool.each), pool)
    assert upstash.keys()
    assert all(0 < seconds <= 24 * 3600 for seconds in upstash.keys().values())


@every_call
def test_call_with_every_webhook_twice(path: Path, upstash: Upstash) -> None:
    """Twilio delivers everything twice, to two instances: one call, each answer byte for byte."""
    call = Transcript.read(path)
    pool = Pool(settings(call) | upstash.settings)
    play(call, phone_to(pool.both), pool)


def play(call: Transcript, phone: Phone, pool: Pool) -> None:
    """Play a call to its end: as written, and by Twilio's rules."""
    assert call.play(phone, {KILLED: pool.replace}) == []
    assert phone.state == "ended"
    assert [*phone.broken, *phone.warned] == []


@pytest.mark.parametrize("store", ["file", "redis"])
@deadly_calls
def test_call_survives_kill_9(path: Path, store: str, upstash: Upstash, tmp_path: Path) -> None:
    """A real process, killed with -9 in mid-call and started afresh, says what was settled."""
    call = Transcript.read(path)
    where = {"STATE_FILE": str(tmp_path / "calls")} if store == "file" else upstash.settings
    with Instance({"TWILIO_AUTH_TOKEN": TOKEN} | where | settings(call)) as instance:
        phone = Phone(instance.url, token=TOKEN)
        assert call.play(phone, {KILLED: instance.restart}) == []
    assert [*phone.broken, *phone.warned] == []
