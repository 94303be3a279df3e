"""The phone is tested against a tiny server with fixed answers: its verdicts must be trusted.

`Canned` stands where main.py stands otherwise: it answers TwiML by path and keeps what it is sent.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qsl

import pytest
from instance import ROOT, SETTINGS, Instance
from phone import (
    APOLOGIES,
    Answer,
    Clock,
    Failed,
    Fields,
    Limits,
    NotNow,
    Phone,
    Transcript,
    arguments,
    http_deliver,
    judge,
    run_script,
    sign,
    signed_url,
)

TOKEN = "12345"
COMMAND = Path(__file__).with_name("phone.py")


class Asked(NamedTuple):
    """One request as the server saw it."""

    target: str
    fields: Fields
    headers: Mapping[str, str]

    @property
    def form(self) -> dict[str, str]:
        """The fields by name."""
        return dict(self.fields)


class Reply(NamedTuple):
    """One fixed answer; a delay in seconds, or a line that is cut instead of an answer."""

    body: str
    status: int = 200
    kind: str = "text/xml"
    delay: float = 0.0
    cut: bool = False


class Canned:
    """A server that answers by path; a list of answers is used up down to its last one."""

    def __init__(self) -> None:
        self.answers: dict[str, list[Reply]] = {}
        self.asked: list[Asked] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        self.on("/voice/status", Reply("", 204, ""))
        self.on("/healthz", Reply('{"ok": true, "problems": []}', kind="application/json"))

    def on(self, path: str, *replies: str | Reply) -> None:
        """Sets what a path answers: the inside of a <Response>, or a whole Reply."""
        self.answers[path] = [
            Reply(f"<Response>{reply}</Response>") if isinstance(reply, str) else reply
            for reply in replies
        ]

    def forms(self, path: str) -> list[dict[str, str]]:
        """The fields that a path was sent, in order."""
        return [asked.form for asked in self.asked if asked.target.split("?")[0] == path]

    def reply(self, asked: Asked) -> Reply:
        """Keeps the request and finds its answer."""
        self.asked.append(asked)
        found = self.answers.get(asked.target.split("?")[0], [Reply("not here", 404)])
        return found.pop(0) if len(found) > 1 else found[0]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        canned = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.answer([])

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                self.answer(parse_qsl(body, keep_blank_values=True))

            def answer(self, fields: Fields) -> None:
                reply = canned.reply(Asked(self.path, fields, dict(self.headers)))
                time.sleep(reply.delay)
                if reply.cut:
                    self.close_connection = True
                    return
                self.send_response(reply.status)
                if reply.kind:
                    self.send_header("Content-Type", reply.kind)
                self.end_headers()
                self.wfile.write(reply.body.encode())

            def log_message(self, *_: object) -> None:
                return

        return Handler

    def close(self) -> None:
        """Ends the server."""
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def line() -> Iterator[Canned]:
    """A fresh server for one test."""
    canned = Canned()
    yield canned
    canned.close()


def ring(line: Canned, twiml: str, path: str = "/voice/inbound") -> Phone:
    """A phone that has rung at a line whose first document is `twiml`."""
    line.on(path, twiml)
    phone = Phone(line.url, token=TOKEN)
    phone.ring()
    return phone


# --- the signature and the webhook ---

PARAMS = [
    ("CallSid", "CA1234567890ABCDE"),
    ("Caller", "+14158675309"),
    ("Digits", "1234"),
    ("From", "+14158675309"),
    ("To", "+18005551212"),
]
HOST = "mycompany.com"
QUERY = "/myapp.php?foo=1&bar=2"
VECTORS = [
    (f"https://{HOST}{QUERY}", PARAMS, "RSOYDt4T1cUTdK1PDd93/VVr8B8="),
    (f"https://{HOST}:443{QUERY}", PARAMS, "kvajT1Ptam85bY51eRf/AJRuM3w="),
    (f"http://{HOST}:1234{QUERY}", PARAMS, "Zmvh+3yNM1Phv2jhDCwEM3q5ebU="),
    (f"http://{HOST}:80{QUERY}", PARAMS, "0ZXoZLH/DfblKGATFgpif+LLRf4="),
    (f"https://{HOST}{QUERY}&Body=It's+amazing", PARAMS, "dsq4Ehbj6cs+KdTkpF5sSSplOWw="),
    (
        f"https://{HOST}{QUERY}",
        [("Sid", "CA123"), ("SidAccount", "AC123")]
        + [("Digits", digits) for digits in ("5678", "1234", "1234")],
        "IK+Dwps556ElfBT0I3Rgjkr1wJU=",
    ),
    (
        "https://example.com/voice",
        [("CallSid", "CA1"), ("ToZip", ""), ("From", "+15551234567")],
        "T5ygwuEjXXyuXH64UPuJjlygSWE=",
    ),
    (
        "https://example.com/voice",
        [("CallSid", "CA1"), ("SpeechResult", "café con leche")],
        "6Wcs861x1cpe8dwGt6NxIlfQ1Rk=",
    ),
]


@pytest.mark.parametrize(("url", "fields", "signature"), VECTORS)
def test_the_phone_signs_as_twilio_does(url: str, fields: Fields, signature: str) -> None:
    """Twilio's published vectors come out of the phone's own HMAC."""
    assert sign(TOKEN, url, fields) == signature


@pytest.mark.parametrize(
    ("url", "signed"),
    [
        ("https://a.example:8443/v?x=1#rc=2", "https://a.example/v?x=1"),
        ("http://a.example:8080/v#rp=all", "http://a.example:8080/v"),
        ("https://me:word@a.example/v", "https://a.example/v"),
    ],
)
def test_fragment_password_and_https_port_are_not_signed(url: str, signed: str) -> None:
    """The signed text is the URL without what Twilio leaves out of it."""
    assert signed_url(url) == signed


def test_the_first_webhook_carries_what_twilio_sends(line: Canned) -> None:
    """A new call is ringing and inbound, and its blank fields are sent and signed."""
    ring(line, "<Hangup/>")
    asked = line.asked[0]
    assert asked.target == "/voice/inbound"
    assert asked.form["CallStatus"] == "ringing"
    assert asked.form["Direction"] == "inbound"
    assert asked.form["Caller"] == asked.form["From"] == "+15557654321"
    assert asked.form["ToZip"] == asked.form["CalledZip"] == ""
    assert asked.headers["User-Agent"] == "TwilioProxy/1.1"
    assert asked.headers["I-Twilio-Idempotency-Token"]
    assert ("ToZip", "") in asked.fields
    assert asked.headers["X-Twilio-Signature"] == sign(TOKEN, line.url + asked.target, asked.fields)


def test_later_webhooks_are_in_progress_and_resolved_against_the_document(line: Canned) -> None:
    """A relative action belongs to the document's URL; its fragment is neither sent nor signed."""
    line.on("/voice/process", "<Hangup/>")
    phone = ring(line, '<Gather input="speech" action="process?turn=1&amp;x=a%2Fb#rc=2"/>')
    phone.say("hello")
    asked = line.asked[1]
    assert asked.target == "/voice/process?turn=1&x=a%2Fb"
    assert asked.form["CallStatus"] == "in-progress"
    assert asked.headers["X-Twilio-Signature"] == sign(TOKEN, line.url + asked.target, asked.fields)


