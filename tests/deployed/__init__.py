"""The parts of live.py: its looks at a deployed line, and its changes.

The commands of tests/ are run from anywhere, and the line's own package stands beside tests/.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))
