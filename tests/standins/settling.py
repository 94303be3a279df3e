"""One of several processes that settle the same cells; it loads nothing of the tests' own."""

import time

from phone_line.cells import Cells
from phone_line.sqlite import SQLite


def settle_all(path: str, prefix: str, who: str, many: int) -> list[str]:
    """Settle many cells of a file; the values that stand in them."""
    store = SQLite(path)
    return [Cells(store, time.monotonic() + 5).settle(f"{prefix}:{n}", who) for n in range(many)]
