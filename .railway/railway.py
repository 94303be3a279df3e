"""The service at Railway, as `railway config apply` makes it and keeps it.

Railway's CLI evaluates this file with the first `python3` of the PATH, which needs railway-sdk
(tests/requirements.txt), and compares it with what Railway has; a deploy does not read it.

Why not .railway/railway.ts: whoever runs this line has Python, and Node for the CLI alone. The
TypeScript SDK has to be installed beside a package.json, which Nixpacks, looking for Node before
Python, could take for the application. And a test evaluates this file with the real SDK, in the
language of all other tests.

- What is not named here is deleted by an apply. So every variable of .env.example is named, and
  `preserve()` leaves its value at Railway, as it does not set one that is missing there.
- PARTIAL keeps an apply from every other service of the project. Never rename it after an apply.
- A misspelt key is dropped without a word (it is healthcheckTimeout, not healthCheckTimeout), and a
  default of Railway's would show as a change in every plan: nothing stands here but what differs.
- Domains are not declared: the CLI makes them, and an apply leaves alone what is not named there.
- Where the CLI compares, one replica in one region counts as a default. So the region decides where
  a new service runs; one that exists is moved by `railway scale us-east=1`.

Two variables are understood, where they are exported: SERVICE, if the service is not called
"phone", and PROJECT, which stops an apply in any project of another name.
"""

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

try:
    import railway_sdk as sdk  # type: ignore[import-untyped] # it has no types
except ImportError:
    sys.exit(
        "railway-sdk is not installed for this python3: run "
        '`.venv/bin/pip install -r tests/requirements.txt`, then `PATH="$PWD/.venv/bin:$PATH"`.'
    )

PARTIAL = "phone-line"
EXAMPLE = Path(__file__).parents[1] / ".env.example"


@sdk.define_railway  # type: ignore[untyped-decorator] # as above
def main(linked: Mapping[str, str] | None = None) -> Any:  # noqa: ANN401 # the SDK has no types
    """The project as data. `linked` is what the CLI tells of the project at hand."""
    name = check_project(linked or {})
    line = sdk.service(
        os.environ.get("SERVICE", "phone"),
        build={"builder": "NIXPACKS"},
        start="exec python -m main",
        healthcheck="/healthz",
        healthcheckTimeout=60,
        replicas={"us-east4-eqdc4a": 1},  # next to Twilio's edge, and to Upstash's us-east-1
        deploy={"sleepApplication": True, "overlapSeconds": 5, "drainingSeconds": 20},
        env={"PORT": "8080"} | dict.fromkeys(read_names(), sdk.preserve()),
    )
    return sdk.project(name, resources=[line])


def check_project(linked: Mapping[str, str]) -> str:
    """The name of the project at hand. Exits if it is not the one that PROJECT names."""
    name = linked.get("projectName") or ""
    wanted = os.environ.get("PROJECT", "")
    if wanted and name and wanted != name:
        sys.exit(f"This folder is linked to the project {name!r}, not {wanted!r}: `railway link`.")
    return name or wanted or "phone"


def read_names() -> list[str]:
    """The variables of .env.example, those that are commented out as well."""
    return re.findall("^#?([A-Z][A-Z0-9_]*)=", EXAMPLE.read_text(encoding="utf-8"), re.MULTILINE)
