"""Time zones by their names in the IANA database, and which one is meant by another name.

A line's hours need a place, because an offset and its abbreviation know no summer time. So those
are refused, although the database has some, with the place that is likely meant: whoever writes EST
in New York would be an hour wrong from March to November. UTC is nobody's local time, and stays.
"""

import re
from datetime import tzinfo
from difflib import get_close_matches
from typing import Final

from phone_line.text import show_part

# Abbreviations, and a place that uses each.
MEANT: Final = {
    "EST": "America/New_York",
    "EDT": "America/New_York",
    "ET": "America/New_York",
    "CST": "America/Chicago",
    "CDT": "America/Chicago",
    "CT": "America/Chicago",
    "MST": "America/Denver",
    "MDT": "America/Denver",
    "MT": "America/Denver",
    "PST": "America/Los_Angeles",
    "PDT": "America/Los_Angeles",
    "PT": "America/Los_Angeles",
    "GMT": "Europe/London",
    "BST": "Europe/London",
    "CEST": "Europe/Berlin",
    "MEZ": "Europe/Berlin",
    "MESZ": "Europe/Berlin",
    "EEST": "Europe/Athens",
    "WEST": "Europe/Lisbon",
    "AEST": "Australia/Sydney",
    "AEDT": "Australia/Sydney",
}
OFFSET: Final = r"(?i)(?:UTC|GMT|Z)?\s*[+-]\s*[0-9]{1,2}(?::?[0-9]{2})?|GMT0"
USUAL: Final = "Europe/Berlin"


def find_zone(place: str) -> tzinfo:
    """Find a time zone by its name in the IANA database, or say which one could be meant."""
    meant = MEANT.get(place.upper(), "")
    if meant or re.fullmatch(OFFSET, place):
        raise ValueError(
            f"{show_part(place)} knows no summer time; expected a place, like {meant or USUAL}"
        )
    zone = load_zone(place)
    if zone:
        return zone
    if not load_zone("UTC"):  # even this one is read from the database
        raise ValueError(
            "the time zone data is missing on this machine; add tzdata to requirements.txt"
        )
    raise ValueError(f"there is no time zone {show_part(place)}; expected {suggest_zone(place)}")


def load_zone(place: str) -> tzinfo | None:
    """Load a time zone; None if the machine has none of that name.

    Python looks in the system's database, then in the package tzdata
    (https://docs.python.org/3/library/zoneinfo.html#data-sources). A name that is no key there is a
    KeyError, an impossible one (../etc) a ValueError, a folder (Europe) an OSError.
    """
    from zoneinfo import ZoneInfo  # here, because most lines have no hours

    try:
        return ZoneInfo(place)
    except (KeyError, ValueError, OSError):
        return None


def suggest_zone(place: str) -> str:
    """Name the time zone that looks most like a word, or a well-known one.

    Etc/GMT+1 is never suggested: it is an hour *behind* UTC.
    """
    from zoneinfo import available_timezones

    every = [zone for zone in sorted(available_timezones()) if not zone.startswith("Etc/")]
    zones = {zone.lower(): zone for zone in every}
    cities = {name.rpartition("/")[2]: zone for name, zone in zones.items()}
    ends = {city.rpartition("_")[2]: zone for city, zone in cities.items()}  # "America/New York"
    names = ends | zones | cities
    close = get_close_matches(place.lower(), names, n=1, cutoff=0.75)  # "XST" is not "EST"
    return names[close[0]] if close else f"a name like {USUAL}"
