"""The tests on a machine that lacks a program: said and left out, but never in CI."""

import os
import subprocess
import sys
from typing import Final

import pytest

from standins.instance import ROOT

HERE: Final = ROOT / "tests"
BROWSER: Final = "line/test_page.py::test_a_browser_applies_the_style"
ANYWHERE: Final = "line/test_page.py::test_without_a_password_set_there_is_no_page"


def run_on_a_bare_machine(tests: tuple[str, ...], **env: str) -> subprocess.CompletedProcess[str]:
    """Run some tests where nothing but Python is installed."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *tests]
    foreign = {name: value for name, value in os.environ.items() if name != "CI"}
    bare = {"PATH": os.devnull, "PYTEST_ADDOPTS": ""}
    return subprocess.run(
        command, cwd=HERE, env=foreign | bare | env, capture_output=True, text=True, check=False
    )


def test_what_a_machine_lacks_is_left_out_and_said() -> None:
    """A test whose program is missing does not count as passed, and the summary tells the way."""
    run = run_on_a_bare_machine((BROWSER, ANYWHERE))
    assert run.returncode == pytest.ExitCode.OK
    assert "1 passed, 1 deselected" in run.stdout
    assert "1 test was left out, chromium is not installed: apt-get install chromium" in run.stdout


def test_in_ci_nothing_may_be_missing() -> None:
    """Where CI is set the same test fails, and says what to install."""
    run = run_on_a_bare_machine((BROWSER, ANYWHERE), CI="true")
    assert run.returncode == pytest.ExitCode.TESTS_FAILED
    assert "1 passed, 1 error" in run.stdout
    assert "this test needs chromium: apt-get install chromium" in run.stdout
