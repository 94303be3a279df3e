"""The page of a call: who may see it, what it shows, and how a real browser shows it.

The browser is Chromium, headless, on a real process over HTTP; what it makes of the page is asked
of it with --dump-dom, and what people see with --screenshot.
"""

import json
import re
import struct
import time
import zlib
from base64 import b64encode
from collections.abc import Iterator
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Final

import pytest

from phone_line.cells import Cells
from standins.backend import Backend, Question, Reply, says
from standins.call import Phone
from standins.inside import ORIGIN, TOKEN, Inside, stored
from standins.instance import Instance
from standins.sentences import say
from standins.webhooks import Answer
from tools.pictures import browse

PASSWORD: Final = "let-me-see-it"
NOBODY: Final = "CA" + "0" * 32
SCRIPT: Final = "<script>document.title='owned'</script><img src=x onerror=alert(1)>"
MENU: Final = {
    "FORWARD_TO": "+15550100099",
    "DEPARTMENTS": "billing=+15550100001 lost_and-found=+15550100002",
}


def login(password: str, user: str = "anybody") -> dict[str, str]:
    """The header that a browser sends for a user and a password."""
    return {"Authorization": f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"}


@pytest.fixture
def line(tmp_path: Path) -> Inside:
    """A line with a menu, whose calls may be looked at."""
    return Inside({**MENU, "ADMIN_TOKEN": PASSWORD, "STATE_FILE": str(tmp_path / "calls")})


def eventful(phone: Phone) -> Phone:
    """A call with nonsense, silence, a doubt, a retry, a transfer that fails, and a message."""
    phone.ring()
    phone.say(SCRIPT)
    phone.silent()
    phone.say("billing", 0.2)
    phone.say("yes")
    phone.retry()
    phone.callee("no-answer")
    phone.leave_message()
    return phone


def shown(line: Inside, call_sid: str, accept: str = "text/html") -> Answer:
    """The page of a call, for whoever has the password."""
    return line.send("GET", f"/calls/{call_sid}", headers={**login(PASSWORD), "Accept": accept})


def told(line: Inside, call_sid: str) -> dict[str, Any]:
    """The same as JSON."""
    answer = shown(line, call_sid, "application/json")
    assert answer.kind == "application/json"
    found: dict[str, Any] = json.loads(answer.body)
    return found


# Who may see it.


def test_without_a_password_set_there_is_no_page(tmp_path: Path) -> None:
    """A line without ADMIN_TOKEN shows no call to anybody: 404, as for any other path."""
    closed = Inside({**MENU, "STATE_FILE": str(tmp_path / "calls")})
    call = eventful(closed.phone())
    for headers in ({}, login(""), login(PASSWORD)):
        answer = closed.send("GET", f"/calls/{call.call_sid}", headers=headers)
        assert answer.status == 404
        assert b"billing" not in answer.body


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({}, id="nothing"),
        pytest.param(login("let-me-see-it-"), id="another password"),
        pytest.param(login(""), id="no password"),
        pytest.param(login("", PASSWORD), id="the password as user"),
        pytest.param({"Authorization": f"Bearer {PASSWORD}"}, id="as a bearer"),
        pytest.param({"Authorization": "Basic !!"}, id="no base64"),
    ],
)
def test_the_password_is_asked_for(line: Inside, headers: dict[str, str]) -> None:
    """Without the right password: 401, in a way that makes a browser ask; no word of the call."""
    call = eventful(line.phone())
    answer = line.send("GET", f"/calls/{call.call_sid}", headers=headers)
    assert answer.status == 401
    assert answer.headers["WWW-Authenticate"].startswith("Basic realm=")
    assert b"billing" not in answer.body


def test_a_stranger_does_not_learn_which_calls_there_are(line: Inside) -> None:
    """Without the password a call that is there and one that is not are answered alike."""
    call = eventful(line.phone())
    there, not_there = (line.send("GET", f"/calls/{sid}") for sid in (call.call_sid, NOBODY))
    assert (there.status, there.body) == (not_there.status, not_there.body)


def test_the_page_is_only_read(line: Inside) -> None:
    """Another method than GET and HEAD is 405, and to look leaves no trace in the store."""
    call = eventful(line.phone())
    before = stored(Path(line.env["STATE_FILE"]))
    assert shown(line, call.call_sid).status == 200
    assert line.send("POST", f"/calls/{call.call_sid}", headers=login(PASSWORD)).status == 405
    assert stored(Path(line.env["STATE_FILE"])) == before


