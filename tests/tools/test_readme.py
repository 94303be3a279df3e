"""The README keeps its word: what it quotes is in the tree, and what it shows works as shown."""

import re
import threading
from pathlib import Path
from typing import Any, Final

from werkzeug.serving import make_server

from standins.inside import Inside

ROOT: Final = Path(__file__).resolve().parents[2]
README: Final = (ROOT / "README.md").read_text(encoding="utf-8")
PERSON: Final = "+15550100099"


def code(language: str) -> list[str]:
    """The README's code blocks in a language."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return [block for name, block in blocks if name == language]


def test_the_transcript_is_a_test_case() -> None:
    """The call on the first screen is one of the calls that are played as tests, to the letter."""
    transcript = code("")[0]
    assert transcript in {path.read_text() for path in (ROOT / "tests/calls").glob("*.call")}


def test_nothing_is_left_to_fill_in() -> None:
    """No placeholder stands where words should be."""
    assert re.findall(r"^@[A-Z]+@$", README, re.MULTILINE) == []


def test_every_proof_exists() -> None:
    """Each test and each file that the README names is there."""
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    named = set(re.findall(r"`(test_\w+)`", README))
    assert named
    assert {name for name in named if f"def {name}(" not in tests} == set()
    files = set(re.findall(r"\btests/[\w/]+\.py\b", README))
    assert {file for file in files if not (ROOT / file).exists()} == set()


def test_the_steps_shown_are_the_steps_that_are() -> None:
    """The rows of the flow that the README shows stand so in main.py."""
    shown = next(block for block in code("python") if "Ask(" in block)
    assert shown in (ROOT / "main.py").read_text()


def test_the_backend_of_thirty_lines_sells_tickets(tmp_path: Path) -> None:
    """The backend that the README shows works as it stands, but for the length of its wait."""
    shown = next(block for block in code("python") if "Flask" in block)
    assert len(shown.splitlines()) <= 36
    scope: dict[str, Any] = {"__name__": "backend"}
    exec(shown.replace("time.sleep(12)", "time.sleep(0.1)"), scope)  # noqa: S102 # the README's own
    server = make_server("127.0.0.1", 0, scope["app"], threaded=True)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.port}"
        line = {"FORWARD_TO": PERSON, "BACKEND_URL": url, "STATE_FILE": str(tmp_path / "calls")}
        told = [journey(line, city) for city in ("Hamburg", "Paris", "Atlantis")]
        assert "booked to hamburg" in told[0]
        assert "payment was refused" in told[1]
        assert "no such train" in told[2]
    finally:
        server.shutdown()
        server.server_close()


def journey(line: dict[str, str], city: str) -> str:
    """What a caller hears who wants to go somewhere, and says yes."""
    phone = Inside(line).phone()
    phone.ring()
    phone.say(f"I want to go to {city}")
    said = list(phone.heard)
    if "Shall I book it" in " ".join(said):
        phone.say("yes please")
        said += phone.heard
    if phone.state != "ended":
        phone.hang_up()
    return " ".join(said)
