"""Time, where tests share a machine and a process: the grace for an answer, and a silent start.

    assert took < 4.5 + LATE

A test that runs alone is held to the letter. CI runs alone what is marked `waits`.
"""

import os
import threading
import time
from typing import Final
from weakref import WeakSet

LATE: Final = 1.5 if "PYTEST_XDIST_WORKER" in os.environ else 0.0  # seconds
PATIENCE: Final = 0.5  # seconds; few go on for longer, and those for minutes
WORKER: Final = "(run)"  # how the names of the threads end that `in_background` starts
GIVEN_UP: Final = WeakSet[threading.Thread]()  # they have been waited for, and went on


def await_workers() -> None:
    """Wait for what earlier tests have left at work in the background: it writes into the log.

    Those for which a test has waited in vain keep no other test waiting.
    """
    until = time.monotonic() + PATIENCE
    while working := find_workers() - {*GIVEN_UP}:
        if time.monotonic() > until:
            GIVEN_UP.update(working)
            return
        time.sleep(0.01)


def find_workers() -> set[threading.Thread]:
    """The threads that work for an instance in this process."""
    return {thread for thread in threading.enumerate() if thread.name.endswith(WORKER)}
