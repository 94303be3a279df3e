"""The worked example of a language model: the pizzeria can be called, without any account."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from typing import Final

import pytest

import receptionist
from standins.instance import ROOT
from standins.model import Model, fails, says

PERSON: Final = receptionist.SETTINGS["FORWARD_TO"]
NO_ENV: Final[Mapping[str, str]] = {}


def call_pizzeria(
    *options: str, script: str = "", env: Mapping[str, str] = NO_ENV
) -> subprocess.CompletedProcess[str]:
    """The command, fed with a script."""
    clean = {name: value for name, value in os.environ.items() if name not in receptionist.REAL}
    return subprocess.run(
        [sys.executable, "tests/receptionist.py", *options],
        cwd=ROOT,
        input=script,
        capture_output=True,
        text=True,
        timeout=90,
        env={**clean, **env},
        check=False,
    )


def events(done: subprocess.CompletedProcess[str]) -> list[str]:
    """The events of the call, without comments."""
    return [event for event in done.stdout.splitlines() if not event.startswith("#")]


def test_the_pizzeria_is_called_without_an_account() -> None:
    """A stand-in that writes Markdown and fenced JSON is heard in plain words, and connects."""
    done = call_pizzeria("--play")
    assert done.returncode == 0, done.stdout + done.stderr
    assert events(done)[3:10] == [
        "caller: Do you have anything vegetarian?",
        "line: Yes! Margherita. Verdura. Which one would you like?",
        "caller: How much is the Margherita?",
        "line: The Margherita is 9 euros. Would you like to order it?",
        "caller: I am allergic to nuts. Can I ask the kitchen?",
        "line: The kitchen knows that best.",
        "line dials +15550100001",
    ]
    assert len(re.findall(r"^# turn \d: [\d.]+ s, 57 tokens$", done.stdout, re.MULTILINE)) == 3


@pytest.mark.long
def test_whoever_reads_no_more_sees_no_traceback() -> None:
    """With `| head` the call ends where the reader has seen enough."""
    with subprocess.Popen(
        [sys.executable, str(ROOT / "tests/receptionist.py"), "--play"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as command:
        assert command.stdout is not None
        assert command.stderr is not None
        assert command.stdout.readline()
        command.stdout.close()
        assert "Traceback" not in command.stderr.read()


@pytest.mark.long
def test_the_pizzeria_is_called_from_the_keyboard() -> None:
    """Without --play the caller is whoever types, and every command of the terminal works."""
    script = "When do you open?\n!kill\nI want to complain to a manager\n!answer 30\n"
    done = call_pizzeria(script=script)
    assert done.returncode == 0, done.stdout + done.stderr
    assert events(done)[4:9] == [
        "line: We are open from Tuesday to Sunday, from 5 to 11.",
        "instance is killed",
        "caller: I want to complain to a manager",
        "line: Let me find a colleague.",
        f"line dials {PERSON}",
    ]
    assert "callee answers (30 s)" in done.stdout


@pytest.mark.long
def test_the_same_conversation_runs_against_a_real_endpoint() -> None:
    """Where BACKEND_URL is given that model is asked, with the same prompt and the same words."""
    with Model(lambda _: says("Let me see.")) as model:
        done = call_pizzeria("--play", env=model.settings)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [talk.heard for talk in model.talks] == [*receptionist.CALLER]
    assert receptionist.PROMPT.strip() in model.talks[0].instructions
    assert "caller hangs up" in done.stdout


@pytest.mark.long
def test_an_endpoint_that_refuses_is_told_in_plain_words() -> None:
    """A key without rights: the caller gets a person, and the command says why, and fails."""
    with Model(lambda _: fails(403)) as model:
        done = call_pizzeria("--play", env=model.settings)
    assert done.returncode == 1
    assert f"line dials {PERSON}" in done.stdout
    assert "it answered 403: BACKEND_TOKEN may not use this model" in done.stdout


def test_an_endpoint_needs_the_name_of_a_model() -> None:
    """BACKEND_URL alone is a wrong command, and starts nothing."""
    done = call_pizzeria(env={"BACKEND_URL": "http://127.0.0.1:9/v1/chat/completions"})
    assert done.returncode == 2
    assert "BACKEND_URL needs BACKEND_MODEL" in done.stderr
    assert done.stdout == ""