def test_the_end_is_reported_to_the_status_callback(line: Canned) -> None:
    """After the call one status webhook tells how long it took."""
    phone = ring(line, '<Pause length="61"/>')
    phone.wait()
    (end,) = line.forms("/voice/status")
    assert end["CallStatus"] == "completed"
    assert (end["CallDuration"], end["Duration"]) == (str(phone.duration), "2")
    assert end["CallbackSource"] == "call-progress-events"
    assert end["SequenceNumber"] == "0"
    assert end["Timestamp"].endswith(" +0000")


@pytest.mark.parametrize("reply", [Reply("no", 500), Reply("fine", 200, "text/plain")])
def test_a_status_callback_answered_badly_is_a_warning(line: Canned, reply: Reply) -> None:
    """The caller is gone by then: nothing is broken, but it is said."""
    line.on("/voice/status", reply)
    phone = ring(line, "<Hangup/>")
    assert not phone.broken
    assert [problem.code for problem in phone.warned] == [15003]


# --- the verbs ---

GATHER = '<Gather input="dtmf speech" action="/next" {}><Say>Which?</Say></Gather><Say>Bye.</Say>'


def gather(line: Canned, attributes: str = "") -> Phone:
    """A phone that waits in a Gather whose action says "Thanks."."""
    line.on("/next", "<Say>Thanks.</Say>")
    return ring(line, GATHER.format(attributes))


def test_words_are_sent_with_their_confidence(line: Canned) -> None:
    """Speech goes to the action as SpeechResult and Confidence."""
    phone = gather(line)
    assert (phone.heard, phone.state) == (["Which?"], "gather")
    assert phone.say("billing", 0.35) == ["Thanks."]
    assert phone.state == "ended"
    (form,) = line.forms("/next")
    assert (form["SpeechResult"], form["Confidence"]) == ("billing", "0.35")
    assert "Digits" not in form


def test_confidence_may_be_missing(line: Canned) -> None:
    """A confidence of None is not sent at all."""
    gather(line).say("billing", None)
    assert "Confidence" not in line.forms("/next")[0]


@pytest.mark.parametrize(
    ("attributes", "keys", "digits"),
    [
        ("", "12#", "12"),
        ("", "12", "12"),
        ('numDigits="1"', "45", "4"),
        ('finishOnKey="*"', "1#2*3", "1#2"),
        ('finishOnKey=""', "1#", "1#"),
    ],
)
def test_keys_end_as_the_attributes_say(
    line: Canned, attributes: str, keys: str, digits: str
) -> None:
    """The finish key and the number of digits decide which keys reach the action."""
    gather(line, attributes).press(keys)
    assert line.forms("/next")[0]["Digits"] == digits


def test_silence_falls_through(line: Canned) -> None:
    """Without actionOnEmptyResult nobody is asked and the next verb is played."""
    phone = gather(line, 'timeout="7"')
    before = phone.clock.now
    assert phone.silent() == ["Bye."]
    assert phone.clock.now >= before + 7
    assert line.forms("/next") == []


def test_silence_is_reported_when_asked_for(line: Canned) -> None:
    """With actionOnEmptyResult the action is asked with neither words nor keys."""
    assert gather(line, 'actionOnEmptyResult="true"').silent() == ["Thanks."]
    assert not {"SpeechResult", "Digits"} & set(line.forms("/next")[0])


def test_words_are_lost_on_a_gather_for_keys(line: Canned) -> None:
    """Who speaks where only keys count is silent to Twilio."""
    phone = ring(line, '<Gather action="/next"><Say>Press.</Say></Gather><Say>Bye.</Say>')
    assert phone.say("one") == ["Bye."]


def test_a_lone_finish_key_is_no_input(line: Canned) -> None:
    """Pressing only the key that ends the input counts as silence."""
    assert gather(line).press("#") == ["Bye."]


@pytest.mark.parametrize(
    ("outcome", "length"),
    [("completed", "42"), ("busy", ""), ("no-answer", ""), ("failed", ""), ("canceled", "")],
)
def test_every_outcome_of_a_dial_reaches_its_action(
    line: Canned, outcome: str, length: str
) -> None:
    """The action learns how the dialled call went, and for how long."""
    line.on("/next", "<Say>Back.</Say>")
    phone = ring(line, '<Dial action="/next" timeLimit="60"><Number>+15550100099</Number></Dial>')
    assert phone.transcript[-1] == "line dials +15550100099"
    assert phone.callee(outcome, 42) == ["Back."]
    (form,) = line.forms("/next")
    assert form["DialCallStatus"] == outcome
    assert form.get("DialCallDuration", "") == length
    assert form["DialBridged"] == ("true" if length else "false")
    assert form["DialCallSid"].startswith("CA")


def test_a_dial_without_action_goes_on(line: Canned) -> None:
    """After a Dial that names no action the next verb is played."""
    phone = ring(line, '<Dial timeLimit="60">+15550100099</Dial><Say>Nobody.</Say>')
    assert phone.callee("busy") == ["Nobody."]


def test_a_caller_who_gives_up_while_it_rings_is_reported(line: Canned) -> None:
    """The action is asked about the cancelled Dial, and its answer is not played."""
    line.on("/next", "<Say>Anybody?</Say>")
    phone = ring(line, '<Dial action="/next" timeLimit="60">+15550100099</Dial>')
    assert phone.hang_up() == []
    (form,) = line.forms("/next")
    assert (form["CallStatus"], form["DialCallStatus"]) == ("completed", "canceled")
    assert phone.state == "ended"


def test_a_message_is_recorded(line: Canned) -> None:
    """The action gets the recording's URL and length, and its answer is played."""
    line.on("/next", "<Say>Got it.</Say>")
    phone = ring(line, '<Record action="/next" maxLength="20"/>')
    assert phone.leave_message(30) == ["Got it."]
    (form,) = line.forms("/next")
    assert form["RecordingDuration"] == "20"
    assert form["RecordingUrl"].startswith("https://api.twilio.com/")


@pytest.mark.parametrize(
    ("attributes", "keys", "ended_by"),
    [
        ('finishOnKey="#"', "1#", "#"),
        ('finishOnKey="#"', "12", None),
        ('finishOnKey="5*"', "#5*", "5"),
        ('finishOnKey=""', "#", None),
        ("", "7", "7"),
    ],
)
def test_only_a_finish_key_ends_a_recording(
    line: Canned, attributes: str, keys: str, ended_by: str | None
) -> None:
    """Other keys are tones on the recording, which goes on; without the attribute any key ends."""
    line.on("/next", "<Say>Got it.</Say>")
    phone = ring(line, f'<Record action="/next" {attributes}/>')
    assert phone.press(keys) == (["Got it."] if ended_by else [])
    assert phone.state == ("ended" if ended_by else "record")
    assert [form["Digits"] for form in line.forms("/next")] == ([ended_by] if ended_by else [])
    if not ended_by:
        assert f"caller presses {keys}" in phone.transcript
        assert phone.leave_message() == ["Got it."]


