"""The contents of a words file, and what is wrong with one: a sentence each, with file and line.

    name, chosen_by          what the language calls itself, and what a caller says who wants it
    [voices]                 a voice for each region; the first speaks for the regions not listed
    [sentences]              every sentence, by its name
    [sentences.es-ES]        those that a region says differently
    [understood]             lists of phrases, with commas between
    [understood.keys]        what is said for the keys 0 to 9
    [understood.keys_alone]  what means a key only if nothing else is said

Everything in it is text in quotation marks. `tomllib` tells where it cannot read a file, but keeps
no line of what it has read: `find_line` looks for that in the text, when there is a problem.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Final

Place = tuple[str, ...]  # where something stands in a file: ("sentences", "es-ES", "greeting")
Entries = Mapping[Place, object]  # what a file holds, without its tables

VOICES: Final[Place] = ("voices",)
SENTENCES: Final[Place] = ("sentences",)
KEYS: Final[Place] = ("understood", "keys")
KEYS_ALONE: Final[Place] = ("understood", "keys_alone")

LISTS: Final = ("yes", "no", "negations", "operator", "repeat", "filler")
DIGITS: Final = "0123456789"
# The names that a table may hold. VOICES holds regions; SENTENCES regions, and any name.
NAMES: Final[Mapping[Place, Collection[str]]] = {
    (): ("name", "chosen_by", "voices", "sentences", "understood"),
    ("understood",): (*LISTS, "keys", "keys_alone"),
    KEYS: (*DIGITS,),
    KEYS_ALONE: (*DIGITS,),
}
TABLES: Final = (*NAMES, VOICES, SENTENCES)
REQUIRED: Final[tuple[Place, ...]] = (
    ("name",),
    ("chosen_by",),
    *(("understood", name) for name in LISTS),
    *((*KEYS, key) for key in DIGITS),
)


def read_text(file: Path) -> str:
    """The text of a file, without the mark that some editors set at the beginning of UTF-8."""
    return file.read_bytes().decode("utf-8-sig")


def list_entries(table: Mapping[str, object], above: Place = ()) -> Iterator[tuple[Place, object]]:
    """Everything in a file that is no table, with its place, in the order of the file."""
    for name, value in table.items():
        place = (*above, name)
        if isinstance(value, dict):
            yield from list_entries(value, place)
        else:
            yield place, value


def texts_in(found: Entries, *table: str) -> dict[str, str]:
    """The texts of one table by their names. What is no text is left out."""
    texts = {}
    for place, value in found.items():
        if place[:-1] == table and isinstance(value, str):
            texts[place[-1]] = value
    return texts


def find_problems(file: Path, text: str, found: Entries) -> Iterator[str]:
    """Tell what does not belong into a file, what has the wrong form, and what is missing."""
    for place, problem in judge_entries(file.stem, found):
        line = find_line(text, place)
        if not line:  # what is missing is told where its table begins
            line = find_line(text, place[:-1])
        yield f"{name_place(file, line)}: {problem}"


def judge_entries(language: str, found: Entries) -> Iterator[tuple[Place, str]]:
    """The places of a file at which something is wrong, and what it is."""
    for place, value in found.items():
        unknown = find_unknown(language, place)
        if unknown:
            yield unknown, tell_unknown(language, unknown)
        elif not isinstance(value, str):
            yield place, f"{place[-1]!r} must be text in quotation marks"
        else:
            problem = judge_text(found, place, value)
            if problem:
                yield place, problem
    for place in REQUIRED:
        if place not in found:
            yield place, f"{place[-1]!r} is missing{name_table(place[:-1])}"
    if not texts_in(found, *VOICES):
        yield VOICES, "there is no voice in [voices]"
    for table in (KEYS, KEYS_ALONE):
        yield from find_double_keys(found, table)


def find_unknown(language: str, place: Place) -> Place:
    """The beginning of a place up to the first name that means nothing; none if all is known."""
    for depth in range(1, len(place) + 1):
        is_text = depth == len(place)
        if not is_known(language, place[:depth], is_text=is_text):
            return place[:depth]
    return ()


def is_known(language: str, place: Place, *, is_text: bool) -> bool:
    """Tell whether a words file may have a text at a place, or else a table."""
    table = place[:-1]
    name = place[-1]
    if table == VOICES:
        return is_text and is_region(language, name)
    if table == SENTENCES:
        return is_text != is_region(language, name)
    if table[:1] == SENTENCES:
        return is_text
    return name in NAMES.get(table, ()) and is_text != (place in TABLES)


def is_region(language: str, name: str) -> bool:
    """Tell whether a name is the language with a country: es-ES."""
    country = name.removeprefix(f"{language}-")
    return len(country) == 2 and country.isalpha() and country.isupper()


def tell_unknown(language: str, unknown: Place) -> str:
    """Say what is wrong with a name that means nothing where it stands."""
    from difflib import get_close_matches

    table = unknown[:-1]
    name = unknown[-1]
    if unknown in TABLES or (table == SENTENCES and is_region(language, name)):
        return f"{name!r} must be a table of its own, [{'.'.join(unknown)}]"
    if table in (VOICES, SENTENCES):
        return f"{name!r} is no region of this language, like en-GB for English"
    known = NAMES.get(table, ())
    if name in known:
        return f"{name!r} must be text in quotation marks"
    for similar in get_close_matches(name, known, 1):
        return f"nothing is called {name!r}{name_table(table)}; {similar!r} may be meant"
    return f"nothing is called {name!r}{name_table(table)}"


def judge_text(found: Entries, place: Place, text: str) -> str:
    """Say what is wrong with a text where a words file may have one; nothing if it is right."""
    table = place[:-1]
    name = place[-1]
    if table == VOICES and not is_voice(text):
        return f"{text!r} is no voice, like Polly.Joanna-Neural"
    if table[:1] == SENTENCES and (*SENTENCES, name) not in found:
        return f"there is no sentence {name!r} that a region could say differently"
    if place in REQUIRED and not any(map(str.isalnum, text)):
        return f"{name!r} has no words"
    return ""


def is_voice(text: str) -> bool:
    """Tell whether a text may be the name of a voice: letters and digits, with . and - between."""
    letters = text.replace(".", "").replace("-", "")
    return letters.isascii() and letters.isalnum()


def find_double_keys(found: Entries, table: Place) -> Iterator[tuple[Place, str]]:
    """The phrases that mean two keys at once."""
    meanings: dict[str, str] = {}
    for key, text in texts_in(found, *table).items():
        for phrase in text.split(","):
            bare = phrase.strip().casefold()
            first = meanings.setdefault(bare, key)
            if bare and first != key:
                yield (*table, key), f"{bare!r} means the key {first} already"


def tell_syntax(file: Path, text: str, error: ValueError) -> str:
    """Say where TOML cannot be read. tomllib has the place at the end of its message."""
    message, _, where = str(error).rpartition(" (at ")
    found = re.search(r"line (\d+)", where)
    line = len(text.splitlines())  # "at end of document"
    if found:
        line = int(found[1])
    place = name_place(file, line)
    return f"{place}, or just above: {message}. Is a quotation mark or a bracket missing?"


def find_line(text: str, place: Place) -> int:
    """The line of a table or an entry, from 1; 0 where it is not there, or in an odd spelling."""
    table = ""
    wanted = ".".join(place)
    for number, line in enumerate(text.split("\n"), 1):
        bare = line.strip().replace('"', "")
        if bare.startswith("["):
            table = bare.strip("[").partition("]")[0]
            name = table
        else:
            entry = bare.partition("=")[0]
            name = f"{table}.{entry}".strip(". ")
        if name and name == wanted:
            return number
    return 0


def name_place(file: Path, line: int = 0) -> str:
    """Name a file and a line as an owner finds them: phone_line/words/en.toml, line 12."""
    name = "/".join(file.parts[-3:])
    if not line:
        return name
    return f"{name}, line {line}"


def name_table(table: Place) -> str:
    """Name a table as a file does, with a blank before; nothing for the top of a file."""
    if not table:
        return ""
    return f" in [{'.'.join(table)}]"
