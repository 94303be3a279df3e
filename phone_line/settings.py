"""The environment, read once and checked whole: every problem is named before the first call.

A field of `Settings` is the variable of the same name in capital letters. To add a setting is to
add a field (and a line to `.env.example` and to the README). Values are understood by `values.py`.
A problem names the variable, what was found and what was expected; never a secret, and no digit of
a phone number, because anybody can read it at /healthz.
"""

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from phone_line import values
from phone_line.text import without_digits
from phone_line.values import HEX32, LETTER, TOKEN, WORD, Check, between, matching
from phone_line.words import languages

if TYPE_CHECKING:
    from phone_line.hours import OpeningHours

THREADS: Final = 32  # they mostly wait for Redis: with Redis 20 ms away 32 answer 1.7 times as many
# callers as 16; 64 hardly more, and the slowest wait longer (python tests/bench.py --only threads)
REDIS: Final = ("UPSTASH_REDIS_REST_TOKEN", "UPSTASH_REDIS_REST_URL")
API_KEY: Final = ("TWILIO_API_KEY", "TWILIO_API_SECRET")
NEEDS: Final = {  # a variable: the one without which it means nothing
    "BACKEND_MODEL": "BACKEND_URL",
    "BACKEND_PROMPT": "BACKEND_MODEL",
    "TWILIO_API_KEY": "TWILIO_ACCOUNT_SID",
}
LOGINS: Final = {  # an address: the variable that is sent in place of a login in it
    "BACKEND_URL": "BACKEND_TOKEN",
    "UPSTASH_REDIS_REST_URL": "UPSTASH_REDIS_REST_TOKEN",
}
PREFIXES: Final = (
    "TWILIO_",
    "UPSTASH_",
    "BACKEND_",
    "SPEECH_",
)  # a variable so called is meant for us
PROMPT: Final = r"[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]{1,20000}"  # lines and tabs, too
GREETING: Final = f"{LETTER}{{1,999}}"
MOST_LANGUAGES: Final = 4  # offers in a row that a caller sits through
PRIVATE: Final = re.compile("TWILIO|TOKEN|SECRET|REST_URL|BACKEND|NOTIFY")


def variable(default: object, understand: Check, expected: str) -> Any:  # noqa: ANN401 # the type of the field
    """A setting: its default, how a value is understood, and what to expect instead of others."""
    return field(
        default_factory=lambda: default, metadata={"understand": understand, "expected": expected}
    )


def read_languages(value: str) -> tuple[str, ...]:
    """Languages with spaces between, up to four, each with a words file and a country: `en-US`."""
    tags = tuple(value.split())
    for tag in tags:
        language, _, country = tag.partition("-")
        if language not in languages() or not re.fullmatch("[A-Z]{2}", country):
            raise ValueError(value)
    if len(tags) > MOST_LANGUAGES or len({*tags}) != len(tags):
        raise ValueError(value)
    return tags


def read_hours(value: str) -> "OpeningHours":
    """Opening hours, and their time zone. Loaded only where set."""
    from phone_line.hours import parse_hours

    return parse_hours(value)


