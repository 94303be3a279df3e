"""What a reader of main.py once found wrong, so that it stays mended."""

import io
import json
import os
import threading
import time
import uuid
from base64 import b64encode
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from backend import Backend, Question, Reply, says, together, until
from inside import FORM, ORIGIN, TOKEN, Inside
from phone import Answer, sign
from upstash import Command, Upstash

import main

PERSON = "+15550100099"
LISTEN = "/voice/process?turn=1&step=listen"
VOICEMAIL = "/voice/process?turn=1&step=voicemail"
RECORDING = "https://api.twilio.com/recordings/RE1"
ADMIN = {"ADMIN_TOKEN": "a" * 12}
LOGIN = {"Authorization": "Basic " + b64encode(b"x:" + b"a" * 12).decode()}


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


def new_call() -> str:
    return "CA" + uuid.uuid4().hex


def webhook(call_sid: str, **more: str) -> dict[str, str]:
    return {"CallSid": call_sid, "From": "+15557654321", "To": "+15550001111", **more}


def put(here: Inside, cell: str, value: str) -> None:
    """Fills an empty cell with whatever."""
    assert main.Cells(here.line.store, time.monotonic() + 2).settle(cell, value) == value


def events(backend: Backend) -> list[str]:
    """The names of the events that a backend was told, in order."""
    return [str(q.body["event"]) for q in tuple(backend.questions) if "event" in q.body]


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


def test_a_signed_form_of_too_many_fields_is_refused_too(upstash: Upstash) -> None:
    """No webhook of Twilio's has two thousand fields, so there is no need to sort them."""
    here = Inside(upstash.settings)
    many = {f"Field{i}": "1" for i in range(2000)}
    assert here.post("/voice/inbound", webhook(new_call(), **many)).status == 403
    bare = {"Content-Type": FORM, "X-Twilio-Signature": sign(TOKEN, ORIGIN + "/voice", [])}
    assert here.send("POST", "/voice", b"a=1&" * 2001, bare).status == 403
    assert upstash.commands == []


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


@contextmanager
def no_threads() -> Iterator[None]:
    """Nobody can start a thread: its stack would be larger than any memory."""
    threading.stack_size(1 << 60)
    try:
        yield
    finally:
        threading.stack_size(0)


def test_a_question_for_which_there_was_no_thread_is_asked_later(upstash: Upstash) -> None:
    """The worker cannot start: the caller is held, and the next look asks the backend."""
    with after(0) as backend:
        here = line(upstash, backend)
        phone = here.phone()
        phone.ring()
        asked = webhook(phone.call_sid, SpeechResult="a ticket")
        with no_threads():
            assert b"One moment" in here.post(LISTEN, asked).body
        assert here.line.desk.jobs == {}
        assert backend.questions == []
        assert b"Booked." in here.post(LISTEN + "&hold=1", webhook(phone.call_sid)).body
        assert len(backend.questions) == 1


def test_an_event_for_which_there_was_no_thread_is_told_later(upstash: Upstash) -> None:
    """Nobody can begin to tell it: 503, and when Twilio asks again the backend is told."""
    with after(0) as backend:
        here = line(upstash, backend)
        phone = here.phone()
        phone.ring()
        ended = webhook(phone.call_sid, CallStatus="completed")
        with ExitStack() as nobody:
            while nobody.enter_context(main.place(here.line.desk.waits)):
                pass  # all places are taken, so that no webhook waits for the telling
            with no_threads():
                assert here.post("/voice/status", ended).status == 503
        assert here.line.desk.telling == {}
        assert here.post("/voice/status", ended).status == 204
        assert events(backend) == ["ended"]


def test_a_message_for_which_there_was_no_thread_is_told_at_the_end(upstash: Upstash) -> None:
    """Nobody can begin to tell of a voicemail: the caller hears the end, the backend of both."""
    with after(0) as backend:
        here = line(upstash, backend)
        phone = here.phone()
        phone.ring()
        with no_threads():
            said = here.post(VOICEMAIL, webhook(phone.call_sid, RecordingUrl=RECORDING)).body
        assert b"message" in said
        assert here.line.desk.telling == {}
        ended = webhook(phone.call_sid, CallStatus="completed")
        assert here.post("/voice/status", ended).status == 204
        assert events(backend) == ["voicemail", "ended"]


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
                greeted = here.post("/voice/inbound", webhook(new_call()))
                forged = here.send("POST", "/voice/inbound", b"CallSid=CA1", {"Content-Type": FORM})
                health = here.send("GET", "/healthz")
            assert b"thank you for calling" in greeted.body
            assert (greeted.status, forged.status, health.status) == (200, 403, 200)


