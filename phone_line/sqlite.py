"""Cells in an SQLite file on this machine: what is used where no database is set up.

Several processes may share the file (SQLite's write-ahead log), and a kill -9 loses nothing that
was settled. It is opened for each command and closed after it: that costs 0.2 ms, and a file that
is deleted or replaced in mid-call is the same file for everybody again with the next command.

Callers' words stand in the file, so it is readable by its owner alone, and what has expired is
overwritten, not only left out.
"""

from __future__ import annotations

import os
import stat
import time
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

from phone_line.cells import HangMemory
from phone_line.deadline import Moment, seconds_left

if TYPE_CHECKING:  # a line with a database never loads it
    from collections.abc import Iterator
    from sqlite3 import Connection

SETUP: Final = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = NORMAL",
    "PRAGMA secure_delete = ON",
    "CREATE TABLE IF NOT EXISTS cells(key TEXT PRIMARY KEY, value TEXT, ends REAL)",
    "CREATE INDEX IF NOT EXISTS cells_by_end ON cells(ends)",
)
READ: Final = "SELECT value FROM cells WHERE key = ? AND ends > ?"
WRITE: Final = "INSERT OR REPLACE INTO cells VALUES(?, ?, ?)"
RENEW: Final = "UPDATE cells SET ends = ? WHERE key = ? AND ends > ?"
REMOVE: Final = "DELETE FROM cells WHERE key = ? AND ends > ?"
TIDY: Final = "DELETE FROM cells WHERE ends <= ?"
SCAN: Final = """
    SELECT rowid, key FROM cells WHERE rowid > ? AND ends > ? AND key GLOB ?
    ORDER BY rowid LIMIT ?
"""
BETWEEN_TIDYINGS: Final = 60  # seconds; expired cells are gone within minutes, and few writes pay
creating: Final = Lock()


class SQLite:
    """A file of cells."""

    def __init__(self, path: str) -> None:
        """Name the file; it is made when it is first needed, and its folder must be there."""
        self.path = path
        self.hang_memory = HangMemory()
        self.next_tidying: Moment = 0.0

    def execute(self, command: list[str], until: Moment) -> Any:  # noqa: ANN401 # Redis' types
        """Execute the commands that cells use, with Redis' results. An expired cell is empty.

        Raises OSError or sqlite3.Error; ValueError for any other command.
        """
        now = time.time()
        with open_file(self.path, until) as file:
            match command:
                case ["MGET", *keys]:
                    return [read_cell(file, key, now) for key in keys]
                case ["SET", key, value, "NX", "GET", "EX", ttl]:
                    return self.settle(file, (key, value, now + int(ttl)), now)
                case ["GETEX", key]:
                    return read_cell(file, key, now)
                case ["GETEX", key, "EX", ttl]:
                    file.execute(RENEW, (now + int(ttl), key, now))
                    return read_cell(file, key, now)
                case ["DEL", key]:
                    return file.execute(REMOVE, (key, now)).rowcount
                case ["SCAN", cursor, "MATCH", pattern, "COUNT", count]:
                    return list_keys(file, int(cursor), pattern, int(count), now)
                case _:
                    raise ValueError(f"cells do not use {command[0]}")

    def settle(self, file: Connection, cell: tuple[str, str, float], now: float) -> str | None:
        """Write a cell if it is empty, and return what stood in it: one transaction."""
        file.execute("BEGIN IMMEDIATE")  # closing the file without COMMIT undoes it all
        standing = read_cell(file, cell[0], now)
        if standing is None:
            file.execute(WRITE, cell)
        if time.monotonic() >= self.next_tidying:
            file.execute(TIDY, (now,))
            self.next_tidying = time.monotonic() + BETWEEN_TIDYINGS
        file.execute("COMMIT")
        return standing


@contextmanager
def open_file(path: str, until: Moment) -> Iterator[Connection]:
    """Open a file of cells, made ready, for one command."""
    import sqlite3

    make_private(path)
    seconds = seconds_left(until)
    with closing(sqlite3.connect(path, timeout=seconds, isolation_level=None)) as file:
        for statement in SETUP:
            file.execute(statement)
        yield file


def make_private(path: str) -> None:
    """Create the file for its owner alone, or take everybody else's rights away. OSError: no file.

    SQLite gives its log files the rights of the file. A file that exists is not opened here: to
    close it again would end the locks that SQLite holds on it for this process.
    """
    with creating, suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    mode = Path(path).stat().st_mode
    if not stat.S_ISREG(mode):  # a folder, whose rights are not ours to take away
        raise IsADirectoryError(f"{path} is no file")
    if mode & 0o077 == 0:
        return
    for name in (path, f"{path}-wal", f"{path}-shm"):
        with suppress(OSError):  # it is not there, or somebody else's, who has decided so
            Path(name).chmod(0o600)


def read_cell(file: Connection, key: str, now: float) -> str | None:
    """Read a cell; None if it is empty."""
    row = file.execute(READ, (key, now)).fetchone()
    return row[0] if row else None


def list_keys(file: Connection, after: int, pattern: str, count: int, now: float) -> list[Any]:
    """List keys as Redis' SCAN does: the next cursor, "0" at the end, and at most `count` keys.

    Patterns are Redis', without its backslash.
    """
    rows = file.execute(SCAN, (after, now, pattern, count)).fetchall()
    keys = [key for _, key in rows]
    if len(rows) < count:
        return ["0", keys]
    return [str(rows[-1][0]), keys]
