"""The pictures of the pages that the README shows, taken by a real browser.

    python tests/tools/pictures.py             # writes .github/calls.png and .github/call.png
    python tests/tools/pictures.py --to FOLDER # writes them elsewhere, to look before they replace

Each picture has the page twice: as wide as a desk's screen and light, as narrow as a phone's and
dark. The calls are invented; their numbers begin with 555, an area code that nobody has. Nothing in
them is random or depends on the day, so the same code and fonts give the same picture.
Needs Chromium (apt-get install chromium fonts-noto-core).
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from html import escape
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from phone_line.pages import render_call, render_calls  # noqa: E402 # found by the line above

BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
QUIET: Final = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--disable-lcd-text",
    "--disable-sync",
    "--hide-scrollbars",
    "--mute-audio",
    "--no-first-run",
)
LARGEST: Final = 150_000  # bytes of a picture: people download it with the README

NEWEST: Final = 1_772_442_420  # 2026-03-02 09:07:00 UTC
DEPARTMENTS: Final = ("billing", "repairs", "sales")
WORDS: Final = (
    "I was charged twice for February and would like the second one back",
    "My boiler shows error F28 and there is no hot water",
    "Do you deliver to Brighton on Saturdays?",
    "It is about invoice 40718",
    "I want to move my appointment on Thursday",
    "",
    "Hola, ¿hablan español?",
    "The courier left my parcel with a neighbour that I do not have",
    "How much is the large one?",
    "أريد أن أسأل عن فاتورتي",
)
ENDINGS: Final = (
    ("voicemail", 14),
    ("talked", 200),
    ("missed", 9),
    ("talked", 47),
    ("voicemail", 31),
    ("refused", 0),
    ("talked", 3_751),
)

TRANSCRIPT: Final = (
    "Hello, this is Sam. The boiler shows F28 and there is no hot water. "
    "Please call me back on this number."
)
# Seconds after the call came in, the step that follows, what the line says, what the caller did.
TURNS: Final[tuple[tuple[int, str, str, dict[str, object]], ...]] = (
    (
        *(
            0,
            "menu",
            "Hello, and thank you for calling. Say billing or press 1. Say repairs or press 2.",
        ),
        {},
    ),
    (
        *(
            9,
            "menu",
            "Sorry, I did not understand. Please say billing or repairs, or press 1 or 2.",
        ),
        {"heard": "um, hang on", "misses": 1},
    ),
    (17, "menu", "Did you say repairs?", {"heard": "the boiler is broken, repairs I think"}),
    (22, "to_repairs", "I am connecting you.", {"heard": "yes", "repeated": True}),
    (
        *(
            51,
            "voicemail",
            "Nobody can take your call right now. Please leave a message after the tone.",
        ),
        {"dial": "completed", "accepted": "not accepted"},
    ),
    (
        *(69, "message_taken", "Thank you. We will call you back. Goodbye."),
        {"keys": "#", "message": True},
    ),
)


def main() -> None:
    """Take both pictures; end with 1 where one is too large or no browser is installed."""
    parser = argparse.ArgumentParser(description="Take the pictures of the README.")
    parser.add_argument("--to", type=Path, default=ROOT / ".github", help="folder (.github)")
    folder: Path = parser.parse_args().to
    folder.mkdir(parents=True, exist_ok=True)
    pages = {"calls.png": render_calls(invent_listing()), "call.png": render_call(invent_call())}
    for name, page in pages.items():
        picture = take_picture(light_and_dark(page), "1180,680")
        (folder / name).write_bytes(picture)
        print(f"{folder / name}: {len(picture):,} bytes")
        if len(picture) > LARGEST:
            sys.exit(f"{name} is larger than {LARGEST:,} bytes")


def find_browser() -> str:
    """The path of a Chromium; ends the program where there is none."""
    for name in BROWSERS:
        if path := shutil.which(name):
            return path
    sys.exit("no browser: apt-get install chromium")


def light_and_dark(page: str) -> str:
    """A page that shows another twice: on a light desk and on a dark phone."""
    frame = escape(page)
    return (
        "<!doctype html><meta charset=utf-8><style>"
        "body{margin:0;background:#c9d0d8;display:flex;gap:20px;padding:20px;height:640px}"
        "iframe{border:0;border-radius:14px;height:640px}"
        ".desk{width:760px;color-scheme:light}.phone{width:360px;color-scheme:dark}</style>"
        f'<iframe class=desk srcdoc="{frame}"></iframe>'
        f'<iframe class=phone srcdoc="{frame}"></iframe>'
    )


def take_picture(page: str, size: str) -> bytes:
    """Show a page in the browser, in a window of this size, and take it as PNG."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "page.html").write_text(page, "utf-8")
        address = (folder / "page.html").as_uri()
        browse(folder, address, f"--window-size={size}", f"--screenshot={folder / 'page.png'}")
        return (folder / "page.png").read_bytes()


def browse(folder: Path, address: str, *options: str) -> str:
    """Open an address in a browser with a profile of its own; returns what the browser prints.

    Now and then a browser hangs as it starts, whatever the page. Then another one is started.
    Raises TimeoutError if that hangs, too.
    """
    for profile in ("profile", "another profile"):
        own = f"--user-data-dir={folder / profile}"
        command = [find_browser(), *QUIET, own, *options, address]
        with suppress(subprocess.TimeoutExpired):
            done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=True)
            return done.stdout
    raise TimeoutError("two browsers hang, one after the other")


def invent_listing() -> dict[str, Any]:
    """Fifty calls of a day and a night; one of them goes on."""
    calls = [invent_row(i) for i in range(50)]
    calls[0] |= {"ended": "", "seconds": 0, "recording": ""}
    return {"calls": calls, "incomplete": False, "page": 1, "pages": 3}


def invent_row(i: int) -> dict[str, Any]:
    """One of the fifty."""
    ended, seconds = ENDINGS[i % len(ENDINGS)]
    caller = f"+1555010{1_000 + i * 1_237 % 9_000}"
    return {
        "call_sid": f"CA{i:032x}",
        "from": "" if i == 11 else caller,
        "at": NEWEST - i * 1_500 - i * i,
        "department": "" if ended == "refused" else DEPARTMENTS[i * 5 % 3],
        "heard": "" if ended == "refused" else WORDS[i % len(WORDS)],
        "ended": ended,
        "seconds": seconds,
        "recording": f"/recordings/AC{i}/RE{i}?until=1&signature=x" if ended == "voicemail" else "",
    }


def invent_call() -> dict[str, Any]:
    """A call with nonsense, a doubt, a repeat, an owner's mailbox, and a message."""
    turns = []
    asker = ""
    for number, (after, step, said, brought) in enumerate(TURNS, 1):
        where = {"turn": number, "asker": asker, "step": step, "at": NEWEST + after}
        turns.append({**where, "said": said, "ms": 9 + number * 13 % 17, **brought})
        asker = step
    return {
        "call_sid": "CA5f1d0c7be2a94d36b8e07c41a9d2f863",
        "from": "+15550102237",
        "turns": turns,
        "recording": "/recordings/AC1/RE1?until=1&signature=x",
        "transcript": TRANSCRIPT,
        "end": {"status": "completed", "seconds": 72, "at": NEWEST + 72},
    }


if __name__ == "__main__":
    main()
