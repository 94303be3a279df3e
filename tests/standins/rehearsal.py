"""The settings under which the phone in the terminal starts a line: --env, --set, and no others."""

import difflib
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from phone_line.settings import read_settings
from standins.instance import SETTINGS

ENTRY: Final = r"(?:export\s+)?(\w+)\s*=\s*(.*)"
LEFT_OUT: Final = ("TWILIO_", "UPSTASH_", "PUBLIC_URL", "STATE_FILE")  # of --env: a real line's own
SOMEBODY: Final = {"FORWARD_TO": "+15550100099"}


Settings = dict[str, str]


def settings_of(env: str | None, pairs: list[str]) -> tuple[Settings, Settings]:
    """The settings in a file like .env and in NAME=VALUE pairs, which win; and those left out.

    A ValueError says in plain words what cannot be meant.
    """
    if wrong := [pair for pair in pairs if "=" not in pair]:
        raise ValueError(f"--set wants NAME=VALUE, not {wrong[0]!r}")
    given = dict(pair.split("=", 1) for pair in pairs)
    filed = {name: value for name, value in read_env(env).items() if name not in given}
    left_out = {name: value for name, value in filed.items() if name.startswith(LEFT_OUT)}
    taken = {name: value for name, value in filed.items() if name not in left_out} | given
    for name in taken:
        if name not in SETTINGS and not re.fullmatch("RAILWAY_[A-Z0-9_]+", name):
            option = "--set" if name in given else "--env"
            raise ValueError(f"{option}: there is no setting {name!r}; {suggestion(name)}")
    return taken, left_out


def read_env(name: str | None) -> Settings:
    """The settings in a file, if there is one; a ValueError says what is wrong with it."""
    if name is None:
        return {}
    try:
        return dotenv(Path(name))
    except OSError as error:
        raise ValueError(f"--env: {name} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"--env: {name}: {error}") from error


def dotenv(path: Path) -> Settings:
    """The settings in a file like .env; empty ones are not set."""
    found = {}
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        if not line.strip() or line.strip().startswith("#"):
            continue
        if not (entry := re.fullmatch(ENTRY, line.strip())):
            raise ValueError(f"line {number} is not NAME=VALUE")
        name, value = entry.groups()
        try:
            found[name] = read_value(value)
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from error
    return {name: value for name, value in found.items() if value}


def read_value(text: str) -> str:
    """The value as bash reads it where it is quoted; else all up to a comment, with its blanks."""
    if not text.startswith(("'", '"')):
        return re.sub(r"\s#.*", "", f" {text}").strip()
    try:
        words = shlex.split(text, comments=True)
    except ValueError as error:
        raise ValueError("a quotation mark is missing") from error
    if len(words) > 1:
        raise ValueError("something follows the quoted value")
    return words[0]


def find_faults(taken: Settings, left_out: Settings) -> list[str]:
    """The problems of settings that a rehearsal leaves out. That one is missing is none."""
    told = read_settings(taken).problems
    problems = [each for each in read_settings(taken | left_out).problems if each not in told]
    return [each for each in problems if each.startswith(LEFT_OUT) and "is missing" not in each]


def suggestion(name: str) -> str:
    """The setting that may have been meant by a name that is none."""
    close = difflib.get_close_matches(name.upper(), sorted(SETTINGS), 1)
    return f"did you mean {close[0]}?" if close else ".env.example lists them all"


def with_somebody(settings: Mapping[str, str]) -> Settings:
    """The settings, with somebody to call when nobody is configured."""
    if {"FORWARD_TO", "DEPARTMENTS", "BACKEND_URL"} & settings.keys():
        return dict(settings)
    return SOMEBODY | dict(settings)
