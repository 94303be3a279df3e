"""Things that people say on the telephone, and their meaning: a table a situation."""

from dataclasses import replace
from typing import Final

import pytest

from phone_line.conversation import decide
from phone_line.flow import Ask, Transfer
from phone_line.plan import Plan
from phone_line.records import Call, Heard
from phone_line.twiml import render_reply
from standins.lines import FORWARD, HOOK, line_of

MENU: Final = {"DEPARTMENTS": "billing=+15550100001 cancel=+15550100002"} | FORWARD
CONFIDENT: Final = 0.9


def plan_of(language: str = "en-US", **env: str) -> Plan:
    """The plan of a line with a menu and a person."""
    return line_of({**MENU, "LANGUAGE": language, **env}).plan


def step_after(plan: Plan, words: str, *, step: str = "menu", guess: str = "") -> str:
    """The step to which words lead; a question mark after the one that is asked back."""
    call = Call(turn=1, step=step, guess=guess)
    after, reply = decide(plan, call, Heard(speech=words, confidence=CONFIDENT))
    return f"{after.guess}?" if reply.guessing else after.step


@pytest.mark.parametrize(
    ("language", "words", "step"),
    [
        ("en-US", "zero", "operator"),
        ("en-US", "oh", "operator"),
        ("en-US", "number one", "to_billing"),
        ("en-US", "option two", "to_cancel"),
        ("en-US", "two please", "to_cancel"),
        ("en-US", "the second one", "to_cancel"),
        ("en-US", "the second option", "to_cancel"),
        ("en-US", "anything but billing", "to_billing?"),
        ("en-US", "press 1", "to_billing"),
        ("en-US", "to", "to_cancel"),
        ("en-US", "representative", "operator"),
        ("en-US", "customer service please", "operator"),
        ("en-US", "I'd like to speak to someone", "operator"),
        ("en-US", "operator, operator!", "operator"),
        ("en-US", "I have a question about billing", "to_billing"),
        ("de-DE", "null", "operator"),
        ("de-DE", "zwo", "to_cancel"),
        ("de-DE", "Nummer eins", "to_billing"),
        ("de-DE", "die Zwei bitte", "to_cancel"),
        ("de-DE", "ich möchte mit einem Mitarbeiter sprechen", "operator"),
        ("es-US", "el número dos, por favor", "to_cancel"),
        ("fr-FR", "le deux s'il vous plaît", "to_cancel"),
    ],
)
def test_a_choice_is_understood_however_it_is_said(language: str, words: str, step: str) -> None:
    """Numbers, ordinals, polite forms, homophones said alone, and the ways to ask for a person."""
    assert step_after(plan_of(language), words) == step


@pytest.mark.parametrize(
    ("language", "words"),
    [
        ("en-US", "that's not right"),
        ("en-US", "that is not correct"),
        ("en-US", "I'm not sure"),
        ("en-US", "not billing"),
        ("en-US", "no"),
        ("en-US", "nope, wrong"),
        ("en-US", "no, okay"),
        ("en-US", "that ain't right"),
        ("en-US", "that wouldn't be right"),
        ("en-US", "anything but billing"),
        ("de-DE", "nicht richtig"),
        ("de-DE", "das stimmt nicht"),
        ("de-DE", "nein"),
        ("es-US", "no es correcto"),
        ("fr-FR", "ce n'est pas ça"),
    ],
)
def test_an_answer_with_a_not_in_it_is_a_no(language: str, words: str) -> None:
    """Did you say billing? Whatever denies it connects nobody, although a yes-word stands in it."""
    assert step_after(plan_of(language), words, guess="to_billing") == "menu"


@pytest.mark.parametrize(
    ("language", "words"),
    [("en-US", "yes"), ("en-US", "that's right"), ("en-US", "billing"), ("de-DE", "ja genau")],
)
def test_an_answer_that_agrees_connects(language: str, words: str) -> None:
    """Did you say billing? A yes, or the word once more."""
    assert step_after(plan_of(language), words, guess="to_billing") == "to_billing"


@pytest.mark.parametrize(
    "words",
    ["repeat prescription", "human resources", "travel agent", "two", "an agent stole my parcel"],
)
def test_a_reason_is_no_command(words: str) -> None:
    """An open question is answered by words that contain a command or a number."""
    plan = line_of(FORWARD).plan
    after, _ = decide(plan, Call(turn=1, step="reason"), Heard(speech=words, confidence=0.9))
    assert (after.step, after.quote) == ("connect", words)


@pytest.mark.parametrize(
    ("words", "step"),
    [("biling", "to_billing?"), ("canceled", "to_cancel?"), ("bill", "to_billing?")],
)
def test_what_sounds_like_a_choice_is_asked_back(words: str, step: str) -> None:
    """Recognition mishears: near enough for "did you say", never for connecting unasked."""
    assert step_after(plan_of(), words) == step


@pytest.mark.parametrize("words", ["bowling", "hello there", "my parrot", "cat"])
def test_what_sounds_like_nothing_is_asked_again(words: str) -> None:
    """Nobody is asked "did you say billing" who said something else."""
    assert step_after(plan_of(), words) == "menu"


