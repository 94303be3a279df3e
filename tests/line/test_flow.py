"""A flow and its words are looked at before the first call; what is wrong in an edit is named."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import main
from standins.lines import FORWARD, LINES, line_of
from standins.sentences import WORDS


def test_every_language_has_every_sentence() -> None:
    """A translation lacks no sentence."""
    english = WORDS["en"]
    for words in WORDS.values():
        assert words.keys() == english.keys()
        assert all(words.values())


@pytest.mark.parametrize("name", LINES)
def test_every_step_leads_somewhere(name: str) -> None:
    """No row of a table names a step that nobody wrote."""
    plan = line_of(LINES[name]).plan
    assert list(main.flaws(plan.flow, plan.words, plan.numbers)) == []


@pytest.mark.parametrize(
    ("name", "step", "told"),
    [
        ("start", main.Tell("greeting", then="tickets"), ["'start'", "'tickets'"]),
        ("start", main.Tell("greting", then="reason"), ["'start'", "'greting'"]),
        ("start", main.Tell("I heard {herd}.", then="reason"), ["'start'", "{herd}"]),
        ("sales", main.Transfer("sales", "connecting", "voicemail"), ["'sales'", "department"]),
        ("start", main.Tell("greeting", then="start"), ["'start'", "in a circle"]),
        ("hours", main.Tell("{heard}?", then="reason"), ["'hours'", "{heard}"]),
        ("reason", main.Ask("{menu} {name}", then="connect"), ["'reason'", "{name}"]),
    ],
)
def test_an_edit_that_leads_nowhere_is_named(name: str, step: main.Step, told: list[str]) -> None:
    """A step, a sentence, a blank or a number that nobody wrote is told in plain words."""
    plan = line_of(FORWARD).plan
    [said_] = main.flaws({**plan.flow, name: step}, plan.words, plan.numbers)
    assert [part for part in told if part not in said_] == []


@pytest.mark.parametrize("language", WORDS)
def test_a_sentence_that_is_missed_is_named(language: str) -> None:
    """Whatever sentence is taken out of WORDS, it is told before a caller hears its name."""
    book = {"DEPARTMENTS": "billing=+15550100001", "BACKEND_URL": "https://backend.example"}
    used = [main.flow(line_of(env).settings) for env in (FORWARD, book)]
    words = WORDS[language]
    for name in words:
        less = {key: sentence for key, sentence in words.items() if key != name}
        told = [said for flow in used for said in main.flaws(flow, less, ["billing"])]
        assert any(repr(name) in said for said in told)


def test_a_language_without_a_voice_is_told(tmp_path: Path) -> None:
    """Even the name of the voice may be missed: the line comes up, and says what is wrong."""
    source = Path(main.__file__).read_text().replace('        "voice": "Polly.Joanna",\n', "", 1)
    (tmp_path / "edited.py").write_text(source)
    script = "import edited; print(*edited.LINE.settings.problems)"
    env = {"TWILIO_AUTH_TOKEN": "secret", "PYTHONPATH": str(tmp_path)}
    run = [sys.executable, "-c", script]
    told = subprocess.run(run, cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    assert "WORDS: there is no sentence 'voice', and every line needs it" in told.stdout


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("menu_item", "For {nmae}, press {key}."), ("greeting", "Hello {name}."), ("busy", "{heard}")],
)
def test_a_blank_that_nothing_fills_in_is_named(name: str, sentence: str) -> None:
    """A placeholder that would be read aloud is told, in any sentence of WORDS and in GREETING."""
    plan = line_of(FORWARD).plan
    told = main.flaws(plan.flow, {**plan.words, name: sentence}, plan.numbers)
    [said] = [said for said in told if "nothing fills in" in said]
    assert repr("start" if name == "greeting" else name) in said


def test_an_edit_that_leads_nowhere_still_has_an_answer() -> None:
    """Whoever did not look at what is told: a step that nobody wrote is the first question."""
    plan = line_of(FORWARD).plan
    table = {**plan.flow, "menu": main.Tell("goodbye", then="tickets")}
    call, reply = main.enter(replace(plan, flow=table), main.Call(), "menu")
    assert call.step == "reason"
    assert isinstance(reply.step, main.Ask)


def test_a_circle_of_transfers_to_nobody_is_named() -> None:
    """Without a number a Transfer is passed by: where that never ends, it is told."""
    plan = line_of({}).plan
    table = {**plan.flow, "voicemail": main.Tell("closed", then="operator")}
    told = list(main.flaws(table, plan.words, plan.numbers))
    assert "flow: step 'voicemail' leads in a circle before the caller can say a word" in told
    assert list(main.flaws(table, plan.words, {"FORWARD_TO": "+15550100099"})) == []


def test_a_step_that_every_line_needs_is_missed() -> None:
    """Without a goodbye the end of a call would start it again: that is told before the first."""
    plan = line_of(FORWARD).plan
    table = {name: step for name, step in plan.flow.items() if name != "goodbye"}
    assert list(main.flaws(table, plan.words, plan.numbers)) == [
        "flow: there is no step 'goodbye', and every line needs it"
    ]
