"""Findings at a deployed line: a line each, and below it what to do."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """Something seen, or not; `advice` says what to do about it, and is empty where all is well."""

    level: Literal["ok", "note", "unseen", "CHANGE"]
    seen: str
    advice: str = ""

    def __str__(self) -> str:
        """One line, and the advice below it."""
        line = f"{self.level:<7} {self.seen}"
        return f"{line}\n        > {self.advice}" if self.advice else line


Findings = Iterator[Finding]
Agree = Callable[[str], bool]  # asks the owner a question; False for anything but a yes


def ok(seen: str) -> Finding:
    """Something that is as it should be."""
    return Finding("ok", seen)


def note(seen: str, advice: str = "") -> Finding:
    """Something that an owner should know, and that may well be meant."""
    return Finding("note", seen, advice)


def unseen(what: str, why: str, advice: str = "") -> Finding:
    """Something that could not be looked at."""
    return Finding("unseen", f"not looked at: {what}: {why}", advice)


def change(seen: str, advice: str) -> Finding:
    """Something that is wrong, and how it is put right."""
    return Finding("CHANGE", seen, advice)
