"""What the line answers to single webhooks: good ones, bad ones, repeated ones, and in bad weather.

Whole calls stand in tests/calls; here one request at a time is looked at, with its status, its
words, the cells that it leaves behind, and what it costs.
"""

import json
import re
import sqlite3
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NoReturn
from urllib.parse import urlencode

import pytest
from flask import Request
from inside import FORM, ORIGIN, TOKEN, Inside, environ, stored
from phone import Answer, Fields, judge, sign
from upstash import Upstash, once

import main

PERSON: Final = "+15550100099"
GREETING: Final = "Hello, and thank you for calling."
QUESTION: Final = "Please tell me your name, and what you are calling about."
MENU: Final = {"DEPARTMENTS": "billing=+15550100001 sales=+15550100002", "FORWARD_TO": PERSON}
VOICE_PATHS: Final = ("/", "/voice", "/voice/inbound", "/webhook/voice")
PATHS: Final = (*VOICE_PATHS, "/voice/process?turn=1&step=reason", "/voice/status")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "calls"


@pytest.fixture
def line(file: Path) -> Inside:
    """A line with a person behind it and the embedded store."""
    return Inside({"FORWARD_TO": PERSON, "STATE_FILE": str(file)})


@pytest.fixture
def log(capsys: pytest.CaptureFixture[str]) -> Callable[[], list[dict[str, Any]]]:
    """Reads the lines logged since the last look."""
    return lambda: [json.loads(each) for each in capsys.readouterr().out.splitlines()]


def webhook(**more: str) -> dict[str, str]:
    """The fields of a webhook of a call of its own."""
    known = {
        "CallSid": "CA" + uuid.uuid4().hex,
        "From": "+15557654321",
        "CallStatus": "in-progress",
    }
    return known | more


def words(answer: Answer, target: str = "/") -> str:
    """The TwiML of a good answer, which has passed the judge."""
    assert (answer.status, answer.kind) == (200, "text/xml")
    said = answer.body.decode()
    assert judge(said, ORIGIN + target) == []
    return said


# What is served where.


@pytest.mark.parametrize("path", VOICE_PATHS)
def test_a_call_may_begin_at_any_of_the_usual_paths(line: Inside, path: str) -> None:
    """The paths that tutorials use all greet the caller and ask the first question."""
    said = words(line.post(path, webhook(CallStatus="ringing")))
    assert GREETING in said
    assert QUESTION in said


@pytest.mark.parametrize("path", ["/nothing", "/voice/", "/voice/inbound/x", "/VOICE", "/.env"])
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


# Who asks: the signature.


def tampered(line: Inside, target: str, signed: Fields, sent: Fields, token: str = TOKEN) -> int:
    """The status when one thing was signed and another is sent."""
    signature = sign(token, ORIGIN + target, signed)
    headers = {"Content-Type": FORM, "X-Twilio-Signature": signature}
    return line.send("POST", target, urlencode(sent).encode(), headers).status


TAMPERING: Final[Mapping[str, Callable[[Fields], Fields]]] = {
    "a field altered": lambda form: [*form[:-1], ("Digits", "9")],
    "a field added": lambda form: [*form, ("SpeechResult", "billing")],
    "a blank field added": lambda form: [*form, ("ToZip", "")],
    "a field dropped": lambda form: form[:-1],
    "a field repeated with another value": lambda form: [*form, ("Digits", "2")],
    "nothing left": lambda _: [],
}


@pytest.mark.parametrize("path", [*PATHS, "/voice/fallback"])
@pytest.mark.parametrize("alter", TAMPERING.values(), ids=TAMPERING)
def test_an_altered_field_is_refused(
    line: Inside, file: Path, path: str, alter: Callable[[Fields], Fields]
) -> None:
    """Whatever is changed in a signed form makes it nobody's: 403, and nothing is stored."""
    form = [*webhook().items(), ("Digits", "1")]
    assert tampered(line, path, form, form) != 403
    kept = stored(file)
    assert tampered(line, path, form, alter(form)) == 403
    assert stored(file) == kept


@pytest.mark.parametrize(
    "sent",
    [
        "/voice/process?turn=2&step=reason",
        "/voice/process?turn=1&step=connect",
        "/voice/process?step=reason&turn=1",
        "/voice/process?turn=1&step=reason&",
        "/voice/process?turn=1&step=%72eason",
        "/voice/inbound?turn=1&step=reason",
    ],
)
def test_an_altered_url_is_refused(line: Inside, file: Path, sent: str) -> None:
    """A signature is for one URL, character by character."""
    form = list(webhook().items())
    signature = sign(TOKEN, f"{ORIGIN}/voice/process?turn=1&step=reason", form)
    headers = {"Content-Type": FORM, "X-Twilio-Signature": signature}
    assert line.send("POST", sent, urlencode(form).encode(), headers).status == 403
    assert stored(file) == {}


@pytest.mark.parametrize(
    "signature", [None, "", "é", "x" * 10_000, "AAAAAAAAAAAAAAAAAAAAAAAAAAA="], ids=repr
)
def test_a_wrong_signature_is_refused(line: Inside, file: Path, signature: str | None) -> None:
    """No signature, and anything that is none, is 403 in plain words."""
    given = {} if signature is None else {"X-Twilio-Signature": signature}
    body = urlencode(webhook()).encode()
    answer = line.send("POST", "/voice", body, {"Content-Type": FORM} | given)
    assert (answer.status, answer.kind) == (403, "text/plain")
    assert stored(file) == {}


def test_a_refusal_comes_before_any_look_at_the_webhook(line: Inside) -> None:
    """Unsigned nonsense is 403, not 400: nobody learns what would have been usable."""
    headers = {"Content-Type": FORM}
    assert line.send("POST", "/voice/process?turn=abc", b"CallSid=x", headers).status == 403


def test_a_refusal_is_logged_without_what_was_sent(
    line: Inside, log: Callable[[], list[dict[str, Any]]]
) -> None:
    """The log has the URL and the names of the fields, to find the cause, but no values."""
    form = webhook(SpeechResult="my secret")
    line.send("POST", "/voice", urlencode(form).encode(), {"Content-Type": FORM})
    [entry] = log()
    assert entry["url"] == ORIGIN + "/voice"
    assert "SpeechResult" in entry["fields"]
    assert "my secret" not in json.dumps(entry)


