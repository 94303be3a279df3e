"""A bug of ours: the caller hears an apology and gets a person, and Twilio hears no 500."""

import json
import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NoReturn

import pytest

from phone_line.flow import Step
from standins.backend import until
from standins.call import Phone
from standins.inside import ORIGIN, Inside, dialled, judged, webhook
from standins.sentences import in_twiml, say
from standins.twiml import judge_screening
from standins.upstash import Upstash

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


@pytest.mark.parametrize(
    ("failed", "turn"),
    [("turn=2&step=connect&language=en-US", 3), ("turn=2x&step=connect", 91), ("step=connect", 1)],
)
def test_an_apology_at_the_fallback_goes_on_where_the_call_stood(
    line: Inside, failed: str, turn: int
) -> None:
    """The turn is that of the webhook that failed, so that what follows is no repeat of another."""
    break_flow(line)
    sent = webhook(ErrorUrl=f"{ORIGIN}/voice/process?{failed}")
    said = judged(line.post("/voice/fallback", sent))
    assert f'action="/voice/process?turn={turn}&amp;step=operator' in said


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
    """The callee is asked all the same, without name and reason: no mailbox gets the caller."""
    line.line.line = replace(line.line.line, store=None)  # type: ignore[arg-type] # that is the bug
    sent = webhook(ParentCallSid="CA" + "1" * 32)
    answer = line.post("/voice/accept?turn=2&step=connect", sent)
    assert answer.status == 200
    said = answer.body.decode()
    assert judge_screening(said) == []
    assert said.count(in_twiml("whisper_you_silent")) == 2
    assert said.endswith(("<Hangup/></Response>", "<Hangup /></Response>"))
    assert [entry for entry in log() if entry["level"] == "error"]


def apologised(line: Inside) -> Phone:
    """A caller whom a bug of ours has met, while somebody's phone rings."""
    desk = line.line.desk
    del line.line.desk  # any webhook is a bug now
    phone = line.phone()
    phone.ring()
    line.line.desk = desk
    assert phone.heard == [say("apology")]
    phone.pick_up()
    assert phone.callees[0].heard == [say("whisper_you_silent")] * 2
    return phone


@pytest.mark.parametrize("keys", ["", "5"])
def test_an_apology_lets_no_mailbox_have_the_caller(line: Inside, keys: str) -> None:
    """Whoever picks up presses 1, or the caller may leave a message, as after any other words."""
    phone = apologised(line)
    if keys:
        phone.callee_presses(keys)
    else:
        phone.callee_silent()
    assert phone.webhooks[-1].form["DialBridged"] == "false"
    assert phone.heard == [say("no-answer"), say("leave_message")]
    assert phone.state == "record"
    assert phone.broken == phone.warned == []


def test_an_apology_reaches_a_person(line: Inside) -> None:
    """The key 1 takes the call."""
    phone = apologised(line)
    phone.callee_presses("1")
    assert phone.webhooks[-2].form["DialBridged"] == "true"
    assert phone.heard == [say("goodbye")]


@pytest.mark.parametrize(("keys", "bridged"), [("1", "true"), ("5", "false")])
def test_an_apology_reaches_a_person_although_nothing_works(
    line: Inside, keys: str, bridged: str
) -> None:
    """The question to the callee is asked, and its key understood, if every webhook is a bug."""
    del line.line.settings  # from now on no webhook is even verified
    phone = line.phone()
    phone.ring()
    phone.pick_up()
    phone.callee_presses(keys)
    ends = [sent.form for sent in phone.webhooks if "DialBridged" in sent.form]
    assert [form["DialBridged"] for form in ends] == [bridged]
    assert phone.heard == [say("apology"), say("call_again")]
    assert phone.broken == []


def test_an_apology_asks_nobody_where_nobody_can_press_keys(file: Path) -> None:
    """PRESS_1_TO_ACCEPT=0: whoever picks up is connected at once, by an apology as well."""
    line = Inside({"STATE_FILE": str(file), "FORWARD_TO": PERSON, "PRESS_1_TO_ACCEPT": "0"})
    del line.line.desk
    said = judged(line.post("/voice", webhook()))
    assert dialled(said) == [PERSON]
    assert "/voice/accept" not in said


@pytest.mark.parametrize("caller", ["anonymous", "client:ann", "sip:ann@pbx.example"])
def test_an_apology_connects_a_caller_without_a_number(line: Inside, caller: str) -> None:
    """As after any other words, the rung phone shows the line's number, or the Dial would fail."""
    del line.line.desk  # any webhook is a bug now
    said = judged(line.post("/voice", webhook(From=caller)))
    [dial] = re.findall("<Dial[^>]*>", said)
    assert 'callerId="+15550001111"' in dial


def test_an_apology_is_not_cut_short_by_a_push(upstash: Upstash) -> None:
    """A look on hold meets a bug, and a person is rung: the worker elsewhere learns of it."""
    account, call = "AC" + "0" * 32, "CA" + "5" * 32
    env = {"BACKEND_URL": "http://127.0.0.1:1", "TWILIO_ACCOUNT_SID": account}
    here = Inside({**upstash.settings, **env, "FORWARD_TO": PERSON})
    break_flow(here)
    look = f"/voice/process?turn=1&step=think&hold=1&since={int(time.time())}"
    assert in_twiml("apology") in judged(here.post(look, webhook(CallSid=call, AccountSid=account)))
    assert until(lambda: upstash.quietly(["GET", f"call:{call}:1:voice"]) == [b"person"])
