"""Values of settings: which are possible, and what each means.

Each function takes the text of a variable and returns what it stands for. It raises ValueError for
what it does not understand; whoever asked knows what to expect instead (`settings.py`).
"""

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import urlsplit

Check = Callable[[str], Any]  # what a value means; a ValueError if it means nothing

TOKEN: Final = "[!-~]+"
WORD: Final = r"[\w.-]+"
HEX32: Final = "[0-9a-f]{32}"
LETTER: Final = r"[^\x00-\x1f\x7f\ud800-\udfff]"  # no control character, no half of one
E164: Final = r"\+[1-9][0-9]{6,14}"
SIP: Final = r"sips?:[A-Za-z0-9_.+-]{1,64}@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*(:[1-9][0-9]{1,4})?"
MOST_PHONES: Final = (
    10  # Twilio rings as many at once (https://www.twilio.com/docs/voice/twiml/dial)
)
MOST_DEPARTMENTS: Final = len("123456789")
# What stands in place of a token, in examples, in templates and in haste. Twilio's own tokens are
# 32 hex digits: with more or fewer of them, something was lost when they were copied.
PLACEHOLDER: Final = re.compile(
    r"your|example|change.?me|token|secret.?here|placeholder|replace|insert|fill.?(me|in)|password"
    r"|dummy|xxx|\*\*|\.\.\.|<|>|\"|'|`"
    r"|^(none|null|nil|undefined|todo|tbd|test|foo|bar|n/?a)$|^(.)\3+$|^-$"
    rf"|^(?!{HEX32}$)[0-9a-f]{{24,}}$|^[a-z]{{2}}{HEX32}$",
    re.IGNORECASE,
)


def matching(pattern: str) -> Check:
    """A check that all of a value matches a pattern."""

    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(value)
        return value

    return check


def between(low: float, high: float, kind: type[Any] = int) -> Check:
    """A check that the value is a number of a kind from `low` to `high`."""

    def check(value: str) -> Any:  # noqa: ANN401 # an int or a float, as the table asks
        number = kind(value)
        if not low <= number <= high:
            raise ValueError(value)
        return number

    return check


def one_of(*words: str) -> Check:
    """A check that the value is one of some words."""

    def check(value: str) -> str:
        if value not in words:
            raise ValueError(value)
        return value

    return check


def read_tokens(value: str) -> tuple[str, ...]:
    """Auth tokens with commas between. A SID or a placeholder is none: every call would be 403."""
    tokens = tuple(token.strip() for token in value.split(","))
    for token in tokens:
        if PLACEHOLDER.search(token) or not re.fullmatch(TOKEN, token):
            raise ValueError(value)
    return tokens


def read_origins(value: str) -> tuple[str, ...]:
    """Origins with commas between, each `https://host[:port]`; http only for this machine."""
    hosts = r"https://[A-Za-z0-9_.-]+|http://(localhost|127\.0\.0\.1)"
    origins = []
    for given in value.split(","):
        origin = given.strip().rstrip("/")
        found = re.fullmatch(f"({hosts})(:([1-9][0-9]{{0,4}}))?", origin)
        if not found or int(found[4] or 1) > 65535:
            raise ValueError(value)
        origins.append(origin)
    return tuple(origins)


def read_address(value: str) -> str:
    """Any http or https URL with a host."""
    url = urlsplit(matching("https?://[!-~]+")(value))
    if not url.hostname or url.port == 0:
        raise ValueError(value)
    return value


def read_phones(value: str) -> tuple[str, ...]:
    """Phone numbers in E.164 or SIP addresses, up to ten with commas between."""
    phones = tuple(phone.strip() for phone in value.split(","))
    for phone in phones:
        if not re.fullmatch(f"{E164}|{SIP}", phone):
            raise ValueError(value)
    if len(phones) > MOST_PHONES or len({*phones}) != len(phones):
        raise ValueError(value)
    return phones


def read_departments(value: str) -> Mapping[str, tuple[str, ...]]:
    """`billing=+15550100001 cancel=+15550100002,+15550100003`: names and phones, in order.

    lost-found and lost_found are spoken alike, so they are one name.
    """
    departments: dict[str, tuple[str, ...]] = {}
    spoken: set[str] = set()
    for pair in re.sub(r"\s*,\s*", ",", value).split():
        name, equals, phones = pair.partition("=")
        words = name.lower().replace("_", "-")
        if not equals or not re.fullmatch(r"[^\W\d][\w-]*", name) or words in spoken:
            raise ValueError(value)
        spoken.add(words)
        departments[name.lower()] = read_phones(phones)
    if not 0 < len(departments) <= MOST_DEPARTMENTS:
        raise ValueError(value)
    return MappingProxyType(departments)


def read_blocked(value: str) -> frozenset[str]:
    """Phone numbers, and the word `anonymous`, with spaces between."""
    check = matching(f"{E164}|anonymous")
    return frozenset(check(caller) for caller in value.split())
