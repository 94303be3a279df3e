"""The line as somebody would audit it: who is believed, what is dialled, what is told to whom.

Each section is a question of such an audit. Single odd webhooks are looked at in test_webhooks.py,
any changed letter in test_any_signature.py, bytes that mean nothing in test_fuzz.py; here stands
what a forger, a thief of a log, or somebody with a taste for premium numbers would try.
"""

import ast
import json
import re
import ssl
import sys
import threading
import uuid
from base64 import b64encode
from collections.abc import Iterator, Mapping
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import product
from pathlib import Path
from typing import Any, Final, NamedTuple, Self
from urllib.parse import parse_qs, quote, urlencode, urlsplit

import pytest
import trustme

import main
from phone_line import records
from phone_line.conversation import decide
from phone_line.flow import Step
from phone_line.records import Call, Heard
from phone_line.twiml import render_reply
from standins.backend import Backend, Question, Reply, says, until
from standins.call import Phone
from standins.inside import FORM, ORIGIN, TOKEN, Inside
from standins.instance import Instance
from standins.lines import HOOK
from standins.rows import first_quick, mostly_long
from standins.sentences import in_twiml
from standins.twiml import judge
from standins.upstash import Upstash
from standins.webhooks import Answer, Fields, http_deliver, sign

ROOT: Final = Path(main.__file__).parent
SOURCES: Final = {
    path.name: ast.parse(path.read_text(encoding="utf-8"))
    for path in (ROOT / "main.py", *sorted((ROOT / "phone_line").glob("*.py")))
}
PERSON: Final = "+15550100099"
CALLER: Final = "+15557654321"
PREMIUM: Final = "+19005550100"
MENU: Final = {"DEPARTMENTS": "billing=+15550100001 sales=+15550100002", "FORWARD_TO": PERSON}
CONFIGURED: Final = {"+15550100001", "+15550100002", PERSON}
VOICE: Final = ("/", "/voice", "/voice/inbound", "/webhook/voice")
LATER: Final = ("/voice/process?turn=1&step=menu", "/voice/accept?turn=1&step=connect")
SIGNED: Final = (*VOICE, *LATER, "/voice/status", "/voice/fallback")


@pytest.fixture
def backend() -> Iterator[Backend]:
    """A backend that says back what it hears."""
    with Backend(lambda question: says(f"You said {question.heard}.")) as running:
        yield running


def webhook(**more: str) -> dict[str, str]:
    """The fields of a webhook of a call of its own."""
    return {"CallSid": "CA" + uuid.uuid4().hex, "From": CALLER, "CallStatus": "ringing"} | more


def dialled(answer: Answer) -> set[str]:
    """The numbers in a document."""
    return {*re.findall("<Number[^>]*>(.*?)</Number>", answer.body.decode())}


# --- who is believed ---


def sent_with(line: Inside, target: str, signature: str | None) -> int:
    """The status of a webhook with this signature."""
    headers = {"Content-Type": FORM}
    headers |= {"X-Twilio-Signature": signature} if signature is not None else {}
    return line.send("POST", target, urlencode(webhook(SpeechResult="x")).encode(), headers).status


@pytest.mark.parametrize("target", SIGNED)
def test_who_cannot_sign_changes_nothing(upstash: Upstash, backend: Backend, target: str) -> None:
    """A forged webhook is 403 before the store or the backend has heard of it."""
    line = Inside({**MENU, **upstash.settings, "BACKEND_URL": backend.url})
    form = list(webhook(SpeechResult="x").items())
    forgeries = [
        None,
        "",
        "x",
        sign("guess", ORIGIN + target, form),
        sign("", ORIGIN + target, form),
    ]
    assert [sent_with(line, target, forged) for forged in forgeries] == [403] * len(forgeries)
    assert upstash.commands == []
    assert backend.questions == []


