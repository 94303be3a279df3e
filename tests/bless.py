"""Takes a change of words over into the transcripts: every call again, with its callers' lines.

    python tests/bless.py                 # all of tests/calls; `git diff tests/calls` is the review
    python tests/bless.py tests/calls/busy.call # one of them
    python tests/bless.py --even-if-it-ends-differently

What callers, callees and Twilio do stays as it is written; what the line says is written anew. A
call that no longer goes the way it did (who is dialled, what is recorded, how it ends) is refused:
then it was not only words that changed. Nothing is written unless all is well.

A transcript that README.md quotes is taken over there, too.
"""

import argparse
import io
import re
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Final

from standins.call import NotNow, Phone
from standins.inside import ORIGIN, TOKEN
from standins.instance import ROOT
from standins.pool import KILLED, Pool, settings_of
from standins.sink import Sink
from standins.transcript import OVERHEARD, TOLD, Transcript, fits, perform

CALLS: Final = ROOT / "tests/calls"
SPOKEN: Final = ("line: ", OVERHEARD, TOLD)  # words of ours: to the caller, a callee, the owner
OURS: Final = ("line", OVERHEARD, TOLD)  # how the lines begin that nobody else does
PATIENCE: Final = 5.0  # seconds within which the owner is told


class Refused(ValueError):
    """A call that does not go as it is written, for another reason than its words."""


def main(given: Sequence[str] | None = None) -> int:
    """The command. Exit status: 0 all well, 1 a call was refused, 2 usage."""
    parser = argparse.ArgumentParser("bless.py", description="Writes the line's words anew.")
    parser.add_argument("calls", nargs="*", type=Path, help="default: all in tests/calls")
    parser.add_argument("--even-if-it-ends-differently", dest="anyhow", action="store_true")
    wanted = parser.parse_args(given)
    paths = wanted.calls or sorted(CALLS.glob("*.call"))
    blessed: dict[Path, str] = {}
    refused = 0
    for path in paths:
        try:
            blessed[path] = blessed_text(path.read_text(encoding="utf-8"), anyhow=wanted.anyhow)
        except (OSError, ValueError) as error:
            print(f"refused: {path.name}: {getattr(error, 'strerror', None) or error}")
            refused += 1
    if refused:
        print("nothing was written")
        return 1
    written = write(blessed)
    print(f"{written} of {len(paths)} transcripts changed")
    return 0


def blessed_text(text: str, *, anyhow: bool) -> str:
    """A transcript with the same callers, and what the line says to them now. May raise Refused."""
    with redirect_stdout(io.StringIO()):  # where the line would log
        lines = list(play_again(text))
    before, after = skeleton(text.splitlines()), skeleton(lines)
    if before != after and not anyhow:
        raise Refused(f"{difference(before, after)} (--even-if-it-ends-differently)")
    return "\n".join(lines) + "\n"


def play_again(text: str) -> Iterator[str]:
    """The lines of a transcript, played anew; its comments and settings stay where they are."""
    # Whoever tells the owner may still write into the folder when the call is over.
    folder_of_the_call = tempfile.TemporaryDirectory(prefix="bless-", ignore_cleanup_errors=True)
    with folder_of_the_call as folder, Sink() as sink:
        pool = Pool(settings_of(Transcript(text), sink) | {"STATE_FILE": f"{folder}/calls"})
        phone = sink.follow(Phone(ORIGIN, token=TOKEN, deliver=pool.first))
        waiting = [line.strip() for line in text.splitlines()]
        while waiting:
            line = waiting.pop(0)
            if line.startswith(OURS):
                continue  # the line speaks for itself
            yield line
            if line and not line.startswith(("#", "set ")):
                before = said_next(waiting)
                yield from kept(happen(phone, pool, line, before), before)
        if phone.broken:
            raise Refused(f"Twilio would not take it: {phone.broken[0]}")
        if phone.state not in {"new", "ended"}:
            phone.hang_up()


