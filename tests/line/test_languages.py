"""Languages: each is complete, and a call keeps to its own."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

import main
from standins.call import Phone
from standins.inside import ORIGIN, Inside
from standins.sentences import WORDS
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


@pytest.mark.parametrize("language", sorted(set(WORDS) - {"en"}))
def test_a_language_is_complete(language: str) -> None:
    """Every sentence of English is there, not empty, and its own."""
    english, other = WORDS["en"], WORDS[language]
    assert sorted(other) == sorted(english)
    assert all(sentence.strip() for sentence in other.values())
    assert {name for name in other if other[name] == english[name]} <= {"ask_menu"}


@pytest.mark.parametrize("language", sorted(WORDS))
def test_the_words_of_a_language_do_not_contradict_each_other(language: str) -> None:
    """No word means both yes and no, or both a person and a repetition; nine numbers are there."""
    words = WORDS[language]
    lists = {name: main.word_list(words[name]) for name in words if name.startswith("words_")}
    assert not {*lists["words_yes"]} & {*lists["words_no"]}
    assert not {*lists["words_operator"]} & {*lists["words_repeat"]}
    assert len(lists["words_numbers"]) == 9
    assert all(word for each in lists.values() for word in each)


def sentences(table: dict[str, str]) -> Callable[[str], bool]:
    """A check that something said is made of the sentences of a table, and of nothing else."""
    spoken = {
        name: each for name, each in table.items() if not name.startswith(("words_", "voice"))
    }
    if spoken["ask_menu"] == "{menu}":
        del spoken["ask_menu"]  # it is made of menu_items alone
    item = pattern_of(spoken["menu_item"])
    patterns = [
        pattern_of(each.replace("{menu}", "{items}"), items=item) for each in spoken.values()
    ]
    longest_first = sorted(patterns, key=len, reverse=True)
    made_of_them = re.compile(f"(?:(?:{'|'.join(longest_first)}) ?)+")
    return lambda said: made_of_them.fullmatch(said) is not None


def pattern_of(sentence: str, items: str = "") -> str:
    """The pattern of a sentence, whatever is filled in; `{items}` are some of that pattern."""
    escaped = re.sub(r"([.?*+()])", r"\\\1", sentence).replace("{items}", f"(?:{items} ?)+")
    return PLACEHOLDER.sub(".+?", escaped)


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
    german = sentences(dict(WORDS["de"]))
    assert not any(map(german, WORDS["en"].values()))
    assert [each for each in said if not german(each)] == []
    for webhook in phone.webhooks:
        if webhook.answer and webhook.answer.body:
            body = webhook.answer.body.decode()
            assert {*re.findall('language="(.*?)"', body)} <= {"de-DE"}
            assert {*re.findall('voice="(.*?)"', body)} <= {"Polly.Vicki"}
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
    heard(Inside({"STATE_FILE": str(tmp_path / "c"), "LANGUAGE": "de-DE"})).hang_up()
    entries: list[dict[str, Any]] = [
        json.loads(each) for each in capsys.readouterr().out.splitlines()
    ]
    assert [entry["message"] for entry in entries] == ["webhook", "call ended"]