@pytest.mark.parametrize("target", SIGNED)
@pytest.mark.parametrize("token", ["", " ", ",", "two words", "\x00"], ids=repr)
def test_a_line_without_a_good_token_believes_nobody(
    tmp_path: Path, token: str, target: str
) -> None:
    """Whatever is wrong with the token, the line fails closed: each signature is refused."""
    line = Inside({**MENU, "TWILIO_AUTH_TOKEN": token, "STATE_FILE": str(tmp_path / "calls")})
    form = webhook()
    body = urlencode(form).encode()
    for guess in ("", token, token.strip(), ",", "None", TOKEN):
        signature = sign(guess, ORIGIN + target, list(form.items()))
        headers = {"Content-Type": FORM, "X-Twilio-Signature": signature}
        assert line.send("POST", target, body, headers).status == 403
    assert not (tmp_path / "calls").exists()


def test_a_token_that_was_replaced_is_worth_nothing(tmp_path: Path) -> None:
    """During a rotation both tokens count, in any order; afterwards only the new one."""
    form = list(webhook().items())
    signatures = {token: sign(token, ORIGIN + "/voice", form) for token in ("old", "new")}
    known = {"old": "old", "old,new": "old new", "new, old": "old new", "new": "new"}
    for setting, good in known.items():
        line = Inside({"TWILIO_AUTH_TOKEN": setting, "STATE_FILE": str(tmp_path / "calls")})
        for token, signature in signatures.items():
            headers = {"Content-Type": FORM, "X-Twilio-Signature": signature}
            answer = line.send("POST", "/voice", urlencode(form).encode(), headers)
            assert (answer.status == 200) == (token in good.split())


def test_secrets_are_compared_in_constant_time() -> None:
    """No signature or token is an operand of ==, != or in: only compare_digest sees them."""
    secret = re.compile(r"signature|admin_token|\bgiven\.password|auth_token")
    local = {"webhook.py": r"\bexpected\b|\bgiven\b", "calls.py": r"\btoken\b|\bgiven\b"}
    for name, tree in SOURCES.items():
        compares = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Compare)]
        names = re.compile(local.get(name, "^$"))
        assert [each for each in compares if secret.search(each) or names.search(each)] == []
    for name in local:
        calls = [node for node in ast.walk(SOURCES[name]) if isinstance(node, ast.Call)]
        assert "hmac.compare_digest" in [ast.unparse(call.func) for call in calls]


def test_a_recorded_webhook_is_worth_one_answer(upstash: Upstash) -> None:
    """Replayed, it brings what it brought: no cell, no question, no event, not one other byte."""

    def answer(question: Question) -> Reply:
        return says("Speak.", "voicemail" if question.heard == "second" else "listen")

    with Backend(answer) as backend:
        env = {**MENU, **upstash.settings, "BACKEND_URL": backend.url}
        phone = Inside(env).phone()
        phone.ring()
        phone.say("first")
        phone.say("second")
        phone.leave_message()
        assert phone.state == "ended"
        assert until(lambda: "voicemail" in {each.body.get("event") for each in backend.questions})
        assert until(lambda: f"call:{phone.call_sid}:voicemail:sent" in {*upstash.keys()})
        told, cells, thief = len(backend.questions), {*upstash.keys()}, Inside(env)
        for sent in [*phone.webhooks, *phone.webhooks]:
            assert sent.answer is not None
            assert thief.deliver(sent.url, sent.fields, sent.headers).body == sent.answer.body
        assert not until(lambda: len(backend.questions) > told, 0.5)
    passing = ("lease", "again")  # a claim that is given back; a note that a webhook came again
    assert {key for key in {*upstash.keys()} if not key.endswith(passing)} <= cells


def test_a_recorded_webhook_fits_no_other_turn_and_no_other_call(upstash: Upstash) -> None:
    """A signature is for one call and one turn: moved to another of either, it is forged."""
    line = Inside({**MENU, **upstash.settings})
    phone = line.phone()
    phone.ring()
    phone.say("sales")
    sent = phone.webhooks[-1]
    headers = {"Content-Type": FORM, **sent.headers}
    target = sent.url.removeprefix(ORIGIN).partition("#")[0]
    for other in ("turn=0", "turn=2", "turn=01", "turn=100"):
        moved = target.replace("turn=1", other)
        assert moved != target
        assert line.send("POST", moved, urlencode(sent.fields).encode(), headers).status == 403
    foreign = [(n, "CA" + "9" * 32 if n == "CallSid" else v) for n, v in sent.fields]
    assert line.send("POST", target, urlencode(foreign).encode(), headers).status == 403


