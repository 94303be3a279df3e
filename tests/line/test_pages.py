"""The pages as HTML: what they show, what hostile words do to them, what a browser makes of them.

No line and no store: plain values in, HTML out. Who may see a page, and what it says of a call that
was made, is tested in test_page.py.
"""

import re
import struct
import subprocess
import sys
import threading
import zlib
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import sha256
from html import escape
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, cast
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phone_line import pages
from standins.examples import STEADY, as_many
from tools import pictures

SID: Final = "CA" + "0" * 31 + "1"
AT: Final = 1_772_442_420.0  # 2026-03-02 09:07:00 UTC
OURS: Final = "/recordings/AC1/RE1?until=1&signature=x"
SCRIPT: Final = "<script>document.title='owned'</script><img src=x onerror=alert(1)>"

HOSTILE: Final = {
    "markup": SCRIPT,
    "an end of an attribute": "\" onclick='alert(1)' x=\"",
    "an end of the style": "</style></bdi></q><h1>owned</h1>",
    "a template": "{{ 7 * 191 }}{% include 'base.html' %}",
    "an entity": "&lt;b&gt;&#0;&amp",
    "control characters": "a\x00b\x07c\x1b[31md\x85e\u2028f",
    "a turn to the left": "pay \u202eevil\u202c \u2066now",
    "half a character": "a\ud83dz",
    "ten thousand letters": "x" * 10_000,
    "a pile of marks": "Z" + "\u0301" * 500,
}
NO_TEXT: Final = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff\u2028-\u202e\u2066-\u2069]")

ANY_TEXT: Final = st.text(st.characters(), max_size=20)  # half characters too
JSON: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT,
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2)
    ),
    max_leaves=4,
)
TURN_TEXTS: Final = ("asker", "step", "heard", "keys", "dial", "said", "accepted")
TURN_FIELDS: Final = (
    *TURN_TEXTS,
    *("at", "ms", "hold", "misses", "message", "repeated", "usage", "seconds"),
)
ROW_TEXTS: Final = ("call_sid", "from", "department", "heard", "ended")
ROW_FIELDS: Final = (*ROW_TEXTS, "at", "seconds", "recording")


def a_turn(**fields: object) -> dict[str, object]:
    """A turn in which the caller says nothing, with some fields otherwise."""
    words = {"asker": "menu", "step": "menu", "heard": "", "keys": "", "dial": "", "said": "Yes?"}
    numbers = {"turn": 1, "at": AT, "ms": 12, "hold": 0, "misses": 0}
    return {**words, **numbers, "message": False, "repeated": False, **fields}


def a_call(*turns: Mapping[str, object], **fields: object) -> dict[str, Any]:
    """A call that goes on, without a message, with some fields otherwise."""
    blanks = {"recording": "", "transcript": "", "end": {}}
    return {"call_sid": SID, "turns": list(turns) or [a_turn()], **blanks, **fields}


def a_row(**fields: object) -> dict[str, object]:
    """A row of the list: somebody talked to somebody for 3:20, with some fields otherwise."""
    who = {"call_sid": SID, "from": "+15550100123", "at": AT, "department": "billing"}
    what = {"heard": "my invoice", "ended": "talked", "seconds": 200, "recording": ""}
    return {**who, **what, **fields}


def a_listing(*rows: Mapping[str, object], **fields: object) -> dict[str, Any]:
    """The only page of a complete list, with some fields otherwise."""
    return {"calls": list(rows), "incomplete": False, "page": 1, "pages": 1, **fields}


