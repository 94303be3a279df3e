"""A stand-in for the hosts at which Twilio keeps recordings: its API, and the storage behind it.

    with Media() as media, changed(recordings, SOURCE=media.source):
        media.keep(RECORDING, silence(14))      # until then it is 404, as in the first seconds
        media.leads_to = media.storage          # an answer to a login is a redirect, without it
        media.fault = "drip"                    # see Fault; None is good health
        ...
        assert media.asked[0].login == "AC...:token"

Like Twilio the API answers 401 without the account's login; like S3 the storage answers 400 to a
request that has one, because it has a signature in its address already. Both send ranges, unless
`ranges` is off. Source: https://www.twilio.com/docs/voice/api/recording, "fetch a recording's
media file".
"""

import re
import threading
import time
from base64 import b64decode
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final, Literal, NamedTuple, Self, cast

from phone_line.recordings import Source

ACCOUNT: Final = "AC" + "0123456789abcdef" * 2
SID: Final = "RE" + "89abcdef01234567" * 2
RECORDING: Final = f"https://api.twilio.com/2010-04-01/Accounts/{ACCOUNT}/Recordings/{SID}"
KEPT_AT: Final = r"/2010-04-01/Accounts/(AC\w{32})/Recordings/(RE\w{32})\.mp3"
Fault = Literal["drip", "huge", "endless", "cut", "hang", "web page"] | int | None  # or a status
CIRCLE: Final = "/storage/circle"  # leads to itself
HUGE: Final = 5_000_000_000  # bytes
FRAME: Final = b"\xff\xfb\x90\x64" + bytes(413)  # of MP3, 26 ms of silence
FRAMES_A_SECOND: Final = 38.28


def silence(seconds: float) -> bytes:
    """A recording in which nobody speaks, as MP3 that browsers play."""
    return FRAME * round(seconds * FRAMES_A_SECOND)


class Asked(NamedTuple):
    """One request: its path, its login as `user:password`, its range."""

    path: str
    login: str
    range: str


class Media:
    """Both hosts, on one real HTTP server."""

    def __init__(self, login: str = f"{ACCOUNT}:secret") -> None:
        self.login = login
        self.recordings: dict[str, bytes] = {}
        self.leads_to = ""
        self.ranges = True
        self.fault: Fault = None
        self.asked: list[Asked] = []
        self.closing = threading.Event()
        self.sent = 0  # bytes of all answers

    def __enter__(self) -> Self:
        self._server = Door(self)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.storage = f"{self.url}/storage/{SID}?signed=1"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def source(self) -> Source:
        """These hosts in place of Twilio's. Redirects are followed on this server alone."""
        return Source(self.url, may_follow=self.is_here, check_address=None)

    @property
    def strict(self) -> Source:
        """This API in place of Twilio's; what it leads to is judged as Twilio's is."""
        return Source(self.url)

    def is_here(self, url: str) -> bool:
        """Tell whether a URL leads to this server."""
        return url.startswith(self.url)

    def keep(self, recording_url: str, content: bytes) -> None:
        """Have a recording ready, from now on."""
        self.recordings[recording_url.rpartition("/")[2]] = content


class Handler(BaseHTTPRequestHandler):
    """The handler of one connection."""

    protocol_version = "HTTP/1.1"

    @property
    def media(self) -> Media:
        return cast("Door", self.server).media

    def do_GET(self) -> None:
        scheme, _, encoded = self.headers.get("Authorization", "").partition(" ")
        login = b64decode(encoded).decode() if scheme == "Basic" else ""
        self.media.asked.append(Asked(self.path, login, self.headers.get("Range", "")))
        with suppress(ConnectionError):
            if self.path.startswith("/storage/"):
                self.answer_storage(login)
            else:
                self.answer_api(login)

    def answer_api(self, login: str) -> None:
        found = re.fullmatch(KEPT_AT, self.path)
        if not found:
            self.send(404, b"")
        elif login != self.media.login:
            self.send(401, b'{"code": 20003}', kind="application/json")
        elif found[2] not in self.media.recordings:
            self.send(404, b'{"code": 20404}', kind="application/json")
        elif self.media.leads_to:
            self.send(307, b"", location=self.media.leads_to)
        else:
            self.send_recording(self.media.recordings[found[2]])

    def answer_storage(self, login: str) -> None:
        if self.path == CIRCLE:
            self.send(302, b"", location=CIRCLE)
        elif login:
            self.send(400, b"<Error>Only one auth mechanism allowed</Error>", kind="text/xml")
        else:
            self.send_recording(next(iter(self.media.recordings.values())))

    def send_recording(self, content: bytes) -> None:
        """Send a recording, or what a fault makes of it."""
        match self.media.fault:
            case None:
                self.send_part(content)
            case int() as status:
                self.send(status, b"no")
            case "web page":
                self.send(200, b"<script>alert(1)</script>", kind="text/html")
            case "hang":
                self.media.closing.wait(60)
                self.close_connection = True
            case "drip":
                self.send_slowly(content)
            case "cut":
                self.begin(200, len(content))
                self.write(content[: len(content) // 2])
                self.close_connection = True
            case "huge":
                self.begin(200, HUGE)
                self.send_without_end()
            case "endless":
                self.begin(200, None)
                self.send_without_end()

    def send_part(self, content: bytes) -> None:
        """Send a recording, or the range of it that is asked for."""
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if not asked or not self.media.ranges:
            self.send(200, content)
            return
        first, last = asked.groups()
        begin = int(first) if first else max(0, len(content) - int(last))
        end = min(int(last) if first and last else len(content) - 1, len(content) - 1)
        if begin > end:
            self.send(416, b"", content_range=f"bytes */{len(content)}")
            return
        place = f"bytes {begin}-{end}/{len(content)}"
        self.send(206, content[begin : end + 1], content_range=place)

    def send_slowly(self, content: bytes) -> None:
        """Send a byte every twentieth of a second."""
        self.begin(200, len(content))
        for byte in content:
            if self.media.closing.wait(0.05):
                return
            self.write(bytes([byte]))

    def send_without_end(self) -> None:
        """Send for as long as somebody takes it, in chunks if no length was given."""
        piece = FRAME * 100
        end = time.monotonic() + 30
        while not self.media.closing.is_set() and time.monotonic() < end:
            self.write(piece)

    def begin(self, status: int, length: int | None) -> None:
        """Send the head of an answer; without a length it goes on until the connection ends."""
        self.send_response(status)
        self.send_header("Content-Type", "audio/mpeg")
        if length is None:
            self.send_header("Connection", "close")
            self.close_connection = True
        else:
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def send(
        self,
        status: int,
        body: bytes,
        kind: str = "audio/mpeg",
        location: str = "",
        content_range: str = "",
    ) -> None:
        """Send a whole answer."""
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if location:
            self.send_header("Location", location)
        if content_range:
            self.send_header("Content-Range", content_range)
        self.end_headers()
        self.write(body)

    def write(self, piece: bytes) -> None:
        self.media.sent += len(piece)
        self.wfile.write(piece)

    def log_message(self, *_: object) -> None:
        return


class Door(ThreadingHTTPServer):
    """Where requests come in."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, media: Media) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.media = media