@pytest.mark.parametrize("target", SIGNED)
def test_the_calls_of_another_account_are_nobodys(upstash: Upstash, target: str) -> None:
    """With an account set, a well signed webhook of another one is 403 at each path."""
    mine = {"TWILIO_ACCOUNT_SID": "AC" + "1" * 32}
    line = Inside({**MENU, **upstash.settings, **mine})
    for account in ("AC" + "2" * 32, "", "AC" + "1" * 31):
        assert line.post(target, webhook(AccountSid=account)).status == 403
    assert upstash.commands == []
    assert line.post(target, webhook(AccountSid="AC" + "1" * 32)).status in (200, 204)


# --- what is dialled ---

NUMBERS: Final = (PREMIUM, "+442071234567", "sip:a@b.example", "client:ann", "0", PERSON + "9")
EVERY_FIELD: Final = (
    *(
        "SpeechResult",
        "Digits",
        "To",
        "From",
        "Called",
        "ForwardedFrom",
        "DialCallStatus",
        "Caller",
    ),
    *("RecordingUrl", "ErrorUrl", "Number", "to", "FORWARD_TO", "DialBridged", "CallStatus"),
)
STEPS: Final = ("menu", "connect", "operator", "to_billing", "to_sales", "voicemail", "", "think")
STRANGERS: Final[dict[str, object]] = {
    "a number": PREMIUM,
    "a name": "nobody",
    "a list": [PREMIUM],
    "an object": {"number": PREMIUM},
    "a figure": 5,
}


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Inside:
    return Inside({**MENU, "STATE_FILE": str(tmp_path_factory.mktemp("fraud") / "calls")})


@pytest.mark.parametrize("number", mostly_long({n: n for n in NUMBERS}, PREMIUM))
def test_no_field_of_a_webhook_is_dialled(asked: Inside, number: str) -> None:
    """A number in any field, spoken or keyed or claimed, leads to nobody but configured ones."""
    found = set()
    for name, step in product(EVERY_FIELD, STEPS):
        for brought in ({name: number}, {"Digits": "0", name: f"call {number}"}):
            answer = asked.post(f"/voice/process?turn=1&step={step}", webhook(**brought))
            found |= dialled(answer)
            assert b"<Sip" not in answer.body
            assert b"<Client" not in answer.body
    assert found <= CONFIGURED
    assert PERSON in found


@pytest.mark.parametrize("number", first_quick(NUMBERS))
def test_no_part_of_a_url_is_dialled(asked: Inside, number: str) -> None:
    """The step in the URL is a name from the table or nothing; other parameters mean nothing."""
    plain = quote(number)
    queries = [
        f"turn=1&step={plain}",
        f"turn=1&step=to_{plain}",
        f"turn=1&step=connect&to={plain}&FORWARD_TO={plain}",
        f"turn=1&step=menu&guess={plain}&number={plain}",
        f"turn=1&step=menu&step={plain}",
        f"turn=1&step=to_billing%00{plain}",
    ]
    brought: list[dict[str, str]] = [{}, {"Digits": "0"}, {"DialCallStatus": "busy"}]
    for query, form in product(queries, brought):
        answer = asked.post(f"/voice/process?{query}", webhook(**form))
        assert answer.status == 200
        assert dialled(answer) <= CONFIGURED
        url = f"{ORIGIN}/voice/process?{query}"
        back = asked.post("/voice/fallback", webhook(ErrorUrl=url, **form))
        assert dialled(back) <= CONFIGURED


@pytest.mark.parametrize("to", [*NUMBERS, "nobody", "to_billing", "", "billing ", "operator"])
def test_a_backend_cannot_have_other_numbers_dialled(upstash: Upstash, to: str) -> None:
    """It may name a department; a number, or any other name, is an answer that is not used."""
    line = Inside({**MENU, "BACKEND_URL": "https://backend.example", **upstash.settings}).line.line
    call = Call(turn=1, step="think")
    for then in ("transfer", "listen", "voicemail", "hangup", to):
        answer = records.Answer("Connecting.", then, to)
        after, reply = decide(line.plan, call, Heard(answer=answer))
        twiml = render_reply(line.settings, line.plan, HOOK, after, reply)
        assert {*re.findall("<Number[^>]*>(.*?)</Number>", twiml)} <= CONFIGURED
        assert "<Sip" not in twiml


