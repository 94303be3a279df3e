"""The line's sentences, by name: a test that expects one takes it from here, and quotes none.

    say("not_heard")                              # "I am sorry, I did not hear you."
    say("did_you_say", "de", name="billing")      # "Meinten Sie billing? ..."
    say("heard_connecting", heard="Ann")          # with what is filled in
    in_twiml("greeting")                          # as it stands in an answer

Whoever changes a sentence of the line breaks no test that does so.
"""

import codecs
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
    """A sentence that has no blanks, in each language of the line that has it."""
    every = [words_of(language).sentences for language in LANGUAGES]
    return [sentences[name] for sentences in every if name in sentences]


SENTENCE: Final = re.compile(r'(?P<name>[\w-]+) = "(?P<words>.*)"(?P<rest>[^"]*\n)')


def change_every_sentence(root: Path) -> int:
    """Gives every sentence of every language other words, in the copy of the tree at `root`.

    Letters become others (rot13), so that nothing of a sentence can be quoted any more; blanks,
    digits and punctuation stay. Answers how many sentences there are.
    """
    changed = 0
    for file in (root / "phone_line" / "words").glob("*.toml"):
        lines, table = [], ""
        for line in file.read_text(encoding="utf-8").splitlines(keepends=True):
            if line.startswith("["):
                table = line.strip("[]\n").partition(".")[0]
            found = SENTENCE.fullmatch(line) if table == "sentences" else None
            if found:
                changed += 1
                name, words, rest = found.groups()
                lines.append(f'{name} = "{other_words(words)}"{rest}')
            else:
                lines.append(line)
        file.write_text("".join(lines), encoding="utf-8")
    return changed


def other_words(sentence: str) -> str:
    """Another sentence with the same blanks: `Hello, {name}` becomes `Uryyb, {name}`."""
    parts = re.split(r"({\w+})", sentence)
    return "".join(part if part[:1] == "{" else codecs.encode(part, "rot13") for part in parts)
