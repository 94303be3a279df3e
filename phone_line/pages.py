"""The page of a call and the list of calls, as HTML for the owner's browser.

Plain values in, HTML out: nothing here reads a store, a clock or a setting. The templates and the
style stand in `pages/` beside this file, so a deployment brings them along as it brings the code.

- Words, names and numbers come from callers. Whatever a template prints is cut and cleaned by
  `make_harmless`, then escaped by Jinja; a template adds <bdi>, which keeps right-to-left words
  from reordering what stands around them.
- A page runs nothing and loads nothing but recordings of this line. Its style stands in it, and
  the browser applies that style alone, because the policy names its hash.
- Records outlive releases: a field that is missing is empty or 0, and a number that is none is 0.
- Webhooks pay nothing: Jinja is set up, and a template compiled, when a page is first asked for.
"""

import re
from base64 import b64encode
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, tzinfo
from functools import cache
from hashlib import sha256
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple
from urllib.parse import quote, urlsplit

from werkzeug.datastructures import MIMEAccept
from werkzeug.http import parse_accept_header

if TYPE_CHECKING:
    from jinja2 import Environment

Kind = Literal["html", "json"]

FOLDER: Final = Path(__file__).with_name("pages")
MIME_TYPES: Final[Mapping[str, Kind]] = {"text/html": "html", "application/json": "json"}
CONTENT_TYPES: Final = {"html": "text/html; charset=utf-8", "json": "application/json"}
LONGEST: Final = 4_000  # letters of one value; a caller says some hundred
FURTHEST: Final = 1e11  # Unix seconds: no date is later, and datetime's calendar ends soon after

# The fields that the templates read, and what stands for one that is missing.
CALL: Final = {"call_sid": "", "from": "", "turns": (), "recording": "", "end": None}
WORDS: Final = {"transcript": "", "transcript_failed": False}  # of the message
END: Final = {"status": "", "seconds": 0}
TURN: Final = {
    "at": 0,  # Unix time
    "ms": 0,
    "asker": "",  # the step that had asked; none for a new call
    "step": "",
    "heard": "",
    "keys": "",
    "dial": "",
    "accepted": "",  # what came of the whisper, in words
    "message": False,
    "said": "",
    "hold": 0,
    "misses": 0,
    "repeated": False,
    "seconds": 0,  # that the backend took
    "usage": 0,  # tokens
}
ROW: Final = {
    "call_sid": "",
    "at": 0,  # Unix time
    "from": "",
    "department": "",
    "heard": "",
    "ended": "",
    "seconds": 0,
    "recording": "",
}

# Controls, half characters, line separators, and what turns the direction of the text around it;
# the marks that scripts and emoji need stay. Compiled when used: that costs most of a millisecond.
UNSAFE: Final = "[\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029\u202a-\u202e\u2066-\u2069]+"


def render_call(call: Mapping[str, Any], zone: tzinfo = UTC) -> str:
    """Render one call as a timeline: what was asked, heard and decided, and how long it took.

    `call` has the fields of `CALL` and `WORDS`, its turns those of `TURN`, and its end, which is
    empty while it goes on, those of `END`. Moments are Unix seconds and shown in `zone`.
    """
    turns = [{**TURN, **turn} for turn in call["turns"]]
    call = {**CALL, **WORDS, **call, "turns": turns}
    if call["end"]:
        call["end"] = {**END, **call["end"]}
    began = next((turn["at"] for turn in turns), 0)
    slowest = max((read_count(turn["ms"]) for turn in turns), default=0)
    return render("call.html", zone=zone, call=call, began=began, slowest=slowest)


def render_calls(listing: Mapping[str, Any], zone: tzinfo = UTC) -> str:
    """Render one page of the list of calls, newest first.

    `listing` has `calls`, `incomplete` (the store held more than was looked at), `page` (from 1)
    and `pages`; each call has the fields of `ROW`. `ended` is "talked", "voicemail", "missed" or
    "refused"; "" says that the call goes on, and any other words are shown as they are.
    """
    days = group_by_day([{**ROW, **row} for row in listing["calls"]], zone)
    return render("calls.html", zone=zone, listing=listing, days=days)


def render_waiting(seconds: int = 5) -> str:
    """Render "this recording is not there yet", which asks again by itself after so many seconds.

    A page that is left open asks for ever: whoever answers with it decides how long it makes sense.
    """
    return render("waiting.html", seconds=seconds)


def answer_kind(accept: str | None) -> Kind:
    """Choose between a page and JSON by an Accept header; a page where it names neither."""
    accepted = parse_accept_header(accept, MIMEAccept)
    return MIME_TYPES[accepted.best_match(MIME_TYPES, default="text/html")]


def headers_for(kind: Kind) -> dict[str, str]:
    """Headers of an answer of this kind: its type, the browser's policy, no cache, no referrer."""
    return {
        "Content-Type": CONTENT_TYPES[kind],
        "Content-Security-Policy": page_policy(),
        "Cache-Control": "no-store",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }


