"""The house: rooms that only look down, none too large, and a function on a few screens."""

import ast
import re
from functools import cache
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[2]
ROOMS: Final = {
    path.stem: path
    for path in sorted((ROOT / "phone_line").glob("*.py"))
    if path.stem != "__init__"
}
FUNCTION: Final = {"main": ROOT / "main.py"}
MOST_LINES: Final = 300
MOST_METHODS: Final = 12
HEADLESS: Final = ("What", "Whether", "How", "Who")  # how no docstring begins


@cache
def nodes_of(name: str) -> list[ast.AST]:
    """A room, or the function, as a flat list of what it is made of."""
    path = (ROOMS | FUNCTION)[name]
    return list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


@cache
def rooms_below(name: str) -> set[str]:
    """The rooms that a room, or the function, imports when it is loaded, or later."""
    found = set()
    for node in nodes_of(name):
        if isinstance(node, ast.ImportFrom) and node.module == "phone_line":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("phone_line."):
            found.add(str(node.module).split(".")[1])
    return found


def floors() -> list[set[str]]:
    """The rooms floor by floor, from the ground: each only knows those below. Stops at a circle."""
    found: list[set[str]] = []
    below: set[str] = set()
    while floor := {name for name in ROOMS.keys() - below if rooms_below(name) <= below}:
        found.append(floor)
        below |= floor
    return found


def test_a_room_knows_only_rooms_below_it() -> None:
    """There is no circle, and no room imports the function above it."""
    assert set().union(*floors()) == ROOMS.keys()
    for name in ROOMS:
        assert "main" not in [n.module for n in nodes_of(name) if isinstance(n, ast.ImportFrom)]


@pytest.mark.parametrize("name", ROOMS)
def test_a_room_is_not_too_large(name: str) -> None:
    """Three hundred lines, and twelve methods a class: more is two rooms."""
    lines = ROOMS[name].read_text(encoding="utf-8").count("\n")
    classes = [node for node in nodes_of(name) if isinstance(node, ast.ClassDef)]
    methods = [sum(isinstance(part, ast.FunctionDef) for part in each.body) for each in classes]
    assert lines <= MOST_LINES
    assert max(methods, default=0) <= MOST_METHODS


def test_the_function_fits_on_a_few_screens() -> None:
    """`main.py` is the paths, the way of a webhook, and the start; the rest has rooms."""
    assert FUNCTION["main"].read_text(encoding="utf-8").count("\n") <= MOST_LINES


@pytest.mark.parametrize("name", ROOMS)
def test_a_docstring_says_the_effect(name: str) -> None:
    """Every room opens with what it is for, and no docstring begins with What, How or Who."""
    kinds = (ast.FunctionDef, ast.ClassDef, ast.Module)
    docstrings = [ast.get_docstring(node) for node in nodes_of(name) if isinstance(node, kinds)]
    assert docstrings[0]  # of the room
    words = [(text or "").split(" ")[0] for text in docstrings]
    assert not {*words} & {*HEADLESS}


# The picture in the README.


def rooms_known(names: set[str]) -> set[str]:
    """The rooms that some rooms, or the function, know directly or through others."""
    known = set[str]()
    while more := set().union(*map(rooms_below, names)) - known:
        known |= more
        names = more
    return known


def test_the_picture_of_the_house_is_true() -> None:
    """Each arrow in the README leads to a room that is known where it begins, and none back."""
    picture = (
        (ROOT / "README.md").read_text("utf-8").partition("flowchart TD")[2].partition("```")[0]
    )
    signs = dict(re.findall(r'(\w+)\["([^:"]+)', picture))
    rooms = {name: {*re.findall(r"\w+", sign)} & {*ROOMS, "main"} for name, sign in signs.items()}
    arrows = re.findall(r"(\w+) --> (\w+)", re.sub(r'\["[^"]*"\]', "", picture))
    assert len(arrows) == picture.count("-->") > 10
    assert [to for each in arrows for to in each if not rooms[to]] == []
    for above, below in arrows:
        assert rooms[below] & rooms_known(rooms[above]), f"{above} --> {below}"
        assert not rooms[above] & rooms_known(rooms[below]), f"{below} knows {above}"