@pytest.mark.parametrize("token", ["old", "new"])
def test_two_tokens_are_good_while_one_is_replaced(file: Path, token: str) -> None:
    """During a rotation both tokens sign; a third does not."""
    line = Inside({"TWILIO_AUTH_TOKEN": "old, new", "STATE_FILE": str(file)})
    form = list(webhook().items())
    assert tampered(line, "/voice", form, form, token) == 200
    assert tampered(line, "/voice", form, form, "old, new") == 403


def test_without_a_token_every_call_is_refused(file: Path) -> None:
    """A line that cannot verify serves nobody, not even whoever signs with an empty token."""
    line = Inside({"TWILIO_AUTH_TOKEN": "", "STATE_FILE": str(file)})
    form = list(webhook().items())
    assert [tampered(line, "/voice", form, form, token) for token in (TOKEN, "")] == [403, 403]
    assert stored(file) == {}


CALL: Final = [
    ("CallSid", "CA1234567890ABCDE"),
    ("Caller", "+14158675309"),
    ("Digits", "1234"),
    ("From", "+14158675309"),
    ("To", "+18005551212"),
]
DOCUMENTED: Final = [*[(name, value.replace("675309", "675310")) for name, value in CALL]]
TWICE: Final = [
    ("Sid", "CA123"),
    ("SidAccount", "AC123"),
    *[("Digits", digits) for digits in ("5678", "1234", "1234")],
]
BLANK: Final = [("CallSid", "CA1"), ("ToZip", ""), ("From", "+15551234567")]
ACCENT: Final = [("CallSid", "CA1"), ("SpeechResult", "café con leche")]
PHP: Final = "/myapp.php?foo=1&bar=2"


@pytest.mark.parametrize(
    ("origin", "target", "form", "signature"),
    [
        ("https://mycompany.com", PHP, CALL, "RSOYDt4T1cUTdK1PDd93/VVr8B8="),
        ("https://mycompany.com:443", PHP, CALL, "RSOYDt4T1cUTdK1PDd93/VVr8B8="),
        ("https://mycompany.com:443", PHP, CALL, "kvajT1Ptam85bY51eRf/AJRuM3w="),
        ("http://mycompany.com:1234", PHP, CALL, "Zmvh+3yNM1Phv2jhDCwEM3q5ebU="),
        ("http://mycompany.com:80", PHP, CALL, "0ZXoZLH/DfblKGATFgpif+LLRf4="),
        ("https://mycompany.com", PHP + "&Body=It's+amazing", CALL, "dsq4Ehbj6cs+KdTkpF5sSSplOWw="),
        ("https://mycompany.com", PHP, TWICE, "IK+Dwps556ElfBT0I3Rgjkr1wJU="),
        ("https://example.com", PHP, DOCUMENTED, "L/OH5YylLD5NRKLltdqwSvS0BnU="),
        ("https://example.com", "/voice", BLANK, "T5ygwuEjXXyuXH64UPuJjlygSWE="),
        ("https://example.com", "/voice", ACCENT, "6Wcs861x1cpe8dwGt6NxIlfQ1Rk="),
    ],
)
def test_signatures_of_twilio_are_accepted(
    origin: str, target: str, form: Fields, signature: str
) -> None:
    """The published examples of Twilio and its libraries pass, with ports, repeats and blanks."""
    scheme, _, host = origin.partition("://")
    headers = {"Host": host, "X-Forwarded-Proto": scheme, "Content-Type": FORM}
    settings = main.read_settings({"TWILIO_AUTH_TOKEN": "12345"})
    body = urlencode(form).encode()
    signed = environ("POST", target, body, headers | {"X-Twilio-Signature": signature})
    assert main.verify(settings, Request(signed)) == (origin, dict(reversed(form)))
    other = environ("POST", target + "&", body, headers | {"X-Twilio-Signature": signature})
    with pytest.raises(main.Rejected):
        main.verify(settings, Request(other))


@pytest.mark.parametrize(
    "target",
    [
        "/voice/inbound?",
        "/voice/inbound?next=a%2Fb",
        "/voice/inbound?name=caf%C3%A9&x=a%20b+c&y=%2B1",
        "/voice/inbound?x=%zz&&=",
        "/voice%2Finbound",
        "/voice/process?turn=1&step=%72eason",
    ],
)
def test_the_url_is_taken_as_it_came(line: Inside, target: str) -> None:
    """A target is signed with its escapes, blanks and question mark, and so it is verified."""
    assert QUESTION in words(line.post(target, webhook()), target)


def test_the_origin_comes_from_the_proxy_when_it_is_not_set(file: Path) -> None:
    """Without PUBLIC_URL the proxy's headers tell which origin Twilio called."""
    line = Inside({"PUBLIC_URL": "", "STATE_FILE": str(file)})
    form = list(webhook().items())
    headers = {
        "Content-Type": FORM,
        "Host": "10.0.0.7:8080",
        "X-Forwarded-Host": "calls.example",
        "X-Forwarded-Proto": "https",
        "X-Twilio-Signature": sign(TOKEN, "https://calls.example/voice", form),
    }
    assert line.send("POST", "/voice", urlencode(form).encode(), headers).status == 200


def test_the_origin_that_is_set_beats_the_proxy(line: Inside) -> None:
    """With PUBLIC_URL no header can make another URL out of a request."""
    form = list(webhook().items())
    headers = {
        "Content-Type": FORM,
        "X-Forwarded-Host": "calls.example",
        "X-Forwarded-Proto": "https",
        "X-Twilio-Signature": sign(TOKEN, "https://calls.example/voice", form),
    }
    assert line.send("POST", "/voice", urlencode(form).encode(), headers).status == 403


def test_calls_of_another_account_are_refused(file: Path) -> None:
    """With TWILIO_ACCOUNT_SID only this account's calls are served, though the signature fits."""
    mine, other = "AC" + "1" * 32, "AC" + "2" * 32
    line = Inside({"TWILIO_ACCOUNT_SID": mine, "STATE_FILE": str(file)})
    assert line.post("/voice", webhook(AccountSid=other)).status == 403
    assert line.post("/voice", webhook()).status == 403
    assert stored(file) == {}
    assert line.post("/voice", webhook(AccountSid=mine)).status == 200


