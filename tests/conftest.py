"""The stand-in for Upstash that test files share, and the tests that a machine cannot run.

A test marked `needs("chromium")` is left out where that program is missing: it is deselected, it
does not count as passed, and the summary says how to have it. Where `CI` is set nothing is left
out: there a missing program is an error.
"""

import os
import shutil
from collections.abc import Iterator
from typing import Final, NamedTuple

import pytest

from standins.upstash import Upstash


class Program(NamedTuple):
    """The names under which a program may be installed, and Debian's package of it."""

    names: tuple[str, ...]
    package: str


PROGRAMS: Final = {
    "bash": Program(("bash",), "bash"),
    "chromium": Program(
        ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"), "chromium"
    ),
    "curl": Program(("curl",), "curl"),
    "ps": Program(("ps",), "procps"),
    "redis-server": Program(("redis-server",), "redis-server"),
}
LEFT_OUT: Final = pytest.StashKey[dict[str, int]]()  # missing program: how many tests want it
IN_CI: Final = bool(os.environ.get("CI"))


def find_program(name: str) -> str | None:
    """Path of an installed program; None where it is missing."""
    found = map(shutil.which, PROGRAMS[name].names)
    return next(filter(None, found), None)


def missing_program(item: pytest.Item) -> str | None:
    """Name of the first program that a test needs and that is not installed."""
    needed = [name for mark in item.iter_markers("needs") for name in mark.args]
    missing = [name for name in needed if not find_program(name)]
    return next(iter(missing), None)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests whose program is missing, unless this is CI."""
    left_out = config.stash.setdefault(LEFT_OUT, {})
    if IN_CI:
        return
    for item in tuple(items):
        if name := missing_program(item):
            left_out[name] = left_out.get(name, 0) + 1
            items.remove(item)
            config.hook.pytest_deselected(items=[item])


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Fail a test in CI whose program is missing."""
    if name := missing_program(item):
        pytest.fail(f"this test needs {name}: apt-get install {PROGRAMS[name].package}")


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Say what was left out, and how to have it."""
    for name, tests in config.stash.get(LEFT_OUT, {}).items():
        count = "1 test was" if tests == 1 else f"{tests} tests were"
        package = PROGRAMS[name].package
        terminalreporter.write_line(
            f"{count} left out, {name} is not installed: apt-get install {package}"
        )
    if not find_program("redis-server"):
        terminalreporter.write_line("fakeredis stood in for redis-server")


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of the browser; only tests that need it ask for it."""
    program = find_program("chromium")
    assert program
    return program


@pytest.fixture(scope="module")
def redis() -> Iterator[Upstash]:
    """The stand-in, started once for all tests of a file."""
    with Upstash() as running:
        yield running


@pytest.fixture
def upstash(redis: Upstash) -> Iterator[Upstash]:
    """The stand-in, empty and in good health; healthy again afterwards."""
    redis.flush()
    redis.forget()
    yield redis
    redis.fault, redis.before, redis.after = None, None, None
    redis.release()
