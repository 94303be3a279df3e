"""Languages: each is complete, and a call keeps to its own."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from phone_line.words import read_words
from standins.call import Phone
from standins.inside import ORIGIN, Inside
from standins.twiml import judge

PERSON: Final = {"FORWARD_TO": "+15550100099"}
CALLER: Final = "+15557654321"


def heard(line: Inside, caller: str = CALLER) -> Phone:
    """A phone that has rung there; whether its answer kept Twilio's rules is the judge's to say."""
    phone = line.phone(caller)
    phone.ring()
    assert phone.broken == []
    return phone


PLACEHOLDER: Final = re.compile(r"{\w+}")


def sentences(table: dict[str, str]) -> Callable[[str], bool]:
    """Tells if something said is made of the sentences of a table, and of nothing else."""
    silent = ("ask_menu",)  # the menu is made of menu_items
    spoken = [table[name] for name in table if not name.startswith(silent)]
    patterns = [PLACEHOLDER.sub(".+?", re.sub(r"([.?*+()])", r"\\\1", each)) for each in spoken]
    known = re.compile("(?:(?:" + "|".join(sorted(patterns, key=len, reverse=True)) + ") ?)+")
    return lambda said: known.fullmatch(said) is not None


TALKS: Final[list[tuple[str, dict[str, str], list[tuple[str, str]]]]] = [
    # the line, its settings, what the caller does
    ("forward", PERSON, [("say", "Anna, meine Rechnung"), ("callee", "no-answer")]),
    ("nothing heard", PERSON, [("silent", ""), ("silent", ""), ("silent", "")]),
    (
        "menu",
        {**PERSON, "DEPARTMENTS": "rechnung=+15550100001 verkauf=+15550100002"},
        [("say", "hm"), ("say", "zwei"), ("callee", "busy")],
    ),
    (
        "a doubt",
        {"DEPARTMENTS": "rechnung=+15550100001"},
        [("doubt", "rechnung"), ("say", "ja, genau"), ("callee", "completed")],
    ),
    ("a person", PERSON, [("say", "Vermittlung, bitte"), ("callee", "failed")]),
    ("again", PERSON, [("say", "nochmal"), ("press", "*"), ("press", "0")]),
]


@pytest.mark.parametrize(
    ("settings", "deeds"), [pytest.param(*row[1:], id=row[0]) for row in TALKS]
)
def test_a_german_call_is_german_throughout(
    tmp_path: Path, settings: dict[str, str], deeds: list[tuple[str, str]]
) -> None:
    """With LANGUAGE=de-DE every word, every voice and every recognition is German."""
    state = {"STATE_FILE": str(tmp_path / "calls"), "LANGUAGE": "de-DE"}
    phone = heard(Inside({**state, **settings}))
    said = [*phone.heard]
    for deed, words in deeds:
        said += do(phone, deed, words)
    assert phone.broken == []
    german = sentences(dict(read_words("de-DE").sentences))
    assert not any(map(german, read_words("en-US").sentences.values()))
    assert [each for each in said if not german(each)] == []
    for webhook in phone.webhooks:
        if webhook.answer and webhook.answer.body:
            body = webhook.answer.body.decode()
            assert {*re.findall('language="(.*?)"', body)} <= {"de-DE"}
            assert {*re.findall('voice="(.*?)"', body)} <= {read_words("de-DE").voice}
            if "/voice/accept" not in webhook.url:  # the phone has judged what a callee hears
                assert judge(body, ORIGIN) == []


def do(phone: Phone, deed: str, words: str) -> list[str]:
    """One thing that a caller or a callee does; what the line says then."""
    if deed == "doubt":
        return phone.say(words, 0.2)
    deeds: dict[str, Callable[[], list[str]]] = {
        "say": lambda: phone.say(words),
        "press": lambda: phone.press(words),
        "silent": phone.silent,
        "callee": lambda: phone.callee(words),
    }
    return deeds[deed]()


def test_german_words_have_the_effect_of_english_ones(tmp_path: Path) -> None:
    """A number, a yes and a wish for a person are understood in German, and shown in the record."""
    menu = {"DEPARTMENTS": "rechnung=+15550100001 verkauf=+15550100002", **PERSON}
    state = {"STATE_FILE": str(tmp_path / "calls"), "LANGUAGE": "de-DE", "ADMIN_TOKEN": "x" * 12}
    line = Inside({**state, **menu})
    ways: list[tuple[str, str]] = [("zwei", "+15550100002"), ("mensch", "+15550100099")]
    for words, number in ways:
        phone = heard(line)
        phone.say(words)
        assert phone.state == "dial"
        assert f"line dials {number}" in phone.transcript


def test_a_greeting_of_ones_own_is_said_in_any_language(tmp_path: Path) -> None:
    """GREETING replaces the first sentence and no other."""
    for number, language in enumerate(("en-US", "de-DE")):
        state = {"STATE_FILE": str(tmp_path / str(number)), "LANGUAGE": language}
        usual, own = heard(Inside(state)), heard(Inside({**state, "GREETING": "Moin & hello <3"}))
        assert own.heard[0] == "Moin & hello <3"
        assert own.heard[1:] == usual.heard[1:]


def test_the_log_is_in_english(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The language is the callers': who reads the log finds the same words everywhere."""
    phone = heard(Inside({"STATE_FILE": str(tmp_path / "c"), "LANGUAGE": "de-DE"}))
    phone.hang_up()
    entries: list[dict[str, Any]] = [
        json.loads(each) for each in capsys.readouterr().out.splitlines()
    ]
    own = [entry for entry in entries if entry.get("call") == phone.call_sid]  # none of before
    assert [entry["message"] for entry in own] == ["webhook", "call ended"]