@pytest.mark.parametrize("call_sid", [NOBODY, "CA1", "*", "..%2Fhealthz", NOBODY + ":1"])
def test_a_call_that_is_not_there_is_404(line: Inside, call_sid: str) -> None:
    """What is no call, or is older than a day, is said to be none."""
    assert shown(line, call_sid).status == 404


def test_a_store_that_is_away_is_said() -> None:
    """Without its cells the page is 503 in a sentence."""
    away = {"UPSTASH_REDIS_REST_URL": "http://127.0.0.1:1", "UPSTASH_REDIS_REST_TOKEN": "hush"}
    answer = shown(Inside({**away, "ADMIN_TOKEN": PASSWORD}), NOBODY)
    assert answer.status == 503
    assert b"store does not answer" in answer.body
    assert b"hush" not in answer.body


def test_a_moment_that_is_none_is_left_out(line: Inside) -> None:
    """A cell of which a part makes no sense is shown without that part."""
    key = f"call:{NOBODY}:1"
    cells = Cells(line.line.line.store, time.monotonic() + 5)
    cells.settle(key, '{"turn": 1, "twiml": "<Response/>", "at": 1e999}')
    answer = shown(line, NOBODY)
    assert answer.status == 200
    assert b"Thursday, 01 January 1970" in answer.body


@pytest.mark.parametrize("header", ["Basic \xff", "Basic /w==", "Basic", "Basic \xe9:x", "\xff"])
def test_a_login_that_is_no_text_is_refused(header: str, tmp_path: Path) -> None:
    """A stranger at the page of a call is asked who that is, whatever the header holds."""
    here = Inside({"STATE_FILE": str(tmp_path / "calls"), "ADMIN_TOKEN": PASSWORD})
    page = here.send("GET", f"/calls/{NOBODY}", headers={"Authorization": header})
    assert page.status == 401


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE"])
def test_without_a_password_there_is_no_page(tmp_path: Path, method: str) -> None:
    """No method tells that a page of calls could exist."""
    here = Inside({"STATE_FILE": str(tmp_path / "calls")})
    assert here.send(method, f"/calls/{NOBODY}").status == 404


# What it shows.


def test_the_whole_call_is_told_as_json(line: Inside) -> None:
    """The page has all turns in order, with the time, repeats, transfer and message."""
    call = told(line, eventful(line.phone()).call_sid)
    turns = call["turns"]
    assert [turn["turn"] for turn in turns] == [1, 2, 3, 4, 5, 6, 7]
    assert [(turn["asker"], turn["step"]) for turn in turns] == [
        ("", "menu"),
        ("menu", "menu"),
        ("menu", "menu"),
        ("menu", "menu"),
        ("menu", "to_billing"),
        ("to_billing", "voicemail"),
        ("voicemail", "message_taken"),
    ]
    assert [turn["heard"] for turn in turns] == ["", SCRIPT, "", "billing", "yes", "", ""]
    assert turns[3]["said"].startswith(say("did_you_say", name="billing"))
    assert turns[5]["dial"] == "no-answer"
    assert [turn["repeated"] for turn in turns] == [False] * 4 + [True] + [False] * 2
    assert [turn["message"] for turn in turns] == [False] * 6 + [True]
    assert re.fullmatch(
        rf"{ORIGIN}/recordings/AC\w+/RE\w+\?until=\d+&signature=\w+", call["recording"]
    )
    assert call["end"]["status"] == "completed"
    assert all(turn["ms"] >= 0 and turn["at"] > 1_000_000_000 for turn in turns)


def test_a_call_that_is_not_over_can_be_seen(line: Inside) -> None:
    """A look in the middle of a call shows what there is."""
    phone = line.phone()
    phone.ring()
    assert told(line, phone.call_sid)["end"] == {}
    assert "not over yet" in shown(line, phone.call_sid).body.decode()


def test_neither_who_was_dialled_nor_twiml_is_shown(line: Inside) -> None:
    """The owner sees who called; whose phone was rung, and how, is nobody's to read."""
    call = eventful(line.phone())
    for accept in ("text/html", "application/json"):
        body = shown(line, call.call_sid, accept).body.decode()
        assert call.caller in body
        assert "+15550100" not in body
        assert "Gather" not in body