def happen(phone: Phone, pool: Pool, event: str, before: Sequence[str]) -> list[str]:
    """Lets one event of the world happen; answers what the line says and does then.

    A pause passes until the line has said or done as much as `before`. A callee who is not said to
    do anything else presses 1, and the owner is told in a moment.
    """
    told = len(phone.transcript)
    if event == KILLED:
        pool.replace()
        return []
    try:
        wrong = perform(phone, event, stepwise=True)
    except NotNow as misplaced:
        raise Refused(f"{event!r} is not possible any more: {misplaced}") from misplaced
    if wrong:
        raise Refused(f"{event!r}: {wrong}")
    if phone.state == "screening" and any(line.startswith("line") for line in before):
        phone.callee_presses("1")
    while phone.state == "hold" and len(said_since(phone, told)) < len(before):
        phone.wait()
    end = time.monotonic() + PATIENCE
    while is_told(before) and not is_told(said_since(phone, told)) and time.monotonic() < end:
        time.sleep(0.02)
    said = said_since(phone, told)
    if any(line.startswith(OVERHEARD) for line in before):
        return said
    return [line for line in said if not line.startswith(OVERHEARD)]  # it was left out before


def is_told(lines: Iterable[str]) -> bool:
    """Tells whether the owner hears of something."""
    return any(line.startswith(TOLD) for line in lines)


def said_since(phone: Phone, told: int) -> list[str]:
    """The words and deeds of the line since so many events of a call."""
    return [event for event in phone.transcript[told:] if event.startswith(OURS)]


def said_next(lines: Iterable[str]) -> list[str]:
    """The next words of the line in a transcript, before anybody else does anything."""
    found = []
    for line in lines:
        if line.startswith(OURS):
            found.append(line)
        elif line and not line.startswith("#"):
            break
    return found


def kept(heard: Sequence[str], before: Sequence[str]) -> Iterator[str]:
    """The words that were heard; as they stood before where that fits, as "line: Hello ..." may."""
    heard, before = told_last(heard), told_last(before)
    for place, said in enumerate(heard):
        old = before[place] if place < len(before) else ""
        yield old if fits(old, said) else without_signature(said)


def without_signature(said: str) -> str:
    """The line as it can be kept: the link to a message is another one each time it is written."""
    return re.sub(r"(https://\S+/recordings/)\S+.*", r"\1 ...", said)


def told_last(lines: Iterable[str]) -> list[str]:
    """The same lines, and what the owner is told after the others: it comes when it comes."""
    return sorted(lines, key=lambda line: line.startswith(TOLD))


def skeleton(lines: Iterable[str]) -> list[str]:
    """A call without the words of the line: all that happens in it."""
    stripped = (line.strip() for line in lines)
    silent = ("#", "set ", *SPOKEN)
    return [line for line in stripped if line and not line.startswith(silent)]


def difference(before: Sequence[str], after: Sequence[str]) -> str:
    """The first event in which two calls differ, in plain words."""
    for place, (old, new) in enumerate(
        zip([*before, "its end"], [*after, "its end"], strict=False)
    ):
        if old != new:
            return f"event {place + 1} was {old!r} and is {new!r}"
    return "it goes as before"


def write(blessed: dict[Path, str]) -> int:
    """Writes the transcripts that changed, and README.md where it quotes one; answers how many."""
    readme = ROOT / "README.md"
    story = readme.read_text(encoding="utf-8")
    changed = {p: text for p, text in blessed.items() if p.read_text(encoding="utf-8") != text}
    for path, text in changed.items():
        story = story.replace(path.read_text(encoding="utf-8"), text)
        path.write_text(text, encoding="utf-8")
        print(f"changed: {path.name}")
    if story != readme.read_text(encoding="utf-8"):
        readme.write_text(story, encoding="utf-8")
        print("changed: README.md")
    return len(changed)


if __name__ == "__main__":
    sys.exit(main())
