"""Proof that the tests notice: the line is broken on purpose, one place at a time.

    python tests/sabotage.py                       # every sabotage; status 1: one of them survived
    python tests/sabotage.py --only "no TTL"       # one of them
    python tests/sabotage.py --list                # their names
    python tests/sabotage.py --random 90 --seed 1  # breaks the code where nobody chose to

Each sabotage (`tools/sabotages.py`) takes a promise of the line away, in a copy of the tree that is
thrown away afterwards, and names the quickest tests that have to fail then. The same tests first
run on an untouched copy: a test that fails anyway catches nothing. A sabotage whose place is not
found exactly once is an error, so that a change of the code brings its sabotages along.

A list holds only what somebody thought of. So `--random` breaks the code anywhere (comparisons,
conditions, constants, dropped calls, returns), runs the short tests of the line on each, those that
name the broken room first, and shows what survived. Some of that changes nothing that anybody could
notice; the rest is a test that is missing. Its status is 0 when nine of ten are caught. It takes
minutes: `--at-once` bounds its load.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from itertools import chain, zip_longest
from pathlib import Path
from random import Random
from typing import Final, NamedTuple

from tools.breaking import Wound, apply_wound, break_text, find_wounds, show_wound
from tools.sabotages import SABOTAGES, Sabotage

ROOT: Final = Path(__file__).resolve().parent.parent
OWN: Final = (".git", ".venv", ".*_cache", "__pycache__", ".hypothesis", ".calls*", ".coverage*")
LEFT_OUT: Final = (*OWN, "*.md")
SECONDS: Final = 240.0  # for the tests of one sabotage: who hangs is caught, but should not
SECONDS_OF_ALL: Final = 900.0  # for all tests of the line that are of one kind
FAILED: Final = 1  # pytest's status when tests ran and failed; anything above is no verdict
NONE_FOUND: Final = 5  # its status when no test is of the kind that was asked for
LINE: Final = "line"  # where the tests of the line are
WORKING: Final = ("-m", "not waits")
WAITING: Final = ("-m", "waits", "-n4")  # they leave the processor to each other
ENOUGH: Final = 0.9  # share of random changes that have to be caught


class Verdict(NamedTuple):
    """The tests' verdict on a tree: pytest's status, its last lines, and how long it took."""

    status: int
    output: str
    seconds: float

    @property
    def caught(self) -> bool:
        """Tell whether tests ran, and one of them failed."""
        return self.status == FAILED

    @property
    def by(self) -> str:
        """The first test that failed."""
        found = re.search(r"^(?:FAILED|ERROR) tests/(\S+)", self.output, re.MULTILINE)
        return found[1] if found else ""


# ---- a broken copy -----------------------------------------------------------------------------


def commit_sabotage(text: str, sabotage: Sabotage) -> str:
    """The text of a file with one place broken. Raises ValueError if that is not there once."""
    try:
        return break_text(text, sabotage.function, sabotage.old, sabotage.new)
    except ValueError as error:
        raise ValueError(f"{sabotage.name!r} in {sabotage.path}: {error}") from None


def copy_tree(root: Path, copy: Path) -> Path:
    """Copy what the tests need of a tree."""
    shutil.copytree(root, copy, ignore=shutil.ignore_patterns(*LEFT_OUT))
    return copy


@contextmanager
def copied_tree(root: Path) -> Iterator[Path]:
    """A copy of a tree that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="sabotage-") as folder:
        yield copy_tree(root, Path(folder, "tree"))


def judge_sabotage(sabotage: Sabotage, root: Path = ROOT) -> Verdict:
    """The verdict of its own tests on a copy with one sabotage in it."""
    with copied_tree(root) as tree:
        source = tree / sabotage.path
        text = source.read_text(encoding="utf-8")
        source.write_text(commit_sabotage(text, sabotage), encoding="utf-8")
        return run_tests(tree, sabotage.tests.split())


