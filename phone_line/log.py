"""One JSON object a line on stdout, where Railway's log search finds its fields.

No secret comes here, and no word or number of a caller unless the operator asked for it. No caller
ever waits for the log: a line that would block, because nobody reads stdout and its pipe is full,
is dropped and counted. What strangers can cause is written once a minute for each kind.
"""

import json
import select
import sys
import threading
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Final, TextIO

LONGEST: Final = select.PIPE_BUF  # bytes that a pipe which is ready takes without blocking
EVERY: Final = 60  # seconds between two warnings of one kind
HOUSE: Final = Path(__file__).resolve().parent.parent

as_json: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

_lock = threading.Lock()
_dropped = 0  # lines since the last one that could be written
warned: dict[str, tuple[float, int]] = {}  # kind: when it was written last, how many came since


def write_log(level: str, message: str, **fields: object) -> None:
    """Write one line, in one piece. Fields that are None are left out."""
    global _dropped  # noqa: PLW0603 # a count for the whole process
    line: dict[str, object] = {"level": level, "message": message}
    line |= {name: value for name, value in fields.items() if value is not None}
    with _lock:
        if _dropped:
            line["dropped"] = _dropped
        written = write_line(sys.stdout, line)
        _dropped = 0 if written else _dropped + 1


def warn_sparingly(kind: str, message: str, **fields: object) -> None:
    """Write a warning that anybody can cause: one a minute for each kind, with a count."""
    now = time.monotonic()
    with _lock:
        last, count = warned.get(kind, (0.0, 0))
        if last and now - last < EVERY:
            warned[kind] = (last, count + 1)
            return
        warned[kind] = (now, 0)
    write_log("warning", message, **fields, since_the_last=count or None)


def find_cause(error: BaseException) -> str:
    """The kind of an error and the line of ours that met it: `KeyError at turn.py:120`.

    Without the error's message, which may hold a caller's words.
    """
    place = "nowhere of ours"
    for frame, line in traceback.walk_tb(error.__traceback__):
        file = Path(frame.f_code.co_filename)
        if file.parent in (HOUSE, HOUSE / "phone_line"):
            place = f"{file.name}:{line}"
    return f"{type(error).__name__} at {place}"


def write_line(stdout: TextIO, line: dict[str, object]) -> bool:
    """Write a line unless that would block. Returns whether it was written."""
    with suppress(OSError, ValueError):  # a closed or broken stdout
        if not is_ready(stdout):
            return False
        stdout.write(encode_line(stdout, line))
        stdout.flush()
        return True
    return False


def encode_line(stdout: TextIO, line: dict[str, object]) -> str:
    """The line as JSON: with every letter as it is, or escaped where stdout cannot take it."""
    text = as_json(line)
    encoding = getattr(stdout, "encoding", None) or "utf-8"
    try:
        size = len(text.encode(encoding))
    except UnicodeEncodeError:
        text = json.dumps(line, separators=(",", ":"))
        size = len(text)
    if size >= LONGEST:  # what is longer could block in the middle of the line
        short = {"level": line["level"], "message": str(line["message"])[:200], "cut": size}
        text = json.dumps(short, separators=(",", ":"))
    return text + "\n"


def is_ready(stdout: TextIO) -> bool:
    """Tell whether stdout takes a line at once. A pipe is ready as long as PIPE_BUF bytes fit."""
    try:
        descriptor = stdout.fileno()
    except (OSError, ValueError, AttributeError):  # in memory, or captured by a test
        return True
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(0))