@pytest.mark.parametrize(
    ("attributes", "keys", "printed"),
    [
        ('numDigits="1"', "12", "1"),
        ('numDigits="2"', "1#2", "1#"),
        ('numDigits="1"', "1#", "1"),
        ('finishOnKey=""', "1#2", "1#2"),
        ("", "12", "12"),
        ("", "#1", "#"),
    ],
)
def test_keys_that_come_too_late_are_not_written_down(
    line: Canned, attributes: str, keys: str, printed: str
) -> None:
    """The transcript has the keys up to the one that ended the input, and plays the same again."""
    phone = gather(line, attributes)
    phone.press(keys)
    assert f"caller presses {printed}" in phone.transcript
    assert run_script(Phone(line.url, token=TOKEN), phone.transcript) == []


def test_hanging_up_after_the_beep_leaves_a_recording(line: Canned) -> None:
    """Twilio reports it with Digits=hangup although nobody hears the answer."""
    line.on("/next", "<Say>Got it.</Say>")
    phone = ring(line, '<Record action="/next"/>')
    assert phone.hang_up_after_beep(3) == []
    assert line.forms("/next")[0]["Digits"] == "hangup"
    assert [asked.target for asked in line.asked][-1] == "/voice/status"


def test_an_empty_recording_is_not_reported(line: Canned) -> None:
    """Silence after the beep leads to the next verb."""
    phone = ring(line, '<Record action="/next"/><Say>Nothing?</Say>')
    assert phone.silent() == ["Nothing?"]


def test_a_redirect_is_followed_and_nothing_after_it_played(line: Canned) -> None:
    """Redirect fetches the next document; the verb behind it is warned about."""
    line.on("/next", "<Say>There.</Say>")
    phone = ring(line, "<Redirect>/next</Redirect><Say>Never.</Say>")
    assert phone.heard == ["There."]
    assert (phone.hops, len(phone.warned)) == (1, 1)


def test_a_pause_is_a_hold_that_costs_no_real_time(line: Canned) -> None:
    """The phone waits in virtual seconds, and only when told to."""
    line.on("/next", "<Say>Done.</Say>")
    phone = ring(line, '<Say>Wait.</Say><Pause length="30"/><Redirect>/next</Redirect>')
    assert (phone.heard, phone.state) == (["Wait."], "hold")
    started = time.monotonic()
    assert phone.wait() == ["Wait.", "Done."]
    assert phone.duration >= 30
    assert time.monotonic() - started < 5


def test_a_rejected_call_never_was_answered(line: Canned) -> None:
    """Reject ends the call, and the report says busy."""
    phone = ring(line, '<Reject reason="busy"/>')
    assert phone.transcript == ["rings", "line rejects"]
    assert line.forms("/voice/status")[0]["CallStatus"] == "busy"


def test_a_played_file_is_no_speech(line: Canned) -> None:
    """Play is in the transcript, not among the words."""
    phone = ring(line, "<Play>https://a.example/a.wav</Play>")
    assert phone.heard == []
    assert "line plays https://a.example/a.wav" in phone.transcript


def test_the_phone_refuses_what_the_call_does_not_wait_for(line: Canned) -> None:
    """A test that talks to a ringing callee is a mistake, not silence."""
    phone = ring(line, '<Dial timeLimit="60">+15550100099</Dial>')
    with pytest.raises(NotNow, match="dial"):
        phone.say("hello")


# --- when webhooks fail ---


def at(line: Canned, fragment: str, **options: str | None) -> Phone:
    """A phone that rings at a voice URL with these overrides, and no other ones."""
    phone = Phone(f"{line.url}/voice/inbound{fragment}", token=TOKEN, **options)  # type: ignore[arg-type]  # only str and None are passed
    phone.ring()
    return phone


@pytest.mark.parametrize(
    ("fragment", "status", "attempts"),
    [
        ("", 502, 1),
        ("#rc=2&rp=5xx", 502, 3),
        ("#rc=2&rp=4xx", 502, 1),
        ("#rc=5&rp=all", 404, 6),
        ("#rc=9&rp=all", 502, 1),
    ],
)
def test_retries_follow_the_overrides(
    line: Canned, fragment: str, status: int, attempts: int
) -> None:
    """By default an error is not repeated; rc and rp change that; invalid ones do nothing."""
    line.on("/voice/inbound", Reply("no", status))
    phone = at(line, fragment, fallback=None)
    assert len(line.forms("/voice/inbound")) == attempts
    assert [problem.code for problem in phone.broken] == [11217]
    assert phone.transcript[-1] == "line plays Twilio's error message"


def test_an_attempt_is_repeated_unchanged(line: Canned) -> None:
    """Retries carry the same body, signature and idempotency token, and save the call."""
    line.on("/voice/inbound", Reply("", cut=True), Reply("<Response><Say>Hi.</Say></Response>"))
    phone = at(line, "#rc=1&rp=rt")
    first, second = line.asked[:2]
    assert first == second
    assert (phone.heard, phone.broken) == (["Hi."], [])


def test_a_slow_answer_is_given_up_and_asked_again(line: Canned) -> None:
    """The read timeout is real: the phone does not wait for what Twilio would not wait for."""
    hi = "<Response><Say>Hi.</Say></Response>"
    line.on("/voice/inbound", Reply(hi, delay=6.0), Reply(hi))
    started = time.monotonic()
    phone = at(line, "#rc=1&rp=rt&rt=200")
    assert phone.heard == ["Hi."]
    assert time.monotonic() - started < 5


def test_retries_end_with_the_total_time() -> None:
    """Fifteen seconds are the end, however many attempts are left."""
    tried: list[str] = []

    def hang(url: str, _: Fields, __: Mapping[str, str]) -> Answer:
        tried.append(url)
        raise Failed(11205, "no answer", "rt", 5.0)

    Phone("http://a.example", token=TOKEN, deliver=hang, fallback=None, status=None).ring()
    assert len(tried) == 3


def test_an_answer_after_fifteen_seconds_is_none() -> None:
    """A deliver that reports 16 seconds has failed, whatever it brought."""

    def late(_: str, __: Fields, ___: Mapping[str, str]) -> Answer:
        return Answer(200, {"Content-Type": "text/xml"}, b"<Response/>", 16.0)

    phone = Phone("http://a.example/v", token=TOKEN, deliver=late, fallback=None, status=None)
    phone.ring()
    assert [problem.code for problem in phone.broken] == [11205]


def test_nobody_there_is_repeated_once_by_default(line: Canned) -> None:
    """A refused connection is what Twilio repeats without being told."""
    line.close()
    phone = Phone(f"{line.url}/voice", token=TOKEN, fallback=None, status=None)
    phone.ring()
    assert phone.last_webhook is not None
    assert phone.last_webhook.attempts == 2
    assert [problem.code for problem in phone.broken] == [11205]


