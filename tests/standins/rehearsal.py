"""The settings under which the phone in the terminal starts a line: --env, --set, and no others."""

import difflib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from phone_line.settings import read_settings
from standins.instance import SETTINGS

ENTRY: Final = r"""(?:export\s+)?(\w+)\s*=\s*(?:"([^"]*)"|'([^']*)'|(.*?))\s*(?:\s#.*)?"""
LEFT_OUT: Final = ("TWILIO_", "UPSTASH_", "PUBLIC_URL", "STATE_FILE")  # of --env: a real line's own
SOMEBODY: Final = {"FORWARD_TO": "+15550100099"}


def settings_of(env: str | None, pairs: list[str]) -> dict[str, str]:
    """The settings in a file like .env and in NAME=VALUE pairs, which win.

    A ValueError says in plain words what cannot be meant.
    """
    if wrong := [pair for pair in pairs if "=" not in pair]:
        raise ValueError(f"--set wants NAME=VALUE, not {wrong[0]!r}")
    given = dict(pair.split("=", 1) for pair in pairs)
    filed = read_env(env) if env else {}
    for name in filed | given:
        if name not in SETTINGS and not re.fullmatch("RAILWAY_[A-Z0-9_]+", name):
            option = "--set" if name in given else "--env"
            raise ValueError(f"{option}: there is no setting {name!r}; {suggestion(name)}")
    return filed | given


def read_env(name: str) -> dict[str, str]:
    """The settings in a file; a ValueError names the file and what is wrong with it."""
    try:
        return dotenv(Path(name))
    except OSError as error:
        raise ValueError(f"--env: {name} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"--env: {name}: {error}") from error


def dotenv(path: Path) -> dict[str, str]:
    """The settings in a file like .env that a rehearsal takes; empty ones are not set."""
    return {name: value for name, value in entries(path) if not name.startswith(LEFT_OUT)}


def entries(path: Path) -> Iterator[tuple[str, str]]:
    """The names and values in a file like .env, but for empty ones."""
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        if not line.strip() or line.strip().startswith("#"):
            continue
        if not (entry := re.fullmatch(ENTRY, line.strip())):
            raise ValueError(f"line {number} is not NAME=VALUE")
        name, *values = entry.groups()
        if value := "".join(filter(None, values)):
            yield name, value


def faults_left_out(env: str) -> list[str]:
    """What is wrong with those settings in a file that a rehearsal leaves out."""
    problems = read_settings(dict(entries(Path(env)))).problems
    return [problem for problem in problems if problem.startswith(LEFT_OUT)]


def suggestion(name: str) -> str:
    """The setting that may have been meant by a name that is none."""
    close = difflib.get_close_matches(name.upper(), sorted(SETTINGS), 1)
    return f"did you mean {close[0]}?" if close else ".env.example lists them all"


def with_somebody(settings: Mapping[str, str]) -> dict[str, str]:
    """The settings, with somebody to call when nobody is configured."""
    if {"FORWARD_TO", "DEPARTMENTS", "BACKEND_URL"} & settings.keys():
        return dict(settings)
    return SOMEBODY | dict(settings)
