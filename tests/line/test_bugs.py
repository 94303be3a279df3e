"""A bug of ours: the caller hears an apology and gets a person, and Twilio hears no 500."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NoReturn

import pytest

import main
from standins.inside import ORIGIN, Inside, judged, webhook
from standins.sentences import in_twiml

PERSON: Final = "+15550100099"
VOICE_PATHS: Final = ("/", "/voice", "/voice/inbound", "/webhook/voice")
PATHS: Final = (*VOICE_PATHS, "/voice/process?turn=1&step=reason", "/voice/status")


class Broken(dict[str, main.Step]):
    """A table of steps in which nothing can be found: a bug, as bad as they come."""

    def get(self, *_: object) -> NoReturn:
        raise RuntimeError("my secret")


@pytest.mark.parametrize("path", [*PATHS[:-1], "/voice/fallback"])
def test_a_bug_of_ours_is_apologised_for(
    line: Inside, log: Callable[[], list[dict[str, Any]]], path: str
) -> None:
    """A bug is an apology and a person, never a 500; the log has the place, not the words."""
    line.line.plan = replace(line.line.plan, flow=Broken())
    sent = webhook(SpeechResult="my secret", ErrorUrl=ORIGIN + "/voice")
    said = judged(line.post(path, sent))
    assert in_twiml("apology") in said
    assert f"<Number>{PERSON}</Number>" in said
    logged = [entry for entry in log() if entry["level"] == "error"]
    assert logged
    assert "RuntimeError at line" in json.dumps(logged)
    assert "my secret" not in json.dumps(logged)


def test_a_bug_without_a_person_is_apologised_for(file: Path) -> None:
    """With nobody to connect to, the apology asks the caller to call again."""
    line = Inside({"STATE_FILE": str(file)})
    line.line.plan = replace(line.line.plan, flow=Broken())
    said = judged(line.post("/voice", webhook()))
    assert in_twiml("call_again") in said
    assert "<Dial" not in said


def test_a_bug_at_the_end_of_a_call_is_no_answer(tmp_path: Path) -> None:
    """TwiML with 200 would say that all is taken care of: 503 makes Twilio ask again."""
    backend = {"BACKEND_URL": "http://127.0.0.1:1"}
    here = Inside({**backend, "STATE_FILE": str(tmp_path / "calls")})
    del here.line.desk.waits
    answer = here.post("/voice/status", webhook(CallStatus="completed"))
    assert (answer.status, answer.kind) == (503, "text/plain")