FAILURES = [
    (Reply("<Response>", kind="text/xml"), 12100),
    (Reply("<Answer/>", kind="text/xml"), 12100),
    (Reply("", kind="text/xml"), 12100),
    (Reply("{}", kind="application/json"), 12300),
    (Reply("<Response/>", kind=""), 11200),
    (Reply("<Response/>" + " " * 65536), 11750),
    (Reply("<Response/>", status=500), 11217),
]


@pytest.mark.parametrize(("reply", "code"), FAILURES)
def test_the_fallback_takes_over_and_learns_why(line: Canned, reply: Reply, code: int) -> None:
    """Whatever Twilio cannot execute leads to the fallback URL with ErrorCode and ErrorUrl."""
    line.on("/voice/inbound", reply)
    line.on("/voice/fallback", "<Say>Sorry.</Say>")
    phone = at(line, "#rc=0")
    assert phone.heard == ["Sorry."]
    (form,) = line.forms("/voice/fallback")
    assert form["ErrorCode"] == str(code)
    assert form["ErrorUrl"] == f"{line.url}/voice/inbound"
    assert [problem.code for problem in phone.broken] == [code]


def test_a_fallback_that_fails_ends_the_call(line: Canned) -> None:
    """Then the caller hears Twilio's own error message, and both failures are kept."""
    line.on("/voice/inbound", Reply("no", 500))
    phone = at(line, "", fallback="/nowhere")
    assert len(phone.broken) == 2
    assert phone.state == "ended"
    assert line.forms("/voice/status")[0]["CallStatus"] == "completed"


def test_a_caller_who_is_moved_on_is_spared_the_fallback(line: Canned) -> None:
    """A push that arrives while a webhook fails comes before fallback and error message."""
    line.on("/voice/inbound", Reply("no", 500))
    line.on("/voice/fallback", "<Say>Sorry.</Say>")
    line.on("/pushed", "<Say>Pushed.</Say>")

    def deliver(url: str, fields: Fields, headers: Mapping[str, str]) -> Answer:
        if url.endswith("/inbound"):
            phone.redirect(f"{line.url}/pushed")
        return http_deliver(url, fields, headers)

    phone = Phone(line.url, token=TOKEN, deliver=deliver)
    phone.ring()
    assert phone.heard == ["Pushed."]
    assert line.forms("/voice/fallback") == []


def test_plain_words_are_read_aloud(line: Canned) -> None:
    """A text/plain answer that is no TwiML is spoken, and the call ends."""
    line.on("/voice/inbound", Reply("Hello there", kind="text/plain"))
    assert at(line, "").heard == ["Hello there"]


def test_sound_is_played_and_the_call_ends(line: Canned) -> None:
    """An audio answer is played as it is."""
    line.on("/voice/inbound", Reply("RIFF", kind="audio/wav"))
    phone = at(line, "")
    assert phone.transcript[1:] == [f"line plays {line.url}/voice/inbound", "line hangs up"]


def test_endless_redirects_are_cut(line: Canned) -> None:
    """Documents that only send each other on are a loop."""
    line.on("/voice/process", "<Redirect>/voice/inbound</Redirect>")
    phone = ring(line, "<Redirect>/voice/process</Redirect>")
    assert "Redirect loop" in phone.broken[-1].words
    assert phone.state == "ended"


def test_limits_keep_their_defaults_for_bad_overrides() -> None:
    """A fragment that Twilio refuses changes nothing."""
    assert Limits.of("https://a.example/#rc=3&rp=sometimes") == Limits()
    assert Limits.of("https://a.example/#rt=5000&rp=ct,rt").rt == 5.0


# --- things that happen to a call ---


def test_retry_repeats_the_last_webhook_to_the_letter(line: Canned) -> None:
    """The same body and signature arrive again, and the phone compares the answers."""
    phone = gather(line)
    assert phone.retry().same
    line.on("/voice/inbound", "<Say>Something else.</Say>")
    answer, same = phone.retry()
    assert (answer.status, same) == (200, False)
    assert line.asked[0] == line.asked[1] == line.asked[2]
    assert phone.state == "gather"


def test_hanging_up_ends_the_call_at_once(line: Canned) -> None:
    """A Gather that is left is not reported; the end of the call is."""
    phone = gather(line)
    phone.hang_up()
    assert phone.transcript[-1] == "caller hangs up"
    assert [asked.target for asked in line.asked] == ["/voice/inbound", "/voice/status"]


def test_hanging_up_while_the_line_thinks(line: Canned) -> None:
    """The answer to the webhook under way is never played."""
    line.on("/voice/inbound", "<Say>Hello.</Say>")

    def deliver(url: str, fields: Fields, headers: Mapping[str, str]) -> Answer:
        if url.endswith("/inbound"):
            phone.hang_up()
        return http_deliver(url, fields, headers)

    phone = Phone(line.url, token=TOKEN, deliver=deliver)
    phone.ring()
    assert phone.transcript == ["rings", "caller hangs up"]
    assert len(line.forms("/voice/status")) == 1


def test_the_rest_api_moves_a_waiting_call(line: Canned) -> None:
    """A redirect abandons the verb under way and plays the new document."""
    line.on("/pushed", "<Say>The answer is yes.</Say>")
    phone = ring(line, '<Say>Wait.</Say><Pause length="60"/><Say>Still waiting.</Say>')
    assert phone.redirect(f"{line.url}/pushed")
    assert phone.heard == ["Wait.", "The answer is yes."]
    assert not phone.redirect(f"{line.url}/pushed"), "an ended call cannot be moved"


def test_a_push_during_a_webhook_replaces_its_answer(line: Canned) -> None:
    """The document that was on its way is dropped, and the pushed one is played."""
    line.on("/voice/inbound", "<Say>Too late.</Say>")
    line.on("/pushed", "<Say>Pushed.</Say>")

    def deliver(url: str, fields: Fields, headers: Mapping[str, str]) -> Answer:
        answer = http_deliver(url, fields, headers)
        if url.endswith("/inbound"):
            pusher = threading.Thread(target=phone.redirect, args=(f"{line.url}/pushed",))
            pusher.start()
            pusher.join()
        return answer

    phone = Phone(line.url, token=TOKEN, deliver=deliver)
    phone.ring()
    assert phone.heard == ["Pushed."]


def test_a_trial_account_strips_and_counts(line: Canned) -> None:
    """On trial Dial and Record are replaced by words, and ten hops are the end."""
    line.on(
        "/voice/inbound",
        '<Dial timeLimit="9">+15550100099</Dial><Pause/><Redirect>/voice/inbound</Redirect>',
    )
    phone = Phone(line.url, token=TOKEN, trial=True)
    phone.ring()
    assert phone.heard == ["The Dial verb is not available on trial accounts."]
    phone.wait(20)
    assert (phone.state, phone.hops) == ("ended", 11)
    assert "limit of ten requests" in phone.heard[-1]


def test_a_trial_account_waits_five_seconds() -> None:
    """What takes longer has failed on trial."""

    def slow(_: str, __: Fields, ___: Mapping[str, str]) -> Answer:
        return Answer(200, {"Content-Type": "text/xml"}, b"<Response/>", 5.5)

    for trial in (True, False):
        phone = Phone(
            "http://a.example/v", token=TOKEN, deliver=slow, trial=trial, fallback=None, status=None
        )
        phone.ring()
        assert bool(phone.broken) is trial


