"""The report at /healthz, which keeps a bad deploy from going live.

Each mistake is tried alone, as Railway would meet it: the new deploy must not get the calls, and
whoever made the mistake must read in plain words what to mend.
"""

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from deployed.asking import ask
from standins.backend import until
from standins.inside import ORIGIN, Inside, webhook
from standins.instance import Instance
from standins.rows import mostly_long
from standins.timing import LATE
from standins.upstash import Upstash
from standins.webhooks import Answer

WRITES: Final = ("SET", "DEL", "EXPIRE", "GETEX")
DEPLOYMENT: Final = "9f2c1a7e-0f6b-4c1d-8a3e-5b7d9e0c1f2a"
Log = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def state(tmp_path: Path) -> dict[str, str]:
    """A place for calls that is this test's own."""
    return {"STATE_FILE": str(tmp_path / "calls")}


@pytest.fixture
def log(capsys: pytest.CaptureFixture[str]) -> Log:
    """Reads the lines logged since the last look."""
    return lambda: [json.loads(each) for each in capsys.readouterr().out.splitlines()]


def problems(line: Inside) -> list[str]:
    """The problems that /healthz tells: with 503 if there are any, else with 200."""
    answer = line.send("GET", "/healthz")
    report = json.loads(answer.body)
    assert report["ok"] is (not report["problems"])
    assert answer.status == (503 if report["problems"] else 200)
    assert answer.kind == "application/json"
    found: list[str] = report["problems"]
    return found


def test_a_complete_line_is_healthy(state: dict[str, str], upstash: Upstash) -> None:
    """With settings that fit and a store that writes there is no problem, on either store."""
    assert problems(Inside(state)) == []
    assert problems(Inside(upstash.settings)) == []