@dataclass(frozen=True, slots=True, eq=False, repr=False)  # no repr: it would hold secrets
class Settings:
    """The environment, understood. What must be fixed before a call stands in `problems`."""

    twilio_auth_token: tuple[str, ...] = variable(
        (), values.read_tokens, "a token, or two with a comma between while they are rotated"
    )
    public_url: tuple[str, ...] = variable(
        (), values.read_origins, "something like https://line.example.com"
    )
    upstash_redis_rest_url: str = variable("", values.read_address, "the https:// URL for REST")
    upstash_redis_rest_token: str = variable("", matching(TOKEN), "a token without spaces")
    state_file: str = variable(".calls.sqlite3", matching(f"(?!:){LETTER}+"), "a file name")
    forward_to: tuple[str, ...] = variable(
        (), values.read_phones, "a number like +15550100001, or up to ten with commas between"
    )
    departments: Mapping[str, tuple[str, ...]] = variable(
        MappingProxyType({}), values.read_departments, "up to nine like billing=+15550100001"
    )
    press_1_to_accept: int = variable(1, between(0, 1), "0 or 1")
    ring_seconds: int = variable(20, between(5, 60), "seconds from 5 to 60")
    caller_id: str = variable(
        "caller", matching(f"caller|line|{values.E164}"), "caller, line, or a number of the account"
    )
    backend_url: str = variable("", values.read_address, "an http:// or https:// URL")
    backend_token: str = variable("", matching(TOKEN), "a token without spaces")
    backend_model: str = variable("", matching(TOKEN), "the name of a model, without spaces")
    backend_prompt: str = variable("", matching(PROMPT), "text of up to 20,000 letters")
    notify_url: str = variable("", values.read_address, "an http:// or https:// URL")
    transcribe: int = variable(0, between(0, 1), "0 or 1")
    greeting: str = variable("", matching(GREETING), "a line of text")
    voice: str = variable("", matching(WORD), "a voice like Polly.Joanna")
    language: tuple[str, ...] = variable(
        ("en-US",),
        read_languages,
        "a language of phone_line/words with its country, like en-US; or up to four",
    )
    speech_model: str = variable("", matching(WORD), "a model like phone_call")
    speech_timeout: str = variable(
        "3", matching("[1-9]|10|auto"), "whole seconds from 1 to 10, or auto"
    )
    response_deadline: float = variable(4.5, between(1, 14, float), "seconds from 1 to 14")
    twilio_account_sid: str = variable("", matching(f"AC{HEX32}"), "AC and 32 hex digits")
    twilio_api_key: str = variable("", matching(f"SK{HEX32}"), "SK and 32 hex digits")
    twilio_api_secret: str = variable("", matching(TOKEN), "a secret without spaces")
    hours: "OpeningHours | None" = variable(
        None, read_hours, "something like Mon-Fri 09:00-17:00 Europe/Berlin"
    )
    blocked: frozenset[str] = variable(
        frozenset(), values.read_blocked, "phone numbers, or anonymous, with spaces between"
    )
    calls_per_hour: int = variable(0, between(1, 50), "a number from 1 to 50")
    admin_token: str = variable("", matching("[!-~]{12,}"), "12 characters or more")
    log_words: int = variable(0, between(0, 1), "0 or 1")
    threads: int = variable(THREADS, between(1, 512), "a number from 1 to 512")
    workers: int = variable(1, between(1, 16), "a number from 1 to 16")
    greetings: Mapping[str, str] = field(default_factory=dict)  # GREETING_ES ... by language
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def has_redis(self) -> bool:
        """Tell whether there is a database to keep calls in, not only the embedded file."""
        return bool(self.upstash_redis_rest_url and self.upstash_redis_rest_token)

    @property
    def numbers(self) -> dict[str, tuple[str, ...]]:
        """The only numbers that are ever dialled, by the name that a step or a backend uses."""
        own = {"FORWARD_TO": self.forward_to} if self.forward_to else {}
        return own | dict(self.departments)

    @property
    def rest_logins(self) -> list[tuple[str, str]]:
        """Users and passwords for Twilio's REST API, to be tried in this order; none: no login.

        An API key, else the account itself with its token. While that is rotated there are two, of
        which Twilio may take only one; the new one comes first.
        """
        if self.twilio_api_key:
            return [(self.twilio_api_key, self.twilio_api_secret)]
        if not self.twilio_account_sid:
            return []
        return [(self.twilio_account_sid, token) for token in reversed(self.twilio_auth_token)]


VARIABLES: Final = {f.name.upper(): f for f in fields(Settings) if f.metadata}


def read_settings(env: Mapping[str, str]) -> Settings:
    """Understand an environment. Never raises: what is wrong stands in `problems`."""
    given = {name: env[name].strip() for name in VARIABLES if env.get(name, "").strip()}
    found: dict[str, Any] = {}
    problems: list[str] = []
    for name, value in given.items():
        try:
            found[name.lower()] = VARIABLES[name].metadata["understand"](value)
        except ValueError as error:
            problems.append(describe_problem(name, value, error))
    found["greetings"] = read_greetings(env, problems)
    domain = env.get("RAILWAY_PUBLIC_DOMAIN", "").strip()
    if domain and "PUBLIC_URL" not in given:
        found["public_url"] = (f"https://{domain}",)
    settings = Settings(**found)
    on_railway = bool(env.get("RAILWAY_ENVIRONMENT_NAME"))
    problems += missing_settings(settings, {*given}, on_railway=on_railway)
    if on_railway and not settings.has_redis:
        settings = replace(settings, twilio_auth_token=())  # no silent fallback: nobody is served
    warnings = [*misspelt_names(env), *idle_settings(settings)]
    return replace(settings, problems=tuple(problems), warnings=tuple(warnings))