def test_a_paced_clock_takes_some_real_time(line: Canned) -> None:
    """In the terminal a hold is felt, at a fraction of its length."""
    line.on("/voice/inbound", '<Pause length="10"/>')
    phone = Phone(line.url, token=TOKEN, clock=Clock(pace=0.02))
    phone.ring()
    started = time.monotonic()
    phone.wait()
    assert 0.2 <= time.monotonic() - started < 5


# --- the judge ---

GOOD = [
    '<Gather input="dtmf speech" action="/a#rc=5&amp;rp=all&amp;ct=2000&amp;rt=5000" timeout="5"'
    ' speechTimeout="3" speechModel="phone_call" language="en-US" hints="billing, cancel"'
    ' actionOnEmptyResult="true" finishOnKey="#" numDigits="1"><Say voice="Polly.Joanna">Hi'
    '<break time="1s"/></Say></Gather>',
    '<Say>One moment.</Say><Dial action="/a" answerOnBridge="true" timeout="20" timeLimit="3600"'
    ' callerId="+15550001111"><Number>+15550100099</Number></Dial>',
    '<Say>Beep.</Say><Record action="/a" maxLength="120" playBeep="true" finishOnKey="#"/>',
    '<Pause length="5"/><Redirect method="POST">/a?turn=2</Redirect>',
    '<Reject reason="busy"/>',
]
DIAL = '<Dial timeLimit="60">+15550100099</Dial>'
SAID = "<Say>Hi</Say>"
BROKEN = [
    ('<Say voise="man">Hi</Say>', 12200),
    ("<say>Hi</say>", 12200),
    ("<Speak>Hi</Speak>", 12200),
    (f"{SAID} stray", 12200),
    (f'<Gather action="/a">{DIAL}</Gather>', 12200),
    ("<Number>+15550100099</Number>", 12200),
    ("<Say></Say>", 13520),
    (f'<Say voice="Polly.Joanna">{"a" * 3001}</Say>', 13521),
    ('<Say loop="-1">Hi</Say>', 12200),
    ('<Pause length="x"/>', 12200),
    (f'<Gather speechTimeout="auto" speechModel="phone_call">{SAID}</Gather>', 13335),
    (f'<Gather timeout="0">{SAID}</Gather>', 13313),
    (f'<Gather speechTimeout="soon">{SAID}</Gather>', 13327),
    (f'<Gather speechModel="best">{SAID}</Gather>', 13334),
    (f'<Gather finishOnKey="##">{SAID}</Gather>', 13310),
    (f'<Gather numDigits="0">{SAID}</Gather>', 12200),
    (f"<Gather input=\"['speech', 'dtmf']\">{SAID}</Gather>", 12200),
    (f'<Gather hints="{",".join(["a"] * 501)}">{SAID}</Gather>', 12200),
    (f'<Gather hints="{"a" * 101}">{SAID}</Gather>', 12200),
    (f'<Gather actionOnEmptyResult="True">{SAID}</Gather>', 12200),
    (f'<Gather action="/a b">{SAID}</Gather>', 11100),
    (f'<Gather action="/a#rp=always">{SAID}</Gather>', 11243),
    (f'<Gather action="/a#rt=20000">{SAID}</Gather>', 11100),
    ('<Dial timeLimit="60" timeout="4">+15550100099</Dial>', 12200),
    ('<Dial timeLimit="60" timeout="601">+15550100099</Dial>', 12200),
    ('<Dial timeLimit="0">+15550100099</Dial>', 12200),
    ('<Dial timeLimit="60" callerId="me">+15550100099</Dial>', 12200),
    ('<Dial timeLimit="60">5550100</Dial>', 13224),
    ('<Dial timeLimit="60"/>', 13224),
    (f'<Dial timeLimit="60">{"<Number>+15550100099</Number>" * 11}</Dial>', 13221),
    ('<Record maxLength="0"/>', 12200),
    ("<Redirect/>", 11100),
    ("<Redirect>/v</Redirect>", 0),
    ('<Connect><Stream url="wss://a.example"/></Connect>', 0),
    ('<Reject reason="tired"/>', 12200),
    (f"<Say>{'a' * 70000}</Say>", 11750),
]
WARNED = [
    ("", "empty"),
    ('<Gather action="/a" actionOnEmptyResult="true"/>', "no prompt"),
    (f'<Gather actionOnEmptyResult="true">{SAID}</Gather>', "no action"),
    (f'<Gather action="/a">{SAID}</Gather>', "silence"),
    (f'<Gather action="/a" bargeIn="true">{SAID}</Gather>{SAID}', "bargeIn"),
    (f'<Gather action="/a" enhanced="true">{SAID}</Gather>{SAID}', "enhanced"),
    (f'<Gather action="/a" method="GET">{SAID}</Gather>{SAID}', "POST"),
    ("<Dial>+15550100099</Dial>", "timeLimit"),
    ('<Say voice="alice">Hi</Say>', "alice"),
    (f"<Hangup/>{SAID}", "ever reached"),
    (f'<Dial action="/a" timeLimit="60">+15550100099</Dial>{SAID}', "ever reached"),
    (f"{SAID}<Reject/>", "answered"),
]


def verdict(inside: str) -> list[tuple[int, str, bool]]:
    """What the judge says about the inside of a <Response> fetched from /v."""
    found = judge(f"<Response>{inside}</Response>", "http://a.example/v#rc=1")
    return [(problem.code, problem.words, problem.broken) for problem in found]


@pytest.mark.parametrize("inside", GOOD)
def test_good_documents_pass(inside: str) -> None:
    """The judge has nothing to say about documents that Twilio takes as they are."""
    assert verdict(inside) == []


@pytest.mark.parametrize(("inside", "code"), BROKEN)
def test_broken_rules_are_named_by_their_code(inside: str, code: int) -> None:
    """Every rule that Twilio enforces is found, once, under Twilio's own number."""
    assert [found[0] for found in verdict(inside) if found[2]] == [code]


@pytest.mark.parametrize(("inside", "words"), WARNED)
def test_doubtful_documents_are_warned_about(inside: str, words: str) -> None:
    """What Twilio takes but hardly anybody means is said, and breaks nothing."""
    ((_, said, broken),) = verdict(inside)
    assert words in said
    assert not broken


@pytest.mark.parametrize(
    "document", ["", " <?xml version='1.0'?><Response/>", "<Response>&</Response>"]
)
def test_what_is_no_xml_is_no_twiml(document: str) -> None:
    """A document that cannot be parsed is one problem: 12100."""
    assert [problem.code for problem in judge(document, "/v")] == [12100]


def test_the_phone_keeps_what_the_judge_says(line: Canned) -> None:
    """Problems are in the transcript at the moment they happen, as comments."""
    phone = ring(line, '<Say voise="man">Hi</Say>')
    assert phone.transcript[1] == "# broken 12200: <Say> has no attribute 'voise'"
    assert len(phone.broken) == 1


# --- transcripts ---

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


