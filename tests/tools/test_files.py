"""The files around the code agree with each other, with main.py, and with the builders' habits.

A wrong word in these files shows nowhere but in a deploy, or in a call at night, so they are tested
here: the build commands and the start command are run as they stand in nixpacks.toml.
"""

import ast
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
import urllib.request
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest
from flask import Request
from werkzeug.test import EnvironBuilder

import main
from standins.instance import free_port

ROOT: Final = Path(__file__).resolve().parents[2]
TESTS: Final = sorted((ROOT / "tests").rglob("*.py"))

VISIBLE: Final = {
    "main.py",
    "phone_line",
    "tests",
    "requirements.txt",
    "nixpacks.toml",
    "railway.json",
    "README.md",
}

# Files that would change a build by being there: builders read them before or instead of ours.
UNWANTED: Final = (".tool-versions", ".nvmrc", ".node-version", ".dockerignore", "mise.toml")

# Nixpacks and Railpack look for these as substrings of requirements.txt, comments included: they
# add system packages or replace the start command.
TRAPS: Final = (
    "psycopg",
    "cairo",
    "pydub",
    "pdf2image",
    "mysqlclient",
    "playwright",
    "flask",
    "gunicorn",
    "uvicorn",
    "fastapi",
    "fasthtml",
    "django",
    "file://",
)


def text_of(path: str) -> str:
    """The text of a file of the repository."""
    return (ROOT / path).read_text(encoding="utf-8")


def nixpacks() -> dict[str, Any]:
    """The build plan in nixpacks.toml."""
    return tomllib.loads(text_of("nixpacks.toml"))


def railway() -> dict[str, Any]:
    """The settings of the service in railway.json."""
    settings: dict[str, Any] = json.loads(text_of("railway.json"))
    return settings


def requirements(path: str) -> list[str]:
    """The requirements in a file, without comments and options."""
    lines = (line.split("#")[0].strip() for line in text_of(path).splitlines())
    return [line for line in lines if line and not line.startswith("-")]


def test_the_top_level_shows_only_what_a_visitor_needs() -> None:
    """Nothing but the agreed names is visible, so no builder finds a file to guess from."""
    shown = {path.name for path in ROOT.iterdir() if not path.name.startswith((".", "__"))}
    assert shown == VISIBLE
    assert not [name for name in UNWANTED if (ROOT / name).exists()]


def test_one_python_version_for_every_builder() -> None:
    """Nixpacks, other builders and pyenv are told the same minor version, one that Nixpacks has."""
    told = text_of(".python-version").strip()
    assert nixpacks()["variables"]["NIXPACKS_PYTHON_VERSION"] == told
    assert told in {
        "3.11",
        "3.12",
        "3.13",
    }  # Nixpacks takes anything else for its default, silently


def test_no_setting_is_baked_into_the_image() -> None:
    """The build plan's variables, which beat the service's own, name the Python version only."""
    assert set(nixpacks()["variables"]) == {"NIXPACKS_PYTHON_VERSION"}


def test_the_provider_keeps_its_own_phases() -> None:
    """Only a build phase is added: a setup or install phase would lose the environment."""
    assert set(nixpacks()["phases"]) == {"build"}
    assert nixpacks()["providers"] == ["python"]


def test_both_files_start_the_same_command() -> None:
    """The start command is one, runs main.py, and replaces its shell."""
    start = nixpacks()["start"]["cmd"]
    assert railway()["deploy"]["startCommand"] == start
    assert re.fullmatch(r"exec python -m main", start)


def test_the_service_sleeps_and_drains() -> None:
    """Railway builds with Nixpacks, lets the line sleep, and lets webhooks in progress end."""
    deploy = railway()["deploy"]
    assert railway()["build"]["builder"] == "NIXPACKS"
    assert deploy["sleepApplication"] is True
    assert deploy["drainingSeconds"] >= 15  # the longest that Twilio waits for a webhook


def test_the_health_check_that_railway_asks_is_served(tmp_path: Path) -> None:
    """The path in railway.json answers 200 once the settings are complete, without a signature."""
    line = main.PhoneLine({"TWILIO_AUTH_TOKEN": "secret", "STATE_FILE": str(tmp_path / "calls")})
    path = railway()["deploy"]["healthcheckPath"]
    asked = EnvironBuilder(path=path, environ_base={"RAW_URI": path}).get_environ()
    assert line.answer(Request(asked)).status_code == 200


