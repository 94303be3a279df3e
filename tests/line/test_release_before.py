"""Calls that began on the release before this one go on, from the very cells that it wrote.

`tests/records/release_before/calls.json` was written by that release: what it had settled while a
caller was on hold, after the backend had answered, and at the end of a call. From 2027-02-01 on no
such call can be in progress, and this file can go, with what it tests (see `records.py`).
"""

import json
import time
from pathlib import Path
from typing import Any, Final

import pytest

from standins.backend import Backend, Question, Reply, says
from standins.inside import Inside, judged, line_with, webhook
from standins.twilio_api import TwilioApi
from standins.upstash import Upstash

CALLS: Final[dict[str, Any]] = json.loads(
    Path(__file__).parents[1].joinpath("records", "release_before", "calls.json").read_text("utf-8")
)
SID: Final = "CA" + "5" * 32
LOOK: Final = "/voice/process?turn=1&step=think&hold=1"  # as that release wrote it
MENU: Final = {"DEPARTMENTS": "billing=+15550100001 cancel=+15550100002"}


def fill(upstash: Upstash, cells: dict[str, str], lease: int = 1) -> None:
    """Put saved cells into the database, as if their call were going on now."""
    for key, value in cells.items():
        seconds = lease if key.endswith(":lease") else 600
        asked_now = (
            json.dumps(json.loads(value) | {"at": time.time()}) if ":asked" in key else value
        )
        upstash.quietly(["SET", key, asked_now, "EX", str(seconds)])


def answers(words: str, then: str = "listen") -> Backend:
    """A backend that says this at once."""

    def decide(question: Question) -> Reply:
        return says(words if question.heard else "", then)

    return Backend(decide)


def test_an_answer_that_the_release_before_kept_is_heard(upstash: Upstash) -> None:
    """The backend had answered, the deploy came: the next look says it, and nobody is asked."""
    with answers("Something else.") as backend:
        here = line_with(upstash, backend, **MENU)
        fill(upstash, CALLS["listen"]["answered"])
        said = judged(here.post(LOOK, webhook(CallSid=SID)))
        again = judged(here.post(LOOK, webhook(CallSid=SID)))
        reply = here.post(next_of(said), webhook(CallSid=SID, SpeechResult="yes"))
        asked = [question.body["heard"] for question in backend.questions]
    assert "A train leaves at 9:15. Shall I book it?" in said
    assert again == said
    assert asked == ["yes"]
    assert backend.questions[0].body["history"][-1]["heard"] == "a ticket to Hamburg"
    assert "Something else." in judged(reply)


def test_an_answer_of_the_release_before_is_heard_by_a_repeat(upstash: Upstash) -> None:
    """Twilio repeats the very webhook of the question: its answer stands, and nobody is asked."""
    with answers("Something else.") as backend:
        here = line_with(upstash, backend, RESPONSE_DEADLINE="2", **MENU)
        fill(upstash, CALLS["listen"]["answered"])
        repeat = webhook(CallSid=SID, SpeechResult="a ticket to Hamburg")
        said = judged(here.post("/voice/process?turn=1&step=listen", repeat))
        assert backend.questions == []
    assert "A train leaves at 9:15. Shall I book it?" in said


def test_a_transfer_that_the_release_before_kept_is_dialled(upstash: Upstash) -> None:
    """What the backend had decided is what happens: that department is rung."""
    with answers("") as backend:
        here = line_with(upstash, backend, **MENU)
        fill(upstash, CALLS["transfer"]["answered"])
        assert "+15550100001</Number>" in judged(here.post(LOOK, webhook(CallSid=SID)))


def test_a_question_of_the_release_before_is_taken_over(upstash: Upstash) -> None:
    """Its worker is gone with its instance: when the lease has run out, ours asks."""
    with answers("Booked.") as backend:
        here = line_with(upstash, backend, RESPONSE_DEADLINE="2")
        fill(upstash, CALLS["listen"]["while_asked"], lease=1)
        time.sleep(1.2)
        assert "Booked." in judged(here.post(LOOK, webhook(CallSid=SID)))
        assert [question.key for question in backend.questions] == [f"{SID}:1"]