def read_greetings(env: Mapping[str, str], problems: list[str]) -> Mapping[str, str]:
    """The first words of each language: GREETING_ES and the like. Adds what is wrong."""
    greetings = {}
    for language in languages():
        name = f"GREETING_{language.upper()}"
        text = env.get(name, "").strip()
        if re.fullmatch(GREETING, text):
            greetings[language] = text
        elif text:
            problems.append(f"{name} is not usable; expected a line of text")
    return greetings


def describe_problem(name: str, value: str, error: ValueError) -> str:
    """A value that is not understood, in a sentence that gives nothing away."""
    if name == "HOURS":
        return f"HOURS: {error}"  # which says what was found, and what to write instead
    expected = VARIABLES[name].metadata["expected"]
    shown = "not usable"
    if not PRIVATE.search(name) and "@" not in value:
        shown = repr(without_digits(value)[:60])
    return f"{name} is {shown}; expected {expected}"


def missing_settings(settings: Settings, given: set[str], *, on_railway: bool) -> Iterator[str]:
    """The demands that settings make on each other, where they are not met."""
    for pair in (REDIS, API_KEY):
        if given & {*pair} and not {*pair} <= given:
            yield f"{' and '.join(pair)} belong together: set both, or neither"
    yield from missing_company(given)
    yield from doubled_logins(settings)
    if "TWILIO_AUTH_TOKEN" not in given:
        yield "TWILIO_AUTH_TOKEN is missing: every call is refused"
    if not on_railway:
        return
    if not given & {*REDIS}:
        yield f"{' and '.join(REDIS)} are missing: on Railway nothing else outlives a restart"
    if not settings.public_url and "PUBLIC_URL" not in given:
        yield "PUBLIC_URL is missing: generate a domain, then deploy again"
    if any(origin.startswith("http:") for origin in settings.public_url):
        yield "PUBLIC_URL must be https on Railway"
    if settings.upstash_redis_rest_url.startswith("http:"):
        yield "UPSTASH_REDIS_REST_URL must be https on Railway: else others can read along"


def missing_company(given: set[str]) -> Iterator[str]:
    """The variables that mean nothing without another one, which is missing."""
    for name, needed in NEEDS.items():
        if name in given and needed not in given:
            yield f"{name} needs {needed}"


def idle_settings(settings: Settings) -> Iterator[str]:
    """A service that is paid for, and whose results nobody sees."""
    if settings.transcribe and not settings.notify_url and not settings.admin_token:
        yield "TRANSCRIBE costs money, and nobody sees the words: set NOTIFY_URL or ADMIN_TOKEN"


def doubled_logins(settings: Settings) -> Iterator[str]:
    """The addresses with a login that nobody would send, because there is a token as well."""
    for name, token in LOGINS.items():
        address = urlsplit(getattr(settings, name.lower()))
        if "@" in address.netloc and getattr(settings, token.lower()):
            yield f"{name} has a login in it, and {token} is another one: leave one of them out"


def misspelt_names(env: Mapping[str, str]) -> Iterator[str]:
    """Variables that nobody reads, and that look as if they were meant for this line."""
    known = {*VARIABLES, *(f"GREETING_{language.upper()}" for language in languages())}
    for name in sorted(env):
        meant = name.upper().replace("-", "_")
        if name not in known and meant in known:
            yield f"{name} is no setting of this line: did you mean {meant}?"
        if meant in known or not re.fullmatch("[A-Z][A-Z0-9_]+", name):
            continue
        if re.fullmatch("GREETING_[A-Z]{2,3}", name):
            yield f"{name} is no setting of this line: it speaks no such language"
            continue
        similar = difflib.get_close_matches(name, VARIABLES, n=1, cutoff=0.8)
        if similar:
            yield f"{name} is no setting of this line: did you mean {similar[0]}?"
        elif name.startswith(PREFIXES):
            yield f"{name} is no setting of this line"