class Reader(HTMLParser):
    """The tags of a page, their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def test_what_a_caller_says_is_text(line: Inside) -> None:
    """A caller who says a script is quoted: the page has no tag and no attribute of theirs."""
    page = Reader(shown(line, eventful(line.phone()).call_sid).body.decode())
    assert SCRIPT in page.text
    assert not {"script", "img"} & {*page.tags}
    sources = [value for name, value in page.attributes if name == "src"]
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert all(str(source).startswith("/recordings/") for source in sources)


def test_every_part_of_a_record_is_text(line: Inside) -> None:
    """Whatever stands in a cell, in whichever field, is shown as text and becomes no tag."""
    texts = ("step", "asker", "heard", "keys", "dial", "said", "recording", "status")
    tags = {name: f'<i onclick="{name}">"' for name in texts}
    record = {"turn": 1, "twiml": "<Response/>", **tags}
    cells = Cells(line.line.line.store, time.monotonic() + 5)
    cells.settle(f"call:{NOBODY}:1", json.dumps(record))
    cells.settle(f"call:{NOBODY}:end", json.dumps({"status": tags["status"], "seconds": 1}))
    page = Reader(shown(line, NOBODY).body.decode())
    assert [name for name in texts if tags[name] not in page.text] == ["recording"]
    assert "recording" not in str([value for name, value in page.attributes if name == "href"])
    assert "i" not in page.tags


def test_a_recording_that_is_no_link_is_no_link(line: Inside) -> None:
    """Only what begins with http can be clicked, whatever a webhook says is a recording."""
    phone = line.phone()
    phone.ring()
    phone.say("billing")
    phone.callee("busy")
    fields = {**phone.webhooks[-1].form, "RecordingUrl": "javascript:alert(1)"}
    line.post("/voice/process?turn=3&step=voicemail", fields)
    assert b"javascript" not in shown(line, phone.call_sid).body


def test_the_policy_allows_one_style_and_nothing_else(line: Inside) -> None:
    """The browser may load nothing and run nothing; even styles only if they are this one."""
    answer = shown(line, eventful(line.phone()).call_sid)
    policy = answer.headers["Content-Security-Policy"]
    [style] = re.findall(r"<style>(.*?)</style>", answer.body.decode(), re.DOTALL)
    digest = b64encode(sha256(style.encode()).digest()).decode()
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules == {
        "default-src": "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "media-src": "'self'",
        "style-src": f"'sha256-{digest}'",
    }
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"


def test_the_page_brings_everything_along(line: Inside) -> None:
    """The only addresses in it are the list's and the recording's, both ours; it is small."""
    answer = shown(line, eventful(line.phone()).call_sid)
    page = Reader(answer.body.decode())
    links = [value for name, value in page.attributes if name in ("href", "src", "action")]
    recording = told(line, page_sid(page))["recording"].removeprefix(ORIGIN)
    assert {*links} == {"/calls", recording}
    assert "url(" not in answer.body.decode()
    assert len(answer.body) < 10_000


def page_sid(page: Reader) -> str:
    """The CallSid that a page is about."""
    named: set[str] = {*re.findall("CA[0-9a-f]{32}", page.text)}
    assert len(named) == 1
    return named.pop()


def test_a_call_of_another_release_is_shown(line: Inside) -> None:
    """A record with fields missing, and with some that nobody knows, is shown as far as it goes."""
    cells = Cells(line.line.line.store, time.monotonic() + 5)
    cells.settle(f"call:{NOBODY}:1", '{"turn": 1, "step": "x", "twiml": "<R/>", "new": [1]}')
    [turn] = told(line, NOBODY)["turns"]
    assert turn["step"] == "x"
    assert shown(line, NOBODY).status == 200


# In a browser.


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    """A real process with a menu."""
    state = tmp_path_factory.mktemp("state") / "calls"
    env = {"TWILIO_AUTH_TOKEN": TOKEN, "ADMIN_TOKEN": PASSWORD, "STATE_FILE": str(state)}
    with Instance({**env, **MENU}) as running:
        yield running


@pytest.fixture(scope="module")
def call(instance: Instance) -> Phone:
    """A call that was made there."""
    return eventful(Phone(instance.url, token=TOKEN))


def address(instance: Instance, call: Phone) -> str:
    """The page's address with the password in it, as it can be typed into a browser."""
    host = instance.url.removeprefix("http://")
    return f"http://operator:{PASSWORD}@{host}/calls/{call.call_sid}"


