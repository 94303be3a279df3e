"""The bench runs and measures what it says.

The figures of these runs mean nothing: they are too short, and other tests run beside them.
"""

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Final

import pytest

from bench import ROWS, TITLES, measure
from standins.instance import ROOT
from standins.rows import mostly_long
from tools.bench_figures import Figure, compared, quartiles, written
from tools.bench_place import QUICK, Bench, production
from tools.bench_processes import Redis, proportional_size
from tools.bench_starts import import_times

OURS: Final = [row for row in ROWS if row != "express"]  # that one fetches packages of Node
pytestmark = pytest.mark.timeout(300)  # the bench is run once for all of them, in a minute
# The bench asks ps how much memory its processes take, and has openssl make a certificate.
measured = pytest.mark.needs("ps", "openssl")


@pytest.fixture(scope="module")
def figures() -> dict[str, list[Figure]]:
    """A short run of every row that needs nothing but Python."""
    found = measure(OURS, QUICK, lambda _: None)
    return {row: [figure for figure in found if figure.row == row] for row in OURS}


@pytest.mark.long
@pytest.mark.waits
@measured
@pytest.mark.xdist_group("bench")
def test_every_row_gives_figures(figures: dict[str, list[Figure]]) -> None:
    """Each row of the bench, run alone and short, measures something above nothing."""
    assert all(figures[row] for row in OURS)
    assert all(figure.value > 0 for row in OURS for figure in figures[row])


@pytest.mark.long
@pytest.mark.waits
@measured
@pytest.mark.xdist_group("bench")
def test_contestants_are_compared_within_a_round(figures: dict[str, list[Figure]]) -> None:
    """The contestant that others are compared to is 1 in each row, and everything has a spread."""
    for row in ("cold", "warm", "busy", "hold", "threads", "memory"):
        assert any(
            figure.ratio == 1.0 and figure.name.endswith(figure.to) for figure in figures[row]
        )
        for figure in figures[row]:
            assert figure.low is not None and figure.ratio is not None and figure.high is not None
            assert 0 < figure.low <= figure.ratio <= figure.high


