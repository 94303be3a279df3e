"""Opening hours: what operators write, what it means at a moment, and what they are told.

Two tables say it by hand. A property compares arbitrary hours at arbitrary moments, many of them
around changes of the clock, with a slow oracle that shares nothing with the code: it lists every
minute of the days around on a wall calendar, and knows four time zones by their laws.
"""

import sys
import zoneinfo
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Final, NamedTuple

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from phone_line.hours import LONGEST, parse_hours
from standins.examples import STEADY, as_many
from standins.rows import first_quick

MINUTE: Final = timedelta(minutes=1)
DAY: Final = timedelta(days=1)
WEEK: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def at(moment: str) -> float:
    """The Unix time of a moment in UTC."""
    return datetime.fromisoformat(moment).replace(tzinfo=UTC).timestamp()


# --- Moments, by hand ---

SHOP: Final = "Mon-Fri 09:00-17:00, Sat 10:00-14:00 Europe/Berlin"
YEAR: Final = (
    "Mon-Fri 09:00-17:00, Sat 10:00-14:00, 12-25 closed, 12-24 09:00-12:00, 2027-05-14 closed"
    " Europe/Berlin"
)
BAR: Final = "Fri-Sat 18:00-02:00 Europe/Berlin"
EVE: Final = "Mon-Sun 20:00-03:00, 12-24 18:00-02:00, 12-25 closed UTC"
LUNCH: Final = "Mon-Thu 09:00-12:00, 13:00-17:00, Fri 9:00-12:00 UTC"
LEAP: Final = "Mon-Sun 09:00-17:00, 02-29 closed UTC"

MOMENTS: Final = [
    # the situation, the hours, a moment in UTC, whether it is open then
    ("a Monday in summer, two hours ahead of UTC", SHOP, "2026-07-06 06:59", False),
    ("its first minute", SHOP, "2026-07-06 07:00", True),
    ("its last minute", SHOP, "2026-07-06 14:59:59", True),
    ("its end", SHOP, "2026-07-06 15:00", False),
    ("a Monday in winter, one hour ahead", SHOP, "2026-01-05 07:59", False),
    ("its first minute in winter", SHOP, "2026-01-05 08:00", True),
    ("a Saturday", SHOP, "2026-07-11 08:00", True),
    ("a Sunday, which no entry names", SHOP, "2026-07-12 10:00", False),
    ("the day has begun elsewhere", "Mon 0:00-24:00 Pacific/Auckland", "2026-07-05 12:00", True),
    ("and ends there", "Mon 0:00-24:00 Pacific/Auckland", "2026-07-06 12:00", False),
    ("half an hour east", "Mon 09:00-10:00 Asia/Kolkata", "2026-07-06 03:30", True),
    ("Christmas, a Friday", YEAR, "2026-12-25 10:00", False),
    ("Christmas of another year", YEAR, "2028-12-25 10:00", False),
    ("the day before, in the morning", YEAR, "2026-12-24 08:00", True),
    ("the day before, in the afternoon", YEAR, "2026-12-24 12:00", False),
    ("a date of one year", YEAR, "2027-05-14 10:00", False),
    ("that date in the year before", YEAR, "2026-05-14 10:00", True),
    ("the 29th of February", LEAP, "2028-02-29 10:00", False),
    ("a year without it, the day before", LEAP, "2027-02-28 10:00", True),
    ("a year without it, the day after", LEAP, "2027-03-01 10:00", True),
    ("Friday night", BAR, "2026-07-10 20:00", True),
    ("Saturday before dawn, still Friday's hours", BAR, "2026-07-10 23:59", True),
    ("two o'clock on Saturday", BAR, "2026-07-11 00:00", False),
    ("Sunday before dawn, Saturday's hours", BAR, "2026-07-11 23:00", True),
    ("Friday before dawn: Thursday has none", BAR, "2026-07-09 23:00", False),
    ("Christmas Eve, past midnight, on a closed day", EVE, "2026-12-25 01:59", True),
    ("what the weekday would have had past two", EVE, "2026-12-25 02:30", False),
    ("the evening of the closed day", EVE, "2026-12-25 21:00", False),
    ("past its midnight: its hours would belong to it", EVE, "2026-12-26 01:00", False),
    ("before Christmas Eve begins, the night before", EVE, "2026-12-24 02:59", True),
    ("a lunch break", LUNCH, "2026-07-06 12:30", False),
    ("after it", LUNCH, "2026-07-06 13:00", True),
    ("Friday has no afternoon", LUNCH, "2026-07-10 13:30", False),
    ("up to midnight", "Mon 18:00-00:00 UTC", "2026-07-06 23:59", True),
    ("and no further", "Mon 18:00-00:00 UTC", "2026-07-07 00:00", False),
    ("over New Year", "Thu 22:00-04:00 UTC", "2027-01-01 03:00", True),
    # Berlin: at 01:00 UTC on 29 March 2026 the clock goes from two to three,
    ("a skipped opening time", "Sun 02:30-05:00 Europe/Berlin", "2026-03-29 00:59", False),
    ("opens an instant later", "Sun 02:30-05:00 Europe/Berlin", "2026-03-29 01:00", True),
    ("a skipped closing time", "Sun 01:00-02:30 Europe/Berlin", "2026-03-29 01:00", False),
    ("a skipped hour never comes", "Sun 02:00-03:00 Europe/Berlin", "2026-03-29 00:59", False),
    ("nor after it", "Sun 02:00-03:00 Europe/Berlin", "2026-03-29 01:00", False),
    ("over midnight into the change", "Sat 22:00-03:00 Europe/Berlin", "2026-03-29 00:59", True),
    ("up to the hour after it", "Sat 22:00-03:00 Europe/Berlin", "2026-03-29 01:00", False),
    # and at 01:00 UTC on 25 October 2026 from three to two again.
    ("a doubled hour, once", "Sun 02:00-03:00 Europe/Berlin", "2026-10-25 00:30", True),
    ("a doubled hour, again", "Sun 02:00-03:00 Europe/Berlin", "2026-10-25 01:30", True),
    ("half of it, once", "Sun 01:00-02:30 Europe/Berlin", "2026-10-25 00:29", True),
    ("the other half", "Sun 01:00-02:30 Europe/Berlin", "2026-10-25 00:30", False),
    ("half of it, again", "Sun 01:00-02:30 Europe/Berlin", "2026-10-25 01:29", True),
    ("half an hour skipped", "Sun 02:00-02:30 Australia/Lord_Howe", "2026-10-03 15:30", False),
    ("the half hour after it", "Sun 02:30-03:00 Australia/Lord_Howe", "2026-10-03 15:30", True),
]


