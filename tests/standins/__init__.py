"""What the line meets outside: Twilio, Upstash, a backend; and instances of the line itself."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 # said before an older one stumbles over an import
    sys.exit("Python 3.11 or newer is needed; this is " + sys.version.split()[0])
