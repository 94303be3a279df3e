"""The sabotages themselves: each still fits main.py, and the run can tell caught from survived.

All of them take a minute or two: `python tests/sabotage.py`. Here only some are run.
"""

import ast
from pathlib import Path
from typing import Final

import pytest

import sabotage
from sabotage import ROOT, SABOTAGES, Sabotage

SOURCE: Final = (ROOT / "main.py").read_text(encoding="utf-8")
BY_NAME: Final = {each.name: each for each in SABOTAGES}
SOME: Final = (
    "settle overwrites",
    "the loser of a race says its own words",
    "no TTL",
    "the signature is not looked at",
    "other accounts are served",
    "the log names callers",
    "a backend names any number",
    "an apology that hangs up silently",
    "what was said is not settled first",
    "the claim is ignored",
)
GREETING: Final = "line/test_paths.py::test_a_call_may_begin_at_any_of_the_usual_paths"


def functions(path: str) -> set[str]:
    """The names of the functions in a module of the tests."""
    tree = ast.parse((ROOT / "tests" / path).read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_there_are_enough_of_them() -> None:
    """At least 25 promises are taken away, each under a name of its own."""
    assert len(BY_NAME) == len(SABOTAGES) >= 25


@pytest.mark.parametrize("each", SABOTAGES, ids=lambda each: str(each.name))
def test_a_sabotage_fits_the_code(each: Sabotage) -> None:
    """Its text stands once in main.py, what becomes of that is Python, and its tests exist."""
    broken = sabotage.sabotaged(SOURCE, each)
    assert ast.dump(ast.parse(broken)) != ast.dump(ast.parse(SOURCE))
    for test in each.tests.split():
        path, _, name = test.partition("::")
        assert not name or name.partition("[")[0] in functions(path)


def test_a_sabotage_of_a_line_that_is_gone_is_an_error() -> None:
    """Who changes main.py is told which sabotage has lost its line, instead of running nothing."""
    with pytest.raises(ValueError, match="'lost': its text stands in main"):
        sabotage.sabotaged(SOURCE, Sabotage("lost", "no such line", "", GREETING))


@pytest.mark.long
def test_a_harmless_change_survives() -> None:
    """Tests that notice nothing catch nothing, and neither do tests that are not there."""
    harmless = Sabotage("harmless", "import os\n", "import os  # indeed\n", GREETING)
    assert not sabotage.verdict(harmless, [GREETING]).caught
    assert not sabotage.verdict(harmless, ["line/test_webhooks.py::test_that_nobody_wrote"]).caught


@pytest.mark.long
def test_some_sabotages_are_caught(tmp_path: Path) -> None:
    """The tests pass on an untouched copy, and fail on a copy with any of these lines broken."""
    chosen = [BY_NAME[name] for name in SOME]
    tree = sabotage.copied(ROOT, tmp_path / "tree")
    assert sabotage.committed(chosen, tree, at_once=2) == len(chosen)


def test_the_command_says_who_survived(capsys: pytest.CaptureFixture[str]) -> None:
    """One line for each sabotage with the test that caught it; an unknown name is wrong usage."""
    assert sabotage.main(["--only", "the log has words"]) == 0
    assert "test_a_log_names_no_caller_and_no_words" in capsys.readouterr().out
    assert sabotage.main(["--list"]) == 0
    assert capsys.readouterr().out.splitlines() == [*BY_NAME]
    with pytest.raises(SystemExit):
        sabotage.main(["--only", "nonsense"])
