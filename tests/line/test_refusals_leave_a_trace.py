"""A number that is wrongly configured leaves one warning, with what to change; a log survives."""

import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from phone_line import log as log_room
from phone_line.log import warn_sparingly, write_log
from standins.bounds import changed
from standins.inside import Inside, webhook

Log = Callable[[], list[dict[str, Any]]]


@pytest.mark.parametrize(
    ("method", "target", "status", "hint"),
    [
        ("POST", "/voice/inbuond", 404, "/voice/inbound"),
        ("POST", "/webhook", 404, "/voice/inbound"),
        ("POST", "/Voice/Inbound", 404, "/voice/inbound"),
        ("POST", "/twilio/answer", 404, "/voice/inbound"),
        ("GET", "/voice/inbound", 405, "POST"),
        ("GET", "/", 405, "POST"),
    ],
)
def test_a_wrong_url_or_method_is_warned_of(
    line: Inside, log: Log, method: str, target: str, status: int, hint: str
) -> None:
    """Twilio's console shows 404 or 405; the log says what to change there."""
    log()
    answers = [line.send(method, target) for _ in range(20)]
    warnings = [entry for entry in log() if entry["level"] == "warning"]
    assert {answer.status for answer in answers} == {status}
    assert len(warnings) == 1
    assert hint in warnings[0]["message"]


@pytest.mark.parametrize("target", ["/answer", "/call", "/healthz", "/voice/process"])
def test_a_signed_webhook_at_a_wrong_path_is_warned_of(line: Inside, log: Log, target: str) -> None:
    """Whatever the path is called: Twilio calls there, so a number is set to it."""
    log()
    assert line.post(target, webhook()).status in (400, 404, 405)
    [warning] = [entry for entry in log() if entry["level"] == "warning"]
    assert "/voice/inbound" in warning["message"]


def test_a_call_that_rings_at_the_status_url_is_warned_of(line: Inside, log: Log) -> None:
    """The two URLs of a number were mixed up: every call is answered with nothing."""
    log()
    assert line.post("/voice/status", webhook(CallStatus="ringing")).status == 204
    [warning] = [entry for entry in log() if entry["level"] == "warning"]
    assert "/voice/status" in warning["message"]


@pytest.mark.parametrize(("method", "target"), [("POST", "/healthz"), ("DELETE", "/healthz")])
def test_a_wrong_method_elsewhere_is_told_which_is_right(
    line: Inside, log: Log, method: str, target: str
) -> None:
    """The page of health is looked at with GET, and no number has to be changed for it."""
    log()
    answer = line.send(method, target)
    assert (answer.status, answer.body) == (405, b"Use GET.\n")
    assert log() == []


def test_a_webhook_that_is_no_call_is_warned_of(line: Inside, log: Log) -> None:
    """Signed, but without a CallSid: an SMS webhook set to this URL, perhaps."""
    log()
    assert line.post("/voice/inbound", {"MessageSid": "SM1"}).status == 400
    assert any("CallSid" in entry["message"] for entry in log())


def test_a_foreign_account_is_warned_of(file: Path, log: Log) -> None:
    """TWILIO_ACCOUNT_SID is set, and the call is another account's."""
    here = Inside({"TWILIO_ACCOUNT_SID": "AC" + "0" * 32, "STATE_FILE": str(file)})
    assert here.post("/voice/inbound", webhook(AccountSid="AC" + "1" * 32)).status == 403
    assert any("TWILIO_ACCOUNT_SID" in entry["message"] for entry in log())


def test_a_stranger_elsewhere_leaves_no_trace(line: Inside, log: Log) -> None:
    """Robots look for /wp-login.php all day long."""
    log()
    assert line.send("GET", "/wp-login.php").status == 404
    assert log() == []


def test_strangers_cannot_flood_the_log(log: Log) -> None:
    """One warning a minute for each kind, and the next one says how many came since."""
    for _ in range(50):
        warn_sparingly("kind", "refused")
    with changed(log_room, EVERY=0):
        warn_sparingly("kind", "refused")
    assert [entry.get("since_the_last") for entry in log()] == [None, 49]


@pytest.mark.parametrize("path", ["/voice/inbound/", "/voice/", "/webhook/voice/"])
def test_a_slash_at_the_end_is_served(line: Inside, path: str) -> None:
    """No redirect, which would lose what the caller said."""
    assert line.post(path, webhook()).status == 200


def test_a_log_that_nobody_reads_keeps_no_caller_waiting() -> None:
    """The pipe is full after some hundred lines; then lines are dropped, counted, and said."""
    reader, writer = os.pipe()
    done = threading.Event()

    def talk() -> None:
        out = io.TextIOWrapper(io.FileIO(writer, "w"), write_through=True)
        with out as stdout, redirect_stdout(stdout):
            for number in range(2000):
                write_log("info", "x" * 100, number=number)
            done.set()
            assert reading.wait(10)
            write_log("info", "read again")

    reading = threading.Event()
    thread = threading.Thread(target=talk, daemon=True)
    thread.start()
    assert done.wait(10), "a caller would wait for ever"
    lines = os.read(reader, 1 << 20).decode().splitlines()
    reading.set()
    thread.join(10)
    lines += os.read(reader, 1 << 20).decode().splitlines()
    os.close(reader)
    found = [json.loads(each) for each in lines]
    assert found[-1]["message"] == "read again"
    assert found[-1]["dropped"] == 2000 - (len(found) - 1) > 0


def test_a_log_of_plain_ascii_takes_any_words() -> None:
    """PYTHONIOENCODING=ascii: the line is there, its letters escaped."""
    program = (
        "from phone_line.log import write_log; write_log('info', 'Grüße', words='日本 \\u202e')"
    )
    env = {**os.environ, "PYTHONIOENCODING": "ascii"}
    run = subprocess.run(
        [sys.executable, "-c", program],
        env=env,
        capture_output=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert json.loads(run.stdout) == {"level": "info", "message": "Grüße", "words": "日本 \u202e"}


def test_a_line_that_a_pipe_would_split_is_cut(log: Log) -> None:
    """Longer than a pipe takes in one piece: the message is there, the fields are not."""
    write_log("info", "a long line", words="x" * 10_000)
    [entry] = log()
    assert entry["message"] == "a long line"
    assert entry["cut"] > 10_000
