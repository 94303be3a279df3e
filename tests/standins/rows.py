"""Rows of a test that take long: a short run tries one or two of them, the long run all.

@pytest.mark.parametrize("name", mostly_long({name: name for name in LINES}, "menu"))
"""

from collections.abc import Mapping
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
