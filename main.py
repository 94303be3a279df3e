"""An inbound phone line as one stateless function: Twilio asks, this file answers with TwiML.

A call is a series of numbered turns. Every URL that we hand to Twilio names the turn that will
come back to it (`/voice/process?turn=3&step=menu`). Twilio signs that URL and repeats it verbatim
when it retries, so the turn number is idempotency key, lock and version at once.

Nothing is kept in this process. Redis holds write-once cells: `settle(key, value)` writes a cell
if it is empty and returns what stands in it; `read(keys)` looks. The cell `call:{CallSid}:{n}` holds
the call after n answers together with the TwiML of the n-th. Whoever loses a race (a retry, a rival
instance, a write whose reply got lost) is handed the winner's TwiML and says exactly that. There
are no locks and there is nothing to clean up: cells expire.

The path of one webhook, as `Line.turn` walks it:

    verify > parse > read cells n, n+1 > (n+1 stands? say it) > decide > render > settle n+1 > say

To change what callers hear, edit WORDS (the sentences) and `flow` (the steps); the rest follows.
Sections only use what stands above them: words, settings, flow, core, TwiML, wire, cells, Twilio,
slow work, page, line.
"""

from __future__ import annotations

import atexit
import hmac
import io
import json
import os
import re
import runpy
import socket
import sqlite3
import ssl
import sys
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from functools import cache
from html import escape
from http.client import HTTPException, HTTPResponse
from typing import Any, Final, Literal, Protocol
from urllib.parse import parse_qs, urlencode, urlsplit
from zoneinfo import ZoneInfo

import httpx
from flask import Request, Response
from twilio.request_validator import RequestValidator
from twilio.twiml.voice_response import Gather, VoiceResponse
from upstash_redis import Redis
from upstash_redis.http import format_response, make_headers
from werkzeug.exceptions import RequestEntityTooLarge

DAY: Final = (
    24 * 3600
)  # seconds that a cell lives: Twilio ends every call after 24 hours at the latest
LAST_TURN: Final = 100  # turns of one call; the number is part of the contract
THREADS: Final = 16  # the server's, unless the variable says otherwise
WAY_OUT: Final = LAST_TURN - 3  # from here on a person, voicemail, goodbye: one turn for each
E164: Final = r"\+[1-9][0-9]{6,14}"


class Rejected(Exception):
    """A request that is refused by the asker's fault: an HTTP status and a plain sentence."""

    def __init__(self, status: int, reason: str, **headers: str) -> None:
        super().__init__(reason)
        self.status, self.reason, self.headers = status, reason, headers


class StoreUnavailable(Exception):
    """The store gave no usable answer in time: the network's fault. Every webhook survives it."""


# ---- log ---------------------------------------------------------------------------------------
# One JSON object a line on stdout, as Railway's log search reads it. stderr would all be errors.


def log(level: str, message: str, **known: object) -> None:
    """Write one line. No secret ever comes here; words and numbers only masked."""
    line = {"level": level, "message": message} | {k: v for k, v in known.items() if v is not None}
    print(json.dumps(line, ensure_ascii=False, default=str), flush=True)


def masked(phone: str) -> str:
    """A phone number that its owner would know again, and nobody else: +15*******21."""
    return phone if len(phone) < 6 else phone[:3] + "*" * (len(phone) - 5) + phone[-2:]


def cause(error: BaseException) -> str:
    """What went wrong and in which line of this file. Never the message: it may hold words."""
    trace, line = error.__traceback__, 0
    while trace:
        line = trace.tb_lineno if trace.tb_frame.f_code.co_filename == __file__ else line
        trace = trace.tb_next
    return f"{type(error).__name__} at line {line}"


# ---- words -------------------------------------------------------------------------------------
# Every sentence that a caller can hear, by language. {name} and the like are filled in.
# "say" in the flow below names a sentence here; anything else that stands there is spoken as it is.

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
        "help": "Mit der 0 erreichen Sie einen Menschen, mit der Sterntaste hören Sie die Frage noch einmal.",
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


@dataclass(frozen=True, slots=True)
class Hours:
    """When people are there: (weekday, opens, closes) with Monday 0 and minutes of that day."""

    spans: tuple[tuple[int, int, int], ...] = ()
    zone: str = "UTC"

    def closed(self, at: float) -> bool:
        """Whether nobody is there at a moment (Unix time). Without hours somebody always is."""
        if not self.spans:
            return False
        now = datetime.fromtimestamp(at, ZoneInfo(self.zone))
        day, minute = now.weekday(), now.hour * 60 + now.minute
        return not any(d == day and opens <= minute < closes for d, opens, closes in self.spans)


@dataclass(frozen=True, slots=True)
class Settings:
    """The environment, understood. What must be mended before a call stands in `problems`."""

    tokens: tuple[str, ...] = ()
    public_url: str = ""
    redis_url: str = ""
    redis_token: str = ""
    state_file: str = ".calls.sqlite3"
    forward_to: str = ""
    departments: Mapping[str, str] = field(default_factory=dict)  # name: E.164, in order of keys
    backend_url: str = ""
    backend_token: str = ""
    greeting: str = ""
    voice: str = ""
    language: str = "en-US"
    speech_model: str = "phone_call"
    speech_timeout: int | Literal["auto"] = 3  # seconds
    deadline: float = 4.5  # seconds
    account_sid: str = ""
    api_key: str = ""
    api_secret: str = ""
    hours: Hours = Hours()
    blocked: frozenset[str] = frozenset()
    calls_per_hour: int = 0
    admin_token: str = ""
    log_words: bool = False
    threads: int = THREADS
    problems: tuple[str, ...] = ()

    @property
    def numbers(self) -> dict[str, str]:
        """The only numbers that are ever dialled, by the name that a step or a backend uses."""
        forward = {"FORWARD_TO": self.forward_to} if self.forward_to else {}
        return forward | dict(self.departments)

    @property
    def rest_login(self) -> tuple[str, str] | None:
        """Who we are to Twilio's REST API: an API key, else the account itself."""
        if not self.account_sid or not self.tokens:
            return None
        return (
            (self.api_key, self.api_secret) if self.api_key else (self.account_sid, self.tokens[0])
        )

    @property
    def words(self) -> Mapping[str, str]:
        """The sentences of the language that is set, with the greeting that is set."""
        words = WORDS[self.language[:2]]
        return {**words, "greeting": self.greeting} if self.greeting else words


def text(value: str) -> str:
    """Any text without control characters."""
    return matching(r"[^\x00-\x1f\x7f]+")(value)


def matching(pattern: str) -> Callable[[str], str]:
    """A check that the whole value matches a pattern."""

    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(value)
        return value

    return check


def between(low: float, high: float) -> Callable[[str], float]:
    """A check that the value is a number from `low` to `high`."""

    def check(value: str) -> float:
        if not low <= float(value) <= high:
            raise ValueError(value)
        return float(value)

    return check


def whole(low: int, high: int) -> Callable[[str], int]:
    """A check that the value is a whole number from `low` to `high`."""
    return lambda value: int(between(low, high)(matching("[0-9]+")(value)))


def origin(value: str) -> str:
    """`https://host[:port]` without path, query or login; http only for this machine."""
    url = urlsplit(value.rstrip("/"))
    local = url.hostname in ("localhost", "127.0.0.1")
    bare = url.geturl() == f"{url.scheme}://{url.hostname}" + (f":{url.port}" if url.port else "")
    if not bare or not (url.scheme == "https" or (url.scheme == "http" and local)):
        raise ValueError(value)
    return url.geturl()


def address(value: str) -> str:
    """Any http or https URL with a host."""
    url = urlsplit(text(value))
    if url.scheme not in ("http", "https") or not url.hostname or url.port == 0:
        raise ValueError(value)
    return value.rstrip("/")


def phone_book(value: str) -> dict[str, str]:
    """`billing=+15550100001 cancel=+15550100002`: names and numbers in order, a key for each."""
    pairs = [matching(rf"[^\W\d][\w-]*={E164}")(pair).split("=") for pair in value.split()]
    book = {name.lower(): number for name, number in pairs}
    if len(book) != len(pairs) or len(book) > len("123456789"):
        raise ValueError(value)
    return book


def opening_hours(value: str) -> Hours:
    """`Mon-Fri 09:00-17:00, Sat 10:00-14:00 Europe/Berlin`: spans, then one time zone."""
    days = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
    spans, zone = value.rsplit(None, 1)
    ZoneInfo(zone)  # a KeyError where there is no such place
    found: list[tuple[int, int, int]] = []
    for span in spans.lower().split(","):
        time_of_day = r"([01]\d|2[0-4]):([0-5]\d)"
        match = re.fullmatch(rf"\s*(\w+)(?:-(\w+))?\s+{time_of_day}-{time_of_day}\s*", span)
        if not match:
            raise ValueError(value)
        first, last = days.index(match[1]), days.index(match[2] or match[1])
        opens, closes = (int(match[i]) * 60 + int(match[i + 1]) for i in (3, 5))
        if first > last or not opens < closes <= DAY // 60:
            raise ValueError(value)
        found += [(day, opens, closes) for day in range(first, last + 1)]
    return Hours(tuple(found), zone)


def language_with_words(value: str) -> str:
    """A language like en-US for which WORDS has every sentence."""
    return matching(f"(?:{'|'.join(WORDS)})-[A-Z]{{2}}")(value)