@pytest.mark.parametrize("to", mostly_long(STRANGERS, "a number", "a list"))
def test_an_answer_that_names_a_stranger_is_not_used(upstash: Upstash, to: object) -> None:
    """The transfer that a backend asks for is not made; the caller waits, and gets a person."""
    wish = Reply(json.dumps({"say": "Connecting.", "then": "transfer", "to": to}).encode())
    with Backend(lambda _: wish) as backend:
        env = {**MENU, **upstash.settings, "BACKEND_URL": backend.url, "RESPONSE_DEADLINE": "1"}
        line = Inside(env)
        answer = line.post("/voice/process?turn=1&step=listen", webhook(SpeechResult="a ticket"))
        assert len(backend.questions) == 1
        assert dialled(answer) == set()
        assert b"Connecting." not in answer.body
        upstash.fault = lambda _: "502"  # without Redis there is no hold, so it is decided at once
        answer = line.post("/voice/process?turn=1&step=listen", webhook(SpeechResult="a ticket"))
    assert dialled(answer) == {PERSON}


def test_words_stay_words(upstash: Upstash) -> None:
    """Markup of a caller is spoken, a backend's is left out, and neither becomes a verb."""
    evil = f"</Say><Dial><Number>{PREMIUM}</Number></Dial><Say>"
    with Backend(lambda _: says(evil)) as backend:
        line = Inside({**MENU, **upstash.settings, "BACKEND_URL": backend.url})
        said = line.post("/voice/process?turn=1&step=listen", webhook(SpeechResult=evil))
    assert judge(said.body.decode(), ORIGIN) == []
    assert dialled(said) == set()
    assert b"Dial" not in said.body
    plain = Inside({"FORWARD_TO": PERSON, **upstash.settings})
    said = plain.post("/voice/process?turn=1&step=reason", webhook(SpeechResult=evil))
    assert judge(said.body.decode(), ORIGIN) == []
    assert dialled(said) == {PERSON}
    assert b"&lt;Dial&gt;" in said.body


# --- what is told ---

SECRETS: Final = {
    "TWILIO_AUTH_TOKEN": "auth-hush-0001,auth-hush-0002",
    "TWILIO_API_KEY": "SK" + "3" * 32,
    "TWILIO_API_SECRET": "api-secret-0003",
    "BACKEND_TOKEN": "backend-token-0004",
    "ADMIN_TOKEN": "admin-token-0005",
}
WORDS: Final = "my card is four seven one one"


class Told(NamedTuple):
    """All that left the line while a call lived through everything, by where it went."""

    log: str
    said: str
    urls: str
    cells: str
    health: str
    refused: str
    redis_token: str


@pytest.fixture
def told(
    request: pytest.FixtureRequest, upstash: Upstash, capsys: pytest.CaptureFixture[str]
) -> Told:
    """A call with words, keys, a transfer, a message, faults and refusals, as a reader finds it."""
    more: Mapping[str, str] = getattr(request, "param", {})

    def moody(question: Question) -> Reply:
        return Reply(b"backend-token-0004", 400) if "fail" in question.heard else says("Well.")

    with Backend(moody) as backend:
        env = {**MENU, **SECRETS, "TWILIO_ACCOUNT_SID": "AC" + "1" * 32, "CALLS_PER_HOUR": "5"}
        line = Inside({**env, **upstash.settings, "BACKEND_URL": backend.url, **more})
        health = line.send("GET", "/healthz").body.decode()
        phone = Phone(
            ORIGIN,
            token="auth-hush-0002",
            deliver=line.deliver,
            caller=CALLER,
            account="AC" + "1" * 32,
        )
        phone.ring()
        phone.say(WORDS)
        phone.press("47110815#")
        upstash.fault = lambda command: "502" if command[0] == "SET" else None
        phone.say(f"fail, {WORDS}")
        upstash.fault = None
        phone.callee("busy")
        phone.leave_message()
        refused = [line.send("GET", f"/calls/{phone.call_sid}"), line.send("POST", "/voice")]
        refused += [line.send("POST", "/nothing"), line.post("/voice", webhook())]
    assert phone.state == "ended"
    assert phone.broken == []
    cells = upstash.quietly(*(["GET", key] for key in {*upstash.keys()}))
    hooks = [hook for hook in phone.webhooks if hook.answer]
    return Told(
        log=capsys.readouterr().out,
        said="".join(hook.answer.body.decode() for hook in hooks if hook.answer),
        urls="\n".join(hook.url for hook in hooks),
        cells="\n".join(each.decode() for each in cells if isinstance(each, bytes)),
        health=health,
        refused="".join(f"{each.headers}{each.body!r}" for each in refused),
        redis_token=upstash.token,
    )


