"""Time, where tests share a machine and a process: the grace for an answer, and a silent start.

    assert took < 4.5 + LATE

A test that runs alone is held to the letter. CI runs alone what is marked `waits`.
"""

import os
import threading
import time
from typing import Final

LATE: Final = 1.5 if "PYTEST_XDIST_WORKER" in os.environ else 0.0  # seconds
PATIENCE: Final = 0.5  # seconds; few go on for longer, and those for minutes
WORKER: Final = "(run)"  # how the names of the threads end that `in_background` starts


def await_workers() -> None:
    """Wait for what earlier tests have left at work in the background: it writes into the log."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        if not any(thread.name.endswith(WORKER) for thread in threading.enumerate()):
            return
        time.sleep(0.01)
