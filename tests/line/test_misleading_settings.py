"""Settings that look right and are not are told at deploy time, and nothing is given away."""

import re
from pathlib import Path
from urllib.parse import urlencode

import pytest

from phone_line.settings import read_settings
from standins.inside import Inside, webhook
from standins.webhooks import sign

HEX = "0123456789abcdef" * 2


def problems(**env: str) -> list[str]:
    """The problems of an environment that has a token otherwise."""
    return list(read_settings({"TWILIO_AUTH_TOKEN": HEX, **env}).problems)


@pytest.mark.parametrize(
    "token",
    [
        f'"{HEX}"',
        f"'{HEX}'",
        "your_auth_token",
        "YOUR-TOKEN",
        f"SK{HEX}",
        f"AC{HEX}",
        "<token>",
        "xxxxxxxx",
        "${TOKEN}",
        "changeme",
        f"{HEX},your_auth_token",
        f"{HEX},",
        f"ac{HEX}",
        f"AC{HEX.upper()}",
        HEX[:-1],
        f"{HEX}a",
        "0" * 32,
        "*" * 32,
        *("none", "NULL", "undefined", "test", "todo", "-", "n/a", "REPLACE_ME", "fill-in", "xxx"),
    ],
)
def test_what_cannot_be_a_token_is_a_problem(token: str) -> None:
    """In quotes, a SID, a placeholder: every call would be refused."""
    [problem] = problems(TWILIO_AUTH_TOKEN=token)
    assert problem.startswith("TWILIO_AUTH_TOKEN is not usable")
    assert HEX not in problem


@pytest.mark.parametrize("token", [HEX, f"{HEX},{HEX[::-1]}", "secret"])
def test_a_token_is_taken(token: str) -> None:
    """Twilio's are 32 hex digits; a stand-in's may be anything that looks like no mistake."""
    assert problems(TWILIO_AUTH_TOKEN=token) == []


@pytest.mark.parametrize(
    "number",
    ["+1 (555) 010-0099", "555 010 0099", "0049 30 1234567", "+1.555.010.0099", "(030) 123 45 67"],
)
@pytest.mark.parametrize("name", ["FORWARD_TO", "BLOCKED", "CALLER_ID"])
def test_no_digit_of_a_phone_number_is_shown(name: str, number: str) -> None:
    """As people write them: anybody can read the health page."""
    [problem] = problems(**{name: number})
    shown = problem.partition(";")[0]
    assert not re.search(r"\d", shown)


