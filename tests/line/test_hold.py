"""A caller on hold: whatever fails meanwhile, the backend is asked once and heard."""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from phone_line.flow import Ask, Step, Tell, Transfer, Voicemail
from phone_line.records import Answer, Question, Record, write_record
from phone_line.sqlite import SQLite
from standins.backend import Backend, says, slow_backend, until
from standins.inside import Inside, fill_cell, line_with, new_call, no_threads, webhook
from standins.rows import first_quick
from standins.sentences import in_twiml
from standins.timing import LATE
from standins.upstash import Upstash

PERSON = "+15550100099"
LISTEN = "/voice/process?turn=1&step=listen"
THINK = "/voice/process?turn=1&step=think"
ACCOUNT = "AC" + "0" * 32


@pytest.fixture
def upstash() -> Iterator[Upstash]:
    """A database of the test's own."""
    with Upstash() as upstash:
        yield upstash


def ask_elsewhere(upstash: Upstash, backend: Backend) -> tuple[Inside, dict[str, str]]:
    """One instance works on a caller's question; another one, and the webhook of the question."""
    worker, other = (line_with(upstash, backend, RESPONSE_DEADLINE="1") for _ in range(2))
    phone = worker.phone()
    phone.ring()
    said = webhook(CallSid=phone.call_sid, SpeechResult="a ticket")
    worker.post(LISTEN, said)
    return other, said


def test_a_blink_of_redis_keeps_a_held_caller_on_hold(upstash: Upstash) -> None:
    """Another instance cannot read the result just now: it holds, and asks no second time."""
    with slow_backend(3) as backend:
        other, said = ask_elsewhere(upstash, backend)
        gone = f"call:{said['CallSid']}:2"  # where the answer will stand
        upstash.fault = lambda c: "drop" if c == ["GETEX", gone] else None
        seen = other.post(LISTEN + "&hold=1", webhook(CallSid=said["CallSid"])).body
        assert b"<Redirect>" in seen
        assert b"<Dial" not in seen
        assert len(backend.questions) == 1


@pytest.mark.parametrize("fault", first_quick(["drop", "502", "quota"]))
def test_a_look_that_can_read_nothing_is_held(fault: str, upstash: Upstash) -> None:
    """The question stands, so its caller waits: no person, and no second question, for a blink."""
    with slow_backend(3) as backend:
        other, said = ask_elsewhere(upstash, backend)
        upstash.fault = lambda c: fault if c[0] == "MGET" else None
        look = f"{THINK}&hold=1&since={int(time.time())}"
        seen = other.post(look, webhook(CallSid=said["CallSid"])).body
        assert b"<Redirect>" in seen
        assert b"<Dial" not in seen
        assert len(backend.questions) == 1


@pytest.mark.parametrize("fault", first_quick(["drop", "502", "quota"]))
def test_a_repeat_that_sees_no_answer_is_held(fault: str, upstash: Upstash) -> None:
    """Twilio repeats the question itself: it stands, so nobody asks the backend a second time."""
    with slow_backend(3) as backend:
        other, said = ask_elsewhere(upstash, backend)
        upstash.fault = lambda c: fault if c[-1].endswith(":result") else None
        assert b"<Redirect>" in other.post(LISTEN, said).body
        assert len(backend.questions) == 1


def test_a_silence_remembers_since_when_the_caller_waits(upstash: Upstash) -> None:
    """A push is on its way: whoever waits for it waits no two minutes more when Redis is away."""
    with slow_backend(0) as backend:
        here = line_with(upstash, backend, TWILIO_ACCOUNT_SID=ACCOUNT)
        call, asked_at = new_call(), int(time.time()) - 60
        late = Record(turn=2, step="listen", twiml="<Response>Booked.</Response>", late=1)
        upstash.quietly(["SET", f"call:{call}:2", write_record(late), "EX", "600"])
        upstash.quietly(["SET", f"call:{call}:1:voice", "push by somebody", "EX", "600"])
        look = f"{THINK}&hold=2&since={asked_at}"
        said = here.post(look, webhook(CallSid=call, AccountSid=ACCOUNT)).body
        assert f"since={asked_at}&amp;pushed=1".encode() in said


