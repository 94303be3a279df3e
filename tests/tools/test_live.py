"""What live.py finds at a line that is well, and at one with each mistake that a deploy can make.

The line is a real process, its Redis the stand-in of upstash.py, and Twilio's REST API a server
here that knows one number. Every mistake is made alone; it must be found, and nothing else.
"""

import json
import os
import re
import subprocess
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl

import pytest

import live
from live import Finding
from standins.call import OVERRIDES
from standins.instance import ROOT, Instance
from standins.upstash import Upstash

TOKEN: Final = "secret"
ACCOUNT: Final = "AC" + "0123456789abcdef" * 2
NUMBER: Final = "+15550001111"
PROGRAM: Final = ROOT / "tests/live.py"
Reply = tuple[int, Mapping[str, str], bytes]


class Asked(NamedTuple):
    """A request as a stand-in got it."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@contextmanager
def serving(answer: Callable[[Asked], Reply]) -> Iterator[str]:
    """A server that answers as it is told; its origin."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, more, body = answer(Asked(self.command, self.path, headers, sent))
            self.send_response(status)
            for name, value in {**more, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class Twilio:
    """The account with its number, as Twilio's REST API tells of them; `number` may be changed."""

    def __init__(self, line: str) -> None:
        self.asked: list[Asked] = []
        self.about: dict[str, Any] = {"type": "Full", "status": "active"}
        self.number: dict[str, Any] = {
            "sid": "PN" + "0" * 32,
            "phone_number": NUMBER,
            "voice_url": f"{line}/voice/inbound{OVERRIDES}",
            "voice_method": "POST",
            "voice_fallback_url": f"{line}/voice/fallback{OVERRIDES}",
            "voice_fallback_method": "POST",
            "status_callback": f"{line}/voice/status{OVERRIDES}",
            "status_callback_method": "POST",
            "voice_application_sid": "",
            "trunk_sid": None,
            "capabilities": {"voice": True, "SMS": False},
        }

    def answer(self, asked: Asked) -> Reply:
        """What a GET brings."""
        self.asked.append(asked)
        kind = {"Content-Type": "application/json"}
        if (
            asked.headers.get("authorization")
            != "Basic " + b64encode(f"{ACCOUNT}:{TOKEN}".encode()).decode()
        ):
            return 401, kind, b'{"code": 20003, "message": "Authenticate"}'
        if asked.path == f"/2010-04-01/Accounts/{ACCOUNT}.json":
            return 200, kind, json.dumps(self.about).encode()
        wanted = re.search(r"PhoneNumber=%2B(\d+)", asked.path)
        fits = not wanted or self.number["phone_number"] == f"+{wanted[1]}"
        return 200, kind, json.dumps({"incoming_phone_numbers": [self.number] * fits}).encode()


@pytest.fixture(scope="module")
def upstash() -> Iterator[Upstash]:
    """The database of the line."""
    with Upstash() as database:
        yield database


@pytest.fixture(scope="module")
def line(upstash: Upstash) -> Iterator[Instance]:
    """A deployed line that is well."""
    with Instance({"TWILIO_AUTH_TOKEN": TOKEN, **upstash.settings}) as instance:
        yield instance


@pytest.fixture
def twilio(line: Instance) -> Twilio:
    """An account whose number points at the line, with everything that it should have."""
    return Twilio(line.url)


def look(url: str, api: str = "", token: str = TOKEN, **env: str) -> list[Finding]:
    """All findings at a line; with `api`, also those at Twilio."""
    account = {"TWILIO_ACCOUNT_SID": ACCOUNT} if api else {}
    known = {"TWILIO_AUTH_TOKEN": token, **account, **env}
    given = [url, "--number", NUMBER, "--api", api]
    return list(live.everything(live.arguments(given, known), known))


def changes(findings: list[Finding]) -> list[str]:
    """What is to be changed, each with its advice."""
    return [f"{each.seen} > {each.advice}" for each in findings if each.level == "CHANGE"]


def notes(findings: list[Finding]) -> list[str]:
    return [f"{each.seen} > {each.advice}" for each in findings if each.level == "note"]


def test_a_line_that_is_well_has_nothing_to_change(
    line: Instance, twilio: Twilio, upstash: Upstash
) -> None:
    """Health, signatures, repeats, the database, and the number's three URLs are all seen well."""
    with serving(twilio.answer) as api:
        findings = look(line.url, api, **upstash.settings)
    assert changes(findings) == []
    seen = " | ".join(each.seen for each in findings if each.level == "ok")
    for what in (
        "settings are complete",
        "is refused (403)",
        "a signed call is answered in",
        "byte for byte",
        "longer than none",
        "expires in 24 hours",
        "voice_url is",
        "voice_fallback_url is",
        "status_callback is",
    ):
        assert what in seen


def test_looking_leaves_only_a_test_call_that_expires(
    line: Instance, twilio: Twilio, upstash: Upstash
) -> None:
    """One call with a CallSid of its own, each cell with an end, and only reads at Twilio."""
    upstash.flush()
    with serving(twilio.answer) as api:
        look(line.url, api)
    calls = {key: seconds for key, seconds in upstash.keys().items() if key != "health"}
    assert len({key.split(":")[1] for key in calls}) == 1
    assert all(key.startswith("call:CA7e57") for key in calls)
    assert all(0 < seconds <= 24 * 3600 for seconds in calls.values())
    assert {asked.method for asked in twilio.asked} == {"GET"}


FIELDS: Final = {
    "VoiceUrl": "voice_url",
    "VoiceMethod": "voice_method",
    "VoiceFallbackUrl": "voice_fallback_url",
    "VoiceFallbackMethod": "voice_fallback_method",
    "StatusCallback": "status_callback",
    "StatusCallbackMethod": "status_callback_method",
}


@pytest.mark.needs("bash", "curl")
def test_the_command_of_the_readme_sets_the_number_up() -> None:
    """Pasted into a shell, it finds the number, and leaves nothing that live.py would change."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    pasted = re.findall(r"```bash\n(NUMBER=.*?)```", readme, re.DOTALL)
    twilio = Twilio("https://elsewhere.example")

    def answer(asked: Asked) -> Reply:
        for name, value in parse_qsl(asked.body.decode()):
            twilio.number[FIELDS[name]] = value
        return twilio.answer(asked)

    with serving(answer) as api:
        script = pasted[0].replace("https://api.twilio.com", api).replace("AC...", ACCOUNT)
        env = {"HOST": "line.example", "TWILIO_AUTH_TOKEN": TOKEN, "NO_PROXY": "127.0.0.1"}
        subprocess.run(["bash", "-ec", script], env=os.environ | env, check=True)
        account = live.Account(ACCOUNT, (ACCOUNT, TOKEN), api)
        findings = list(live.at_twilio(account, NUMBER, "https://line.example", OVERRIDES))
    assert [each.level for each in findings] == ["ok"] * 3


NUMBERS_MISTAKES: Final[list[tuple[str, dict[str, Any], str, str]]] = [
    # what is wrong, the settings of the number, what is seen, what is advised
    (
        "no fragment",
        {"voice_url": "{}/voice/inbound"},
        "voice_url has no #",
        "VoiceUrl={}/voice/in",
    ),
    (
        "another fragment",
        {"voice_url": "{}/voice/inbound#rc=2"},
        "voice_url has #rc=2 in place of #rc=5&rp=all&ct=2000&rt=5000",
        "VoiceUrl=",
    ),
    (
        "elsewhere",
        {"voice_url": "https://demo.twilio.com/welcome/voice/"},
        "voice_url leads to https://demo.twilio.com, not here",
        "VoiceUrl=",
    ),
    (
        "another path",
        {"voice_fallback_url": "{}/fallback" + OVERRIDES},
        "voice_fallback_url has the path /fallback",
        "VoiceFallbackUrl={}/voice/fallback#rc=5",
    ),
    (
        "GET",
        {"voice_method": "GET"},
        "voice_url is asked with GET, not POST",
        "-d VoiceMethod=POST",
    ),
    (
        "GET at the end",
        {"status_callback_method": "GET"},
        "status_callback is asked with GET",
        "-d StatusCallbackMethod=POST",
    ),
    (
        "no fallback",
        {"voice_fallback_url": ""},
        "voice_fallback_url is not set",
        "VoiceFallbackUrl=",
    ),
    ("no status", {"status_callback": None}, "status_callback is not set", "StatusCallback="),
    (
        "an app",
        {"voice_application_sid": "AP1"},
        "a TwiML app (AP1) overrides",
        "-d VoiceApplicationSid=",
    ),
    ("a trunk", {"trunk_sid": "TK1"}, "a SIP trunk (TK1) overrides", "-d TrunkSid="),
    ("no voice", {"capabilities": {"voice": False}}, "cannot take calls", "another number"),
]


@pytest.mark.parametrize(
    ("settings", "seen", "advice"), [pytest.param(*row[1:], id=row[0]) for row in NUMBERS_MISTAKES]
)
def test_a_mistake_in_the_number_is_found(
    twilio: Twilio, line: Instance, settings: dict[str, Any], seen: str, advice: str
) -> None:
    """Whatever is wrong with the number is one finding, with the command that mends it."""
    twilio.number |= {
        name: value.replace("{}", line.url) if isinstance(value, str) else value
        for name, value in settings.items()
    }
    [found] = list(look_at_number(twilio, line.url))
    assert found.startswith(NUMBER)
    assert seen in found
    assert advice.replace("{}", line.url) in found


def look_at_number(twilio: Twilio, url: str, number: str = NUMBER, token: str = TOKEN) -> list[str]:
    """What is to be changed at Twilio."""
    with serving(twilio.answer) as api:
        account = live.Account(ACCOUNT, (ACCOUNT, token), api)
        return changes(list(live.at_twilio(account, number, url, OVERRIDES)))


def test_a_bin_is_a_good_fallback(twilio: Twilio, line: Instance) -> None:
    """A TwiML Bin as fallback is what the README recommends for a line that sleeps."""
    twilio.number["voice_fallback_url"] = "https://handler.twilio.com/twiml/EH1"
    assert look_at_number(twilio, line.url) == []


def test_the_number_is_found_without_being_named(twilio: Twilio, line: Instance) -> None:
    """The number that points here, or the account's only one, is the one that is meant."""
    twilio.number["voice_method"] = "GET"
    [found] = look_at_number(twilio, line.url, number="")
    assert "voice_url is asked with GET" in found


def test_a_number_of_another_account_is_said(twilio: Twilio, line: Instance) -> None:
    """A number that the account does not have is named."""
    [found] = look_at_number(twilio, line.url, number="+15550009999")
    assert "+15550009999" in found
    assert "--number" in found


def test_a_wrong_login_at_twilio_is_said(twilio: Twilio, line: Instance) -> None:
    """What Twilio answers to a wrong token is passed on, and the token is not shown."""
    [found] = look_at_number(twilio, line.url, token="not-the-token")
    assert "401: Authenticate" in found
    assert "not-the-token" not in found


def test_a_trial_account_is_told_its_limits(twilio: Twilio, line: Instance) -> None:
    """A trial is no mistake, but one who expects to be connected should know."""
    twilio.about = {"type": "Trial", "status": "active"}
    with serving(twilio.answer) as api:
        findings = look(line.url, api)
    assert changes(findings) == []
    assert any("trial account" in each for each in notes(findings))


def test_twilio_out_of_reach_is_only_noted(line: Instance) -> None:
    """Without Twilio's REST API the rest is looked at all the same."""
    findings = look(line.url, "http://127.0.0.1:1")
    assert changes(findings) == []
    [unseen] = [each.seen for each in findings if each.level == "unseen"]
    assert "settings were not looked at: Twilio's REST API cannot be reached" in unseen


def test_another_token_is_found(line: Instance) -> None:
    """A line that refuses our signature has another token or another PUBLIC_URL."""
    [found] = changes(look(line.url, token="another"))
    assert "a signed call is answered 403" in found
    assert "TWILIO_AUTH_TOKEN" in found
    assert f"PUBLIC_URL there is not {line.url}" in found


LINES: Final[list[tuple[str, dict[str, str], list[str]]]] = [
    # what is wrong with the line, its settings, what is found
    ("another PUBLIC_URL", {"PUBLIC_URL": "https://old.example"}, ["call is answered 403"]),
    (
        "another account",
        {"TWILIO_ACCOUNT_SID": "AC" + "f" * 32},
        ["TWILIO_ACCOUNT_SID there is another"],
    ),
    (
        "a typo",
        {"FORWARD_TO": "5550100099", "HOURS": "always"},
        ["/healthz: FORWARD_TO", "/healthz: HOURS"],
    ),
    (
        "a store that keeps nothing",
        {"UPSTASH_REDIS_REST_URL": "http://127.0.0.1:1", "UPSTASH_REDIS_REST_TOKEN": "t"},
        ["UPSTASH_REDIS_REST_URL cannot be written"],
    ),
]


@pytest.mark.parametrize(
    ("settings", "wanted"), [pytest.param(*row[1:], id=row[0]) for row in LINES]
)
def test_a_mistake_in_the_line_is_found(
    settings: dict[str, str], wanted: list[str], tmp_path: Path
) -> None:
    """What the line says of itself, and what it refuses, is passed on with what to do."""
    env = {"TWILIO_AUTH_TOKEN": TOKEN, "STATE_FILE": str(tmp_path / "calls"), **settings}
    with Instance(env) as instance:
        found = changes(look(instance.url))
    assert len(found) == len(wanted)
    assert all(words in each for words, each in zip(wanted, found, strict=True))


def test_a_caller_that_is_turned_away_is_only_noted(tmp_path: Path) -> None:
    """A line that blocks the number for tests is well; the rest cannot be seen by ringing."""
    env = {"TWILIO_AUTH_TOKEN": TOKEN, "STATE_FILE": str(tmp_path / "c"), "BLOCKED": live.CALLER}
    with Instance(env) as instance:
        findings = look(instance.url)
    assert changes(findings) == []
    assert any("turned away" in each for each in notes(findings))


def test_the_deadline_of_the_line_decides_the_fragment(tmp_path: Path) -> None:
    """With another RESPONSE_DEADLINE Twilio has to wait longer, in the number's URLs as well."""
    env = {"TWILIO_AUTH_TOKEN": TOKEN, "STATE_FILE": str(tmp_path / "c"), "RESPONSE_DEADLINE": "7"}
    with Instance(env) as instance, serving(Twilio(instance.url).answer) as api:
        found = changes(look(instance.url, api))
    assert len(found) == 3
    assert all("rt=5000 in place of #rc=5&rp=all&ct=2000&rt=7500" in each for each in found)


def test_another_database_is_found(line: Instance) -> None:
    """The call is looked for in the database that is set here: it must arrive in that one."""
    with Upstash() as other:
        [found] = changes(look(line.url, **other.settings))
    assert "not in this database" in found


def test_a_wrong_token_of_the_database_is_found(line: Instance, upstash: Upstash) -> None:
    """What Upstash answers to a wrong token is passed on."""
    settings = {**upstash.settings, "UPSTASH_REDIS_REST_TOKEN": "nonsense"}
    [found] = changes(look(line.url, **settings))
    assert "401" in found
    assert "nonsense" not in found


def test_a_database_far_away_is_found() -> None:
    """A round trip of 60 ms is seen in the difference between a webhook and /healthz."""
    with (
        Upstash(latency=0.06) as far,
        Instance({"TWILIO_AUTH_TOKEN": TOKEN, **far.settings}) as instance,
    ):
        [found] = changes(look(instance.url))
    taken = re.search(r"takes (\d+) ms longer", found)
    assert taken
    assert 55 <= int(taken[1]) <= 120
    assert "us-east-1" in found


def test_signatures_verify_through_a_proxy(tmp_path: Path) -> None:
    """An edge that talks to the line under another name does no harm when PUBLIC_URL is its own."""
    behind: list[str] = []

    def edge(asked: Asked) -> Reply:
        inner = {**asked.headers, "host": "10.0.0.7:8080", "x-forwarded-proto": "http"}
        found = live.ask(asked.method, behind[0] + asked.path, inner, asked.body.decode())
        return found.status, {"Content-Type": found.kind}, found.body

    with serving(edge) as url:
        env = {"TWILIO_AUTH_TOKEN": TOKEN, "STATE_FILE": str(tmp_path / "c"), "PUBLIC_URL": url}
        with Instance(env) as instance:
            behind.append(instance.url)
            assert changes(look(url)) == []
            assert any("403" in each for each in changes(look(instance.url)))


FALLBACK: Final = {"x-railway-fallback": "true", "Content-Type": "application/json"}


def test_an_edge_that_wakes_the_service_is_waited_for() -> None:
    """A 502 of Railway's edge, then the line: no mistake, but it is said how long it took."""
    waking = iter([(502, FALLBACK, b"{}")] * 2)
    report = b'{"ok": true, "problems": []}'

    def edge(_: Asked) -> Reply:
        return next(waking, (200, {"X-Railway-Edge": "iad1"}, report))

    with serving(edge) as url:
        answer, tries = live.awake(url, time.monotonic() + 10)
    assert (answer.status, tries) == (200, 3)
    [found] = live.health(answer)
    assert "through Railway's edge iad1" in found.seen


EDGES: Final[list[tuple[str, Reply, str]]] = [
    ("nothing deployed", (404, FALLBACK, b'{"message": "not found"}'), "`railway domain`, then"),
    ("another port", (502, FALLBACK, b'{"message": "failed to respond"}'), "--port"),
    ("another site", (200, {"Content-Type": "text/html"}, b"<h1>Hi</h1>"), "leads elsewhere"),
    ("another JSON", (200, {"Content-Type": "application/json"}, b"[]"), "leads elsewhere"),
]


@pytest.mark.parametrize(("reply", "advice"), [pytest.param(*row[1:], id=row[0]) for row in EDGES])
def test_something_else_at_the_domain_is_found(reply: Reply, advice: str) -> None:
    """What answers in place of the line is recognised, with what to do about it."""
    with serving(lambda _: reply) as url:
        answer, _tries = live.awake(url, time.monotonic())
    [found] = changes(list(live.health(answer)))
    assert advice in found
    assert str(reply[0]) in found


def test_a_domain_without_anything_is_found() -> None:
    """Nobody there at all: that is said, and the rest is not tried."""
    nowhere = live.arguments(["http://127.0.0.1:1", "--token", TOKEN, "--patience", "0"], {})
    [found] = changes(list(live.everything(nowhere, {})))
    assert "cannot be reached" in found


REDIRECTS: Final[list[tuple[str, Reply, str]]] = [
    ("as Railway does", (301, {"Location": "https://line.example/healthz"}, b""), ""),
    ("served in the open", (200, {}, b"{}"), "in place of a redirect"),
]


@pytest.mark.parametrize(
    ("reply", "seen"), [pytest.param(*row[1:], id=row[0]) for row in REDIRECTS]
)
def test_http_leads_to_https(reply: Reply, seen: str) -> None:
    """A line that also talks in the open is found."""
    with serving(lambda _: reply) as plain:
        found = changes(list(live.encryption("https://line.example", plain)))
    assert [seen in each for each in found] == ([True] if seen else [])


FORGED: Final[list[tuple[str, Reply, str]]] = [
    ("believed", (200, {}, b"<Response/>"), "answered 200, not 403"),
    ("redirected", (301, {"Location": "https://x.example/"}, b""), "redirected to https://x.ex"),
    ("refused", (403, {}, b"no"), ""),
]


@pytest.mark.parametrize(("reply", "seen"), [pytest.param(*row[1:], id=row[0]) for row in FORGED])
def test_a_line_that_believes_anybody_is_found(reply: Reply, seen: str) -> None:
    """An unsigned webhook must be refused with 403 and nothing else."""
    with serving(lambda _: reply) as url:
        found = changes(list(live.forgery(url)))
    assert [seen in each for each in found] == ([True] if seen else [])


def program(*given: str, **env: str) -> subprocess.CompletedProcess[str]:
    """live.py as from a shell."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("TWILIO_", "UPSTASH_"))}
    command = [sys.executable, str(PROGRAM), *given]
    return subprocess.run(command, env=kept | env, capture_output=True, text=True, check=False)


def test_the_program_prints_what_it_finds(line: Instance, twilio: Twilio) -> None:
    """From a shell: a line each, what to change with its command, and exit status 1."""
    twilio.number["status_callback"] = ""
    env = {"TWILIO_AUTH_TOKEN": TOKEN, "TWILIO_ACCOUNT_SID": ACCOUNT}
    with serving(twilio.answer) as api:
        done = program(line.url, "--number", NUMBER, "--api", api, **env)
    assert (done.returncode, done.stderr) == (1, "")
    assert "CHANGE  +15550001111: status_callback is not set\n        > curl -s -u" in done.stdout
    assert done.stdout.endswith("\nto change: 1\n")
    assert TOKEN not in done.stdout


def test_the_program_ends_well_when_all_is_well(line: Instance, twilio: Twilio) -> None:
    """From a shell, with nothing to change: exit status 0."""
    env = {"TWILIO_AUTH_TOKEN": TOKEN, "TWILIO_ACCOUNT_SID": ACCOUNT}
    with serving(twilio.answer) as api:
        done = program(line.url, "--api", api, **env)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("\nall well: dial the number\n")


@pytest.mark.parametrize("account", [{}, {"TWILIO_ACCOUNT_SID": ACCOUNT}], ids=["unset", "unheard"])
def test_the_program_owns_up_to_what_it_did_not_see(
    line: Instance, account: dict[str, str]
) -> None:
    """Without the number's settings nobody is told that all is well."""
    done = program(line.url, "--api", "http://127.0.0.1:1", TWILIO_AUTH_TOKEN=TOKEN, **account)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\nunseen  the number's settings were not looked at: " in done.stdout
    end = "\nwhat was looked at is well; the number's settings were not looked at\n"
    assert done.stdout.endswith(end)
    assert "all well" not in done.stdout


@pytest.mark.parametrize(
    ("given", "said"),
    [
        pytest.param(("line.example", "--token", "t"), "not 'line.example'", id="no scheme"),
        pytest.param(("https://line.example",), "TWILIO_AUTH_TOKEN", id="no token"),
    ],
)
def test_the_program_says_how_it_is_used(given: tuple[str, ...], said: str) -> None:
    """What is missing on the command line is said in a sentence."""
    done = program(*given)
    assert done.returncode == 2
    assert said in done.stderr
