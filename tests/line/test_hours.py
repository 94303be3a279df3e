"""Opening hours: what they mean at which moment, and what a caller hears outside of them.

The clock is the real one: the hours are made so that now is inside or outside of them, in a time
zone far away; what they mean at other moments is a table.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

import pytest

from phone_line.settings import read_settings
from standins.call import Phone
from standins.inside import Inside
from standins.sentences import say

PERSON: Final = {"FORWARD_TO": "+15550100099"}
CALLER: Final = "+15557654321"
DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def heard(line: Inside, caller: str = CALLER) -> Phone:
    """A phone that has rung there; whether its answer kept Twilio's rules is the judge's to say."""
    phone = line.phone(caller)
    phone.ring()
    assert phone.broken == []
    return phone


BERLIN: Final = "Mon-Fri 09:00-17:00, Sat 10:00-14:00 Europe/Berlin"

MOMENTS: Final = [
    # the hours, a moment in UTC, whether it is open then
    (BERLIN, "2026-07-06 06:59", False),  # a Monday in summer, when Berlin is two hours ahead
    (BERLIN, "2026-07-06 07:00", True),
    (BERLIN, "2026-07-06 14:59", True),
    (BERLIN, "2026-07-06 15:00", False),
    (BERLIN, "2026-01-05 07:59", False),  # a Monday in winter, when it is one
    (BERLIN, "2026-01-05 08:00", True),
    (BERLIN, "2026-01-05 15:59", True),
    (BERLIN, "2026-01-05 16:00", False),
    (BERLIN, "2026-07-11 08:00", True),  # Saturday
    (BERLIN, "2026-07-11 12:00", False),
    (BERLIN, "2026-07-12 10:00", False),  # Sunday
    ("Mon 00:00-24:00 Pacific/Auckland", "2026-07-05 12:00", True),  # Monday has begun there
    ("Mon 00:00-24:00 Pacific/Auckland", "2026-07-06 11:59", True),
    ("Mon 00:00-24:00 Pacific/Auckland", "2026-07-06 12:00", False),
    ("mon-mon 09:00-12:00,Mon 13:00-17:00 UTC", "2026-07-06 12:30", False),  # a lunch break
    ("mon-mon 09:00-12:00,Mon 13:00-17:00 UTC", "2026-07-06 13:00", True),
]


@pytest.mark.parametrize(("hours", "moment", "is_open"), MOMENTS)
def test_hours_are_those_of_the_place(hours: str, moment: str, *, is_open: bool) -> None:
    """The clock on the wall there decides, summer time included; at closing time it is closed."""
    at = datetime.fromisoformat(moment).replace(tzinfo=UTC).timestamp()
    found = read_settings({"TWILIO_AUTH_TOKEN": "secret", "HOURS": hours}).hours
    assert found
    assert found.is_open(at) is is_open


def around_now(zone: str, *, is_open: bool) -> str:
    """Hours of today or of the day after tomorrow, so that it is open or closed there now."""
    there = datetime.now(ZoneInfo(zone))
    days = [there + timedelta(days=n) for n in (0, 1)] if is_open else [there + timedelta(days=2)]
    return ", ".join(f"{DAYS[day.weekday()]} 00:00-24:00" for day in days) + f" {zone}"


@pytest.mark.parametrize("zone", ["Europe/Berlin", "Pacific/Auckland", "America/Los_Angeles"])
def test_outside_the_hours_a_caller_may_leave_a_message(tmp_path: Path, zone: str) -> None:
    """Closed is said, then recorded; nobody is called, whatever the caller would have said."""
    state = {"STATE_FILE": str(tmp_path / "calls")}
    phone = heard(Inside({**state, **PERSON, "HOURS": around_now(zone, is_open=False)}))
    assert phone.heard[0].startswith(say("closed"))
    assert phone.state == "record"
    phone.leave_message()
    assert phone.heard[-1] == say("message_taken")


@pytest.mark.parametrize("zone", ["Europe/Berlin", "Pacific/Auckland", "America/Los_Angeles"])
def test_within_the_hours_nothing_is_different(tmp_path: Path, zone: str) -> None:
    """Open means the usual greeting, word for word."""
    usual, opened = (
        heard(Inside({"STATE_FILE": str(tmp_path / name), **PERSON, **more}))
        for name, more in (("a", {}), ("b", {"HOURS": around_now(zone, is_open=True)}))
    )
    assert opened.heard == usual.heard


def test_a_call_that_began_in_time_is_carried_on(tmp_path: Path) -> None:
    """The hours decide at the door: who is inside at closing time is served."""
    state = {"STATE_FILE": str(tmp_path / "calls")}
    phone = heard(Inside({**state, **PERSON}))
    closed = Inside({**state, **PERSON, "HOURS": around_now("UTC", is_open=False)})
    answer = closed.post(
        "/voice/process?turn=1&step=reason",
        {"CallSid": phone.call_sid, "From": CALLER, "SpeechResult": "Ann"},
    )
    assert b"<Dial" in answer.body
