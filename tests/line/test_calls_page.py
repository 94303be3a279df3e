"""The list of calls, for whoever has ADMIN_TOKEN: found when somebody looks, newest first, bounded.

What a page makes of its values is tested in test_pages.py; here they come from calls that were
made, and from a store that others use, too.
"""

import json
import time
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest

import phone_line.line as line_room
from phone_line import calls, recordings
from phone_line.records import Ending, Record, write_record
from phone_line.sqlite import SQLite
from standins.backend import Backend, says
from standins.bounds import changed
from standins.call import Phone
from standins.inside import ORIGIN, Inside, fill_cell, new_call
from standins.listener import play
from standins.media import ACCOUNT, Media, silence
from standins.timing import LATE
from standins.upstash import Upstash
from standins.webhooks import Answer

PASSWORD: Final = "let-me-see-it"
LOGIN: Final = {"Authorization": f"Basic {b64encode(f'x:{PASSWORD}'.encode()).decode()}"}
CALLER: Final = "+15557654321"
Ring = Callable[[Phone], None]
MENU: Final = {"DEPARTMENTS": "billing=+15550100001 cancel=+15550100002"}
ROW: Final = [*("call_sid", "from", "at", "department", "heard", "ended", "seconds", "recording")]


@pytest.fixture
def line(tmp_path: Path) -> Inside:
    """A line with a menu, whose calls may be looked at."""
    env = {**MENU, "BLOCKED": "+15550100066", "ADMIN_TOKEN": PASSWORD}
    return Inside({**env, "STATE_FILE": str(tmp_path / "calls")})


def ask(line: Inside, query: str = "", accept: str = "application/json") -> Answer:
    """The list as the owner's browser gets it."""
    return line.send("GET", f"/calls{query}", headers={**LOGIN, "Accept": accept})


def listed(line: Inside, query: str = "") -> dict[str, Any]:
    """The list as JSON."""
    answer = ask(line, query)
    assert (answer.status, answer.kind) == (200, "application/json")
    found: dict[str, Any] = json.loads(answer.body)
    return found


def row_of(line: Inside, phone: Phone) -> dict[str, Any]:
    """The row of one call."""
    [row] = [row for row in listed(line)["calls"] if row["call_sid"] == phone.call_sid]
    found: dict[str, Any] = row
    return found


def keep_call(line: Inside, at: float, heard: str = "", caller: str = CALLER) -> str:
    """Put the first turn of a call into the store, as if it had been made."""
    call_sid = new_call()
    first = Record(turn=1, step="menu", twiml="<Response/>", at=at, heard=heard, caller=caller)
    fill_cell(line, f"call:{call_sid}:1", write_record(first))
    return call_sid


# Who may see it.


@pytest.mark.parametrize("path", ["/calls", "/calls/", "/calls?page=1"])
def test_without_a_password_set_there_is_no_list(tmp_path: Path, path: str) -> None:
    """A line without ADMIN_TOKEN has nothing at this path, for any method."""
    closed = Inside({"STATE_FILE": str(tmp_path / "calls")})
    for method in ("GET", "HEAD", "POST"):
        assert closed.send(method, path, headers=LOGIN).status == 404


def test_the_password_is_asked_for(line: Inside) -> None:
    """Without it: 401, in a way that makes a browser ask, and no word of any call."""
    keep_call(line, time.time())
    answer = line.send("GET", "/calls")
    assert (answer.status, b"CA" in answer.body) == (401, False)
    assert answer.headers["WWW-Authenticate"].startswith("Basic realm=")
    assert line.send("POST", "/calls", headers=LOGIN).status == 405


def test_without_the_pages_nobodys_number_is_kept(tmp_path: Path) -> None:
    """Where nobody can look at calls, no cell holds the number of a caller."""
    file = tmp_path / "calls"
    Inside({"STATE_FILE": str(file)}).phone().ring()
    assert CALLER.encode() not in file.read_bytes()


# What it says.


def talk(phone: Phone) -> None:
    phone.ring()
    phone.say("billing please")
    phone.callee("completed", 200)


def leave_message(phone: Phone) -> None:
    phone.ring()
    phone.say("my invoice, billing")
    phone.callee("no-answer")
    phone.leave_message(14)


def give_up(phone: Phone) -> None:
    phone.ring()
    phone.hang_up()


def be_refused(phone: Phone) -> None:
    phone.caller = "+15550100066"
    phone.ring()


def hold_the_line(phone: Phone) -> None:
    phone.ring()
    phone.say("cancel")


