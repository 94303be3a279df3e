"""The log: one JSON object per line, with what went wrong and why, and no secret."""

import io
import json
import os
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import pytest

from phone_line.log import write_log
from standins.backend import together
from standins.inside import FORM, ORIGIN, TOKEN, Inside, webhook
from standins.sentences import in_twiml
from standins.upstash import Upstash
from standins.webhooks import Answer, sign

SECRETS: Final = {
    "TWILIO_AUTH_TOKEN": "hush-twilio",
    "UPSTASH_REDIS_REST_TOKEN": "hush-redis",
    "BACKEND_TOKEN": "hush-backend",
    "TWILIO_API_SECRET": "hush-api",
    "ADMIN_TOKEN": "hush-the-admin",
}

Log = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def state(tmp_path: Path) -> dict[str, str]:
    """A place for calls that is this test's own."""
    return {"STATE_FILE": str(tmp_path / "calls")}


@pytest.fixture
def log(capsys: pytest.CaptureFixture[str]) -> Log:
    """Reads the lines logged since the last look."""
    return lambda: [json.loads(each) for each in capsys.readouterr().out.splitlines()]


@pytest.fixture
def talk(state: dict[str, str]) -> Callable[..., Inside]:
    """Plays a call with an account number in it, at a line with these settings."""

    def played(**env: str) -> Inside:
        line = Inside({**state, "FORWARD_TO": "+15550100099", **env})
        phone = line.phone("+15557654321")
        phone.ring()
        phone.say("account four seven eleven")
        phone.retry()
        phone.callee("busy")
        phone.leave_message()
        return line

    return played