# What is asked: signed, and still no use.


@pytest.mark.parametrize(
    "call_sid",
    [
        "",
        "CA123",
        "CA" + "g" * 32,
        "CA" + "1" * 33,
        "MZ" + "1" * 32,
        "CA" + "1" * 32 + "\n",
        "../x",
    ],
    ids=repr,
)
@pytest.mark.parametrize("path", [*PATHS, "/voice/fallback"])
def test_a_call_needs_a_name(line: Inside, file: Path, path: str, call_sid: str) -> None:
    """A webhook whose CallSid is no CallSid is 400 in plain words, and makes no cell."""
    answer = line.post(path, webhook(CallSid=call_sid))
    assert (answer.status, answer.kind) == (400, "text/plain")
    assert stored(file) == {}


@pytest.mark.parametrize(
    "turn",
    ["abc", "", "-1", "101", "99999999999", "1.5", "1e1", "0x1", "%2B1", "%D9%A3", "1%00", "%20"],
)
def test_a_turn_is_a_number_up_to_100(line: Inside, file: Path, turn: str) -> None:
    """Any other turn is 400 in plain words, and makes no cell."""
    answer = line.post(f"/voice/process?turn={turn}&step=reason", webhook())
    assert (answer.status, answer.kind) == (400, "text/plain")
    assert stored(file) == {}


def test_a_turn_must_be_named(line: Inside) -> None:
    """The path for later webhooks is no use without a turn."""
    assert line.post("/voice/process", webhook()).status == 400


@pytest.mark.parametrize("step", ["", "nowhere", "%00", "%F0%9F%92%A9", "a" * 5000, "blocked"])
def test_a_step_that_nobody_knows_is_the_first_question(line: Inside, step: str) -> None:
    """Without a record and without a known step the call begins again, in words."""
    target = f"/voice/process?turn=5&step={step}"
    assert QUESTION in words(line.post(target, webhook()), target)


@pytest.mark.parametrize(
    "more", ["hold=1", "hold=abc", "hold=-1", "hold=100&pushed=1", "hold=&x=y"]
)
def test_a_hold_that_was_never_asked_for_is_answered(line: Inside, more: str) -> None:
    """A line that holds nobody answers a look for slow work with the question, or as it stands."""
    target = f"/voice/process?turn=1&step=reason&{more}"
    assert QUESTION in words(line.post(target, webhook()), target)


SPEECHES: Final = {
    "NUL": "Ann\x00 my bill",
    "control characters": "".join(map(chr, range(32))) + "Ann\x7f\ufffe\uffff",
    "emoji": "Ann 👩🏽‍🚀 " * 100,
    "right to left": "\u202eאבג " * 50,
    "10,000 characters": "word " * 2000,
    "10,000 characters without a space": "x" * 10_000,
    "5,000 wide characters": "猫" * 5_000,
    "markup": "</Say><Dial>+19005550100</Dial><Say>&amp; &#0; ]]>",
    "braces": "{heard} {0} {name.__class__} %s",
    "half a surrogate": "a\ud800b".encode("utf-8", "surrogatepass").decode("utf-8", "replace"),
}


@pytest.mark.parametrize("speech", SPEECHES.values(), ids=SPEECHES)
def test_any_speech_is_answered(line: Inside, file: Path, speech: str) -> None:
    """Whatever was recognised, the caller is connected to FORWARD_TO, and little of it is kept."""
    target, form = "/voice/process?turn=1&step=reason", webhook(SpeechResult=speech)
    said = words(line.post(target, form), target)
    assert said.count("<Number>") == 1
    assert f"<Number>{PERSON}</Number>" in said
    [cell] = stored(file).values()
    record = main.read_record(cell)
    assert record is not None
    assert len(record.heard) <= 1000
    assert "\x00" not in cell


FIELDS: Final = {
    "Confidence": ["", "NaN", "inf", "-1", "1e400", "0.5.5", "9" * 500, "٣"],
    "Digits": ["", "A", "1" * 500, "hangup", "\x00", "٣", "1;DROP"],
    "DialCallStatus": ["", "unheard-of", "\x00", "x" * 1000],
    "RecordingUrl": ["", "javascript:alert(1)", "https://é", "x" * 1000, "http://a b"],
    "From": ["", "anonymous", "sip:ann@example.com", "\x00", "+" + "1" * 500],
    "CallStatus": ["", "unheard-of"],
    "SpeechResult": ["", " ", "\n"],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in FIELDS.items() for value in values]
)
@pytest.mark.parametrize("path", ["/voice", "/voice/process?turn=1&step=reason"])
def test_odd_fields_are_answered_in_words(line: Inside, path: str, name: str, value: str) -> None:
    """No value of a field, however odd, costs the caller the answer."""
    words(line.post(path, webhook(SpeechResult="Ann, my bill") | {name: value}), path)


@pytest.mark.parametrize("url", ["javascript:alert(1)", "https://a b", "//x", "https://x\n", "x"])
def test_a_recording_is_at_an_address(line: Inside, file: Path, url: str) -> None:
    """What is no plain http address is no recording: it is neither believed nor kept."""
    said = words(line.post("/voice/process?turn=1&step=voicemail", webhook(RecordingUrl=url)))
    assert "message is recorded" not in said
    assert "recording" not in "".join(stored(file).values())


@pytest.mark.parametrize("shown", ["0", "1"])
def test_the_log_shows_words_and_numbers_only_when_told(
    file: Path, log: Callable[[], list[dict[str, Any]]], shown: str
) -> None:
    """What callers say, and their numbers, stand in the log with LOG_WORDS=1 and not without."""
    phone = Inside({"LOG_WORDS": shown, "STATE_FILE": str(file)}).phone()
    phone.ring()
    phone.say("Ann, my bill")
    phone.hang_up()
    logged = json.dumps(log())
    assert ("Ann, my bill" in logged) == (shown == "1")
    assert (phone.caller in logged) == (shown == "1")
    assert phone.call_sid in logged