@pytest.mark.parametrize(
    ("ring", "department", "heard", "ended", "seconds"),
    [
        (talk, "billing", "billing please", "talked", 200),
        (leave_message, "billing", "my invoice, billing", "voicemail", 14),
        (give_up, "", "", "missed", None),
        (be_refused, "", "", "refused", None),
        (hold_the_line, "cancel", "cancel", "", 0),
    ],
)
def test_a_row_says_how_a_call_went(
    line: Inside, ring: Ring, department: str, heard: str, ended: str, seconds: int | None
) -> None:
    """A row has who and when, the department, the first words, and the end."""
    phone = line.phone()
    began = time.time()
    ring(phone)
    row = row_of(line, phone)
    assert list(row) == ROW
    assert (row["from"], row["department"]) == (phone.caller, department)
    assert (row["heard"], row["ended"]) == (heard, ended)
    assert row["seconds"] == (phone.duration if seconds is None else seconds)
    assert began - 1 < row["at"] < time.time() + 1
    assert bool(row["recording"]) == (ended == "voicemail")


def test_a_call_that_nobody_answered_is_missed(line: Inside) -> None:
    """Busy, and no message: the department that was wanted, and that it was missed."""
    phone = line.phone()
    phone.ring()
    phone.press("2")
    phone.callee("busy")
    phone.silent()
    row = row_of(line, phone)
    assert (row["department"], row["ended"]) == ("cancel", "missed")


def test_a_call_that_the_backend_ended_says_so(tmp_path: Path) -> None:
    """It is neither missed nor a talk."""
    with Backend(lambda _: says("Booked. Goodbye.", then="hangup")) as backend:
        env = {"BACKEND_URL": backend.url, "ADMIN_TOKEN": PASSWORD}
        line = Inside({**env, "STATE_FILE": str(tmp_path / "calls")})
        phone = line.phone()
        phone.ring()
        phone.say("a ticket")
        assert row_of(line, phone)["ended"] == "ended by the backend"


def test_a_call_without_a_status_callback_ends_all_the_same(line: Inside) -> None:
    """If nobody configured one, the line's own goodbye ends a call, and so does long silence."""
    phone = line.phone()
    phone.status = None
    talk(phone)
    assert row_of(line, phone)["ended"] == "talked"
    fresh = keep_call(line, time.time() - 60)
    stale = keep_call(line, time.time() - 2 * 3600)
    rows = {row["call_sid"]: row["ended"] for row in listed(line)["calls"]}
    assert (rows[fresh], rows[stale]) == ("", "missed")


def test_the_list_links_to_each_call_and_plays_its_message(line: Inside) -> None:
    """The page has a link to the call, and a player whose address plays."""
    phone = line.phone()
    leave_message(phone)
    html = ask(line, accept="text/html").body.decode()
    assert f'href="/calls/{phone.call_sid}"' in html
    row = row_of(line, phone)
    assert row["recording"].startswith(f"{ORIGIN}/recordings/{ACCOUNT}/RE")
    path = row["recording"].removeprefix(ORIGIN)
    assert f'<audio controls preload="none" src="{path.replace("&", "&amp;")}"' in html
    with Media() as media:
        sid = urlsplit(path).path.rpartition("/")[2]
        media.recordings[sid] = silence(1)
        with changed(recordings, SOURCE=media.source):
            assert play(line, path).body == silence(1)


def test_a_link_is_the_same_whenever_somebody_looks(line: Inside) -> None:
    """Its week begins with the message, so that a browser can keep what it has heard."""
    phone = line.phone()
    leave_message(phone)
    first = row_of(line, phone)["recording"]
    time.sleep(1.1)
    assert row_of(line, phone)["recording"] == first


def test_the_page_has_its_policy(line: Inside) -> None:
    """Nothing is loaded but this line's recordings, nothing runs, nothing is kept."""
    answer = ask(line, accept="text/html")
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert answer.headers["Cache-Control"] == "no-store"


def test_names_and_words_with_markup_are_text(line: Inside) -> None:
    """Markup, control characters and turned-around text change nothing but their own row."""
    hostile = '<script>alert(1)</script>"\u202e\x07'
    keep_call(line, time.time(), heard=hostile, caller=hostile)
    html = ask(line, accept="text/html").body.decode()
    assert "<script>" not in html
    assert "\u202e" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html