def test_a_choice_that_is_denied_is_not_connected_unasked() -> None:
    """Somebody who says in a menu that it is not about billing is at most asked back."""
    assert step_after(plan_of(), "it's not about billing") == "to_billing?"


@pytest.mark.parametrize(
    ("language", "words", "step"),
    [
        ("en-US", "Right, I said billing.", "to_billing"),
        ("en-US", "okay, operator please", "operator"),
        ("en-US", "Yes, cancel.", "to_cancel"),
        ("en-US", "Two, okay", "to_cancel"),
        ("en-US", "yes, that one", "to_cancel"),
        ("en-US", "Okay, say that again", "menu"),
        ("de-DE", "Klar und deutlich: billing", "to_billing"),
        ("es-US", "Sí, pero billing", "to_billing"),
    ],
)
def test_a_yes_that_names_something_else_means_that(language: str, words: str, step: str) -> None:
    """Did you say cancel? Whoever corrects us politely is not connected with it."""
    assert step_after(plan_of(language), words, guess="to_cancel") == step


def test_a_not_that_names_something_else_is_asked_back() -> None:
    """Did you say cancel? Not cancel, billing: so it is billing, and that is made sure of."""
    assert step_after(plan_of(), "not cancel, billing", guess="to_cancel") == "to_billing?"


@pytest.mark.parametrize(
    ("words", "step"),
    [
        ("Billing disputes.", "to_billing-disputes"),
        ("my billing disputes please", "to_billing-disputes"),
        ("billing disputes, billing disputes", "to_billing-disputes"),
        ("billing", "to_billing"),
        ("billing or billing disputes", "to_billing?"),
        ("disputes", "to_billing-disputes?"),
    ],
)
def test_a_name_inside_a_longer_one_is_not_meant(words: str, step: str) -> None:
    """Billing is part of the other name, and who says that one wants no billing."""
    numbers = "billing=+15550100001 billing-disputes=+15550100002"
    assert step_after(plan_of(DEPARTMENTS=numbers), words) == step


@pytest.mark.parametrize(
    "says",
    [["billing or cancel"], ["billing or cancel", "cancel or billing"], ["biling", "cansel"]],
)
def test_nobody_is_asked_back_for_ever(says: list[str]) -> None:
    """Who answers "did you say" as vaguely as before is not understood: the third time a person."""
    plan, call = plan_of(), Call(turn=1, step="menu")
    for turn in range(12):
        heard = Heard(speech=says[turn % len(says)], confidence=CONFIDENT)
        call, _ = decide(plan, call, heard)
        if call.step != "menu":
            break
    assert call.step == "operator"
    assert call.turn < 9


OFFERED: Final = {"LANGUAGE": "en-US es-US de-DE"}
NOTHING: Final = "language"  # the step at which the languages are offered once more


@pytest.mark.parametrize(
    ("words", "language"),
    [
        ("Spanish please", "es-US"),
        ("No hablo inglés, español por favor", "es-US"),
        ("I don't speak English, Spanish please", "es-US"),
        ("Spanish, no English", "es-US"),
        ("English please, I do not speak Spanish", "en-US"),
        ("Kein Englisch, Deutsch", "de-DE"),
        ("No English.", ""),
        ("English? No.", ""),
        ("no Spanish, no German, English", ""),
        ("English or Spanish", "en-US"),
        ("no", ""),
    ],
)
def test_a_language_that_is_denied_is_not_chosen(words: str, language: str) -> None:
    """A no denies the language that is named next; where none is left, they are offered again."""
    call, _ = decide(line_of(OFFERED | FORWARD).plan, Call(turn=1, step=NOTHING), heard_in(words))
    assert call.language == language
    assert (call.step == NOTHING) == (not language)


@pytest.mark.parametrize(("door", "step"), [("start", "operator"), ("closed", "voicemail")])
@pytest.mark.parametrize(
    "heard", [Heard(keys="0"), Heard(speech="operator"), Heard(speech="una persona, por favor")]
)
def test_a_person_may_be_asked_for_before_a_language(heard: Heard, door: str, step: str) -> None:
    """By key or word; out of hours nobody is rung."""
    plan = line_of(OFFERED | FORWARD).plan
    call, _ = decide(plan, Call(turn=1, step=NOTHING), replace(heard, entrance=door))
    assert call.step == step


@pytest.mark.parametrize("heard", [Heard(keys="*"), Heard(speech="otra vez"), Heard(speech="what")])
def test_the_offer_of_languages_is_repeated_once_for_nothing(heard: Heard) -> None:
    """The third time the first language is taken, as after silence."""
    plan, call = line_of(OFFERED | FORWARD).plan, Call(turn=1, step=NOTHING)
    steps = []
    for _ in range(3):
        call, _ = decide(plan, call, heard)
        steps.append(call.step)
    assert steps == [NOTHING, NOTHING, "reason"]


def heard_in(words: str) -> Heard:
    """Words that came well through."""
    return Heard(speech=words, confidence=CONFIDENT)