# variable: (its field, how it is understood, what was expected if it cannot be)
VARIABLES: Final[Mapping[str, tuple[str, Callable[[str], object], str]]] = {
    "TWILIO_AUTH_TOKEN": (
        "tokens",
        lambda value: tuple(matching(r"[!-+\--~]+")(t.strip()) for t in value.split(",")),
        "one token, or two with a comma between while they are rotated",
    ),
    "PUBLIC_URL": ("public_url", origin, "an origin like https://line.example.com, no path"),
    "UPSTASH_REDIS_REST_URL": ("redis_url", address, "the https:// URL of the REST API"),
    "UPSTASH_REDIS_REST_TOKEN": ("redis_token", matching("[!-~]+"), "a token without spaces"),
    "STATE_FILE": ("state_file", text, "a file name"),
    "FORWARD_TO": ("forward_to", matching(E164), "a phone number like +15550100001"),
    "DEPARTMENTS": ("departments", phone_book, "up to nine pairs like billing=+15550100001"),
    "BACKEND_URL": ("backend_url", address, "an http(s):// URL"),
    "BACKEND_TOKEN": ("backend_token", matching("[!-~]+"), "a token without spaces"),
    "GREETING": ("greeting", lambda value: text(value)[:1000], "a sentence on one line"),
    "VOICE": ("voice", matching(r"[\w.-]+"), "a voice like Polly.Joanna"),
    "LANGUAGE": ("language", language_with_words, "en-US, de-DE or the like (see WORDS)"),
    "SPEECH_MODEL": ("speech_model", matching(r"[\w.-]+"), "a model like phone_call"),
    "SPEECH_TIMEOUT": (
        "speech_timeout",
        lambda value: value if value == "auto" else whole(1, 10)(value),
        "whole seconds from 1 to 10, or auto",
    ),
    "RESPONSE_DEADLINE": ("deadline", between(1, 14), "seconds from 1 to 14"),
    "TWILIO_ACCOUNT_SID": ("account_sid", matching("AC[0-9a-f]{32}"), "AC and 32 hex digits"),
    "TWILIO_API_KEY": ("api_key", matching("SK[0-9a-f]{32}"), "SK and 32 hex digits"),
    "TWILIO_API_SECRET": ("api_secret", matching("[!-~]+"), "a secret without spaces"),
    "HOURS": ("hours", opening_hours, "the like of Mon-Fri 09:00-17:00 Europe/Berlin"),
    "BLOCKED": (
        "blocked",
        lambda value: frozenset(matching(f"{E164}|anonymous")(who) for who in value.split()),
        "phone numbers, or anonymous, with spaces between",
    ),
    "CALLS_PER_HOUR": ("calls_per_hour", whole(1, 50), "a whole number from 1 to 50"),
    "ADMIN_TOKEN": ("admin_token", matching("[!-~]{12,}"), "12 characters or more, no spaces"),
    "LOG_WORDS": ("log_words", lambda value: matching("[01]")(value) == "1", "0 or 1"),
    "THREADS": ("threads", whole(1, 512), "a whole number from 1 to 512"),
}
SECRET: Final = re.compile("TOKEN|SECRET")


def read_settings(env: Mapping[str, str]) -> Settings:
    """Understand an environment. Never raises: what is wrong is in `problems`, without secrets."""
    found: dict[str, Any] = {}
    problems: list[str] = []
    for name, (where, understand, expected) in VARIABLES.items():
        value = env.get(name, "").strip()
        try:
            if value:
                found[where] = understand(value)
        except (ValueError, KeyError, OSError):
            shown = "not usable" if SECRET.search(name) else repr(value[:60])
            problems.append(f"{name} is {shown}; expected {expected}")
    domain = env.get("RAILWAY_PUBLIC_DOMAIN", "").strip()
    settings = Settings(**({"public_url": f"https://{domain}"} if domain else {}) | found)
    problems += [said for holds, said in demands(settings, env) if not holds]
    voice = settings.voice or settings.words["voice"]
    return replace(settings, voice=voice, problems=tuple(problems))


def demands(found: Settings, env: Mapping[str, str]) -> Iterator[tuple[bool, str]]:
    """What must hold between settings, each with what to say when it does not."""
    given = {name for name in VARIABLES if env.get(name, "").strip()}
    upstash = {"UPSTASH_REDIS_REST_URL", "UPSTASH_REDIS_REST_TOKEN"}
    key = {"TWILIO_API_KEY", "TWILIO_API_SECRET"}
    railway = bool(env.get("RAILWAY_ENVIRONMENT_NAME"))
    yield (
        "TWILIO_AUTH_TOKEN" in given,
        "TWILIO_AUTH_TOKEN is missing: no webhook can be verified, so every call is refused",
    )
    yield (
        not railway or bool(upstash & given),
        (
            "UPSTASH_REDIS_REST_URL and UPSTASH_REDIS_REST_TOKEN are missing: "
            "on Railway there is no other place in which a call would survive a restart"
        ),
    )
    yield len(upstash & given) != 1, f"set both of {' and '.join(sorted(upstash))}, or neither"
    yield len(key & given) != 1, f"set both of {' and '.join(sorted(key))}, or neither"
    yield (
        not key & given or "TWILIO_ACCOUNT_SID" in given,
        "TWILIO_API_KEY needs TWILIO_ACCOUNT_SID",
    )
    yield (
        not railway or "PUBLIC_URL" in given or found.public_url.startswith("https://"),
        "PUBLIC_URL is missing: generate a domain for this service, then deploy again",
    )
    yield not railway or not found.public_url.startswith("http://"), "PUBLIC_URL must be https"


# ---- flow --------------------------------------------------------------------------------------
# The call as a table. A step says something and names the steps that can follow it.


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask, and listen for speech and keys together."""

    say: str
    routes: Mapping[str, str] = field(default_factory=dict)  # what is said or keyed: step, in order
    then: str = ""  # where any other words go; without it they are nonsense
    keys: int | None = 1  # how many keys make an answer; None: as many as come before #


@dataclass(frozen=True, slots=True)
class Tell:
    """Say something and go on."""

    say: str
    then: str


@dataclass(frozen=True, slots=True)
class Transfer:
    """Connect the caller to FORWARD_TO or a department; no number, no answer: `unanswered`."""

    to: str
    say: str
    unanswered: str


@dataclass(frozen=True, slots=True)
class Voicemail:
    """Record a message."""

    say: str
    then: str


@dataclass(frozen=True, slots=True)
class Consult:
    """Ask the backend what comes next; `listen` is where it continues the conversation."""

    listen: str
    failed: str


@dataclass(frozen=True, slots=True)
class End:
    """Say something and hang up."""

    say: str


@dataclass(frozen=True, slots=True)
class Refuse:
    """Do not even answer the call: nothing is billed."""

    reason: Literal["rejected", "busy"]


Step = Ask | Tell | Transfer | Voicemail | Consult | End | Refuse
Flow = Mapping[str, Step]


def flow(settings: Settings) -> Flow:
    """The steps of this line. Every call begins at "start" (or "closed", "blocked", "too_many")."""
    table: dict[str, Step] = {
        "start": Tell("greeting", then="reason"),
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
    for name in settings.departments:
        table[f"to_{name}"] = Transfer(name, say="connecting_department", unanswered="voicemail")
    if settings.departments:
        menu = {name: f"to_{name}" for name in settings.departments}
        table["start"] = Tell("greeting", then="menu")
        table["menu"] = Ask("ask_menu", routes=menu)
    if settings.backend_url:
        table["start"] = Tell("greeting", then="listen")
        table["listen"] = Ask("ask_help", then="think", keys=None)
        table["think"] = Consult(listen="listen", failed="operator")
    return table


def dead_ends(table: Flow) -> Iterator[str]:
    """What is wrong with a table, in plain words: names of steps that nobody wrote."""
    for name, step in table.items():
        ways = [getattr(step, way, "") for way in ("then", "unanswered", "listen", "failed")]
        for way in filter(None, [*ways, *getattr(step, "routes", {}).values()]):
            if way not in table:
                yield f"flow: step {name!r} leads to {way!r}, and there is no such step"


# ---- core --------------------------------------------------------------------------------------
# What happens next in a call. Pure and total: no clock, network or log, and every input has an
# answer. Moments and ids come in as arguments.

SURE: Final = 0.5  # a Confidence below it makes us ask "did you say"; Twilio promises no scale
MISSES: Final = 3  # silence or nonsense this often in a row: a person
SPOKEN: Final = 1000  # characters kept of what a caller said
SAID: Final = 2500  # characters in one Say; Twilio's limit for Polly is 3000 (error 13521)
UNFIT: Final = {c: " " for c in range(0x20)} | {c: " " for c in (0x7F, 0xFFFE, 0xFFFF)}  # no XML


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


@dataclass(frozen=True, slots=True)
class Reply:
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

    def list(self, name: str) -> list[str]:
        """A list of WORDS, folded like speech."""
        return [folded(word) for word in self.words[name].split(",")]

    def menu(self, ask: Ask) -> str:
        """The choices of an Ask in one sentence each: For billing, say billing, or press 1."""
        items = enumerate(map(spoken, ask.routes), 1)
        return " ".join(self.sentence("menu_item", name=n, key=str(k)) for k, n in items)


def clean(words: str, limit: int = SPOKEN) -> str:
    """Text that is safe to keep and to speak: no character that XML forbids, bounded length."""
    whole = " ".join(words[: 4 * limit].translate(UNFIT).encode("utf-8", "ignore").decode().split())
    return whole if len(whole) <= limit else whole[:limit].rsplit(" ", 1)[0]


def folded(words: str) -> str:
    """Words as they are compared: without case, accents of width, punctuation or spare spaces."""
    plain = unicodedata.normalize("NFKC", words).casefold()
    return " ".join(re.findall(r"\w+", plain.replace("_", " ")))


def spoken(name: str) -> str:
    """The name of a department as it is said: lost-and_found is lost and found."""
    return re.sub("[-_]", " ", name)


def mentions(words: str, *names: str) -> bool:
    """Whether one of the names stands in the words, as whole words; both folded."""
    return any(f" {name} " in f" {words} " for name in names if name)


def decide(plan: Plan, call: Call, heard: Heard) -> tuple[Call, Reply]:
    """The next state of a call and what the caller hears. Total: every pair has an answer.

    What the webhook carries is believed before what the record says, because records get lost.
    """
    call = replace(call, turn=call.turn + 1)
    step = plan.flow.get(call.step)
    if heard.recording:
        return enter(plan, replace(call, recording=heard.recording), "message_taken")
    if heard.dial:
        return after_transfer(plan, call, heard, step)
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
    call = replace(call, misses=0, guess="", prompt="")
    step: Step = End("goodbye")
    for _ in plan.flow:
        step = plan.flow.get(name, step)
        match step:
            case Tell():
                says, name = (*says, plan.sentence(step.say)), step.then
            case Transfer() if step.to not in plan.numbers:
                name = step.unanswered
            case _:
                break
    return replace(call, step=name), Reply((*says, *question(plan, call, step)), step)


def question(plan: Plan, call: Call, step: Step) -> tuple[str, ...]:
    """The sentence of a step itself; the backend's own question, if it asked one."""
    match step:
        case Ask():
            return (call.prompt or plan.sentence(step.say, menu=plan.menu(step)),)
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
    if heard.keys:
        return by_key(plan, call, heard, ask)
    words = folded(heard.speech)
    if not words:
        return missed(plan, call, ask, "not_heard")
    if call.guess and mentions(words, *plan.list("words_yes")):
        return enter(plan, call, call.guess)
    if call.guess and mentions(words, *plan.list("words_no")):
        return ask_again(plan, call, ask)
    sure = heard.confidence is None or heard.confidence >= SURE
    routes = routed(plan, words, ask)
    if len(routes) == 1 and sure:
        return enter(plan, call, routes[0])
    if routes:
        return guess(plan, call, ask, routes[0])
    if len(words.split()) <= 4 and mentions(words, *plan.list("words_operator")):
        return enter(plan, call, "operator")
    if len(words.split()) <= 4 and mentions(words, *plan.list("words_repeat")):
        return ask_again(plan, call, ask)
    if ask.then:
        return enter(plan, replace(call, quote=clean(heard.speech)), ask.then)
    return missed(plan, call, ask, "not_understood")


