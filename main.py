"""An inbound phone line as one stateless function: Twilio asks, this file answers with TwiML.

A call is a series of numbered turns. Every URL that we hand to Twilio names the turn that will
come back to it (`/voice/process?turn=3&step=menu`). Twilio signs that URL and repeats it verbatim
when it retries, so the turn number is idempotency key, lock and version at once.

No call is kept in this process. Redis holds write-once cells: `settle(key, value)` writes a cell
if it is empty and returns what stands in it; `read(keys)` looks. The cell `call:{CallSid}:{n}` is
the call after n answers together with the TwiML of the n-th. Whoever loses a race (a retry, a
rival instance, a write whose reply got lost) is handed the winner's TwiML and says exactly that.
No turn is ever locked, and there is nothing to clean up: cells expire.

The path of one webhook, as `Visit.turn` walks it:

    verify > parse > read cells n, n+1 > (n+1 stands? say it) > decide > render > settle n+1 > say

To change what callers hear, edit WORDS (the sentences) and `flow` (the steps); the rest follows.
Sections only use what stands above them: log, words, settings, flow, core, TwiML, wire, cells,
Twilio, records, slow work, page, line.
"""

from __future__ import annotations

import gc
import os
import runpy
import sys

if __name__ == "__main__":  # above the rest, because the server loads this file again
    gc.disable()  # what is loaded before the first call is no garbage, and to look takes long
    sys.argv = ["functions-framework", "--target=handler", f"--source={__file__}"]
    runpy.run_module("functions_framework", run_name="__main__")

import atexit
import hmac
import io
import json
import re
import socket
import ssl
import threading
import time
import traceback
import unicodedata
from base64 import b64encode
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from functools import cache, partial
from hashlib import sha256
from html import escape
from http.client import HTTPException, RemoteDisconnected
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple, TypeVar
from urllib.parse import parse_qs, parse_qsl, quote, urlencode, urlsplit

import httpx
from flask import Request, Response
from twilio.twiml.voice_response import Gather, VoiceResponse
from upstash_redis import Redis
from upstash_redis.http import format_response, make_headers
from werkzeug.exceptions import RequestEntityTooLarge

DAY: Final = 24 * 3600  # seconds that a cell lives: longer than any call
LAST_TURN: Final = 100  # turns of one call
WAY_OUT: Final = LAST_TURN - 3  # from here on: a person, voicemail, goodbye
THREADS: Final = 32  # the server's. They mostly wait for Redis: with Redis 20 ms away 32 answer 1.7
# times as many callers as 16; 64 hardly more, and the slowest wait longer (bench.py --only threads)
E164: Final = r"\+[1-9][0-9]{6,14}"


