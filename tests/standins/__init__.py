"""What the line meets outside: Twilio, Upstash, a backend; and instances of the line itself."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 # said before an older one stumbles over an import
    OLD = sys.version.split()[0]
    sys.exit(
        "Python 3.11 or newer is needed, not " + OLD + ": remove .venv, begin with a newer one"
    )