def test_a_number_in_departments_is_not_shown() -> None:
    """The names are, so that the owner finds the place."""
    [problem] = problems(DEPARTMENTS="billing=+1 (555) 010-0099")
    assert "billing" in problem
    assert not re.search(r"\d", problem.partition(";")[0])


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("FOWARD_TO", "FORWARD_TO"),
        ("TWILIO_TOKEN", "TWILIO"),
        ("BACKEND_URI", "BACKEND_URL"),
        ("GREETNG", "GREETING"),
        ("DEPARTMENT", "DEPARTMENTS"),
        ("forward_to", "FORWARD_TO"),
        ("Public_Url", "PUBLIC_URL"),
        ("RING-SECONDS", "RING_SECONDS"),
        ("greeting_es", "GREETING_ES"),
        ("GREETING_XX", "no such language"),
    ],
)
def test_a_misspelt_name_is_worth_a_warning(
    name: str, meant: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Nobody reads that variable, and its owner believes that somebody does."""
    Inside({name: "x", "STATE_FILE": str(tmp_path / "calls")})
    assert name in capsys.readouterr().out
    [warning] = read_settings({name: "x"}).warnings
    assert meant in warning


@pytest.mark.parametrize(
    "name",
    ["PATH", "PORT", "HOME", "RAILWAY_PUBLIC_DOMAIN", "GREETING_ES", "PYTHONPATH", "_", "no_proxy"],
)
def test_other_peoples_variables_are_not_warned_of(name: str) -> None:
    """The environment is full of them."""
    assert read_settings({name: "x"}).warnings == ()


def test_a_transcription_that_nobody_sees_is_worth_a_warning() -> None:
    """Twilio is paid for it; with an owner who is told, or a page, there is nothing to warn of."""
    [warning] = read_settings({"TRANSCRIBE": "1"}).warnings
    assert "NOTIFY_URL or ADMIN_TOKEN" in warning
    for seen in ({"NOTIFY_URL": "https://ntfy.example/a"}, {"ADMIN_TOKEN": "a" * 12}):
        assert read_settings({"TRANSCRIBE": "1", **seen}).warnings == ()


def reached(here: Inside, origin: str) -> int:
    """The status for a webhook that Twilio signed for this origin."""
    form = list(webhook().items())
    headers = {
        "Content-Type": "application/x-www-form-urlencoded",
        "X-Twilio-Signature": sign("secret", origin + "/voice", form),
    }
    return here.send("POST", "/voice", urlencode(form).encode(), headers).status


@pytest.mark.parametrize(
    ("public", "signed", "status"),
    [
        ("https://Line.Example.com", "https://line.example.com", 200),
        ("https://line.example.com", "https://line.example.com:443", 200),
        ("https://line.example.com:443", "https://line.example.com", 200),
        ("https://line.example.com:8443", "https://line.example.com", 200),
        ("https://line.example.com:8443", "https://line.example.com:8443", 200),
        ("https://line.example.com", "https://line.example.com:8443", 403),
        ("https://line.example.com", "https://line.example.org", 403),
        ("https://line.example.com", "http://line.example.com", 403),
        ("https://old.example.com,https://new.example.com", "https://old.example.com", 200),
        ("https://old.example.com, https://new.example.com/", "https://new.example.com", 200),
        ("https://old.example.com,https://new.example.com", "https://other.example.com", 403),
    ],
)
def test_the_origin_may_be_spelt_as_twilio_spells_it(
    tmp_path: Path, public: str, signed: str, status: int
) -> None:
    """Host names in any case, the port of https or none, and several while a domain is moved."""
    here = Inside({"PUBLIC_URL": public, "STATE_FILE": str(tmp_path / "calls")})
    assert here.line.settings.problems == ()
    assert reached(here, signed) == status


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FORWARD_TO", ",".join(f"+1555010{n:04}" for n in range(11))),
        ("FORWARD_TO", "+15550100099,+15550100099"),
        ("FORWARD_TO", "sip:a b@example.com"),
        ("FORWARD_TO", "sip:bob@example.com;transport=tcp"),
        ("FORWARD_TO", "sip:bob@example.com?X=1"),
        ("FORWARD_TO", "sip:@example.com"),
        ("DEPARTMENTS", "billing=+15550100001 billing=+15550100002"),
        ("DEPARTMENTS", "lost-found=+15550100001 Lost_Found=+15550100002"),
        ("DEPARTMENTS", "bil ling=+15550100001"),
        ("RING_SECONDS", "4"),
        ("RING_SECONDS", "61"),
        ("CALLER_ID", "callers"),
        ("PRESS_1_TO_ACCEPT", "yes"),
        ("LANGUAGE", "en-US en-US"),
        ("LANGUAGE", "en-US de-DE es-US fr-FR en-GB"),
        ("LANGUAGE", "fil-PH"),
        ("LANGUAGE", "xx-XX"),
        ("GREETING", "Hello\x00"),
        ("GREETING", "half a character \udc80"),
    ],
)
def test_a_value_that_cannot_be_is_named(name: str, value: str) -> None:
    """One sentence, with the variable and what to expect."""
    [problem] = problems(**{name: value})
    assert problem.startswith(f"{name} is ")
    assert "; expected " in problem


def test_http_to_the_database_is_a_problem_on_railway() -> None:
    """The token and every word would be readable on the way."""
    env = {
        "RAILWAY_ENVIRONMENT_NAME": "production",
        "RAILWAY_PUBLIC_DOMAIN": "line.up.railway.app",
        "UPSTASH_REDIS_REST_URL": "http://db.example.com",
        "UPSTASH_REDIS_REST_TOKEN": "t0k3n",
    }
    [problem] = problems(**env)
    assert "https" in problem
