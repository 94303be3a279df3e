"""Words that were changed are taken over into the transcripts, and nothing else is."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

import bless
from sabotage import copy_tree
from standins.instance import ROOT
from standins.sentences import LANGUAGES, change_every_sentence, say

CALL: Final = f"""\
# Nobody answers, and the caller leaves a message.
set FORWARD_TO=+15550100099

rings
line: Old words.
line: {say("ask_reason")}
caller: Ann, my bill
line: Thank ...
# here she waits
line dials +15550100099
callee does not answer
line: Older words.
line records
caller leaves a message (7 s)
line hangs up
"""


# The tests that hear or read what the line says.
QUOTING: Final = ("line", "tools/test_readme.py", "tools/test_call.py", "tools/test_phone.py")


@pytest.fixture
def call(tmp_path: Path) -> Path:
    """A transcript whose words are no longer those of the line."""
    path = tmp_path / "unanswered.call"
    path.write_text(CALL, encoding="utf-8")
    return path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of this tree, where words may be changed."""
    tree = copy_tree(ROOT, tmp_path / "tree")
    for page in ("README.md", "tests/README.md"):  # which the copy leaves out
        shutil.copy(ROOT / page, tree / page)
    return tree


def run(tree: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a tree, as its owner would: not in CI, and no worker of this run."""
    ours = ("COV", "PYT", "CI", "LONG")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return subprocess.run(
        [sys.executable, *command],
        cwd=tree,
        env=kept | {"PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def outcome_of(tree: Path, tests: Sequence[str], *options: str) -> subprocess.CompletedProcess[str]:
    """Run tests in a tree, one after the other unless the options say otherwise."""
    quiet = ("-m", "pytest", "-n0", "-x", "-q", "-p", "no:cacheprovider")
    return run(tree, *quiet, *options, *(f"tests/{test}" for test in tests))


def test_the_words_are_new_and_the_rest_stays(call: Path) -> None:
    """Callers, comments, settings, and words that still fit stay where they stand."""
    assert bless.main([str(call)]) == 0
    assert (
        call.read_text(encoding="utf-8")
        == f"""\
# Nobody answers, and the caller leaves a message.
set FORWARD_TO=+15550100099

rings
line: {say("greeting")}
line: {say("ask_reason")}
caller: Ann, my bill
line: Thank ...
line dials +15550100099
# here she waits
callee does not answer
line: {say("no-answer")}
line: {say("leave_message")}
line records
caller leaves a message (7 s)
line: {say("message_taken")}
line hangs up
"""
    )


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        ("set FORWARD_TO=+15550100099", "set FORWARD_TO=+15550100098", "'line dials +15550100099'"),
        ("does not answer", "answers", "'caller leaves a message (7 s)' is not possible any more"),
        ("my bill\n", "my bill\ncaller presses 1\n", "'caller presses 1' is not possible any more"),
        ("line hangs up", "line rejects", "was 'line rejects' and is 'line hangs up'"),
    ],
)
def test_a_call_that_goes_another_way_is_refused(
    call: Path, capsys: pytest.CaptureFixture[str], before: str, after: str, why: str
) -> None:
    """Who is dialled, what is recorded and how it ends are no words: nothing is written."""
    other = CALL.replace(before, after)
    call.write_text(other, encoding="utf-8")
    assert bless.main([str(call)]) == 1
    assert call.read_text(encoding="utf-8") == other
    told = capsys.readouterr().out
    assert told.startswith("refused: unanswered.call: ")
    assert why in told
    assert told.endswith("nothing was written\n")


def test_a_call_may_go_another_way_when_that_is_meant(call: Path) -> None:
    """With the option the new end is taken over as well."""
    other = CALL.replace("set FORWARD_TO=+15550100099", "set FORWARD_TO=+15550100098")
    call.write_text(other, encoding="utf-8")
    assert bless.main([str(call), "--even-if-it-ends-differently"]) == 0
    assert "line dials +15550100098\n" in call.read_text(encoding="utf-8")


def test_a_call_that_needs_a_backend_is_refused(
    call: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody plays the backend: it says so in a sentence."""
    call.write_text("# It asks.\nset BACKEND_URL=http://127.0.0.1:1\nrings\n", encoding="utf-8")
    assert bless.main([str(call)]) == 1
    assert "a call that needs a backend is a test" in capsys.readouterr().out


def test_a_call_that_cannot_be_read_is_refused(
    call: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A misspelt name or a folder is told in a line, and nothing is written."""
    before = call.read_text(encoding="utf-8")
    assert bless.main([str(call), str(call.parent / "nope.call"), str(call.parent)]) == 1
    told = capsys.readouterr().out
    assert "refused: nope.call: No such file or directory" in told
    assert "Is a directory" in told
    assert call.read_text(encoding="utf-8") == before


@pytest.mark.long
def test_calls_that_fit_are_not_touched(capsys: pytest.CaptureFixture[str]) -> None:
    """As the tree stands, no transcript is in need of a blessing."""
    assert bless.main([]) == 0
    assert capsys.readouterr().out.startswith("0 of ")


@pytest.mark.long
@pytest.mark.waits  # it runs a large part of the tests itself, side by side
@pytest.mark.timeout(1200)
def test_whoever_changes_every_sentence_breaks_no_test(tree: Path) -> None:
    """Other words in every language: transcripts differ, are blessed, and everything is green."""
    assert change_every_sentence(tree) > 40 * len(LANGUAGES)
    call = "line/test_calls.py::test_call_on_one_instance[german]"
    assert outcome_of(tree, [call]).returncode == pytest.ExitCode.TESTS_FAILED
    blessed = run(tree, "tests/bless.py")
    assert "changed: german.call\n" in blessed.stdout
    assert "changed: README.md\n" in blessed.stdout
    done = outcome_of(tree, QUOTING, "-n4")
    assert done.returncode == 0, done.stdout[-3000:]