def test_a_repeated_field_and_a_field_without_name_do_no_harm(line: Inside) -> None:
    """A form may repeat names or leave them out: it is signed, so it is Twilio's."""
    odd = [*webhook().items(), ("Digits", "0"), ("Digits", "1"), ("", "x"), ("Unheard", "of")]
    assert PERSON in words(line.post("/voice/process?turn=1&step=reason", odd))


def test_a_body_counts_whatever_it_is_called(line: Inside) -> None:
    """No Content-Type takes a body out of the signature; and a call is named by a form alone."""
    signature = {"X-Twilio-Signature": sign(TOKEN, ORIGIN + "/voice", [])}
    for kind in ("application/json", "", "multipart/form-data", "text/plain", FORM):
        headers = signature | {"Content-Type": kind}
        answer = line.send("POST", "/voice", b'{"CallSid": 1}', headers)
        assert (answer.status, answer.kind) == (403, "text/plain")
        answer = line.send("POST", "/voice", b"", headers)
        assert (answer.status, answer.kind) == (400, "text/plain")


# The same again.


def test_every_repeat_gets_the_first_answer(file: Path) -> None:
    """A webhook is answered alike on any instance, also after the call has gone on."""
    env = {"FORWARD_TO": PERSON, "STATE_FILE": str(file)}
    phone = Inside(env).phone()
    phone.ring()
    phone.silent()
    phone.say("Ann, my bill")
    phone.callee("no-answer")
    phone.leave_message()
    heard = [each for each in phone.webhooks if each.url.split("?")[0] != f"{ORIGIN}/voice/status"]
    again = Inside(env)
    for sent in reversed(heard):
        assert sent.answer is not None
        assert again.deliver(sent.url, sent.fields, sent.headers).body == sent.answer.body


def test_the_second_of_two_different_webhooks_of_a_turn_hears_the_first(line: Inside) -> None:
    """A turn has one answer: other words for the same turn come too late."""
    target, form = "/voice/process?turn=1&step=reason", webhook()
    first = line.post(target, form | {"SpeechResult": "Ann, my bill"})
    second = line.post(target, form | {"Digits": "0"})
    assert first.body == second.body
    assert b"Ann, my bill" in first.body


@pytest.mark.parametrize("path", ["/voice", "/voice/process?turn=1&step=reason"])
def test_two_instances_answer_one_turn_alike(upstash: Upstash, path: str) -> None:
    """The rival's webhook arrives between our look and our write: both callers hear the rival."""
    env = {"FORWARD_TO": PERSON, **upstash.settings}
    ours, rival = Inside(env), Inside(env)
    form, theirs = webhook(), list[Answer]()
    upstash.before = once(
        "SET", lambda: theirs.append(rival.post(path, form | {"SpeechResult": "Bob, a refund"}))
    )
    mine = ours.post(path, form | {"SpeechResult": "Ann, my bill"})
    assert [each.body for each in theirs] == [mine.body]
    assert b"Ann" not in mine.body


def test_the_end_of_a_call_is_settled_once(
    line: Inside, file: Path, log: Callable[[], list[dict[str, Any]]]
) -> None:
    """The first report of the end stands and is logged in one line; a repeat is answered alike."""
    form = webhook(CallStatus="completed", CallDuration="61")
    assert line.post("/voice/status", form).status == 204
    end = stored(file)
    assert line.post("/voice/status", form | {"CallStatus": "failed"}).status == 204
    assert stored(file) == end
    assert list(end) == [f"call:{form['CallSid']}:end"]
    entries = [entry for entry in log() if entry["message"] == "call ended"]
    assert [(entry["status"], entry["seconds"]) for entry in entries] == [("completed", 61)]


# The fallback.


def failed(url: str, **more: str) -> dict[str, str]:
    return webhook(ErrorCode="11200", ErrorUrl=url, **more)


def test_the_fallback_says_what_was_settled(line: Inside) -> None:
    """A webhook whose answer got lost is answered once more, to the letter."""
    phone = line.phone()
    phone.ring()
    phone.say("Ann, my bill")
    for sent in phone.webhooks:
        assert sent.answer is not None
        form = failed(sent.url, CallSid=phone.call_sid)
        assert line.post("/voice/fallback", form).body == sent.answer.body


def test_the_fallback_asks_again_what_was_not_answered(line: Inside) -> None:
    """What the caller said is lost with the webhook, so the question is asked again, kindly."""
    phone = line.phone()
    phone.ring()
    url = f"{ORIGIN}/voice/process?turn=1&step=reason"
    said = words(line.post("/voice/fallback", failed(url, CallSid=phone.call_sid)))
    assert QUESTION in said
    assert "did not hear" not in said
    assert "turn=2" in said


@pytest.mark.parametrize("url", [*(ORIGIN + path for path in VOICE_PATHS), ORIGIN, "", "\x00"])
def test_the_fallback_begins_a_call_that_nobody_answered(line: Inside, url: str) -> None:
    """When the first webhook failed, or nobody says which, the call begins at the fallback."""
    assert GREETING in words(line.post("/voice/fallback", failed(url)))


def test_the_fallback_of_a_transfer_offers_voicemail(line: Inside) -> None:
    """How the transfer went got lost: the caller hears so and may leave a message."""
    phone = line.phone()
    phone.ring()
    phone.say("Ann, my bill")
    url = f"{ORIGIN}/voice/process?turn=2&step=connect"
    said = words(line.post("/voice/fallback", failed(url, CallSid=phone.call_sid)))
    assert "interrupted" in said
    assert "<Record" in said


@pytest.mark.parametrize(
    "url",
    [
        "http://[",
        "not a URL",
        f"{ORIGIN}/elsewhere",
        f"{ORIGIN}/voice/process",
        f"{ORIGIN}/voice/process?turn=abc",
        f"{ORIGIN}/voice/process?turn=101",
        f"{ORIGIN}/voice/process?step=reason",
    ],
)
def test_the_fallback_of_an_unknown_url_is_an_apology(
    line: Inside, file: Path, url: str, log: Callable[[], list[dict[str, Any]]]
) -> None:
    """An ErrorUrl that names no turn of ours still gets words and a person, and makes no cell."""
    said = words(line.post("/voice/fallback", failed(url)))
    assert "something went wrong on our side" in said
    assert f"<Number>{PERSON}</Number>" in said
    assert stored(file) == {}
    assert [entry["message"] for entry in log()] == ["a webhook failed"]