def test_the_words_that_recognition_should_expect_stand_in_the_hints() -> None:
    """The choices, their keys as words, and the commands."""
    line = line_of(MENU)
    call, reply = decide(line.plan, Call(), Heard())
    twiml = render_reply(line.settings, line.plan, HOOK, call, reply)
    hints = twiml.partition('hints="')[2].partition('"')[0].split(", ")
    assert {"billing", "cancel", "one", "two", "operator", "repeat"} <= {*hints}


def heard_again_and_again(plan: Plan, heard: Heard, times: int, step: str = "menu") -> list[str]:
    """The steps at which a call stands when the same thing happens again and again."""
    call, steps = Call(turn=1, step=step), []
    for _ in range(times):
        call, _reply = decide(plan, call, heard)
        steps.append(call.step)
    return steps


def test_the_third_silence_rings_nobody() -> None:
    """A silent robot gets the voicemail, not a person."""
    assert heard_again_and_again(plan_of(), Heard(), 3) == ["menu", "menu", "voicemail"]


def test_the_third_misunderstanding_finds_a_person() -> None:
    """Whoever speaks and is not understood is connected."""
    lost = Heard(speech="mumble", confidence=0.9)
    assert heard_again_and_again(plan_of(), lost, 3) == ["menu", "menu", "operator"]


def test_the_kind_of_the_third_miss_decides() -> None:
    """There is one counter: two misunderstandings and a silence are three misses."""
    plan = plan_of()
    call = Call(turn=1, step="menu")
    for heard in (Heard(speech="mumble"), Heard(speech="mumble"), Heard()):
        call, _ = decide(plan, call, heard)
    assert call.step == "voicemail"


def test_a_question_is_not_repeated_for_ever() -> None:
    """The first repeat is free; then each counts as a miss, and in the end a person is found."""
    steps = heard_again_and_again(plan_of(), Heard(keys="*"), 4)
    assert steps == ["menu", "menu", "menu", "operator"]


def test_with_departments_alone_the_first_is_the_person() -> None:
    """Somebody has to take the calls of those who ask for a person."""
    plan = line_of({"DEPARTMENTS": "billing=+15550100001 cancel=+15550100002"}).plan
    step = plan.flow[heard_again_and_again(plan, Heard(keys="0"), 1)[0]]
    assert isinstance(step, Transfer)
    assert plan.numbers[step.to] == ("+15550100001",)


def test_a_person_is_only_offered_where_there_is_one() -> None:
    """Nobody behind the line: no "press 0", no "let me find somebody"."""
    plan = line_of({}).plan
    call, said = Call(turn=1, step="reason"), ""
    for _ in range(3):
        call, reply = decide(plan, call, Heard(keys="#"))
        said += " ".join(reply.says)
    sentences = plan.words.sentences
    assert call.step == "voicemail"
    assert sentences["help_alone"] in said
    assert sentences["help"] not in said
    assert sentences["giving_up"] not in said


def test_a_long_answer_is_not_read_back_whole() -> None:
    """A sentence's worth is read back before the Dial."""
    plan = line_of(FORWARD).plan
    long = "my washing machine makes a strange noise and " * 20
    _, reply = decide(plan, Call(turn=1, step="reason"), Heard(speech=long, confidence=0.9))
    assert len(reply.says[0]) < 250
    assert "my washing machine makes a strange noise" in reply.says[0]


@pytest.mark.parametrize(("keys", "step"), [("1234", "think"), ("12", "listen"), ("0", "operator")])
def test_an_ask_for_four_keys_takes_four(keys: str, step: str) -> None:
    """`Ask(keys=4)` is answered by four keys; fewer are none, and 0 stays the person."""
    line = line_of({"BACKEND_URL": "https://b.example"} | FORWARD)
    ask = Ask("Your number?", then="think", keys=4)
    plan = replace(line.plan, flow={**line.plan.flow, "listen": ask})
    after, _ = decide(plan, Call(turn=1, step="listen"), Heard(keys=keys))
    assert after.step == step


def test_a_key_means_what_the_caller_was_told() -> None:
    """A deploy reorders the departments in mid-call: key 1 is still the first that was read out."""
    call, _ = decide(plan_of(), Call(), Heard())
    turned = {"DEPARTMENTS": "cancel=+15550100002 billing=+15550100001"} | FORWARD
    after, _ = decide(line_of(turned).plan, call, Heard(keys="1"))
    assert after.step == "to_billing"
    spoken, _ = decide(line_of(turned).plan, call, Heard(speech="number one", confidence=0.9))
    assert spoken.step == "to_billing"


def test_a_key_of_a_department_that_is_gone_is_nobody() -> None:
    """A deploy takes the first department away in mid-call: its key connects to nobody else."""
    call, _ = decide(plan_of(), Call(), Heard())
    left = line_of({"DEPARTMENTS": "cancel=+15550100002"} | FORWARD).plan
    after, reply = decide(left, call, Heard(keys="1"))
    assert after.step == "menu"
    assert left.words.sentences["not_understood"] in reply.says
