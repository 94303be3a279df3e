"""What callers hear, by name: a test that expects a sentence takes it from here, and quotes none.

    say("not_heard")                              # "I am sorry, I did not hear you."
    say("did_you_say", "de", name="billing")      # "Meinten Sie billing? ..."
    say("heard_connecting", heard="Ann")          # with what is filled in
    in_twiml("greeting")                          # as it stands in an answer

Whoever changes a sentence of the line breaks no test that does so.
"""

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape

from standins.instance import ROOT

Words = Mapping[str, Mapping[str, str]]  # language: name: sentence


def read_words() -> Words:
    """The table of sentences in main.py, without running it."""
    module = ast.parse((ROOT / "main.py").read_text(encoding="utf-8"))
    for node in module.body:
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "WORDS" and node.value:
            words: Words = ast.literal_eval(node.value)
            return words
    raise ValueError("main.py has no table WORDS")


WORDS: Final = read_words()


def change_sentence(root: Path, language: str, name: str, sentence: str) -> None:
    """Changes a sentence as an owner would, in the copy of the tree at `root`."""
    source = root / "main.py"
    text = source.read_text(encoding="utf-8")
    start, block, rest = text.partition(f'    "{language}": {{\n')
    before = f'"{name}": "{WORDS[language][name]}"'
    assert before in rest, before
    after = rest.replace(before, f'"{name}": "{sentence}"', 1)
    source.write_text(start + block + after, encoding="utf-8")


def say(name: str, language: str = "en", /, **blanks: str) -> str:
    """A sentence as the line says it, with its blanks filled in."""
    return WORDS[language][name].format(**blanks)


def in_twiml(name: str, language: str = "en", /, **blanks: str) -> str:
    """The same sentence as it stands in a document, where & and < are written otherwise."""
    return escape(say(name, language, **blanks))


def say_in_every_language(name: str) -> list[str]:
    """A sentence that has no blanks, in each language of the line."""
    return [words[name] for words in WORDS.values()]
