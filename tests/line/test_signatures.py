"""Signatures: only what Twilio signed is served, for the address at which it called."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import pytest
from flask import Request
from werkzeug.exceptions import Forbidden

from phone_line.settings import read_settings
from phone_line.webhook import verify_request
from standins.inside import FORM, ORIGIN, TOKEN, Inside, environ, judged, stored, webhook
from standins.sentences import in_twiml
from standins.upstash import Upstash
from standins.webhooks import Answer, Fields, sign

QUESTION: Final = in_twiml("ask_reason")
VOICE_PATHS: Final = ("/", "/voice", "/voice/inbound", "/webhook/voice")
PATHS: Final = (*VOICE_PATHS, "/voice/process?turn=1&step=reason", "/voice/status")


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


@pytest.mark.parametrize("signature", [None, "", "é", "x" * 10_000, "AAAAAAAAAAAAAAAAAAAAAAAAAAA="])
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
    headers = {"Content-Type": FORM, "X-Forwarded-Proto": "https"}
    line.send("POST", "/voice", urlencode(form).encode(), headers)
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
    settings = read_settings({"TWILIO_AUTH_TOKEN": "12345"})
    body = urlencode(form).encode()
    signed = environ("POST", target, body, headers | {"X-Twilio-Signature": signature})
    assert verify_request(settings, Request(signed)) == (origin, dict(reversed(form)))
    other = environ("POST", target + "&", body, headers | {"X-Twilio-Signature": signature})
    with pytest.raises(Forbidden):
        verify_request(settings, Request(other))


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
    assert QUESTION in judged(line.post(target, webhook()), target)


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


PERSON = "+15550100099"


@pytest.fixture
def upstash() -> Iterator[Upstash]:
    """A database of the test's own."""
    with Upstash() as upstash:
        yield upstash


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
    assert here.post("/voice/inbound", webhook(**many)).status == 403
    bare = {"Content-Type": FORM, "X-Twilio-Signature": sign(TOKEN, ORIGIN + "/voice", [])}
    assert here.send("POST", "/voice", b"a=1&" * 2001, bare).status == 403
    assert upstash.commands == []


def reached(here: Inside, origin: str, headers: Mapping[str, str]) -> Answer:
    """The answer to a webhook that Twilio signed for this origin."""
    form = list(webhook().items())
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
    """Capitals do not matter in a host, nor does https's own port; the first proxy was called."""
    here = Inside({"PUBLIC_URL": public, "STATE_FILE": str(tmp_path / "calls")})
    for origin in ("https://Line.Example", "https://line.example", "https://line.example:443"):
        assert reached(here, origin, headers).status == 200
    for other in ("https://line.example:444", "https://lime.example", "http://line.example"):
        assert reached(here, other, headers).status == 403
