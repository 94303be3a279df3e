"""Settings of hypothesis under which every run draws the same examples."""

import os
from typing import Final

from hypothesis import HealthCheck, Phase, settings

# Where the line is broken on purpose, a failure is all that is wanted, and not the smallest one.
PHASES: Final = [each for each in Phase if each != Phase.shrink or "SABOTAGED" not in os.environ]

STEADY: Final = settings(
    derandomize=True,
    phases=PHASES,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
