"""What callers hear, by name: a test that expects a sentence takes it from here, and quotes none.

    say("not_heard")                              # "I am sorry, I did not hear you."
    say("did_you_say", "de", name="billing")      # "Meinten Sie billing? ..."
    say("heard_connecting", heard="Ann")          # with what is filled in
    in_twiml("greeting")                          # as it stands in an answer

Whoever changes a sentence of the line breaks no test that does so.
"""

import re
from functools import cache
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape

from phone_line.words import Words, languages, read_words

LANGUAGES: Final = languages()


@cache
def words_of(language: str) -> Words:
    """The words of a language, as its first region speaks it."""
    return read_words(language)


def say(name: str, language: str = "en", /, **blanks: str) -> str:
    """A sentence as the line says it, with its blanks filled in."""
    return words_of(language).sentences[name].format(**blanks)


def in_twiml(name: str, language: str = "en", /, **blanks: str) -> str:
    """The same sentence as it stands in a document, where & and < are written otherwise."""
    return escape(say(name, language, **blanks))


def say_in_every_language(name: str) -> list[str]:
    """A sentence that has no blanks, in each language of the line."""
    return [say(name, language) for language in LANGUAGES]


def change_sentence(root: Path, language: str, name: str, sentence: str) -> None:
    """Changes a sentence as an owner would, in the copy of the tree at `root`."""
    file = root / "phone_line" / "words" / f"{language}.toml"
    text = file.read_text(encoding="utf-8")
    line = re.compile(rf'^{re.escape(name)} = ".*"', re.MULTILINE)
    assert line.search(text), name
    changed = line.sub(lambda _: f'{name} = "{sentence}"', text, count=1)
    file.write_text(changed, encoding="utf-8")