def by_key(plan: Plan, call: Call, heard: Heard, ask: Ask) -> tuple[Call, Reply]:
    """A key means the same at every question: 0 a person, * again, 1 to 9 the routes in order."""
    steps = list(ask.routes.values())
    if heard.keys == "0":
        return enter(plan, call, "operator")
    if heard.keys == "*":
        return ask_again(plan, call, ask)
    if re.fullmatch("[1-9]", heard.keys) and int(heard.keys) <= len(steps):
        return enter(plan, call, steps[int(heard.keys) - 1])
    if ask.keys is None and ask.then:
        return enter(plan, replace(call, quote=heard.keys), ask.then)
    return missed(plan, call, ask, "not_understood")


def routed(plan: Plan, words: str, ask: Ask) -> list[str]:
    """The steps whose route is mentioned, the first mentioned first; a number alone is a key."""
    numbers = plan.list("words_numbers")
    found = {
        step: f" {words} ".find(f" {folded(spoken(route))} ")
        for route, step in ask.routes.items()
        if mentions(words, folded(spoken(route)))
    }
    for key, step in enumerate(ask.routes.values()):
        if words in (str(key + 1), numbers[key]):
            found[step] = 0
    return sorted(found, key=lambda step: found[step])


def guess(plan: Plan, call: Call, ask: Ask, step: str) -> tuple[Call, Reply]:
    """We heard something, but not well: did you say ...?"""
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
    if heard.again and not answer:
        return enter(plan, call, step.listen)
    if answer is None:
        return call, Reply((), step)
    says = (answer.say,) if answer.say else ()
    if answer.failed:
        return enter(plan, call, step.failed, plan.sentence("no_result"))
    match answer.then:
        case "listen":
            call, reply = enter(plan, call, step.listen)
            return replace(call, prompt=answer.say), replace(reply, says=says or reply.says)
        case "transfer":
            way = "operator" if answer.to == "FORWARD_TO" else f"to_{answer.to}"
            call, reply = enter(plan, call, way)
            return call, replace(reply, says=says or reply.says)
        case "voicemail":
            return enter(plan, call, "voicemail", *says)
        case _:
            call, reply = enter(plan, call, "goodbye")
            return call, replace(reply, says=says or reply.says)


# ---- TwiML -------------------------------------------------------------------------------------
# A reply as the XML that Twilio executes: https://www.twilio.com/docs/voice/twiml

RING: Final = 20  # seconds that we let a phone ring, about four rings: then its voicemail, not ours
TALK: Final = 3600  # seconds that a transfer may last; Twilio's own limit of four hours costs money
MESSAGE: Final = 180  # seconds of a voicemail
HOLDS: Final = (("hold_1", 4), ("hold_2", 9), ("hold_3", 10))  # words, then seconds of waiting


def connection_overrides(deadline: float) -> str:
    """How Twilio asks us again when an instance dies or is still waking up, as a URL fragment.

    Without it only a failed connect is retried, once. All attempts together get 15 seconds
    (https://www.twilio.com/docs/usage/webhooks/webhooks-connection-overrides), so an attempt is
    given up shortly after the deadline within which we answer, and whatever failed is asked again.
    """
    return f"#rc=5&rp=all&ct=2000&rt={int(deadline * 1000) + 500}"


def way_back(settings: Settings, turn: int, step: str, **more: int) -> str:
    """The URL, relative, at which Twilio brings what comes next in a call."""
    query = urlencode({"turn": turn, "step": step, **more})
    return f"/voice/process?{query}{connection_overrides(settings.deadline)}"


def render(settings: Settings, plan: Plan, call: Call, reply: Reply) -> str:
    """A reply as TwiML. Prompts are nested in Gather, so that an answer cuts them short."""
    response = VoiceResponse()
    back = way_back(settings, call.turn, call.step)
    speak = response
    if isinstance(reply.step, Ask):
        speak = response.append(gather(settings, plan, reply, reply.step, back)).verbs[-1]
    for words in filter(None, (clean(words, SAID) for words in reply.says)):
        speak.say(words, voice=settings.voice, language=settings.language)
    match reply.step:
        case Transfer(to=to):
            response.dial(action=back, answer_on_bridge=True, timeout=RING, time_limit=TALK).number(
                plan.numbers[to]
            )
        case Voicemail():
            response.record(
                action=back, max_length=MESSAGE, timeout=5, finish_on_key="#", play_beep=True
            )
        case Refuse(reason=reason):
            response.reject(reason=reason)
        case End():
            response.hangup()
        case _:
            pass
    return str(response)


def gather(settings: Settings, plan: Plan, reply: Reply, ask: Ask, back: str) -> Gather:
    """Listen for speech and keys. `speechTimeout=auto` drops the model: Twilio forbids the pair.

    https://www.twilio.com/docs/voice/twiml/gather, warning 13335.
    """
    auto = settings.speech_timeout == "auto"
    pause = (
        "auto" if settings.speech_timeout == "auto" else settings.speech_timeout + reply.patience
    )
    names = [spoken(name) for name in ask.routes]
    hints = [*names, *plan.list("words_operator"), *plan.list("words_repeat")]
    return Gather(
        input="dtmf speech",
        action=back,
        timeout=min(5 + reply.patience, 10),
        speech_timeout=pause if pause == "auto" else min(pause, 10),
        speech_model=None if auto else settings.speech_model,
        language=settings.language,
        hints=", ".join(hints),
        num_digits=ask.keys,
        finish_on_key="#" if ask.keys is None else "",
        action_on_empty_result=True,
    )


def render_hold(settings: Settings, plan: Plan, back: str, nth: int) -> str:
    """Words, a pause and a way back to look again. Few and long: trial accounts allow ten hops."""
    name, seconds = HOLDS[min(nth, len(HOLDS) - 1)] if nth >= 0 else ("", 2)
    response = VoiceResponse()
    if name:
        response.say(plan.sentence(name), voice=settings.voice, language=settings.language)
    response.pause(length=seconds)
    response.redirect(back)
    return str(response)


def render_apology(settings: Settings, plan: Plan) -> str:
    """What is left when our own code fails: an apology, a person if there is one. No state."""
    response = VoiceResponse()
    voice = {"voice": settings.voice, "language": settings.language}
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
LARGEST: Final = 1 << 20  # bytes of an answer that we read


def left(until: Moment) -> float:
    """Seconds left until a moment. A TimeoutError when there are none."""
    seconds = until - time.monotonic()
    if seconds <= 0:
        raise TimeoutError("out of time")
    return seconds


@cache
def tls_context() -> ssl.SSLContext:
    """One for the process: loading its CA bundle takes longer than a webhook."""
    return httpx.create_ssl_context()


class Timed(io.RawIOBase):
    """The bytes that a socket brings before a moment, as http.client wants to read them."""

    def __init__(self, sock: socket.socket, until: Moment) -> None:
        self.sock, self.until = sock, until

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self.sock.settimeout(left(self.until))
        return self.sock.recv_into(buffer)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)