class Reader(HTMLParser):
    """The tags of a page, their attributes, and its text: all of it, and what is not isolated."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.outside = ""
        self.inside: list[str] = []  # the open ones of these tags: bdi, title, style
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag in ("bdi", "title", "style"):
            self.inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self.inside and self.inside[-1] == tag:
            self.inside.pop()

    def handle_data(self, data: str) -> None:
        if "style" not in self.inside:
            self.text += data
        if not self.inside:
            self.outside += data

    def lines(self) -> list[str]:
        """The text as a reader sees it, without the space between tags."""
        return [" ".join(line.split()) for line in self.text.splitlines() if line.strip()]

    def values(self, name: str) -> list[str | None]:
        """Every value of an attribute, in order."""
        return [value for known, value in self.attributes if known == name]


def read_call(*turns: Mapping[str, object], **fields: object) -> Reader:
    return Reader(pages.render_call(a_call(*turns, **fields)))


def read_calls(*rows: Mapping[str, object], **fields: object) -> Reader:
    return Reader(pages.render_calls(a_listing(*rows, **fields)))


# The page of a call.


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        ({"heard": "my invoice"}, "my invoice"),
        ({"keys": "2"}, "pressed 2"),
        ({"dial": "no-answer"}, "transfer: no-answer"),
        ({"dial": "completed", "accepted": "not accepted"}, "not accepted"),
        ({"message": True}, "a message is recorded"),
        ({"message": True, "keys": "#"}, "a message is recorded"),
        ({"said": "Which department?"}, "Which department?"),
        ({}, "nothing said, no key"),
        ({"asker": ""}, "the call comes in"),
        ({"asker": "", "step": "open"}, "new call → open"),
        ({"asker": "menu", "step": "to_billing"}, "menu → to_billing"),
        ({"ms": 431}, "431 ms"),
        ({"hold": 3}, "holds: 3"),
        ({"misses": 2}, "misses: 2"),
        ({"repeated": True}, "repeated"),
        ({"seconds": 2.44}, "backend 2.4 s"),
        ({"usage": 812}, "812 tokens"),
        ({"usage": {"prompt_tokens": 700, "total_tokens": 812}}, "812 tokens"),
    ],
)
def test_a_turn_shows_what_happened_in_it(fields: dict[str, object], shown: str) -> None:
    """Each field of a turn is on the page in words, and not where the turn has no such field."""
    assert shown in " ".join(read_call(a_turn(**fields)).lines())
    plain = a_turn(asker="x", step="x", heard="x", said="")
    assert shown not in " ".join(read_call(plain).lines())


def test_a_turn_is_timed_from_the_first() -> None:
    """Each turn tells how long the call had lasted, and as an attribute the moment itself."""
    page = read_call(a_turn(), a_turn(at=AT + 108.9), a_turn(at=AT + 3_725))
    assert [line for line in page.lines() if re.fullmatch("[0-9:]+", line)] == [
        "0:00",
        "1:48",
        "1:02:05",
    ]
    moments = [datetime.fromisoformat(str(value)).timestamp() for value in page.values("datetime")]
    assert moments == [AT, AT, AT + 108.9, AT + 3_725]


def test_a_call_is_dated_in_utc_or_in_the_zone_of_the_line() -> None:
    """The heading says the zone; the attribute is the same moment in both."""
    utc = pages.render_call(a_call())
    berlin = pages.render_call(a_call(), ZoneInfo("Europe/Berlin"))
    assert {"Monday, 02 March 2026", "09:07:00 UTC ·"} <= {*Reader(utc).lines()}
    assert {"Monday, 02 March 2026", "10:07:00 CET ·"} <= {*Reader(berlin).lines()}
    moments = [Reader(page).values("datetime")[0] for page in (utc, berlin)]
    assert [datetime.fromisoformat(str(each)).astimezone(UTC).timestamp() for each in moments] == [
        AT,
        AT,
    ]


def test_a_call_says_how_it_ended() -> None:
    """The status and the length of a call that is over; of one that goes on, that it does."""
    over = read_call(end={"status": "completed", "seconds": 108, "at": AT})
    assert "completed after 1:48 ·" in over.lines()
    assert "not over yet ·" in read_call().lines()


def test_a_call_counts_its_answers() -> None:
    """The number of answers, and the slowest of them."""
    assert "1 answer, the slowest in 12 ms" in read_call().lines()
    page = read_call(a_turn(), a_turn(ms=90), a_turn())
    assert "3 answers, the slowest in 90 ms" in page.lines()


def test_a_field_that_is_missing_is_empty() -> None:
    """A record of another release, with no field at all, is shown as one whose fields are empty."""
    assert pages.render_call({"turns": [{}]}) == pages.render_call(
        {**pages.CALL, "turns": [pages.TURN]}
    )
    assert pages.render_calls(a_listing({})) == pages.render_calls(a_listing(pages.ROW))
    assert {"after 0:00 ·", "the call comes in"} <= {*read_call({}, end={"new": 1}).lines()}


def test_a_message_can_be_heard_and_read() -> None:
    """A message has a player that loads nothing by itself, a link, and its words."""
    page = pages.render_call(a_call(recording=OURS, transcript="Please call me back."))
    assert f'<audio controls preload="none" src="{escape(OURS)}">' in page
    assert f'<a href="{escape(OURS)}" rel="noreferrer">recording</a>' in page
    assert "Please call me back." in Reader(page).text
    assert "audio" not in read_call().tags
    assert "Message" not in read_call().text


@pytest.mark.parametrize(
    ("link", "href", "plays"),
    [
        (OURS, OURS, True),
        ("https://line.example" + OURS, OURS, True),
        ("https://api.twilio.com/2010-04-01/Recordings/RE1", None, False),
        ("javascript:alert(1)", "", False),
        ("data:audio/mpeg;base64,AAAA", "", False),
        ("file:///etc/passwd", "", False),
        ("http://[", "", False),
        (7, "", False),
    ],
)
def test_only_a_recording_of_this_line_plays(link: str, href: str | None, plays: bool) -> None:
    """Another web address is a link alone; what is no web address is nothing at all."""
    # A recording of this line is addressed by its path, so that it plays under any of its names.
    expected = [] if href == "" else [href or link]
    for page in (read_call(recording=link), read_calls(a_row(recording=link))):
        links = [each for each in page.values("href") if not str(each).startswith("/calls")]
        assert links == expected
        assert page.values("src") == (expected if plays else [])


# The list of calls.


def test_the_newest_call_comes_first() -> None:
    """Calls are sorted by their moment and parted by the day, whatever order they come in."""
    rows = [a_row(heard=f"call {i}", at=AT - i * 6 * 3600) for i in (2, 0, 3, 1)]
    page = read_calls(*rows)
    assert re.findall(r"call \d|Monday|Sunday", page.text) == [
        *("Monday", "call 0", "call 1"),
        *("Sunday", "call 2", "call 3"),
    ]
    assert page.tags.count("ol") == 2


def test_days_begin_at_midnight_of_the_zone() -> None:
    """A call late on Sunday in UTC is one of Monday in Berlin."""
    listing = a_listing(a_row(at=AT - 9.5 * 3600))
    assert "Sunday, 01 March 2026 UTC" in Reader(pages.render_calls(listing)).lines()
    page = Reader(pages.render_calls(listing, ZoneInfo("Europe/Berlin")))
    assert {"Monday, 02 March 2026 CET", "00:37"} <= {*page.lines()}


@pytest.mark.parametrize(
    ("ended", "shown"),
    [
        ("talked", "talked 3:20"),
        ("voicemail", "voicemail"),
        ("missed", "missed"),
        ("refused", "refused"),
        ("", "on the line now"),
        ("ended by the backend", "ended by the backend"),
    ],
)
def test_a_row_says_how_the_call_ended(ended: str, shown: str) -> None:
    """The end in words, with the length of a talk; an end that is not known is said as it is."""
    page = read_calls(a_row(ended=ended))
    assert shown in page.lines()
    assert page.values("data-ended") == [ended or "on the line now"]


def test_a_row_tells_when_who_where_and_what() -> None:
    """A row has the time, the number, the department, the first words, and leads to the call."""
    page = read_calls(a_row())
    assert {"09:07", "+15550100123", "billing", "my invoice"} <= {*page.lines()}
    assert page.values("href") == [f"/calls/{SID}"]


def test_a_row_without_words_number_or_department_says_so() -> None:
    """What is missing is said, or left out."""
    blanks = {"from": "", "department": "", "heard": ""}
    page = read_calls(a_row(**blanks))
    assert {"number withheld", "nothing said"} <= {*page.lines()}


@pytest.mark.parametrize(
    ("caller", "ended", "links"),
    [
        ("+15550100123", "missed", ["tel:+15550100123"]),
        ("+15550100123", "voicemail", ["tel:+15550100123"]),
        ("+15550100123", "talked", []),
        ("anonymous", "missed", []),
        ("", "missed", []),
        ("+1555;ext=1", "missed", []),
        ("sip:a@example.com", "missed", []),
    ],
)
def test_who_was_missed_can_be_called_back(caller: str, ended: str, links: list[str]) -> None:
    """A caller who talked to nobody and has a number can be called with one tap."""
    page = read_calls(a_row(**{"from": caller}, ended=ended))
    assert [each for each in page.values("href") if str(each).startswith("tel:")] == links


@pytest.mark.parametrize(
    ("page", "of", "links"),
    [(1, 1, []), (1, 3, ["?page=2"]), (2, 3, ["?page=1", "?page=3"]), (3, 3, ["?page=2"])],
)
def test_a_long_list_has_pages(page: int, of: int, links: list[str]) -> None:
    """Each page leads to the newer one and to the older one, where there is one."""
    found = read_calls(page=page, pages=of)
    assert found.values("href") == links
    assert (f"page {page} of {of}" in found.lines()) is (of > 1)


def test_a_list_that_is_incomplete_says_so() -> None:
    """An owner does not take a part of the calls for all of them."""
    assert "incomplete" in read_calls(incomplete=True).text
    assert "incomplete" not in read_calls().text


def test_a_day_without_calls_is_no_empty_page() -> None:
    """Without calls the list says that nobody called."""
    assert "Nobody has called." in read_calls().lines()
    assert "Nobody has called." not in read_calls(a_row()).lines()


def test_fifty_calls_are_a_small_page() -> None:
    """A page of the list is less than 40 kB, its style included."""
    page = pages.render_calls(pictures.invent_listing())
    assert Reader(page).tags.count("li") == 50
    assert len(page.encode()) < 40_000


# What callers say cannot do to a page.


def hostile_pages(words: str) -> Iterator[str]:
    """Both pages with the same words in every field that is text."""
    turn = a_turn(**dict.fromkeys(TURN_TEXTS, words))
    end = {"status": words, "seconds": 1}
    yield pages.render_call(a_call(turn, call_sid=words, transcript=words, end=end))
    yield pages.render_calls(a_listing(a_row(**dict.fromkeys(ROW_TEXTS, words))))


@pytest.mark.parametrize("words", HOSTILE.values(), ids=HOSTILE)
def test_hostile_words_are_text(words: str) -> None:
    """Whatever is said, in whichever field, the page has the tags that it has for "x"."""
    for page, harmless in zip(hostile_pages(words), hostile_pages("x"), strict=True):
        found, expected = Reader(page), Reader(harmless)
        assert found.tags == expected.tags
        assert [name for name, _ in found.attributes] == [name for name, _ in expected.attributes]


@pytest.mark.parametrize("words", HOSTILE.values(), ids=HOSTILE)
def test_hostile_words_are_isolated(words: str) -> None:
    """Words of callers stand in <bdi> only, so that they reorder nothing around them."""
    for page, harmless in zip(hostile_pages(words), hostile_pages("x"), strict=True):
        assert Reader(page).outside == Reader(harmless).outside


@pytest.mark.parametrize("words", HOSTILE.values(), ids=HOSTILE)
def test_hostile_words_bring_no_hidden_characters(words: str) -> None:
    """Controls and turns of direction are gone, and the page can be sent as UTF-8."""
    for page in hostile_pages(words):
        assert not NO_TEXT.search(page)
        page.encode()


def test_ten_thousand_letters_are_cut() -> None:
    """A page bounds every field, and the list bounds what is said in a row further."""
    for page in hostile_pages("x" * 10_000):
        assert max(map(len, Reader(page).text.split())) == pages.LONGEST + len("…")
    fields = {"from": "x" * 10_000, "department": "y" * 10_000, "heard": "z" * 10_000}
    assert max(map(len, read_calls(a_row(**fields)).text.split())) == 160


def test_right_to_left_words_stay_as_they_are() -> None:
    """Arabic, Hebrew and joined emoji keep the marks that they need."""
    for words in ("أريد أن أسأل", "שלום\u200f!", "👩\u200d🔧"):
        assert words in read_call(a_turn(heard=words)).text


@settings(STEADY, max_examples=as_many(50))
@given(
    turn=st.dictionaries(st.sampled_from(TURN_FIELDS), JSON),
    end=st.dictionaries(st.sampled_from(["status", "seconds", "at"]), JSON),
    row=st.dictionaries(st.sampled_from(ROW_FIELDS), JSON),
    link=JSON,
)
def test_any_value_in_any_field_gives_a_page(
    turn: dict[str, object], end: dict[str, object], row: dict[str, object], link: object
) -> None:
    """Fields that are missing or of any type whatever give a page, never an error."""
    call = {"call_sid": SID, "turns": [turn], "recording": link, "end": end}
    pages.render_call(call).encode()
    pages.render_calls(a_listing(row, a_row(recording=link))).encode()


# The other page, and what goes with all of them.


def test_a_recording_that_is_not_there_yet_is_asked_for_again() -> None:
    """The page says so in words, and the browser asks again after some seconds."""
    assert "This recording is not there yet." in Reader(pages.render_waiting()).lines()
    assert '<meta http-equiv="refresh" content="5">' in pages.render_waiting()
    assert '<meta http-equiv="refresh" content="30">' in pages.render_waiting(30)


def every_page() -> list[str]:
    """One of each."""
    call = pages.render_call(pictures.invent_call())
    listing = pages.render_calls(pictures.invent_listing())
    return [call, listing, pages.render_waiting()]


def test_the_policy_allows_one_style_and_recordings_of_the_line() -> None:
    """The browser may run nothing and load nothing else; the hash is that of each page's style."""
    headers = pages.headers_for("html")
    policy = headers["Content-Security-Policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    for page in every_page():
        [style] = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
        digest = b64encode(sha256(style.encode()).digest()).decode()
        assert rules == {
            "default-src": "'none'",
            "base-uri": "'none'",
            "form-action": "'none'",
            "frame-ancestors": "'none'",
            "media-src": "'self'",
            "style-src": f"'sha256-{digest}'",
        }
    assert headers["Content-Type"] == "text/html; charset=utf-8"


@pytest.mark.parametrize("kind", ["html", "json"])
def test_nothing_is_kept_or_told_on(kind: pages.Kind) -> None:
    """No cache keeps a call, no other site learns of it, and no browser guesses its type."""
    headers = pages.headers_for(kind)
    assert headers["Cache-Control"] == "no-store"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert (
        headers["Content-Type"].split(";")[0]
        == {"html": "text/html", "json": "application/json"}[kind]
    )


def test_the_pages_bring_everything_along() -> None:
    """No address of another host, no script, and no style but the one that is hashed."""
    for page in every_page():
        found = Reader(page)
        for address in (*found.values("href"), *found.values("src")):
            assert re.match(r"/calls|/recordings/|\?page=|tel:", str(address))
        assert "script" not in found.tags
        assert not found.values("style")
        assert "url(" not in page
        assert "@import" not in page


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (None, "html"),
        ("", "html"),
        ("*/*", "html"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "html"),
        ("application/json", "json"),
        ("application/json;q=0.9, text/html;q=0.1", "json"),
        ("image/png", "html"),
        ("rubbish;;q=x,", "html"),
    ],
)
def test_json_is_for_whoever_asks_for_it(accept: str | None, kind: str) -> None:
    """A browser gets a page; a program that prefers JSON gets JSON."""
    assert pages.answer_kind(accept) == kind


