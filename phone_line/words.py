"""The words of a language: what the line says, and which words of a caller it understands.

They stand in `words/en.toml` and its like, one file a language, for owners and translators
(`words_file.py` tells what such a file holds). A file is read when its language is asked for, and
no other, because a cold start waits for it. Phrases are folded when they are read, as a caller's
words are before they are compared.

`read_words` never raises. Whatever is wrong with a file stands in `problems`, a sentence each, with
file and line; what fits is there all the same. Which sentences a line needs is not known here:
`checks.py` finds out by rehearsing the flow.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from phone_line.text import drop_unfit, fold_words
from phone_line.words_file import (
    Entries,
    find_line,
    find_problems,
    list_entries,
    name_place,
    read_text,
    tell_syntax,
    texts_in,
)

FOLDER: Final = Path(__file__).parent / "words"


@dataclass(frozen=True, slots=True)
class Words:
    """One language, as one region speaks it. Phrases are folded; `hints` are as people write."""

    tag: str  # language and region: es-ES
    file: Path
    name: str = ""  # how the language calls itself
    chosen_by: tuple[str, ...] = ()  # what a caller says who wants it
    voice: str = ""
    sentences: Mapping[str, str] = field(default_factory=dict)
    yes: tuple[str, ...] = ()
    no: tuple[str, ...] = ()
    negations: tuple[str, ...] = ()  # one of them makes any answer a no
    operator: tuple[str, ...] = ()
    repeat: tuple[str, ...] = ()
    filler: tuple[str, ...] = ()  # said around a choice and ignored; the longest phrases first
    keys: Mapping[str, str] = field(default_factory=dict)  # what is said: the key that it means
    keys_alone: Mapping[str, str] = field(default_factory=dict)  # only if nothing else is said
    hints: tuple[str, ...] = ()  # the commonest name of each key, from 0 to 9
    problems: tuple[str, ...] = ()  # what is wrong with the file
    was_read: bool = False  # the file is there, and is TOML in UTF-8

    def place_of(self, sentence: str) -> str:
        """The file and line of a sentence; the file alone if it has no such sentence."""
        text = read_text(self.file)
        line = find_line(text, ("sentences", self.tag, sentence))
        if not line:
            line = find_line(text, ("sentences", sentence))
        return name_place(self.file, line)


def languages(folder: Path = FOLDER) -> list[str]:
    """The languages that have a file, by its name alone: de, en ..."""
    if not folder.is_dir():
        return []
    return sorted(file.stem for file in folder.iterdir() if file.suffix == ".toml")


def read_words(tag: str, folder: Path = FOLDER) -> Words:
    """Read the words for a language and region like `de-AT`. Never raises: see `problems`."""
    from tomllib import TOMLDecodeError, loads  # loaded with the first file

    language = tag.partition("-")[0]
    file = folder / f"{language}.toml"
    there = languages(folder)
    if language not in there:
        problem = f"{name_place(file)}: there is no such file (there are: {', '.join(there)})"
        return Words(tag, file, problems=(problem,))
    try:
        text = read_text(file)
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        return Words(tag, file, problems=(f"{name_place(file, line)}: this is not UTF-8 text",))
    try:
        found = dict(list_entries(loads(text)))
    except TOMLDecodeError as error:
        return Words(tag, file, problems=(tell_syntax(file, text, error),))
    problems = tuple(dict.fromkeys(find_problems(file, text, found)))
    return build_words(tag, file, found, problems)


def unfilled(sentence: str, filled: Collection[str]) -> list[str]:
    """The braces of a sentence that would be read aloud, because nothing fills them: `{nam}`."""
    filled_in = {f"{{{name}}}" for name in filled}
    in_braces = re.findall("{[^{}]*}?|}", sentence)
    return [part for part in in_braces if part not in filled_in]


def build_words(tag: str, file: Path, found: Entries, problems: tuple[str, ...]) -> Words:
    """Make Words of what was found in a file, as far as its types fit."""
    top = texts_in(found)
    voices = texts_in(found, "voices")
    sentences = texts_in(found, "sentences")
    sentences.update(texts_in(found, "sentences", tag))
    phrases = {}
    for name, text in texts_in(found, "understood").items():
        phrases[name] = fold_phrases(text)
    keys = texts_in(found, "understood", "keys")
    return Words(
        tag=tag,
        file=file,
        name=top.get("name", ""),
        chosen_by=fold_phrases(top.get("chosen_by", "")),
        voice=voices.get(tag) or next(iter(voices.values()), ""),
        sentences=sentences,
        yes=phrases.get("yes", ()),
        no=phrases.get("no", ()),
        negations=phrases.get("negations", ()),
        operator=phrases.get("operator", ()),
        repeat=phrases.get("repeat", ()),
        filler=tuple(sorted(phrases.get("filler", ()), key=count_words, reverse=True)),
        keys=fold_keys(keys),
        keys_alone=fold_keys(texts_in(found, "understood", "keys_alone")),
        hints=tuple(drop_unfit(text.partition(",")[0]) for text in keys.values()),
        problems=problems,
        was_read=True,
    )


def fold_keys(table: Mapping[str, str]) -> dict[str, str]:
    """Each phrase of a table of keys, folded, and the key that it means."""
    meanings = {}
    for key, text in table.items():
        meanings.update(dict.fromkeys(fold_phrases(text), key))
    return meanings


def fold_phrases(text: str) -> tuple[str, ...]:
    """Phrases with commas between, each folded. What folds to nothing is left out."""
    folded = map(fold_words, text.split(","))
    return tuple(filter(None, folded))


def count_words(phrase: str) -> int:
    """The number of words in a phrase."""
    return len(phrase.split())