@pytest.mark.long
@pytest.mark.needs("chromium")
@pytest.mark.xdist_group("browser")
def test_a_browser_shows_the_call(instance: Instance, call: Phone, tmp_path: Path) -> None:
    """Chromium logs in, and its page has the whole conversation, as text."""
    dom = browse(tmp_path, address(instance, call), "--dump-dom")
    page = Reader(dom)
    for words in (
        call.call_sid,
        say("greeting"),
        SCRIPT,
        "nothing said",
        say("did_you_say", name="billing"),
        "menu → to_billing",
        "repeated",
        "transfer: no-answer",
        "a message is recorded",
        "recording",
        "completed after",
    ):
        assert words in page.text
    assert "owned" not in re.findall("<title>(.*?)</title>", dom)
    assert page.tags.count("li") == 7


@pytest.mark.long
@pytest.mark.needs("chromium")
@pytest.mark.xdist_group("browser")
def test_a_browser_applies_the_style(instance: Instance, call: Phone, tmp_path: Path) -> None:
    """The policy lets the page's own style through: the column is narrow, in the middle."""
    wide = pixels(screenshot(tmp_path, address(instance, call), "1400,200"))
    ink = [any(pixel != row[0] for pixel in row[150:250]) for row in wide]
    column = [any(pixel != row[0] for pixel in row[350:1050]) for row in wide]
    assert not any(ink)
    assert sum(column) > 20


@pytest.mark.long
@pytest.mark.needs("chromium")
@pytest.mark.xdist_group("browser")
def test_a_browser_shows_it_in_the_dark(instance: Instance, call: Phone, tmp_path: Path) -> None:
    """Whoever prefers a dark screen gets one; everybody else a bright one."""
    dark = "--blink-settings=preferredColorScheme=0"
    for option, brightness in (("--mute-audio", range(200, 256)), (dark, range(60))):
        rows = pixels(screenshot(tmp_path, address(instance, call), "500,100", option))
        assert all(part in brightness for part in rows[-1][-1][:3])


def screenshot(folder: Path, url: str, size: str, *options: str) -> bytes:
    """The picture that people see, as PNG."""
    picture = folder / "page.png"
    browse(folder, url, f"--window-size={size}", f"--screenshot={picture}", *options)
    return picture.read_bytes()


def pixels(png: bytes) -> list[list[tuple[int, ...]]]:
    """The rows of a picture with 8 bits for each part of a pixel, as Chromium writes it."""
    width, height, _depth, kind = struct.unpack(">IIBB", png[16:26])
    size = {2: 3, 6: 4}[kind]
    place, packed = 8, b""
    while place < len(png):
        (length,) = struct.unpack(">I", png[place : place + 4])
        if png[place + 4 : place + 8] == b"IDAT":
            packed += png[place + 8 : place + 8 + length]
        place += length + 12
    raw, rows, before = zlib.decompress(packed), [], bytes(width * size)
    for start in range(0, height * (width * size + 1), width * size + 1):
        before = unfiltered(raw[start], raw[start + 1 : start + 1 + width * size], before, size)
        rows.append([tuple(before[i : i + size]) for i in range(0, width * size, size)])
    return rows


def unfiltered(kind: int, row: bytes, above: bytes, size: int) -> bytes:
    """One row of a PNG as it was before it was filtered."""
    found = bytearray(row)
    for i in range(len(found)):
        left, corner = (found[i - size], above[i - size]) if i >= size else (0, 0)
        guess = left + above[i] - corner
        ways = (0, left, above[i], (left + above[i]) // 2)
        nearest = min((left, above[i], corner), key=lambda each: abs(guess - each))
        found[i] = (found[i] + (nearest if kind == 4 else ways[kind])) % 256
    return bytes(found)


def test_a_call_on_hold_is_shown(tmp_path: Path) -> None:
    """What the backend took long for is seen on the page, with how often the caller was held."""

    def decide(question: Question) -> Reply:
        time.sleep(1.2 if question.heard else 0)
        return says("Your parcel comes tomorrow.", then="hangup")

    with Backend(decide) as backend:
        state = {"STATE_FILE": str(tmp_path / "calls"), "ADMIN_TOKEN": PASSWORD}
        line = Inside({**state, "BACKEND_URL": backend.url, "RESPONSE_DEADLINE": "1"})
        phone = line.phone()
        phone.ring()
        phone.say("where is my parcel")
        phone.clock.pace = 0.5
        while phone.state == "hold":
            phone.wait()
        known = told(line, phone.call_sid)
        page = shown(line, phone.call_sid).body.decode()
    last = known["turns"][-1]
    assert (last["heard"], last["said"]) == ("where is my parcel", "Your parcel comes tomorrow.")
    assert last["hold"] >= 1
    assert f"holds: {last['hold']}" in page
