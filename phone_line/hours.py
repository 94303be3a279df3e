"""Opening hours, like `Mon-Fri 09:00-17:00, 12-25 closed Europe/Berlin`: understood, and asked.

A value is entries with commas between, and the time zone at the end. An entry is a day and its
hours:

    Mon   Monday   Mon-Fri   Fri-Mon      weekdays, in any case; a range may go over the weekend
    12-25                                 a date (month-day) of every year
    2027-05-14                            a date of one year
    09:00-17:00   9:00-24:00              from the first minute up to the last, which is outside
    18:00-02:00                           over midnight, up to two o'clock of the next day
    00:00-23:59                           the same as 00:00-24:00, which people mean by it
    closed                                all day

An entry without a day goes on with the day before it: `Mon 09:00-12:00, 13:00-17:00`.
- A date of one year beats the date of every year, and both beat the weekday. What beats replaces
  all hours of that day.
- Hours over midnight belong to the day on which they begin. With `12-24 18:00-02:00, 12-25 closed`
  it is open until two in the night of the 24th.
- Hours that would go over midnight and last most of a day are refused: `9:00-5:00` is meant to end
  in the afternoon, and phones would ring at three in the night.
- A weekday that no entry names is closed. At least one must be named: `12-25 closed` alone would
  close the line for ever.

The clock on the wall decides, as a visitor at the door would read it. An hour that summer time
skips never comes: `02:30-05:00` opens at three on that day. An hour that comes twice counts twice:
`01:00-02:30` is open for the first half of both hours that begin at two.

Pure: no clock, no environment, no log. A ValueError is a sentence for the operator: what was found,
and what is expected.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta, tzinfo
from itertools import product
from typing import Final, NamedTuple

from phone_line.text import show_part
from phone_line.zones import find_zone

WEEKDAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MINUTES: Final = 24 * 60  # of a day
LONGEST: Final = 18 * 60  # minutes over midnight: `9:00-3:00` would be as long
LEAP_YEAR: Final = 2000  # a year that has every date: 02-29 is meant for the years that have it

BLANKS: Final = " ,\t\r\n"
DASHES: Final = r"\s*[-\u2010-\u2015\u2212]\s*"  # word processors make long ones, and add blanks
DATE: Final = r"(?:([0-9]{4})-)?([0-9]{2})-([0-9]{2})"
HOURS: Final = r"([0-9]{1,2}):([0-9]{2})-([0-9]{1,2}):([0-9]{2})"
CLOSED: Final = "closed"
NO_ZONE: Final = f"[0-9:-]+|{CLOSED}"  # the last word, if somebody forgot the time zone
EXAMPLE: Final = "Mon-Fri 09:00-17:00 Europe/Berlin"
A_DATE: Final = "12-25 (month-day) or 2027-05-14"
A_DAY: Final = f"Mon, Mon-Fri, {A_DATE}"
A_SPAN: Final = "09:00-17:00, 18:00-02:00 or closed"


class Span(NamedTuple):
    """Hours of one day, in minutes after its midnight. The minute `closes` is outside.

    Over midnight `closes` is more than a day: 18:00-02:00 is Span(1080, 1560).
    """

    opens: int
    closes: int


Spans = tuple[Span, ...]  # all hours of a day; none: closed


@dataclass(frozen=True, slots=True)
class OpeningHours:
    """The hours of a line, and the time zone in which they are meant.

    `days` has them by the name of a day: a weekday ("Monday"), a date of every year ("12-25") or
    of one year ("2027-05-14"). What no entry names is missing there.
    """

    days: Mapping[str, Spans]
    zone: tzinfo

    def is_open(self, at: float) -> bool:
        """Tell if the line is open at a Unix time (seconds), by the clock on the wall there."""
        there = datetime.fromtimestamp(at, self.zone)
        today = there.date()
        yesterday = today - timedelta(days=1)
        minute = there.hour * 60 + there.minute
        return self.covers(today, minute) or self.covers(yesterday, minute + MINUTES)

    def covers(self, day: date, minute: int) -> bool:
        """Tell if the hours that begin on a day include a minute, counted from its midnight."""
        return any(opens <= minute < closes for opens, closes in self.find_spans(day))

    def find_spans(self, day: date) -> Spans:
        """Find the hours that begin on a day."""
        of_one_year = day.isoformat()
        of_every_year = of_one_year.partition("-")[2]
        weekday = WEEKDAYS[day.weekday()]
        for name in (of_one_year, of_every_year, weekday):
            if name in self.days:
                return self.days[name]
        return ()


def parse_hours(value: str) -> OpeningHours:
    """Understand opening hours as an operator writes them (see the top of this file).

    Raises ValueError with a sentence for the operator. A machine without any time zone data is
    named as such, and no good value is called wrong for it.
    """
    entries, place = split_zone(value)
    zone = find_zone(place)
    days: dict[str, Spans] = {}
    names: list[str] = []
    for entry in entries:
        names, hours = parse_entry(entry, names)
        for name, spans in product(names, hours):
            so_far = days.get(name)
            days[name] = add_spans(name, so_far, spans)
    if days.keys().isdisjoint(WEEKDAYS):
        raise ValueError(
            "no weekday is named, so the line would be closed on all of them;"
            " expected Mon-Sun 00:00-24:00 or the like as well"
        )
    return OpeningHours(days, zone)


# --- Entries ---


def split_zone(value: str) -> tuple[list[str], str]:
    """Split a value into its entries and the name of the time zone behind them."""
    plain = re.sub(DASHES, "-", value).strip(BLANKS)
    place = re.split(f"[{BLANKS}]", plain)[-1]
    pieces = plain.removesuffix(place).split(",")
    entries = [piece.strip() for piece in pieces if piece.strip()]
    if not entries:
        raise ValueError(f"{show_part(value)} is not enough; expected {EXAMPLE}")
    if re.fullmatch(NO_ZONE, place.lower()) or find_weekday(place):
        raise ValueError(f"{show_part(place)} at the end is no time zone; expected {EXAMPLE}")
    return entries, place


def parse_entry(entry: str, before: list[str]) -> tuple[list[str], list[Spans]]:
    """Understand one entry: the names of its days, and the hours that each of them gets.

    `before` names the days of the entry before, which an entry of hours alone goes on with.
    """
    names, words = before, entry.split()
    if not is_hours(words[0]):
        names = parse_days(words.pop(0))
    if not names:
        raise ValueError(f"{show_part(entry)} has no day; expected {A_DAY} before the hours")
    if not words:
        raise ValueError(f"{show_part(entry)} has no hours; expected {A_SPAN} after the day")
    return names, [parse_spans(word) for word in words]


def add_spans(name: str, before: Spans | None, spans: Spans) -> Spans:
    """Join the hours of a day with what earlier entries gave it (None: nothing yet).

    Raises ValueError where they contradict each other: an operator who writes `Mon-Fri 09:00-17:00,
    Fri 09:00-13:00` does not mean that Friday ends at five.
    """
    if before is None:
        return spans
    if not before or not spans:
        raise ValueError(
            f"{name} is closed and named again; expected its hours, or closed, but once"
        )
    for one, other in product(before, spans):
        if one.opens < other.closes and other.opens < one.closes:
            raise ValueError(
                f"{name} has {write_span(one)} and {write_span(other)};"
                " expected hours that do not overlap"
            )
    return before + spans


# --- Days ---


def parse_days(word: str) -> list[str]:
    """Understand a weekday, a range of weekdays, or a date: the names of the days."""
    written = word.removesuffix(":")  # "Sat: closed"
    if written[:1].isdigit():
        return [parse_date(written)]
    first_word, _, last_word = written.partition("-")
    first = find_weekday(first_word)
    last = find_weekday(last_word or first_word)
    if not first or not last:
        raise ValueError(f"{show_part(word)} is no day; expected {A_DAY}")
    return list_weekdays(first, last)


def find_weekday(word: str) -> str:
    """Find the weekday that a word stands for, by three letters or more; else an empty string."""
    if len(word) < 3:
        return ""
    fitting = (day for day in WEEKDAYS if day.lower().startswith(word.lower()))
    return next(fitting, "")


def list_weekdays(first: str, last: str) -> list[str]:
    """List the weekdays from the first to the last; after Sunday comes Monday."""
    two_weeks = WEEKDAYS * 2
    start = two_weeks.index(first)
    end = two_weeks.index(last, start)
    return [*two_weeks[start : end + 1]]


def parse_date(word: str) -> str:
    """Understand 12-25 or 2027-05-14; a ValueError for a date that no calendar has."""
    written = re.fullmatch(DATE, word)
    if not written:
        raise ValueError(f"{show_part(word)} is no date; expected {A_DATE}")
    year, month, day = written.groups()
    try:
        date(int(year or LEAP_YEAR), int(month), int(day))
    except ValueError:
        problem = f"{show_part(word)} is in no calendar; expected a date like {A_DATE}"
        raise ValueError(problem) from None
    return word


# --- Hours ---


def is_hours(word: str) -> bool:
    """Tell hours from a day."""
    return word.lower() == CLOSED or re.match("[0-9]+:[0-9]", word) is not None


def parse_spans(word: str) -> Spans:
    """Understand `closed` or 09:00-17:00; hours that end before they begin go over midnight."""
    if word.lower() == CLOSED:
        return ()
    written = re.fullmatch(HOURS, word)
    if not written:
        raise ValueError(f"{show_part(word)} is no time of day; expected {A_SPAN}")
    first_hour, first_minute, last_hour, last_minute = map(int, written.groups())
    opens = first_hour * 60 + first_minute
    closes = last_hour * 60 + last_minute
    if max(first_minute, last_minute) > 59 or opens >= MINUTES or closes > MINUTES:
        raise ValueError(f"{show_part(word)} is on no clock; expected 00:00 to 23:59, or to 24:00")
    if opens == closes:
        raise ValueError(f"{show_part(word)} is no time at all; expected 00:00-24:00 for all day")
    if closes == MINUTES - 1:
        closes = MINUTES
    if closes < opens:
        closes += MINUTES
    if closes > MINUTES and closes - opens >= LONGEST:
        raise ValueError(
            f"{show_part(word)} would end on the next day; expected 09:00-17:00 if the afternoon"
            " is meant, else two entries, like Mon 06:00-24:00, Tue 00:00-01:00"
        )
    return (Span(opens, closes),)


def write_span(span: Span) -> str:
    """Write hours as an operator does."""
    opens, closes = span
    if closes > MINUTES:
        closes -= MINUTES
    return f"{opens // 60:02}:{opens % 60:02}-{closes // 60:02}:{closes % 60:02}"
