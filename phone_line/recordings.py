"""A recording is played: fetched at Twilio with the account's login, and passed on to a browser.

- The login goes to Twilio's API and nowhere else. A redirect is followed without it, over https, to
  Twilio's hosts or Amazon's S3, where Twilio keeps recordings, and there to a public address only.
- A stream has a place, a time and a size, because it keeps a thread from answering callers: slow
  readers, and robots that look at every link in a chat, get a part of the threads and no more.
- What Twilio answers is passed on piece by piece. A phone that seeks gets a range, from Twilio, or
  out of the whole where Twilio sends that.
"""

import re
import time
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from errno import EPIPE
from http.client import HTTPException as WireFault
from threading import Lock
from typing import Final, cast
from urllib.parse import urljoin, urlsplit

from flask import Request, Response
from werkzeug.exceptions import BadGateway, MethodNotAllowed, NotFound, ServiceUnavailable
from werkzeug.wsgi import ClosingIterator

from phone_line.connection import AddressCheck
from phone_line.deadline import Moment
from phone_line.http import Stream, open_stream
from phone_line.links import Recording, check_link
from phone_line.log import warn_sparingly, write_log
from phone_line.settings import Settings

LATEST: Final = 600  # seconds after a message in which Twilio may not have it ready; it takes a few
MOST_STREAMS: Final = 4
OPENING: Final = 8.0  # seconds until Twilio has begun to answer
PLAYING: Final = 60.0  # seconds for all of it: three minutes have 1.5 MB, for 200 kbit/s
LARGEST: Final = 32 * 1024 * 1024  # bytes; an hour has 14 MB
PIECE: Final = 16 * 1024  # bytes; a slow reader has some seconds for each (`reception.py`)
MOST_REDIRECTS: Final = 3
REDIRECTS: Final = (301, 302, 303, 307, 308)
METHODS: Final = ("GET", "HEAD")

RANGE: Final = r"bytes=(?:[0-9]{1,12}-[0-9]{0,12}|-[0-9]{1,12})"
# Twilio says that its media are at twiliocdn.com, and used to say S3. The names of its buckets are
# not documented: https://help.twilio.com/articles/223183748
FOLLOWED: Final = (
    r"(?:[a-z0-9-]+\.)*(?:twilio\.com|twiliocdn\.com|s3(?:[.-][a-z0-9-]+){0,3}\.amazonaws\.com)"
)
LOGIN_REFUSED: Final = (
    "Twilio refuses this line's login for recordings: set TWILIO_API_KEY and TWILIO_API_SECRET, or "
    "check that TWILIO_AUTH_TOKEN is the account's"
)


def show_recording(settings: Settings, request: Request, account: str, recording: str) -> Response:
    """Play a recording to whoever has a link to it. Raises werkzeug's exceptions, in plain words.

    The answer holds a place among the streams until it is closed.
    """
    if request.method not in METHODS:
        raise MethodNotAllowed(METHODS, "Use GET.")
    found, taken_at = check_link(settings, account, recording, request.args)
    with ExitStack() as held:
        held.enter_context(STREAMS.take_place(settings.threads))
        began = time.monotonic()
        stream = fetch_recording(settings, found, read_range(request), began + OPENING)
        held.callback(stream.close)
        if stream.status == 404:
            return show_missing(taken_at)
        response = pass_on(request, stream, began + PLAYING)
        # The server closes what it iterates over, and of a range nothing else (werkzeug).
        pieces = cast("Iterable[bytes]", response.response)
        response.response = ClosingIterator(pieces, held.pop_all().close)
        return response


def read_range(request: Request) -> str:
    """The range that is asked for, if it is one that can be passed on."""
    asked = request.headers.get("Range", "")
    return asked if re.fullmatch(RANGE, asked) else ""


# ---- the way to Twilio -------------------------------------------------------------------------