def test_a_lease_of_the_release_before_is_respected(upstash: Upstash) -> None:
    """Its worker is alive on another instance: the caller is held, and the backend asked by it."""
    with answers("Booked.") as backend:
        here = line_with(upstash, backend, RESPONSE_DEADLINE="1")
        fill(upstash, CALLS["listen"]["while_asked"], lease=60)
        assert "<Redirect>" in judged(here.post(LOOK, webhook(CallSid=SID)))
        assert backend.questions == []


def test_a_push_of_the_release_before_brings_the_answer(upstash: Upstash) -> None:
    """Its worker has claimed the voice and moved the call here: the answer is said."""
    with answers("") as backend, TwilioApi("secret") as api:
        account = {"TWILIO_ACCOUNT_SID": api.account}
        here = line_with(upstash, backend, **account, **MENU)
        fill(
            upstash,
            CALLS["listen"]["answered"] | {f"call:{SID}:1:voice": "push by 0123456789abcdef"},
        )
        fields = webhook(CallSid=SID, AccountSid=api.account)
        assert "Shall I book it?" in judged(here.post(LOOK + "&pushed=1", fields))


def test_a_hold_of_the_release_before_goes_on_without_redis(upstash: Upstash) -> None:
    """Its URLs name no time: the holds are counted, and after two minutes a person is rung."""
    with answers("") as backend:
        here = line_with(upstash, backend, RESPONSE_DEADLINE="1")
        upstash.fault = lambda _: "drop"
        early = judged(here.post(LOOK.replace("hold=1", "hold=9"), webhook(CallSid=SID)))
        late = judged(here.post(LOOK.replace("hold=1", "hold=20"), webhook(CallSid=SID)))
    assert "<Redirect>" in early
    assert "<Dial" in late


RECORDING: Final = "https://api.twilio.com/2010-04-01/Accounts/AC1/Recordings/RE1"


@pytest.mark.parametrize(
    ("marks", "told"),
    [
        ([], ["voicemail", "ended"]),
        (["voicemail:sent"], ["ended"]),
        (["voicemail:sent", "ended:sent"], []),
    ],
)
def test_a_call_of_the_release_before_ends_as_it_should(
    upstash: Upstash, marks: list[str], told: list[str]
) -> None:
    """Its voicemail and its end stand in cells: the backend is told, once, what it was not yet."""
    message = {f"call:{SID}:voicemail": json.dumps({"recording_url": RECORDING})}
    sent = {f"call:{SID}:{mark}": "1" for mark in marks}
    with answers("") as backend:
        here = line_with(upstash, backend)
        fill(upstash, CALLS["menu"]["cells"] | message | sent)
        ended = webhook(CallSid=SID, CallStatus="completed", CallDuration="33")
        assert [here.post("/voice/status", ended).status for _ in range(2)] == [204, 204]
        bodies = [question.body for question in backend.questions]
    assert [body["event"] for body in bodies] == told
    assert [body["recording_url"] for body in bodies if "recording_url" in body] == (
        [RECORDING] if "voicemail" in told else []
    )


@pytest.mark.parametrize("turn", [1, 2, 3])
def test_a_webhook_of_the_release_before_is_repeated_word_for_word(
    tmp_path: Path, turn: int
) -> None:
    """What it answered is answered again, byte for byte, whatever this release would say."""
    here = Inside({"FORWARD_TO": "+15550100099", "STATE_FILE": str(tmp_path / "calls"), **MENU})
    cells = CALLS["menu"]["cells"]
    value = cells[f"call:{SID}:{turn + 1}"]
    here.line.line.store.execute(
        ["SET", f"call:{SID}:{turn + 1}", value, "NX", "GET", "EX", "600"], time.monotonic() + 5
    )
    said = here.post(f"/voice/process?turn={turn}&step=menu", webhook(CallSid=SID, Digits="2"))
    assert said.body.decode() == json.loads(value)["twiml"]


def next_of(twiml: str) -> str:
    """The target at which Twilio would bring the caller's answer."""
    return twiml.partition('action="')[2].partition("#")[0].replace("&amp;", "&")