def test_a_person_who_takes_over_is_not_interrupted_later(upstash: Upstash) -> None:
    """Two minutes are over, and Redis is away: a person is rung, and then no push may begin."""
    with slow_backend(0) as backend:
        here = line_with(upstash, backend, TWILIO_ACCOUNT_SID=ACCOUNT, RESPONSE_DEADLINE="1")
        call = new_call()
        upstash.fault = lambda _: "502"
        look = f"{THINK}&hold=9&since={int(time.time()) - 130}"
        said = here.post(look, webhook(CallSid=call, AccountSid=ACCOUNT)).body
        assert PERSON.encode() in said
        upstash.fault = None
        voice = ["GET", f"call:{call}:1:voice"]
        assert until(lambda: upstash.quietly(voice) == [b"person"])


@pytest.mark.waits
def test_the_end_of_patience_comes_within_the_deadline(upstash: Upstash) -> None:
    """Two minutes are over and Redis hangs on writes: a person, in time all the same."""
    with slow_backend(0) as backend:
        here = line_with(upstash, backend, RESPONSE_DEADLINE="1.5")
        phone = here.phone()
        phone.ring()
        asked = Question("a ticket", at=time.time() - 130, step="think")
        cell = f"call:{phone.call_sid}:1:asked"
        upstash.quietly(["SET", cell, write_record(asked), "EX", "600"])
        upstash.fault = lambda c: "hang" if c[0] == "SET" else None
        began = time.monotonic()
        said = here.post(LISTEN + "&hold=4", webhook(CallSid=phone.call_sid)).body
        assert time.monotonic() - began < 1.8 + LATE
        assert PERSON.encode() in said


def test_redis_that_hangs_leaves_the_backend_its_time(upstash: Upstash) -> None:
    """What was said cannot be settled: the backend is asked once, and its quick answer is heard."""
    with slow_backend(0) as backend:
        here = line_with(upstash, backend, RESPONSE_DEADLINE="2.5")
        phone = here.phone()
        phone.ring()
        upstash.fault = lambda c: "hang" if c[0] == "SET" and c[1].endswith(":asked") else None
        said = here.post(LISTEN, webhook(CallSid=phone.call_sid, SpeechResult="a ticket")).body
        assert b"Booked." in said
        assert len(backend.questions) == 1


class Lagging(SQLite):
    """A store whose reads come from a replica that knows nothing yet."""

    def execute(self, command: list[str], until: float) -> Any:  # noqa: ANN401 # as SQLite
        if command[0] == "MGET":
            return [None] * len(command[1:])
        return super().execute(command, until)


def test_a_replica_that_lags_does_not_ask_twice(tmp_path: Path) -> None:
    """A new worker does not believe that there is no answer before the primary says so."""
    with slow_backend(0) as backend:
        state = str(tmp_path / "calls")
        here = Inside({"BACKEND_URL": backend.url, "STATE_FILE": state})
        call = new_call()
        answered = Record(turn=2, step="listen", twiml="<Response>Booked long ago.</Response>")
        asked = Question("a ticket", at=time.time(), step="think")
        fill_cell(here, f"call:{call}:1:asked", write_record(asked))
        fill_cell(here, f"call:{call}:2", write_record(answered))
        lagging = Lagging(state)
        here.line.line = replace(here.line.line, store=lagging)
        here.line.desk.store = lagging
        said = here.post(LISTEN + "&hold=1", webhook(CallSid=call)).body
        assert b"Booked long ago." in said
        assert backend.questions == []


def test_a_question_for_which_there_was_no_thread_is_asked_later(upstash: Upstash) -> None:
    """The worker cannot start: the caller is held, and the next look asks the backend."""
    with slow_backend(0) as backend:
        here = line_with(upstash, backend)
        phone = here.phone()
        phone.ring()
        asked = webhook(CallSid=phone.call_sid, SpeechResult="a ticket")
        with no_threads():
            assert in_twiml("hold_1") in here.post(LISTEN, asked).body.decode()
        assert here.line.desk.jobs == {}
        assert backend.questions == []
        assert b"Booked." in here.post(LISTEN + "&hold=1", webhook(CallSid=phone.call_sid)).body
        assert len(backend.questions) == 1


@pytest.mark.parametrize("cell", ['{"say":"\\ud800","then":"listen"}', "NaN"])
def test_a_spoiled_answer_of_the_backend_is_asked_for_again(cell: str, tmp_path: Path) -> None:
    """Half a character cannot be spoken, so a held caller hears what the backend says now."""
    with slow_backend(0) as backend:
        here = Inside({"STATE_FILE": str(tmp_path / "calls"), "BACKEND_URL": backend.url})
        call, asked = new_call(), Question("a ticket", at=time.time(), step="think")
        fill_cell(here, f"call:{call}:1:asked", write_record(asked))
        fill_cell(here, f"call:{call}:1:result", cell)
        assert b"Booked." in here.post(LISTEN + "&hold=1", webhook(CallSid=call)).body