def webhooks(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [entry for entry in entries if entry["message"] == "webhook"]


def test_each_webhook_is_a_line_that_can_be_searched(talk: Callable[..., Inside], log: Log) -> None:
    """A line has the call, the turn, the steps, the time in all and in Redis, and the commands."""
    talk()
    lines = webhooks(log())
    assert [(each["turn"], each.get("from"), each.get("to")) for each in lines] == [
        (0, None, "reason"),
        (1, "reason", "connect"),
        (1, None, None),
        (2, "connect", "voicemail"),
        (3, "voicemail", "message_taken"),
    ]
    assert [each.get("replayed", False) for each in lines] == [False, False, True, False, False]
    assert len({each["call"] for each in lines}) == 1
    assert [each["commands"] for each in lines] == [1, 2, 2, 2, 2]
    for each in lines:
        assert each["level"] == "info"
        assert 0 <= each["redis_ms"] <= each["ms"] + 1


def test_a_call_is_one_line_at_its_end(talk: Callable[..., Inside], log: Log) -> None:
    """The summary has the call, how it ended, and how long it took."""
    talk()
    [end] = [entry for entry in log() if entry["message"] == "call ended"]
    assert end["call"].startswith("CA")
    assert end["status"] == "completed"
    assert end["seconds"] > 10


def test_the_log_tells_neither_words_nor_numbers(talk: Callable[..., Inside], log: Log) -> None:
    """By default callers stay private: numbers are masked, and what they said is left out."""
    talk()
    entries = log()
    shown = json.dumps(entries)
    for private in ("four seven", "7654321", "5557654", "+15550100099"):
        assert private not in shown
    assert {entry["caller"] for entry in entries} == {"+15*******21"}


def test_the_operator_may_have_words_logged(talk: Callable[..., Inside], log: Log) -> None:
    """LOG_WORDS=1 shows what was said and who called, for as long as somebody looks for a fault."""
    talk(LOG_WORDS="1")
    shown = webhooks(log())
    assert [each["heard"] for each in shown if "heard" in each] == ["account four seven eleven"] * 2
    assert {each["caller"] for each in shown} == {"+15557654321"}


def test_a_degraded_webhook_is_an_error_with_its_cause(upstash: Upstash, log: Log) -> None:
    """When Redis fails in a call, the webhook's line has level error and says how it failed."""
    phone = Inside({**upstash.settings, "FORWARD_TO": "+15550100099"}).phone()
    phone.ring()
    upstash.fault = lambda _: "502"
    phone.say("my bill")
    [entry] = [each for each in webhooks(log()) if each["turn"] == 1]
    assert entry["level"] == "error"
    assert "502" in entry["degraded"]
    assert upstash.token not in json.dumps(entry)


def test_secrets_stay_out_of_the_log(upstash: Upstash, log: Log) -> None:
    """Whatever happens in a call, no secret that is set is written down."""
    env = {**upstash.settings, **SECRETS, "UPSTASH_REDIS_REST_TOKEN": upstash.token}
    keys = {"TWILIO_ACCOUNT_SID": "AC" + "1" * 32, "TWILIO_API_KEY": "SK" + "2" * 32}
    backend = {"BACKEND_URL": "http://user:hush@127.0.0.1:1/x?key=hush", "RESPONSE_DEADLINE": "1"}
    line = Inside({**env, **keys, **backend})
    upstash.fault = lambda command: "drop" if command[0] == "MGET" else None
    fields = {"CallSid": "CA" + "3" * 32, "AccountSid": keys["TWILIO_ACCOUNT_SID"]}
    for token in (TOKEN, SECRETS["TWILIO_AUTH_TOKEN"]):
        for target in ("/voice", "/voice/process?turn=1&step=listen", "/voice/status"):
            signed(line, token, target, {**fields, "SpeechResult": "hello"})
    line.send("GET", f"/calls/{fields['CallSid']}")
    shown = json.dumps(log())
    assert "signature refused" in shown
    assert "webhook" in shown
    assert "hush" not in shown
    assert upstash.token not in shown


def signed(line: Inside, token: str, target: str, fields: Mapping[str, str]) -> Answer:
    """One webhook, signed with a token that may be wrong."""
    headers = {
        "Content-Type": FORM,
        "X-Twilio-Signature": sign(token, ORIGIN + target, list(fields.items())),
    }
    return line.send("POST", target, urlencode(fields).encode(), headers)


PERSON = "+15550100099"


def unbuffered(file: str | int | Path) -> io.TextIOWrapper:
    """A file as stdout is with PYTHONUNBUFFERED=1, which containers like to set."""
    return io.TextIOWrapper(io.FileIO(file, "w"), write_through=True)


def test_a_log_that_cannot_be_written_costs_no_caller_anything(tmp_path: Path) -> None:
    """Nobody reads the log any more, or it is closed: callers hear words, strangers get a 403."""
    nobody, stdout = os.pipe()
    os.close(nobody)
    shut = io.StringIO()
    shut.close()
    with unbuffered(stdout) as torn:
        for out in (torn, shut):
            with redirect_stdout(out):
                here = Inside({"FORWARD_TO": PERSON, "STATE_FILE": str(tmp_path / "calls")})
                greeted = here.post("/voice/inbound", webhook())
                forged = here.send("POST", "/voice/inbound", b"CallSid=CA1", {"Content-Type": FORM})
                health = here.send("GET", "/healthz")
            assert in_twiml("greeting") in greeted.body.decode()
            assert (greeted.status, forged.status, health.status) == (200, 403, 200)


def test_threads_write_their_own_lines(tmp_path: Path) -> None:
    """However many webhooks log at once, each line of the log is one JSON object."""

    def work() -> None:
        for turn in range(300):
            write_log("info", "a line", turn=turn)

    with unbuffered(tmp_path / "log") as log, redirect_stdout(log):
        together(*[work] * 16)
    lines = (tmp_path / "log").read_text().split("\n")
    assert lines.pop() == ""
    found = [each for each in map(json.loads, lines) if each["message"] == "a line"]
    assert sorted(each["turn"] for each in found) == sorted([*range(300)] * 16)
