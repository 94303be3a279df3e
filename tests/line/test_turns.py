"""One turn has one answer, however often and wherever it is asked; and a call has an end."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from standins.backend import slow_backend
from standins.inside import ORIGIN, Inside, judged, stored, webhook
from standins.sentences import say
from standins.upstash import Upstash, once
from standins.webhooks import Answer

PERSON: Final = "+15550100099"


def test_every_repeat_gets_the_first_answer(file: Path) -> None:
    """A webhook is answered alike on any instance, also after the call has gone on."""
    env = {"FORWARD_TO": PERSON, "STATE_FILE": str(file)}
    phone = Inside(env).phone()
    phone.ring()
    phone.silent()
    phone.say("Ann, my bill")
    phone.callee("no-answer")
    phone.leave_message()
    heard = [each for each in phone.webhooks if each.url.split("?")[0] != f"{ORIGIN}/voice/status"]
    again = Inside(env)
    for sent in reversed(heard):
        assert sent.answer is not None
        assert again.deliver(sent.url, sent.fields, sent.headers).body == sent.answer.body


def test_the_second_of_two_different_webhooks_of_a_turn_hears_the_first(line: Inside) -> None:
    """A turn has one answer: other words for the same turn come too late."""
    target, form = "/voice/process?turn=1&step=reason", webhook()
    first = line.post(target, form | {"SpeechResult": "Ann, my bill"})
    second = line.post(target, form | {"Digits": "0"})
    assert first.body == second.body
    assert b"Ann, my bill" in first.body


@pytest.mark.parametrize("path", ["/voice", "/voice/process?turn=1&step=reason"])
def test_two_instances_answer_one_turn_alike(upstash: Upstash, path: str) -> None:
    """The rival's webhook arrives between our look and our write: both callers hear the rival."""
    env = {"FORWARD_TO": PERSON, **upstash.settings}
    ours, rival = Inside(env), Inside(env)
    form, theirs = webhook(), list[Answer]()
    upstash.before = once(
        "SET", lambda: theirs.append(rival.post(path, form | {"SpeechResult": "Bob, a refund"}))
    )
    mine = ours.post(path, form | {"SpeechResult": "Ann, my bill"})
    assert [each.body for each in theirs] == [mine.body]
    assert b"Ann" not in mine.body


def test_the_end_of_a_call_is_settled_once(
    line: Inside, file: Path, log: Callable[[], list[dict[str, Any]]]
) -> None:
    """The first report of the end stands and is logged in one line; a repeat is answered alike."""
    form = webhook(CallStatus="completed", CallDuration="61")
    assert line.post("/voice/status", form).status == 204
    end = stored(file)
    assert line.post("/voice/status", form | {"CallStatus": "failed"}).status == 204
    assert stored(file) == end
    assert list(end) == [f"call:{form['CallSid']}:end"]
    entries = [entry for entry in log() if entry["message"] == "call ended"]
    assert [(entry["status"], entry["seconds"]) for entry in entries] == [("completed", 61)]


def failed(url: str, **more: str) -> dict[str, str]:
    return webhook(ErrorCode="11200", ErrorUrl=url, **more)


MENU: Final = {"DEPARTMENTS": "billing=+15550100001 sales=+15550100002", "FORWARD_TO": PERSON}


@pytest.mark.long
def test_a_call_has_an_end(file: Path) -> None:
    """A caller who only ever asks is connected before turn 100, and may leave a message."""
    with slow_backend(0) as backend:
        env = {"FORWARD_TO": PERSON, "BACKEND_URL": backend.url, "STATE_FILE": str(file)}
        phone = Inside(env).phone()
        phone.ring()
        turns = 0
        while phone.state in ("gather", "hold"):
            if phone.state == "hold":  # for a moment, on a busy machine
                phone.wait()
            else:
                phone.say("a ticket")
                turns += 1
    assert 90 < turns < 100
    assert phone.state == "dial"
    phone.callee("no-answer")
    assert phone.state == "record"
    phone.leave_message()
    assert phone.state == "ended"
    assert phone.heard[-1] == say("message_taken")
    assert phone.broken == []


@pytest.mark.parametrize("step", ["reason", "menu", "connect", "operator", "voicemail", "nowhere"])
@pytest.mark.parametrize("env", [{}, {"FORWARD_TO": PERSON}, MENU], ids=["alone", "one", "menu"])
def test_the_last_turn_hands_out_no_other(file: Path, env: dict[str, str], step: str) -> None:
    """After turn 100 the line says goodbye: it never names a turn that it would refuse."""
    line = Inside({**env, "STATE_FILE": str(file)})
    target = f"/voice/process?turn=100&step={step}"
    for brought in ({}, {"Digits": "0"}, {"DialCallStatus": "busy"}):
        said = judged(line.post(target, webhook(**brought)))
        assert "turn=" not in said
        assert "<Hangup" in said