def test_threads_write_their_own_lines(tmp_path: Path) -> None:
    """However many webhooks log at once, each line of the log is one JSON object."""

    def work() -> None:
        for turn in range(300):
            main.log("info", "a line", turn=turn)

    with unbuffered(tmp_path / "log") as log, redirect_stdout(log):
        together(*[work] * 16)
    lines = (tmp_path / "log").read_text().split("\n")
    assert lines.pop() == ""
    found = [each for each in map(json.loads, lines) if each["message"] == "a line"]
    assert sorted(each["turn"] for each in found) == sorted([*range(300)] * 16)


@pytest.mark.parametrize("rubbish", ["rubbish", "OK", "{}", "[]", "5", "null", '{"seconds":"x"}'])
@pytest.mark.parametrize("cell", ["end", "voicemail"])
def test_rubbish_in_a_cell_does_not_keep_the_end_from_the_backend(
    cell: str, rubbish: str, upstash: Upstash
) -> None:
    """Whatever stands where the end or a message was noted, the backend is told of the end once."""
    with after(0) as backend:
        here = line(upstash, backend, **ADMIN)
        phone = here.phone()
        phone.ring()
        put(here, f"call:{phone.call_sid}:{cell}", rubbish)
        ended = webhook(phone.call_sid, CallStatus="completed", CallDuration="5")
        assert [here.post("/voice/status", ended).status for _ in range(2)] == [204, 204]
        [told] = [q.body for q in backend.questions if q.body["event"] == "ended"]
        assert (told["status"], told["seconds"]) == ("completed", 5)
        assert here.send("GET", f"/calls/{phone.call_sid}", headers=LOGIN).status == 200


def test_a_bug_at_the_end_of_a_call_is_no_answer(tmp_path: Path) -> None:
    """TwiML with 200 would say that all is taken care of: 503 makes Twilio ask again."""
    backend = {"BACKEND_URL": "http://127.0.0.1:1"}
    here = Inside({**backend, "STATE_FILE": str(tmp_path / "calls")})
    del here.line.desk.waits
    answer = here.post("/voice/status", webhook(new_call(), CallStatus="completed"))
    assert (answer.status, answer.kind) == (503, "text/plain")


HALF = r'"\ud800"'
SPOILED = [
    (name, value)
    for name, blank in main.BLANKS[main.Record].items()
    for value in ([HALF] if isinstance(blank, str) else ["-1", "-1e9", "NaN", "1e999"])
]


@pytest.mark.parametrize(("field", "value"), SPOILED)
def test_a_spoiled_cell_does_not_end_a_conversation(field: str, value: str, tmp_path: Path) -> None:
    """Half a character, or a number that is none, in any field: it goes on from the URL's step."""
    here = Inside({"FORWARD_TO": PERSON, "STATE_FILE": str(tmp_path / "calls"), **ADMIN})
    record = f'{{"twiml":"<Response/>","step":"reason","{field}":{value}}}'
    for turn in (1, 2):  # what had been asked; what this webhook was answered before
        call = new_call()
        put(here, f"call:{call}:{turn}", record)
        said = here.post("/voice/process?turn=1&step=reason", webhook(call, SpeechResult="Ann"))
        stands = turn == 2 and value != HALF
        assert said.status == 200
        assert (b"<Response/>" if stands else b"I heard: Ann.") in said.body
        assert here.send("GET", f"/calls/{call}", headers=LOGIN).status in (200, 404)


@pytest.mark.parametrize("misses", ["-1000000", "-1", "NaN"])
def test_a_spoiled_count_does_not_keep_a_silent_caller(misses: str, tmp_path: Path) -> None:
    """Who says nothing three times gets a person, whatever number of misses stands in a cell."""
    here = Inside({"FORWARD_TO": PERSON, "STATE_FILE": str(tmp_path / "calls")})
    call = new_call()
    put(here, f"call:{call}:1", f'{{"twiml":"x","step":"reason","misses":{misses}}}')
    at = "/voice/process?step=reason&turn="
    said = [here.post(f"{at}{turn}", webhook(call)).body for turn in (1, 2, 3)]
    assert [b"<Dial" in each for each in said] == [False, False, True]