def voicemail(line: Canned) -> Phone:
    """A phone, not yet rung, at a line that transfers and then takes a message."""
    line.on("/voice/inbound", GATHER.format(""))
    line.on(
        "/next",
        '<Say>Connecting you now.</Say><Dial action="/dialled" timeLimit="60">+15550100099</Dial>',
    )
    line.on("/dialled", '<Record action="/recorded"/>')
    line.on("/recorded", '<Say>Thank you.</Say><Pause length="2"/><Say>Goodbye.</Say>')
    return Phone(line.url, token=TOKEN)


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


# --- the terminal ---


def terminal(line: Canned, script: str, *options: str) -> subprocess.CompletedProcess[str]:
    """The command, fed with a script, ringing at the canned line."""
    environment = {k: v for k, v in os.environ.items() if k != "TWILIO_AUTH_TOKEN"}
    return subprocess.run(
        [sys.executable, str(COMMAND), "--url", line.url, "--token", TOKEN, *options],
        input=script,
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
        check=False,
    )


def test_the_terminal_prints_a_transcript(line: Canned) -> None:
    """A script on standard input comes out as a call that can be played again."""
    voicemail(line)
    done = terminal(line, "billing\n!no-answer\n!message 7\n")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\x1b" not in done.stdout
    said = [event for event in done.stdout.splitlines() if not event.startswith("#")]
    assert said == [
        "rings",
        "line: Which?",
        "caller: billing",
        "line: Connecting you now.",
        "line dials +15550100099",
        "callee does not answer",
        "line records",
        "caller leaves a message (7 s)",
        "line: Thank you.",
        "line waits 2 s",
        "line: Goodbye.",
        "line hangs up",
    ]
    assert run_script(voicemail(line), said) == []


def test_the_end_of_the_input_hangs_up(line: Canned) -> None:
    """A script that ends in mid-call is a caller who hangs up."""
    voicemail(line)
    done = terminal(line, "", "--from", "anonymous")
    assert "rings from anonymous\n" in done.stdout
    assert "caller hangs up\n" in done.stdout
    assert done.returncode == 0
    assert line.forms("/voice/inbound")[0]["From"] == "anonymous"


def test_the_terminal_explains_what_it_cannot_do(line: Canned) -> None:
    """What is of no use is answered with a comment; the call goes on, and the script fails."""
    voicemail(line)
    done = terminal(line, "!retry\n!kill\n!history\n!help\n!dance\n!answer 5\n#1\n!busy\n!hangup\n")
    for words in (
        "twilio retries\n# the same words: HTTP 200",
        "not ours to kill",
        "cannot be read from here",
        "!message [seconds]",
        "not understood: !dance",
        "not now: you speak",
        "caller presses 1\n",
        "callee is busy\n",
        "caller hangs up\n",
        "lines of the script not usable: 4 (CA",
    ):
        assert words in done.stdout
    assert "all well" not in done.stdout
    assert done.returncode == 1


@pytest.mark.parametrize(
    "script",
    [
        (ROOT / "tests/calls/instance_killed.call").read_text(encoding="utf-8"),
        "# A call on 1 May 2025.\n\nset FORWARD_TO=+15550100099\nrings\n",
        "rings from anonymous\nline: Which?\n",
    ],
)
def test_a_transcript_is_not_taken_for_a_script(line: Canned, script: str) -> None:
    """Whoever pipes a saved call in is told how such a file is run, and nobody rings."""
    done = terminal(line, script)
    assert (done.returncode, done.stdout) == (1, "")
    assert "this is a transcript" in done.stderr
    assert "run python -m pytest tests/test_calls.py" in done.stderr
    assert line.asked == []


@pytest.mark.parametrize("words", ["set up a meeting", "my phone rings"])
def test_a_caller_may_talk_like_a_transcript(line: Canned, words: str) -> None:
    """Words that only resemble one are said."""
    voicemail(line)
    assert f"caller: {words}\n" in terminal(line, words).stdout


@pytest.mark.parametrize(
    ("typed", "hint"), [("0", True), ("*", True), ("42", False), ("#0", False)]
)
def test_a_bare_digit_is_said_to_be_a_word(line: Canned, typed: str, hint: bool) -> None:
    """Who types 0 hears that it was spoken, and how the key is pressed."""
    voicemail(line)
    told = f"# heard as the word {typed}; #{typed} presses the key\n"
    assert (told in terminal(line, typed).stdout) is hint


def test_an_apology_is_not_well(line: Canned) -> None:
    """A line at --url that apologised for a bug of its own went wrong, whatever its TwiML."""
    line.on("/voice/inbound", f"<Say>{APOLOGIES[0]}</Say>")
    done = terminal(line, "")
    assert "# the line apologised for a mistake of its own: its log has the cause\n" in done.stdout
    assert "apologies: 1 (CA" in done.stdout
    assert done.returncode == 1


def test_a_broken_rule_is_the_exit_status(line: Canned) -> None:
    """Status 1 says that something was broken, and the words say what."""
    line.on("/voice/inbound", '<Say voise="man">Hi</Say>')
    done = terminal(line, "")
    assert done.returncode == 1
    assert "# broken 12200: <Say> has no attribute 'voise'" in done.stdout


def test_the_line_is_spoken_aloud_when_asked(
    line: Canned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With --say the words of the line, and only those, go to the system's voice."""
    voice, spoken = tmp_path / "espeak-ng", tmp_path / "spoken"
    voice.write_text(f'#!/bin/sh\necho "$1" >> {spoken}\n')
    voice.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    voicemail(line)
    terminal(line, "billing\n", "--say")
    assert spoken.read_text() == "Which?\nConnecting you now.\n"


def test_an_interrupt_hangs_up(line: Canned) -> None:
    """Ctrl-C is a caller who hangs up: the call is reported and the command ends well."""
    voicemail(line)
    # Tests that a script runs in the background ignore Ctrl-C, and so would what they start.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(
        [sys.executable, str(COMMAND), "--url", line.url, "--token", TOKEN],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as command:
        signal.signal(signal.SIGINT, before)
        assert command.stdout is not None
        while command.stdout.readline() != "line: Which?\n":
            assert command.poll() is None
        time.sleep(0.2)
        command.send_signal(signal.SIGINT)
        assert command.stdout.readline() == "caller hangs up\n"
        assert command.wait(10) == 0
    assert line.forms("/voice/status")


@pytest.mark.parametrize(
    "options", [["--set", "A=1"], ["--env", ".env"], ["--what"], ["--token", ""]]
)
def test_wrong_usage_is_status_two(line: Canned, options: list[str]) -> None:
    """Options that cannot be meant are refused before anybody rings."""
    done = terminal(line, "", *options)
    assert done.returncode == 2
    assert "usage:" in done.stderr
    assert line.asked == []


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        ("GREETNG=Hi", "'GREETNG'; did you mean GREETING?"),
        ("hours=never", "'hours'; did you mean HOURS?"),
        ("SPEECH_TIME_OUT=3", "'SPEECH_TIME_OUT'; did you mean SPEECH_TIMEOUT?"),
        ("XYZZY=1", "'XYZZY'; .env.example lists them all"),
        ("=1", "''; .env.example lists them all"),
    ],
)
def test_a_setting_that_does_not_exist_is_refused(pair: str, words: str) -> None:
    """A misspelt name starts nothing, and the name that was probably meant is told."""
    done = command("", "--set", pair)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"there is no setting {words}" in done.stderr