def test_a_webhook_does_not_wait_for_templates() -> None:
    """The module loads no Jinja; the first page that is asked for does."""
    program = (
        "import sys; from phone_line import pages; before = 'jinja2' in sys.modules;"
        "pages.render_waiting(); print(before, 'jinja2' in sys.modules)"
    )
    root = Path(pages.__file__).parents[1]
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


def test_the_pictures_of_the_readme_are_there_and_small() -> None:
    """Each page has a picture that loads quickly; `python tests/tools/pictures.py` takes them."""
    for name in ("call.png", "calls.png"):
        picture = (pictures.ROOT / ".github" / name).read_bytes()
        assert picture.startswith(b"\x89PNG")
        assert len(picture) <= pictures.LARGEST


# In a browser.

DARK: Final = "--blink-settings=preferredColorScheme=0"
PAPER: Final = {"--mute-audio": (0xF5, 0xF6, 0xF8), DARK: (0x0F, 0x13, 0x17)}


class Site(ThreadingHTTPServer):
    """A server of one page under its headers. It has no recording, and keeps what was asked for."""

    daemon_threads = True

    def __init__(self, page: str) -> None:
        super().__init__(("127.0.0.1", 0), SiteRequest)
        self.page = page
        self.asked: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_port}/"


class SiteRequest(BaseHTTPRequestHandler):
    """One request to a `Site`."""

    def do_GET(self) -> None:
        site = cast("Site", self.server)
        site.asked.append(self.path)
        found = self.path == "/"
        self.send_response(200 if found else 404)
        for name, value in pages.headers_for("html").items():
            self.send_header(name, value)
        self.end_headers()
        if found:
            self.wfile.write(site.page.encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 # its name up there
        """Keep quiet."""


@contextmanager
def served(page: str) -> Iterator[Site]:
    """A running server of a page."""
    with Site(page) as site:
        threading.Thread(target=site.serve_forever, args=(0.05,), daemon=True).start()
        yield site
        site.shutdown()


def first_pixel(png: bytes) -> tuple[int, ...]:
    """The colour of the corner. PNG filters by neighbours to the left and above; it has none."""
    place, packed = 8, b""
    while place < len(png):
        (length,) = struct.unpack(">I", png[place : place + 4])
        if png[place + 4 : place + 8] == b"IDAT":
            packed += png[place + 8 : place + 8 + length]
        place += length + 12
    return tuple(zlib.decompress(packed)[1:4])


def corner_of(page: str, folder: Path, option: str) -> tuple[int, ...]:
    """The colour that a browser gives to the corner of a page that is served to it."""
    picture = folder / "page.png"
    with served(page) as site:
        pictures.browse(
            folder, site.url, "--window-size=500,200", f"--screenshot={picture}", option
        )
    return first_pixel(picture.read_bytes())


@pytest.mark.long
@pytest.mark.needs("chromium")
@pytest.mark.parametrize("option", PAPER, ids=["light", "dark"])
def test_a_browser_applies_the_style(tmp_path: Path, option: str) -> None:
    """The policy lets the style through: the paper is bright, or dark for whoever prefers that."""
    assert corner_of(pages.render_waiting(), tmp_path, option) == PAPER[option]


@pytest.mark.long
@pytest.mark.needs("chromium")
def test_a_browser_refuses_another_style(tmp_path: Path) -> None:
    """A style that somebody changed on the way is not applied."""
    page = pages.render_waiting().replace("--paper: #f5f6f8", "--paper: #ff0000")
    assert corner_of(page, tmp_path, "--mute-audio") == (255, 255, 255)


@pytest.mark.long
@pytest.mark.needs("chromium")
def test_a_browser_loads_a_recording_from_the_line_alone(tmp_path: Path) -> None:
    """The player may ask this line for the recording, and no other host."""
    page = pages.render_call(a_call(recording=OURS)).replace('preload="none"', 'preload="auto"')
    with served("") as elsewhere, served(page) as site:
        site.page += f'<audio preload="auto" src="{elsewhere.url}recordings/AC1/RE2"></audio>'
        pictures.browse(tmp_path, site.url, "--dump-dom")
        assert OURS in site.asked
        assert not elsewhere.asked


@pytest.mark.long
@pytest.mark.needs("chromium")
def test_a_browser_loads_nothing_before_somebody_plays(tmp_path: Path) -> None:
    """To look at fifty calls fetches no recording."""
    with served(pages.render_calls(pictures.invent_listing())) as site:
        pictures.browse(tmp_path, site.url, "--dump-dom")
        assert "/" in site.asked
        assert not [path for path in site.asked if path.startswith("/recordings")]


@pytest.mark.long
@pytest.mark.needs("chromium")
def test_a_browser_runs_nothing_of_a_caller(tmp_path: Path) -> None:
    """A script that was said is words, and the page keeps its title."""
    for page in hostile_pages(SCRIPT):
        with served(page) as site:
            found = Reader(pictures.browse(tmp_path, site.url, "--dump-dom"))
        assert SCRIPT in found.text
        assert found.tags == Reader(page).tags


@pytest.mark.long
@pytest.mark.needs("chromium")
def test_no_word_is_wider_than_the_screen(tmp_path: Path) -> None:
    """On a phone nobody scrolls sideways, whatever callers say and whatever their names are."""
    shown = [*hostile_pages("x" * 10_000), *hostile_pages("word " * 2_000), *every_page()]
    expected, frames = [], []
    for width in (320, 390, 1_200):
        measure = "document.title += ` ${this.contentDocument.documentElement.scrollWidth}`"
        for page in shown:
            expected.append(width)
            frames.append(f'<iframe width={width} srcdoc="{escape(page)}" onload="{measure}">')
    (tmp_path / "frames.html").write_text("<title></title>" + "</iframe>".join(frames), "utf-8")
    dom = pictures.browse(tmp_path, (tmp_path / "frames.html").as_uri(), "--dump-dom")
    [title] = re.findall("<title>(.*?)</title>", dom[:1_000])
    assert sorted(map(int, title.split())) == expected