@pytest.mark.parametrize("cell", ['{"say":"\\ud800","then":"listen"}', "NaN"])
def test_a_spoiled_answer_of_the_backend_is_asked_for_again(cell: str, tmp_path: Path) -> None:
    """Half a character cannot be spoken, so a held caller hears what the backend says now."""
    with after(0) as backend:
        here = Inside({"STATE_FILE": str(tmp_path / "calls"), "BACKEND_URL": backend.url})
        call, asked = new_call(), main.Asked("a ticket", at=time.time(), step="think")
        put(here, f"call:{call}:1:asked", main.written(asked))
        put(here, f"call:{call}:1:result", cell)
        assert b"Booked." in here.post(LISTEN + "&hold=1", webhook(call)).body


@pytest.mark.parametrize(
    "caller", ["+266696687", "+7378742833", "+2562533", "+86282452253", "+8656696", "+7748283"]
)
def test_a_withheld_number_is_known_by_its_letters_on_the_keypad(
    caller: str, tmp_path: Path
) -> None:
    """Twilio spells "anonymous" and the like as numbers: refused as such, and nobody's to count."""
    file = {"STATE_FILE": str(tmp_path / "calls")}
    counting = Inside({**file, "CALLS_PER_HOUR": "1"})
    for blocked in ("anonymous", caller):
        refusing = Inside({**file, "BLOCKED": blocked})
        assert b"<Reject" in refusing.post("/voice", webhook(new_call(), From=caller)).body
    for _ in range(2):
        said = counting.post("/voice", webhook(new_call(), From=caller)).body
        assert b"thank you for calling" in said


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
        said = here.post(LISTEN, webhook(new_call(), SpeechResult="a ticket")).body
        assert b"Booked." in said


@pytest.mark.parametrize(("age", "known"), [(6, 200), (None, 503)])
def test_one_look_at_a_time_asks_a_store_that_hangs(
    age: int | None, known: int, upstash: Upstash
) -> None:
    """Who looks at /healthz meanwhile hears at once what is known: nothing good, if it is new."""
    here = Inside({**upstash.settings, "RESPONSE_DEADLINE": "1"})
    look = partial(here.send, "GET", "/healthz")
    if age:
        assert look().status == 200
        here.line.health = (time.monotonic() - age, "")
    upstash.forget()
    upstash.fault = lambda _: "hang"
    with ThreadPoolExecutor(21) as pool:
        first = pool.submit(look)
        assert until(lambda: upstash.round_trips == 1)
        began = time.monotonic()
        others = [pool.submit(look) for _ in range(20)]
        assert [each.result().status for each in others] == [known] * 20
        assert time.monotonic() - began < 0.4
        assert first.result().status == 503
    assert upstash.round_trips == 2  # one look takes a second attempt after the first
    assert look().status == 503


def test_a_second_instance_that_loses_sight_of_the_work_holds(upstash: Upstash) -> None:
    """What was said is settled, then Redis fails for the result: it holds, and does not ask too."""
    with after(1.5) as backend:
        worker, other = (line(upstash, backend, RESPONSE_DEADLINE="1") for _ in range(2))
        phone = worker.phone()
        phone.ring()
        asked = webhook(phone.call_sid, SpeechResult="a ticket")
        assert b"<Redirect>" in worker.post(LISTEN, asked).body
        gone = f"call:{phone.call_sid}:1:result"
        upstash.fault = lambda c: "drop" if c == ["MGET", gone] else None
        said = other.post(LISTEN, asked).body
        assert b"<Redirect>" in said
        assert b"<Dial" not in said
        assert len(backend.questions) == 1


def test_a_message_that_comes_after_the_end_outlives_the_instance(upstash: Upstash) -> None:
    """The caller has hung up and the backend is down: 503, so that Twilio brings it once more."""
    down = threading.Event()

    def decide(_: Question) -> Reply:
        return Reply(b"", 503) if down.is_set() else Reply(b"{}")

    with Backend(decide) as backend:
        first, second = (line(upstash, backend, RESPONSE_DEADLINE="1") for _ in range(2))
        phone = first.phone()
        phone.ring()
        ended = webhook(phone.call_sid, CallStatus="completed", CallDuration="9")
        assert first.post("/voice/status", ended).status == 204
        down.set()
        message = {**ended, "RecordingUrl": RECORDING}
        assert first.post(VOICEMAIL, message).status == 503
        down.clear()
        assert second.post(VOICEMAIL, message).status == 200
        told = [q.body for q in backend.questions if q.body["event"] == "voicemail"]
        assert told[-1]["recording_url"] == RECORDING


