"""Rows of a test that take long: a short run tries one or two of them, the long run all.

@pytest.mark.parametrize("name", mostly_long({name: name for name in LINES}, "menu"))
"""

from collections.abc import Iterable, Mapping
from shutil import which
from typing import Any

import pytest


def mostly_long(rows: Mapping[str, object], *quick: str) -> list[Any]:
    """Rows by their ids, for `parametrize`: all are `long`, but for the `quick` ones.

    A row is a value, or a tuple with one value for each parameter.
    """
    assert {*quick} <= {*rows}, "a quick row is one of the rows"
    found = []
    for name, row in rows.items():
        values = row if isinstance(row, tuple) else (row,)
        marks = () if name in quick else pytest.mark.long
        found.append(pytest.param(*values, id=name, marks=marks))
    return found


def first_quick(rows: Iterable[object]) -> list[Any]:
    """The same rows, for `parametrize`, of which the first is quick and all others are `long`."""
    found = []
    for nth, row in enumerate(rows):
        values = row if isinstance(row, tuple) else (row,)
        found.append(pytest.param(*values, marks=pytest.mark.long if nth else ()))
    return found


def long_beside(program: str) -> pytest.MarkDecorator | tuple[()]:
    """The mark of rows that stand in for a program: they are `long` where it is installed."""
    return pytest.mark.long if which(program) else ()