@pytest.mark.parametrize(
    ("hours", "moment", "is_open"), [pytest.param(*row[1:], id=row[0]) for row in MOMENTS]
)
def test_the_clock_on_the_wall_decides(hours: str, moment: str, *, is_open: bool) -> None:
    """Hours are those of the place, and of the day on which they begin; a date beats a weekday."""
    assert parse_hours(hours).is_open(at(moment)) is is_open


# --- What people write ---

SAME: Final = [
    # two ways to write the same
    ("Mon-Fri 09:00-17:00 UTC", "mon-FRI 9:00-17:00 UTC"),
    ("Mon-Fri 09:00-17:00 UTC", "Monday-Friday 9:00-17:00, UTC"),
    ("Mon-Fri 09:00-17:00 UTC", "Mon \u2013 Fri: 9:00 \u2013 17:00 UTC"),
    ("Tue-Thu 09:00-17:00 UTC", "  Tues-Thurs\t09:00-17:00 ,\n UTC "),
    ("Mon-Fri 09:00-17:00 UTC", "Mon-Fri 09:00-17:00, Sat-Sun closed UTC"),
    ("Sun 9:00-10:00, Mon-Thu 9:00-10:00 UTC", "Sun-Thu 09:00-10:00 UTC"),
    ("Fri 9:00-10:00, Sat-Mon 9:00-10:00 UTC", "Fri-Mon 09:00-10:00,UTC"),
    ("Mon-Sun 9:00-10:00 UTC", "Wed-Tue 9:00-10:00 UTC"),
    ("Mon 9:00-10:00 UTC", "mon-mon 9:00-10:00 UTC"),
    ("Mon 9:00-12:00, Mon 13:00-17:00 UTC", "Mon 13:00-17:00 9:00-12:00 UTC"),
    ("Mon 9:00-12:00, Mon 12:00-17:00 UTC", "Mon 9:00-17:00 UTC"),
    ("Mon 9:00-17:00, 05-14 closed UTC", "05-14: Closed, Mon 9:00-17:00 UTC"),
    ("Mon 9:00-24:00 UTC", "Mon 9:00-0:00 UTC"),
    ("Mon 9:00-24:00 UTC", "Mon 9:00-23:59 UTC"),
    ("Mon 00:00-24:00 UTC", "Mon 0:00-23:59 UTC"),
    ("Mon 06:00-24:00, Tue 00:00-01:00 UTC", "Tue 0:00-1:00, Mon 6:00-0:00 UTC"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_there_are_several_ways_to_write_the_same(one: str, other: str) -> None:
    """Case, full names, long dashes, blanks and the order of entries change nothing."""
    first, second = parse_hours(one), parse_hours(other)
    start = at("2027-05-09 00:00")
    moments = [start + 600 * step for step in range(8 * 24 * 6)]
    assert [*map(first.is_open, moments)] == [*map(second.is_open, moments)]
    assert any(map(first.is_open, moments))


@pytest.mark.parametrize(
    "zone", ["UTC", "CET", "HST", "Asia/Kolkata", "US/Pacific", "America/Argentina/Buenos_Aires"]
)
def test_a_name_of_the_database_is_taken(zone: str) -> None:
    """CET has a summer time, Hawaii needs none, and old names still stand for their place."""
    assert parse_hours(f"Mon-Sun 00:00-24:00 {zone}").is_open(at("2026-07-06 10:00"))


def test_an_offset_is_never_suggested() -> None:
    """Etc/GMT+1 is an hour behind UTC: nobody who writes GMT+1 means that."""
    for place in ("GMT+1", "Etc/GMT+99", "UTC-3", "Etc/Gmt"):
        with pytest.raises(ValueError, match="expected") as refusal:
            parse_hours(f"Mon 09:00-17:00 {place}")
        assert "Etc" not in str(refusal.value).partition("expected")[2]


def test_a_line_may_be_closed_on_all_days() -> None:
    """Whoever says closed seven times means it."""
    assert not parse_hours("Mon-Sun closed UTC").is_open(at("2026-07-06 10:00"))


# --- What operators are told ---

ALWAYS: Final = "Mon-Sun 09:00-17:00"
REFUSED: Final = [
    # the situation, the value, what the sentence says
    ("nothing", "", ["''", "expected Mon-Fri 09:00-17:00 Europe/Berlin"]),
    ("one word", "often", ["'often'", "expected Mon-Fri 09:00-17:00 Europe/Berlin"]),
    ("no time zone", ALWAYS, ["'09:00-17:00'", "no time zone", "Europe/Berlin"]),
    ("no time zone after closed", f"{ALWAYS}, 12-25 closed", ["'closed'", "no time zone"]),
    ("no time zone after a day", f"{ALWAYS}, Sat", ["'Sat'", "no time zone"]),
    ("no such place", f"{ALWAYS} Mars/Base", ["'Mars/Base'", "a name like Europe/Berlin"]),
    ("a typo in a place", f"{ALWAYS} Europe/Berlni", ["'Europe/Berlni'", "expected Europe/Berlin"]),
    ("a city", f"{ALWAYS} new_york", ["'new_york'", "expected America/New_York"]),
    ("a folder of the database", f"{ALWAYS} Europe", ["'Europe'", "a name like Europe/Berlin"]),
    ("a way out of the database", f"{ALWAYS} ../etc", ["'../etc'", "a name like Europe/Berlin"]),
    ("half a city", f"{ALWAYS} America/New York", ["'York'", "expected America/New_York"]),
    ("small letters", f"{ALWAYS} europe/berlin", ["'europe/berlin'", "expected Europe/Berlin"]),
    *(
        (f"the abbreviation {short}", f"{ALWAYS} {short}", [f"'{short}'", "summer time", place])
        for short, place in (
            *(("EST", "America/New_York"), ("edt", "America/New_York"), ("PST", "Los_Angeles")),
            *(("GMT", "Europe/London"), ("CEST", "Europe/Berlin"), ("MESZ", "Europe/Berlin")),
            *(("UTC+2", "Europe/Berlin"), ("GMT-5", "Europe/Berlin"), ("+02:00", "Europe/Berlin")),
        )
    ),
    ("no day", "09:00-17:00 UTC", ["'09:00-17:00' has no day", "expected Mon, Mon-Fri"]),
    ("closed on no day", "Closed UTC", ["'Closed' has no day"]),
    ("no such day", f"Sum 09:00-17:00, {ALWAYS} UTC", ["'Sum' is no day", "Mon-Fri"]),
    ("two letters", "Mo 09:00-17:00 UTC", ["'Mo' is no day"]),
    ("a list of days", "Mon, Tue 09:00-17:00 UTC", ["'Mon' has no hours", "09:00-17:00"]),
    ("hours without minutes", "Mon 9-17 UTC", ["'9-17' is no time of day", "09:00-17:00"]),
    ("hours of twelve", "Mon 9am-5pm UTC", ["'9am-5pm' is no time of day"]),
    ("beyond midnight", "Mon 09:00-24:30 UTC", ["'09:00-24:30' is on no clock", "24:00"]),
    ("from midnight's end", "Mon 24:00-02:00 UTC", ["'24:00-02:00' is on no clock"]),
    ("sixty minutes", "Mon 09:60-17:00 UTC", ["'09:60-17:00' is on no clock"]),
    ("twelve hours forgotten", "Mon-Fri 9:00-5:00 UTC", ["'9:00-5:00'", "09:00-17:00"]),
    ("a day and a night", "Mon 06:00-01:00 UTC", ["'06:00-01:00'", "Tue 00:00-01:00"]),
    ("an empty span", "Mon 09:00-09:00 UTC", ["'09:00-09:00'", "00:00-24:00 for all day"]),
    ("month 13", f"{ALWAYS}, 13-01 closed UTC", ["'13-01'", "calendar", "month-day"]),
    ("30 February", f"{ALWAYS}, 02-30 closed UTC", ["'02-30'", "calendar"]),
    ("29 February 2027", f"{ALWAYS}, 2027-02-29 closed UTC", ["'2027-02-29'", "calendar"]),
    ("day 0", f"{ALWAYS}, 12-00 closed UTC", ["'12-00'", "calendar"]),
    ("the day before the month", f"{ALWAYS}, 24-12 closed UTC", ["'24-12'", "month-day"]),
    ("one digit", f"{ALWAYS}, 1-1 closed UTC", ["'1-1' is no date", "12-25"]),
    ("a range of dates", f"{ALWAYS}, 12-24 - 12-26 closed UTC", ["'12-24-12-26' is no date"]),
    ("dates alone", "12-25 closed Europe/Berlin", ["no weekday", "Mon-Sun 00:00-24:00"]),
    ("overlapping", f"{ALWAYS}, Fri 16:00-18:00 UTC", ["Friday has 09:00-17:00 and 16:00-18:00"]),
    ("an overlap past midnight", "Fri 20:00-02:00 23:00-24:00 UTC", ["20:00-02:00 and 23:00-24"]),
    ("the same twice", f"{ALWAYS}, Sat 09:00-17:00 UTC", ["Saturday has", "do not overlap"]),
    ("open and closed", f"{ALWAYS}, Sun closed UTC", ["Sunday is closed and named again"]),
    ("a date, closed twice", f"{ALWAYS}, 12-25 closed, 12-25 closed UTC", ["12-25 is closed and"]),
    ("a date, closed and open", f"{ALWAYS}, 12-25 closed, 09:00-12:00 UTC", ["12-25 is closed"]),
]


@pytest.mark.parametrize(("value", "told"), [pytest.param(*row[1:], id=row[0]) for row in REFUSED])
def test_what_is_wrong_is_named_with_what_is_expected(value: str, told: list[str]) -> None:
    """The sentence has the part that was not understood, and what would do instead."""
    with pytest.raises(ValueError, match="expected") as refusal:
        parse_hours(value)
    for part in told:
        assert part in str(refusal.value)


def test_a_sentence_for_the_operator_stays_short() -> None:
    """A value of thousands of letters is quoted in part."""
    with pytest.raises(ValueError, match="no time zone") as refusal:
        parse_hours(f"{ALWAYS} {'x' * 5000}")
    assert len(str(refusal.value)) < 120


@settings(STEADY, max_examples=as_many(200))
@given(
    st.lists(st.sampled_from([*"0129:-, ", "Mon", "closed", "UTC", "12-25"]) | st.text(max_size=3))
)
def test_every_value_is_understood_or_refused(parts: list[str]) -> None:
    """Nothing but a ValueError with words in it comes out of any text before a time zone."""
    try:
        hours = parse_hours(f"{''.join(parts)} UTC")
    except ValueError as refusal:
        assert "expected" in str(refusal) or "requirements.txt" in str(refusal)
    else:
        assert hours.is_open(0) in {True, False}


@pytest.fixture
def no_time_zones(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine without time zone data, neither the system's nor the package tzdata."""
    monkeypatch.setitem(sys.modules, "tzdata", None)  # cannot be imported, installed or not
    zoneinfo.reset_tzpath(to=[])
    zoneinfo.ZoneInfo.clear_cache()
    yield
    zoneinfo.reset_tzpath()
    zoneinfo.ZoneInfo.clear_cache()


@pytest.mark.usefixtures("no_time_zones")
@pytest.mark.parametrize("place", ["Europe/Berlin", "Europe/London", "UTC", "Mars/Base"])
def test_a_machine_without_time_zones_is_named_as_such(place: str) -> None:
    """An operator whose value is right is told what the machine lacks, and no word about it."""
    with pytest.raises(ValueError, match="time zone data is missing") as refusal:
        parse_hours(f"{ALWAYS} {place}")
    assert "add tzdata to requirements.txt" in str(refusal.value)
    assert place not in str(refusal.value)


# --- The oracle ---


class Change(NamedTuple):
    """A change of the clock: from a moment on (UTC), local time is so many minutes ahead."""

    moment: datetime
    minutes: int


def nth_sunday(year: int, month: int, nth: int) -> datetime:
    """The nth Sunday of a month, from 1; 0 is the last Sunday of the month before."""
    first = date(year, month, 1)
    sunday = first + (6 - first.weekday()) * DAY + (nth - 1) * 7 * DAY
    return datetime(sunday.year, sunday.month, sunday.day, tzinfo=UTC)


def changes(place: str, year: int) -> list[Change]:
    """The changes of the clock in a year, by law."""
    hour = timedelta(hours=1)
    if place == "Europe/Berlin":  # last Sundays of March and October, at 01:00 UTC
        spring, autumn = nth_sunday(year, 4, 0), nth_sunday(year, 11, 0)
        return [Change(spring + hour, 120), Change(autumn + hour, 60)]
    if place == "America/Chicago":  # at 02:00 local time
        spring, autumn = nth_sunday(year, 3, 2), nth_sunday(year, 11, 1)
        return [Change(spring + 8 * hour, -300), Change(autumn + 7 * hour, -360)]
    if place == "Australia/Lord_Howe":  # at 02:00 local time, by half an hour
        autumn, spring = nth_sunday(year, 4, 1), nth_sunday(year, 10, 1)
        return [Change(autumn - 9 * hour, 630), Change(spring - 8.5 * hour, 660)]
    return [Change(datetime(year, 1, 1, tzinfo=UTC), 330)]  # Asia/Kolkata has one time


PLACES: Final = ("Europe/Berlin", "America/Chicago", "Australia/Lord_Howe", "Asia/Kolkata")
YEARS: Final = (2026, 2027, 2028)


def on_the_wall(place: str, moment: datetime) -> datetime:
    """The time that a clock there shows, to the minute."""
    history = [each for year in range(2025, 2030) for each in changes(place, year)]
    last = max(each for each in history if each.moment <= moment)
    shown = moment + timedelta(minutes=last.minutes)
    return shown.replace(tzinfo=None, second=0, microsecond=0)


Plan = Mapping[str, list[tuple[int, int]]]  # hours by day, in minutes: closes > 1440 is tomorrow


def open_minutes(plan: Plan, around: date) -> set[datetime]:
    """Every open minute of the days around a date, on a wall calendar."""
    minutes: set[datetime] = set()
    for days in (-1, 0, 1):
        day = around + days * DAY
        hours = plan.get(WEEK[day.weekday()], [])
        hours = plan.get(f"{day:%m-%d}", hours)
        hours = plan.get(f"{day:%Y-%m-%d}", hours)
        midnight = datetime(day.year, day.month, day.day)  # noqa: DTZ001 # what a wall shows
        for opens, closes in hours:
            minutes |= {midnight + minute * MINUTE for minute in range(opens, closes)}
    return minutes


def written(plan: Plan, place: str) -> str:
    """A plan as an operator writes it."""
    entries = []
    for day, hours in plan.items():
        for opens, closes in hours:
            ends = closes if closes <= 1440 else closes - 1440
            times = [f"{minute // 60}:{minute % 60:02}" for minute in (opens, ends)]
            entries.append(f"{day} {'-'.join(times)}")
        if not hours:
            entries.append(f"{day} closed")
    return f"{', '.join(entries)} {place}"


@st.composite
def hours_of_a_day(draw: st.DrawFn) -> list[tuple[int, int]]:
    """None, one or two spans in a row; the last one may go over midnight."""
    edges = sorted(draw(st.sets(st.integers(0, 95), min_size=4, max_size=4)))
    opens, pause, again, closes = (15 * edge for edge in edges)
    late = draw(st.integers(0, opens // 15)) * 15
    if 1440 + late - again >= LONGEST:
        late = 0  # nearly all day: that is refused
    spans = [(opens, pause), (again, draw(st.sampled_from([closes, 1440, 1440 + late])))]
    return spans[: draw(st.integers(0, 2))]


@st.composite
def cases(draw: st.DrawFn) -> tuple[str, Plan, datetime]:
    """A place, its hours, and a moment: near a change of the clock, a date of the plan, or any."""
    place = draw(st.sampled_from(PLACES))
    year = draw(st.sampled_from(YEARS))
    near = [each.moment for each in changes(place, year)]
    near += [datetime(year, month, day, tzinfo=UTC) for month, day in ((12, 24), (2, 28), (3, 1))]
    hours = draw(st.sampled_from([12, 48, 24 * 180]))
    minutes = draw(st.integers(-60 * hours, 60 * hours))
    moment = draw(st.sampled_from(near)) + minutes * MINUTE
    wall = on_the_wall(place, moment)
    dates = [f"{wall + days * DAY:{form}}" for days in (-1, 0) for form in ("%m-%d", "%Y-%m-%d")]
    week = st.dictionaries(st.sampled_from(WEEK), hours_of_a_day(), min_size=1)
    special = st.dictionaries(st.sampled_from([*dates, "12-24", "02-29"]), hours_of_a_day())
    return place, draw(week) | draw(special), moment


SHRINKING: Final = [phase for phase in Phase if phase is not Phase.explain]


@settings(STEADY, max_examples=as_many(250), phases=SHRINKING)
@given(cases())
def test_a_wall_calendar_says_the_same(case: tuple[str, Plan, datetime]) -> None:
    """Whatever the hours, the place and the moment: it is open when the calendar there says so."""
    place, plan, moment = case
    wall = on_the_wall(place, moment)
    hours = parse_hours(written(plan, place))
    assert hours.is_open(moment.timestamp()) is (wall in open_minutes(plan, wall.date()))


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("year", first_quick(YEARS))
def test_every_minute_around_a_change_of_the_clock(place: str, year: int) -> None:
    """Hours before, in, after and over the change agree with the calendar, minute for minute."""
    plan: Plan = {"Sat": [(23 * 60, 1440 + 135)], "Sun": [(60, 90), (105, 150), (165, 200)]}
    hours = parse_hours(written(plan, place))
    for change in changes(place, year):
        on_calendar = open_minutes(plan, on_the_wall(place, change.moment).date())
        for minute in range(-300, 300):
            moment = change.moment + minute * MINUTE
            wall = on_the_wall(place, moment)
            expected = wall in on_calendar
            assert hours.is_open(moment.timestamp()) is expected, wall