# Lost, old and foreign records.


def put(file: Path, call_sid: str, turn: int, value: str) -> None:
    """Put a cell into an embedded store by hand, in place of what stands there."""
    assert Inside({"STATE_FILE": str(file)}).send("GET", "/healthz").status == 200
    cell = (f"call:{call_sid}:{turn}", value, time.time() + 600)
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("REPLACE INTO cells(key, value, ends) VALUES(?, ?, ?)", cell)


def test_a_step_of_another_release_is_asked_from_the_start(line: Inside, file: Path) -> None:
    """A deploy in mid-call has taken the step away: the first question again, and nothing lost."""
    phone = line.phone()
    phone.ring()
    record = stored(file)[f"call:{phone.call_sid}:1"]
    assert '"reason"' in record
    put(file, phone.call_sid, 1, record.replace('"reason"', '"tickets"'))
    phone.say("one way to Boston")
    assert phone.state == "gather"
    assert QUESTION in phone.heard
    sent = phone.webhooks[-1].answer
    assert sent is not None
    assert b"turn=2" in sent.body


@pytest.mark.parametrize(
    "value", ["", "null", "[]", "{", "[" * 9999, "7", '{"twiml": 1}', '{"misses": "x"}', "\x00"]
)
def test_a_cell_that_holds_no_record_counts_as_lost(line: Inside, file: Path, value: str) -> None:
    """Rubbish in a cell is no reason to lose a caller: the step in the URL carries on."""
    form = webhook(SpeechResult="Ann, my bill")
    put(file, form["CallSid"], 1, value)
    said = words(line.post("/voice/process?turn=1&step=reason", form))
    assert PERSON in said


def test_rubbish_in_the_cell_of_the_answer_is_not_said(line: Inside, file: Path) -> None:
    """Where the answer should stand there is rubbish: the caller hears what is decided now."""
    form = webhook(SpeechResult="Ann, my bill")
    put(file, form["CallSid"], 2, "rubbish")
    assert PERSON in words(line.post("/voice/process?turn=1&step=reason", form))


LOST: Final[list[tuple[str, dict[str, str], str]]] = [
    ("reason", {"SpeechResult": "Ann, my bill"}, f"<Number>{PERSON}</Number>"),
    ("reason", {"Digits": "0"}, f"<Number>{PERSON}</Number>"),
    ("reason", {}, "did not hear you"),
    ("connect", {"DialCallStatus": "completed"}, "Goodbye"),
    ("connect", {"DialCallStatus": "no-answer"}, "<Record"),
    ("", {"DialCallStatus": "busy"}, "<Record"),
    ("voicemail", {"RecordingUrl": "https://api.example/RE1"}, "message is recorded"),
    ("", {"RecordingUrl": "https://api.example/RE1"}, "message is recorded"),
    ("", {"SpeechResult": "Ann, my bill"}, QUESTION),
]


@pytest.mark.parametrize(("step", "brought", "said"), LOST)
def test_a_lost_record_is_made_up_for_by_the_webhook(
    line: Inside, step: str, brought: dict[str, str], said: str
) -> None:
    """Nobody knows this call: its step comes from the URL, and what the webhook brings is used."""
    answer = line.post(f"/voice/process?turn=5&step={step}", webhook(**brought))
    assert said in words(answer)


# Long calls.


def test_a_call_has_an_end(file: Path) -> None:
    """A caller who only ever repeats is connected before turn 100, and may leave a message."""
    line = Inside({"FORWARD_TO": PERSON, "STATE_FILE": str(file)})
    phone = line.phone()
    phone.ring()
    turns = 0
    while phone.state == "gather":
        phone.press("*")
        turns += 1
    assert 90 < turns < 100
    assert phone.state == "dial"
    phone.callee("no-answer")
    assert phone.state == "record"
    phone.leave_message()
    assert phone.state == "ended"
    assert "Goodbye" in phone.heard[-1]
    assert phone.broken == []


@pytest.mark.parametrize("step", ["reason", "menu", "connect", "operator", "voicemail", "nowhere"])
@pytest.mark.parametrize("env", [{}, {"FORWARD_TO": PERSON}, MENU], ids=["alone", "one", "menu"])
def test_the_last_turn_hands_out_no_other(file: Path, env: dict[str, str], step: str) -> None:
    """After turn 100 the line says goodbye: it never names a turn that it would refuse."""
    line = Inside({**env, "STATE_FILE": str(file)})
    target = f"/voice/process?turn=100&step={step}"
    for brought in ({}, {"Digits": "0"}, {"DialCallStatus": "busy"}):
        said = words(line.post(target, webhook(**brought)))
        assert "turn=" not in said
        assert "<Hangup" in said


# The store: what it costs, and what happens without it.


def test_the_first_webhook_costs_one_command_and_later_ones_two(upstash: Upstash) -> None:
    """A call of three turns and its end are six commands, each in a round trip of its own."""
    phone = Inside({"FORWARD_TO": PERSON, **upstash.settings}).phone()
    spent = []
    for act in (phone.ring, lambda: phone.say("Ann, my bill"), lambda: phone.callee("completed")):
        act()
        spent.append((len(upstash.commands), upstash.round_trips))
    assert phone.state == "ended"  # with the status callback's command in the last sum
    assert spent == [(1, 1), (3, 3), (6, 6)]
    assert [command[0] for command in upstash.commands] == [
        "SET",
        "MGET",
        "SET",
        "MGET",
        "SET",
        "SET",
    ]


def test_a_repeated_webhook_costs_no_more_than_the_first(upstash: Upstash) -> None:
    """A repeat looks, and keeps that there was one: two commands, at the first turn one."""
    phone = Inside({"FORWARD_TO": PERSON, **upstash.settings}).phone()
    phone.ring()
    phone.retry()
    phone.say("Ann, my bill")
    upstash.forget()
    phone.retry()
    assert [command[0] for command in upstash.commands] == ["MGET", "SET"]


