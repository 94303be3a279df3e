"""Stand-ins for the line's outside: Twilio, Upstash, a backend; and instances of the line."""

import sys
from pathlib import Path

if sys.version_info < (3, 11):  # noqa: UP036 # said before an older one stumbles over an import
    OLD = sys.version.split()[0]
    sys.exit(
        "Python 3.11 or newer is needed, not " + OLD + ": remove .venv, begin with a newer one"
    )

ROOT = str(Path(__file__).resolve().parents[2])
if ROOT not in sys.path:  # a command in tests/ finds its own folder there, and main.py is above it
    sys.path.append(ROOT)