def judge_wound(wound: Wound, root: Path) -> Verdict:
    """The verdict of the line's tests on a copy that is broken somewhere."""
    with copied_tree(root) as tree:
        near = name_nearest(tree, wound.path)
        source = tree / wound.path
        text = source.read_text(encoding="utf-8")
        source.write_text(apply_wound(text, wound), encoding="utf-8")
        return run_line(tree, *([("-k", near, *WORKING)] if near else []), WORKING, WAITING)


def run_line(tree: Path, *kinds: Sequence[str]) -> Verdict:
    """Run the line's tests, one kind after the other, up to the first that is not well."""
    began, verdict = time.monotonic(), Verdict(0, "", 0.0)
    for options in kinds:
        verdict = run_tests(tree, [LINE], *options, seconds=SECONDS_OF_ALL)
        if verdict.status not in (0, NONE_FOUND):
            break
        verdict = verdict._replace(status=0)
    return verdict._replace(seconds=time.monotonic() - began)


def name_nearest(tree: Path, path: str) -> str:
    """The files of tests that name a room, for pytest's -k: they notice first what is broken there.

    None of them is named on the command line, because then all of its long tests would run.
    """
    files = sorted((tree / "tests" / LINE).glob("test_*.py"))
    named = re.compile(rf"(phone_line\.|import (.*\W)?){Path(path).stem}\b")
    near = [file.name for file in files if named.search(file.read_text(encoding="utf-8"))]
    return " or ".join(near)


