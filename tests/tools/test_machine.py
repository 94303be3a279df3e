"""Tests that are left out, for lack of a program or of time: that is said, and never so in CI."""

import os
import re
import subprocess
import sys
from typing import Final

import pytest

from standins.instance import ROOT

pytestmark = pytest.mark.long  # each runs another pytest

HERE: Final = ROOT / "tests"
BROWSER: Final = "line/test_page.py::test_a_browser_applies_the_style"
ANYWHERE: Final = "line/test_page.py::test_without_a_password_set_there_is_no_page"


def run_on_a_bare_machine(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run pytest where nothing but Python is installed."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    foreign = {name: value for name, value in os.environ.items() if name != "CI"}
    bare = {"PATH": os.devnull, "PYTEST_ADDOPTS": ""}
    return subprocess.run(
        command, cwd=HERE, env=foreign | bare | env, capture_output=True, text=True, check=False
    )


def test_what_a_machine_lacks_is_left_out_and_said() -> None:
    """A test whose program is missing does not count as passed, and the summary tells the way."""
    run = run_on_a_bare_machine("-n0", BROWSER, ANYWHERE)
    assert run.returncode == pytest.ExitCode.OK
    assert "1 passed, 1 deselected" in run.stdout
    assert "1 test was left out, chromium is not installed: apt-get install chromium" in run.stdout


def test_in_ci_nothing_may_be_missing() -> None:
    """Where CI is set the same test fails, and says what to install."""
    run = run_on_a_bare_machine("-n0", BROWSER, ANYWHERE, CI="true")
    assert run.returncode == pytest.ExitCode.TESTS_FAILED
    assert "1 passed, 1 error" in run.stdout
    assert "this test needs chromium: apt-get install chromium" in run.stdout


def test_what_takes_long_is_left_out_and_said() -> None:
    """A worker's long tests do not count as passed, and the summary tells how they are run."""
    some = ["-k", "a_harmless_change_survives or there_are_enough_of_them"]
    run = run_on_a_bare_machine("-n1", *some, ".")
    assert run.returncode == pytest.ExitCode.OK
    assert "1 passed" in run.stdout
    assert "1 test was left out, they take long: python -m pytest --long" in run.stdout


@pytest.mark.parametrize(
    ("asked", "env"),
    [
        pytest.param("tools/test_sabotage.py::test_a_harmless_change_survives", {}, id="by name"),
        pytest.param("tools/test_sabotage.py", {}, id="by file"),
        pytest.param("--long", {}, id="by option"),
        pytest.param("tools", {"CI": "true"}, id="in CI"),
    ],
)
def test_what_takes_long_is_run_when_asked_for(asked: str, env: dict[str, str]) -> None:
    """All of it by an option, a test or a file of them by its name, and everything in CI."""
    look = ["-n0", "--collect-only", "-k", "a_harmless_change"]
    run = run_on_a_bare_machine(*look, asked, **env)
    assert "test_a_harmless_change_survives" in run.stdout
    assert "take long" not in run.stdout


def test_a_group_is_run_by_one_worker() -> None:
    """Tests that share a process are not handed to several workers, each with one of its own."""
    run = run_on_a_bare_machine("-n2", "-v", "line/test_fuzz.py", "-k", "absurd or bug")
    workers = re.findall(r"^\[(gw\d)\] .* PASSED", run.stdout, re.MULTILINE)
    assert run.returncode == pytest.ExitCode.OK
    assert len(workers) > 2
    assert len({*workers}) == 1