def test_times_are_those_of_the_lines_zone(tmp_path: Path) -> None:
    """A line with HOURS tells the time as its owner's clock does."""
    env = {"HOURS": "Mon-Sun 00:00-24:00 Asia/Tokyo", "ADMIN_TOKEN": PASSWORD}
    line = Inside({**env, "STATE_FILE": str(tmp_path / "calls")})
    keep_call(line, 1_772_442_420.0)  # 2026-03-02 09:07 UTC
    assert "18:07" in ask(line, accept="text/html").body.decode()


# Order and pages.


def test_the_newest_call_is_first(line: Inside) -> None:
    """Whatever order the store has, calls are sorted by their beginning."""
    now = time.time()
    sids = {age: keep_call(line, now - age) for age in (50, 10, 40, 20, 30)}
    found = [row["call_sid"] for row in listed(line)["calls"]]
    assert found == [sids[age] for age in sorted(sids)]


def test_fifty_calls_make_a_page(line: Inside) -> None:
    """The next ones are on the next page; a page that is not there is 404."""
    now = time.time()
    sids = [keep_call(line, now - age) for age in range(120)]
    for page, size in ((1, 50), (2, 50), (3, 20)):
        found = listed(line, f"?page={page}")
        assert (found["page"], found["pages"], found["incomplete"]) == (page, 3, False)
        first = (page - 1) * 50
        assert [row["call_sid"] for row in found["calls"]] == sids[first : first + size]
    for wrong in ("4", "0", "-1", "x", "9" * 40):
        assert ask(line, f"?page={wrong}").status == 404
    assert "page 2 of 3" in ask(line, "?page=2", "text/html").body.decode()


def test_nobody_has_called(line: Inside) -> None:
    """An empty list is a page, too."""
    assert listed(line) == {"calls": [], "incomplete": False, "page": 1, "pages": 1}
    assert "Nobody has called." in ask(line, accept="text/html").body.decode()


# A store that others use, too.


def test_foreign_keys_and_rubbish_are_no_calls(line: Inside) -> None:
    """Keys that only look like a call's, and cells that hold none, are passed over."""
    call_sid = keep_call(line, time.time())
    for key in ("call:CAx:1", f"call:{call_sid}:11", f"call:{call_sid}:1:1", "call:CA:1", "x:1"):
        fill_cell(line, key, "{}")
    for rubbish in ("rubbish", "[]", "{}", "null"):
        fill_cell(line, f"call:{new_call()}:1", rubbish)
    assert [row["call_sid"] for row in listed(line)["calls"]] == [call_sid]


def test_after_a_hundred_looks_the_list_is_incomplete(upstash: Upstash) -> None:
    """A shared database has more keys than anybody should wait for: the page says so."""
    with changed(calls, KEYS=100):
        line = Inside({**MENU, "ADMIN_TOKEN": PASSWORD, **upstash.settings})
        for first in range(0, 12_000, 2_000):
            pairs = [part for n in range(first, first + 2_000) for part in (f"foreign:{n}", "x")]
            upstash.quietly(["MSET", *pairs])
        keep_call(line, time.time())
        upstash.forget()
        assert listed(line)["incomplete"]
        scans = [command for command in upstash.commands if command[0] == "SCAN"]
        assert len(scans) == calls.MOST_SCANS
        assert "list is incomplete" in ask(line, accept="text/html").body.decode()


def test_thousands_of_calls_are_listed(upstash: Upstash) -> None:
    """Two thousand calls in a day: all are found, with fewer than a hundred commands a page."""
    line = Inside({**MENU, "ADMIN_TOKEN": PASSWORD, **upstash.settings})
    now = time.time()
    pairs = []
    for age in range(2_000):
        record = Record(turn=1, step="menu", twiml="<Response/>", at=now - age, caller=CALLER)
        pairs += [f"call:{new_call()}:1", write_record(record)]
    upstash.quietly(["MSET", *pairs])
    upstash.forget()
    found = listed(line, "?page=40")
    assert (found["pages"], len(found["calls"]), found["incomplete"]) == (40, 50, False)
    assert len(upstash.commands) < 100


def test_more_calls_than_anybody_reads_are_cut(line: Inside) -> None:
    """A flood of calls makes an incomplete list, and no page that never comes."""
    with changed(calls, MOST_CALLS=30):
        for age in range(40):
            keep_call(line, time.time() - age)
        found = listed(line)
        assert (len(found["calls"]), found["incomplete"]) == (30, True)


