"""Settings: what is good, what is a problem, and what is said about it."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from phone_line.settings import read_settings
from standins.inside import ORIGIN, TOKEN, Inside, judged, webhook
from standins.sentences import say

GREETING: Final = say("greeting")


GOOD: Final[Mapping[str, list[str]]] = {
    "TWILIO_AUTH_TOKEN": ["secret", "old,new", "old, new"],
    "PUBLIC_URL": ["https://line.example", "https://line.example/", "https://line.example:8443"],
    "FORWARD_TO": ["+15550100099", "+15550100098, +15550100099", "sip:desk@pbx.example.com"],
    "DEPARTMENTS": [
        "billing=+15550100001",
        "lost_and-found=+15550100001 B2=+15550100002",
        "billing=+15550100001,sip:desk@pbx.example.com cancel=+15550100002",
    ],
    "PRESS_1_TO_ACCEPT": ["0", "1"],
    "RING_SECONDS": ["5", "60"],
    "CALLER_ID": ["caller", "line", "+15550100099"],
    "BACKEND_URL": ["http://127.0.0.1:9/x?y=z", "https://backend.example"],
    "GREETING": ["Hello, {name} & friends!"],
    "VOICE": ["Polly.Amy-Neural", "Google.en-GB-Standard-A"],
    "LANGUAGE": ["en-GB", "de-AT", "en-US es-US"],
    "SPEECH_TIMEOUT": ["1", "10", "auto"],
    "RESPONSE_DEADLINE": ["1", "4.5", "14"],
    "HOURS": [
        "Mon-Fri 09:00-17:00 Europe/Berlin",
        "sat 00:00-24:00, SUN 10:00-11:30 UTC",
        "Mon 17:00-09:00 UTC",
        "Fri-Mon 09:00-17:00 UTC",
    ],
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
    "FORWARD_TO": (
        [
            *("5550100099", "+1 555 010 0099", "+0123456789", "+1", "me"),
            ",".join(f"+1555010{number:04}" for number in range(11)),
            *("+15550100099,+15550100099", "sip:desk", "sip:a b@pbx.example"),
            "sip:a@pbx.example;b=c",
        ],
        "+15550100001",
    ),
    "RING_SECONDS": (["4", "61", "20 s"], "from 5 to 60"),
    "CALLER_ID": (["me", "5550100099"], "caller, line"),
    "PRESS_1_TO_ACCEPT": (["yes", "2"], "0 or 1"),
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
    "LANGUAGE": (["english", "xx-US", "en_US", "en"], "en-US"),
    "SPEECH_MODEL": (["phone call"], "phone_call"),
    "SPEECH_TIMEOUT": (["0", "11", "1.5", "never", "-1"], "from 1 to 10, or auto"),
    "RESPONSE_DEADLINE": (["0", "15", "soon", "nan", "inf"], "1 to 14"),
    "TWILIO_ACCOUNT_SID": (["AC123", "SK" + "1" * 32], "32 hex digits"),
    "TWILIO_API_KEY": (["AC" + "1" * 32], "32 hex digits"),
    "HOURS": (
        [
            "09:00-17:00 UTC",
            "Mon 9-17 UTC",
            "Mon 09:00-17:00",
            "Mon 09:00-17:00 Nowhere/Land",
            "Mon 09:00-24:30 UTC",
            "Mon 09:00-17:00 ../etc",
        ],
        "",  # what is expected depends on what is wrong: see test_opening_hours.py
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
    assert read_settings({"TWILIO_AUTH_TOKEN": "secret", name: value}).problems == ()


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [(name, value, wish) for name, (values, wish) in TYPOS.items() for value in values],
)
def test_a_typo_is_named_with_what_was_expected(name: str, value: str, expected: str) -> None:
    """A problem has the variable, what was found there, and what would do; no phone number."""
    problems = read_settings({"TWILIO_AUTH_TOKEN": "secret", name: value}).problems
    [said] = [problem for problem in problems if re.match(f"{name}( is |: )", problem)]
    found, _, wish = said.partition("; expected ")
    shown = value[:60]
    if len(re.findall("[0-9]", shown)) > 4 and name != "HOURS":
        shown = re.sub("[0-9]", "#", shown)
        assert not re.search("[0-9]", found.removeprefix(name))
    hidden = name in HIDDEN or "@" in value
    part_of_it = [part in value for part in re.findall("'(.*?)'", found)]
    assert repr(shown) in found or (hidden and "not usable" in found) or part_of_it == [True]
    assert expected in wish
    assert wish


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
        (
            {"BACKEND_URL": "https://ann:hush@b.example/ask", "BACKEND_TOKEN": "hush"},
            "BACKEND_URL has a login in it, and BACKEND_TOKEN",
        ),
        (
            {
                "UPSTASH_REDIS_REST_URL": "https://default:hush@r.example",
                "UPSTASH_REDIS_REST_TOKEN": "hush",
            },
            "UPSTASH_REDIS_REST_URL has a login in it",
        ),
    ],
)
def test_settings_that_need_each_other_are_asked_for(env: dict[str, str], said: str) -> None:
    """Half of a pair is a problem that names the other half."""
    [problem] = read_settings({"TWILIO_AUTH_TOKEN": "secret", **env}).problems
    assert said in problem
    assert "hush" not in problem


def test_the_domain_of_railway_is_the_origin() -> None:
    """RAILWAY_PUBLIC_DOMAIN stands in for PUBLIC_URL, and gives way to it."""
    env = {"TWILIO_AUTH_TOKEN": "secret", "RAILWAY_PUBLIC_DOMAIN": "line.up.example"}
    assert read_settings(env).public_url == ("https://line.up.example",)
    assert read_settings(env | {"PUBLIC_URL": ORIGIN}).public_url == (ORIGIN,)


@pytest.mark.parametrize("deadline", ["1", "4.5", "9"])
def test_twilio_waits_a_little_longer_than_we_promise(file: Path, deadline: str) -> None:
    """Every URL handed out tells Twilio to ask again soon after the deadline has passed."""
    line = Inside({"RESPONSE_DEADLINE": deadline, "STATE_FILE": str(file)})
    wait = int(float(deadline) * 1000) + 500
    assert f"#rc=5&amp;rp=all&amp;ct=2000&amp;rt={wait}" in judged(line.post("/voice", webhook()))


def test_without_redis_railway_answers_no_call(file: Path) -> None:
    """On Railway a missing database is no silent fallback: calls are refused until it is there."""
    railway = {"RAILWAY_ENVIRONMENT_NAME": "production", "STATE_FILE": str(file)}
    assert Inside(railway).post("/voice/inbound", webhook()).status == 403


@pytest.mark.parametrize("name", [":memory:", ":"])
def test_a_store_in_memory_is_no_store(name: str) -> None:
    """Each thread would have cells of its own, so the operator is told to name a file."""
    settings = read_settings({"TWILIO_AUTH_TOKEN": TOKEN, "STATE_FILE": name})
    assert any("STATE_FILE" in problem for problem in settings.problems)