def test_no_secret_leaves_the_line(told: Told) -> None:
    """Not in a log, a document, a URL, a cell, the health page or a refusal, come what may."""
    secrets = [part for value in SECRETS.values() for part in value.split(",")]
    for secret, place in product([*secrets, told.redis_token], told[:-1]):
        assert secret not in place


def test_a_log_names_no_caller_and_no_words(told: Told) -> None:
    """Numbers are masked; words, keys and recordings are left out: a log may be lost."""
    entries = [json.loads(line) for line in told.log.splitlines()]
    assert {entry["caller"] for entry in entries if entry.get("caller")} == {"+15*******21"}
    for hidden in (CALLER, "card", "47110815", "api.twilio.com", "RE"):
        assert hidden not in told.log
    assert [entry for entry in entries if {"heard", "keys"} & {*entry}] == []


@pytest.mark.parametrize("told", [{"LOG_WORDS": "1"}], indirect=True)
def test_a_log_has_words_only_when_asked_to(told: Told) -> None:
    """With LOG_WORDS=1 the operator sees who said what; secrets stay out all the same."""
    for shown in (CALLER, WORDS, "47110815"):
        assert shown in told.log
    test_no_secret_leaves_the_line(told)


def test_a_url_says_nothing_about_the_caller(told: Told) -> None:
    """What stands in proxies' logs is a turn and a step: no number, no word, no token."""
    for url in told.urls.splitlines():
        names = {*parse_qs(urlsplit(url).query)}
        assert names <= {"turn", "step", "hold", "pushed", "began", "since"}
        assert "%2B1555" not in url
        assert "card" not in url


def test_who_called_how_often_is_kept_without_the_number(upstash: Upstash) -> None:
    """The cells that count a caller's hour are named by a keyed hash, not by the number."""
    line = Inside({**MENU, **upstash.settings, "CALLS_PER_HOUR": "2"})
    assert line.post("/voice", webhook()).status == 200
    counting = [key for key in {*upstash.keys()} if key.startswith("caller:")]
    assert len(counting) == 1
    assert "5557654321" not in "".join(counting)
    other = Inside({**MENU, **upstash.settings, "CALLS_PER_HOUR": "2", "TWILIO_AUTH_TOKEN": "new"})
    form = webhook()
    signature = sign("new", ORIGIN + "/voice", list(form.items()))
    headers = {"Content-Type": FORM, "X-Twilio-Signature": signature}
    assert other.send("POST", "/voice", urlencode(form).encode(), headers).status == 200
    assert len([key for key in {*upstash.keys()} if key.startswith("caller:")]) == 2


def test_the_health_page_says_that_it_is_well_and_nothing_else(upstash: Upstash) -> None:
    """Anybody may look, as often as they like: it names no setting, and hardly costs a command."""
    env = {**MENU, **SECRETS, "TWILIO_ACCOUNT_SID": "AC" + "1" * 32, **upstash.settings}
    line = Inside(env)
    answers = [line.send("GET", "/healthz?x=" + "y" * n) for n in range(50)]
    well = b'{\n "ok": true,\n "problems": [],\n "release": "unknown"\n}\n'
    assert {each.body for each in answers} == {well}
    assert {each.headers.get("Cache-Control") for each in answers} == {"no-store"}
    looks = [command for command in upstash.commands if command[1] == "health"]
    assert len(looks) <= 2  # a worker of another test may yet be at work
    names = {name for each in answers for name in each.headers}
    assert names <= {"Content-Type", "Content-Length", "Cache-Control"}


