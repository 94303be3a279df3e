"""The chaos run in small, and the proof that its audit would not let a broken promise pass."""

import json
import subprocess
import sys
from dataclasses import replace
from typing import Any, Final

import pytest

from chaos import GOODBYE, MENU, SCRIPTS, Script, Wishes, hearing, run
from standins.instance import ROOT

PROGRAM: Final = ROOT / "tests/chaos.py"
QUIET: Final = Wishes(calls=2, think=0.1, instances=1, kill_every=1000, storm_every=1000)
pytestmark = pytest.mark.needs("ps")  # the run asks it whether a process is left over


@pytest.fixture(scope="module")
def finished() -> tuple[int, dict[str, Any]]:
    """A run of a hundred calls, as from a shell: its exit status and its table."""
    size = ["--calls", "100", "--rate", "10", "--think", "0.5", "--seed", "4", "--json"]
    run_ = subprocess.run([sys.executable, PROGRAM, *size], capture_output=True, check=False)
    return run_.returncode, json.loads(run_.stdout)


@pytest.mark.long
@pytest.mark.xdist_group("chaos")
def test_no_promise_is_broken_while_everything_breaks(finished: tuple[int, dict[str, Any]]) -> None:
    """Every call is kept to its script while instances die, webhooks repeat and Redis fails."""
    status, table = finished
    assert table["broken"] == []
    assert (status, table["calls"]) == (0, 100)


@pytest.mark.long
@pytest.mark.xdist_group("chaos")
def test_a_short_run_breaks_enough_to_prove_something(finished: tuple[int, dict[str, Any]]) -> None:
    """Kills, every sort of duplicate, losses and faults happen in it, and effects are asked for."""
    _, table = finished
    assert table["kills"] >= 2
    assert table["faults of Redis"] >= 10
    for sort in ("at once", "long after", "out of order"):
        assert table[f"duplicates {sort}"] >= 5
    for happening in ("effects", "retries", "fallbacks", "answers on hold"):
        assert table[happening] >= 1


@pytest.mark.parametrize(
    ("script", "promise"),
    [
        pytest.param(
            replace(SCRIPTS[0], ends=hearing("closed")),
            "the call ends in its words",
            id="last words",
        ),
        pytest.param(
            Script("dials another", "menu", ((MENU, "caller presses 1"), ("dials 1", "")), GOODBYE),
            "the caller knows what to do",
            id="the number that is dialled",
        ),
    ],
)
def test_a_call_that_leaves_its_script_is_reported(script: Script, promise: str) -> None:
    """A line that says or dials something else than the script demands breaks a promise."""
    broken = run(replace(QUIET, scripts=(script,)))["broken"]
    assert any(each.startswith(promise) for each in broken)