@pytest.mark.long
@pytest.mark.needs("bash")
def test_the_build_leaves_bytecode_that_survives_a_second_copy(tmp_path: Path) -> None:
    """After the build commands all our code has bytecode that is checked by hash, not by time."""
    shutil.copy(ROOT / "main.py", tmp_path)
    source, copy = ROOT / "phone_line", tmp_path / "phone_line"
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for command in nixpacks()["phases"]["build"]["cmds"]:
        environment = os.environ | {"PATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
        subprocess.run(["bash", "-c", command], cwd=tmp_path, env=environment, check=True)
    compiled = [*tmp_path.rglob("*.pyc")]
    assert len(compiled) == 1 + len([*tmp_path.glob("phone_line/*.py")])
    assert all(int.from_bytes(file.read_bytes()[4:8], "little") == 0b11 for file in compiled)


@pytest.mark.needs("bash")
def test_the_start_command_serves_and_ends_when_told(tmp_path: Path) -> None:
    """Started as in the image, the line answers on $PORT and ends on SIGTERM within the drain."""
    port, path = free_port(), f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("UPSTASH_", "RAILWAY_"))}
    settings = {
        "PORT": str(port),
        "TWILIO_AUTH_TOKEN": "secret",
        "STATE_FILE": str(tmp_path / "calls"),
    }
    command = ["bash", "-c", nixpacks()["start"]["cmd"]]
    with subprocess.Popen(command, cwd=ROOT, env=kept | settings | {"PATH": path}) as process:
        try:
            assert (
                wait_for(f"http://127.0.0.1:{port}{railway()['deploy']['healthcheckPath']}") == 200
            )
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=railway()["deploy"]["drainingSeconds"])
        finally:
            process.kill()
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def wait_for(url: str) -> int:
    """The status of the first good answer; after ten seconds without one, what went wrong."""
    deadline = time.monotonic() + 10
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return int(answer.status)
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def test_production_needs_three_packages_and_says_which_release() -> None:
    """Exactly the three agreed packages run in production, each pinned."""
    pins = dict(line.split("==") for line in requirements("requirements.txt"))
    assert set(pins) == {"functions-framework", "twilio", "upstash-redis"}
    assert all(re.fullmatch(r"\d+(\.\d+)+", release) for release in pins.values())


def test_the_tests_run_what_production_runs() -> None:
    """The tests' requirements take in production's, and CI's take in theirs; all is pinned."""
    assert "-r ../requirements.txt" in text_of("tests/requirements.txt").splitlines()
    assert "-r ../tests/requirements.txt" in text_of(".ci/requirements.txt").splitlines()
    asked_for = requirements("tests/requirements.txt") + requirements(".ci/requirements.txt")
    loose = [line for line in asked_for if "==" not in line]
    assert [line.split(" @ ")[0] for line in loose] == ["too-old"]  # which is no package


def test_no_name_of_a_test_is_too_long(request: pytest.FixtureRequest) -> None:
    """It stands in the environment of every process that the test starts."""
    assert max(len(item.nodeid) for item in request.session.items) < 1000


@pytest.mark.parametrize("word", TRAPS)
def test_no_word_in_the_requirements_misleads_a_builder(word: str) -> None:
    """Builders search requirements.txt for words; none that they act upon stands in it."""
    assert word not in text_of("requirements.txt").lower()


def test_the_readme_explains_every_setting() -> None:
    """Every name that .env.example offers is explained in the README."""
    readme = text_of("README.md")
    offered = re.findall(r"^#?([A-Z][A-Z0-9_]+)=", text_of(".env.example"), re.MULTILINE)
    families = {name for name in offered if name.startswith("GREETING_")}  # one a language
    assert not [name for name in offered if f"`{name}`" not in readme and name not in families]


def test_the_example_environment_tells_no_secret() -> None:
    """The lines of .env.example that set something leave it empty."""
    given = re.findall(r"^([A-Z_]+)=(.*)$", text_of(".env.example"), re.MULTILINE)
    assert given
    assert not [name for name, value in given if value]


@pytest.mark.parametrize(
    "ending", [".venv/bin/python tests/phone.py", ".venv/bin/python -m pytest"]
)
def test_the_readme_has_commands_that_can_be_pasted(ending: str) -> None:
    """One line of the README goes from a fresh clone to a call, and one to the tests."""
    lines = text_of("README.md").splitlines()
    assert [line for line in lines if line.startswith("python3 -m venv") and line.endswith(ending)]


@cache
def parsed(path: Path) -> ast.Module:
    """The syntax of a file."""
    return ast.parse(path.read_text(encoding="utf-8"))


@pytest.mark.long
def test_every_test_states_a_behaviour() -> None:
    """Every module opens with a docstring; every test has one sentence on one line."""
    silent = []
    for path in TESTS:
        module = parsed(path)
        silent += [] if ast.get_docstring(module) else [path.name]
        functions = [node for node in ast.walk(module) if isinstance(node, ast.FunctionDef)]
        said = {f.name: ast.get_docstring(f) or "" for f in functions if f.name.startswith("test_")}
        silent += [name for name, words in said.items() if not re.fullmatch(r"[^\n]+\.", words)]
    assert silent == []


EVASIONS: Final = frozenset(
    {"skip", "skipif", "xfail", "importorskip", "mock", "unittest.mock", "setattr"}
)


@pytest.mark.long
def test_no_test_is_left_out_or_mocked() -> None:
    """No test is skipped or expected to fail, and nothing is mocked: stand-ins are servers."""
    found = {str(path.relative_to(ROOT)): names_used(path) & EVASIONS for path in TESTS}
    assert {path: names for path, names in found.items() if names} == {}


def names_used(path: Path) -> set[str]:
    """The attributes and imports in a file."""
    nodes = [*ast.walk(parsed(path))]
    used = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    used |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}
    imports = [node for node in nodes if isinstance(node, ast.Import)]
    return used | {each.name for node in imports for each in node.names}