ENV = """\ufeff# the settings of a line
TWILIO_AUTH_TOKEN=real
UPSTASH_REDIS_REST_URL=https://real.example
PUBLIC_URL=https://real.example
STATE_FILE=/data/calls

FORWARD_TO=+15550100098  # Ann
export HOURS = "Mon-Sun 00:00-24:00 Europe/Berlin"
GREETING='Hello, and press "#".'
LANGUAGE=
ADMIN_TOKEN="do#not#show#this"
"""


def test_a_rehearsal_takes_its_settings_from_a_file(tmp_path: Path) -> None:
    """--env reads what .env has, but for the account, the store and the URL; --set wins."""
    (file := tmp_path / ".env").write_text(ENV, encoding="utf-8")
    assert arguments(["--env", str(file), "--set", "FORWARD_TO=+15550100097"]).settings == {
        "FORWARD_TO": "+15550100097",
        "HOURS": "Mon-Sun 00:00-24:00 Europe/Berlin",
        "GREETING": 'Hello, and press "#".',
        "ADMIN_TOKEN": "do#not#show#this",
    }


def test_a_rehearsal_is_a_call_without_secrets(tmp_path: Path) -> None:
    """The line starts with the settings of the file, and prints those that are no secret."""
    (file := tmp_path / ".env").write_text(ENV, encoding="utf-8")
    done = command("!hangup\n", "--env", str(file))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\nset FORWARD_TO=+15550100098\n" in done.stdout
    assert "\n# ADMIN_TOKEN is set\n" in done.stdout
    assert 'rings\nline: Hello, and press "#".\n' in done.stdout
    assert "do#not#show#this" not in done.stdout
    assert "real" not in done.stdout


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("GREETNG=Hi", "--env: there is no setting 'GREETNG'; did you mean GREETING?"),
        ("\nFORWARD_TO +1", ".env: line 2 is not NAME=VALUE"),
        (None, ".env cannot be read: No such file or directory"),
    ],
)
def test_a_file_of_settings_that_cannot_be_meant_is_refused(
    tmp_path: Path, text: str | None, words: str
) -> None:
    """A missing file, a line that is no setting and a misspelt name are told before it starts."""
    if text is not None:
        (tmp_path / ".env").write_text(text, encoding="utf-8")
    done = command("", "--env", str(tmp_path / ".env"))
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr


def test_every_setting_of_the_example_may_be_set(capsys: pytest.CaptureFixture[str]) -> None:
    """The names come from .env.example, commented ones included, and Railway's own are known."""
    assert {"TWILIO_AUTH_TOKEN", "GREETING", "HOURS", "LOG_WORDS"} <= SETTINGS
    pairs = [f"{name}=1" for name in (*sorted(SETTINGS), "RAILWAY_PUBLIC_DOMAIN")]
    given = [word for pair in pairs for word in ("--set", pair)]
    assert arguments(given).set == pairs
    with pytest.raises(SystemExit):
        arguments(["--set", "values=1"])
    assert "did you mean" not in capsys.readouterr().err


def test_the_report_of_health_comes_before_the_call(line: Canned) -> None:
    """Each problem is one comment before the line rings, and the status is 1 after a good call."""
    report = '{"ok": false, "problems": ["HOURS is wrong;\\nexpected hours", "no store"]}'
    line.on("/healthz", Reply(report, 503, "application/json"))
    line.on("/voice/inbound", "<Hangup/>")
    done = terminal(line, "")
    assert done.stdout.splitlines()[1:5] == [
        "# broken setting: HOURS is wrong; expected hours",
        "# broken setting: no store",
        "rings",
        "line hangs up",
    ]
    assert "broken settings: 2" in done.stdout
    assert done.returncode == 1
    assert [asked.target for asked in line.asked][:2] == ["/healthz", "/voice/inbound"]


@pytest.mark.parametrize("body", ["not here", "[]", '{"problems": null}', "7"])
def test_a_line_without_a_report_is_called_all_the_same(line: Canned, body: str) -> None:
    """What is no report of health is said, and breaks nothing."""
    line.on("/healthz", Reply(body, 404, "application/json"))
    line.on("/voice/inbound", "<Hangup/>")
    done = terminal(line, "")
    assert "# no report at /healthz: HTTP 404\nrings\n" in done.stdout
    assert done.returncode == 0


def test_a_printed_call_can_be_kept_and_found_again(line: Canned) -> None:
    """It opens with a sentence, as a file in tests/calls does, and closes with the CallSid."""
    line.on("/voice/inbound", "<Hangup/>")
    opening, *_, closing = terminal(line, "").stdout.splitlines()
    assert re.fullmatch(r"# A call on [1-9]\d? [A-Z][a-z]+ \d{4}\.", opening)
    assert closing.startswith("# ")
    assert closing.endswith(f"all well ({line.forms('/voice/inbound')[0]['CallSid']})")


def test_words_can_be_badly_understood(line: Canned) -> None:
    """!unsure speaks with little confidence; without words it is not understood."""
    voicemail(line)
    done = terminal(line, "!unsure\n!unsure my bill 5\n!help\n")
    assert "# not understood: !unsure (" in done.stdout
    assert "caller: my bill 5 (confidence 0.3)\n" in done.stdout
    assert "# !unsure words" in done.stdout
    (form,) = line.forms("/next")
    assert (form["SpeechResult"], form["Confidence"]) == ("my bill 5", "0.3")


def test_a_refused_call_is_explained_once(line: Canned) -> None:
    """The line's own sentence is told, and both causes that it may have, and no echo."""
    for path in ("/voice/inbound", "/voice/fallback", "/voice/status"):
        line.on(path, Reply("Twilio did not\nsign this.", 403, "text/plain"))
    done = terminal(line, "")
    assert done.returncode == 1
    assert done.stdout.count("# the line answered: Twilio did not sign this.\n") == 1
    assert done.stdout.count("# either --token is not the TWILIO_AUTH_TOKEN of the line,\n") == 1
    assert f"# or the line's PUBLIC_URL is not {line.url}, which was rung\n" in done.stdout
    assert len(line.forms("/voice/inbound")) == 6
    again = "# twilio tries again, 5 times: the answer was HTTP 403\n"
    assert done.stdout.startswith(again, done.stdout.index("rings\n") + len("rings\n"))
    assert done.stdout.count("tries again") == 3, "inbound, fallback and status, one line each"


def test_a_call_of_another_account_is_explained(line: Canned) -> None:
    """A line that takes the calls of one account only needs its number, not another token."""
    line.on("/voice/inbound", Reply("This call belongs to another account.", 403, "text/plain"))
    done = terminal(line, "")
    assert "# export the TWILIO_ACCOUNT_SID that is set there\n" in done.stdout
    assert "# either --token" not in done.stdout