def test_the_health_page_shows_no_value_of_a_secret(tmp_path: Path) -> None:
    """Settings that are wrong are named by their variable; a URL may hold a password, so too."""
    wrong = dict.fromkeys([*SECRETS, "TWILIO_ACCOUNT_SID"], "hush hush")
    wrong |= {"UPSTASH_REDIS_REST_TOKEN": "hush hush", "UPSTASH_REDIS_REST_URL": "hush://u:hush@h"}
    wrong |= {"BACKEND_URL": "hush://u:hush@h"}
    body = (
        Inside({**wrong, "STATE_FILE": str(tmp_path / "calls")})
        .send("GET", "/healthz")
        .body.decode()
    )
    assert [name for name in wrong if name not in body] == []
    assert "hush" not in body


# --- the page of a call ---


def basic(password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + b64encode(f"any:{password}".encode()).decode()}


def test_the_page_of_a_call_is_shut_without_its_token(upstash: Upstash) -> None:
    """No token set: there is no page. A wrong one: 401, the same for calls that are and are not."""
    open_, shut = (
        Inside({**MENU, **upstash.settings, **more})
        for more in ({"ADMIN_TOKEN": "admin-token-0005"}, {})
    )
    phone = open_.phone()
    phone.ring()
    upstash.forget()
    paths = [f"/calls/{phone.call_sid}", "/calls/CA" + "0" * 32]
    tries: list[dict[str, str]] = [{}, basic(""), basic("admin-token-0006"), basic("admin-token")]
    tries += [{"Authorization": "Basic"}, {"Authorization": "Bearer admin-token-0005"}]
    for path, headers in product(paths, tries):
        answer = open_.send("GET", path, b"", headers)
        assert (answer.status, "CA" in answer.body.decode()) == (401, False)
    for path, headers in product(paths, [*tries, basic("")]):
        assert shut.send("GET", path, b"", headers).status == 404
    assert upstash.commands == []
    assert open_.send("GET", paths[0], b"", basic("admin-token-0005")).status == 200


def test_the_page_of_a_call_runs_nothing(upstash: Upstash) -> None:
    """What a caller said is text on it; scripts, frames and caches have no place there."""
    line = Inside({**MENU, **upstash.settings, "ADMIN_TOKEN": "admin-token-0005"})
    phone = line.phone()
    phone.ring()
    phone.say('<script>alert(1)</script>"onload="x')
    answer = line.send("GET", f"/calls/{phone.call_sid}", b"", basic("admin-token-0005"))
    assert b"<script" not in answer.body
    assert b'"onload' not in answer.body
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert answer.headers["Cache-Control"] == "no-store"


# --- whom the line itself believes ---


class Impostor:
    """A backend over TLS with a certificate for `host`; keeps the tokens that it was given."""

    def __init__(self, authority: trustme.CA, host: str) -> None:
        self.tokens: list[str] = []
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(host).configure_cert(tls)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads, self._server.block_on_close = True, False
        self._server.socket = tls.wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )
        self.url = f"https://localhost:{self._server.server_port}/ask"

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        tokens = self.tokens

        class Handler(BaseHTTPRequestHandler):
            def setup(self) -> None:
                self.request.settimeout(5)
                super().setup()

            def handle(self) -> None:
                try:
                    super().handle()
                except OSError:  # whoever called did not like the certificate
                    self.close_connection = True

            def do_POST(self) -> None:
                tokens.append(self.headers.get("Authorization", ""))
                body = says("It is me.").body
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                return

        return Handler

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


CERTIFICATES: Final = {
    "the right one": ("localhost", True, True),
    "of an unknown authority": ("localhost", False, False),
    "of another name": ("other.example", True, False),
}