class Wire:
    """POSTs to one URL over connections that are kept: a call's turns are often a minute apart."""

    KEPT: Final = 240  # seconds; a load balancer forgets an idle connection after some minutes

    def __init__(self, url: str, **headers: str) -> None:
        self.url = urlsplit(url)
        self.idle: list[
            tuple[Moment, socket.socket]
        ] = []  # last used, last; append and pop are atomic
        target = (self.url.path or "/") + (f"?{self.url.query}" if self.url.query else "")
        lines = {"Host": self.url.netloc.rpartition("@")[2], "Content-Type": "application/json"}
        self.head = f"POST {target} HTTP/1.1\r\n" + "".join(
            f"{name}: {value}\r\n" for name, value in (lines | headers).items()
        )

    def post(self, body: bytes, until: Moment, **headers: str) -> tuple[int, bytes]:
        """Status and body of the answer, all of it before the moment. OSError or HTTPException."""
        more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        request = f"{self.head}{more}Content-Length: {len(body)}\r\n\r\n".encode() + body
        while self.idle:
            used, sock = self.idle.pop()
            if time.monotonic() - used > self.KEPT:
                sock.close()
                continue
            with suppress(ConnectionError):  # closed by the other side meanwhile
                return self.exchange(sock, request, until)
        return self.exchange(self.connect(until), request, until)

    def exchange(self, sock: socket.socket, request: bytes, until: Moment) -> tuple[int, bytes]:
        keep = False
        try:
            sock.settimeout(left(until))
            sock.sendall(request)
            response = HTTPResponse(Timed(sock, until))  # type: ignore[arg-type]  # reads makefile
            response.begin()
            body = response.read(LARGEST + 1)
            if len(body) > LARGEST:
                raise HTTPException(f"the answer has more than {LARGEST} bytes")
            keep = response.isclosed() and not response.will_close
            return response.status, body
        finally:
            if keep:
                self.idle.append((time.monotonic(), sock))
            else:
                sock.close()

    def connect(self, until: Moment) -> socket.socket:
        """A fresh connection. DNS has no time-out and each address has its own: a thread waits."""
        made: Future[socket.socket] = Future()

        def dial() -> None:
            try:
                made.set_result(self.open(max(until - time.monotonic(), 0.01)))
            except Exception as error:  # handed to whoever waits
                made.set_exception(error)

        threading.Thread(target=dial, daemon=True).start()
        return made.result(timeout=left(until))

    def open(self, seconds: float) -> socket.socket:
        host = self.url.hostname or ""
        port = self.url.port or (443 if self.url.scheme == "https" else 80)
        sock = socket.create_connection((host, port), timeout=seconds)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.url.scheme != "https":
            return sock
        return tls_context().wrap_socket(sock, server_hostname=host)


# ---- cells -------------------------------------------------------------------------------------
# Write-once cells in one of two stores. Every operation may be repeated without harm.


class Store(Protocol):
    """Where cells live. Anything but an answer in time is raised, as whatever exception."""

    def read(self, keys: Sequence[str], until: Moment) -> list[str | None]:
        """The values, None where a cell is empty."""

    def look_again(self, key: str, until: Moment) -> str | None:
        """The value as the primary has it, though a replica said that the cell is empty."""

    def settle(self, key: str, value: str, ttl: int, until: Moment) -> str:
        """Write the cell if it is empty; either way what stands in it now."""

    def renew(self, key: str, ttl: int, until: Moment) -> str | None:
        """Keep a lease: its value, None when it is gone."""

    def drop(self, key: str, until: Moment) -> None:
        """Give a lease back."""


class Upstash(Redis):
    """Upstash's client, with a Wire in place of its HTTP.

    The client as it comes has no time-out, sleeps 3 seconds before it blindly repeats a command,
    and drops connections after 5 seconds, which is sooner than a caller's next words
    (https://github.com/upstash/redis-py, http.py; its constructor would load a second TLS context).
    """

    def __init__(self, url: str, token: str) -> None:
        self.wire = Wire(url, **make_headers(token, "base64", allow_telemetry=False))

    def execute(self, command: list[Any], until: Moment = 0) -> Any:
        """One command, one round trip, its result. https://upstash.com/docs/redis/features/restapi"""
        until = until or time.monotonic() + 5
        status, body = self.wire.post(json.dumps(command).encode(), until)
        result = format_response(json.loads(body), "base64")
        if status != 200:
            raise HTTPException(f"a result with status {status}")
        return result


class RedisStore:
    """Cells in Redis. A cell never changes, so any replica that has it has the right value."""

    def __init__(self, url: str, token: str) -> None:
        self.redis = Upstash(url, token)

    def read(self, keys: Sequence[str], until: Moment) -> list[str | None]:
        values: list[str | None] = self.redis.execute(["MGET", *keys], until)
        if len(values) != len(keys):
            raise ValueError("MGET answered with another number of values")
        return values

    def look_again(self, key: str, until: Moment) -> str | None:
        return optional(self.redis.execute(["GETEX", key], until))

    def settle(self, key: str, value: str, ttl: int, until: Moment) -> str:
        stood = optional(
            self.redis.execute(["SET", key, value, "NX", "GET", "EX", str(ttl)], until)
        )
        return value if stood is None else stood

    def renew(self, key: str, ttl: int, until: Moment) -> str | None:
        return optional(self.redis.execute(["GETEX", key, "EX", str(ttl)], until))

    def drop(self, key: str, until: Moment) -> None:
        self.redis.execute(["DEL", key], until)


def optional(value: object) -> str | None:
    """A text or nothing, from a wire that may bring anything."""
    if value is None or isinstance(value, str):
        return value
    raise ValueError("neither text nor nothing")


class FileStore:
    """Cells in an SQLite file that several processes share and that survives their being killed."""

    def __init__(self, path: str) -> None:
        self.path, self.local = path, threading.local()

    def run(self, until: Moment, *steps: tuple[str, Any]) -> list[tuple[str, str]]:
        """Execute statements, each on its own, and return the rows of the last."""
        db: sqlite3.Connection | None = getattr(self.local, "db", None)
        if db is None:  # one connection per thread, made after the server has forked
            db = sqlite3.connect(self.path, isolation_level=None, timeout=left(until))
            db.execute("PRAGMA journal_mode=WAL")
            db.execute(
                "CREATE TABLE IF NOT EXISTS cells(key TEXT PRIMARY KEY, value TEXT, ends REAL)"
            )
            db.execute("DELETE FROM cells WHERE ends <= ?", (time.time(),))
            self.local.db = db
        db.execute(f"PRAGMA busy_timeout={int(left(until) * 1000)}")
        return [db.execute(*step) for step in steps][-1].fetchall()

    def read(self, keys: Sequence[str], until: Moment) -> list[str | None]:
        marks = ",".join("?" * len(keys))
        query = f"SELECT key, value FROM cells WHERE ends > ? AND key IN ({marks})"  # noqa: S608 # only marks
        found = dict(self.run(until, (query, (time.time(), *keys))))
        return [found.get(key) for key in keys]

    def look_again(self, key: str, until: Moment) -> str | None:
        return self.read([key], until)[0]

    def settle(self, key: str, value: str, ttl: int, until: Moment) -> str:
        now = time.time()
        write = (
            "INSERT INTO cells VALUES(:key, :value, :ends) ON CONFLICT(key) DO UPDATE "
            "SET value = :value, ends = :ends WHERE ends <= :now"
        )
        mine = {"key": key, "value": value, "ends": now + ttl, "now": now}
        look = "SELECT key, value FROM cells WHERE key = ?"
        return self.run(until, (write, mine), (look, (key,)))[0][1]

    def renew(self, key: str, ttl: int, until: Moment) -> str | None:
        now = time.time()
        self.run(
            until, ("UPDATE cells SET ends = ? WHERE key = ? AND ends > ?", (now + ttl, key, now))
        )
        return self.look_again(key, until)

    def drop(self, key: str, until: Moment) -> None:
        self.run(until, ("DELETE FROM cells WHERE key = ?", (key,)))


class Cells:
    """The store as one webhook sees it: within a moment, counted, and asked twice before it is lost.

    A first attempt gets half of the time that is left, so that a dropped line or a dead connection
    costs the caller nothing. Repeating is safe: reads read, and to settle twice is to settle once.
    """

    def __init__(self, store: Store, until: Moment) -> None:
        self.store, self.until = store, until
        self.commands, self.seconds, self.lost = 0, 0.0, ""

    def try_twice(self, ask: Callable[[Moment], Any], until: Moment) -> Any:
        began = time.monotonic()
        for moment in (began + (until - began) / 2, until):
            self.commands += 1
            try:
                return ask(moment)
            except Exception as error:  # the client and the network have no common ancestor
                self.lost = clean(f"{type(error).__name__}: {error}", 120)
            finally:
                self.seconds += time.monotonic() - began
        raise StoreUnavailable(self.lost)

    def read(self, *keys: str, until: Moment = 0) -> list[str | None]:
        """The values, None where a cell is empty. Raises StoreUnavailable."""
        values: list[str | None] = self.try_twice(
            lambda m: self.store.read(keys, m), until or self.until
        )
        return values

    def look_again(self, key: str) -> str | None:
        """A cell that must be there, as only the primary knows it. Raises StoreUnavailable."""
        value: str | None = self.try_twice(lambda m: self.store.look_again(key, m), self.until)
        return value

    def settle(self, key: str, value: str, ttl: int = DAY, until: Moment = 0) -> str:
        """Write if empty; what stands in the cell now. Raises StoreUnavailable."""
        value = self.try_twice(lambda m: self.store.settle(key, value, ttl, m), until or self.until)
        return value


