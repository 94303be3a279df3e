"""A flow and its words are looked at before the first call; what is wrong in an edit is named."""

from dataclasses import replace
from pathlib import Path

import pytest

from phone_line.checks import find_flaws
from phone_line.conversation import enter
from phone_line.flow import Ask, Flow, Step, Tell, Transfer
from phone_line.line import build_plan
from phone_line.records import Call
from phone_line.settings import read_settings
from phone_line.words import languages, read_words
from phone_line.words_file import read_text
from standins.lines import FORWARD, LINES, Line, line_of
from standins.rows import mostly_long

EVERYTHING = {
    **FORWARD,
    "DEPARTMENTS": "billing=+15550100001",
    "BACKEND_URL": "https://backend.example",
}


def flaws_of(line: Line, **steps: Step) -> list[str]:
    """The flaws of a line with some steps of its own."""
    plan = replace(line.plan, flow={**line.plan.flow, **steps})
    return list(find_flaws(line.settings, plan))


def flaws_in(line: Line, table: Flow) -> list[str]:
    """The flaws of a line with another table."""
    return list(find_flaws(line.settings, replace(line.plan, flow=table)))


@pytest.mark.parametrize("name", LINES)
def test_every_step_leads_somewhere(name: str) -> None:
    """No row of a table names a step that nobody wrote."""
    assert flaws_of(line_of(LINES[name])) == []


@pytest.mark.parametrize(
    ("name", "step", "told"),
    [
        ("start", Tell("greeting", then="tickets"), ["'start'", "'tickets'"]),
        ("start", Tell("greting", then="reason"), ["'greting'", "en.toml"]),
        ("start", Tell("I heard {herd}.", then="reason"), ["'start'", "{herd}"]),
        ("sales", Transfer("sales", "connecting", "voicemail"), ["'sales'", "department"]),
        ("start", Tell("greeting", then="start"), ["'start'", "in a circle"]),
        ("hours", Tell("{heard}?", then="reason"), ["'hours'", "{heard}"]),
        ("reason", Ask("{menu} {name}", then="connect"), ["'reason'", "{name}"]),
    ],
)
def test_an_edit_that_leads_nowhere_is_named(name: str, step: Step, told: list[str]) -> None:
    """A step, a sentence, a blank or a number that nobody wrote is told in plain words."""
    found = flaws_of(line_of(FORWARD), **{name: step})
    assert any(all(part in flaw for part in told) for flaw in found)
    assert all(told[0] in flaw or told[-1] in flaw for flaw in found)


@pytest.mark.parametrize("language", mostly_long({name: name for name in languages()}, "en"))
def test_a_sentence_that_is_missed_is_named(language: str) -> None:
    """Whatever sentence is taken out of a words file, it is told before a caller hears its name."""
    tag = {"en": "en-US", "de": "de-DE", "es": "es-US", "fr": "fr-FR"}[language]
    lines = [line_of({**env, "LANGUAGE": tag}) for env in ({}, FORWARD, EVERYTHING)]
    sentences = lines[0].plan.words.sentences
    for name in sentences:
        if name.startswith(("owner_", "withheld", "language_offer")):
            continue  # read by the owner, or only said where several languages are
        told: list[str] = []
        for line in lines:
            less = {key: text for key, text in sentences.items() if key != name}
            words = replace(line.plan.words, sentences=less)
            told += find_flaws(line.settings, replace(line.plan, words=words))
        assert any(repr(name) in flaw for flaw in told), name


def test_a_misspelt_sentence_is_named_where_it_stands(tmp_path: Path) -> None:
    """The line of the file is told, with the name that stands there and the one that is said."""
    line = line_of(FORWARD)
    text = read_text(line.plan.words.file)
    (tmp_path / "en.toml").write_text(text.replace("\nask_reason =", "\nask_reasn =", 1), "utf-8")
    words = read_words("en-US", tmp_path)
    number = text[: text.index("\nask_reason =")].count("\n") + 2
    [told] = find_flaws(line.settings, replace(line.plan, words=words))
    assert told.partition(": ")[0].endswith(f"en.toml, line {number}")
    assert "no sentence 'ask_reason'" in told
    assert "'ask_reasn' may be meant" in told


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("menu_item", "For {nmae}, press {key}."), ("greeting", "Hello {name}."), ("busy", "{heard}")],
)
def test_a_blank_that_nothing_fills_in_is_named(name: str, sentence: str) -> None:
    """A placeholder that would be read aloud is told, in any sentence that the line says."""
    line = line_of(EVERYTHING)
    words = replace(line.plan.words, sentences={**line.plan.words.sentences, name: sentence})
    told = list(find_flaws(line.settings, replace(line.plan, words=words)))
    assert told
    assert all("which nothing fills in" in flaw for flaw in told)


def test_a_blank_in_a_greeting_of_ones_own_is_named() -> None:
    """GREETING is a sentence like the others."""
    settings = read_settings({"TWILIO_AUTH_TOKEN": "t", "GREETING": "Hello {name}."})
    _, faults = build_plan(settings)
    assert any("{name}" in fault for fault in faults)


def test_an_edit_that_leads_nowhere_still_has_an_answer() -> None:
    """Whoever did not look at what is told: a step that nobody wrote is the first question."""
    plan = line_of(FORWARD).plan
    table = {**plan.flow, "menu": Tell("goodbye", then="tickets")}
    call, reply = enter(replace(plan, flow=table), Call(), "menu")
    assert call.step == "reason"
    assert isinstance(reply.step, Ask)


def test_a_circle_of_transfers_to_nobody_is_named() -> None:
    """Without a number a Transfer is passed by: where that never ends, it is told."""
    circle = Tell("closed", then="operator")
    told = flaws_of(line_of({}), voicemail=circle)
    assert "flow: step 'voicemail' leads in a circle before the caller can say a word" in told
    assert not any("circle" in flaw for flaw in flaws_of(line_of(FORWARD), voicemail=circle))


def test_a_step_that_every_line_needs_is_missed() -> None:
    """Without a goodbye the end of a call would start it again: that is told before the first."""
    line = line_of(FORWARD)
    table = {name: step for name, step in line.plan.flow.items() if name != "goodbye"}
    assert flaws_in(line, table) == ["flow: there is no step 'goodbye', and every line needs it"]
