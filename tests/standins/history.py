"""The cells of a call in an embedded file, as they stand there and as people read them."""

import json
import math
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Final

BROUGHT: Final = {  # the fields of a turn that are shown, and how their lines open
    "heard": "caller:",
    "keys": "caller presses",
    "dial": "the transfer ended:",
    "recording": "the message:",
    "said": "line:",
}


def cells_of(state: Path, call_sid: str) -> list[tuple[str, str]]:
    """The cells of a call in the order of its turns: the end of each key, and the value."""
    prefix = f"call:{call_sid}:"
    with closing(sqlite3.connect(state)) as database:
        found = database.execute(
            "SELECT key, value FROM cells WHERE key LIKE ?", (f"{prefix}%",)
        ).fetchall()
    cells = [(key.removeprefix(prefix), value) for key, value in found]
    return sorted(cells, key=lambda cell: (turn_of(cell[0]), cell[0]))


def turn_of(name: str) -> float:
    """The turn that a cell belongs to; what belongs to the whole call comes last."""
    first = name.partition(":")[0]
    return int(first) if first.isdigit() else math.inf


def described(name: str, value: str) -> Iterator[str]:
    """The lines that tell people what a cell says."""
    fields = fields_of(value)
    if name.isdigit() and "step" in fields:
        yield f"turn {name}: {fields.get('asker') or 'a new call'} -> {fields['step']}"
        yield from (f"  {opening} {fields[f]}" for f, opening in BROUGHT.items() if f in fields)
    else:
        facts = ", ".join(f"{field} {content}" for field, content in fields.items())
        yield f"{name}: {facts or value}"


def fields_of(value: str) -> dict[str, Any]:
    """The fields of a cell that holds a JSON object; none of any other."""
    with suppress(ValueError):
        if isinstance(fields := json.loads(value), dict):
            return fields
    return {}
