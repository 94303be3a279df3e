"""The README keeps its word: what it quotes is in the tree, and what it shows works as shown."""

import os
import re
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any, Final

import pytest
from werkzeug.serving import make_server

from standins.inside import Inside

ROOT: Final = Path(__file__).resolve().parents[2]
README: Final = (ROOT / "README.md").read_text(encoding="utf-8")
TESTS_README: Final = (ROOT / "tests/README.md").read_text(encoding="utf-8")
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
    files = set(re.findall(r"\btests/[\w/]+\.py\b", README + TESTS_README))
    assert {file for file in files if not (ROOT / file).exists()} == set()


def test_every_command_of_the_tests_is_explained() -> None:
    """Whatever stands in tests/ to be run has a row in its README."""
    commands = {path.name for path in (ROOT / "tests").glob("*.py")} - {"conftest.py"}
    assert {name for name in commands if f"`python tests/{name}" not in TESTS_README} == set()


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


@pytest.mark.long
@pytest.mark.needs("bash")
@pytest.mark.parametrize("ending", ["-m pytest", "tests/phone.py"])
def test_without_a_network_the_next_try_begins_like_the_first(tmp_path: Path, ending: str) -> None:
    """Pip says what it could not reach; the environment that it leaves is in nobody's way."""
    for name in ("requirements.txt", "tests/requirements.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    [paste] = [
        line
        for line in README.splitlines()
        if line.startswith("python3 -m venv") and line.endswith(ending)
    ]
    nowhere = {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_CACHE_DIR": "1",
        "PIP_RETRIES": "0",
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    told = []
    for _ in range(2):
        run = subprocess.run(
            ["bash", "-c", paste],
            cwd=tmp_path,
            env=os.environ | nowhere,
            capture_output=True,
            text=True,
            check=False,
        )
        told.append((run.returncode, run.stderr.splitlines()[-1]))
    assert told[0] == told[1]
    assert told[0][1].startswith("ERROR: No matching distribution found")
    subprocess.run([tmp_path / ".venv/bin/python", "-m", "pip", "--version"], check=True)
