"""What a reader of main.py once found wrong, so that it stays mended."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from backend import Backend, Question, Reply, says, until
from inside import FORM, Inside
from upstash import Upstash

import main

PERSON = "+15550100099"
LISTEN = "/voice/process?turn=1&step=listen"


@pytest.fixture
def upstash() -> Iterator[Upstash]:
    """A database of the test's own."""
    with Upstash() as upstash:
        yield upstash


def line(upstash: Upstash, backend: Backend, **env: str) -> Inside:
    """A line with a backend, on a database."""
    backed = {"BACKEND_URL": backend.url, "FORWARD_TO": PERSON}
    return Inside({**upstash.settings, **backed, **env})


def after(seconds: float) -> Backend:
    """A backend that takes its time."""

    def decide(_: Question) -> Reply:
        time.sleep(seconds)
        return says("Booked.")

    return Backend(decide)


def webhook(call_sid: str, **more: str) -> dict[str, str]:
    return {"CallSid": call_sid, "From": "+15557654321", "To": "+15550001111", **more}


def test_an_unsigned_form_of_a_thousand_parts_is_refused(upstash: Upstash) -> None:
    """What cannot even be read is no bug of ours: nobody unsigned hears an apology or a number."""
    part = b"--b\r\nContent-Disposition:form-data;name=a\r\n\r\n\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    here = Inside({"FORWARD_TO": PERSON, **upstash.settings})
    answer = here.send("POST", "/voice/inbound", part * 1100 + b"--b--\r\n", headers)
    assert answer.status == 403
    assert PERSON.encode() not in answer.body
    assert upstash.commands == []
    assert here.send("POST", "/voice/inbound", b"a=1&" * 9000, {"Content-Type": FORM}).status == 403


def test_the_fallback_knows_what_the_caller_said(upstash: Upstash) -> None:
    """A webhook fails while a worker thinks: the caller gets its answer, and is not asked again."""
    with after(2) as backend:
        here = line(upstash, backend, RESPONSE_DEADLINE="1")
        phone = here.phone()
        phone.ring()
        held = here.post(LISTEN, webhook(phone.call_sid, SpeechResult="a ticket"))
        assert b"One moment" in held.body
        time.sleep(2)
        url = "https://line.example/voice/process?turn=1&step=listen"
        said = here.post("/voice/fallback", webhook(phone.call_sid, ErrorUrl=url)).body
        assert b"Booked." in said
        assert len(backend.questions) == 1


def test_a_blink_of_redis_keeps_a_held_caller_on_hold(upstash: Upstash) -> None:
    """Another instance cannot read the result just now: it holds, and asks no second time."""
    with after(3) as backend:
        worker, other = (line(upstash, backend, RESPONSE_DEADLINE="1") for _ in range(2))
        phone = worker.phone()
        phone.ring()
        worker.post(LISTEN, webhook(phone.call_sid, SpeechResult="a ticket"))
        gone = f"call:{phone.call_sid}:1:result"
        upstash.fault = lambda c: "drop" if c == ["MGET", gone] else None
        said = other.post(LISTEN + "&hold=1", webhook(phone.call_sid)).body
        assert b"<Redirect>" in said
        assert b"<Dial" not in said
        assert len(backend.questions) == 1


def test_the_end_of_patience_comes_within_the_deadline(upstash: Upstash) -> None:
    """Two minutes are over and Redis hangs on writes: a person, in time all the same."""
    with after(0) as backend:
        here = line(upstash, backend, RESPONSE_DEADLINE="1.5")
        phone = here.phone()
        phone.ring()
        asked = main.Asked("a ticket", at=time.time() - 130, step="think")
        cell = f"call:{phone.call_sid}:1:asked"
        upstash.quietly(["SET", cell, main.written(asked), "EX", "600"])
        upstash.fault = lambda c: "hang" if c[0] == "SET" else None
        began = time.monotonic()
        said = here.post(LISTEN + "&hold=4", webhook(phone.call_sid)).body
        assert time.monotonic() - began < 1.8
        assert PERSON.encode() in said


def test_redis_that_hangs_leaves_the_backend_its_time(upstash: Upstash) -> None:
    """What was said cannot be settled: the backend is asked once, and its quick answer is heard."""
    with after(0) as backend:
        here = line(upstash, backend, RESPONSE_DEADLINE="2.5")
        phone = here.phone()
        phone.ring()
        upstash.fault = lambda c: "hang" if c[0] == "SET" and c[1].endswith(":asked") else None
        said = here.post(LISTEN, webhook(phone.call_sid, SpeechResult="a ticket")).body
        assert b"Booked." in said
        assert len(backend.questions) == 1


class Lagging(main.SQLite):
    """A store whose reads come from a replica that knows nothing yet."""

    def execute(self, command: list[str], until: float) -> Any:  # noqa: ANN401 # as main.SQLite
        if command[0] == "MGET":
            return [None] * len(command[1:])
        return super().execute(command, until)


def test_a_replica_that_lags_does_not_ask_twice(tmp_path: Path) -> None:
    """A new worker does not believe an empty result before the primary says so."""
    with after(0) as backend:
        here = Inside({"BACKEND_URL": backend.url, "STATE_FILE": str(tmp_path / "calls")})
        here.line.desk.store = Lagging(str(tmp_path / "calls"))
        hook = main.Hook("CA" + "1" * 32, "", "", "https://line.example", main.Heard(), turn=1)
        job = main.Job(hook, main.Asked("a ticket", at=time.time(), step="think"))
        answer = main.Answer("Booked long ago.", "hangup")
        here.line.desk.conclude(job, answer)
        assert here.line.desk.consult(job) == answer
        assert backend.questions == []


@pytest.mark.parametrize(
    ("words", "step"),
    [("no, billing", "to_billing"), ("no, operator please", "operator"), ("no cancel", "menu")],
)
def test_a_no_can_bring_the_right_word_along(words: str, step: str) -> None:
    """Did you say cancel? No, billing: that is an answer, not only a no."""
    menu = {"DEPARTMENTS": "billing=+15550100001 cancel=+15550100002", "FORWARD_TO": PERSON}
    settings = main.read_settings({"TWILIO_AUTH_TOKEN": "t", **menu})
    plan = main.Plan(main.flow(settings), settings.words, settings.numbers)
    call = main.Call(turn=2, step="menu", guess="to_cancel")
    after_, _ = main.decide(plan, call, main.Heard(speech=words, confidence=0.9))
    assert after_.step == step


def test_a_say_keeps_both_of_twilios_limits() -> None:
    """Letters of several bytes are cut sooner: the other limit is 4500 bytes, URL-encoded."""
    assert len(quote(main.sayable("Жук " * 900))) <= main.ENCODED
    assert main.sayable("Short.") == "Short."


def test_one_teller_brings_an_event(upstash: Upstash) -> None:
    """Twilio repeats the end of a call while the backend fails: nothing is told in parallel."""

    def broken(_: Question) -> Reply:
        return Reply(b"no", 500)

    with Backend(broken) as backend:
        here = line(upstash, backend, RESPONSE_DEADLINE="1")
        phone = here.phone()
        phone.ring()
        ended = webhook(phone.call_sid, CallStatus="completed", CallDuration="3")
        assert [here.post("/voice/status", ended).status for _ in range(3)] == [503, 503, 503]
        assert len(here.line.desk.telling) == 1
        assert until(lambda: len(backend.questions) >= 2)
        assert len(backend.questions) <= 3
