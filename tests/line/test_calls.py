"""Every transcript in tests/calls, played: whole calls, as callers live through them.

A file there opens with a sentence that says what it shows. To add a case is to add a file; what
`python tests/phone.py` prints can be kept as one, if the line needed no backend for it. In its
settings "Yesterday" stands for the name of yesterday's weekday, so that a line can be closed
whenever the tests run.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from standins.call import Phone
from standins.inside import ORIGIN, TOKEN
from standins.instance import Instance
from standins.pool import KILLED, Pool, settings_of
from standins.rows import mostly_long
from standins.sink import Sink
from standins.transcript import Transcript
from standins.upstash import Upstash
from standins.webhooks import Deliver

CALLS: Final = sorted(Path(__file__).parents[1].glob("calls/*.call"))
STORES: Final = ("file", "redis")
DEADLY: Final = [path for path in CALLS if KILLED in path.read_text("utf-8")]

BY_NAME: Final = {path.stem: path for path in CALLS}
every_call = pytest.mark.parametrize("path", CALLS, ids=lambda path: str(path.stem))
DEATHS: Final = {f"{path.stem}-{store}": (path, store) for path in DEADLY for store in STORES}


@pytest.fixture(scope="module")
def sink() -> Iterator[Sink]:
    """The sink where owners are told, in the calls that say so."""
    with Sink() as sink:
        yield sink


def phone_to(deliver: Deliver, sink: Sink) -> Phone:
    return sink.follow(Phone(ORIGIN, token=TOKEN, deliver=deliver))


def test_a_transcript_that_needs_a_backend_is_refused() -> None:
    """Nobody plays the backend of a saved call: it fails with a sentence that says so."""
    with pytest.raises(ValueError, match="what a line says by itself"):
        settings_of(Transcript("set BACKEND_URL=http://127.0.0.1:5077\nrings"))


@every_call
def test_every_transcript_says_what_it_shows(path: Path) -> None:
    """The first line of a transcript is a comment, and a sentence."""
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# ")
    assert first.endswith(".")


@pytest.mark.parametrize("path", mostly_long(BY_NAME, "greeting", "owner_message"))
def test_call_on_one_instance(path: Path, sink: Sink, tmp_path: Path) -> None:
    """The call goes as written on one instance with the embedded store."""
    call = Transcript.read(path)
    pool = Pool(settings_of(call, sink) | {"STATE_FILE": str(tmp_path / "calls")})
    assert pool.instances[0].send("GET", "/healthz").status == 200
    play(call, phone_to(pool.first, sink), pool)


@pytest.mark.parametrize("path", mostly_long(BY_NAME, "greeting", "owner_message"))
def test_call_on_two_instances(path: Path, sink: Sink, upstash: Upstash) -> None:
    """The call goes as written when each webhook meets another instance; every cell expires."""
    call = Transcript.read(path)
    pool = Pool(settings_of(call, sink) | upstash.settings)
    play(call, phone_to(pool.each, sink), pool)
    assert upstash.keys()
    assert all(0 < seconds <= 24 * 3600 for seconds in upstash.keys().values())


@every_call
def test_call_with_every_webhook_twice(path: Path, sink: Sink, upstash: Upstash) -> None:
    """Twilio delivers everything twice, to two instances: one call, each answer byte for byte."""
    call = Transcript.read(path)
    pool = Pool(settings_of(call, sink) | upstash.settings)
    play(call, phone_to(pool.both, sink), pool)


def play(call: Transcript, phone: Phone, pool: Pool) -> None:
    """Play a call to its end: as written, and by Twilio's rules."""
    assert call.play(phone, {KILLED: pool.replace}) == []
    assert phone.state == "ended"
    assert [*phone.broken, *phone.warned] == []


@pytest.mark.parametrize(("path", "store"), mostly_long(DEATHS, "instance_killed_in_whisper-redis"))
def test_call_survives_kill_9(path: Path, store: str, upstash: Upstash, tmp_path: Path) -> None:
    """A real process, killed with -9 in mid-call and started afresh, says what was settled."""
    call = Transcript.read(path)
    where = {"STATE_FILE": str(tmp_path / "calls")} if store == "file" else upstash.settings
    with Instance({"TWILIO_AUTH_TOKEN": TOKEN} | where | settings_of(call)) as instance:
        phone = Phone(instance.url, token=TOKEN)
        assert call.play(phone, {KILLED: instance.restart}) == []
    assert [*phone.broken, *phone.warned] == []
