"""The sabotages themselves: each still fits the code, and the run can tell caught from survived.

All of them take some minutes: `python tests/sabotage.py`. Here only some are run.
"""

import ast
from functools import cache
from pathlib import Path
from typing import Final

import pytest

import sabotage
from sabotage import ROOT, Verdict
from tools.breaking import apply_wound, break_text, find_wounds, show_wound
from tools.sabotages import SABOTAGES, Sabotage

BY_NAME: Final = {each.name: each for each in SABOTAGES}
SOME: Final = (
    "settle overwrites",
    "the signature is not looked at",
    "the log names callers",
    "a backend names any number",
    "an apology that hangs up silently",
    "the claim is ignored",
)
GREETING: Final = "line/test_paths.py::test_a_call_may_begin_at_any_of_the_usual_paths"
HARMLESS: Final = Sabotage("harmless", "main.py", "", "import os", "import os  # indeed", GREETING)
CODE: Final = '''\
LIMIT = 3


class Door:
    def open(self, key):
        """Open."""
        if key == 3:
            return self.move(
                key,  # a word of the one who wrote it
                width=2,
            )
        self.knock()


def open(key: "int") -> bool:
    return self.move(key, width=2)
'''


@cache
def functions(path: str) -> set[str]:
    """The names of the functions in a module of the tests."""
    tree = ast.parse((ROOT / "tests" / path).read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@cache
def whole(path: str) -> str:
    """The syntax of a file that nobody has broken."""
    return ast.dump(ast.parse((ROOT / path).read_text(encoding="utf-8")))


def test_there_are_enough_of_them() -> None:
    """At least a hundred promises are taken away, each under a name of its own."""
    assert len(BY_NAME) == len(SABOTAGES) >= 100


@pytest.mark.long
@pytest.mark.parametrize("each", SABOTAGES, ids=lambda each: str(each.name))
def test_a_sabotage_fits_the_code(each: Sabotage) -> None:
    """Its place is found once, what becomes of it is Python, and its tests exist."""
    source = (ROOT / each.path).read_text(encoding="utf-8")
    broken = sabotage.commit_sabotage(source, each)
    assert ast.dump(ast.parse(broken)) != whole(each.path)
    for test in each.tests.split():
        path, _, name = test.partition("::")
        assert not name or name.partition("[")[0] in functions(path)


@pytest.mark.parametrize(
    "old",
    ["self.move(key, width=2)", "self . move( key,\n width = 2 )", "self.move(key, width=2,)"],
)
def test_a_place_is_found_however_it_is_laid_out(old: str) -> None:
    """Blanks, line breaks, comments and the last comma of a formatter make no difference."""
    broken = break_text(CODE, "Door.open", old, "None")
    assert "            return None\n        self.knock()" in broken
    assert broken.count("move") == 1


def test_a_place_is_looked_for_in_its_function_alone() -> None:
    """The same words elsewhere are another place, and those of no function are ambiguous."""
    assert "-> bool:\n    return None\n" in break_text(
        CODE.replace("def open(key:", "def shut(key:"), "shut", "self.move(key, width=2)", "None"
    )
    with pytest.raises(ValueError, match="stands in the file 2 times, not once"):
        break_text(CODE, "", "self.move(key, width=2)", "None")


def test_a_part_of_a_word_is_no_place() -> None:
    """A pattern begins and ends where words do."""
    with pytest.raises(ValueError, match="0 times"):
        break_text(CODE, "", "IMIT = 3", "IMIT = 4")


def test_several_lines_take_the_place_of_one() -> None:
    """What is put in stands as deep as what stood there."""
    broken = break_text(CODE, "Door.open", "self.knock()", "if key:\n    self.knock()")
    assert "        if key:\n            self.knock()\n" in broken


@pytest.mark.parametrize(
    ("path", "function"), [("main.py", ""), ("main.py", "refuse"), ("main.py", "nowhere")]
)
def test_a_sabotage_of_a_place_that_is_gone_is_an_error(path: str, function: str) -> None:
    """Who changes the code is told which sabotage has lost its place, instead of running none."""
    lost = Sabotage("lost", path, function, "no such words", "", GREETING)
    source = (ROOT / path).read_text(encoding="utf-8")
    with pytest.raises(ValueError, match=r"^'lost' in main\.py: "):
        sabotage.commit_sabotage(source, lost)


def test_code_is_broken_in_every_way_where_nobody_chose_to() -> None:
    """Comparisons, conditions, constants, calls and returns; no annotation and no docstring."""
    wounds = find_wounds("code.py", CODE)
    broken = {(wound.kind, wound.line): apply_wound(CODE, wound) for wound in wounds}
    assert "LIMIT = 4" in broken["constant changed", 1]
    assert "if (key != 3):" in broken["comparison flipped", 7]
    assert "if (not (key == 3)):" in broken["condition negated", 7]
    assert "return None\n        self.knock()" in broken["return changed", 8]
    assert "        pass\n" in broken["call dropped", 12]
    assert not any('"Open.x"' in text or '"intx"' in text for text in broken.values())
    assert len({*broken.values()}) == len(broken)


@pytest.mark.long
def test_the_same_seed_breaks_the_same_places() -> None:
    """A survivor can be looked at again; all kinds of changes have their turn."""
    first, again, other = (sabotage.choose_wounds(ROOT, 20, seed) for seed in (1, 1, 2))
    assert first == again != other
    assert len({wound.kind for wound in first}) == 5


@pytest.mark.long
def test_every_change_at_random_changes_the_program() -> None:
    """Wherever the code is broken it is still Python, and not the same."""
    whole = ast.dump(ast.parse(_main()))
    for wound in find_wounds("main.py", _main()):
        assert ast.dump(ast.parse(apply_wound(_main(), wound))) != whole


def test_what_survived_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """The report names file and line, and shows what was there and what stood in its place."""
    wounds = find_wounds("main.py", _main())
    wound = next(each for each in wounds if each.kind == "constant changed")
    sabotage.tell_wound(ROOT, wound, Verdict(0, "", 1.0))
    shown = capsys.readouterr().out
    assert f"main.py:{wound.line}: constant changed" in shown
    assert "SURVIVED" in shown
    assert show_wound(ROOT, wound) in shown
    assert f"\n-{_line(wound.line)}" in shown


def _main() -> str:
    return (ROOT / "main.py").read_text(encoding="utf-8")


def _line(number: int) -> str:
    return _main().splitlines()[number - 1]


def test_the_nearest_tests_come_first() -> None:
    """A change at random is caught as soon as can be: by the files that name the broken room."""
    near = sabotage.name_nearest(ROOT, "phone_line/hours.py").split(" or ")
    assert "test_opening_hours.py" in near
    assert "test_signatures.py" not in near
    assert sabotage.name_nearest(ROOT, "phone_line/nowhere.py") == ""


@pytest.mark.long
@pytest.mark.waits
def test_a_kind_of_which_there_is_no_test_catches_nothing(tmp_path: Path) -> None:
    """No test to run is no verdict: the next kind decides; and one that fails is the last."""
    tree = sabotage.copy_tree(ROOT, tmp_path / "tree")
    nothing, quick = ("-k", "test_nowhere.py"), ("-k", "test_text.py")
    assert sabotage.run_line(tree, nothing, quick).status == 0
    text = tree / "phone_line/text.py"
    line = 'return re.sub("[-_]", " ", name)'
    broken = break_text(text.read_text("utf-8"), "speak_name", line, "return name")
    text.write_text(broken, encoding="utf-8")
    assert sabotage.run_line(tree, nothing, quick, nothing).status == sabotage.FAILED


@pytest.mark.long
@pytest.mark.waits
def test_a_harmless_change_survives() -> None:
    """Tests that notice nothing catch nothing, and neither do tests that are not there."""
    assert not sabotage.judge_sabotage(HARMLESS).caught
    nowhere = HARMLESS._replace(tests="line/test_paths.py::test_that_nobody_wrote")
    assert not sabotage.judge_sabotage(nowhere).caught


@pytest.mark.long
@pytest.mark.waits
def test_some_sabotages_are_caught(tmp_path: Path) -> None:
    """The tests pass on an untouched copy, and fail on a copy with any of these places broken."""
    chosen = [BY_NAME[name] for name in SOME]
    tree = sabotage.copy_tree(ROOT, tmp_path / "tree")
    assert sabotage.count_caught(chosen, tree, at_once=2) == len(chosen)


@pytest.mark.long
def test_the_command_says_who_survived(capsys: pytest.CaptureFixture[str]) -> None:
    """One line for each sabotage with the test that caught it; an unknown name is wrong usage."""
    assert sabotage.main(["--only", "the log has words"]) == 0
    assert "test_a_log_names_no_caller_and_no_words" in capsys.readouterr().out
    assert sabotage.main(["--list"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert [line for line in shown if not line.startswith("{")] == [*BY_NAME]  # and no log
    with pytest.raises(SystemExit):
        sabotage.main(["--only", "nonsense"])