def test_contestants_have_what_production_has(tmp_path: Path) -> None:
    """What only the tests need is not there to be imported, and what main.py needs is."""
    python = production(tmp_path / "venv") / "python"
    script = "import importlib.util as u; print(*(bool(u.find_spec(n)) for n in {!r}))"
    names = ["functions_framework", "twilio", "upstash_redis", "pytest", "pygments", "hypothesis"]
    run = [str(python), "-c", script.format(names)]
    found = subprocess.run(run, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert found.stdout.split() == ["True"] * 3 + ["False"] * 3


@pytest.mark.long
def test_the_line_is_compiled_as_the_build_does_it(tmp_path: Path) -> None:
    """What is measured as deployed has the bytecode of main.py and of all rooms of the package."""
    bench = Bench(tmp_path)
    compiled = {file.name.partition(".")[0] for file in tmp_path.glob("bytecode/**/line/**/*.pyc")}
    rooms = {file.stem for file in (tmp_path / "line/phone_line").glob("*.py")}
    assert {"main", "turn"} < compiled == {"main"} | rooms
    assert "main" in bench.deployed[-1]


THERE: Final = {"none": [], "node": ["node"], "npm": ["npm"], "both": ["node", "npm"]}


@pytest.mark.parametrize("there", mostly_long(THERE))
def test_without_node_or_its_registry_a_row_is_left_out(
    there: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row has no figures then, and the reason is said."""
    for name in there:  # npm finds no registry
        (tmp_path / name).write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    said: list[str] = []
    assert measure(["express"], QUICK, said.append) == []
    reason = "npm could not install" if len(there) == 2 else "Node is not installed"
    assert said[-1].startswith(f"express: left out. {reason}")


def test_several_commands_may_come_at_once() -> None:
    """Upstash's client for Node sends what it has to /pipeline, and gets an answer for each."""
    with Redis() as redis:
        url = redis.settings["UPSTASH_REDIS_REST_URL"]
        body = json.dumps([["set", "a", "1", "ex", 9], ["get", "a"], ["get", "b"]]).encode()
        with urllib.request.urlopen(url + "/pipeline", body) as answer:
            results = json.loads(answer.read())
        assert results == [{"result": "OK"}, {"result": "1"}, {"result": None}]
        assert redis.report()["commands"] == 3
        assert redis.report()["round_trips"] == 1


def test_memory_is_that_of_all_processes() -> None:
    """What a server takes is counted over all its workers, and no less than the largest has."""
    own = proportional_size(os.getpid())
    if sys.platform == "linux":
        assert 2**20 < own < 2**34
    assert proportional_size(0) == 0


@pytest.mark.long
@pytest.mark.waits
@measured
@pytest.mark.xdist_group("bench")
def test_callers_on_hold_leave_the_threads_to_others(figures: dict[str, list[Figure]]) -> None:
    """With seven callers on hold for each server thread, new calls are answered all the same."""
    free, full = figures["hold"]
    assert full.name == "60 callers on hold"
    assert full.ratio is not None and full.ratio > 0.3 and free.ratio == 1


@pytest.mark.long
@pytest.mark.waits
@measured
@pytest.mark.xdist_group("bench")
def test_the_call_that_is_measured_costs_what_is_promised(figures: dict[str, list[Figure]]) -> None:
    """On real processes a call of three webhooks and its end costs six commands in six trips."""
    found = [(figure.value, figure.unit) for figure in figures["commands"]]
    assert found[:4] == [(1, "commands"), (2, "commands"), (2, "commands"), (1, "commands")]
    assert found[4:6] == [(6, "commands"), (6, "round trips")]
    assert found[-1][1] == "cents" and found[-1][0] == pytest.approx(1.2)


@pytest.mark.long
@pytest.mark.waits
@measured
@pytest.mark.xdist_group("bench")
def test_a_cold_start_is_mostly_imports(figures: dict[str, list[Figure]]) -> None:
    """The import row names the packages that are really loaded, and they are part of the whole."""
    shares = {figure.name: figure.value for figure in figures["imports"]}
    assert {"all imports", "werkzeug", "flask"} <= shares.keys()
    assert shares["werkzeug"] < shares["all imports"] < 100


@pytest.mark.long
@pytest.mark.waits
@measured
@pytest.mark.xdist_group("bench")
def test_a_table_names_the_command_that_repeats_each_row(figures: dict[str, list[Figure]]) -> None:
    """The table holds every figure once, under the command that measures its row alone."""
    table = written([figure for row in OURS for figure in figures[row]], TITLES)
    assert all(table.count(f"python tests/bench.py --only {row}\n") == 1 for row in OURS)
    assert all(figure.name in table for row in OURS for figure in figures[row])


def test_ratios_are_medians_of_rounds_not_of_sums() -> None:
    """A round in which everything is slow does not change who is how much slower."""
    rounds = {"hello": [1.0, 10.0, 1.0], "line": [2.0, 20.0, 4.0]}
    base, line = compared("cold", "", "ms", rounds, "hello")
    assert (base.ratio, line.ratio, line.low, line.high) == (1.0, 2.0, 2.0, 3.0)
    assert quartiles([7.0]) == (7.0, 7.0, 7.0)


def test_import_times_are_summed_by_package() -> None:
    """Only a module's own time counts, so that nothing is counted twice."""
    report = (
        "import time: self [us] | cumulative | imported package\n"
        "import time:       500 |        500 |   flask.app\n"
        "noise\n"
        "import time:      1500 |       2000 | flask\n"
    )
    assert import_times(report) == {"flask": 2.0}


@pytest.mark.long
def test_one_row_can_be_had_as_json() -> None:
    """`--only` and `--json` give that row's figures on stdout, and progress on stderr."""
    script = ROOT / "tests/bench.py"
    run = subprocess.run(
        [sys.executable, script, "--only", "commands", "--quick", "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(run.stdout)
    assert {figure["row"] for figure in found} == {"commands"}
    assert found[0]["repeat"] == "python tests/bench.py --only commands"
    assert "commands: one call" in run.stderr