def test_a_missing_record_is_asked_of_the_primary(upstash: Upstash) -> None:
    """A replica may lag behind: nothing counts as lost before the primary was asked."""
    line = Inside({"FORWARD_TO": PERSON, **upstash.settings})
    line.post("/voice/process?turn=5&step=reason", webhook(SpeechResult="Ann, my bill"))
    assert [command[0] for command in upstash.commands] == ["MGET", "GETEX", "SET"]


def test_a_replica_that_lags_does_not_lose_the_call(upstash: Upstash) -> None:
    """The record that MGET does not see yet is found by the second look, guess and all."""
    phone = Inside({**MENU, **upstash.settings}).phone()
    phone.ring()
    phone.say("sales", confidence=0.2)
    held: dict[str, str] = {}

    def hide(command: list[str]) -> None:
        if command[0] == "MGET":
            value = upstash.quietly(["GETDEL", command[1]])[0]
            held[command[1]] = value.decode() if isinstance(value, bytes) else ""
        if command[0] == "GETEX":
            upstash.quietly(["SET", command[1], held[command[1]], "EX", "600"])

    upstash.before = hide
    phone.say("yes")
    assert phone.state == "dial"
    assert "sales" in phone.heard[0]


DEADLINE: Final = 1.0
NOISE: Final = 0.3  # seconds that a busy machine may add, to what takes 2 without a deadline
FAULTS: Final = [
    "hang",
    "drip",
    "late",
    "502",
    "empty",
    "garbage",
    "no-result",
    "quota",
    "drop",
    "apply-then-drop",
    "apply-then-hang",
    "apply-then-502",
]
LOOKS: Final = ("MGET", "GETEX")
WRITES: Final = ("SET",)


@pytest.mark.parametrize(
    "struck", [LOOKS, WRITES, (*LOOKS, *WRITES)], ids=["read", "settle", "both"]
)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_caller_is_answered_while_redis_is_ill(
    upstash: Upstash, log: Callable[[], list[dict[str, Any]]], fault: str, struck: tuple[str, ...]
) -> None:
    """Within the deadline the call goes on from the step in the URL, in words, and it is logged."""
    line = Inside({"FORWARD_TO": PERSON, "RESPONSE_DEADLINE": str(DEADLINE), **upstash.settings})
    phone = line.phone()
    phone.ring()
    log()
    upstash.fault = lambda command: fault if command[0] in struck else None
    began = time.monotonic()
    phone.say("Ann, my bill")
    assert time.monotonic() - began <= DEADLINE + NOISE
    assert phone.heard == ["Thank you. I heard: Ann, my bill. I am connecting you now."]
    assert phone.state == "dial"
    mine = [entry for entry in log() if entry.get("call") == phone.call_sid]
    assert [entry["level"] for entry in mine] == ["error"]
    upstash.fault = None
    upstash.release()
    phone.callee("no-answer")
    assert phone.state == "record"
    assert [*phone.broken, *phone.warned] == []


@pytest.mark.parametrize(
    ("command", "fault"), [("MGET", "forget"), ("SET", "forget"), ("SET", "apply-then-forget")]
)
def test_a_redis_that_forgets_is_made_up_for(upstash: Upstash, command: str, fault: str) -> None:
    """A cell is lost at once: the call goes on from the step in the URL all the same."""
    phone = Inside({"FORWARD_TO": PERSON, **upstash.settings}).phone()
    phone.ring()
    upstash.fault = lambda sent: fault if sent[0] == command else None
    phone.silent()
    assert phone.heard == ["I am sorry, I did not hear you.", QUESTION]
    phone.say("Ann, my bill")
    assert phone.heard == ["Thank you. I heard: Ann, my bill. I am connecting you now."]
    phone.callee("busy")
    phone.leave_message()
    assert phone.state == "ended"
    assert [*phone.broken, *phone.warned] == []


@pytest.mark.parametrize("fault", FAULTS)
def test_a_call_begins_while_redis_is_ill(upstash: Upstash, fault: str) -> None:
    """The first webhook is answered within the deadline whatever Redis does."""
    line = Inside({"FORWARD_TO": PERSON, "RESPONSE_DEADLINE": str(DEADLINE), **upstash.settings})
    upstash.fault = lambda _: fault
    began = time.monotonic()
    assert GREETING in words(line.post("/voice", webhook()))
    assert time.monotonic() - began <= DEADLINE + NOISE


@pytest.mark.parametrize(
    "fault", ["apply-then-drop", "apply-then-502", "apply-then-garbage", "drop"]
)
def test_a_write_whose_answer_is_lost_counts(upstash: Upstash, fault: str) -> None:
    """The write landed, or is done again: either way a repeat hears what the caller heard."""
    phone = Inside({"FORWARD_TO": PERSON, **upstash.settings}).phone()
    phone.ring()
    strikes = iter([fault])
    upstash.fault = lambda command: next(strikes, None) if command[0] == "SET" else None
    phone.say("Ann, my bill")
    assert phone.retry().same
    assert upstash.faults[fault] == 1


def test_a_line_that_was_dropped_once_costs_nothing(upstash: Upstash) -> None:
    """One dropped connection is made up for within the webhook: nothing is lost, guess and all."""
    phone = Inside({**MENU, **upstash.settings}).phone()
    phone.ring()
    phone.say("sales", confidence=0.2)
    strikes = iter(["drop"])
    upstash.fault = lambda command: next(strikes, None) if command[0] == "MGET" else None
    phone.say("yes")
    assert phone.state == "dial"


def test_a_cell_that_was_lost_costs_only_what_it_knew(upstash: Upstash) -> None:
    """Redis forgets the record of a guess: the yes means nothing any more, so the menu again."""
    phone = Inside({**MENU, **upstash.settings}).phone()
    phone.ring()
    phone.say("sales", confidence=0.2)
    upstash.flush()
    phone.say("yes")
    assert phone.state == "gather"
    assert "For billing" in phone.heard[-1]


def test_the_end_is_taken_while_redis_is_away(upstash: Upstash) -> None:
    """The status callback is answered 204: there is nobody left who could hear of the trouble."""
    line = Inside({"RESPONSE_DEADLINE": str(DEADLINE), **upstash.settings})
    upstash.fault = lambda _: "502"
    assert line.post("/voice/status", webhook(CallStatus="completed")).status == 204


