"""What callers hear, by name: a test that expects a sentence takes it from here, and quotes none.

    say("not_heard")                              # "I am sorry, I did not hear you."
    say("did_you_say", "de", name="billing")      # "Meinten Sie billing? ..."
    say("heard_connecting", heard="Ann")          # with what is filled in

Whoever changes a sentence of the line breaks no test that does so.
"""

import ast
from collections.abc import Mapping
from typing import Final

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


def say(name: str, language: str = "en", **blanks: str) -> str:
    """A sentence as the line says it, with its blanks filled in."""
    return WORDS[language][name].format(**blanks)


def say_in_every_language(name: str) -> list[str]:
    """A sentence that has no blanks, in each language of the line."""
    return [words[name] for words in WORDS.values()]
