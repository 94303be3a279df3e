"""Recordings through the real server: slow readers keep no caller waiting, and a browser plays.

The server runs the function with a stand-in for Twilio's media hosts, put there by a program of the
test's own, and with shorter times.
"""

import socket
import subprocess
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from html import escape
from http.client import HTTPConnection, IncompleteRead
from pathlib import Path
from typing import Final

import pytest

from phone_line.links import link_recording
from phone_line.settings import read_settings
from standins.backend import until
from standins.call import Phone
from standins.inside import TOKEN
from standins.instance import ROOT, Instance, free_port
from standins.media import RECORDING, Fault, Media, silence
from standins.rows import mostly_long
from standins.timing import LATE

MINUTE: Final = silence(60)
PASSWORD: Final = "let-me-see-it"
LOGIN: Final = {"Authorization": f"Basic {b64encode(f'x:{PASSWORD}'.encode()).decode()}"}
PATIENCE: Final = 2  # seconds, in place of ten and sixty

PROGRAM: Final = """
import struct, sys
sys.path[:0] = [{root!r}]
from phone_line import reception, recordings, server
recordings.SOURCE = recordings.Source({media!r}, lambda url: url.startswith({media!r}), None)
recordings.PLAYING = {patience!r}
reception.READER_PATIENCE = struct.pack("ll", {patience!r}, 0)
from main import LINE, handler
server.guard(LINE.settings.threads, 1)
"""


class Served(Instance):
    """The function, with a stand-in for Twilio's media hosts."""

    def __init__(self, media: Media, folder: Path, **env: str) -> None:
        program = folder / "served.py"
        text = PROGRAM.format(root=str(ROOT), media=media.url, patience=PATIENCE)
        program.write_text(text, "utf-8")
        port = free_port()
        served = ["--target=handler", f"--source={program}", f"--port={port}"]
        self.program = ["-m", "functions_framework", *served]
        usual = {"TWILIO_AUTH_TOKEN": TOKEN, "STATE_FILE": str(folder / "calls"), "THREADS": "16"}
        super().__init__({**usual, "ADMIN_TOKEN": PASSWORD, **env}, port)


@pytest.fixture
def media() -> Iterator[Media]:
    """Twilio's media hosts, with a minute of silence."""
    with Media() as media:
        media.keep(RECORDING, MINUTE)
        yield media


@pytest.fixture
def instance(media: Media, tmp_path: Path) -> Iterator[Served]:
    with Served(media, tmp_path) as instance:
        yield instance


def link() -> str:
    """The path of a link to the recording."""
    return link_recording(read_settings({"TWILIO_AUTH_TOKEN": TOKEN}), RECORDING, time.time())


def get(instance: Instance, target: str, **headers: str) -> tuple[int, bytes]:
    """The body that a client gets; an IncompleteRead if that is not all."""
    with closing(HTTPConnection("127.0.0.1", instance.port, timeout=20)) as client:
        client.request("GET", target, headers=headers)
        answer = client.getresponse()
        return answer.status, answer.read()


def ask_and_not_read(instance: Instance, target: str) -> socket.socket:
    """A client that wants a recording and then takes nothing of it."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    sock.connect(("127.0.0.1", instance.port))
    sock.sendall(f"GET {target} HTTP/1.1\r\nHost: line\r\n\r\n".encode())
    return sock


def test_a_recording_is_served(instance: Served) -> None:
    """The whole of it, and parts, over a real connection."""
    assert get(instance, link()) == (200, MINUTE)
    assert get(instance, link(), Range="bytes=1000-1999") == (206, MINUTE[1000:2000])


@pytest.mark.long
def test_slow_readers_keep_no_caller_waiting(instance: Served, media: Media) -> None:
    """Twenty who take nothing: callers are answered at once, and soon the places are free again."""
    media.keep(RECORDING, silence(1200))  # more than the system's buffers hold
    with ExitStack() as connections:
        for _ in range(20):
            connections.enter_context(ask_and_not_read(instance, link()))
        assert until(lambda: len(media.asked) == 4)
        assert get(instance, link())[0] == 503
        began = time.monotonic()
        phone = Phone(instance.url, token=TOKEN)
        phone.ring()
        phone.say("my invoice")
        assert phone.state == "record"
        assert time.monotonic() - began < 1 + LATE
        media.keep(RECORDING, MINUTE)
        assert until(lambda: get(instance, link())[0] == 200, 5 * PATIENCE)


@pytest.mark.parametrize("fault", mostly_long({"cut": "cut", "drip": "drip"}, "cut"))
def test_a_browser_sees_that_a_recording_broke_off(
    instance: Served, media: Media, fault: Fault
) -> None:
    """Half a recording is not taken for the whole, and the server's log has no stack trace."""
    media.fault = fault
    with pytest.raises(IncompleteRead):
        get(instance, link())
    assert "Traceback" not in instance.output()
    assert any(entry["message"] == "a recording broke off" for entry in instance.log())


def test_the_servers_log_has_no_link(instance: Served, media: Media) -> None:
    """Neither the server nor the framework writes the address of a request."""
    get(instance, link())
    media.fault = 500
    get(instance, link())
    get(instance, link().replace("signature=", "signature=0"))
    assert "signature" not in instance.output()


@contextmanager
def browsing(chromium: str, folder: Path, address: str) -> Iterator[None]:
    """A while in which a browser looks at an address."""
    quiet = (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
    )
    silent = ("--mute-audio", "--autoplay-policy=no-user-gesture-required")
    profile = f"--user-data-dir={folder / 'profile'}"
    debug = "--remote-debugging-port=0"  # or it would end with the page's last script
    command = [chromium, *quiet, *silent, profile, debug, address]
    browser = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        browser.terminate()
        browser.wait()


@pytest.mark.long
@pytest.mark.needs("chromium")
def test_a_browser_plays_and_seeks(
    instance: Served, media: Media, chromium: str, tmp_path: Path
) -> None:
    """Chromium knows how long the recording is, and jumps to its middle by a range."""
    page = tmp_path / "page.html"
    tell = f"what => new Image().src = '{media.url}/told/' + what"
    page.write_text(
        f"""<audio src="{escape(instance.url + link())}"></audio><script>
        const audio = document.querySelector("audio"), tell = {tell};
        audio.onloadedmetadata = () => {{ audio.currentTime = 30; }};
        audio.onseeked = () => tell(`${{audio.currentTime}}of${{Math.round(audio.duration)}}`);
        audio.onerror = () => tell(audio.error.message);
        </script>""",
        "utf-8",
    )
    with browsing(chromium, tmp_path, page.as_uri()):
        assert until(lambda: any(asked.path.startswith("/told/") for asked in media.asked), 40)
    assert "/told/30of60" in [asked.path for asked in media.asked]
    assert any(asked.range.startswith("bytes=") for asked in media.asked)


@pytest.mark.long
@pytest.mark.needs("chromium")
def test_a_browser_opens_a_link(instance: Served, chromium: str, tmp_path: Path) -> None:
    """One tap on the link: the browser shows its own player, and no download."""
    quiet = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    command = [chromium, *quiet, profile, "--dump-dom", instance.url + link()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=True)
    assert "<video" in done.stdout
    assert 'type="audio/mpeg"' in done.stdout