class Slashed(BaseHTTPRequestHandler):
    """A backend whose path ends in a slash; like many frameworks it moves any other there."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        body = says("Booked.").body
        self.send_response(200 if self.path == "/ask/" else 308)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def test_a_slash_at_the_end_of_the_backends_path_is_kept(tmp_path: Path) -> None:
    """The backend is asked at exactly the path that was set: a redirect is no answer."""
    with HTTPServer(("127.0.0.1", 0), Slashed) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/ask/"
        here = Inside({"STATE_FILE": str(tmp_path / "calls"), "BACKEND_URL": url})
        assert here.line.settings.problems == ()
        said = here.post(LISTEN, webhook(SpeechResult="a ticket")).body
        assert b"Booked." in said


def test_a_second_instance_that_loses_sight_of_the_work_holds(upstash: Upstash) -> None:
    """What was said is settled, then Redis fails for the result: it holds, and does not ask too."""
    with slow_backend(1.5) as backend:
        worker, other = (line_with(upstash, backend, RESPONSE_DEADLINE="1") for _ in range(2))
        phone = worker.phone()
        phone.ring()
        asked = webhook(CallSid=phone.call_sid, SpeechResult="a ticket")
        assert b"<Redirect>" in worker.post(LISTEN, asked).body
        gone = f"call:{phone.call_sid}:2"  # where the answer will stand
        upstash.fault = lambda c: "drop" if c == ["GETEX", gone] else None
        said = other.post(LISTEN, asked).body
        assert b"<Redirect>" in said
        assert b"<Dial" not in said
        assert len(backend.questions) == 1


class Behind(SQLite):
    """A store whose replica has not got one kind of cell yet; the primary has."""

    lacks = ":asked"

    def execute(self, command: list[str], until: float) -> Any:  # noqa: ANN401 # as SQLite
        result = super().execute(command, until)
        if command[0] != "MGET":
            return result
        keys = zip(command[1:], result, strict=True)
        return [None if key.endswith(self.lacks) else value for key, value in keys]


def test_a_replica_without_the_question_costs_no_answer(tmp_path: Path) -> None:
    """What was said is looked for again, on the primary, before the caller is asked once more."""
    state = str(tmp_path / "calls")
    here = Inside({"BACKEND_URL": "http://127.0.0.1:9/", "STATE_FILE": state})
    call = new_call()
    here.post("/voice/inbound", webhook(CallSid=call))
    asked = Question("to Boston", at=time.time(), step="think")
    fill_cell(here, f"call:{call}:1:asked", write_record(asked))
    fill_cell(here, f"call:{call}:1:result", write_record(Answer("You are booked.", "hangup")))
    here.line.line = replace(here.line.line, store=Behind(state))
    assert b"You are booked." in here.post(LISTEN + "&hold=1", webhook(CallSid=call)).body


def test_a_slow_redis_does_not_keep_the_backend_from_being_asked() -> None:
    """With Redis half a second away the backend is asked by the first webhook, and only once."""
    with Upstash(latency=0.5) as far, slow_backend(0) as backend:
        here = line_with(far, backend)
        phone = here.phone()
        phone.ring()
        said = here.post(LISTEN, webhook(CallSid=phone.call_sid, SpeechResult="a ticket")).body
        assert until(lambda: len(backend.questions) == 1)
        if b"Booked." not in said:
            said = here.post(LISTEN + "&hold=1", webhook(CallSid=phone.call_sid)).body
        assert b"Booked." in said
        assert len(backend.questions) == 1


@pytest.mark.parametrize("hold", [1, 5])
def test_a_known_answer_is_said_though_nobody_may_claim_it(upstash: Upstash, hold: int) -> None:
    """Redis cannot settle who speaks: whoever has the answer does, and no second one is asked."""
    with slow_backend(0) as backend:
        account = "AC" + "0" * 32
        here = line_with(upstash, backend, TWILIO_ACCOUNT_SID=account)
        call = new_call()
        asked = Question("a ticket", at=time.time(), step="think")
        fill_cell(here, f"call:{call}:1", write_record(Record(turn=1, step="listen", twiml="<x/>")))
        fill_cell(here, f"call:{call}:1:asked", write_record(asked))
        fill_cell(here, f"call:{call}:1:result", write_record(Answer("The first.", "hangup")))
        upstash.fault = lambda c: "502" if c[0] == "SET" and c[1].endswith(":voice") else None
        said = here.post(f"{LISTEN}&hold={hold}", webhook(CallSid=call, AccountSid=account)).body
        assert b"The first." in said
        assert backend.questions == []


def edited(here: Inside, **steps: Step) -> None:
    """Gives a line some steps of its own."""
    plan = here.line.line.plan
    plan = replace(plan, flow={**plan.flow, **steps})
    here.line.line = replace(here.line.line, plan=plan)


def test_words_on_the_way_to_the_backend_are_said(upstash: Upstash) -> None:
    """A Tell between a question and the backend is heard, before what the backend says."""
    with slow_backend(0) as backend:
        here = line_with(upstash, backend)
        listen = Ask("ask_help", then="thanks", keys=None)
        edited(here, listen=listen, thanks=Tell("I will look that up.", then="think"))
        call = new_call()
        here.post("/voice/inbound", webhook(CallSid=call))
        said = here.post(LISTEN, webhook(CallSid=call, SpeechResult="a ticket")).body.decode()
        assert 0 < said.find("I will look that up.") < said.find("Booked.")


def test_the_backend_may_come_after_a_transfer(upstash: Upstash) -> None:
    """Nobody answers, and the next step asks the backend: its answer is heard."""
    with slow_backend(0) as backend:
        here = line_with(upstash, backend)
        edited(here, operator=Transfer("FORWARD_TO", "connecting", unanswered="think"))
        call = new_call()
        here.post("/voice/inbound", webhook(CallSid=call))
        here.post(LISTEN, webhook(CallSid=call, Digits="0"))
        target = "/voice/process?turn=2&step=operator"
        said = here.post(target, webhook(CallSid=call, DialCallStatus="busy")).body
        assert in_twiml("busy").encode() in said
        assert b"Booked." in said


def test_a_message_before_the_backend_is_told_of(upstash: Upstash) -> None:
    """A line of its owner's own: after the message the backend decides, and hears of it as well."""
    with slow_backend(0) as backend:
        here = line_with(upstash, backend)
        edited(here, voicemail=Voicemail("leave_message", then="think"))
        call = new_call()
        record = Record(turn=2, step="voicemail", twiml="<Response><Record/></Response>")
        fill_cell(here, f"call:{call}:2", write_record(record))
        left = webhook(CallSid=call, RecordingUrl="https://example.com/message")
        said = here.post("/voice/process?turn=2&step=voicemail", left).body
        assert b"Booked." in said
        assert until(lambda: any("event" in each.body for each in backend.questions))