def test_connections_that_have_gone_silent_cost_one_attempt(upstash: Upstash) -> None:
    """A load balancer forgot several at once: one webhook waits for one, and nothing is lost."""
    here = Inside({**upstash.settings, "FORWARD_TO": PERSON, "RESPONSE_DEADLINE": "2"})
    phones = [here.phone() for _ in range(5)]
    upstash.latency = 0.1  # so that they need five connections
    together(*[phone.ring for phone in phones])
    upstash.latency = 0
    before = set(threading.enumerate())  # each of the stand-in's connections has a thread
    assert len(upstash.connections) >= 3

    def silent(_: Command) -> str | None:
        return "hang" if threading.current_thread() in before else None

    upstash.fault = silent
    took = []
    for phone in phones:
        began = time.monotonic()
        phone.say("Ann")
        took.append(time.monotonic() - began)
    assert took[0] < 0.9
    assert max(took[1:]) < 0.4
    assert {f"call:{phone.call_sid}:2" for phone in phones} <= upstash.keys().keys()


def reached(here: Inside, origin: str, headers: Mapping[str, str]) -> Answer:
    """What a webhook is answered that Twilio signed for this origin."""
    form = list(webhook(new_call()).items())
    signed = {"Content-Type": FORM, "X-Twilio-Signature": sign(TOKEN, origin + "/voice", form)}
    return here.send("POST", "/voice", urlencode(form).encode(), {**signed, **headers})


@pytest.mark.parametrize(
    ("public", "headers"),
    [
        ("https://Line.Example", {}),
        ("https://Line.Example/", {}),
        ("", {"X-Forwarded-Proto": "https,http", "X-Forwarded-Host": "Line.Example"}),
        ("", {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "Line.Example, inner.local"}),
        ("", {"X-Forwarded-Proto": "https , http", "Host": "Line.Example"}),
    ],
)
def test_the_origin_is_the_one_that_twilio_called(
    public: str, headers: dict[str, str], tmp_path: Path
) -> None:
    """Capitals count, as in the signature, and of a list of proxies the first was called."""
    here = Inside({"PUBLIC_URL": public, "STATE_FILE": str(tmp_path / "calls")})
    assert reached(here, "https://Line.Example", headers).status == 200
    assert reached(here, "https://line.example", headers).status == 403


@pytest.mark.parametrize("header", ["Basic \xff", "Basic /w==", "Basic", "Basic \xe9:x", "\xff"])
def test_a_login_that_is_no_text_is_refused(header: str, tmp_path: Path) -> None:
    """A stranger at the page of a call is asked who that is, whatever the header holds."""
    here = Inside({"STATE_FILE": str(tmp_path / "calls"), **ADMIN})
    page = here.send("GET", f"/calls/{new_call()}", headers={"Authorization": header})
    assert page.status == 401


@pytest.mark.parametrize("name", [":memory:", ":"])
def test_a_store_in_memory_is_no_store(name: str) -> None:
    """Each thread would have cells of its own, so the operator is told to name a file."""
    settings = main.read_settings({"TWILIO_AUTH_TOKEN": TOKEN, "STATE_FILE": name})
    assert any("STATE_FILE" in problem for problem in settings.problems)


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


class Behind(main.SQLite):
    """A store whose replica has not got one kind of cell yet; the primary has."""

    lacks = ":asked"

    def execute(self, command: list[str], until: float) -> Any:  # noqa: ANN401 # as main.SQLite
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
    here.post("/voice/inbound", webhook(call))
    asked = main.Asked("to Boston", at=time.time(), step="think")
    put(here, f"call:{call}:1:asked", main.written(asked))
    put(here, f"call:{call}:1:result", main.written(main.Answer("You are booked.", "hangup")))
    here.line.store = Behind(state)
    assert b"You are booked." in here.post(LISTEN + "&hold=1", webhook(call)).body


