"""The wire between Twilio and the function: how one webhook is signed and delivered once.

    answer = http_deliver(url, fields, {"X-Twilio-Signature": sign(token, signed_url(url), fields)})

`Limits.of(url)` reads the connection overrides in a URL's fragment. How often an attempt is
repeated is the call's business (asking.py). What one attempt may take stands in `LIMITS` while it
is under way: a test's own `deliver`, which sends a webhook elsewhere, can end in `http_deliver`.
Source: https://www.twilio.com/docs/usage/webhooks/webhooks-connection-overrides and
https://www.twilio.com/docs/usage/security for the signature.
"""

import hmac
import http.client
import re
import time
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Final, NamedTuple
from urllib.parse import parse_qsl, urldefrag, urlencode, urlsplit

from standins.twiml import MOST_BYTES
from standins.twiml_tables import link

Fields = list[tuple[str, str]]
CAP_SECONDS: Final = 15.0  # "imposed by Twilio on all call-related HTTP requests", retries included


@dataclass(frozen=True)
class Answer:
    """An answer; `seconds` counts from the first byte sent to the last one received."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float = 0.0

    @property
    def kind(self) -> str:
        """The media type, without parameters; empty when there is none."""
        found = {name.lower(): value for name, value in self.headers.items()}
        return found.get("content-type", "").split(";")[0].strip().lower()


class Ask(NamedTuple):
    """The source of the next document, with the fields that the last verb adds."""

    url: str
    fields: Sequence[tuple[str, str]] = ()


class Failed(Exception):
    """An attempt or a document that Twilio gives up on: `kind` is the word for it in `rp`."""

    def __init__(self, code: int, words: str, kind: str = "", seconds: float = 0.0) -> None:
        super().__init__(words)
        self.code, self.words, self.kind, self.seconds = code, words, kind, seconds


@dataclass(frozen=True)
class Limits:
    """Connection overrides, in seconds; the defaults are Twilio's."""

    ct: float = 5.0
    rt: float = CAP_SECONDS
    tt: float = CAP_SECONDS
    rc: int = 1
    rp: frozenset[str] = frozenset({"ct"})

    @classmethod
    def of(cls, url: str) -> "Limits":
        """Reads the fragment of a URL; what is not valid there keeps its default."""
        given = dict(parse_qsl(urldefrag(url).fragment)) if link(url) is None else {}
        seconds = {name: int(given[name]) / 1000 for name in ("ct", "rt", "tt") if name in given}
        policy = frozenset(given["rp"].split(",")) if "rp" in given else cls.rp
        return cls(**seconds, rc=int(given.get("rc", cls.rc)), rp=policy)

    def within(self, left: float) -> "Limits":
        return replace(self, ct=min(self.ct, left), rt=min(self.rt, left), tt=min(self.tt, left))

    def retry(self, kind: str) -> bool:
        return kind in self.rp or ("all" in self.rp and kind in {"ct", "rt", "4xx", "5xx"})


Deliver = Callable[[str, Fields, Mapping[str, str]], Answer]
LIMITS: ContextVar[Limits] = ContextVar("LIMITS", default=Limits())  # noqa: B039 (it is frozen)
"""The limits of the attempt under way; `http_deliver` obeys them, also inside another `deliver`."""


STAGES: Final = {"ct": "no connection", "rt": "no answer", "partial": "half an answer"}


def http_deliver(url: str, fields: Fields, headers: Mapping[str, str]) -> Answer:
    """POSTs one webhook over a new connection. Raises Failed when no whole answer comes in time."""
    limits, started = LIMITS.get(), time.monotonic()
    parts = urlsplit(url)
    https = parts.scheme == "https"
    connect = http.client.HTTPSConnection if https else http.client.HTTPConnection
    connection = connect(parts.hostname or "", parts.port, timeout=limits.ct)
    stage = "ct"
    try:
        connection.connect()
        stage = "rt"
        connection.sock.settimeout(limits.rt)
        target = url.split(parts.netloc, 1)[1] or "/"
        connection.request("POST", target, urlencode(fields).encode(), dict(headers))
        response = connection.getresponse()
        stage = "partial"
        body = _body(connection, response, started)
    except (OSError, http.client.HTTPException) as error:
        why = f"{STAGES[stage]} ({type(error).__name__})"
        raise Failed(11205, why, stage, time.monotonic() - started) from error
    finally:
        connection.close()
    return Answer(response.status, dict(response.getheaders()), body, time.monotonic() - started)


def _body(
    connection: http.client.HTTPConnection, response: http.client.HTTPResponse, started: float
) -> bytes:
    """Reads up to the size that Twilio refuses, within the time that is left."""
    limits, body = LIMITS.get(), b""
    while len(body) <= MOST_BYTES and (some := response.read1(16384)):
        body += some
        left = limits.tt - (time.monotonic() - started)
        if left <= 0:
            raise TimeoutError("the answer dripped for too long")
        if connection.sock:
            connection.sock.settimeout(min(limits.rt, left))
    if response.length and len(body) <= MOST_BYTES:  # read1 takes an early end for the end
        raise http.client.IncompleteRead(body, response.length)
    return body


def sign(token: str, url: str, fields: Fields) -> str:
    """X-Twilio-Signature: HMAC-SHA1 over the URL and the sorted fields, repeats taken once."""
    pairs = sorted(set(fields))
    text = url + "".join(name + value for name, value in pairs)
    return b64encode(hmac.new(token.encode(), text.encode(), "sha1").digest()).decode()


def signed_url(url: str) -> str:
    """The text that Twilio signs: no fragment, no user:password, and over https no port."""
    bare = urldefrag(url).url
    host = urlsplit(bare).netloc.rpartition("@")[2]
    if bare.startswith("https:"):
        host = re.sub(r":\d+$", "", host)
    return bare.replace(urlsplit(bare).netloc, host, 1)