class Rejected(Exception):
    """A request that gets a refusal: an HTTP status and a plain sentence."""

    def __init__(self, status: int, reason: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(reason)
        self.status, self.reason, self.headers = status, reason, headers


class StoreUnavailable(Exception):
    """The store gave no usable answer in time: the network's fault. Every webhook survives it."""


# ---- log ---------------------------------------------------------------------------------------
# One JSON object a line on stdout, where Railway's log search finds it; stderr would be all errors.


as_json: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def log(level: str, message: str, **known: object) -> None:
    """Write one line. No secret comes here; words and numbers only if the operator asked.

    In one piece, since threads write at the same time; and no caller pays for a full disk.
    """
    line = {"level": level, "message": message} | {k: v for k, v in known.items() if v is not None}
    with suppress(OSError, ValueError):
        sys.stdout.write(as_json(line) + "\n")
        sys.stdout.flush()


def masked(phone: str) -> str:
    """A phone number that its owner would know again, and nobody else: +15*******21."""
    return phone if len(phone) < 6 else phone[:3] + "*" * (len(phone) - 5) + phone[-2:]


def cause(error: BaseException) -> str:
    """What went wrong, and in which line of this file. Not the message: it may hold words."""
    trace = traceback.walk_tb(error.__traceback__)
    ours = [line for frame, line in trace if frame.f_code.co_filename == __file__]
    return f"{type(error).__name__} at line {ours[-1] if ours else 0}"


# ---- words -------------------------------------------------------------------------------------
# Every sentence that a caller can hear, by language. {name} and the like are filled in.
# A step of the flow names a sentence here; anything else that it says is spoken as it stands.

WORDS: Final[Mapping[str, Mapping[str, str]]] = {
    "en": {
        "voice": "Polly.Joanna",
        "greeting": "Hello, and thank you for calling.",
        "ask_reason": "Please tell me your name, and what you are calling about.",
        "heard_connecting": "Thank you. I heard: {heard}. I am connecting you now.",
        "ask_menu": "{menu}",
        "menu_item": "For {name}, say {name}, or press {key}.",
        "ask_help": "How can I help you?",
        "did_you_say": "Did you say {name}? Please say yes or no.",
        "connecting": "I am connecting you with a person now.",
        "connecting_department": "I am connecting you with {name}.",
        "not_heard": "I am sorry, I did not hear you.",
        "not_understood": "I am sorry, I did not understand that.",
        "help": "Press 0 at any time for a person, or star to hear the question again.",
        "giving_up": "Let me find somebody who can help you.",
        "busy": "The line is busy.",
        "no-answer": "Nobody is answering at the moment.",
        "failed": "I could not put the call through.",
        "leave_message": "Please leave a message after the tone, and hang up when you are done.",
        "message_taken": "Thank you. Your message is recorded. Goodbye.",
        "closed": "We are closed at the moment.",
        "goodbye": "Thank you for calling. Goodbye.",
        "hold_1": "One moment, please.",
        "hold_2": "I am still working on it.",
        "hold_3": "Thank you for your patience. It will not be much longer.",
        "no_result": "I am sorry, I cannot get an answer at the moment.",
        "interrupted": "I am sorry, we were interrupted.",
        "apology": "I am sorry, something went wrong on our side.",
        "call_again": "Please call again later. Goodbye.",
        "words_operator": "operator, person, agent, human, somebody",
        "words_repeat": "repeat, again, pardon",
        "words_yes": "yes, yeah, yep, correct, right, sure",
        "words_no": "no, nope, wrong",
        "words_numbers": "one, two, three, four, five, six, seven, eight, nine",
    },
    "de": {
        "voice": "Polly.Vicki",
        "greeting": "Guten Tag, schön, dass Sie anrufen.",
        "ask_reason": "Bitte nennen Sie Ihren Namen und den Grund Ihres Anrufs.",
        "heard_connecting": "Danke. Ich habe verstanden: {heard}. Ich verbinde Sie jetzt.",
        "ask_menu": "{menu}",
        "menu_item": "Für {name} sagen Sie {name} oder drücken Sie die {key}.",
        "ask_help": "Was kann ich für Sie tun?",
        "did_you_say": "Meinten Sie {name}? Bitte sagen Sie ja oder nein.",
        "connecting": "Ich verbinde Sie jetzt mit einem Menschen.",
        "connecting_department": "Ich verbinde Sie mit {name}.",
        "not_heard": "Entschuldigung, ich habe Sie nicht gehört.",
        "not_understood": "Entschuldigung, das habe ich nicht verstanden.",
        "help": "Die 0 verbindet Sie mit einem Menschen, der Stern wiederholt die Frage.",
        "giving_up": "Ich suche jemanden, der Ihnen helfen kann.",
        "busy": "Der Anschluss ist besetzt.",
        "no-answer": "Im Moment nimmt niemand ab.",
        "failed": "Die Verbindung kam nicht zustande.",
        "leave_message": "Bitte sprechen Sie nach dem Ton, und legen Sie danach einfach auf.",
        "message_taken": "Danke, Ihre Nachricht ist aufgezeichnet. Auf Wiederhören.",
        "closed": "Wir haben zurzeit geschlossen.",
        "goodbye": "Danke für Ihren Anruf. Auf Wiederhören.",
        "hold_1": "Einen Moment bitte.",
        "hold_2": "Ich bin noch dabei.",
        "hold_3": "Danke für Ihre Geduld. Es dauert nicht mehr lange.",
        "no_result": "Es tut mir leid, ich bekomme gerade keine Antwort.",
        "interrupted": "Entschuldigung, wir wurden unterbrochen.",
        "apology": "Es tut mir leid, bei uns ist etwas schiefgegangen.",
        "call_again": "Bitte rufen Sie später noch einmal an. Auf Wiederhören.",
        "words_operator": "zentrale, mensch, mitarbeiter, mitarbeiterin, vermittlung, operator",
        "words_repeat": "wiederholen, nochmal, bitte nochmal",
        "words_yes": "ja, jawohl, genau, richtig, stimmt",
        "words_no": "nein, nee, falsch",
        "words_numbers": "eins, zwei, drei, vier, fünf, sechs, sieben, acht, neun",
    },
}


# ---- settings ----------------------------------------------------------------------------------
# The environment, read once and checked whole: every problem is named before the first call.

Check = Callable[[str], Any]  # what a value means; a ValueError, KeyError or OSError if nothing


def matched(pattern: str, value: str) -> str:
    """The value, if all of it matches a pattern; else a ValueError."""
    if not re.fullmatch(pattern, value):
        raise ValueError(value)
    return value


def between(low: float, high: float, kind: type[Any] = int) -> Check:
    """A check that the value is a number of a kind from `low` to `high`."""

    def check(value: str) -> Any:  # noqa: ANN401 # an int or a float, as the table asks
        if not low <= kind(value) <= high:
            raise ValueError(value)
        return kind(value)

    return check


def origin(value: str) -> str:
    """`https://host[:port]` without path, query or login; http only for this machine."""
    hosts = r"https://[\w.-]+|http://(localhost|127\.0\.0\.1)"
    return matched(f"({hosts})(:[1-9][0-9]{{0,4}})?", value.rstrip("/"))


def address(value: str) -> str:
    """Any http or https URL with a host."""
    url = urlsplit(matched("https?://[!-~]+", value))
    if not url.hostname or url.port == 0:
        raise ValueError(value)
    return value


def phone_book(value: str) -> tuple[tuple[str, str], ...]:
    """`billing=+15550100001 cancel=+15550100002`: names and numbers in order, a key for each."""
    pairs = [matched(rf"[^\W\d][\w-]*={E164}", pair).split("=") for pair in value.split()]
    book = {name.lower(): number for name, number in pairs}
    if len(book) != len(pairs) or len(book) > len("123456789"):
        raise ValueError(value)
    return tuple(book.items())


def opening_hours(value: str) -> Callable[[float], bool]:
    """`Mon-Fri 09:00-17:00, Sat 10:00-14:00 Europe/Berlin`: whether it is closed at a Unix time."""
    from zoneinfo import ZoneInfo

    days = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
    time_of_day = "([01][0-9]|2[0-3]):[0-5][0-9]"
    spans, place = value.rsplit(None, 1)
    zone = ZoneInfo(place)  # a KeyError where there is no such place
    hours = f"{time_of_day}-({time_of_day}|24:00)"
    table: list[tuple[range, str, str]] = []
    for span in spans.lower().split(","):
        week, open_ = matched(rf"\s*\w+(-\w+)?\s+{hours}\s*", span).split()
        (first, _, last), (opens, _, closes) = week.partition("-"), open_.partition("-")
        table.append((range(days.index(first), days.index(last or first) + 1), opens, closes))
        if not table[-1][0] or opens >= closes:
            raise ValueError(value)

    def closed(at: float) -> bool:
        now = datetime.fromtimestamp(at, zone)
        day, clock = now.weekday(), f"{now:%H:%M}"
        return not any(day in week and opens <= clock < closes for week, opens, closes in table)

    return closed


def variable(name: str, default: object, understand: str | Check, expected: str) -> Any:  # noqa: ANN401 # the type of the field
    """A setting: variable, default, how a value is understood (or has to look), what to expect."""
    understand = partial(matched, understand) if isinstance(understand, str) else understand
    return field(default=default, metadata={"variable": (name, understand, expected)})


TOKEN, WORD, SID, LETTER = "[!-~]+", r"[\w.-]+", "[0-9a-f]{32}", r"[^\x00-\x1f\x7f]"
LANGUAGES: Final = f"a language of WORDS ({', '.join(WORDS)}) with a country, like en-US"


@dataclass(frozen=True, slots=True, eq=False, repr=False)  # no repr: it would hold secrets
class Settings:
    """The environment, understood. What must be fixed before a call stands in `problems`."""

    tokens: tuple[str, ...] = variable(
        "TWILIO_AUTH_TOKEN",
        (),
        lambda value: tuple(matched(TOKEN, token.strip()) for token in value.split(",")),
        "a token, or two with a comma between while they are rotated",
    )
    public_url: str = variable("PUBLIC_URL", "", origin, "something like https://line.example.com")
    redis_url: str = variable("UPSTASH_REDIS_REST_URL", "", address, "the https:// URL for REST")
    redis_token: str = variable("UPSTASH_REDIS_REST_TOKEN", "", TOKEN, "a token without spaces")
    state_file: str = variable("STATE_FILE", ".calls.sqlite3", f"(?!:){LETTER}+", "a file name")
    forward_to: str = variable("FORWARD_TO", "", E164, "a number like +15550100001")
    departments: tuple[tuple[str, str], ...] = variable(
        "DEPARTMENTS", (), phone_book, "up to nine like billing=+15550100001"
    )
    backend_url: str = variable("BACKEND_URL", "", address, "an http:// or https:// URL")
    backend_token: str = variable("BACKEND_TOKEN", "", TOKEN, "a token without spaces")
    greeting: str = variable("GREETING", "", f"{LETTER}{{1,999}}", "a line of text")
    voice: str = variable("VOICE", "", WORD, "a voice like Polly.Joanna")
    language: str = variable("LANGUAGE", "en-US", f"({'|'.join(WORDS)})-[A-Z]{{2}}", LANGUAGES)
    speech_model: str = variable("SPEECH_MODEL", "phone_call", WORD, "a model like phone_call")
    speech_timeout: str = variable(
        "SPEECH_TIMEOUT", "3", "[1-9]|10|auto", "whole seconds from 1 to 10, or auto"
    )
    deadline: float = variable("RESPONSE_DEADLINE", 4.5, between(1, 14, float), "from 1 to 14")
    account_sid: str = variable("TWILIO_ACCOUNT_SID", "", f"AC{SID}", "AC and 32 hex digits")
    api_key: str = variable("TWILIO_API_KEY", "", f"SK{SID}", "SK and 32 hex digits")
    api_secret: str = variable("TWILIO_API_SECRET", "", TOKEN, "a secret without spaces")
    closed: Callable[[float], bool] | None = variable(
        "HOURS", None, opening_hours, "something like Mon-Fri 09:00-17:00 Europe/Berlin"
    )
    blocked: frozenset[str] = variable(
        "BLOCKED",
        frozenset(),
        lambda value: frozenset(matched(f"{E164}|anonymous", who) for who in value.split()),
        "phone numbers, or anonymous, with spaces between",
    )
    calls_per_hour: int = variable("CALLS_PER_HOUR", 0, between(1, 50), "a number from 1 to 50")
    admin_token: str = variable("ADMIN_TOKEN", "", "[!-~]{12,}", "12 characters or more")
    log_words: int = variable("LOG_WORDS", 0, between(0, 1), "0 or 1")
    threads: int = variable("THREADS", THREADS, between(1, 512), "a number from 1 to 512")
    problems: tuple[str, ...] = ()

    @property
    def redis(self) -> bool:
        """Whether there is a database to keep calls in, not only the embedded file."""
        return bool(self.redis_url and self.redis_token)

    @property
    def numbers(self) -> dict[str, str]:
        """The only numbers that are ever dialled, by the name that a step or a backend uses."""
        return ({"FORWARD_TO": self.forward_to} if self.forward_to else {}) | dict(self.departments)

    @property
    def rest_login(self) -> tuple[str, str] | None:
        """Who we are to Twilio's REST API: an API key, else the account itself."""
        if self.api_key:
            return self.api_key, self.api_secret
        return (self.account_sid, self.tokens[0]) if self.account_sid and self.tokens else None

    @property
    def spoken(self) -> dict[str, str]:
        """How sentences are said. Polly.Joanna and the like have a language of their own.

        A voice with another language would make Say fail, and then en-GB would be silence.
        """
        own = "." in self.voice
        return {"voice": self.voice} if own else {"voice": self.voice, "language": self.language}

    @property
    def words(self) -> Mapping[str, str]:
        words = WORDS[self.language[:2]]
        return {**words, "greeting": self.greeting} if self.greeting else words


VARIABLES: Final = {f.metadata["variable"][0]: f for f in fields(Settings) if f.metadata}


def read_settings(env: Mapping[str, str]) -> Settings:
    """Understand an environment. Never raises: what is wrong is in `problems`, without secrets."""
    given = {name: env[name].strip() for name in VARIABLES if env.get(name, "").strip()}
    domain = env.get("RAILWAY_PUBLIC_DOMAIN", "").strip()
    found: dict[str, Any] = {"public_url": f"https://{domain}"} if domain else {}
    problems: list[str] = []
    for name, value in given.items():
        _, understand, expected = VARIABLES[name].metadata["variable"]
        try:
            found[VARIABLES[name].name] = understand(value)
        except (ValueError, KeyError, OSError):
            private = re.search("TWILIO|TOKEN|SECRET|REST_URL|BACKEND", name) or "@" in value
            phones = re.sub("[0-9]{6,}", lambda digits: masked(digits[0]), value[:60])
            shown = "not usable" if private else repr(phones)
            problems.append(f"{name} is {shown}; expected {expected}")
    settings = Settings(**found)
    problems += [said for holds, said in demands(settings, {*given}, env) if not holds]
    voice = settings.voice or settings.words.get("voice", "")
    stateless = env.get("RAILWAY_ENVIRONMENT_NAME") and not settings.redis
    tokens = () if stateless else settings.tokens  # no silent fallback: no call is answered
    return replace(settings, tokens=tokens, voice=voice, problems=tuple(problems))


def demands(
    found: Settings, given: set[str], env: Mapping[str, str]
) -> Iterator[tuple[object, str]]:
    """What must hold between settings, each with what to say when it does not."""
    redis = ["UPSTASH_REDIS_REST_TOKEN", "UPSTASH_REDIS_REST_URL"]
    for pair in (redis, ["TWILIO_API_KEY", "TWILIO_API_SECRET"]):
        together = {*pair} <= given or not {*pair} & given
        yield together, f"{' and '.join(pair)} belong together: set both, or neither"
    yield "TWILIO_AUTH_TOKEN" in given, "TWILIO_AUTH_TOKEN is missing: every call is refused"
    yield not found.api_key or found.account_sid, "TWILIO_API_KEY needs TWILIO_ACCOUNT_SID"
    if env.get("RAILWAY_ENVIRONMENT_NAME"):
        lost = "are missing: on Railway no other place lets a call outlive a restart"
        yield {*redis} & given, f"{' and '.join(redis)} {lost}"
        there = found.public_url or "PUBLIC_URL" in given
        yield there, "PUBLIC_URL is missing: generate a domain, then deploy again"
        yield not found.public_url.startswith("http:"), "PUBLIC_URL must be https on Railway"


# ---- flow --------------------------------------------------------------------------------------
# The call as a table. A step says something and names the steps that can follow it.


class Ask(NamedTuple):
    """Ask, and listen for speech and keys together."""

    say: str
    routes: Mapping[str, str] = MappingProxyType({})  # what is said or keyed: step, in order
    then: str = ""  # where any other words go; without it they are nonsense
    keys: int | None = 1  # how many keys make an answer; None: as many as come before #


class Tell(NamedTuple):
    """Say something and go on."""

    say: str
    then: str


class Transfer(NamedTuple):
    """Connect the caller to FORWARD_TO or a department; no number, no answer: `unanswered`."""

    to: str
    say: str
    unanswered: str


class Voicemail(NamedTuple):
    """Record a message."""

    say: str
    then: str


class Consult(NamedTuple):
    """Ask the backend what comes next; `listen` is where it continues the conversation."""

    listen: str
    failed: str


class End(NamedTuple):
    """Say something and hang up."""

    say: str


class Refuse(NamedTuple):
    """Do not even answer the call: nothing is billed."""

    reason: Literal["rejected", "busy"]


Step = Ask | Tell | Transfer | Voicemail | Consult | End | Refuse
Flow = Mapping[str, Step]


def flow(settings: Settings) -> Flow:
    """The steps of this line. Every call begins at "start" (or "closed", "blocked", "too_many")."""
    menu = {name: f"to_{name}" for name, _number in settings.departments}
    first = "listen" if settings.backend_url else "menu" if menu else "reason"
    table: dict[str, Step] = {
        "start": Tell("greeting", then=first),
        "reason": Ask("ask_reason", then="connect"),
        "connect": Transfer("FORWARD_TO", say="heard_connecting", unanswered="voicemail"),
        "operator": Transfer("FORWARD_TO", say="connecting", unanswered="voicemail"),
        "voicemail": Voicemail("leave_message", then="message_taken"),
        "message_taken": End("message_taken"),
        "goodbye": End("goodbye"),
        "closed": Tell("closed", then="voicemail"),
        "blocked": Refuse("rejected"),
        "too_many": Refuse("busy"),
    }
    if menu:
        table["menu"] = Ask("ask_menu", routes=menu)
    for name, step in menu.items():
        table[step] = Transfer(name, say="connecting_department", unanswered="voicemail")
    if settings.backend_url:
        table["listen"] = Ask("ask_help", then="think", keys=None)
        table["think"] = Consult(listen="listen", failed="operator")
    return table


NEEDED: Final = (
    *("start", "operator", "voicemail", "message_taken", "goodbye"),  # where `decide` goes itself
    *("closed", "blocked", "too_many"),  # where a call may begin
)
# What the code needs of WORDS by itself, and what it fills in there.
FILLED: Final[Mapping[str, Collection[str]]] = {
    **dict.fromkeys(("voice", "not_heard", "not_understood", "help", "giving_up"), ()),
    **dict.fromkeys(("busy", "no-answer", "failed", "hold_1", "hold_2", "hold_3"), ()),
    **dict.fromkeys(("no_result", "interrupted", "apology", "call_again", "words_numbers"), ()),
    **dict.fromkeys(("words_operator", "words_repeat", "words_yes", "words_no"), ()),
    "menu_item": ("name", "key"),
    "did_you_say": ("name",),
}
FILLS: Final[Mapping[type[Step], Collection[str]]] = {Ask: ("menu",), Transfer: ("heard", "name")}


def flaws(table: Flow, words: Mapping[str, str], numbers: Collection[str]) -> Iterator[str]:
    """What is wrong with a table and its words, in plain words, so that no caller finds out."""
    for name in NEEDED:
        if name not in table:
            yield f"flow: there is no step {name!r}, and every line needs it"
    for name, filled in FILLED.items():
        if name not in words:
            yield f"WORDS: there is no sentence {name!r}, and every line needs it"
        yield from unfilled(f"WORDS: {name!r}", words.get(name, ""), filled)
    for name, step in table.items():
        where = f"flow: step {name!r}"
        yield from (f"{where} {flaw}" for flaw in dead_ends(step, table, numbers))
        said = getattr(step, "say", "")
        if re.fullmatch("[a-z_]+", said) and said not in words:
            yield f"{where} says {said!r}, and WORDS has no such sentence"
        yield from unfilled(where, words.get(said, said), FILLS.get(type(step), ()))


def dead_ends(step: Step, table: Flow, numbers: Collection[str]) -> Iterator[str]:
    """What is wrong with where a step leads."""
    named = [getattr(step, way, "") for way in ("then", "unanswered", "listen", "failed")]
    for way in filter(None, [*named, *getattr(step, "routes", {}).values()]):
        if way not in table:
            yield f"leads to {way!r}, and there is no such step"
    if isinstance(step, Transfer) and step.to not in ("FORWARD_TO", *numbers):
        yield f"calls {step.to!r}, which is no department"
    at: Step | None = step
    for _ in table:
        match at:
            case Tell(then=way):
                at = table.get(way)
            case Transfer(to=to, unanswered=way) if to not in numbers:
                at = table.get(way)
            case _:
                at = None
    if at:
        yield "leads in a circle before the caller can say a word"


def unfilled(where: str, sentence: str, filled: Collection[str]) -> Iterator[str]:
    """The {placeholders} of a sentence that would be read aloud."""
    for blank in re.findall(r"{(\w+)}", sentence):
        if blank not in filled:
            yield f"{where} says {{{blank}}}, which nothing fills in"


# ---- core --------------------------------------------------------------------------------------
# What happens next in a call. Pure and total: no clock, network or log, and every input has an
# answer. Moments and ids come in as arguments.

SURE: Final = 0.5  # a Confidence below it makes us ask "did you say"; Twilio promises no scale
COMMAND: Final = 4  # "an operator please" is a command; a longer sentence that says operator is not
AGAIN: Final = "*"  # in place of a step: the same question once more
MISSES: Final = 3  # silence or nonsense this often in a row: a person
SPOKEN: Final = 1000  # characters kept of what a caller said
SAID: Final = 2500  # characters in one Say; Twilio's limit for Polly is 3000 (error 13521)
ENCODED: Final = 4500  # bytes of one Say, URL-encoded: the other limit of error 13521
UNFIT: Final = dict.fromkeys((*range(0x20), 0x7F, 0xFFFE, 0xFFFF), " ")  # forbidden in XML


@dataclass(frozen=True, slots=True)
class Call:
    """What a call knows after `turn` answers."""

    turn: int = 0
    step: str = ""  # whose question the caller is answering; none before the first answer
    misses: int = 0  # silences and nonsense in a row
    guess: str = ""  # the step that "did you say" offers
    quote: str = ""  # what the caller said last, for {heard}
    prompt: str = ""  # a question of the backend's, in place of the step's own
    recording: str = ""  # URL of the voicemail


@dataclass(frozen=True, slots=True)
class Answer:
    """The backend's answer. `failed`: there is none, and there will be none."""

    say: str = ""
    then: str = "listen"
    to: str = ""
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Heard:
    """What one webhook brings: words, keys, or how a transfer or a recording went."""

    speech: str = ""
    confidence: float | None = None  # 0 to 1; Twilio does not promise to send it
    keys: str = ""
    dial: str = ""  # DialCallStatus
    recording: str = ""  # RecordingUrl
    entrance: str = "start"  # the step at which a new call begins
    again: bool = False  # nobody spoke: Twilio came back because a webhook of ours had failed
    answer: Answer | None = None  # the backend's, for a Consult


class Reply(NamedTuple):
    """What the caller hears: sentences, then the step that waits for the caller (or ends)."""

    says: tuple[str, ...]
    step: Step
    patience: int = 0  # extra seconds of silence that we sit through


@dataclass(frozen=True, slots=True)
class Plan:
    """All that decides: the table, the words and the numbers. The same for every call."""

    flow: Flow
    words: Mapping[str, str]
    numbers: Mapping[str, str]

    def sentence(self, say: str, **values: str) -> str:
        """A sentence by its name (or the sentence itself), {placeholders} filled in."""
        return re.sub(r"{(\w+)}", lambda m: values.get(m[1], m[0]), self.words.get(say, say))

    def list(self, name: str) -> tuple[str, ...]:
        return word_list(self.words[name])

    def menu(self, ask: Ask) -> str:
        """The choices of an Ask in one sentence each: For billing, say billing, or press 1."""
        items = enumerate(map(spoken, ask.routes), 1)
        return " ".join(self.sentence("menu_item", name=n, key=str(k)) for k, n in items)


def clean(words: str, limit: int = SPOKEN) -> str:
    """Text that is safe to keep and to speak: no character that XML forbids, bounded length."""
    whole = " ".join(words[: 4 * limit].translate(UNFIT).encode("utf-8", "ignore").decode().split())
    return whole if len(whole) <= limit else whole[:limit].rsplit(" ", 1)[0]


def sayable(words: str) -> str:
    """What one Say can hold."""
    whole = clean(words, SAID)
    while 12 * len(whole) > ENCODED < len(quote(whole)):  # a letter is 12 bytes at the most
        whole = clean(whole, len(whole) * 9 // 10)
    return whole


def folded(words: str) -> str:
    """Words as they are compared: without case, full-width forms, punctuation or spare spaces."""
    plain = unicodedata.normalize("NFKC", words).casefold()
    return " ".join(re.findall(r"\w+", plain.replace("_", " ")))


def spoken(name: str) -> str:
    """The name of a department as it is said: lost-and_found is lost and found."""
    return re.sub("[-_]", " ", name)


@cache
def word_list(words: str) -> tuple[str, ...]:
    """Words with commas between, each folded."""
    return tuple(map(folded, words.split(",")))


def mentions(words: str, *names: str) -> bool:
    """Whether one of the names stands in the words, as whole words; both folded."""
    return any(f" {name} " in f" {words} " for name in names if name)


def decide(plan: Plan, call: Call, heard: Heard) -> tuple[Call, Reply]:
    """The next state of a call and what the caller hears. Total: every pair has an answer.

    What the webhook carries is believed before what the record says, because records get lost.
    """
    call = replace(call, turn=call.turn + 1)
    step = plan.flow.get(call.step)
    if call.turn > LAST_TURN:
        return enter(plan, replace(call, recording=heard.recording or call.recording), "goodbye")
    if heard.dial:
        return after_transfer(plan, call, heard, step)
    if heard.recording:
        taken = step.then if isinstance(step, Voicemail) else "message_taken"
        return enter(plan, replace(call, recording=heard.recording), taken)
    if call.turn > WAY_OUT and isinstance(step, Ask | Consult):
        return enter(plan, call, "operator", plan.sentence("giving_up"))
    match step:
        case Ask():
            return asked(plan, call, heard, step)
        case Consult():
            return consulted(plan, call, heard, step)
        case Transfer():
            return enter(plan, call, step.unanswered, plan.sentence("interrupted"))
        case Voicemail():
            return enter(plan, call, call.step if heard.again else "goodbye")
        case _:
            return enter(plan, call, heard.entrance)


def enter(plan: Plan, call: Call, name: str, *says: str) -> tuple[Call, Reply]:
    """Go to a step and on to the first one that waits, gathering the sentences on the way."""
    step = plan.flow["start"]
    for _ in plan.flow:
        name = name if name in plan.flow else "start"  # a deploy in mid-call took the step away
        step = plan.flow[name]
        match step:
            case Tell():
                says, name = (*says, plan.sentence(step.say)), step.then
            case Transfer() if step.to not in plan.numbers:
                name = step.unanswered
            case _:
                break
    call = replace(call, step=name, misses=0, guess="", prompt="")
    return call, Reply((*says, *question(plan, call, step)), step)


def question(plan: Plan, call: Call, step: Step) -> tuple[str, ...]:
    """The sentence of a step itself; the backend's own question, if it asked one."""
    match step:
        case Ask():
            return (sayable(call.prompt) or plan.sentence(step.say, menu=plan.menu(step)),)
        case Transfer():
            return (plan.sentence(step.say, heard=call.quote, name=spoken(step.to)),)
        case Voicemail() | End():
            return (plan.sentence(step.say),)
        case _:
            return ()


def asked(plan: Plan, call: Call, heard: Heard, ask: Ask) -> tuple[Call, Reply]:
    """The caller answers a question: by key, by a word, in words of their own, or not at all."""
    if heard.again:
        return ask_again(plan, call, ask)
    if not heard.keys and not heard.speech:
        return missed(plan, call, ask, "not_heard")
    words = folded(heard.speech)
    ways = by_key(ask, heard.keys) if heard.keys else by_word(plan, call, ask, words)
    if call.guess and not heard.keys and mentions(words, *plan.list("words_no")):
        ways = [way for way in ways if way != call.guess]  # "no, billing"
        if not ways:
            return missed(plan, call, ask, "")
    sure = heard.keys or call.guess or heard.confidence is None or heard.confidence >= SURE
    match ways:
        case [] if ask.then and (ask.keys is None if heard.keys else words):
            return enter(plan, replace(call, quote=heard.keys or heard.speech), ask.then)
        case []:
            return missed(plan, call, ask, "not_understood")
        case [way] if way == AGAIN:
            return ask_again(plan, call, ask)
        case [way] if sure or way not in ask.routes.values():
            return enter(plan, call, way)
        case _:
            return guess(plan, call, ask, ways[0])


def by_key(ask: Ask, keys: str) -> list[str]:
    """Where keys lead. They mean the same at every question: 0 a person, * again, 1 to 9 routes."""
    routes = dict(zip("123456789", ask.routes.values(), strict=False))
    way = ({"0": "operator", "*": AGAIN} | routes).get(keys)
    return [way] if way else []


def by_word(plan: Plan, call: Call, ask: Ask, words: str) -> list[str]:
    """Where words lead: all routes that they mention, the first mentioned first."""
    if call.guess and mentions(words, *plan.list("words_yes")):
        return [call.guess]
    numbers = dict(enumerate(plan.list("words_numbers"), 1))
    found: dict[str, int] = {}  # where in the words each step is mentioned first
    for key, (route, step) in enumerate(ask.routes.items(), 1):
        chosen = words in (str(key), numbers.get(key))
        at = 0 if chosen else f" {words} ".find(f" {folded(spoken(route))} ")
        if at >= 0:
            found[step] = min(at, found.get(step, at))
    ways = sorted(found, key=found.__getitem__)
    if ways or len(words.split()) > COMMAND:
        return ways
    commands = (("operator", "words_operator"), (AGAIN, "words_repeat"))
    return [way for way, names in commands if mentions(words, *plan.list(names))][:1]


def guess(plan: Plan, call: Call, ask: Ask, step: str) -> tuple[Call, Reply]:
    """We heard something, but not well: ask whether we heard it right."""
    name = next(spoken(route) for route, way in ask.routes.items() if way == step)
    said = plan.sentence("did_you_say", name=name)
    return replace(call, guess=step), Reply((said,), ask)


def ask_again(plan: Plan, call: Call, ask: Ask, *says: str) -> tuple[Call, Reply]:
    """The same question once more; the more was missed, the longer we listen."""
    call = replace(call, guess="")
    return call, Reply((*says, *question(plan, call, ask)), ask, patience=3 * call.misses)


def missed(plan: Plan, call: Call, ask: Ask, say: str) -> tuple[Call, Reply]:
    """Silence or nonsense: ask again, more clearly and with more patience, then find a person."""
    call = replace(call, misses=call.misses + 1)
    if call.misses >= MISSES:
        return enter(plan, call, "operator", plan.sentence("giving_up"))
    help_ = (plan.sentence("help"),) if call.misses > 1 else ()
    return ask_again(plan, call, ask, plan.sentence(say), *help_)


def after_transfer(plan: Plan, call: Call, heard: Heard, step: Step | None) -> tuple[Call, Reply]:
    """How a transfer went. Whatever is neither a talk nor the caller's hanging up is no answer."""
    if heard.dial in ("completed", "answered", "canceled"):
        return enter(plan, call, "goodbye")
    said = heard.dial if heard.dial in ("busy", "no-answer") else "failed"
    unanswered = step.unanswered if isinstance(step, Transfer) else "voicemail"
    return enter(plan, call, unanswered, plan.sentence(said))


def consulted(plan: Plan, call: Call, heard: Heard, step: Consult) -> tuple[Call, Reply]:
    """The backend has decided, has failed, or (no answer at all) is yet to be asked."""
    answer = heard.answer
    if answer is None:
        return enter(plan, call, step.listen) if heard.again else (call, Reply((), step))
    if answer.failed:
        return enter(plan, call, step.failed, plan.sentence("no_result"))
    says = (answer.say,) if answer.say else ()
    if answer.then == "voicemail":
        return enter(plan, call, "voicemail", *says)
    to = "operator" if answer.to == "FORWARD_TO" else f"to_{answer.to}"
    way = {"listen": step.listen, "transfer": to}.get(answer.then, "goodbye")
    call, reply = enter(plan, call, way)
    prompt = answer.say if answer.then == "listen" else ""
    return replace(call, prompt=prompt), reply._replace(says=says or reply.says)


# ---- TwiML -------------------------------------------------------------------------------------
# A reply as the XML that Twilio executes: https://www.twilio.com/docs/voice/twiml

RING: Final = 20  # seconds that we let a phone ring, about four rings: then its voicemail, not ours
TALK: Final = 3600  # seconds that a transfer may last; Twilio's own limit of four hours costs money
MESSAGE: Final = 180  # seconds of a voicemail
# Words and seconds of waiting of each hold: few and long, because trial accounts allow ten hops.
HOLDS: Final = (("", 2), ("hold_1", 4), ("hold_2", 9), ("hold_3", 10))


def connection_overrides(deadline: float) -> str:
    """How Twilio asks us again when an instance dies or is still waking up, as a URL fragment.

    Without it only a failed connect is retried, once. All attempts together get 15 seconds
    (https://www.twilio.com/docs/usage/webhooks/webhooks-connection-overrides), so an attempt is
    given up shortly after the deadline within which we answer, and whatever failed is asked again.
    """
    return f"#rc=5&rp=all&ct=2000&rt={int(deadline * 1000) + 500}"


def way_back(settings: Settings, **query: object) -> str:
    """The URL, relative, at which Twilio brings what comes next in a call."""
    return f"/voice/process?{urlencode(query)}{connection_overrides(settings.deadline)}"


def render(settings: Settings, plan: Plan, call: Call, reply: Reply) -> str:
    """A reply as TwiML. Prompts are nested in Gather, so that an answer cuts them short."""
    response = VoiceResponse()
    back = way_back(settings, turn=call.turn, step=call.step)
    speak = response
    if isinstance(reply.step, Ask):
        speak = response.append(gather(settings, plan, reply, reply.step, back)).verbs[-1]
    for words in filter(None, map(sayable, reply.says)):
        speak.say(words, **settings.spoken)
    match reply.step:
        case Transfer(to=to):
            dial = response.dial(action=back, answer_on_bridge=True, timeout=RING, time_limit=TALK)
            dial.number(plan.numbers[to])
        case Voicemail():
            response.record(action=back, max_length=MESSAGE, timeout=5, finish_on_key="#")
            response.redirect(back)  # nothing said: there is no recording, and Twilio goes on here
        case Refuse(reason=reason):
            response.reject(reason=reason)
        case End():
            response.hangup()
        case Tell() | Consult():
            response.redirect(back)  # nobody waits here: go on at the next turn
        case Ask():
            pass
    return str(response)


def gather(settings: Settings, plan: Plan, reply: Reply, ask: Ask, back: str) -> Gather:
    """Listen for speech and keys. `speechTimeout=auto` drops the model: Twilio forbids the pair.

    https://www.twilio.com/docs/voice/twiml/gather, warning 13335.
    """
    pause = settings.speech_timeout
    hints = [*map(spoken, ask.routes), *plan.list("words_operator"), *plan.list("words_repeat")]
    return Gather(
        input="dtmf speech",
        action=back,
        timeout=min(5 + reply.patience, 10),
        speech_timeout=pause if pause == "auto" else min(int(pause) + reply.patience, 10),
        speech_model=None if pause == "auto" else settings.speech_model,
        language=settings.language,
        hints=", ".join(hints),
        num_digits=ask.keys,
        finish_on_key="#" if ask.keys is None else "",
        action_on_empty_result=True,
    )


def render_hold(settings: Settings, plan: Plan, back: str, nth: int) -> str:
    """Words, a pause and a way back to look again; the 0th hold is short and silent."""
    name, seconds = HOLDS[min(nth, len(HOLDS) - 1)]
    response = VoiceResponse()
    if name:
        response.say(plan.sentence(name), **settings.spoken)
    response.pause(length=seconds)
    response.redirect(back)
    return str(response)


def render_apology(settings: Settings, plan: Plan) -> str:
    """What is left when our own code fails: an apology, a person if there is one. No state."""
    response = VoiceResponse()
    voice = settings.spoken
    response.say(plan.sentence("apology"), **voice)
    for number in list(plan.numbers.values())[:1]:
        response.dial(answer_on_bridge=True, timeout=RING, time_limit=TALK).number(number)
    response.say(plan.sentence("call_again"), **voice)
    response.hangup()
    return str(response)


# ---- wire --------------------------------------------------------------------------------------
# HTTP in which nothing outlasts its moment. httpx and requests limit each phase (a server that
# drips a byte a second outlasts any of their time-outs) and neither limits DNS; a caller waits.

Moment = float  # of time.monotonic(), by which something has to be over
LARGEST_ANSWER: Final = 1 << 20  # bytes of an answer that we read


def in_background(work: Callable[..., None], *arguments: object) -> None:
    """Run something beside the server; it does not keep the process from ending.

    Raises OSError when the system has no thread left: like a network that does not answer.
    """
    try:
        threading.Thread(target=work, args=arguments, daemon=True).start()
    except RuntimeError as error:
        raise OSError(str(error)) from None


def left(until: Moment) -> float:
    """Seconds left until a moment. A TimeoutError when there are none."""
    seconds = until - time.monotonic()
    if seconds <= 0:
        raise TimeoutError("out of time")
    return seconds


@cache
def tls_context() -> ssl.SSLContext:
    """One for the process, with the authorities of the system.

    A bundle of them is parsed whole, which takes longer than a webhook; a folder is not.
    """
    folder = Path("/etc/ssl/certs")
    elsewhere = {"SSL_CERT_FILE", "SSL_CERT_DIR"} & os.environ.keys()
    if elsewhere or not next(folder.glob("????????.0"), None):
        return httpx.create_ssl_context()
    return ssl.create_default_context(capath=str(folder))


class Timed(io.RawIOBase):
    """The bytes that a socket brings before a moment."""

    def __init__(self, sock: socket.socket, until: Moment) -> None:
        self.sock, self.until = sock, until

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 # whatever io hands us
        self.sock.settimeout(left(self.until))
        return self.sock.recv_into(buffer)


def read_response(stream: io.BufferedReader) -> tuple[int, bytes, bool]:
    """Status, body, and whether the connection can be kept. HTTPException for what is no HTTP.

    http.client reads headers as if they were mail, and that takes nearly as long as all the rest
    of a command's way to Redis and back.
    """
    first = stream.readline(LARGEST_ANSWER)
    match = re.match(rb"HTTP/1\.([01]) ([2-5][0-9]{2})\b", first)
    if not match:
        raise HTTPException("no HTTP") if first else RemoteDisconnected("closed without an answer")
    headers = dict(read_headers(stream))
    keep = match[1] == b"1" and headers.get(b"connection") != b"close"
    if headers.get(b"transfer-encoding") == b"chunked":
        return int(match[2]), b"".join(read_chunks(stream)), keep
    length = b"0" if match[2] in (b"204", b"304") else headers.get(b"content-length")
    return int(match[2]), read_bytes(stream, length, 10), keep and length is not None


def read_headers(stream: io.BufferedReader) -> Iterator[tuple[bytes, bytes]]:
    """Names and values in small letters, up to the empty line."""
    for _ in range(100):
        line = stream.readline(LARGEST_ANSWER)
        name, colon, value = line.lower().partition(b":")
        if line in (b"\r\n", b"\n"):
            return
        if not colon:
            break
        yield name, value.strip()
    raise HTTPException("headers that do not end")


def read_chunks(stream: io.BufferedReader) -> Iterator[bytes]:
    """The chunks of a chunked body, and the trailer after them."""
    total, part = 0, b"."
    while part:
        part = read_bytes(stream, stream.readline(64).partition(b";")[0].strip(), 16)
        total += len(part)
        if total > LARGEST_ANSWER:
            raise HTTPException(f"more than {LARGEST_ANSWER} bytes")
        if part:
            yield part
            stream.readline(2)
    list(read_headers(stream))


def read_bytes(stream: io.BufferedReader, length: bytes | None, base: int) -> bytes:
    """So many bytes, or all until the other side closes. HTTPException if too few or too many."""
    try:
        size = LARGEST_ANSWER + 1 if length is None else int(length, base)
    except ValueError:
        raise HTTPException("no length") from None
    body = stream.read(min(size, LARGEST_ANSWER + 1)) if size >= 0 else b""
    if len(body) > LARGEST_ANSWER or size < 0 or (length is not None and len(body) < size):
        raise HTTPException(f"cut off, or more than {LARGEST_ANSWER} bytes")
    return body


class Wire:
    """POSTs to one URL over connections that are kept: a call's turns are often a minute apart."""

    KEPT: Final = 240  # seconds; a load balancer forgets an idle connection after some minutes

    def __init__(self, url: str, **headers: str) -> None:
        self.url = urlsplit(url)
        self.idle: list[tuple[Moment, socket.socket]] = []  # the last used is the last
        target = (self.url.path or "/") + (f"?{self.url.query}" if self.url.query else "")
        host = self.url.netloc.rpartition("@")[2]
        lines = {"Host": host, "User-Agent": "phone-line", "Content-Type": "application/json"}
        self.head = f"POST {target} HTTP/1.1\r\n" + "".join(
            f"{name}: {value}\r\n" for name, value in (lines | headers).items()
        )

    def post(self, body: bytes, until: Moment, **headers: str) -> tuple[int, bytes]:
        """Status and body of the answer, all of it before the moment. OSError or HTTPException."""
        left(until)  # raises, before a connection is spent
        more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        request = f"{self.head}{more}Content-Length: {len(body)}\r\n\r\n".encode() + body
        with suppress(IndexError, ConnectionError):  # none is kept, or the other side has closed it
            used, sock = self.idle.pop()
            if time.monotonic() < used + self.KEPT:
                return self.exchange(sock, request, until)
            sock.close()
            self.close()  # the others are older
        return self.exchange(self.connect(until), request, until)

    def exchange(self, sock: socket.socket, request: bytes, until: Moment) -> tuple[int, bytes]:
        keep = False
        try:
            sock.settimeout(left(until))
            sock.sendall(request)
            status, body, keep = read_response(io.BufferedReader(Timed(sock, until)))
            return status, body
        except (OSError, HTTPException):  # what broke this connection may have broken the others
            self.close()
            raise
        finally:
            if keep:
                self.idle.append((time.monotonic(), sock))
            else:
                sock.close()

    def close(self) -> None:
        """Hang up all connections that are kept."""
        try:  # when the interpreter ends, suppress is gone before us
            while True:
                self.idle.pop()[1].close()
        except IndexError:
            pass

    def connect(self, until: Moment) -> socket.socket:
        """A fresh connection. DNS has no time-out and each address has its own: a thread waits."""
        made: Future[socket.socket] = Future()
        seconds = left(until)

        def dial() -> None:
            try:
                made.set_result(self.open(max(until - time.monotonic(), 0.01)))
            except Exception as error:  # a name that is none is a UnicodeError
                known = isinstance(error, OSError)
                made.set_exception(error if known else OSError("no such host"))

        def hang_up(late: Future[socket.socket]) -> None:
            if not late.exception():
                late.result().close()

        in_background(dial)
        try:
            return made.result(timeout=seconds)
        except TimeoutError:
            made.add_done_callback(hang_up)
            raise

    def open(self, seconds: float) -> socket.socket:
        host, secure = self.url.hostname or "", self.url.scheme == "https"
        port = self.url.port or (443 if secure else 80)
        sock = socket.create_connection((host, port), timeout=seconds)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return tls_context().wrap_socket(sock, server_hostname=host) if secure else sock

    __del__ = close


# ---- cells -------------------------------------------------------------------------------------
# Write-once cells in one of two stores. Every operation may be repeated without harm.


class Upstash(Redis):
    """Upstash's client over a Wire, in place of its own HTTP.

    As it comes it has no time-out, sleeps 3 seconds before it blindly repeats a command, and drops
    its connections after 5 seconds, which is sooner than a caller's next words (upstash-redis
    1.8.0, http.py). Its constructor is not called: it would load a second TLS context.
    """

    def __init__(self, url: str, token: str) -> None:
        self.wire = Wire(url, **make_headers(token, "base64", allow_telemetry=False))

    def execute(self, command: list[Any], until: Moment = 0) -> Any:  # noqa: ANN401 # as theirs
        """One command in one round trip (https://upstash.com/docs/redis/features/restapi)."""
        body = json.dumps(command).encode()
        status, answer = self.wire.post(body, until or time.monotonic() + 5)
        result = format_response(json.loads(answer), "base64")
        if status != 200:
            raise HTTPException(f"a result with status {status}")
        return result


class Closing:
    """A connection of SQLite's that is closed when its thread is gone."""

    def __init__(self, connection: Any) -> None:  # noqa: ANN401 # its type is not loaded yet
        self.connection = connection

    def __del__(self) -> None:
        self.connection.close()


class SQLite:
    """An SQLite file that several processes share, and that survives their being killed."""

    TABLE: Final = "CREATE TABLE IF NOT EXISTS cells(key TEXT PRIMARY KEY, value TEXT, ends REAL)"
    SET: Final = (
        "INSERT INTO cells VALUES(?, ?, ?) ON CONFLICT(key) DO UPDATE "
        "SET value = excluded.value, ends = excluded.ends WHERE cells.ends <= ? RETURNING value"
    )
    GET: Final = "SELECT value FROM cells WHERE key = ? AND ends > ?"
    RENEW: Final = "UPDATE cells SET ends = ? WHERE key = ? AND ends > ?"

    def __init__(self, path: str) -> None:
        self.path, self.local = path, threading.local()

    def open(self, until: Moment) -> Closing:
        """A connection of this thread's own, made after the server has forked."""
        import sqlite3  # a line with a database never needs it

        own = Closing(
            sqlite3.connect(
                self.path, timeout=left(until), isolation_level=None, check_same_thread=False
            )
        )
        for statement in ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=NORMAL", self.TABLE):
            own.connection.execute(statement)
        own.connection.execute("DELETE FROM cells WHERE ends <= ?", (time.time(),))
        return own

    def rows(self, until: Moment, query: str, *values: object) -> list[tuple[str]]:
        """What a statement brings."""
        if not hasattr(self.local, "own"):
            self.local.own = self.open(until)
        db: Any = self.local.own.connection
        db.execute(f"PRAGMA busy_timeout={int(left(until) * 1000)}")
        rows: list[tuple[str]] = db.execute(query, values).fetchall()
        return rows

    def execute(self, command: list[str], until: Moment) -> Any:  # noqa: ANN401 # Redis' types
        """MGET, SET NX GET EX, GETEX [EX] and DEL as in Redis. An expired cell is an empty cell."""
        now = time.time()
        match command:
            case ["MGET", *keys]:
                found = [self.rows(until, self.GET, key, now) for key in keys]
                return [row[0][0] if row else None for row in found]
            case ["SET", key, value, "NX", "GET", "EX", ttl]:
                mine = self.rows(until, self.SET, key, value, now + int(ttl), now)
                return None if mine else self.rows(until, self.GET, key, now)[0][0]
            case ["GETEX", key, *renew]:
                if renew:
                    self.rows(until, self.RENEW, now + int(renew[1]), key, now)
                return next((row[0] for row in self.rows(until, self.GET, key, now)), None)
            case _:
                self.rows(until, "DELETE FROM cells WHERE key = ?", command[1])
        return None


Store = Upstash | SQLite  # anything but a result in time is raised, as whatever exception


class Cells:
    """The store as one webhook sees it: within a moment, counted, and asked twice if need be.

    A first attempt gets half of the time that is left, so that a dropped line costs the caller
    nothing. To repeat is safe: reads only read, and to settle twice is to settle once.
    """

    def __init__(self, store: Store, until: Moment) -> None:
        self.store, self.until = store, until
        self.commands, self.seconds = 0, 0.0
        self.lost: str | None = None  # what went wrong last

    def ask(self, *command: str, until: Moment = 0) -> list[str | None]:
        """What a command brings, one value or several. Raises StoreUnavailable."""
        spent, began, last = self.seconds, time.monotonic(), until or self.until
        for moment in (began + (last - began) / 2, last):
            self.commands += 1
            try:
                return values(command, self.store.execute(list(command), moment))
            except Exception as error:  # client and network share no ancestor
                self.lost = clean(f"{type(error).__name__}: {error}", 120)
            finally:
                self.seconds = spent + time.monotonic() - began
        raise StoreUnavailable(self.lost)

    def read(self, *keys: str, until: Moment = 0) -> list[str | None]:
        """The values, None where a cell is empty."""
        return self.ask("MGET", *keys, until=until)

    def look_again(self, key: str, until: Moment = 0) -> str | None:
        """A cell that must be there: GETEX is a write to Redis, so only the primary answers it."""
        return self.ask("GETEX", key, until=until)[0]

    def settle(self, key: str, value: str, ttl: int = DAY, until: Moment = 0) -> str:
        """Write the cell if it is empty; either way what stands in it now."""
        (stood,) = self.ask("SET", key, value, "NX", "GET", "EX", str(ttl), until=until)
        return value if stood is None else stood

    def renew(self, key: str, ttl: int) -> str | None:
        """Let a lease live on; whose it is."""
        return self.ask("GETEX", key, "EX", str(ttl))[0]


def values(command: Sequence[str], result: object) -> list[str | None]:
    """The values in a result; a ValueError if it is not of the kind that the command has."""
    many = command[0] == "MGET"
    found: Any = result if many else [result]
    known = isinstance(found, list) and all(isinstance(v, str | int | None) for v in found)
    if not known or len(found) != (len(command) - 1 if many else 1):
        raise ValueError("a result of another kind")
    return list(found)


# ---- Twilio ------------------------------------------------------------------------------------
# What comes from outside: nothing in a request is believed before its signature fits.

LARGEST_BODY: Final = 64 * 1024  # bytes; Twilio's webhooks have about one kilobyte
MOST_FIELDS: Final = 2000  # Twilio's have about thirty
# Twilio spells the word that stands in place of a withheld number on the keypad, as a "number":
# https://twilio.com/changelog/upcoming-changes-to-withheld-caller-ids-behavior-for-dial-calls
KEYPAD: Final = str.maketrans("abcdefghijklmnopqrstuvwxyz", "22233344455566677778889999")
WITHHELD: Final = frozenset(
    f"+{word.translate(KEYPAD)}"
    for word in ("anonymous", "blocked", "private", "restricted", "unavailable", "unknown")
)
VOICE_PATHS: Final = ("/", "/voice", "/voice/inbound", "/webhook/voice")


class Hook(NamedTuple):
    """One webhook of Twilio's, verified and understood."""

    call_sid: str
    caller: str  # From: a number, "anonymous", a client's name, or nothing
    called: str
    base: str  # the origin at which it reached us
    heard: Heard
    status: str = ""  # CallStatus
    seconds: int = 0  # CallDuration
    turn: int = 0
    step: str = ""  # only a hint, for the day on which Redis is away
    hold: int = 0  # how often this turn's caller has been put on hold
    pushed: bool = False  # we sent the caller here ourselves, because the answer is there

    @property
    def number(self) -> str:
        """The caller's phone number; "anonymous" if there is none."""
        known = re.fullmatch(E164, self.caller) and self.caller not in WITHHELD
        return self.caller if known else "anonymous"

    def cell(self, name: object) -> str:
        return f"call:{self.call_sid}:{name}"

    def slow(self, name: str) -> str:
        return self.cell(f"{self.turn}:{name}")


def signature(token: str, url: str, fields: Collection[tuple[str, str]]) -> bytes:
    """How Twilio signs: HMAC-SHA1 over the URL, then each field's name and value, sorted, once.

    https://www.twilio.com/docs/usage/webhooks/webhooks-security. The library's RequestValidator
    comes to the same in four times as long, which every webhook of every call would wait for.
    """
    signed = url + "".join(name + value for name, value in sorted({*fields}))
    return b64encode(hmac.digest(token.encode(), signed.encode(), "sha1"))


def verify(settings: Settings, request: Request) -> tuple[str, dict[str, str]]:
    """The origin and the form of a request that Twilio signed. Rejected(403) for any other.

    Twilio signs the URL and all form fields, and leaves the port out of an https URL, so both are
    accepted (https://www.twilio.com/docs/usage/security). Nothing is normalised first, since a
    signature is for exactly one text: request.url and request.form would do that.
    """
    headers, target = request.headers, request.environ["RAW_URI"]
    base = settings.public_url or "://".join(
        headers.get(f"X-Forwarded-{name}", direct).partition(",")[0].strip()
        for name, direct in (("Proto", request.scheme), ("Host", headers.get("Host", "")))
    )
    body = request.get_data(as_text=True)
    many = body.count("&") >= MOST_FIELDS  # nobody's, then: to sort them would only take time
    form = [] if many else parse_qsl(body, keep_blank_values=True)
    given = b"" if many else headers.get("X-Twilio-Signature", "").encode()
    for token in settings.tokens:
        for spelling in {base, re.sub(r"^(https://.*):\d+$", r"\1", base)}:
            if hmac.compare_digest(signature(token, spelling + target, form), given):
                return base, dict(reversed(form))  # of a repeated field the first
    names = [name[:40] for name, _value in sorted(form)[:40]]
    log("warning", "signature refused", url=(base + target)[:300], fields=names)
    raise Rejected(403, "This is not a request that Twilio signed with this line's token.")


def parse(settings: Settings, base: str, form: Mapping[str, str]) -> Hook:
    """What a verified webhook brings. Rejected(400) if it is no call, 403 if it is not ours."""
    if not re.fullmatch("CA[0-9a-fA-F]{32}", form.get("CallSid", "")):
        raise Rejected(400, "CallSid is missing, or it is no CallSid.")
    if settings.account_sid and form.get("AccountSid") != settings.account_sid:
        raise Rejected(403, "This call belongs to another account.")
    return Hook(
        call_sid=form["CallSid"],
        caller=clean(form.get("From", ""), 80),
        called=clean(form.get("To", ""), 80),
        base=base,
        heard=read_heard(form),
        status=clean(form.get("CallStatus", ""), 20),
        seconds=counted(form.get("CallDuration", ""), DAY) or 0,
    )


def read_heard(form: Mapping[str, str]) -> Heard:
    """What the caller said or keyed, or how a Dial or a Record went."""
    confidence, recording = form.get("Confidence", ""), form.get("RecordingUrl", "")[:500]
    return Heard(
        speech=clean(form.get("SpeechResult", "")),
        confidence=float(confidence) if re.fullmatch(r"[01](\.[0-9]{1,20})?", confidence) else None,
        keys="".join(key for key in form.get("Digits", "")[:40] if key in "0123456789*#"),
        dial=clean(form.get("DialCallStatus", ""), 20),
        recording=recording if re.fullmatch(r"https?://[!-~]+", recording) else "",
    )


def counted(value: str, most: int) -> int | None:
    """A whole number from 0 to `most` in plain digits, else None."""
    plain = value.isascii() and value.isdigit() and len(value) < 10
    return int(value) if plain and int(value) <= most else None


def at_turn(hook: Hook, url: str) -> Hook:
    """The webhook, placed where one of our own URLs says. Rejected(400) if that names no turn."""
    query = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
    turn, hold = (counted(query.get(name, ""), LAST_TURN) for name in ("turn", "hold"))
    if turn is None:
        raise Rejected(400, f"turn must be a number from 0 to {LAST_TURN}.")
    step, pushed = query.get("step", "")[:80], query.get("pushed") == "1"
    return hook._replace(turn=turn, step=step, hold=hold or 0, pushed=pushed)


# ---- records -----------------------------------------------------------------------------------
# What cells say. Records outlive deploys: unknown fields are ignored, missing ones have defaults.


@dataclass(frozen=True, slots=True)
class Record(Call):
    """The call after an answer, the answer, and what the page of a call shows of the turn."""

    twiml: str = ""
    asker: str = ""  # the step that had asked
    heard: str = ""
    keys: str = ""
    dial: str = ""
    said: str = ""
    at: float = 0.0  # Unix time
    ms: int = 0  # from the webhook's arrival to its answer
    hold: int = 0  # how often the caller was put on hold before


@dataclass(frozen=True, slots=True)
class Asked(Heard):
    """What the caller said that the backend has to answer, when, and at which step."""

    at: float = 0.0  # Unix time
    step: str = ""


Kind = TypeVar("Kind", Record, Asked, Answer)
BLANKS: Final = {k: {f.name: f.default for f in fields(k)} for k in (Record, Asked, Answer)}


def written(record: Record | Asked | Answer) -> str:
    """A record as the value of a cell: JSON, defaults left out."""
    blanks = BLANKS[type(record)].items()
    return as_json({k: v for k, blank in blanks if (v := getattr(record, k)) != blank})


def read_as(kind: type[Kind], value: str | None) -> Kind | None:
    """The record in a cell; None for an empty cell, and for anything that is no record."""
    known = fitting(value, BLANKS[kind])
    return None if known is None else kind(**known)


def fitting(value: str | None, blanks: Mapping[str, object]) -> dict[str, Any] | None:
    """The fields in a cell that are of the types of these; None for a cell that has no fields."""
    if not value:
        return None
    try:
        known: dict[str, Any] = {} | json.loads(value)
        return {k: v for k, v in known.items() if k in blanks and fits(v, blanks[k])}
    except (ValueError, TypeError, RecursionError):
        return None


def fits(value: object, blank: object) -> bool:
    """Whether a value is of the type of a field's default; None stands for a number from 0 up.

    Raises UnicodeEncodeError, a ValueError, for half a character: it could not be spoken.
    """
    if isinstance(value, str):
        value.encode()
    elif not isinstance(value, int | float) or not 0 <= value <= 1e11:  # no date is later
        return False
    is_number = blank is None or isinstance(blank, float)
    return isinstance(value, (int, float) if is_number else type(blank))


def read_record(value: str | None) -> Record | None:
    """The record of a turn, if there is one in the cell that can be said again."""
    record = read_as(Record, value)
    return record if record and record.twiml else None


# ---- slow work ---------------------------------------------------------------------------------
# What takes longer than a webhook may: the backend. What the caller said is settled first; one
# worker at a time holds a lease; its answer is a cell; the caller waits outside, on hold.

PATIENCE: Final = 120  # seconds after which a held caller gets a person
ATTEMPT: Final = 45  # seconds for one attempt: two that hang still leave time for a third
PAUSES: Final = (1, 2, 4, 8, 0)  # seconds after each attempt; there is none after the last
LEASE: Final = 8  # seconds: so long a dead worker delays its successor
LOOK: Final = 0.8  # seconds between looks for an answer that another instance works on
HISTORY: Final = 20  # turns that the backend is told about
WORKERS: Final = 64  # questions, and events, that one instance works on at once
Outcome = Answer | Literal["hold", "push"]  # what a webhook says: an answer, or how it holds


class BackendFailed(Exception):
    """The backend gave no usable answer. `final`: to ask again would not help."""

    def __init__(self, reason: str, *, final: bool = False) -> None:
        super().__init__(reason)
        self.final = final


@dataclass(slots=True)
class Job:
    """A question to the backend. `waiting` webhooks will speak its answer at once."""

    hook: Hook
    asked: Asked
    owner: str = field(default_factory=lambda: os.urandom(8).hex())
    renewed: Moment = 0  # when the lease was surely ours
    answer: Answer | None = None
    done: threading.Event = field(default_factory=threading.Event)
    waiting: int = 1

    @property
    def lease(self) -> str:
        return self.hook.slow("lease")


def read_answer(body: bytes, numbers: Mapping[str, str]) -> Answer:
    """The backend's answer, if it keeps to the protocol. Raises BackendFailed."""
    try:
        known = json.loads(body)
        say, then, to = known.get("say") or "", known["then"], known.get("to") or "FORWARD_TO"
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise BackendFailed("its answer is not the JSON of the protocol") from None
    if then not in ("listen", "transfer", "voicemail", "hangup") or not isinstance(say, str):
        raise BackendFailed("its answer has an unknown then, or a say that is no text")
    if then == "transfer" and to not in [*numbers]:
        raise BackendFailed("its answer transfers to a number that is not configured")
    return Answer(clean(say, SAID), then, to if then == "transfer" else "")


@contextmanager
def place(places: threading.BoundedSemaphore) -> Iterator[bool]:
    """Whether there was a place for us, which we leave at the end."""
    got = places.acquire(blocking=False)
    try:
        yield got
    finally:
        if got:
            places.release()


class Desk:
    """Where slow work is done. While nothing is asked and nothing is told, nothing runs here."""

    def __init__(self, settings: Settings, plan: Plan, store: Store) -> None:
        self.settings, self.plan, self.store = settings, plan, store
        token = settings.backend_token
        login = {"Authorization": f"Bearer {token}"} if token else {}
        self.wire = Wire(settings.backend_url, **login)
        self.lock, self.jobs = threading.Lock(), dict[str, Job]()
        # At most half of the server's threads wait for slow work: the others answer new calls.
        self.waits = threading.BoundedSemaphore(max(1, settings.threads // 2))
        self.telling: dict[tuple[str, ...], threading.Event] = {}

    def cells(self, seconds: float = 4) -> Cells:
        """Cells for work that no webhook waits for."""
        return Cells(self.store, time.monotonic() + seconds)

    def answer(self, job: Job, known: Answer | None, cells: Cells, until: Moment) -> Outcome:
        """The backend's answer if it comes before the moment, else how to hold the caller.

        Of all who could speak an answer exactly one does: the webhook that waits for the worker in
        this process; where none waits, whoever settles the cell `voice`, a look or the push.
        """
        if not known and time.time() > job.asked.at + PATIENCE:
            known = self.conclude(job, Answer(failed=True), cells)
        here, known = (False, known) if known else self.wait(job, cells, until)
        if not known:
            return "hold"
        if here or job.hook.pushed or not self.settings.rest_login:
            return known
        with suppress(StoreUnavailable):
            return known if cells.settle(job.hook.slow("voice"), "look") == "look" else "push"
        return known  # at worst it is said twice

    def wait(self, job: Job, cells: Cells, until: Moment) -> tuple[bool, Answer | None]:
        """Whether the work is done in this process, and the answer if it comes in time."""
        with place(self.waits) as may_wait:
            moment = until if may_wait else 0
            while True:
                if mine := self.join(job, cells):
                    return True, self.listen(mine, moment)
                (known,) = cells.read(job.hook.slow("result"), until=until)
                if known or time.monotonic() + LOOK > moment:
                    return False, read_as(Answer, known)
                time.sleep(LOOK)

    def join(self, job: Job, cells: Cells) -> Job | None:
        """This instance's job for a question: the one under way, or the new one if it is free."""
        with self.lock:
            if mine := self.jobs.get(job.lease):
                mine.waiting += 1
                return mine
            full = len(self.jobs) >= WORKERS
        job.renewed = time.monotonic()
        moment = min(job.renewed + LEASE / 4, cells.until)
        if full or cells.settle(job.lease, job.owner, LEASE, moment) != job.owner:
            return None
        with self.lock:
            mine = self.jobs.setdefault(job.lease, job)
            mine.waiting += mine is not job  # Redis had forgotten the lease of a job of ours
            mine.owner, mine.renewed = job.owner, job.renewed
        if mine is job:
            try:
                in_background(self.keep, job)
                in_background(self.work, job)  # last: once it runs, it is worked on
            except OSError:  # then nobody works on it, and a later look tries again
                self.jobs.pop(job.lease, None)
                job.done.set()
                self.drop(job)
                return None
        return mine

    def listen(self, job: Job, until: Moment) -> Answer | None:
        job.done.wait(max(until - time.monotonic(), 0))
        with self.lock:
            job.waiting -= 1
            return job.answer

    def work(self, job: Job) -> None:
        """Ask, settle the answer, and see that the caller hears it."""
        answer = Answer(failed=True)
        try:
            answer = self.conclude(job, self.consult(job))
        except Exception as error:  # not even a bug of ours may leave a caller on hold
            log("error", "slow work failed", call=job.hook.call_sid, cause=cause(error))
        with self.lock:
            job.answer, speaker = answer, job.waiting > 0
            del self.jobs[job.lease]
        job.done.set()
        if not speaker and self.settings.rest_login:
            self.push(job)
        self.drop(job)

    def conclude(self, job: Job, answer: Answer, cells: Cells | None = None) -> Answer:
        """Settle the answer of a turn; the answer that stands."""
        stood = written(answer)
        with suppress(StoreUnavailable):
            stood = (cells or self.cells()).settle(job.hook.slow("result"), stood)
        return read_as(Answer, stood) or answer

    def consult(self, job: Job) -> Answer:
        """Ask until the backend answers, fails for good, or nobody is there to hear it."""
        until = time.monotonic() + job.asked.at + PATIENCE - time.time()
        for pause in PAUSES:
            known, ended, history = self.remember(job)
            if known or ended:
                return known or Answer(failed=True)
            try:
                moment = min(time.monotonic() + ATTEMPT, until)
                return self.question(job, history, moment)
            except BackendFailed as error:
                log("error", "backend failed", call=job.hook.call_sid, cause=str(error))
                if error.final or not pause or time.monotonic() + pause > until:
                    break
            time.sleep(pause)
        return Answer(failed=True)

    def remember(self, job: Job) -> tuple[Answer | None, bool, list[dict[str, str]]]:
        """What stands by now: an answer, that the caller is gone, what was said in the call."""
        hook, after = job.hook, job.hook.turn + 1
        turns = map(hook.cell, range(max(1, after - HISTORY), after))
        try:
            cells, result = self.cells(), hook.slow("result")
            known, end, *past = cells.read(result, hook.cell("end"), *turns)
            known = known or cells.look_again(result)  # a replica may lag: do not ask twice
        except StoreUnavailable:
            return None, False, []
        records = filter(None, map(read_record, past))
        history = [{"heard": r.heard or r.keys, "said": r.said[:SPOKEN]} for r in records]
        return read_as(Answer, known), end is not None, history

    def question(self, job: Job, history: Sequence[dict[str, str]], until: Moment) -> Answer:
        """One attempt at the backend. Raises BackendFailed."""
        hook, asked = job.hook, job.asked
        message = {
            "call_sid": hook.call_sid,
            "turn": hook.turn,
            "from": hook.caller,
            "to": hook.called,
            "heard": asked.speech,
            "confidence": asked.confidence,
            "digits": asked.keys,
            "language": self.settings.language,
            "history": history,
        }
        key = f"{hook.call_sid}:{hook.turn}"
        return read_answer(self.post(message, key, until), self.plan.numbers)

    def question_once(self, job: Job, until: Moment) -> Answer:
        """Redis is away: a single attempt, while the webhook waits. Failed if nothing comes."""
        with place(self.waits) as may_wait, suppress(BackendFailed):
            if may_wait:
                return self.question(job, [], until)
        return Answer(failed=True)

    def post(self, message: Mapping[str, Any], key: str, until: Moment) -> bytes:
        """Bring the backend a message; the body of its answer. Raises BackendFailed."""
        body = json.dumps(message).encode()
        try:
            status, answer = self.wire.post(body, until, Idempotency_Key=key)
        except (OSError, HTTPException) as error:
            raise BackendFailed(cause(error)) from None
        if not 200 <= status < 300:
            final = status < 500 and status not in (408, 425, 429)
            raise BackendFailed(f"it answered {status}", final=final)
        return answer

    def keep(self, job: Job) -> None:
        """Renew a lease until the work is done or the lease is lost."""
        while not job.done.wait(LEASE / 4) and self.holds(job):
            now = time.monotonic()
            with suppress(StoreUnavailable):
                if self.cells(1).renew(job.lease, LEASE) == job.owner:
                    job.renewed = now

    def holds(self, job: Job) -> bool:
        """Whether a lease is surely still ours: nobody else can have it before it has run out."""
        return time.monotonic() < job.renewed + LEASE

    def drop(self, job: Job) -> None:
        with suppress(Exception):  # asked once: a second DEL might hit a successor's lease
            if self.holds(job):
                self.store.execute(["DEL", job.lease], time.monotonic() + 1)

    def give_back(self) -> None:
        """A graceful stop: others need not wait until our leases have run out."""
        for job in [*self.jobs.values()]:
            self.drop(job)

    def push(self, job: Job) -> None:
        """Fetch the caller out of the hold, unless the answer is spoken or nobody is there."""
        hook = job.hook
        back = way_back(self.settings, turn=hook.turn, step=job.asked.step, hold=1, pushed=1)
        try:
            for pause in PAUSES:
                said, ended = self.cells().read(hook.cell(hook.turn + 1), hook.cell("end"))
                mine = f"push by {job.owner}"
                if said or ended or self.cells().settle(hook.slow("voice"), mine) != mine:
                    return
                if redirected(self.settings, hook.call_sid, hook.base + back):
                    return
                time.sleep(pause / 2)
        except Exception as error:  # the next look brings the answer all the same
            log("error", "push failed", call=hook.call_sid, cause=cause(error))

    def leave_alone(self, hook: Hook) -> None:
        """Redis was away and a person took over: no push may end that conversation."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            with suppress(StoreUnavailable):
                self.cells().settle(hook.slow("voice"), "person")
                return
            time.sleep(LEASE / 4)

    def told(self, hook: Hook, events: Mapping[str, Mapping[str, Any]], until: Moment = 0) -> bool:
        """Bring the backend events, in order, in the background; whether it has them in time."""
        with place(self.waits) as may_wait:
            seconds = until - time.monotonic() if may_wait else 0
            return self.tell_soon(hook, events).wait(max(seconds, 0))

    def tell_soon(self, hook: Hook, events: Mapping[str, Mapping[str, Any]]) -> threading.Event:
        """Begin to tell, unless that is under way or too much is. Set when all is told."""
        key = (hook.call_sid, *events)
        with self.lock:
            if under_way := self.telling.get(key):
                return under_way
            done = threading.Event()
            if len(self.telling) >= WORKERS:
                return done
            self.telling[key] = done

        def tell() -> None:
            try:
                told = [self.tell(hook, name, known) for name, known in events.items()]
                if all(told):
                    done.set()
            finally:
                with self.lock:
                    del self.telling[key]

        try:
            in_background(tell)
        except OSError:  # then it is not told yet
            self.telling.pop(key, None)
        return done

    def tell(self, hook: Hook, event: str, known: Mapping[str, Any]) -> bool:
        """Bring the backend one event. False: not yet, and to tell it again may help."""
        about = {"event": event, "call_sid": hook.call_sid, "from": hook.caller, "to": hook.called}
        key = f"{hook.call_sid}:{event}"
        for pause in PAUSES:
            try:
                self.post({**about, **known}, key, time.monotonic() + ATTEMPT)
                with suppress(StoreUnavailable):
                    self.cells().settle(hook.cell(f"{event}:sent"), "1")
                return True
            except BackendFailed as error:
                log("error", "event failed", call=hook.call_sid, event=event, cause=str(error))
                if error.final:
                    return True
            time.sleep(pause)
        return False


def redirected(settings: Settings, call_sid: str, url: str) -> bool:
    """Send a live call to a URL. False: not now, but it may be tried again.

    429 means "never processed, safe to repeat" (https://www.twilio.com/docs/api/errors/20429);
    21220, that the call is over. The library is loaded only here: it takes long, and few need it.
    """
    from twilio.base.exceptions import TwilioRestException
    from twilio.http.http_client import TwilioHttpClient
    from twilio.rest import Client

    name, secret = settings.rest_login or ("", "")
    client = Client(name, secret, settings.account_sid, http_client=TwilioHttpClient(timeout=5))
    try:
        client.calls(call_sid).update(url=url, method="POST")
    except TwilioRestException as error:
        if error.code != 21220 and error.status != 429:
            raise
        return bool(error.code == 21220)
    return True


# ---- page --------------------------------------------------------------------------------------
# A call as a readable timeline, from its settled cells alone.

STYLE: Final = (
    ":root{color-scheme:light dark}small,.said{opacity:.75}p{margin:0}"
    "body{font:16px/1.5 system-ui,sans-serif;max-width:44rem;margin:2rem auto;padding:0 1rem}"
    "h1{font:600 1rem/1.5 ui-monospace,monospace;margin:0;overflow-wrap:anywhere}"
    "ol{padding:0;list-style:none;overflow-wrap:anywhere}small{font-variant-numeric:tabular-nums}"
    "li{border-left:3px solid #8886;padding:0 0 1.1rem 1rem}q{font-weight:600}"
)
POLICY: Final = {
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; "
    f"style-src 'sha256-{b64encode(sha256(STYLE.encode()).digest()).decode()}'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def timeline(
    records: Sequence[Record], repeated: Collection[int], end: Mapping[str, Any]
) -> dict[str, Any]:
    """A call as JSON: its turns in order, its recording, its end."""
    hidden = ("twiml", "guess", "prompt", "quote", "recording")
    turns = [{k: v for k, v in asdict(r).items() if k not in hidden} for r in records]
    for record, before, turn in zip(records, [Record(), *records], turns, strict=False):
        turn["message"] = record.recording not in ("", before.recording)
        turn["repeated"] = record.turn in repeated
    recording = next((r.recording for r in reversed(records) if r.recording), "")
    return {"turns": turns, "recording": recording, "end": end}


def page(call_sid: str, known: Mapping[str, Any]) -> str:
    """The timeline for people: what was asked, heard and decided, and how long it took."""
    turns, end, link = known["turns"], known["end"], escape(known["recording"])
    began = turns[0]["at"]
    day = datetime.fromtimestamp(began, UTC).strftime("%A, %d %B %Y, %H:%M:%S UTC")
    slowest = max(turn["ms"] for turn in turns)
    over = f"{end.get('status')} after {clock(end.get('seconds', 0))}" if end else "not over yet"
    listen = f' · <a href="{link}" rel="noreferrer">recording</a>' if link else ""
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{call_sid}</title>'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<style>{STYLE}</style><h1>{call_sid}</h1><p>{day}</p>"
        f"<p>{escape(over)} · {len(turns)} answers, the slowest in {slowest} ms{listen}</p>"
        f"<ol>{''.join(row(turn, began) for turn in turns)}</ol></html>"
    )


def clock(seconds: float) -> str:
    """A length of time as people read it: 1:48."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def row(turn: Mapping[str, Any], began: float) -> str:
    """One turn of the page: what the caller did, what was decided, what the line said."""
    kinds = (("heard", "<q>{}</q>"), ("keys", "pressed {}"), ("dial", "transfer: {}"))
    brought = [shape.format(escape(turn[kind])) for kind, shape in kinds if turn[kind]]
    nothing = "nothing said, no key" if turn["asker"] else "the call comes in"
    nothing = "a message is recorded" if turn["message"] else nothing
    facts = [
        clock(turn["at"] - began),
        " → ".join(dict.fromkeys([turn["asker"] or "new call", turn["step"]])),
        f"{turn['ms']} ms",
        f"holds: {turn['hold']}" if turn["hold"] else "",
        f"misses: {turn['misses']}" if turn["misses"] else "",
        "repeated" if turn["repeated"] else "",
    ]
    return (
        f"<li><small>{escape(' · '.join(filter(None, facts)))}</small>"
        f'<p>{", ".join(brought) or nothing}</p><p class="said">{escape(turn["said"])}</p></li>'
    )


# ---- line --------------------------------------------------------------------------------------
# The paths, and the way of one webhook.


class Line:
    """A phone line: one environment, one store, no state of any call."""

    def __init__(self, env: Mapping[str, str]) -> None:
        settings = read_settings(env)
        table = flow(settings)
        wrong = flaws(table, settings.words, settings.numbers)
        self.settings = replace(settings, problems=(*settings.problems, *wrong))
        self.plan = Plan(table, settings.words, settings.numbers)
        self.store: Store = SQLite(settings.state_file)
        if settings.redis:
            self.store = Upstash(settings.redis_url, settings.redis_token)
        self.desk = Desk(self.settings, self.plan, self.store)
        self.health: tuple[Moment, str] = (0.0, "The store is being asked for the first time.")
        if self.settings.problems:
            log("error", "not ready: " + "; ".join(self.settings.problems))

    def answer(self, request: Request) -> Response:
        """Any request, answered. Never raises; a caller always gets words."""
        began = time.monotonic()
        try:
            return self.route(request, began)
        except Rejected as refusal:
            return plain(refusal.status, refusal.reason, refusal.headers)
        except Exception as error:
            path = request.path[:80]
            log("error", "a bug: apologised to the caller", path=path, cause=cause(error))
            if request.method != "POST" or path == "/voice/status":
                return plain(503, "Something went wrong on our side; the log says more.")
            return twiml(render_apology(self.settings, self.plan))

    def route(self, request: Request, began: Moment) -> Response:
        """Find what a path asks for; 413, 404 or 405 before anything else is looked at."""
        request.max_content_length = LARGEST_BODY
        try:
            request.get_data()
        except Exception as error:  # werkzeug's errors and the server's share no ancestor
            request.stream = io.BytesIO()  # functions-framework reads on when we have answered
            large = isinstance(error, RequestEntityTooLarge)
            reason = f"A body may have {LARGEST_BODY} bytes." if large else "The body breaks off."
            raise Rejected(413 if large else 400, reason) from None
        path = request.path
        if path == "/healthz":
            return self.report_health(request)
        if path not in (*VOICE_PATHS, "/voice/process", "/voice/status", "/voice/fallback"):
            if match := re.fullmatch("/calls/(CA[0-9a-fA-F]{32})", path):
                return self.show(request, match[1])
            raise Rejected(404, "There is nothing at this path.")
        allow(request, "POST")
        base, form = verify(self.settings, request)
        hook = parse(self.settings, base, form)
        if path == "/voice/status":
            return self.end(hook, Cells(self.store, began + 0.9 * self.settings.deadline))
        if path == "/voice/process":
            hook = at_turn(hook, request.environ["RAW_URI"])
        if path == "/voice/fallback":
            return twiml(self.fallen(hook, form, began))
        return twiml(Visit(self, hook, began).answer())

    def fallen(self, hook: Hook, form: Mapping[str, str], began: Moment) -> str:
        """Go on where a webhook of ours failed, as ErrorUrl says. Nobody spoke: ask again."""
        url = form.get("ErrorUrl", "")
        log("error", "a webhook failed", call=hook.call_sid, code=form.get("ErrorCode", "")[:9])
        hook = hook._replace(heard=replace(hook.heard, again=True))
        try:
            hook = hook if (urlsplit(url).path or "/") in VOICE_PATHS else at_turn(hook, url)
        except (ValueError, Rejected):
            return render_apology(self.settings, self.plan)
        return Visit(self, hook, began).answer()

    def end(self, hook: Hook, cells: Cells) -> Response:
        """The call is over: settle that, log one summary, bring the backend what it must know.

        204 says that all is taken care of. While the backend has not got its events 503 makes
        Twilio ask again (with rp=all in its URL), so that they outlive this instance.
        """
        over = {"status": hook.status, "seconds": hook.seconds, "at": time.time()}
        stood = mine = as_json(over)
        with suppress(StoreUnavailable):
            stood = cells.settle(hook.cell("end"), mine)
        over |= fitting(stood, over) or {}
        if stood == mine:
            who = {"call": hook.call_sid, **over, "caller": masked(hook.caller)}
            log("error" if cells.lost else "info", "call ended", **who, degraded=cells.lost)
        events = self.untold(hook, over, cells) if self.settings.backend_url else {}
        if events and not self.desk.told(hook, events, cells.until):
            raise Rejected(503, "The backend has yet to be told.")
        return Response(status=204)

    def untold(self, hook: Hook, over: Mapping[str, Any], cells: Cells) -> dict[str, Any]:
        """The events of a call that the backend has not got yet."""
        names = ("voicemail", "voicemail:sent", "ended:sent")
        voicemail, told, ended = None, None, None
        with suppress(StoreUnavailable):
            voicemail, told, ended = cells.read(*map(hook.cell, names))
        message = fitting(voicemail, {"recording_url": ""})
        events: dict[str, Any] = {"voicemail": message} if message and not told else {}
        ending = {"status": over["status"], "seconds": over["seconds"]}
        return events | ({} if ended else {"ended": ending})

    def show(self, request: Request, call_sid: str) -> Response:
        """The page of a call, for whoever knows ADMIN_TOKEN (HTTP Basic, any user name)."""
        if not self.settings.admin_token:
            raise Rejected(404, "There is nothing at this path.")
        allow(request, "GET", "HEAD")
        given = None
        with suppress(ValueError):  # a header that is no text
            given = request.authorization and request.authorization.password
        if not hmac.compare_digest((given or "").encode(), self.settings.admin_token.encode()):
            raise Rejected(401, "Who are you?", {"WWW-Authenticate": 'Basic realm="calls"'})
        cells = Cells(self.store, time.monotonic() + self.settings.deadline)
        turns = range(1, LAST_TURN + 2)
        names = (*turns, *(f"{turn}:again" for turn in turns), "end")
        try:
            *values, end = cells.read(*(f"call:{call_sid}:{name}" for name in names))
        except StoreUnavailable as error:
            raise Rejected(503, f"The store does not answer: {error}") from None
        records = [*filter(None, map(read_record, values[: len(turns)]))]
        repeated = [n for n, again in zip(turns, values[len(turns) :], strict=True) if again]
        known = timeline(
            records, repeated, fitting(end, {"status": "", "seconds": 0, "at": 0.0}) or {}
        )
        if not known["turns"]:
            raise Rejected(404, "No such call, or it is more than a day ago.")
        kinds = {"text/html": page(call_sid, known), "application/json": json.dumps(known)}
        kind = request.accept_mimetypes.best_match(list(kinds), "text/html")
        return Response(kinds[kind], headers=POLICY, mimetype=kind)

    def report_health(self, request: Request) -> Response:
        """200 when the settings are complete and the store writes, else 503 and what is wrong."""
        allow(request, "GET", "HEAD")
        problems = [*self.settings.problems]
        if not any("UPSTASH" in problem for problem in problems):
            problems += filter(None, [self.store_problem()])
        headers = {"Cache-Control": "no-store"}
        body = json.dumps({"ok": not problems, "problems": problems}, indent=1) + "\n"
        return Response(body, 503 if problems else 200, headers, content_type="application/json")

    def store_problem(self) -> str:
        """What is wrong with the store, asked at most every five seconds: anybody may look."""
        asked, problem = self.health
        if time.monotonic() - asked < 5 and asked:
            return problem
        self.health = (time.monotonic(), problem)  # who looks meanwhile need not wait
        cells = Cells(self.store, time.monotonic() + self.settings.deadline)
        try:
            cells.settle("health", "well", ttl=60)
            problem = ""
        except StoreUnavailable as error:
            where = "Redis at UPSTASH_REDIS_REST_URL" if self.settings.redis else "STATE_FILE"
            problem = f"{where} cannot be written: {error}"
            log("error", problem)
        self.health = (time.monotonic(), problem)
        return problem


class Visit:
    """One webhook of a call on its way through the line, and what the log will say of it."""

    # Shares of the deadline, counted from the webhook's arrival: after each, what comes next still
    # has time. The last tenth is for everything that is not under our control.
    READ, ASKED, SLOW, SETTLE = 0.45, 0.55, 0.7, 0.9

    def __init__(self, line: Line, hook: Hook, began: Moment) -> None:
        self.settings, self.plan, self.desk = line.settings, line.plan, line.desk
        self.hook, self.began = hook, began
        self.cells = Cells(line.store, self.moment(self.SETTLE))
        self.away = False  # the store did not say how the call stands, so nothing will be settled
        self.trail: dict[str, object] = {}

    def moment(self, share: float) -> Moment:
        return self.began + share * self.settings.deadline

    def answer(self) -> str:
        """The TwiML that answers the webhook; a line in the log says how that went."""
        try:
            return self.turn()
        finally:
            hook, cells = self.hook, self.cells
            way = {"call": hook.call_sid, "turn": hook.turn, **self.trail, "ms": self.ms()}
            cost = {"redis_ms": round(cells.seconds * 1000, 1), "commands": cells.commands}
            level = "error" if cells.lost else "info"
            words = {"heard": hook.heard.speech or None, "keys": hook.heard.keys or None}
            open_ = self.settings.log_words
            who = {"caller": hook.caller, **words} if open_ else {"caller": masked(hook.caller)}
            log(level, "webhook", **way, **cost, degraded=cells.lost, **who)

    def turn(self) -> str:
        call, settled, asked, known = self.look()
        if settled:
            return self.again(settled)
        if self.away and self.hook.hold and self.hook.hold < len(HOLDS):
            return self.hold(self.hook.step)  # what was asked is out of reach, not lost
        heard = asked or self.heard()
        after, reply = decide(self.plan, call, heard)
        if isinstance(reply.step, Consult):
            said_now = (heard.speech, heard.confidence, heard.keys)
            new = Asked(*said_now, at=time.time(), step=after.step)
            outcome = self.consult(asked or new, known)
            if not isinstance(outcome, Answer):
                return self.hold(after.step, pushed=outcome == "push")
            thinking, said = replace(after, turn=call.turn), reply.says
            after, reply = decide(self.plan, thinking, Heard(answer=outcome))
            reply = reply._replace(says=(*said, *reply.says))
        return self.settle(call, heard, after, reply)

    def again(self, settled: Record) -> str:
        """Say what was said; a cell of its own keeps for the page that the webhook was repeated."""
        self.trail["replayed"] = True
        with suppress(StoreUnavailable):
            self.cells.settle(self.hook.cell(f"{settled.turn}:again"), "1")
        return settled.twiml

    def look(self) -> tuple[Call, Record | None, Asked | None, Answer | None]:
        """How the call stands; this turn's answer; on hold, what was asked and what came of it."""
        hook, n = self.hook, self.hook.turn
        if n == 0:
            return Call(), None, None, None
        slow = [f"{n}:asked", f"{n}:result"] if hook.hold or hook.heard.again else []
        keys = [hook.cell(name) for name in (n, n + 1, *slow)]
        try:
            now, then, *rest = self.cells.read(*keys, until=self.moment(self.READ))
            if not now and not then:
                now = self.cells.look_again(keys[0], self.moment(self.ASKED))
            if hook.hold and not then and not rest[0]:
                rest[0] = self.cells.look_again(keys[2], self.moment(self.ASKED))
        except StoreUnavailable:
            self.away = True
            now, then, rest = None, None, []
        record = read_record(now)
        call = replace(record, turn=n) if record else Call(turn=n, step=hook.step)
        asked, known = rest or (None, None)
        return call, read_record(then), read_as(Asked, asked), read_as(Answer, known)

    def heard(self) -> Heard:
        """What this webhook brings. On hold nobody speaks; a new call has to find its entrance."""
        if self.hook.turn == 0:
            return replace(self.hook.heard, entrance=self.entrance())
        if self.hook.hold and self.away:
            return replace(self.hook.heard, answer=Answer(failed=True))
        return replace(self.hook.heard, again=True) if self.hook.hold else self.hook.heard

    def entrance(self) -> str:
        if self.settings.blocked & {self.hook.caller, self.hook.number}:
            return "blocked"
        if self.settings.calls_per_hour and self.too_many():
            return "too_many"
        closed = self.settings.closed and self.settings.closed(time.time())
        return "closed" if closed else "start"

    def too_many(self) -> bool:
        """Whether a caller has used up an hour's calls: as many cells, each holding one CallSid."""
        if self.hook.number == "anonymous":
            return False
        secret, mine = self.settings.tokens[0].encode(), self.hook.call_sid
        who = hmac.new(secret, self.hook.number.encode(), "sha256").hexdigest()[:32]
        places = [f"caller:{who}:{i}" for i in range(self.settings.calls_per_hour)]
        with suppress(StoreUnavailable):
            taken = self.cells.read(*places)
            free = [key for key, sid in zip(places, taken, strict=True) if not sid]
            settled = (self.cells.settle(key, mine, 3600) for key in free)
            return mine not in taken and mine not in settled
        return False

    def consult(self, asked: Asked, known: Answer | None) -> Outcome:
        """The backend's answer to what the caller said, which is settled first; or how to hold."""
        hook, until = self.hook, self.moment(self.SLOW)
        if not self.away:
            kept = hook.hold > 0
            with suppress(StoreUnavailable):
                if not kept:
                    until_asked = self.moment(self.ASKED)
                    stood = self.cells.settle(hook.slow("asked"), written(asked), DAY, until_asked)
                    asked, kept = read_as(Asked, stood) or asked, True
                return self.desk.answer(Job(hook, asked), known, self.cells, until)
            if kept and hook.hold < len(HOLDS):
                return "hold"  # a worker may be at it: no second attempt beside it
        return self.desk.question_once(Job(hook, asked), until)

    def hold(self, step: str, *, pushed: bool = False) -> str:
        """Not yet: words and a pause, then Twilio comes back to this same turn.

        While the caller is being pushed to the answer, only a short silence.
        """
        self.trail["held"] = nth = self.hook.hold + 1
        more = {"pushed": 1} if pushed else {}
        back = way_back(self.settings, turn=self.hook.turn, step=step, hold=nth, **more)
        return render_hold(self.settings, self.plan, back, 0 if pushed else nth)

    def settle(self, call: Call, heard: Heard, after: Call, reply: Reply) -> str:
        """Settle what is to be said; say what stands."""
        if after.recording != call.recording and self.settings.backend_url:
            self.announce(after.recording)
        said = render(self.settings, self.plan, after, reply)
        self.trail |= {"from": call.step or None, "to": after.step, "dial": heard.dial or None}
        if self.away:
            if self.hook.hold and self.settings.rest_login:
                with suppress(OSError):
                    in_background(self.desk.leave_alone, self.hook)
            return said
        record = Record(
            **{f.name: getattr(after, f.name) for f in fields(Call)},
            twiml=said,
            asker=call.step,
            heard=heard.speech,
            keys=heard.keys,
            dial=heard.dial,
            said=" ".join(reply.says)[:SAID],
            at=round(time.time(), 3),
            ms=self.ms(),
            hold=self.hook.hold,
        )
        mine = written(record)
        with suppress(StoreUnavailable):
            stood = self.cells.settle(self.hook.cell(after.turn), mine)
            standing = read_record(stood) if stood != mine else None
            self.trail["replayed"] = bool(standing) or None
            return standing.twiml if standing else said
        return said

    def announce(self, recording: str) -> None:
        """Tell the backend of a voicemail; settled first, so that the message outlives us.

        Who has hung up hears nothing: then 503 makes Twilio ask again until the backend has it,
        because the end of this call may have come, and told what it knew, before.
        """
        message = {"recording_url": recording}
        with suppress(StoreUnavailable):
            self.cells.settle(self.hook.cell("voicemail"), json.dumps(message))
        gone = self.hook.status == "completed"
        moment = self.moment(self.SLOW) if gone else 0
        if not self.desk.told(self.hook, {"voicemail": message}, moment) and gone:
            raise Rejected(503, "The backend has yet to be told.")

    def ms(self) -> int:
        return round((time.monotonic() - self.began) * 1000)


def allow(request: Request, *methods: str) -> None:
    """Refuse any other method, and say which would do."""
    if request.method not in methods:
        raise Rejected(405, f"Use {methods[0]}.", {"Allow": ", ".join(methods)})


def plain(status: int, reason: str, headers: Mapping[str, str] | None = None) -> Response:
    """A sentence as plain text."""
    return Response(reason + "\n", status, headers, content_type="text/plain; charset=utf-8")


def twiml(document: str) -> Response:
    """TwiML, with the content type that Twilio parses."""
    return Response(document, content_type="text/xml; charset=utf-8")


LINE: Final = Line(os.environ)
os.environ["THREADS"] = str(LINE.settings.threads)  # which the server reads after this file
atexit.register(LINE.desk.give_back)
gc.freeze()  # what is loaded by now stays: never looked through again, and shared with the worker
gc.enable()


def handler(request: Request) -> Response:
    """The function that functions-framework serves: every path of the line."""
    return LINE.answer(request)