def test_ill_health_is_told(upstash: Upstash) -> None:
    """With a Redis that does not write, /healthz is 503 and says where to look."""
    line = Inside({"RESPONSE_DEADLINE": str(DEADLINE), **upstash.settings})
    upstash.fault = lambda _: "quota"
    answer = line.send("GET", "/healthz")
    assert answer.status == 503
    assert b"UPSTASH_REDIS_REST_URL" in answer.body
    assert upstash.token.encode() not in answer.body


@pytest.mark.parametrize(
    "env", [{"UPSTASH_REDIS_REST_TOKEN": "wrong"}, {"UPSTASH_REDIS_REST_URL": "http://127.0.0.1:9"}]
)
def test_a_wrong_address_or_token_is_found_before_the_first_call(
    upstash: Upstash, env: dict[str, str]
) -> None:
    """A Redis that cannot be reached or refuses the token makes the line unhealthy, not mute."""
    line = Inside({**upstash.settings, "RESPONSE_DEADLINE": str(DEADLINE), **env})
    assert line.send("GET", "/healthz").status == 503
    assert GREETING in words(line.post("/voice", webhook()))


def test_a_state_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """A wrong STATE_FILE is named by /healthz; callers are served without memory all the same."""
    line = Inside({"STATE_FILE": str(tmp_path / "nowhere" / "calls"), "FORWARD_TO": PERSON})
    answer = line.send("GET", "/healthz")
    assert answer.status == 503
    assert b"STATE_FILE" in answer.body
    phone = line.phone()
    phone.ring()
    phone.say("Ann, my bill")
    assert phone.state == "dial"


# Our own bugs.


class Broken(dict[str, main.Step]):
    """A table of steps in which nothing can be found: a bug, as bad as they come."""

    def get(self, *_: object) -> NoReturn:
        raise RuntimeError("my secret")


@pytest.mark.parametrize("path", [*PATHS[:-1], "/voice/fallback"])
def test_a_bug_of_ours_is_apologised_for(
    line: Inside, log: Callable[[], list[dict[str, Any]]], path: str
) -> None:
    """A bug is an apology and a person, never a 500; the log has the place, not the words."""
    line.line.plan = replace(line.line.plan, flow=Broken())
    sent = webhook(SpeechResult="my secret", ErrorUrl=ORIGIN + "/voice")
    said = words(line.post(path, sent))
    assert "something went wrong on our side" in said
    assert f"<Number>{PERSON}</Number>" in said
    logged = [entry for entry in log() if entry["level"] == "error"]
    assert logged
    assert "RuntimeError at line" in json.dumps(logged)
    assert "my secret" not in json.dumps(logged)


def test_a_bug_without_a_person_is_apologised_for(file: Path) -> None:
    """With nobody to connect to, the apology asks the caller to call again."""
    line = Inside({"STATE_FILE": str(file)})
    line.line.plan = replace(line.line.plan, flow=Broken())
    said = words(line.post("/voice", webhook()))
    assert "call again later" in said
    assert "<Dial" not in said


# Settings.

GOOD: Final[Mapping[str, list[str]]] = {
    "TWILIO_AUTH_TOKEN": ["secret", "old,new", "old, new"],
    "PUBLIC_URL": ["https://line.example", "https://line.example/", "https://line.example:8443"],
    "FORWARD_TO": ["+15550100099"],
    "DEPARTMENTS": ["billing=+15550100001", "lost_and-found=+15550100001 B2=+15550100002"],
    "BACKEND_URL": ["http://127.0.0.1:9/x?y=z", "https://backend.example"],
    "GREETING": ["Hello, {name} & friends!"],
    "VOICE": ["Polly.Amy-Neural", "Google.en-GB-Standard-A"],
    "LANGUAGE": ["en-GB", "de-AT"],
    "SPEECH_TIMEOUT": ["1", "10", "auto"],
    "RESPONSE_DEADLINE": ["1", "4.5", "14"],
    "HOURS": ["Mon-Fri 09:00-17:00 Europe/Berlin", "sat 00:00-24:00, SUN 10:00-11:30 UTC"],
    "BLOCKED": ["anonymous", "+15550100001 +15550100002"],
    "CALLS_PER_HOUR": ["1", "50"],
    "ADMIN_TOKEN": ["a-long-enough-one"],
    "LOG_WORDS": ["0", "1"],
    "THREADS": ["1", "512"],
}
TYPOS: Final[Mapping[str, tuple[list[str], str]]] = {
    "PUBLIC_URL": (
        [
            "line.example",
            "https://line.example/voice",
            "http://line.example",
            "https://u@h",
            "https://h?x",
        ],
        "https://line.example.com",
    ),
    "UPSTASH_REDIS_REST_URL": (["redis.example", "redis://redis.example", "ftp://"], "https://"),
    "FORWARD_TO": (["5550100099", "+1 555 010 0099", "+0123456789", "+1", "me"], "+15550100001"),
    "DEPARTMENTS": (
        [
            "billing",
            "billing=5",
            "billing:+15550100001",
            "1=+15550100001",
            "a=+15550100001 A=+15550100002",
        ],
        "billing=+15550100001",
    ),
    "BACKEND_URL": (["backend", "ftp://backend", "https:///path", "https://h:0"], "://"),
    "GREETING": (["two\nlines", "x" * 1001], "line"),
    "VOICE": (["Polly Joanna", "<x>"], "Polly.Joanna"),
    "LANGUAGE": (["english", "fr-FR", "en_US", "en"], "en-US"),
    "SPEECH_MODEL": (["phone call"], "phone_call"),
    "SPEECH_TIMEOUT": (["0", "11", "1.5", "never", "-1"], "from 1 to 10, or auto"),
    "RESPONSE_DEADLINE": (["0", "15", "soon", "nan", "inf"], "1 to 14"),
    "TWILIO_ACCOUNT_SID": (["AC123", "SK" + "1" * 32], "32 hex digits"),
    "TWILIO_API_KEY": (["AC" + "1" * 32], "32 hex digits"),
    "HOURS": (
        [
            "09:00-17:00 UTC",
            "Mon 9-17 UTC",
            "Mon 17:00-09:00 UTC",
            "Fri-Mon 09:00-17:00 UTC",
            "Mon 09:00-17:00",
            "Mon 09:00-17:00 Nowhere/Land",
            "Mon 09:00-24:30 UTC",
            "Mon 09:00-17:00 ../etc",
        ],
        "Mon-Fri 09:00-17:00 Europe/Berlin",
    ),
    "BLOCKED": (["5550100001", "+15550100001,+15550100002"], "phone numbers"),
    "CALLS_PER_HOUR": (["0", "51", "many", "1.0"], "from 1 to 50"),
    "LOG_WORDS": (["yes", "2"], "0 or 1"),
    "THREADS": (["0", "513", "x"], "from 1 to 512"),
}


