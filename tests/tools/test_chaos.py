"""The chaos run in small, and the proof that its audit would not let a broken promise pass."""

import json
import subprocess
import sys
import threading
import time
from dataclasses import replace
from typing import Any, Final

import pytest

from chaos import World, run
from phone_line.push import SILENCE
from standins.instance import ROOT
from standins.upstash import Upstash
from tools import chaos_caller
from tools.chaos_audit import Audit
from tools.chaos_caller import Caller
from tools.chaos_ledger import BILLING, PUBLIC, Script, Wishes
from tools.chaos_machine import UNTIL, Machine
from tools.chaos_road import Delivery, Post
from tools.chaos_scripts import CALLED, GOODBYE, MENU, NOBODY, PICKS_UP, SCRIPTS, dials, said
from tools.chaos_weather import Station, Weather

PROGRAM: Final = ROOT / "tests/chaos.py"
QUIET: Final = Wishes(
    calls=2, think=0.1, instances=1, kill_every=1000, storm_every=1000, loiter_every=1000
)
SID: Final = "CA" + "1" * 32
needs_ps = pytest.mark.needs("ps")  # a run asks it whether a process is left over


@pytest.fixture(scope="module")
def finished() -> tuple[int, dict[str, Any]]:
    """A run of some calls, as from a shell: its exit status and its table."""
    size = ["--calls", "60", "--rate", "10", "--think", "0.5", "--seed", "31", "--json"]
    run_ = subprocess.run([sys.executable, PROGRAM, *size], capture_output=True, check=False)
    return run_.returncode, json.loads(run_.stdout)


@needs_ps
@pytest.mark.long
@pytest.mark.waits
@pytest.mark.xdist_group("chaos")
def test_no_promise_is_broken_while_everything_breaks(finished: tuple[int, dict[str, Any]]) -> None:
    """Every call is kept to its script while instances die, webhooks repeat and Redis fails."""
    status, table = finished
    assert table["broken"] == []
    assert (status, table["calls"]) == (0, 60)


@needs_ps
@pytest.mark.long
@pytest.mark.waits
@pytest.mark.xdist_group("chaos")
def test_a_short_run_breaks_enough_to_prove_something(finished: tuple[int, dict[str, Any]]) -> None:
    """Kills, every sort of duplicate, losses and faults happen in it, and effects are asked for."""
    _, table = finished
    assert table["kills"] >= 2
    assert table["faults of Redis"] >= 10
    for sort in ("at once", "long after", "out of order"):
        assert table[f"duplicates {sort}"] >= 3
    for happening in ("effects", "retries", "fallbacks", "answers on hold", "whispers"):
        assert table[happening] >= 1
    assert table["connections left open"] >= 12
    assert any(name.startswith("pushes") for name in table)


@needs_ps
@pytest.mark.long
@pytest.mark.waits
@pytest.mark.xdist_group("chaos")
def test_a_storm_breaks_no_promise() -> None:
    """Callers ring together while Redis hangs: all hear words in time, and go on afterwards."""
    table = run(Wishes(calls=20, rate=4.0, think=0.5, storm=60))
    assert table["broken"] == []
    assert table["calls"] == 80
    assert table["answers unsettled, as Redis was away"] >= 10


@pytest.mark.long
@needs_ps
@pytest.mark.parametrize(
    ("script", "promise"),
    [
        pytest.param(
            SCRIPTS[0]._replace(ends="We are closed"), "the call ends in its words", id="last words"
        ),
        pytest.param(
            Script("dials another", "menu", ((MENU, "caller presses 1"), ("dials 1", "")), GOODBYE),
            "the caller knows what to do",
            id="the number that is dialled",
            marks=pytest.mark.long,
        ),
        pytest.param(
            Script(
                "is taken with a wrong key",
                "menu",
                (
                    (MENU, "caller presses 1"),
                    (dials(BILLING), PICKS_UP),
                    (CALLED, "callee presses 5"),
                ),
                GOODBYE,
            ),
            "the call goes by its script",
            id="whoever did not take the call",
            marks=pytest.mark.long,
        ),
    ],
)
def test_a_call_that_leaves_its_script_is_reported(script: Script, promise: str) -> None:
    """A line that says, dials or connects something else than the script breaks a promise."""
    broken = run(replace(QUIET, scripts=(script,)))["broken"]
    assert any(each.startswith(promise) for each in broken)


