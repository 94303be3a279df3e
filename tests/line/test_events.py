"""Events for the backend, messages and the ends of calls: at least once, whatever fails."""

import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from standins.backend import Backend, Question, Reply, slow_backend, until
from standins.inside import fill_cell, line_with, no_threads, webhook
from standins.rows import first_quick
from standins.sentences import in_twiml
from standins.upstash import Upstash

VOICEMAIL = "/voice/process?turn=1&step=voicemail"
RECORDING = "https://api.twilio.com/recordings/RE1"
ADMIN = {"ADMIN_TOKEN": "a" * 12}
LOGIN = {"Authorization": "Basic " + b64encode(b"x:" + b"a" * 12).decode()}


@pytest.fixture
def upstash() -> Iterator[Upstash]:
    """A database of the test's own."""
    with Upstash() as upstash:
        yield upstash


def events(backend: Backend) -> list[str]:
    """The names of the events that a backend was told, in order."""
    return [str(q.body["event"]) for q in tuple(backend.questions) if "event" in q.body]


def test_an_event_for_which_there_was_no_thread_is_told_later(upstash: Upstash) -> None:
    """Nobody can begin to tell it: 503, and when Twilio asks again the backend is told."""
    with slow_backend(0) as backend:
        here = line_with(upstash, backend)
        phone = here.phone()
        phone.ring()
        ended = webhook(CallSid=phone.call_sid, CallStatus="completed")
        with ExitStack() as nobody:
            while nobody.enter_context(here.line.desk.take_place()):
                pass  # all places are taken, so that no webhook waits for the telling
            with no_threads():
                assert here.post("/voice/status", ended).status == 503
        assert here.line.desk.jobs == {}
        assert here.post("/voice/status", ended).status == 204
        assert events(backend) == ["ended"]


def test_a_message_for_which_there_was_no_thread_is_told_at_the_end(upstash: Upstash) -> None:
    """Nobody can begin to tell of a voicemail: the caller hears the end, the backend of both."""
    with slow_backend(0) as backend:
        here = line_with(upstash, backend)
        phone = here.phone()
        phone.ring()
        with no_threads():
            said = here.post(
                VOICEMAIL, webhook(CallSid=phone.call_sid, RecordingUrl=RECORDING)
            ).body
        assert in_twiml("message_taken") in said.decode()
        assert here.line.desk.jobs == {}
        ended = webhook(CallSid=phone.call_sid, CallStatus="completed")
        assert here.post("/voice/status", ended).status == 204
        assert events(backend) == ["voicemail", "ended"]


@pytest.mark.parametrize("rubbish", ["rubbish", "OK", "{}", "[]", "5", "null", '{"seconds":"x"}'])
@pytest.mark.parametrize("cell", ["end", "voicemail"])
def test_rubbish_in_a_cell_does_not_keep_the_end_from_the_backend(
    cell: str, rubbish: str, upstash: Upstash
) -> None:
    """Whatever stands where the end or a message was noted, the backend is told of the end once."""
    with slow_backend(0) as backend:
        here = line_with(upstash, backend, **ADMIN)
        phone = here.phone()
        phone.ring()
        fill_cell(here, f"call:{phone.call_sid}:{cell}", rubbish)
        ended = webhook(CallSid=phone.call_sid, CallStatus="completed", CallDuration="5")
        assert [here.post("/voice/status", ended).status for _ in range(2)] == [204, 204]
        [told] = [q.body for q in backend.questions if q.body["event"] == "ended"]
        assert (told["status"], told["seconds"]) == ("completed", 5)
        assert here.send("GET", f"/calls/{phone.call_sid}", headers=LOGIN).status == 200


def answer_unless(down: threading.Event) -> Reply:
    """A backend's answer to an event, or its 503 while it is down."""
    return Reply(b"", 503) if down.is_set() else Reply(b"{}")


def test_a_message_that_comes_after_the_end_outlives_the_instance(upstash: Upstash) -> None:
    """The caller has hung up and the backend is down: 503, so that Twilio brings it once more."""
    down = threading.Event()
    with Backend(lambda _: answer_unless(down)) as backend:
        first, second = (line_with(upstash, backend, RESPONSE_DEADLINE="1") for _ in range(2))
        phone = first.phone()
        phone.ring()
        ended = webhook(CallSid=phone.call_sid, CallStatus="completed", CallDuration="9")
        assert first.post("/voice/status", ended).status == 204
        down.set()
        message = {**ended, "RecordingUrl": RECORDING}
        assert first.post(VOICEMAIL, message).status == 503
        down.clear()
        assert until(lambda: second.post(VOICEMAIL, message).status == 200, 15)
        told = [q.body for q in backend.questions if q.body["event"] == "voicemail"]
        assert told[-1]["recording_url"] == RECORDING


@pytest.mark.parametrize("fault", first_quick(["drop", "502", "garbage", "quota"]))
@pytest.mark.parametrize("struck", ["MGET", "SET", ""])
def test_a_voicemail_that_cannot_be_read_at_the_end_is_told_later(
    upstash: Upstash, struck: str, fault: str
) -> None:
    """The backend was down when it was left, Redis is when the call ends: both are told at last."""
    down = threading.Event()
    down.set()
    with Backend(lambda _: answer_unless(down)) as backend:
        first, second = (line_with(upstash, backend, RESPONSE_DEADLINE="1") for _ in range(2))
        phone = first.phone()
        phone.ring()
        first.post(VOICEMAIL, webhook(CallSid=phone.call_sid, RecordingUrl=RECORDING))
        upstash.quietly(["DEL", f"call:{phone.call_sid}:events:lease"])  # that instance is gone
        down.clear()
        backend.questions.clear()
        upstash.fault = lambda command: fault if not struck or command[0] == struck else None
        ended = webhook(CallSid=phone.call_sid, CallStatus="completed", CallDuration="9")
        answered = second.post("/voice/status", ended).status
        assert answered == 503 or struck == "SET"  # what can be read may be told at once
        upstash.fault = None
        assert until(lambda: second.post("/voice/status", ended).status == 204, 15)
        assert {*events(backend)} == {"voicemail", "ended"}


def test_one_teller_brings_an_event(upstash: Upstash) -> None:
    """Twilio repeats the end of a call while the backend fails: nothing is told in parallel."""

    def broken(_: Question) -> Reply:
        return Reply(b"no", 500)

    with Backend(broken) as backend:
        here = line_with(upstash, backend, RESPONSE_DEADLINE="1")
        phone = here.phone()
        phone.ring()
        ended = webhook(CallSid=phone.call_sid, CallStatus="completed", CallDuration="3")
        assert [here.post("/voice/status", ended).status for _ in range(3)] == [503, 503, 503]
        assert len(here.line.desk.jobs) == 1
        assert until(lambda: len(backend.questions) >= 2)
        assert len(backend.questions) <= 3