def test_a_long_call_is_told_whole(line: Inside) -> None:
    """What a call came to stands in its last turn, be it the twelfth or the sixtieth."""
    for last in (9, 10, 12, 60):
        call_sid = keep_call(line, time.time())
        for turn in range(2, last):
            fill_cell(line, f"call:{call_sid}:{turn}", write_record(Record(turn=turn, twiml="x")))
        over = Record(turn=last, step="goodbye", twiml="x", dial="completed", lasted=70)
        fill_cell(line, f"call:{call_sid}:{last}", write_record(over))
        row = next(row for row in listed(line)["calls"] if row["call_sid"] == call_sid)
        assert (row["ended"], row["seconds"]) == ("talked", 70)


def test_no_command_is_spent_on_the_list_during_a_call(upstash: Upstash) -> None:
    """A call costs the same commands, whether or not somebody may look at it."""
    counts = []
    for env in ({}, {"ADMIN_TOKEN": PASSWORD}):
        phone = Inside({**MENU, **env, **upstash.settings}).phone()
        upstash.forget()
        talk(phone)
        counts.append([command[0] for command in upstash.commands])
    assert counts[0] == counts[1]


@pytest.mark.parametrize("command", ["SCAN", "MGET"])
def test_a_store_that_is_away_is_said(upstash: Upstash, command: str) -> None:
    """503 and a sentence, in good time."""
    line = Inside({**MENU, "ADMIN_TOKEN": PASSWORD, **upstash.settings})
    keep_call(line, time.time())
    upstash.fault = lambda c: "502" if c[0] == command else None
    answer = ask(line)
    assert answer.status == 503
    assert b"store does not answer" in answer.body


class Slow(SQLite):
    """A store that takes a tenth of a second for each look through its keys, and never ends."""

    def execute(self, command: list[str], until: float) -> Any:  # noqa: ANN401 # as SQLite
        if command[0] == "SCAN":
            time.sleep(0.1)
            return ["7", []]
        return super().execute(command, until)


def test_a_slow_store_is_looked_at_for_some_seconds(tmp_path: Path) -> None:
    """Who looks gets an incomplete list rather than none."""
    with (
        changed(line_room, open_store=lambda settings: Slow(settings.state_file)),
        changed(calls, LOOKING=0.3),
    ):
        line = Inside({"ADMIN_TOKEN": PASSWORD, "STATE_FILE": str(tmp_path / "calls")})
        began = time.monotonic()
        assert listed(line)["incomplete"]
        assert time.monotonic() - began < 2 + LATE


# The page of one call.


def test_the_page_of_a_call_says_who_called_and_plays_the_message(line: Inside) -> None:
    """The number, and a player; as JSON the same link that the owner was told."""
    phone = line.phone()
    leave_message(phone)
    html = ask(line, f"/{phone.call_sid}", "text/html").body.decode()
    assert CALLER in html
    assert '<audio controls preload="none" src="/recordings/AC' in html
    call = listed(line, f"/{phone.call_sid}")
    assert call["from"] == CALLER
    assert call["recording"] == row_of(line, phone)["recording"]
    assert "caller" not in call["turns"][0]


def test_the_page_of_a_call_says_what_came_of_the_whisper(line: Inside) -> None:
    """Somebody picked up and did not take the call: that is told, and is no talk."""
    phone = line.phone()
    phone.ring()
    phone.say("billing")
    phone.callee("voicemail")
    phone.leave_message(5)
    turns = listed(line, f"/{phone.call_sid}")["turns"]
    assert [turn["accepted"] for turn in turns if turn["dial"]] == ["not accepted"]
    assert "transfer: <bdi>not accepted</bdi>" in ask(
        line, f"/{phone.call_sid}", "text/html"
    ).body.decode().replace("\n", "")
    assert row_of(line, phone)["ended"] == "voicemail"


def test_a_call_of_a_hundred_long_turns_is_shown(upstash: Upstash) -> None:
    """More than one answer of the database can hold is read in portions."""
    line = Inside({**MENU, "ADMIN_TOKEN": PASSWORD, **upstash.settings})
    call_sid = new_call()
    long = "ü" * 2400
    for turn in range(1, 101):
        record = Record(turn=turn, step="menu", twiml=long, said=long, heard="ü" * 900)
        fill_cell(line, f"call:{call_sid}:{turn}", write_record(record))
    assert len(listed(line, f"/{call_sid}")["turns"]) == 100


def test_an_end_without_a_beginning_is_no_call(line: Inside) -> None:
    """The status callback of a call that never reached this line lists nothing."""
    fill_cell(line, f"call:{new_call()}:end", write_record(Ending("completed", 5, time.time())))
    assert listed(line)["calls"] == []