@pytest.mark.long
def test_a_whisper_is_repeated_alike_unless_its_line_met_a_hanging_redis() -> None:
    """The reason may be missing then, also where the commands of this very call came through."""
    with World(replace(QUIET, scripts=SCRIPTS[:1])) as world:
        audit_two_whispers(Caller(world, 1))
        assert [each.partition(":")[0] for each in world.ledger.broken] == [
            "a whisper is repeated alike"
        ]
        world.station.ask(Weather.expect, SID, SCRIPTS[0].line)
        world.station.ask(Weather.turn, "hang")
        world.station.ask(Weather.judge, ["MGET", f"call:{SID}:1"])
        world.station.ask(Weather.turn, "")
        audit_two_whispers(Caller(world, 2))
        assert len(world.ledger.broken) == 1
        assert world.ledger.counts["answers unsettled, as Redis had hung"] == 1


def audit_two_whispers(caller: Caller) -> None:
    """Audit a call of which one whisper was answered in two ways."""
    now = time.monotonic()
    said = ["Ann calls.<Hangup/>", "Somebody calls.<Hangup/>"]
    post = Post(f"{PUBLIC}/voice/accept?turn=2", [], {})
    post.deliveries += [Delivery(now, now + 0.1, 200, words) for words in said]
    caller.road.posts[post.url, ()] = post
    caller.luck = caller.world.station.luck_of(caller.phone.call_sid)
    Audit(caller).check_answers()


def test_a_silence_takes_its_real_time() -> None:
    """Pushes take seconds of this world, and so does the silence of a caller who waits for one."""
    assert chaos_caller.SILENCE == SILENCE


def test_scripts_take_sentences_from_the_words_file() -> None:
    """Whoever changes a sentence changes no script: blanks are open, or filled in."""
    assert said("menu_item", name="billing", key="1") in MENU
    assert "{" not in f"{MENU}{CALLED}{NOBODY}{GOODBYE}"


def test_one_fault_excuses_nothing_and_a_hang_after_a_hang_does() -> None:
    """A command has several attempts; only when all of them are used up may Redis be away."""
    with Upstash() as upstash:
        weather = Weather(upstash, replace(QUIET, seed=3))
        weather.expect(SID, "desk")
        command = ["GETEX", f"call:{SID}:1"]
        for kind, excused in (("drop", False), ("quota", False), ("hang", True)):
            weather.storm, excuses = kind, False
            while not weather.judge(command):
                pass
            excuses = "away" in weather.luck_of(SID).excuses
            assert excuses is excused
        assert len(weather.luck_of(SID).strikes) == 3
        assert weather.has_hung("desk", time.monotonic(), time.monotonic())
        assert not weather.has_hung("menu", time.monotonic(), time.monotonic())


def test_redis_is_a_process_of_its_own() -> None:
    """What stands in it, what was done to a call, and the faults so far can be asked for."""
    with Station(QUIET) as station:
        station.ask(Weather.expect, SID, "menu")
        assert station.luck_of(SID).line == "menu"
        assert station.read(f"call:{SID}:1") == [None]
        assert station.ask(Weather.lives) == {}
        assert station.ask(Weather.count).total() == 0


def test_a_slow_machine_is_not_the_lines_fault() -> None:
    """Where Redis answers late although nobody struck it, what happens then is not judged."""
    with Upstash() as upstash:
        machine, over = Machine(upstash.settings), threading.Event()
        watching = threading.Thread(target=machine.watch, args=(over,), daemon=True)
        watching.start()
        time.sleep(0.3)
        upstash.latency = 0.4
        began = time.monotonic()
        time.sleep(0.15)
        assert machine.was_slow(began, time.monotonic())  # although the look is not over
        over.set()
        watching.join()
        assert machine.was_slow(began, began + 0.5)
        assert not machine.was_slow(began - 60, began - 30)
        assert machine.slowest > 0.3
        assert UNTIL < 1
