"""The grace for an answer while several tests share two cores.

    assert took < 4.5 + LATE

A test that runs alone is held to the letter. CI runs alone what is marked `waits`.
"""

import os
from typing import Final

LATE: Final = 1.5 if "PYTEST_XDIST_WORKER" in os.environ else 0.0  # seconds