# ---- Twilio ------------------------------------------------------------------------------------
# What comes from outside: nothing in a request is looked at before its signature fits.

LARGEST_BODY: Final = 64 * 1024  # bytes; Twilio's webhooks have about one kilobyte


@dataclass(frozen=True, slots=True)
class Hook:
    """One webhook of Twilio's, verified and understood."""

    call_sid: str
    caller: str
    called: str
    base: str  # the origin at which it reached us
    heard: Heard
    status: str = ""  # CallStatus
    seconds: int = 0  # CallDuration
    turn: int = 0
    step: str = ""  # only a hint, for the day on which Redis is away
    hold: int = 0  # how often this turn's caller has been put on hold
    pushed: bool = False  # we sent the caller here ourselves: the answer is there

    def cell(self, name: object) -> str:
        """The key of one of this call's cells."""
        return f"call:{self.call_sid}:{name}"


def requested_url(settings: Settings, request: Request) -> tuple[str, str]:
    """The origin and the exact target that Twilio asked for. Flask's own `request.url` is decoded."""
    asked_for = request.headers.get("X-Forwarded-Host", request.host)
    scheme = request.headers.get("X-Forwarded-Proto", request.scheme)
    target: str = request.environ.get("RAW_URI") or request.full_path.rstrip("?")
    return settings.public_url or f"{scheme}://{asked_for}", target


def verify(settings: Settings, request: Request) -> str:
    """The origin of a request that Twilio signed; Rejected(403) for any other.

    Twilio signs the URL and all form fields (https://www.twilio.com/docs/usage/security). For https
    it leaves the port out of the URL; we accept both. Comparing is ours because the library's
    `validate` normalises URLs first, and a signature is for exactly one.
    """
    base, target = requested_url(settings, request)
    signature = request.headers.get("X-Twilio-Signature", "").encode()
    bases = {base, re.sub(r"^(https://.*):\d+$", r"\1", base)}
    for token in settings.tokens:
        sign = RequestValidator(token).compute_signature
        for origin_ in bases:
            if hmac.compare_digest(sign(origin_ + target, request.form).encode(), signature):
                return base
    log("warning", "signature refused", url=base + target[:200], fields=sorted(request.form)[:40])
    raise Rejected(403, "This is not a request that Twilio signed with this line's token.")


def parse(request: Request, settings: Settings, base: str) -> Hook:
    """What a verified webhook brings. Rejected(400) if it is no call or no turn, 403 if not ours."""
    form = request.form
    call_sid = form.get("CallSid", "")
    if not re.fullmatch("CA[0-9a-fA-F]{32}", call_sid):
        raise Rejected(400, "CallSid is missing, or is no CallSid.")
    if settings.account_sid and form.get("AccountSid") != settings.account_sid:
        raise Rejected(403, "This call belongs to another account.")
    return Hook(
        call_sid=call_sid,
        caller=clean(form.get("From", ""), 80),
        called=clean(form.get("To", ""), 80),
        base=base,
        heard=read_heard(form),
        status=clean(form.get("CallStatus", ""), 20),
        seconds=number(form.get("CallDuration", ""), 0, DAY) or 0,
    )


def read_heard(form: Mapping[str, str]) -> Heard:
    """What the caller said or keyed, or how a Dial or a Record went."""
    confidence = form.get("Confidence", "")
    recording = form.get("RecordingUrl", "")[:500]
    return Heard(
        speech=clean(form.get("SpeechResult", "")),
        confidence=float(confidence) if re.fullmatch(r"[01](\.\d{1,20})?", confidence) else None,
        keys="".join(re.findall("[0-9*#]", form.get("Digits", "")[:40])),
        dial=clean(form.get("DialCallStatus", ""), 20),
        recording=recording if re.fullmatch(r"https?://[!-~]+", recording) else "",
    )


def number(value: str, low: int, high: int) -> int | None:
    """A whole number in its plain decimal form and within bounds, else None."""
    fits = re.fullmatch("[0-9]{1,9}", value) and low <= int(value) <= high
    return int(value) if fits else None


def at_turn(hook: Hook, url: str) -> Hook:
    """The webhook, placed where one of our own URLs says. Rejected(400) if it has no turn."""
    query = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
    turn = number(query.get("turn", ""), 0, LAST_TURN)
    if turn is None:
        raise Rejected(400, f"turn must be a number from 0 to {LAST_TURN}.")
    hold = number(query.get("hold", "0"), 0, LAST_TURN) or 0
    step = query.get("step", "")[:80]
    return replace(hook, turn=turn, step=step, hold=hold, pushed=query.get("pushed") == "1")


# ---- records -----------------------------------------------------------------------------------
# What a settled cell says. Records outlive deploys: unknown fields are ignored, missing ones blank.


@dataclass(frozen=True, slots=True)
class Record:
    """The call after an answer, the answer itself, and what the page of a call shows of the turn."""

    call: Call = Call()
    twiml: str = ""
    asker: str = ""  # the step that had asked
    heard: str = ""
    keys: str = ""
    dial: str = ""
    said: str = ""
    at: float = 0.0  # Unix time
    ms: int = 0  # from the webhook's arrival to its answer
    hold: int = 0  # how often the caller was put on hold before


def written(record: Record) -> str:
    """A record as the value of a cell: JSON, blanks left out."""
    known = asdict(record)
    known["call"] = {name: value for name, value in known["call"].items() if value}
    return json.dumps({k: v for k, v in known.items() if v}, ensure_ascii=False)


def read_record(value: str | None) -> Record | None:
    """The record in a cell; None for an empty cell and for anything that is no record."""
    try:
        known = json.loads(value or "null")
        if not isinstance(known, dict) or not known.get("twiml"):
            return None
        call = Call(**fitting(Call, known.pop("call", {})))
        return Record(call=call, **fitting(Record, known))
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None


