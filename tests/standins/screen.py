"""Prints the events of a call, in colour where people look at it, and speaks the line's words."""

import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from typing import Final

COLOURS: Final = {
    "line:": "36",
    "line": "36;2",
    "caller": "32",
    "callee": "33",
    "# broken": "31;1",
    "# warning": "33;2",
    "#": "2",
}
SPEECH_PROGRAMS: Final = ("espeak-ng", "espeak", "say")
TO_HAVE_ONE: Final = "apt-get install espeak-ng; macOS has its own, say"


def tell(event: str) -> None:
    """Prints one event, in the colour of whoever acts. EOFError: nobody reads any more."""
    colour = next((c for start, c in COLOURS.items() if event.startswith(start)), "0")
    try:
        print(paint(event, colour), flush=True)
    except BrokenPipeError:  # `head`, say, has seen enough
        print_no_more()
        raise EOFError from None


def print_no_more() -> None:
    """Lets what is still to be printed vanish: there is nobody to read it.

    https://docs.python.org/3/library/signal.html#note-on-sigpipe
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def paint(text: str, colour: str) -> str:
    """The text in a colour; as it is where nobody could see one, or wants none."""
    plain = not sys.stdout.isatty() or os.environ.get("TERM") == "dumb" or "NO_COLOR" in os.environ
    return text if plain else f"\x1b[{colour}m{text}\x1b[0m"


def take_back(lines: int) -> None:
    """Erases the last lines of the terminal."""
    if os.environ.get("TERM") != "dumb":
        print("\x1b[A\x1b[2K" * lines, end="", flush=True)


def one_line(text: str) -> str:
    """Words from elsewhere, fit for one comment line."""
    return textwrap.shorten(text, 300, placeholder=" ...")


def announcer(*, aloud: bool) -> Callable[[str], None]:
    """A way to print events that also speaks, if asked to and if it can, what the line says."""
    program = find_speech_program() if aloud else None
    if aloud and not program:
        tell(f"# nothing here can speak: {TO_HAVE_ONE}")

    def announce(event: str) -> None:
        tell(event)
        if program and event.startswith("line: "):
            subprocess.run([program, event.removeprefix("line: ")], check=False)

    return announce


def find_speech_program() -> str | None:
    """Path of the first speech program that is installed."""
    return next(filter(None, map(shutil.which, SPEECH_PROGRAMS)), None)
