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


def test_every_file_that_is_named_exists() -> None:
    """Each file of ours that the README or the documents beside it name is there."""
    documents = [README, *(path.read_text("utf-8") for path in (ROOT / ".github").glob("*.md"))]
    named = set(
        re.findall(r"\b(?:tests|phone_line)/[\w/]+\.(?:py|md|toml|call)\b", "".join(documents))
    )
    assert len(named) > 5
    assert {file for file in named if not (ROOT / file).exists()} == set()


def test_every_command_of_the_tests_is_explained() -> None:
    """Whatever stands in tests/ to be run has a row in its README."""
    commands = {path.name for path in (ROOT / "tests").glob("*.py")} - {"conftest.py"}
    assert {name for name in commands if f"`python tests/{name}" not in TESTS_README} == set()


def test_the_price_of_a_call_adds_up() -> None:
    """In cents; and the letters are about those that such a call says."""
    [told] = re.findall(
        r"^a call that somebody takes costs about ([\d.]+) cents(.*)$", TESTS_README, re.M
    )
    assert f"[about {told[0]} cents]" in README
    parts = re.findall("([0-9]+) ([a-z ]+) \u00d7 ([0-9.]+)", told[1])
    assert len(parts) == 4
    assert sum(int(count) * float(price) for count, _, price in parts) == pytest.approx(
        float(told[0]), abs=0.05
    )
    call = (ROOT / "tests/calls/accepted.call").read_text(encoding="utf-8")
    said = re.findall("^(?:line|callee hears): (.*)$", call, re.M)
    [hundreds] = [int(count) for count, unit, _ in parts if "letters" in unit]
    assert abs(sum(map(len, said)) / 100 - hundreds) < 1.5


def test_the_steps_shown_are_the_steps_that_are() -> None:
    """The rows of the flow that the README shows stand so in the flow."""
    shown = next(block for block in code("python") if "Ask(" in block)
    flow = (ROOT / "phone_line/flow.py").read_text()
    assert [row for row in shown.splitlines() if row not in flow.splitlines()] == []


def test_the_backend_that_is_shown_answers(tmp_path: Path) -> None:
    """The backend that the README shows works as it stands."""
    shown = next(block for block in code("python") if "Flask" in block)
    scope: dict[str, Any] = {"__name__": "backend"}
    exec(shown, scope)  # noqa: S102 # the README's own
    server = make_server("127.0.0.1", 0, scope["app"], threaded=True)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.port}"
        line = {"FORWARD_TO": PERSON, "BACKEND_URL": url, "STATE_FILE": str(tmp_path / "calls")}
        phone = Inside(line).phone()
        phone.ring()
        phone.say("to Hamburg")
        phone.hang_up()
        assert phone.transcript.count("line: You said to Hamburg. Anything else?") == 1
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.long
@pytest.mark.timeout(
    600
)  # it makes an environment twice, each of which takes a processor 6 seconds
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