@cache
def page_policy() -> str:
    """Content-Security-Policy: this one style, recordings of this line, and nothing else.

    The hash is that of the text between <style> and </style>:
    https://www.w3.org/TR/CSP3/#external-hash
    """
    digest = b64encode(sha256(read_style().encode()).digest()).decode()
    rules = (
        "default-src 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "media-src 'self'",
        f"style-src 'sha256-{digest}'",
    )
    return "; ".join(rules)


@cache
def read_style() -> str:
    """The style of all pages, as it stands in them."""
    return (FOLDER / "style.css").read_text("utf-8")


# ---- templates ---------------------------------------------------------------------------------


def render(name: str, **values: object) -> str:
    """Fill in a template."""
    return open_templates().get_template(name).render(values)


@cache
def open_templates() -> "Environment":
    """Set Jinja up: everything escaped, everything printed made harmless first."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    templates = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        auto_reload=False,
        finalize=make_harmless,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.globals["style"] = Markup(read_style())  # noqa: S704 # our own file, not a value
    templates.filters["clock"] = show_clock
    templates.filters["since"] = show_since
    templates.filters["moment"] = read_moment
    templates.filters["number"] = read_number
    templates.filters["count"] = read_count
    templates.filters["tokens"] = count_tokens
    templates.filters["address"] = read_address
    templates.filters["page_of_call"] = page_of_call
    templates.filters["dialable"] = dialable
    return templates


def make_harmless(value: object) -> object:
    """Cut a value to a bearable length and blank out what is no text; markup of ours stays."""
    if hasattr(value, "__html__"):
        return value
    if value is None:
        return ""
    text = str(value)
    if len(text) > LONGEST:
        text = text[:LONGEST] + "…"
    return re.sub(UNSAFE, " ", text)


# ---- numbers and moments -----------------------------------------------------------------------


def read_number(value: object) -> float:
    """A number from 0 up to what a date can be; 0 for anything else."""
    if not isinstance(value, int | float):
        return 0
    if not 0 <= value <= FURTHEST:
        return 0
    return value


def read_count(value: object) -> int:
    """A number as `read_number` reads it, without its fraction."""
    return int(read_number(value))


def read_moment(value: object, zone: tzinfo = UTC) -> datetime:
    """Unix seconds as a moment in a zone."""
    return datetime.fromtimestamp(read_number(value), zone)


def show_clock(value: object) -> str:
    """Seconds as people read a length of time: 1:48, or 1:02:03."""
    minutes, seconds = divmod(read_count(value), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02}:{seconds:02}"
    return f"{minutes}:{seconds:02}"


def show_since(at: object, began: object) -> str:
    """The time from one moment to a later one, as `show_clock` shows it."""
    return show_clock(read_number(at) - read_number(began))


def count_tokens(usage: object) -> int:
    """Tokens of an answer: a number, or `total_tokens` of what a language model's service says."""
    if isinstance(usage, Mapping):
        usage = usage.get("total_tokens")
    return read_count(usage)


class Day(NamedTuple):
    """The calls of one day, newest first; `at` is the moment of the newest."""

    at: datetime
    calls: list[Mapping[str, Any]]


def group_by_day(calls: Iterable[Mapping[str, Any]], zone: tzinfo) -> list[Day]:
    """Sort calls, newest first, into the days of a zone."""
    dated = [(read_moment(call["at"], zone), call) for call in calls]
    dated.sort(key=itemgetter(0), reverse=True)
    days = []
    for _, group in groupby(dated, key=lambda pair: pair[0].date()):
        members = list(group)
        newest = members[0][0]
        days.append(Day(newest, [call for _, call in members]))
    return days


# ---- links -------------------------------------------------------------------------------------


class Address(NamedTuple):
    """Where a link leads, and whether that is a recording that this line plays."""

    href: str
    plays: bool


def read_address(link: object) -> Address | None:
    """Read the link of a recording. None unless it is one of this line, or on the web.

    A recording of this line is addressed by its path alone, so that it plays under each of the
    line's names: the policy lets a page play only what comes from where the page came from.
    """
    try:
        parts = urlsplit(str(link))
    except ValueError:
        return None
    if parts.path.startswith("/recordings/"):
        return Address(f"{parts.path}?{parts.query}", plays=True)
    if parts.scheme in ("http", "https"):
        return Address(parts.geturl(), plays=False)
    return None


def page_of_call(call_sid: object) -> str:
    """The path of a call's page."""
    return "/calls/" + quote(str(call_sid)[:100], safe="", errors="replace")


def dialable(caller: object) -> str:
    """A tel: link to a caller whose number is E.164; "" for any other."""
    if not re.fullmatch(r"\+[1-9][0-9]{5,14}", str(caller)):
        return ""
    return f"tel:{caller}"