def test_a_slow_redis_does_not_keep_the_backend_from_being_asked() -> None:
    """With Redis half a second away the backend is asked by the first webhook, and only once."""
    with Upstash(latency=0.5) as far, after(0) as backend:
        here = line(far, backend)
        phone = here.phone()
        phone.ring()
        said = here.post(LISTEN, webhook(phone.call_sid, SpeechResult="a ticket")).body
        assert until(lambda: len(backend.questions) == 1)
        if b"Booked." not in said:
            said = here.post(LISTEN + "&hold=1", webhook(phone.call_sid)).body
        assert b"Booked." in said
        assert len(backend.questions) == 1


@pytest.mark.parametrize("hold", [1, 5])
def test_a_known_answer_is_said_though_nobody_may_claim_it(upstash: Upstash, hold: int) -> None:
    """Redis cannot settle who speaks: whoever has the answer does, and no second one is asked."""
    with after(0) as backend:
        account = "AC" + "0" * 32
        here = line(upstash, backend, TWILIO_ACCOUNT_SID=account)
        call = new_call()
        asked = main.Asked("a ticket", at=time.time(), step="think")
        put(here, f"call:{call}:1", main.written(main.Record(turn=1, step="listen", twiml="<x/>")))
        put(here, f"call:{call}:1:asked", main.written(asked))
        put(here, f"call:{call}:1:result", main.written(main.Answer("The first.", "hangup")))
        upstash.fault = lambda c: "502" if c[0] == "SET" and c[1].endswith(":voice") else None
        said = here.post(f"{LISTEN}&hold={hold}", webhook(call, AccountSid=account)).body
        assert b"The first." in said
        assert backend.questions == []


def edited(here: Inside, **steps: main.Step) -> None:
    """Gives a line some steps of its own."""
    plan = replace(here.line.plan, flow={**here.line.plan.flow, **steps})
    here.line.plan = here.line.desk.plan = plan


def test_words_on_the_way_to_the_backend_are_said(upstash: Upstash) -> None:
    """A Tell between a question and the backend is heard, before what the backend says."""
    with after(0) as backend:
        here = line(upstash, backend)
        listen = main.Ask("ask_help", then="thanks", keys=None)
        edited(here, listen=listen, thanks=main.Tell("I will look that up.", then="think"))
        call = new_call()
        here.post("/voice/inbound", webhook(call))
        said = here.post(LISTEN, webhook(call, SpeechResult="a ticket")).body.decode()
        assert 0 < said.find("I will look that up.") < said.find("Booked.")


def test_the_backend_may_come_after_a_transfer(upstash: Upstash) -> None:
    """Nobody answers, and the next step asks the backend: its answer is heard."""
    with after(0) as backend:
        here = line(upstash, backend)
        edited(here, operator=main.Transfer("FORWARD_TO", "connecting", unanswered="think"))
        call = new_call()
        here.post("/voice/inbound", webhook(call))
        here.post(LISTEN, webhook(call, Digits="0"))
        target = "/voice/process?turn=2&step=operator"
        said = here.post(target, webhook(call, DialCallStatus="busy")).body
        assert b"The line is busy." in said
        assert b"Booked." in said


def test_a_step_that_waits_for_nobody_goes_on() -> None:
    """Two consultations in a row, or words in a circle: Twilio comes back, the call goes on."""
    known = main.read_settings({"TWILIO_AUTH_TOKEN": TOKEN, "BACKEND_URL": "https://b.example"})
    again = main.Consult(listen="think", failed="operator")
    circle = main.Tell("Hello.", then="start")
    table = {**main.flow(known), "think": again, "start": circle}
    plan = main.Plan(table, known.words, known.numbers)
    for step in ("think", "start"):
        heard = main.Heard(answer=main.Answer("One more thing.", "listen"))
        call, reply = main.decide(plan, main.Call(turn=1, step=step), heard)
        assert "<Redirect>/voice/process?turn=2&amp;" in main.render(known, plan, call, reply)


def test_a_prompt_of_blanks_is_no_prompt() -> None:
    """What cannot be spoken does not leave a question without words."""
    known = main.read_settings({"TWILIO_AUTH_TOKEN": TOKEN})
    plan = main.Plan(main.flow(known), known.words, known.numbers)
    call = main.Call(turn=1, step="reason", prompt=" \n")
    assert main.decide(plan, call, main.Heard(keys="*"))[1].says == (known.words["ask_reason"],)


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE"])
def test_without_a_password_there_is_no_page(tmp_path: Path, method: str) -> None:
    """No method tells that a page of calls could exist."""
    here = Inside({"STATE_FILE": str(tmp_path / "calls")})
    assert here.send(method, f"/calls/{new_call()}").status == 404
