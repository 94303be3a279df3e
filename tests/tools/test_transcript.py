"""Calls as text: what a phone wrote down can be played again."""

import pytest

from standins.call import Phone
from standins.canned import GATHER, TOKEN, Canned, voicemail
from standins.transcript import Transcript, run_script

CALL = """
    # how an unanswered call goes
    set FORWARD_TO=+15550100099
    rings
    line: Which?
    caller: billing (confidence 0.3)
    line: Connecting ...
    line dials +15550100099
    twilio retries
    the lights go out
    callee does not answer
    line records
    caller leaves a message (12 s)
    line: Thank you.
    line waits 2 s
    line: Goodbye.
    line hangs up
"""


def test_a_transcript_plays_as_written(line: Canned) -> None:
    """A call as text is dialled again, line by line, hooks of the outside world included."""
    dark: list[str] = []
    call = Transcript(CALL)
    assert call.settings == {"FORWARD_TO": "+15550100099"}
    assert call.play(voicemail(line), {"the lights go out": lambda: dark.append("dark")}) == []
    assert dark == ["dark"]
    assert line.forms("/next")[0]["Confidence"] == "0.3"
    assert line.forms("/recorded")[0]["RecordingDuration"] == "12"


def test_what_a_phone_wrote_down_can_be_played_again(line: Canned) -> None:
    """A phone's own transcript is a test case that passes."""
    phone = voicemail(line)
    phone.ring()
    phone.say("billing", None)
    phone.callee("busy")
    phone.leave_message()
    phone.wait()
    assert run_script(voicemail(line), phone.transcript) == []


@pytest.mark.parametrize(
    ("written", "instead", "complaint"),
    [
        ("line: Which?", "line: Who?", "it was 'line: Which?'"),
        ("line: Which?", "line: Wh ... ?", "it was 'line: Which?'"),
        ("line: Which?", "line: Wh", "it was 'line: Which?'"),
        ("line: Which?", "", "before it came 'line: Which?'"),
        ("line hangs up", "", "not in the transcript: 'line hangs up'"),
        ("callee does not answer", "caller presses 1", "'dial'"),
        ("callee does not answer", "callee sneezes", "no event"),
        ("callee does not answer", "line: Hello?", "waits for dial"),
        ("the lights go out", "the lights come on", "no event"),
    ],
)
def test_a_transcript_that_differs_says_where(
    line: Canned, written: str, instead: str, complaint: str
) -> None:
    """The first difference is told in words, with the call so far."""
    differences = Transcript(CALL.replace(written, instead)).play(
        voicemail(line), {"the lights go out": list}
    )
    assert complaint in differences[0]
    assert differences[1] == "rings"


def test_a_retry_that_answers_otherwise_is_a_difference(line: Canned) -> None:
    """`twilio retries` stands for the same words again."""
    line.on("/voice/inbound", GATHER.format(""), "<Hangup/>", "<Hangup/>")
    (complaint, *_) = run_script(
        Phone(line.url, token=TOKEN), ["rings", "line: Which?", "twilio retries"]
    )
    assert "answered differently" in complaint