def run_tests(tree: Path, tests: Iterable[str], *options: str, seconds: float = SECONDS) -> Verdict:
    """Run tests in a tree. Tests that hang count as failed."""
    began = time.monotonic()
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-n0", "-p", "no:cacheprovider"]
    process = subprocess.Popen(
        [*command, *options, *(f"tests/{test}" for test in tests)],
        cwd=tree,
        env=clean_environment() | {"PYTHONDONTWRITEBYTECODE": "1", "SABOTAGED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=seconds)
        return Verdict(process.returncode, output, time.monotonic() - began)
    except subprocess.TimeoutExpired:
        return Verdict(FAILED, "FAILED tests/(it hangs)", time.monotonic() - began)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def clean_environment() -> dict[str, str]:
    """The environment without what steers another pytest."""
    return {
        name: value for name, value in os.environ.items() if not name.startswith(("COV", "PYT"))
    }


# ---- the list ----------------------------------------------------------------------------------


def choose_sabotages(only: Sequence[str]) -> list[Sabotage]:
    """The sabotages with these names; all when none is named. ValueError for an unknown name."""
    unknown = {*only} - {each.name for each in SABOTAGES}
    if unknown:
        raise ValueError(f"no such sabotage: {', '.join(sorted(unknown))}")
    return [each for each in SABOTAGES if not only or each.name in only]


def passes_untouched(sabotages: Sequence[Sabotage], root: Path = ROOT) -> bool:
    """Tell whether all tests pass that are to fail."""
    tests = dict.fromkeys(test for each in sabotages for test in each.tests.split())
    with copied_tree(root) as tree:
        found = run_tests(tree, tests, seconds=SECONDS_OF_ALL)
    return tell_untouched(found)


def tell_untouched(found: Verdict) -> bool:
    """Say how the tests went on an untouched copy; whether they passed."""
    if found.status:
        print(found.output[-3000:], "\nthese tests fail or are missing without a sabotage", sep="")
        return False
    print(f"{'nothing is wrong':52} passes   {found.seconds:5.1f} s", flush=True)
    return True


def tell_sabotage(sabotage: Sabotage, found: Verdict) -> None:
    """One line of the report; what pytest said where the tests noticed nothing."""
    word = "caught  " if found.caught else "SURVIVED"
    print(f"{sabotage.name:52} {word} {found.seconds:5.1f} s  {found.by}", flush=True)
    if not found.caught:
        print(found.output[-1500:], flush=True)


def count_caught(sabotages: Sequence[Sabotage], root: Path, at_once: int) -> int:
    """Commit sabotages on copies of a tree; how many are caught. None, if tests fail anyway."""
    if not passes_untouched(sabotages, root):
        return 0
    caught = 0
    with ThreadPoolExecutor(at_once) as pool:
        founds = pool.map(lambda each: judge_sabotage(each, root), sabotages)
        for each, found in zip(sabotages, founds, strict=True):
            tell_sabotage(each, found)
            caught += found.caught
    return caught


# ---- at random ---------------------------------------------------------------------------------


def choose_wounds(root: Path, count: int, seed: int) -> list[Wound]:
    """Places to break the code at, as many of each kind; the same ones for the same seed."""
    kinds: dict[str, list[Wound]] = defaultdict(list)
    for source in [root / "main.py", *sorted((root / "phone_line").glob("*.py"))]:
        path = str(source.relative_to(root))
        for wound in find_wounds(path, source.read_text(encoding="utf-8")):
            kinds[wound.kind].append(wound)
    dice = Random(seed)
    for wounds in kinds.values():
        dice.shuffle(wounds)
    in_turns = chain.from_iterable(zip_longest(*kinds.values()))
    return [wound for wound in in_turns if wound][:count]


def count_caught_at_random(wounds: Sequence[Wound], root: Path, at_once: int) -> int:
    """Break copies of a tree; how many the tests of the line catch. None, if they fail anyway.

    Whatever keeps the tests from running at all is caught as well: no line like that starts.
    """
    with copied_tree(root) as tree:
        found = run_line(tree, WORKING, WAITING)
    if not tell_untouched(found):
        return 0
    caught = 0
    with ThreadPoolExecutor(at_once) as pool:
        judging = {pool.submit(judge_wound, each, root): each for each in wounds}
        for done in as_completed(judging):  # a change that nobody notices takes the longest
            verdict = done.result()
            tell_wound(root, judging[done], verdict)
            caught += verdict.status != 0
    return caught


def tell_wound(root: Path, wound: Wound, found: Verdict) -> None:
    """One line of the report; what was changed where the tests noticed nothing."""
    place = f"{wound.path}:{wound.line}: {wound.kind}"
    if found.status:
        print(f"{place:52} caught   {found.seconds:5.1f} s  {found.by}", flush=True)
    else:
        print(f"{place:52} SURVIVED {found.seconds:5.1f} s", flush=True)
        print(show_wound(root, wound), "", sep="\n", flush=True)


# ---- the command -------------------------------------------------------------------------------


def main(given: Sequence[str] | None = None) -> int:
    """The command. Exit status: 0 enough are caught, 1 not, 2 usage."""
    parser = argparse.ArgumentParser(
        "sabotage.py", description="Breaks the line on purpose: do the tests notice?"
    )
    parser.add_argument("--only", action="append", default=[], metavar="NAME")
    parser.add_argument("--list", action="store_true", help="the names, and no more")
    parser.add_argument("--random", type=int, default=0, metavar="N", help="N changes anywhere")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="of --random; default: 1")
    parser.add_argument("--at-once", type=int, default=2, metavar="N", help="default: 2")
    wanted = parser.parse_args(given)
    with copied_tree(ROOT) as tree:  # who edits the code meanwhile changes no verdict
        if wanted.random:
            wounds = choose_wounds(tree, wanted.random, wanted.seed)
            caught = count_caught_at_random(wounds, tree, wanted.at_once)
            print(f"{caught} of {len(wounds)} changes at random caught (seed {wanted.seed})")
            return 0 if caught >= ENOUGH * len(wounds) else 1
        try:
            sabotages = choose_sabotages(wanted.only)
            for each in sabotages:
                commit_sabotage((tree / each.path).read_text(encoding="utf-8"), each)
        except ValueError as error:
            parser.error(str(error))
        if wanted.list:
            print(*(each.name for each in sabotages), sep="\n")
            return 0
        caught = count_caught(sabotages, tree, wanted.at_once)
        print(f"{caught} of {len(sabotages)} sabotages caught")
        return 0 if caught == len(sabotages) else 1


if __name__ == "__main__":
    sys.exit(main())