# A URL can have a password in it, and the token is easily pasted in place of the SID.
HIDDEN: Final = {"UPSTASH_REDIS_REST_URL", "BACKEND_URL", "TWILIO_ACCOUNT_SID", "TWILIO_API_KEY"}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in GOOD.items() for value in values]
)
def test_a_good_setting_is_no_problem(name: str, value: str) -> None:
    """What the documentation offers is understood, alone or with the token."""
    assert main.read_settings({"TWILIO_AUTH_TOKEN": "secret", name: value}).problems == ()


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [(name, value, wish) for name, (values, wish) in TYPOS.items() for value in values],
)
def test_a_typo_is_named_with_what_was_expected(name: str, value: str, expected: str) -> None:
    """A problem has the variable, what was found there, and what would do."""
    problems = main.read_settings({"TWILIO_AUTH_TOKEN": "secret", name: value}).problems
    [said] = [problem for problem in problems if problem.startswith(f"{name} is ")]
    shown = re.sub("[0-9]{6,}", lambda digits: main.masked(digits[0]), value[:60])
    hidden = name in HIDDEN or "@" in value
    assert repr(shown) in said or (hidden and "not usable" in said)
    assert expected in said.partition("; expected ")[2]


@pytest.mark.parametrize(
    "name",
    [
        "TWILIO_AUTH_TOKEN",
        "UPSTASH_REDIS_REST_TOKEN",
        "BACKEND_TOKEN",
        "TWILIO_API_SECRET",
        "ADMIN_TOKEN",
    ],
)
def test_a_secret_is_never_shown(
    file: Path, log: Callable[[], list[dict[str, Any]]], name: str
) -> None:
    """A secret with a typo is named, but neither the log nor /healthz shows any of it."""
    line = Inside({name: "hush hush", "STATE_FILE": str(file)})
    body = line.send("GET", "/healthz").body.decode()
    assert name in body
    assert "hush" not in body
    assert "hush" not in json.dumps(log())


def test_all_that_is_missing_is_named_at_once(log: Callable[[], list[dict[str, Any]]]) -> None:
    """On Railway with nothing set: one log line and /healthz name every variable; calls are 403."""
    line = Inside(
        {"TWILIO_AUTH_TOKEN": "", "PUBLIC_URL": "", "RAILWAY_ENVIRONMENT_NAME": "production"}
    )
    [entry] = log()
    answer = line.send("GET", "/healthz")
    assert answer.status == 503
    wanted = [
        "TWILIO_AUTH_TOKEN",
        "UPSTASH_REDIS_REST_URL",
        "UPSTASH_REDIS_REST_TOKEN",
        "PUBLIC_URL",
    ]
    for told in (json.dumps(entry), answer.body.decode()):
        assert [name for name in wanted if name not in told] == []
    assert line.post("/voice", webhook()).status == 403


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"UPSTASH_REDIS_REST_URL": "https://redis.example"}, "UPSTASH_REDIS_REST_TOKEN"),
        ({"UPSTASH_REDIS_REST_TOKEN": "token"}, "UPSTASH_REDIS_REST_URL"),
        ({"TWILIO_API_KEY": "SK" + "1" * 32, "TWILIO_API_SECRET": "x"}, "TWILIO_ACCOUNT_SID"),
        (
            {"TWILIO_API_KEY": "SK" + "1" * 32, "TWILIO_ACCOUNT_SID": "AC" + "1" * 32},
            "TWILIO_API_SECRET",
        ),
        (
            {"RAILWAY_ENVIRONMENT_NAME": "x", "RAILWAY_PUBLIC_DOMAIN": "a.example"},
            "UPSTASH_REDIS_REST_URL",
        ),
    ],
)
def test_settings_that_need_each_other_are_asked_for(env: dict[str, str], said: str) -> None:
    """Half of a pair is a problem that names the other half."""
    [problem] = main.read_settings({"TWILIO_AUTH_TOKEN": "secret", **env}).problems
    assert said in problem


def test_the_domain_of_railway_is_the_origin() -> None:
    """RAILWAY_PUBLIC_DOMAIN stands in for PUBLIC_URL, and gives way to it."""
    env = {"TWILIO_AUTH_TOKEN": "secret", "RAILWAY_PUBLIC_DOMAIN": "line.up.example"}
    assert main.read_settings(env).public_url == "https://line.up.example"
    assert main.read_settings(env | {"PUBLIC_URL": ORIGIN}).public_url == ORIGIN


@pytest.mark.parametrize("deadline", ["1", "4.5", "9"])
def test_twilio_waits_a_little_longer_than_we_promise(file: Path, deadline: str) -> None:
    """Every URL handed out tells Twilio to ask again soon after the deadline has passed."""
    line = Inside({"RESPONSE_DEADLINE": deadline, "STATE_FILE": str(file)})
    wait = int(float(deadline) * 1000) + 500
    assert f"#rc=5&amp;rp=all&amp;ct=2000&amp;rt={wait}" in words(line.post("/voice", webhook()))


def test_without_redis_railway_answers_no_call(file: Path) -> None:
    """On Railway a missing database is no silent fallback: calls are refused until it is there."""
    railway = {"RAILWAY_ENVIRONMENT_NAME": "production", "STATE_FILE": str(file)}
    assert Inside(railway).post("/voice/inbound", webhook()).status == 403