@pytest.mark.parametrize(
    ("host", "trusted", "believed"), mostly_long(CERTIFICATES, "of another name")
)
def test_a_token_is_told_only_to_whom_it_is_meant_for(
    tmp_path: Path, host: str, trusted: bool, believed: bool
) -> None:
    """A service with a certificate that does not fit is told nothing, not even the first byte."""
    authority = trustme.CA()
    bundle = tmp_path / "authority.pem"
    (authority if trusted else trustme.CA()).cert_pem.write_to_path(str(bundle))
    env = {
        **MENU,
        "TWILIO_AUTH_TOKEN": TOKEN,
        "PUBLIC_URL": ORIGIN,
        "STATE_FILE": str(tmp_path / "calls"),
        "BACKEND_TOKEN": "backend-token-0004",
        "RESPONSE_DEADLINE": "2",
        "SSL_CERT_FILE": str(bundle),
    }
    with (
        Impostor(authority, host) as impostor,
        Instance({**env, "BACKEND_URL": impostor.url}) as it,
    ):
        form: Fields = [*webhook(SpeechResult="who are you").items()]
        target = "/voice/process?turn=1&step=listen"
        signature = sign(TOKEN, ORIGIN + target, form)
        headers = {"Content-Type": FORM, "X-Twilio-Signature": signature}
        answer = http_deliver(it.url + target, form, headers)
        failures = [each["cause"] for each in it.log() if each["message"] == "backend failed"]
    assert answer.status == 200
    assert (b"It is me." in answer.body) == believed
    assert impostor.tokens == (["Bearer backend-token-0004"] if believed else [])
    assert {"SSLCertVerificationError" in str(each) for each in failures} == {True} - {believed}


# --- what it is made of ---

KNOWN: Final = {
    *("phone_line", "functions_framework", "twilio", "upstash_redis"),
    *("click", "flask", "gunicorn", "httpx", "jinja2", "markupsafe", "werkzeug"),
}
DANGEROUS: Final = re.compile(
    r"\b(eval|exec|pickle|marshal|shelve|subprocess|os\.system|yaml|__import__|compile)\b\s*\("
    r"|verify\s*=\s*False|CERT_NONE|_create_unverified|check_hostname\s*=\s*False"
)


def imported(tree: ast.AST) -> set[str]:
    """The packages that a module imports, anywhere in it."""
    names = {n.name for node in ast.walk(tree) if isinstance(node, ast.Import) for n in node.names}
    names |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    return {name.split(".")[0] for name in names}


def test_production_code_comes_from_three_pinned_packages() -> None:
    """Beyond Python itself nothing is imported but them and what they are built upon."""
    names = {name for tree in SOURCES.values() for name in imported(tree)}
    assert names - sys.stdlib_module_names <= KNOWN
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    wanted = [line for line in lines if line and not line.startswith("#")]
    assert len(wanted) == 3
    assert all(re.fullmatch(r"[a-z-]+==\d+(\.\d+)+", line) for line in wanted)


def test_nothing_that_comes_in_is_ever_executed() -> None:
    """No eval, no pickle, no shell, and no TLS without a look at the certificate."""
    code = "\n".join(map(ast.unparse, SOURCES.values()))
    found = [match[0] for match in DANGEROUS.finditer(code)]
    assert [each for each in found if not each.startswith("compile")] == []


def test_a_bug_is_told_to_nobody_but_the_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A caller hears an apology; neither the answer nor the log has the message of the error."""

    class Broken(dict[str, Step]):
        def get(self, *_: object) -> Any:  # noqa: ANN401 (it never returns)
            raise RuntimeError(f"{CALLER} said {WORDS}")

        __getitem__ = get

    line = Inside({**MENU, "STATE_FILE": str(tmp_path / "calls")})
    broken = replace(line.line.line.plan, flow=Broken())
    line.line.line = replace(line.line.line, plan=broken)
    answer = line.post("/voice", webhook(SpeechResult=WORDS))
    assert (answer.status, answer.kind) == (200, "text/xml")
    assert in_twiml("apology") in answer.body.decode()
    shown = answer.body.decode() + capsys.readouterr().out
    assert [each for each in (CALLER, "card", "Traceback", "RuntimeError(") if each in shown] == []


RUBBISH: Final = ("502", "garbage", "no-result", "quota", "empty")


@pytest.mark.parametrize("fault", mostly_long({name: name for name in RUBBISH}, "garbage"))
def test_no_answer_is_a_500_in_any_bad_weather(upstash: Upstash, fault: str) -> None:
    """Redis answers rubbish at each command in turn: every webhook is still 200 and words."""
    line = Inside({**MENU, **upstash.settings, "RESPONSE_DEADLINE": "1"})
    upstash.fault = lambda _: fault
    for target in SIGNED:
        answer = line.post(target, webhook(SpeechResult="sales"))
        assert answer.status in (200, 204)