def test_who_waits_after_a_message_gets_the_answer(upstash: Upstash) -> None:
    """Another instance takes the question over: the message that led to it comes but once."""
    with slow_backend(0) as backend:
        here = line_with(upstash, backend)
        edited(here, voicemail=Voicemail("leave_message", then="think"))
        call = new_call()
        record = Record(turn=2, step="voicemail", twiml="<Response><Record/></Response>")
        question = Question(at=time.time(), step="think")
        fill_cell(here, f"call:{call}:2", write_record(record))
        fill_cell(here, f"call:{call}:2:asked", write_record(question))
        look = f"/voice/process?turn=2&step=think&hold=1&since={int(time.time())}"
        assert b"Booked." in here.post(look, webhook(CallSid=call)).body


def test_who_waits_after_a_transfer_keeps_what_the_call_is_about(upstash: Upstash) -> None:
    """On hold the URL has the step that asks; the record before it was heard all the same."""
    with slow_backend(0) as backend:
        backend.decide = lambda _: says("One moment.", then="transfer", to="FORWARD_TO")
        here = line_with(upstash, backend)
        edited(here, operator=Transfer("FORWARD_TO", "connecting", unanswered="think"))
        call = new_call()
        record = Record(turn=2, step="operator", twiml="<Response/>", quote="my broken boiler")
        question = Question(at=time.time(), step="think")
        fill_cell(here, f"call:{call}:2", write_record(record))
        fill_cell(here, f"call:{call}:2:asked", write_record(question))
        look = f"/voice/process?turn=2&step=think&hold=1&since={int(time.time())}"
        here.post(look, webhook(CallSid=call))
        kept = upstash.quietly(["GET", f"call:{call}:3"])[0]
        assert isinstance(kept, bytes)
        assert "my broken boiler" in kept.decode()