@pytest.mark.parametrize(
    ("env", "release"),
    [
        ({}, "unknown"),
        ({"RAILWAY_GIT_COMMIT_SHA": "8d91279f" * 5}, "8d91279f8d91"),
        ({"RAILWAY_DEPLOYMENT_ID": DEPLOYMENT}, DEPLOYMENT),
        ({"RAILWAY_GIT_COMMIT_SHA": "", "RAILWAY_DEPLOYMENT_ID": DEPLOYMENT}, DEPLOYMENT),
        ({"RAILWAY_GIT_COMMIT_SHA": "abc", "RAILWAY_DEPLOYMENT_ID": DEPLOYMENT}, "abc"),
    ],
)
def test_the_release_that_serves_has_a_name(
    state: dict[str, str], env: dict[str, str], release: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit, where the deploy came from GitHub; else Railway's name for the deployment."""
    for name in ("RAILWAY_GIT_COMMIT_SHA", "RAILWAY_DEPLOYMENT_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    report = json.loads(Inside(state).send("GET", "/healthz").body)
    assert (report["ok"], report["release"]) == (True, release)


def test_health_is_asked_by_anybody(state: dict[str, str]) -> None:
    """No signature is needed, HEAD will do, and no cache keeps the answer."""
    line = Inside(state)
    answer = line.send("HEAD", "/healthz")
    assert (answer.status, answer.headers["Cache-Control"]) == (200, "no-store")


MISTAKES: Final[list[tuple[str, dict[str, str], list[str]]]] = [
    # the situation, the settings, what the one problem says
    ("no token", {"TWILIO_AUTH_TOKEN": ""}, ["TWILIO_AUTH_TOKEN is missing"]),
    (
        "a token with a blank in it",
        {"TWILIO_AUTH_TOKEN": "hush hush"},
        ["TWILIO_AUTH_TOKEN", "a token, or two with a comma"],
    ),
    ("a host", {"PUBLIC_URL": "line.example"}, ["PUBLIC_URL", "'line.example'", "https://"]),
    ("not encrypted", {"PUBLIC_URL": "http://line.example"}, ["PUBLIC_URL", "https://"]),
    ("a path", {"PUBLIC_URL": "https://line.example/voice"}, ["PUBLIC_URL", "/voice'"]),
    ("a number as dialled", {"FORWARD_TO": "555-0100"}, ["FORWARD_TO", "'###-####'", "+1555"]),
    ("a number with blanks", {"FORWARD_TO": "+1 555 0100 099"}, ["FORWARD_TO", "+15550100001"]),
    ("a name", {"FORWARD_TO": "reception"}, ["FORWARD_TO", "'reception'", "+15550100001"]),
    ("a menu without numbers", {"DEPARTMENTS": "billing"}, ["DEPARTMENTS", "billing=+1555"]),
    ("no time zone", {"HOURS": "Mon-Fri 09:00-17:00"}, ["HOURS", "Europe/Berlin"]),
    ("no such place", {"HOURS": "Mon 09:00-17:00 Mars/Base"}, ["HOURS", "Mars/Base"]),
    ("half of the database", {"UPSTASH_REDIS_REST_URL": "https://r.example"}, ["set both"]),
    (
        "the other URL of the database",
        {
            "UPSTASH_REDIS_REST_URL": "rediss://default:hush@r.example:6379",
            "UPSTASH_REDIS_REST_TOKEN": "token",
        },
        ["UPSTASH_REDIS_REST_URL is not usable", "https://"],
    ),
    ("a language alone", {"LANGUAGE": "de"}, ["LANGUAGE", "'de'", "en-US"]),
    ("no such language", {"LANGUAGE": "xx-US"}, ["LANGUAGE", "'xx-US'", "words", "en-US"]),
    ("a deadline of Twilio's", {"RESPONSE_DEADLINE": "15"}, ["RESPONSE_DEADLINE", "1 to 14"]),
    ("a short password", {"ADMIN_TOKEN": "hush"}, ["ADMIN_TOKEN is not usable", "12 characters"]),
    ("yes for 1", {"LOG_WORDS": "yes"}, ["LOG_WORDS", "'yes'", "0 or 1"]),
    ("blocked, with commas", {"BLOCKED": "+15550100001,+15550100002"}, ["BLOCKED", "spaces"]),
    ("too many calls", {"CALLS_PER_HOUR": "100"}, ["CALLS_PER_HOUR", "'100'", "1 to 50"]),
    ("half of an API key", {"TWILIO_API_SECRET": "hush"}, ["TWILIO_API_KEY", "set both"]),
]


@pytest.mark.parametrize(
    ("settings", "said"), [pytest.param(*row[1:], id=row[0]) for row in MISTAKES]
)
def test_a_mistake_is_said_before_the_first_call(
    state: dict[str, str], log: Log, settings: dict[str, str], said: list[str]
) -> None:
    """One mistake is one problem: 503, the variable, what it is, what it should be; no secret."""
    [problem] = problems(Inside(state | settings))
    assert [words for words in said if words not in problem] == []
    [entry] = [each for each in log() if "not ready" in each["message"]]
    assert entry["level"] == "error"
    assert problem in entry["message"]
    assert "hush" not in problem + json.dumps(entry)


def test_all_mistakes_are_said_at_once(state: dict[str, str]) -> None:
    """Nobody has to deploy once for each mistake."""
    every = {name: value for _, settings, _ in MISTAKES for name, value in settings.items()}
    found = problems(Inside(state | every | {"UPSTASH_REDIS_REST_TOKEN": "two words"}))
    assert [name for name in every if not any(name in each for each in found)] == []


def test_on_railway_calls_need_a_database(state: dict[str, str]) -> None:
    """A file would be lost with the instance: on Railway its absence is a mistake, no fallback."""
    [problem] = problems(Inside({**state, "RAILWAY_ENVIRONMENT_NAME": "production"}))
    assert "UPSTASH_REDIS_REST_TOKEN and UPSTASH_REDIS_REST_URL are missing" in problem


def test_on_railway_the_line_needs_a_domain(upstash: Upstash) -> None:
    """Without a domain nobody can sign a URL: the way to get one is said."""
    env = {**upstash.settings, "RAILWAY_ENVIRONMENT_NAME": "production", "PUBLIC_URL": ""}
    there = problems(Inside({**env, "RAILWAY_PUBLIC_DOMAIN": "line.up.example"}))
    [problem] = [each for each in problems(Inside(env)) if each not in there]
    assert "generate a domain" in problem


def test_a_redis_that_is_not_there_is_said(state: dict[str, str]) -> None:
    """Nothing listens at the URL: the variable is named, and that it was refused."""
    env = {"UPSTASH_REDIS_REST_URL": "http://127.0.0.1:1", "UPSTASH_REDIS_REST_TOKEN": "hush"}
    [problem] = problems(Inside(state | env))
    assert problem.startswith("Redis at UPSTASH_REDIS_REST_URL cannot be written: ")
    assert "refused" in problem
    assert "hush" not in problem


SICK: Final[list[tuple[str, dict[str, str], str, str]]] = [
    # the situation, settings that differ, the fault that strikes writes, what is said
    ("a wrong token", {"UPSTASH_REDIS_REST_TOKEN": "hush"}, "", "WRONGPASS"),
    ("a read-only token", {}, "read-only", "NOPERM"),
    ("a spent quota", {}, "quota", "max requests limit exceeded"),
    ("hanging", {}, "hang", "Timeout"),
    ("a page of a proxy", {}, "502", "502"),
    ("rubbish", {}, "garbage", "JSON"),
]


@pytest.mark.waits
@pytest.mark.parametrize(
    ("settings", "fault", "said"), mostly_long({row[0]: row[1:] for row in SICK}, SICK[0][0])
)
def test_a_redis_that_does_not_write_is_said(
    upstash: Upstash, log: Log, settings: dict[str, str], fault: str, said: str
) -> None:
    """A token that may only read, and a Redis that is ill, are found by writing; in time."""
    upstash.fault = lambda command: fault if command[0] in WRITES and fault else None
    line = Inside({**upstash.settings, **settings, "RESPONSE_DEADLINE": "1"})
    began = time.monotonic()
    [problem] = problems(line)
    assert time.monotonic() - began < 1.2 + LATE
    assert "UPSTASH_REDIS_REST_URL" in problem
    assert said in problem
    shown = problem + json.dumps(log())
    assert "hush" not in shown
    assert upstash.token not in shown


def test_health_costs_redis_little(upstash: Upstash) -> None:
    """Anybody may ask as often as they like: while all is well, Redis is asked once a minute."""
    line = Inside(upstash.settings)
    assert [problems(line) for _ in range(20)] == [[]] * 20
    assert upstash.commands == [("SET", "health", "well", "NX", "GET", "EX", "60")]


def test_several_processes_together_ask_once_a_minute(upstash: Upstash) -> None:
    """Each of them knows only its own looks, so each believes a good answer for longer."""
    here = Inside({**upstash.settings, "WORKERS": "3"})
    assert problems(here) == []
    for age, asked in ((170, 1), (181, 2)):
        then = time.monotonic() - age
        here.line.health.asked = here.line.line.store.hang_memory.settled = then
        assert problems(here) == []
        assert len(upstash.commands) == asked


def test_an_ill_redis_is_asked_every_five_seconds(upstash: Upstash) -> None:
    """A bad answer is believed for a while, too: looking costs no more when Redis is ill."""
    here = Inside(upstash.settings)
    upstash.fault = lambda _: "quota"
    assert here.send("GET", "/healthz").status == 503
    asked = upstash.round_trips
    assert [here.send("GET", "/healthz").status for _ in range(20)] == [503] * 20
    assert upstash.round_trips == asked


def test_what_callers_showed_is_trusted_for_a_minute(upstash: Upstash) -> None:
    """A call whose cell was settled proves that Redis writes: no look spends a command on it."""
    here = Inside(upstash.settings)
    here.post("/voice/inbound", webhook())
    spent = len(upstash.commands)
    assert [problems(here) for _ in range(5)] == [[]] * 5
    assert len(upstash.commands) == spent
    here.line.line.store.hang_memory.settled = time.monotonic() - 61
    assert problems(here) == []
    assert upstash.commands[spent:] == [("SET", "health", "well", "NX", "GET", "EX", "60")]


def test_what_callers_showed_is_not_trusted_after_a_fault(upstash: Upstash) -> None:
    """A command that found no answer since: the page asks for itself."""
    here = Inside({**upstash.settings, "RESPONSE_DEADLINE": "1"})
    here.post("/voice/inbound", webhook())
    upstash.fault = lambda _: "502"
    here.post("/voice/inbound", webhook())
    [problem] = problems(here)
    assert "502" in problem
    upstash.fault = None
    here.post("/voice/inbound", webhook())
    assert problems(here) == []


def test_the_check_of_health_leaves_nothing_for_ever(upstash: Upstash) -> None:
    """The cell that is written to see whether Redis writes is gone after a minute."""
    problems(Inside(upstash.settings))
    assert 0 < upstash.keys()["health"] <= 60


def test_a_process_with_mistakes_starts_and_says_so() -> None:
    """The platform gets its answer: the process serves 503 with the reasons, and refuses calls."""
    wrong = {"RAILWAY_ENVIRONMENT_NAME": "production", "FORWARD_TO": "5550100", "HOURS": "often"}
    with Instance({**wrong, "PUBLIC_URL": ORIGIN, "TWILIO_AUTH_TOKEN": ""}) as instance:
        answer = fetch(instance, "/healthz")
        said = answer.body.decode()
        [logged] = [entry for entry in instance.log() if "not ready" in str(entry.get("message"))]
    assert answer.status == 503
    for name in ("TWILIO_AUTH_TOKEN", "UPSTASH_REDIS_REST_URL", "FORWARD_TO", "HOURS"):
        assert name in said
        assert name in logged["message"]


def fetch(instance: Instance, path: str) -> Answer:
    """One GET of a process."""
    return ask("GET", instance.url + path)


@pytest.fixture
def upstash() -> Iterator[Upstash]:
    """A database of the test's own."""
    with Upstash() as upstash:
        yield upstash


@pytest.mark.waits
@pytest.mark.parametrize(("age", "known"), [(61, 200), (None, 503)])
def test_one_look_at_a_time_asks_a_store_that_hangs(
    age: int | None, known: int, upstash: Upstash
) -> None:
    """Who looks at /healthz meanwhile hears at once what is known: nothing good, if it is new."""
    here = Inside({**upstash.settings, "RESPONSE_DEADLINE": "1"})
    look = partial(here.send, "GET", "/healthz")
    if age:
        assert look().status == 200
        here.line.health.asked -= age
        here.line.line.store.hang_memory.settled = time.monotonic() - age
    upstash.forget()
    upstash.fault = lambda _: "hang"
    with ThreadPoolExecutor(21) as pool:
        first = pool.submit(look)
        assert until(lambda: upstash.round_trips == 1)
        began = time.monotonic()
        others = [pool.submit(look) for _ in range(20)]
        assert [each.result().status for each in others] == [known] * 20
        assert time.monotonic() - began < 0.4 + LATE
        assert first.result().status == 503
    assert upstash.round_trips == 2  # one look takes a second attempt after the first
    assert look().status == 503
