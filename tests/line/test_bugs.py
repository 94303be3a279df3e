"""A bug of ours: the caller hears an apology and gets a person, and Twilio hears no 500."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NoReturn

import pytest

from phone_line.flow import Step
from standins.inside import ORIGIN, Inside, dialled, judged, webhook
from standins.sentences import in_twiml
from standins.twiml import judge_screening

PERSON: Final = "+15550100099"
VOICE_PATHS: Final = ("/", "/voice", "/voice/inbound", "/webhook/voice")
PATHS: Final = (*VOICE_PATHS, "/voice/process?turn=1&step=reason", "/voice/status")


class Broken(dict[str, Step]):
    """A table of steps in which nothing can be found: a bug, as bad as they come."""

    def get(self, *_: object) -> NoReturn:
        raise RuntimeError("my secret")


def break_flow(here: Inside) -> None:
    """Give an instance a table in which nothing can be found."""
    plan = replace(here.line.line.plan, flow=Broken())
    here.line.line = replace(here.line.line, plan=plan)


@pytest.mark.parametrize("path", [*PATHS[:-1], "/voice/fallback"])
def test_a_bug_of_ours_is_apologised_for(
    line: Inside, log: Callable[[], list[dict[str, Any]]], path: str
) -> None:
    """A bug is an apology and a person, never a 500; the log has the place, not the words."""
    break_flow(line)
    sent = webhook(SpeechResult="my secret", ErrorUrl=ORIGIN + "/voice")
    said = judged(line.post(path, sent))
    assert in_twiml("apology") in said
    assert dialled(said) == [PERSON]
    logged = [entry for entry in log() if entry["level"] == "error"]
    assert logged
    assert re.search(r"RuntimeError at \w+\.py:\d+", json.dumps(logged))
    assert "my secret" not in json.dumps(logged)


def test_a_bug_without_a_person_is_apologised_for(file: Path) -> None:
    """With nobody to connect to, the apology asks the caller to call again."""
    line = Inside({"STATE_FILE": str(file)})
    break_flow(line)
    said = judged(line.post("/voice", webhook()))
    assert in_twiml("call_again") in said
    assert "<Dial" not in said


def test_a_bug_at_the_end_of_a_call_is_no_answer(tmp_path: Path) -> None:
    """TwiML with 200 would say that all is taken care of: 503 makes Twilio ask again."""
    backend = {"BACKEND_URL": "http://127.0.0.1:1"}
    here = Inside({**backend, "STATE_FILE": str(tmp_path / "calls")})
    del here.line.teller
    answer = here.post("/voice/status", webhook(CallStatus="completed"))
    assert (answer.status, answer.kind) == (503, "text/plain")


def test_a_bug_in_a_whisper_takes_no_call(
    line: Inside, log: Callable[[], list[dict[str, Any]]]
) -> None:
    """The callee is hung up on, or a mailbox would be joined with the caller; no Dial (13201)."""
    line.line.line = replace(line.line.line, store=None)  # type: ignore[arg-type] # that is the bug
    sent = webhook(ParentCallSid="CA" + "1" * 32)
    answer = line.post("/voice/accept?turn=2&step=connect", sent)
    assert answer.status == 200
    said = answer.body.decode()
    assert judge_screening(said) == []
    assert said.endswith(("<Hangup/></Response>", "<Hangup /></Response>"))
    assert [entry for entry in log() if entry["level"] == "error"]


@pytest.mark.parametrize("caller", ["anonymous", "client:ann", "sip:ann@pbx.example"])
def test_an_apology_connects_a_caller_without_a_number(line: Inside, caller: str) -> None:
    """As after any other words, the rung phone shows the line's number, or the Dial would fail."""
    del line.line.desk  # any webhook is a bug now
    said = judged(line.post("/voice", webhook(From=caller)))
    [dial] = re.findall("<Dial[^>]*>", said)
    assert 'callerId="+15550001111"' in dial