def leads_to_twilio(url: str) -> bool:
    """Tell whether a redirect may be followed: https, at its port, Twilio or its storage."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    if parts.scheme != "https" or port not in (None, 443) or "@" in parts.netloc:
        return False
    return bool(re.fullmatch(FOLLOWED, parts.hostname or ""))


def refuse_private(address: str) -> None:
    """Raise OSError for an IP address that is not public, however it is written."""
    from ipaddress import IPv6Address, ip_address

    found = ip_address(address.partition("%")[0])
    if isinstance(found, IPv6Address) and found.ipv4_mapped:
        found = found.ipv4_mapped
    if not found.is_global or found.is_multicast:
        raise OSError("a recording is at no private address")


@dataclass(frozen=True, slots=True)
class Source:
    """Where recordings are fetched. No setting can change it; tests put a stand-in in its place."""

    api: str = "https://api{edge}.twilio.com"
    may_follow: Callable[[str], bool] = leads_to_twilio
    check_address: AddressCheck | None = refuse_private


SOURCE: Source = Source()


def fetch_recording(
    settings: Settings, recording: Recording, asked_range: str, until: Moment
) -> Stream:
    """Open a recording at Twilio. Raises BadGateway, or ServiceUnavailable if Twilio is away."""
    place = f"/2010-04-01/Accounts/{recording.account}/Recordings/{recording.sid}.mp3"
    url = SOURCE.api.format(edge=recording.edge) + place
    headers = {"Accept": "audio/*"}
    if asked_range:
        headers["Range"] = asked_range
    try:
        stream = log_in(settings, recording, url, headers, until)
        stream = follow_redirects(stream, url, headers, until)
    except (OSError, WireFault, ValueError) as error:
        write_log("warning", "a recording cannot be fetched", cause=type(error).__name__)
        raise ServiceUnavailable("Twilio does not answer at the moment. Try again.") from None
    if stream.status in (200, 206, 404, 416):
        return stream
    stream.close()
    if stream.status in (401, 403):
        warn_sparingly("recordings", LOGIN_REFUSED)
        raise BadGateway("Twilio refuses this line's login; the log says more.")
    raise BadGateway(f"Twilio cannot play this recording: it answered {stream.status}.")


def log_in(
    settings: Settings, recording: Recording, url: str, headers: Mapping[str, str], until: Moment
) -> Stream:
    """Ask Twilio's API with a login that it accepts; while a token is rotated, there are two.

    Raises OSError, WireFault or ValueError.
    """
    logins = [(recording.account, token) for token in reversed(settings.twilio_auth_token)]
    if settings.twilio_api_key:
        logins = [(settings.twilio_api_key, settings.twilio_api_secret)]
    for name, secret in logins:
        login = b64encode(f"{name}:{secret}".encode()).decode()
        stream = open_stream(url, {**headers, "Authorization": f"Basic {login}"}, until)
        if stream.status != 401 or secret == logins[-1][1]:
            return stream
        stream.close()
    raise OSError("no login")


def follow_redirects(stream: Stream, url: str, headers: Mapping[str, str], until: Moment) -> Stream:
    """Go where an answer leads, without the login. Raises BadGateway where nobody should go."""
    for _ in range(MOST_REDIRECTS):
        if stream.status not in REDIRECTS:
            return stream
        stream.close()
        url = find_next(url, stream.headers.get("location", ""))
        if not SOURCE.may_follow(url):
            write_log("error", "a recording leads elsewhere", host=urlsplit(url).hostname)
            raise BadGateway("Twilio's answer leads to a place that is not Twilio's.")
        stream = open_stream(url, headers, until, SOURCE.check_address)
    if stream.status in REDIRECTS:
        stream.close()
        raise BadGateway("Twilio's answers lead in a circle.")
    return stream


def find_next(url: str, location: str) -> str:
    """The URL that an answer leads to; none for what is no URL."""
    try:
        return urljoin(url, location)
    except ValueError:
        return ""


# ---- the way back ------------------------------------------------------------------------------


def show_missing(taken_at: float) -> Response:
    """A page that tries again, for as long as Twilio may not have the recording ready."""
    from phone_line.pages import headers_for, render_waiting

    if time.time() > taken_at + LATEST:
        raise NotFound("Twilio has no such recording. It may have been deleted there.")
    return Response(render_waiting(), 404, headers_for("html"))


def pass_on(request: Request, stream: Stream, until: Moment) -> Response:
    """Twilio's answer as ours: type, length and range, and then piece by piece.

    Raises BadGateway for more than a recording can have, RequestedRangeNotSatisfiable.
    """
    length = stream.reader.length
    if length and length > LARGEST:
        raise BadGateway("This recording is too large to be played.")
    kind = stream.headers.get("content-type", "")
    headers = {
        "Content-Type": kind if kind.startswith("audio/") else "audio/mpeg",
        "Content-Disposition": "inline; filename=voicemail.mp3",
        "Cache-Control": "private, max-age=3600",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }
    if length:
        headers |= {"Content-Length": str(length), "Accept-Ranges": "bytes"}
    if "content-range" in stream.headers:
        headers["Content-Range"] = stream.headers["content-range"]
    pieces = read_pieces(stream, until)
    response = Response(pieces, stream.status, headers)
    if stream.status == 200 and length:
        response.make_conditional(request, accept_ranges=True, complete_length=length)
    return response


def read_pieces(stream: Stream, until: Moment) -> Iterator[bytes]:
    """The recording, as it comes. Raises BrokenPipeError if it breaks off, which hangs up."""
    left = LARGEST
    try:
        while piece := stream.read(min(PIECE, left), until):
            left -= len(piece)
            if left <= 0:
                raise WireFault("more than a recording can have")
            yield piece
    except (OSError, WireFault, ValueError) as error:
        write_log("warning", "a recording broke off", cause=type(error).__name__)
        raise BrokenPipeError(EPIPE, "the recording broke off") from None


class Streams:
    """The places of recordings that are being played."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.taken = 0

    @contextmanager
    def take_place(self, threads: int) -> Iterator[None]:
        """Hold one of the places: four, or a quarter of the threads. Raises ServiceUnavailable."""
        most = max(1, min(MOST_STREAMS, threads // 4))
        with self.lock:
            if self.taken >= most:
                reason = "Other recordings are being played. Try again in a minute."
                raise ServiceUnavailable(reason, retry_after=5)
            self.taken += 1
        try:
            yield
        finally:
            with self.lock:
                self.taken -= 1


STREAMS: Final = Streams()