def fitting(kind: type[Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a dataclass that are there and have the type of their default."""
    defaults = {f.name: f.default for f in fields(kind)}
    number_ = (int, float)
    return {
        name: value
        for name, value in known.items()
        if name in defaults
        and isinstance(
            value, number_ if isinstance(defaults[name], float) else type(defaults[name])
        )
    }


# ---- slow work ---------------------------------------------------------------------------------
# What takes longer than a webhook may: the backend. What the caller said is settled first; one
# worker at a time holds a lease; the answer is a cell; the caller waits outside, on hold.

PATIENCE: Final = 120  # seconds after which a held caller gets a person
ATTEMPT: Final = (
    45  # seconds for one attempt at the backend: two dead ones still leave an answer time
)
PAUSES: Final = (1, 2, 4, 8)  # seconds between attempts
LEASE: Final = 8  # seconds: how long a dead worker delays its successor
LOOK: Final = 0.6  # seconds between looks for an answer that another instance works on
HISTORY: Final = 20  # turns that the backend is told about
WORKERS: Final = 64  # questions that one instance works on at once


class BackendFailed(Exception):
    """The backend gave no usable answer. `final`: to ask again would not help."""

    def __init__(self, reason: str, final: bool = False) -> None:
        super().__init__(reason)
        self.final = final


@dataclass(frozen=True, slots=True)
class Hold:
    """There is no answer yet. `silent`: the caller is about to be pushed to it."""

    silent: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    """The question of a turn, as it was settled: what the caller said, when, at which step."""

    heard: Heard
    at: float  # Unix time
    step: str


@dataclass(slots=True)
class Job:
    """A question that this instance works on. `waiting` webhooks will speak the answer at once."""

    hook: Hook
    asked: Asked
    owner: str
    renewed: Moment
    done: Future[Answer] = field(default_factory=Future)
    waiting: int = 0


def stored_question(value: str | None) -> Asked | None:
    """The question in a cell, None if there is none."""
    with suppress(ValueError, TypeError, AttributeError, KeyError):
        known = json.loads(value or "null")
        sure = {"confidence": known["heard"]["confidence"]}
        heard = Heard(**fitting(Heard, known["heard"]) | sure)
        return Asked(heard, float(known["at"]), str(known["step"]))
    return None


def stored_answer(value: str | None) -> Answer | None:
    """The backend's answer in a cell, None if there is none."""
    with suppress(ValueError, TypeError, AttributeError):
        return Answer(**fitting(Answer, json.loads(value or "null")))
    return None


def read_answer(body: bytes, numbers: Mapping[str, str]) -> Answer:
    """The backend's answer, if it keeps to the protocol; else BackendFailed."""
    try:
        known = json.loads(body)
        say, then, to = known.get("say") or "", known["then"], known.get("to") or "FORWARD_TO"
    except (ValueError, KeyError, AttributeError, RecursionError) as error:
        raise BackendFailed(f"its answer is not the JSON of the protocol: {error!r:.100}") from None
    if then not in ("listen", "transfer", "voicemail", "hangup") or not isinstance(say, str):
        raise BackendFailed("its answer has an unknown then, or words that are no text")
    if then == "transfer" and to not in numbers:
        raise BackendFailed("its answer transfers to a number that is not configured")
    return Answer(clean(say, SAID), then, to if then == "transfer" else "")


class Desk:
    """Where slow work is done. Nothing runs here while no caller waits."""

    def __init__(self, settings: Settings, plan: Plan, store: Store) -> None:
        self.settings, self.plan, self.store = settings, plan, store
        token = settings.backend_token
        self.wire = Wire(
            settings.backend_url, **({"Authorization": f"Bearer {token}"} if token else {})
        )
        self.lock, self.jobs, self.keeping = threading.Lock(), dict[str, Job](), False
        self.waits = threading.BoundedSemaphore(max(1, settings.threads // 2))
        self.hands = threading.BoundedSemaphore(WORKERS)
        atexit.register(self.give_back)

    def cells(self) -> Cells:
        """Cells for work that no webhook waits for."""
        return Cells(self.store, time.monotonic() + self.settings.deadline)

    def answer(self, hook: Hook, asked: Asked, cells: Cells, until: Moment) -> Answer | Hold:
        """The backend's answer if it comes before the moment, else how to hold the caller.

        Of all who could speak an answer exactly one does: the webhook that waits for the worker in
        this process; where there is none, whoever settles the cell `voice` (a look, or a push).
        """
        if time.time() > asked.at + PATIENCE:
            return self.conclude(hook, Answer(failed=True))
        answer, here = self.wait(hook, asked, cells, until)
        if answer is None:
            return Hold()
        if here or hook.pushed or not self.settings.rest_login:
            return answer
        speaker = cells.settle(hook.cell(f"{hook.turn}:voice"), "look")
        return answer if speaker == "look" else Hold(silent=True)

    def wait(
        self, hook: Hook, asked: Asked, cells: Cells, until: Moment
    ) -> tuple[Answer | None, bool]:
        """An answer, and whether its worker was here. At most half of the threads ever wait."""
        waits = self.waits.acquire(blocking=False)
        moment = until if waits else 0
        try:
            while True:
                if known := stored_answer(cells.read(hook.cell(f"{hook.turn}:result"))[0]):
                    return known, False
                if job := self.join(hook, asked, cells):
                    return self.listen(job, moment), True
                if time.monotonic() + LOOK > moment:
                    return None, False
                time.sleep(LOOK)
        finally:
            if waits:
                self.waits.release()

    def join(self, hook: Hook, asked: Asked, cells: Cells) -> Job | None:
        """This instance's job for a question: the one under way, or a new one if it is free."""
        key = hook.cell(hook.turn)
        with self.lock:
            if job := self.jobs.get(key):
                job.waiting += 1
                return job
        claimed, owner = time.monotonic(), os.urandom(8).hex()
        if not self.hands.acquire(blocking=False):
            return None
        if cells.settle(f"{key}:lease", owner, LEASE) != owner:
            self.hands.release()
            return None
        job = Job(hook, asked, owner, renewed=claimed, waiting=1)
        with self.lock:
            self.jobs[key] = job
            start_keeping, self.keeping = not self.keeping, True
        in_background(self.work, job)
        if start_keeping:
            in_background(self.keep)
        return job

    def listen(self, job: Job, until: Moment) -> Answer | None:
        """The job's answer, if it comes before the moment."""
        with suppress(TimeoutError):
            return job.done.result(timeout=max(until - time.monotonic(), 0))
        with self.lock:
            job.waiting -= 1
            return job.done.result() if job.done.done() else None

    def work(self, job: Job) -> None:
        """Ask, settle the answer, and see that the caller hears it."""
        hook, answer = job.hook, Answer(failed=True)
        try:
            answer = self.conclude(hook, self.consult(job))
        except Exception as error:
            log("error", "slow work failed", call=hook.call_sid, cause=cause(error))
        with self.lock:
            del self.jobs[hook.cell(hook.turn)]
            job.done.set_result(answer)
            heard = job.waiting > 0
        self.hands.release()
        with suppress(Exception):
            self.store.drop(hook.cell(f"{hook.turn}:lease"), time.monotonic() + 1)
        if not heard and self.settings.rest_login:
            self.push(job)

    def conclude(self, hook: Hook, answer: Answer) -> Answer:
        """Settle the answer of a turn; the answer that stands."""
        with suppress(StoreUnavailable):
            key, value = hook.cell(f"{hook.turn}:result"), json.dumps(asdict(answer))
            return stored_answer(self.cells().settle(key, value)) or answer
        return answer

    def consult(self, job: Job) -> Answer:
        """Ask until there is an answer, the backend fails for good, or nobody is there to hear it."""
        until = time.monotonic() + job.asked.at + PATIENCE - time.time()
        known, ended, history = self.remember(job.hook)
        for pause in (*PAUSES, 0):
            if known or ended:
                break
            try:
                moment = min(time.monotonic() + ATTEMPT, until)
                return self.ask(job.hook, job.asked, history, moment)
            except BackendFailed as error:
                log("error", "backend failed", call=job.hook.call_sid, cause=str(error))
                if error.final or not pause or time.monotonic() + pause > until:
                    break
            time.sleep(pause)
            known, ended, _ = self.remember(job.hook)
        return known or Answer(failed=True)

    def remember(self, hook: Hook) -> tuple[Answer | None, bool, list[dict[str, str]]]:
        """What Redis knows by now: an answer, that the caller is gone, what was said so far."""
        turns = range(max(1, hook.turn - HISTORY + 1), hook.turn + 1)
        keys = [hook.cell(f"{hook.turn}:result"), hook.cell("end"), *map(hook.cell, turns)]
        try:
            result, end, *past = self.cells().read(*keys)
        except StoreUnavailable:
            return None, False, []
        records = [record for record in map(read_record, past) if record]
        history = [{"heard": r.heard or r.keys, "said": r.said[:SPOKEN]} for r in records]
        return stored_answer(result), end is not None, history

    def ask(
        self, hook: Hook, asked: Asked, history: Sequence[Mapping[str, str]], until: Moment
    ) -> Answer:
        """One attempt at the backend. Raises BackendFailed."""
        question = {
            "call_sid": hook.call_sid,
            "turn": hook.turn,
            "from": hook.caller,
            "to": hook.called,
            "heard": asked.heard.speech,
            "confidence": asked.heard.confidence,
            "digits": asked.heard.keys,
            "language": self.settings.language,
            "history": history,
        }
        body = self.post(question, f"{hook.call_sid}:{hook.turn}", until)
        return read_answer(body, self.plan.numbers)

    def post(self, message: Mapping[str, Any], key: str, until: Moment) -> bytes:
        """Send the backend a message; its answer's body. Raises BackendFailed."""
        try:
            body = json.dumps(message).encode()
            status, answer = self.wire.post(body, until, Idempotency_Key=key)
        except (OSError, HTTPException) as error:
            raise BackendFailed(cause(error)) from None
        if not 200 <= status < 300:
            again = status >= 500 or status in (408, 425, 429)
            raise BackendFailed(f"it answered {status}", final=not again)
        return answer

    def ask_once(self, hook: Hook, asked: Asked, until: Moment) -> Answer:
        """Redis is away: one attempt, within the webhook. Failed if no answer comes in time."""
        if not self.waits.acquire(blocking=False):
            return Answer(failed=True)
        try:
            return self.ask(hook, asked, [], until)
        except BackendFailed as error:
            log("error", "backend failed", call=hook.call_sid, cause=str(error))
            return Answer(failed=True)
        finally:
            self.waits.release()

    def keep(self) -> None:
        """Renew the leases of all jobs, as long as there are any. Only what is surely ours still."""
        while True:
            time.sleep(LEASE / 4)
            with self.lock:
                jobs = list(self.jobs.values())
                self.keeping = bool(jobs)
            if not jobs:
                return
            for job in jobs:
                self.renew(job)

    def renew(self, job: Job) -> None:
        now, key = time.monotonic(), job.hook.cell(f"{job.hook.turn}:lease")
        with suppress(Exception):
            if now < job.renewed + LEASE and self.store.renew(key, LEASE, now + 1) == job.owner:
                job.renewed = now

    def give_back(self) -> None:
        """A graceful stop: others need not wait until our leases have run out."""
        with self.lock:
            jobs = list(self.jobs.values())
        for job in jobs:
            now = time.monotonic()
            with suppress(Exception):
                if now < job.renewed + LEASE:
                    self.store.drop(job.hook.cell(f"{job.hook.turn}:lease"), now + 1)

    def push(self, job: Job) -> None:
        """Fetch the caller out of the hold, unless the answer is being spoken or nobody is there."""
        hook, cells = job.hook, self.cells()
        try:
            spoken_, end = cells.read(hook.cell(hook.turn + 1), hook.cell("end"))
            if spoken_ or end or cells.settle(hook.cell(f"{hook.turn}:voice"), "push") != "push":
                return
            back = way_back(self.settings, hook.turn, job.asked.step, hold=1, pushed=1)
            redirect_call(self.settings, hook.call_sid, hook.base + back)
        except Exception as error:  # the caller's next look brings the answer all the same
            log("error", "push failed", call=hook.call_sid, turn=hook.turn, cause=cause(error))

    def tell(self, hook: Hook, event: str, **more: Any) -> bool:
        """Bring the backend an event, at least once: until `sent` stands. False: not yet."""
        message = {
            "event": event,
            "call_sid": hook.call_sid,
            "from": hook.caller,
            "to": hook.called,
        }
        for pause in (*PAUSES, 0):
            try:
                self.post(message | more, f"{hook.call_sid}:{event}", time.monotonic() + ATTEMPT)
                with suppress(StoreUnavailable):
                    self.cells().settle(hook.cell(f"{event}:sent"), "1")
                return True
            except BackendFailed as error:
                log("error", f"event {event} failed", call=hook.call_sid, cause=str(error))
                if error.final:
                    break
            time.sleep(pause)
        return False

    def waits_for(self, told: Future[bool], until: Moment) -> bool:
        """Whether events have arrived, waiting for that if a thread is free. TimeoutError."""
        waits = self.waits.acquire(blocking=False)
        try:
            return told.result(timeout=max(until - time.monotonic(), 0) if waits else 0)
        finally:
            if waits:
                self.waits.release()

    def tell_soon(self, hook: Hook, events: Mapping[str, Mapping[str, Any]]) -> Future[bool]:
        """Bring events in the background, in order. The future: whether all of them arrived."""
        done: Future[bool] = Future()
        if not self.hands.acquire(blocking=False):
            done.set_result(False)
            return done

        def bring() -> None:
            try:
                done.set_result(
                    all([self.tell(hook, name, **more) for name, more in events.items()])
                )
            except Exception as error:
                done.set_exception(error)
            finally:
                self.hands.release()

        in_background(bring)
        return done


def in_background(work: Callable[..., None], *arguments: Any) -> None:
    """Run something beside the server; it does not keep the process from ending."""
    threading.Thread(target=work, args=arguments, daemon=True).start()


def redirect_call(settings: Settings, call_sid: str, url: str) -> None:
    """Send a live call to a URL. The library is loaded only now: it takes long, and few need it.

    429 means "never processed, safe to repeat" (https://www.twilio.com/docs/api/errors/20429);
    21220, that the call is over, which is fine.
    """
    from twilio.base.exceptions import TwilioRestException
    from twilio.http.http_client import TwilioHttpClient
    from twilio.rest import Client

    login = settings.rest_login or ("", "")
    http = TwilioHttpClient(timeout=5)
    client = Client(*login, account_sid=settings.account_sid, http_client=http)
    for pause in (0.5, 1, 2, 0):
        try:
            client.calls(call_sid).update(url=url, method="POST")
            return
        except TwilioRestException as error:
            if error.code == 21220:
                return
            if error.status != 429 or not pause:
                raise
        time.sleep(pause)


# ---- page --------------------------------------------------------------------------------------
# A call as a readable timeline, from its settled cells alone.

STYLE: Final = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:46rem;margin:2rem auto;padding:0 1rem}"
    "h1{font-size:1.2rem;overflow-wrap:anywhere}ol{padding:0;list-style:none}"
    "li{border-left:3px solid #c5ccd6;padding:.2rem 0 .8rem 1rem}small{color:#556}"
    "q{font-style:italic}p{margin:.2rem 0}"
)
POLICY: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def timeline(records: Sequence[Record], end: Mapping[str, Any]) -> dict[str, Any]:
    """A call as JSON: its turns in order, its recording, its end."""
    turns = [
        {**asdict(record), "turn": record.call.turn, "step": record.call.step} for record in records
    ]
    for turn in turns:
        del turn["call"], turn["twiml"]
    recording = next((r.call.recording for r in reversed(records) if r.call.recording), "")
    return {"turns": turns, "recording": recording, "end": end}


def page(call_sid: str, known: Mapping[str, Any]) -> str:
    """The timeline for people: what was asked, heard and decided, and how long it took."""
    rows = []
    for turn in known["turns"]:
        moment = datetime.fromtimestamp(turn["at"], UTC).strftime("%H:%M:%S UTC")
        brought = [f"<q>{escape(turn['heard'])}</q>"] if turn["heard"] else []
        brought += [f"keys {escape(turn['keys'])}"] if turn["keys"] else []
        brought += [f"transfer: {escape(turn['dial'])}"] if turn["dial"] else []
        held = f", held {turn['hold']} times" if turn["hold"] else ""
        rows.append(
            f"<li><small>{turn['turn']} · {moment} · {turn['ms']} ms{held} · "
            f"{escape(turn['asker'] or 'the call')} → {escape(turn['step'])}</small>"
            f"<p>{' · '.join(brought) or '<small>nothing heard</small>'}</p>"
            f"<p><b>{escape(turn['said'])}</b></p></li>"
        )
    link = escape(known["recording"], quote=True)
    recording = f'<p><a href="{link}" rel="noreferrer">Recording</a></p>' if link else ""
    end = known["end"]
    over = (
        f"Ended: {escape(str(end.get('status', '')))}, {end.get('seconds', 0)} s"
        if end
        else "Not ended"
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{call_sid}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style>'
        f"<h1>{call_sid}</h1><ol>{''.join(rows)}</ol>{recording}<p>{over}</p></html>"
    )


# ---- line --------------------------------------------------------------------------------------
# The paths, and the way of one webhook.

VOICE_PATHS: Final = ("/", "/voice", "/voice/inbound", "/webhook/voice")


class Line:
    """A phone line: one environment, one store, no state of any call."""

    def __init__(self, env: Mapping[str, str]) -> None:
        settings = read_settings(env)
        table = flow(settings)
        self.settings = replace(settings, problems=(*settings.problems, *dead_ends(table)))
        self.plan = Plan(table, settings.words, settings.numbers)
        self.store: Store = (
            RedisStore(settings.redis_url, settings.redis_token)
            if settings.redis_url
            else FileStore(settings.state_file)
        )
        self.desk = Desk(self.settings, self.plan, self.store)
        self.overrides = connection_overrides(settings.deadline)
        self.health: tuple[Moment, str] = (0.0, "")
        if self.settings.problems:
            log("error", "not ready: " + "; ".join(self.settings.problems))

    def answer(self, request: Request) -> Response:
        """Any request, answered. Never raises; a caller always gets words."""
        began = time.monotonic()
        try:
            return self.route(request, began)
        except Rejected as refusal:
            return plain(refusal.status, refusal.reason, **refusal.headers)
        except Exception as error:
            log(
                "error",
                "a bug: apologised to the caller",
                path=request.path[:80],
                cause=cause(error),
            )
            return twiml(render_apology(self.settings, self.plan))

    def route(self, request: Request, began: Moment) -> Response:
        """Find what a path asks for; 413, 404 or 405 before anything else is looked at."""
        request.max_content_length = LARGEST_BODY
        try:
            request.get_data()
        except RequestEntityTooLarge:
            raise Rejected(413, f"A body may have {LARGEST_BODY} bytes.") from None
        path = request.path
        if path == "/healthz":
            return self.report_health(request)
        if match := re.fullmatch("/calls/(CA[0-9a-fA-F]{32})", path):
            return self.show(request, match[1])
        if path not in (*VOICE_PATHS, "/voice/process", "/voice/status", "/voice/fallback"):
            raise Rejected(404, "There is nothing at this path.")
        allow(request, "POST")
        hook = parse(request, self.settings, verify(self.settings, request))
        cells = Cells(self.store, began + 0.9 * self.settings.deadline)
        match path:
            case "/voice/status":
                return self.end(hook, cells)
            case "/voice/process":
                hook = at_turn(hook, requested_url(self.settings, request)[1])
            case "/voice/fallback":
                hook = self.fallen(hook, request.form)
            case _:
                pass
        return twiml(Visit(self, hook, cells, began).answer())

    def fallen(self, hook: Hook, form: Mapping[str, str]) -> Hook:
        """The webhook that failed, as ErrorUrl names it. Nobody spoke just now, so ask again."""
        url = form.get("ErrorUrl", "")
        log("error", "a webhook failed", call=hook.call_sid, code=form.get("ErrorCode", "")[:9])
        hook = replace(hook, heard=replace(hook.heard, again=True))
        path = urlsplit(url).path or "/"
        if path not in (*VOICE_PATHS, "/voice/process"):
            raise Rejected(400, "ErrorUrl is none of this line's URLs.")
        return at_turn(hook, url) if path == "/voice/process" else hook

    def end(self, hook: Hook, cells: Cells) -> Response:
        """The call is over: settle that, bring the backend what it must know, log a summary.

        204 says that all is taken care of. If the backend has not got its events by the deadline,
        503 makes Twilio ask once more (with rp=all in the URL), whatever becomes of this instance.
        """
        over = {"status": hook.status, "seconds": hook.seconds, "at": time.time()}
        with suppress(StoreUnavailable):
            over = json.loads(cells.settle(hook.cell("end"), json.dumps(over)))
        log(
            "error" if cells.lost else "info",
            "call ended",
            call=hook.call_sid,
            **over,
            degraded=cells.lost or None,
            caller=masked(hook.caller),
        )
        if not self.settings.backend_url:
            return Response(status=204)
        events = self.untold(hook, over, cells)
        told = self.desk.tell_soon(hook, events) if events else None
        return (
            Response(status=204) if not told or self.told(told, cells) else plain(503, "Not yet.")
        )

    def untold(self, hook: Hook, over: Mapping[str, Any], cells: Cells) -> dict[str, Any]:
        """The events of a call that the backend has not got yet."""
        keys = [hook.cell(name) for name in ("voicemail", "voicemail:sent", "ended:sent")]
        try:
            message, told, ended = cells.read(*keys)
        except StoreUnavailable:
            message, told, ended = None, None, None
        events: dict[str, Any] = {}
        if message and not told:
            events["voicemail"] = json.loads(message)
        if not ended:
            events["ended"] = {"status": over["status"], "seconds": over["seconds"]}
        return events

    def told(self, told: Future[bool], cells: Cells) -> bool:
        """Whether the events have arrived; waits for that in few threads and not for long."""
        with suppress(TimeoutError):
            return self.desk.waits_for(told, cells.until)
        return False

    def show(self, request: Request, call_sid: str) -> Response:
        """The page of a call, for whoever knows ADMIN_TOKEN (HTTP Basic, any user name)."""
        allow(request, "GET", "HEAD")
        if not self.settings.admin_token:
            raise Rejected(404, "There is nothing at this path.")
        given = request.authorization.password if request.authorization else None
        if not hmac.compare_digest((given or "").encode(), self.settings.admin_token.encode()):
            raise Rejected(401, "Who are you?", WWW_Authenticate='Basic realm="calls"')
        cells = Cells(self.store, time.monotonic() + self.settings.deadline)
        names = [*range(1, LAST_TURN + 2), "end"]
        try:
            *values, end = cells.read(*(f"call:{call_sid}:{name}" for name in names))
        except StoreUnavailable as error:
            raise Rejected(503, f"The store does not answer: {error}") from None
        known = timeline([r for r in map(read_record, values) if r], json.loads(end or "{}"))
        if not known["turns"]:
            raise Rejected(404, "No such call, or it is more than a day ago.")
        if request.accept_mimetypes.best_match(["text/html", "application/json"]) == "text/html":
            return Response(
                page(call_sid, known), content_type="text/html; charset=utf-8", headers=POLICY
            )
        return Response(json.dumps(known), content_type="application/json", headers=POLICY)

    def report_health(self, request: Request) -> Response:
        """200 when the settings are complete and the store writes, else 503 and what is wrong."""
        allow(request, "GET", "HEAD")
        problems = [*self.settings.problems]
        if not any("UPSTASH" in problem for problem in problems):
            problems += filter(None, [self.store_problem()])
        report = {"ok": not problems, "problems": problems}
        headers = {"Cache-Control": "no-store"}
        body = json.dumps(report, indent=1) + "\n"
        return Response(body, 503 if problems else 200, headers, content_type="application/json")

    def store_problem(self) -> str:
        """What is wrong with the store, asked at most every five seconds: anybody may look."""
        asked, problem = self.health
        if time.monotonic() - asked < 5 and asked:
            return problem
        cells = Cells(self.store, time.monotonic() + self.settings.deadline)
        try:
            cells.settle("health", "well", ttl=60)
            problem = ""
        except StoreUnavailable as error:
            where = "Redis at UPSTASH_REDIS_REST_URL" if self.settings.redis_url else "STATE_FILE"
            problem = f"{where} cannot be written: {error}"
            log("error", problem)
        self.health = (time.monotonic(), problem)
        return problem


class Visit:
    """One webhook of a call on its way through the line, and what the log will say of it."""

    def __init__(self, line: Line, hook: Hook, cells: Cells, began: Moment) -> None:
        self.line, self.hook, self.cells, self.began = line, hook, cells, began
        self.settings, self.plan, self.desk = line.settings, line.plan, line.desk
        self.away = False  # the store did not say how the call stands: nothing will be settled
        self.trail: dict[str, object] = {}

    def answer(self) -> str:
        """The TwiML, and a line in the log."""
        hook = self.hook
        try:
            return self.turn()
        finally:
            words = (
                {"words": hook.heard.speech, "keys": hook.heard.keys}
                if self.settings.log_words
                else {}
            )
            log(
                "error" if self.cells.lost else "info",
                "webhook",
                call=hook.call_sid,
                turn=hook.turn,
                **self.trail,
                ms=self.ms(),
                redis_ms=round(self.cells.seconds * 1000, 1),
                commands=self.cells.commands,
                degraded=self.cells.lost or None,
                caller=hook.caller if self.settings.log_words else masked(hook.caller),
                **words,
            )

    def turn(self) -> str:
        """The path of one webhook."""
        call, settled, asked = self.look()
        if settled:
            self.trail["replayed"] = True
            return settled.twiml
        if self.away and self.hook.hold and self.hook.hold < len(HOLDS):
            return self.hold(Hold(), self.hook.step)  # the question is out of reach, not yet lost
        heard = self.heard(asked)
        after, reply = decide(self.plan, call, heard)
        if isinstance(reply.step, Consult):
            asked = asked or Asked(heard, time.time(), after.step)
            outcome = self.consult(asked)
            if isinstance(outcome, Hold):
                return self.hold(outcome, after.step)
            heard = replace(heard, answer=outcome)
            after, reply = decide(self.plan, replace(after, turn=call.turn), heard)
        return self.settle(call, heard, after, reply)

    def look(self) -> tuple[Call, Record | None, Asked | None]:
        """How the call stands, the answer of this turn if there is one, and an open question."""
        hook, n = self.hook, self.hook.turn
        if n == 0:
            return Call(), None, None
        keys = [n, n + 1, *([f"{n}:asked"] if hook.hold else [])]
        try:
            half = self.began + 0.5 * self.settings.deadline
            values = self.cells.read(*map(hook.cell, keys), until=half)
            settled = read_record(values[1])
            if not settled and not values[0]:
                values[0] = self.cells.look_again(hook.cell(n))
        except StoreUnavailable:
            self.away = True
            return Call(turn=n, step=hook.step), None, None
        record = read_record(values[0]) or Record(call=Call(turn=n, step=hook.step))
        asked = stored_question(values[2]) if hook.hold else None
        return replace(record.call, turn=n), settled, asked

    def heard(self, asked: Asked | None) -> Heard:
        """What the caller said: in this webhook or, on hold, before it."""
        hook = self.hook
        if asked:
            return asked.heard
        if hook.turn == 0:
            return replace(hook.heard, entrance=self.entrance())
        return replace(hook.heard, again=True) if hook.hold else hook.heard

    def entrance(self) -> str:
        """The step at which a new call begins."""
        if self.hook.caller in self.settings.blocked:
            return "blocked"
        if self.settings.calls_per_hour and self.too_many():
            return "too_many"
        return "closed" if self.settings.hours.closed(time.time()) else "start"

    def too_many(self) -> bool:
        """Whether a caller has used up an hour's calls: as many cells, each with one CallSid."""
        if not re.fullmatch(E164, self.hook.caller):
            return False
        secret = self.settings.tokens[0].encode()
        who = hmac.new(secret, self.hook.caller.encode(), "sha256").hexdigest()[:32]
        places = [f"caller:{who}:{i}" for i in range(self.settings.calls_per_hour)]
        with suppress(StoreUnavailable):
            taken = self.cells.read(*places)
            if self.hook.call_sid in taken:
                return False
            free = [place for place, sid in zip(places, taken, strict=True) if not sid]
            mine = self.hook.call_sid
            return not any(self.cells.settle(place, mine, ttl=3600) == mine for place in free)
        return False

    def consult(self, asked: Asked) -> Answer | Hold:
        """The backend's answer to what the caller said, or how to hold."""
        hook, until = self.hook, self.began + 0.75 * self.settings.deadline
        if not self.away:
            try:
                value = json.dumps(asdict(asked))
                asked = (
                    stored_question(self.cells.settle(hook.cell(f"{hook.turn}:asked"), value))
                    or asked
                )
                return self.desk.answer(hook, asked, self.cells, until)
            except StoreUnavailable:
                self.away = True
        return self.desk.ask_once(hook, asked, until)

    def hold(self, outcome: Hold, step: str) -> str:
        """Not yet: words and a pause, then Twilio comes back to this same turn."""
        hook = self.hook
        self.trail["held"] = hook.hold + 1
        more = {"hold": hook.hold + 1} | ({"pushed": 1} if outcome.silent else {})
        back = way_back(self.settings, hook.turn, step, **more)
        nth = -1 if outcome.silent else hook.hold
        return render_hold(self.settings, self.plan, back, nth)

    def announce(self, recording: str) -> None:
        """Tell the backend of a voicemail; settled first, so that the message outlives us."""
        message = {"recording_url": recording}
        with suppress(StoreUnavailable):
            self.cells.settle(self.hook.cell("voicemail"), json.dumps(message))
        self.desk.tell_soon(self.hook, {"voicemail": message})

    def settle(self, call: Call, heard: Heard, after: Call, reply: Reply) -> str:
        """Settle what is said now; say what stands."""
        hook = self.hook
        if after.recording != call.recording and self.settings.backend_url:
            self.announce(after.recording)
        said = render(self.settings, self.plan, after, reply)
        self.trail |= {"from": call.step or None, "to": after.step}
        if self.away:
            return said
        record = Record(
            call=after,
            twiml=said,
            asker=call.step,
            heard=heard.speech,
            keys=heard.keys,
            dial=heard.dial,
            said=" ".join(reply.says)[:SAID],
            at=time.time(),
            ms=self.ms(),
            hold=hook.hold,
        )
        mine = written(record)
        try:
            stood = self.cells.settle(hook.cell(after.turn), mine)
        except StoreUnavailable:
            return said
        standing = read_record(stood)
        self.trail["replayed"] = stood != mine or None
        return standing.twiml if standing else said

    def ms(self) -> int:
        return round((time.monotonic() - self.began) * 1000)


def allow(request: Request, *methods: str) -> None:
    """Refuse any other method, and say which would do."""
    if request.method not in methods:
        raise Rejected(405, f"Use {methods[0]}.", Allow=", ".join(methods))


def plain(status: int, reason: str, **headers: str) -> Response:
    """A sentence as plain text."""
    more = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(reason + "\n", status, more, content_type="text/plain; charset=utf-8")


def twiml(document: str) -> Response:
    """TwiML, with the content type that Twilio parses."""
    return Response(document, content_type="text/xml; charset=utf-8")


# The server reads THREADS after it has loaded this file.
os.environ.setdefault("THREADS", str(THREADS))

if __name__ == "__main__":  # as Nixpacks and Railpack start it when nobody tells them how
    sys.argv = ["functions-framework", "--target=handler", f"--source={__file__}"]
    runpy.run_module("functions_framework", run_name="__main__")
else:
    LINE: Final = Line(os.environ)


def handler(request: Request) -> Response:
    """The function that functions-framework serves: every path of the line."""
    return LINE.answer(request)
