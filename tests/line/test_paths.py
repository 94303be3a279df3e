"""The paths of the line: Twilio's, the platform's, and nothing else."""

from pathlib import Path
from typing import Final
from urllib.parse import urlencode

import pytest

from standins.inside import Inside, judged, stored, webhook
from standins.sentences import in_twiml

GREETING: Final = in_twiml("greeting")
QUESTION: Final = in_twiml("ask_reason")
VOICE_PATHS: Final = ("/", "/voice", "/voice/inbound", "/webhook/voice")
PATHS: Final = (*VOICE_PATHS, "/voice/process?turn=1&step=reason", "/voice/status")


@pytest.mark.parametrize("path", [*VOICE_PATHS, *(f"{path}/" for path in VOICE_PATHS[1:])])
def test_a_call_may_begin_at_any_of_the_usual_paths(line: Inside, path: str) -> None:
    """The paths that tutorials use all greet the caller and ask the first question."""
    said = judged(line.post(path, webhook(CallStatus="ringing")))
    assert GREETING in said
    assert QUESTION in said


@pytest.mark.parametrize("path", ["/nothing", "/voice//", "/voice/inbound/x", "/VOICE", "/.env"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_there_is_nothing_elsewhere(line: Inside, file: Path, method: str, path: str) -> None:
    """Any other path is 404 in plain words, signed or not, and stores nothing."""
    signed = line.post(path, webhook())
    plain = line.send(method, path)
    assert [(each.status, each.kind) for each in (signed, plain)] == [(404, "text/plain")] * 2
    assert stored(file) == {}


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("path", [*PATHS, "/voice/fallback"])
def test_webhooks_are_posted(line: Inside, method: str, path: str) -> None:
    """Another method is 405, and the answer says which one would do."""
    answer = line.send(method, path)
    assert (answer.status, answer.headers["Allow"]) == (405, "POST")


def test_health_is_read(line: Inside) -> None:
    """The health of the line is asked for with GET or HEAD, not POST."""
    assert line.send("GET", "/healthz").status == 200
    assert line.send("HEAD", "/healthz").status == 200
    refused = line.send("POST", "/healthz")
    assert (refused.status, refused.headers["Allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("path", [*PATHS, "/nothing", "/healthz"])
def test_a_large_body_is_refused(line: Inside, file: Path, path: str) -> None:
    """One megabyte is 413 wherever it is sent, before anything of it is looked at."""
    answer = line.post(path, webhook(SpeechResult="a" * (1 << 20)))
    assert (answer.status, answer.kind) == (413, "text/plain")
    assert stored(file) == {}


def test_a_body_of_64_kilobytes_is_taken(line: Inside) -> None:
    """The limit itself is no large body."""
    room = 64 * 1024 - len(urlencode(webhook(SpeechResult="")))
    assert line.post("/voice", webhook(SpeechResult="a" * room)).status == 200
    assert line.post("/voice", webhook(SpeechResult="a" * (room + 1))).status == 413
