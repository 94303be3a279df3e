"""Settings of hypothesis under which every run draws the same examples.

    @settings(STEADY, max_examples=as_many(200))

A short run tries fewer of them than the long one, which CI makes: see `--long` in conftest.py.
"""

import os
from math import ceil
from typing import Final

from hypothesis import HealthCheck, Phase, settings

SHORT: Final = 0.125  # of the examples

# Where the line is broken on purpose, a failure is all that is wanted, and not the smallest one.
PHASES: Final = [each for each in Phase if each != Phase.shrink or "SABOTAGED" not in os.environ]
STEADY: Final = settings(
    derandomize=True,
    phases=PHASES,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def as_many(examples: int) -> int:
    """The number of examples to try: so many in a long run, a part of them in a short one."""
    return examples if "LONG" in os.environ else ceil(examples * SHORT)