def test_a_page_that_refuses_is_not_read_out(line: Canned) -> None:
    """Only plain words are told: what stands before a line may answer with a whole page."""
    line.on("/voice/inbound", Reply("<html>Forbidden</html>", 403, "text/html"))
    done = terminal(line, "")
    assert "html" not in done.stdout
    assert "# either --token" in done.stdout


def test_attempts_that_fail_otherwise_are_told_apart(line: Canned) -> None:
    """A line for as many attempts in a row as failed alike."""
    codes = (403, 403, 502, 403)
    fine = Reply("<Response><Hangup/></Response>")
    line.on("/voice/inbound", *(Reply("no", code) for code in codes), fine)
    assert at(line, "#rc=5&rp=all").transcript == [
        "rings",
        "# twilio tries again, 2 times: the answer was HTTP 403",
        "# twilio tries again: the answer was HTTP 502",
        "# twilio tries again: the answer was HTTP 403",
        "line hangs up",
    ]


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("!hangup\nbilling\n\n#1\n\n", "3 lines of the script never used: 'billing', '', '#1'"),
        ("!hangup\nbilling", "1 line of the script never used: 'billing'"),
        ("!hangup\n\n", ""),
        ("", ""),
    ],
)
def test_what_came_too_late_is_told_at_the_end(line: Canned, script: str, told: str) -> None:
    """Lines after the end of the call are in one comment; empty ones at the end are none."""
    voicemail(line)
    done = terminal(line, script)
    late = [event for event in done.stdout.splitlines() if "never used" in event]
    assert late == ([f"# the call had ended, {told}"] if told else [])
    assert done.returncode == 0


def test_an_open_input_does_not_keep_the_phone(line: Canned) -> None:
    """Whoever writes the script slowly is not waited for when the call has ended."""
    line.on("/voice/inbound", "<Hangup/>")
    with subprocess.Popen(
        [sys.executable, str(COMMAND), "--url", line.url, "--token", TOKEN],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    ) as command:
        assert command.wait(10) == 0


# --- the real process ---


def command(
    script: str, *options: str, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """The command on a function of its own, fed with a script."""
    return subprocess.run(
        [sys.executable, str(COMMAND), *options],
        input=script,
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | (env or {}),
        check=False,
    )


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, str]:
    """What a function needs to start."""
    state = str(tmp_path / "calls.sqlite3")
    return {"TWILIO_AUTH_TOKEN": TOKEN, "STATE_FILE": state, "FORWARD_TO": "+15550100099"}


def test_an_instance_answers_until_it_is_killed(settings: dict[str, str]) -> None:
    """A call is answered by a real process, which then is gone and comes back on its port."""
    with Instance(settings) as instance:
        phone = Phone(instance.url, token=TOKEN)
        phone.ring()
        assert phone.state == "gather", phone.transcript
        first = instance.pid
        instance.kill()
        with pytest.raises(Failed, match="no connection"):
            http_deliver(instance.url, [], {})
        instance.restart()
        assert phone.retry().same
        assert instance.pid not in {0, first}
        assert instance.log()


def test_an_instance_stops_when_told(settings: dict[str, str]) -> None:
    """SIGTERM ends it well before it would be killed."""
    with Instance(settings) as instance:
        assert instance.stop() < 10
        assert instance.pid == 0


def test_an_instance_that_cannot_start_says_why(settings: dict[str, str]) -> None:
    """A process that ends at once is an error with its own last words."""
    with pytest.raises(RuntimeError, match="did not start"):
        Instance(settings | {"PYTHONHOME": "/nowhere"})


def test_the_command_runs_the_function_itself() -> None:
    """Without --url the function is started, killed, looked into, and gone at the end."""
    script = "!kill\n!retry\nAnn, my bill\n!history\n!answer 30\n"
    done = command(script, "--set", "FORWARD_TO=+15550100098")
    assert done.returncode == 0, done.stdout + done.stderr
    opening, rest = done.stdout.split("\n", 1)
    assert opening.startswith("# A call on ")
    assert rest.startswith("set FORWARD_TO=+15550100098\nrings\nline: ")
    assert "# the same words" in done.stdout
    assert "# 1: " in done.stdout
    assert "line dials +15550100098" in done.stdout
    assert "callee answers (30 s)" in done.stdout


def test_a_broken_setting_of_the_own_function_is_told() -> None:
    """What the function's report says of a setting is printed before the call, which goes on."""
    done = command("!hangup\n", "--set", "FORWARD_TO=+15550100098", "--set", "HOURS=never")
    before, _, after = done.stdout.partition("rings\n")
    assert "\n# broken setting: HOURS is 'never'" in before
    assert after.startswith("line: ")
    assert done.returncode == 1


def test_exported_settings_do_not_leak(
    settings: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line in a test is set up by the test, whatever the shell that runs it exports."""
    monkeypatch.setenv("GREETING", "Leaked.")
    monkeypatch.setenv("HOURS", "never")
    with Instance(settings) as instance:
        phone = Phone(instance.url, token=TOKEN)
        assert "Leaked." not in phone.ring()
        assert phone.state == "gather", phone.transcript
    with Instance(settings | {"GREETING": "Meant."}) as instance:
        assert "Meant." in Phone(instance.url, token=TOKEN).ring()


def test_exported_settings_do_not_reach_the_terminal() -> None:
    """Nor do they set up the function that the terminal starts: --set does."""
    exported = dict.fromkeys(SETTINGS, "never") | {"GREETING": "Leaked."}
    done = command("!hangup\n", env=exported)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "set FORWARD_TO=+15550100099\nrings\nline: " in done.stdout
    assert "Leaked." not in done.stdout


BUG = """

def decide(*_: object) -> None:
    raise ZeroDivisionError
"""


def test_a_bug_of_the_own_function_is_told_with_its_cause(tmp_path: Path) -> None:
    """The caller hears an apology; the terminal shows what the log says of it, and ends ill."""
    skipped = shutil.ignore_patterns("test_*", "calls", "records", "__pycache__")
    shutil.copytree(ROOT / "tests", tmp_path / "tests", ignore=skipped)
    shutil.copy(ROOT / ".env.example", tmp_path)
    text = (ROOT / "main.py").read_text(encoding="utf-8")
    (tmp_path / "main.py").write_text(text + BUG, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(tmp_path / "tests/phone.py")],
        input="!answer\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert f"line: {APOLOGIES[0]}\n" in done.stdout
    found = "# error in the log: a bug: apologised to the caller path=/voice/inbound cause=ZeroDiv"
    assert found in done.stdout
    assert "apologies: 1, errors in the log: 1 (CA" in done.stdout
    assert "all well" not in done.stdout
    assert done.returncode == 1


@pytest.mark.parametrize("program", ["phone.py", "live.py"])
def test_an_older_python_is_told_which_one_is_needed(program: str) -> None:
    """Not an ImportError from somewhere inside: a sentence, and status 1."""
    code = (
        "import runpy, sys; sys.version_info = (3, 10, 13); sys.path.insert(0, 'tests'); "
        f"runpy.run_path('tests/{program}', run_name='__main__')"
    )
    old = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert old.returncode == 1
    assert old.stderr.startswith("Python 3.11 or newer is needed; this is ")
