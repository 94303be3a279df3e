"""A language model answers the phone; every promise of slow work holds for it as well."""

import json
import re
import time
from base64 import b64encode
from collections.abc import Callable
from email.utils import formatdate
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from phone_line.backend import read_retry_after
from phone_line.settings import read_settings
from phone_line.words import read_words
from standins.backend import ORIGIN, Caller, together
from standins.inside import TOKEN, Inside, stored
from standins.instance import Instance
from standins.model import KEY, Model, Reply, Talk, does, fails, says
from standins.rows import first_quick
from standins.timing import LATE
from standins.transcript import Transcript

PERSON: Final = "+15550100099"
BILLING: Final = "+15550100001"
LOST: Final = "+15550100002"
LISTED: Final = {PERSON, BILLING, LOST}
PREMIUM: Final = "+19005550100"
NAMES: Final = ("FORWARD_TO", "billing", "lost-and_found")
PROMPT: Final = "You work for Pizzeria Napoli.\n\tThe secret ingredient is basil."
LINE: Final = {
    "FORWARD_TO": PERSON,
    "DEPARTMENTS": f"billing={BILLING} lost-and_found={LOST}",
    "BACKEND_PROMPT": PROMPT,
}
SAYS: Final = read_words("en-US").sentences
OWNER: Final = "tuesday-is-closed"


def line_with(model: Model, file: Path, **env: str) -> Inside:
    """A line that this model answers."""
    return Inside({**LINE, **model.settings, "STATE_FILE": str(file), **env})


def problems_of(**env: str) -> tuple[str, ...]:
    """The problems of an environment that is complete but for these settings."""
    return read_settings({"TWILIO_AUTH_TOKEN": TOKEN, **env}).problems


# --- settings ---


def test_a_model_has_to_be_somewhere() -> None:
    """BACKEND_MODEL without a URL and BACKEND_PROMPT without a model are told at deploy time."""
    assert problems_of(BACKEND_MODEL="gpt") == ("BACKEND_MODEL needs BACKEND_URL",)
    here = {"BACKEND_URL": "https://model.example/v1/chat/completions"}
    assert problems_of(BACKEND_PROMPT=PROMPT, **here) == ("BACKEND_PROMPT needs BACKEND_MODEL",)
    assert problems_of(BACKEND_PROMPT=PROMPT, BACKEND_MODEL="gpt", **here) == ()


@pytest.mark.parametrize(
    ("prompt", "fits"),
    [("a" * 20_000, True), ("a" * 20_001, False), ("one\r\n\ttwo\n🍕", True), ("a\x00b", False)],
)
def test_a_prompt_has_many_lines(prompt: str, fits: bool) -> None:
    """Up to 20,000 letters, lines and tabs included; a problem does not tell what it said."""
    model = {"BACKEND_URL": "https://model.example/", "BACKEND_MODEL": "gpt"}
    expected = "BACKEND_PROMPT is not usable; expected text of up to 20,000 letters"
    assert problems_of(BACKEND_PROMPT=prompt, **model) == (() if fits else (expected,))


# --- what a model is asked ---


def test_a_model_gets_the_conversation_in_turns(file: Path) -> None:
    """Instructions, then user and assistant by turns, words or keys; no number, no field more."""
    with Model(lambda talk: says(f"You said {talk.heard}.")) as model:
        phone = line_with(model, file, GREETING="Napoli!").phone()
        phone.ring()
        phone.silent()
        phone.say("a pizza")
        phone.silent()
        phone.press("42#")
    assert model.complaints == []
    first, second = model.talks
    assert [message["content"] for message in first.messages[1:]] == ["a pizza"]
    heard = f"You said a pizza.\n{SAYS['not_heard']} You said a pizza."
    assert [message["content"] for message in second.messages[1:]] == ["a pizza", heard, "42"]
    assert first.instructions.index("You answer the telephone.") < first.instructions.index(PROMPT)
    assert "one of: FORWARD_TO, billing, lost-and_found." in first.instructions
    assert f"already heard: Napoli! {SAYS['ask_help']}" in first.instructions
    assert "the language en-US" in first.instructions
    told = json.dumps(second.messages)
    assert not re.search(r"\d{5}", told)
    assert second.key == f"{phone.call_sid}:4"


def test_a_model_is_told_the_language_of_the_line(file: Path) -> None:
    """A German line asks for German words; without numbers there is nobody to connect to."""
    with Model(lambda _: says("Gerne.")) as model:
        phone = line_with(model, file, LANGUAGE="de-DE", FORWARD_TO="", DEPARTMENTS="").phone()
        phone.ring()
        phone.say("eine Pizza")
    assert "the language de-DE" in model.talks[0].instructions
    assert "nobody whom you could connect" in model.talks[0].instructions
    assert '"transfer"' not in model.talks[0].instructions


def test_a_long_conversation_is_told_from_a_whole_turn_on(file: Path) -> None:
    """A model gets the last twenty turns, each as it was, however long its words."""
    long = "Basil " * 400 + "ends."
    with Model(lambda talk: says(f"{talk.heard}: {long}")) as model:
        phone = line_with(model, file).phone()
        phone.ring()
        for number in range(24):
            phone.say(f"question {number}")
    assert model.complaints == []
    messages = model.talks[-1].messages
    assert [message["content"] for message in messages[1::2]] == [
        f"question {number}" for number in range(3, 24)
    ]
    assert {message["content"].split(": ")[1] for message in messages[2::2]} == {long}


# --- refusals ---

UNKNOWN: Final = "it does not know BACKEND_MODEL, or BACKEND_URL is not its /chat/completions"
REFUSALS: Final = {
    "another key": (
        {"BACKEND_TOKEN": "sk-another"},
        401,
        "BACKEND_TOKEN is not a key that it knows",
    ),
    "no right": ({}, 403, "BACKEND_TOKEN may not use this model"),
    "another model": ({"BACKEND_MODEL": "another"}, 404, UNKNOWN),
    "another path": ({"BACKEND_URL": "{url}/more"}, 404, UNKNOWN),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_that_stays_leads_to_a_person_at_once(
    name: str, file: Path, log: Callable[[], list[dict[str, Any]]]
) -> None:
    """A wrong key, model or path is asked once; the log says in plain words what to change."""
    wrong, status, reason = REFUSALS[name]
    with Model(lambda _: fails(403)) as model:
        env = {name: value.format(url=model.url) for name, value in wrong.items()}
        phone = line_with(model, file, **env).phone()
        phone.ring()
        assert phone.say("hello")[0] == SAYS["no_result"]
        assert phone.transcript[-1] == f"line dials {PERSON}"
        assert len(model.requests) == 1
    causes = [entry["cause"] for entry in log() if entry["message"] == "backend failed"]
    assert causes == [f"it answered {status}: {reason}"]


@pytest.mark.parametrize("as_date", first_quick([True, False]))
def test_a_model_that_asks_for_time_gets_it(as_date: bool, file: Path) -> None:
    """429 with Retry-After, in seconds or as a date: the next attempt comes then, and is heard."""

    def decide(talk: Talk) -> Reply:
        if talk.attempt > 1:
            return says("Here I am.")
        later = formatdate(time.time() + 3, usegmt=True) if as_date else "2"
        return fails(429, Retry_After=later)

    with Model(decide) as model:
        phone = line_with(model, file, RESPONSE_DEADLINE="8").phone()
        phone.ring()
        assert phone.say("hello") == ["Here I am."]
    first, second = model.talks
    assert 1.9 < second.at - first.at < 4
    assert first.key == second.key


def test_a_model_that_wants_more_time_than_there_is_is_not_waited_for(file: Path) -> None:
    """Who is to be asked in an hour is of no use to a caller: a person, at once."""
    with Model(lambda _: fails(429, Retry_After="3600")) as model:
        phone = line_with(model, file).phone()
        phone.ring()
        phone.say("hello")
        assert phone.transcript[-1] == f"line dials {PERSON}"
        assert len(model.talks) == 1


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("", 0), ("7", 7), ("0.5", 0.5), ("-1", 0), ("1e9", 0), ("soon", 0), ("٣", 0),
        ("9" * 400, 0), ("Fri, 31 Dec 1999 23:59:59 GMT", 0), ("Fri, 99 Dec 1999 23:59:59 GMT", 0),
    ],
)  # fmt: skip
def test_a_retry_after_is_seconds_or_nothing(header: str, seconds: float) -> None:
    """What is neither a number of seconds nor a moment to come asks for no pause."""
    assert read_retry_after(header) == seconds


# --- cost, and what nobody may read ---


def test_seconds_and_tokens_are_seen(file: Path, log: Callable[[], list[dict[str, Any]]]) -> None:
    """Each answer's cost stands in a line of the log, without a word, and on the call's page."""
    with Model(lambda _: says("At five.", seconds=0.3, tokens=1234)) as model:
        line = line_with(model, file, ADMIN_TOKEN=OWNER)
        phone = line.phone()
        phone.ring()
        phone.say("when do you open")
    answers = [entry for entry in log() if entry["message"] == "backend answered"]
    assert [{**entry, "seconds": 0} for entry in answers] == [
        {
            "level": "info",
            "message": "backend answered",
            "call": phone.call_sid,
            "turn": 1,
            "seconds": 0,
            "tokens": 1234,
        }
    ]
    assert 0.3 <= answers[0]["seconds"] < 2
    turn = json.loads(page_of(line, phone.call_sid, "application/json"))["turns"][-1]
    assert (turn["usage"], turn["seconds"]) == (1234, answers[0]["seconds"])
    assert "<span>1234 tokens</span>" in page_of(line, phone.call_sid, "text/html")


def page_of(line: Inside, call_sid: str, kind: str) -> str:
    """The owner's page of a call."""
    login = b64encode(f"owner:{OWNER}".encode()).decode()
    headers = {"Authorization": f"Basic {login}", "Accept": kind}
    answer = line.send("GET", f"/calls/{call_sid}", headers=headers)
    assert answer.status == 200
    return answer.body.decode()


def test_prompt_and_key_are_nowhere_to_be_read(
    file: Path, log: Callable[[], list[dict[str, Any]]]
) -> None:
    """Answers, a refusal that quotes the key, a fault: no log, cell, page or TwiML has either."""
    replies = {"one": says("At five."), "two": says('{"then": "sing"}'), "three": fails(401)}
    with Model(lambda talk: replies[talk.heard]) as model:
        line = line_with(model, file, ADMIN_TOKEN=OWNER, LOG_WORDS="1", RESPONSE_DEADLINE="1")
        phones = [line.phone() for _ in replies]
        for phone, words in zip(phones, replies, strict=True):
            phone.ring()
            phone.say(words)
        seen = [
            json.dumps(log()),
            json.dumps(stored(file)),
            line.send("GET", "/healthz").body.decode(),
        ]
        for phone in phones:
            seen += [page_of(line, phone.call_sid, "text/html"), *phone.transcript]
            seen += [hook.answer.body.decode() for hook in phone.webhooks if hook.answer]
    assert len(seen) > 12
    for text in seen:
        assert "basil" not in text
        assert KEY not in text


def test_a_model_hears_of_no_event(file: Path) -> None:
    """A voicemail and the end of a call are for people: the model is only asked."""
    with Model(lambda _: does("voicemail", say="Leave a message.")) as model:
        phone = line_with(model, file).phone()
        phone.ring()
        phone.say("hello")
        phone.leave_message()
        assert phone.state == "ended"
        assert phone.last_status
        assert phone.last_status.answer
        assert phone.last_status.answer.status == 204
        time.sleep(0.3)
    assert model.complaints == []
    assert [talk.heard for talk in model.talks] == ["hello"]


# --- whole calls, with everything real but the model ---

TRANSFER: Final = f"""
    rings
    line: {SAYS["greeting"]}
    line: {SAYS["ask_help"]}
    caller: do you have anything vegetarian
    line: Yes! Margherita. Verdura. Which one would you like?
    caller presses 2
    line: A Verdura. Anything else?
    caller: yes, I lost my scarf at your place
    line: I connect you.
    line dials {LOST}
    callee does not answer
    line: {SAYS["no-answer"]}
    line: {SAYS["leave_message"]}
    line records
    caller leaves a message
    line: {SAYS["message_taken"]}
    line hangs up
"""
SEVEN_SECONDS: Final = f"""
    rings
    line: {SAYS["greeting"]}
    line: {SAYS["ask_help"]}
    caller: think hard
    line: {SAYS["hold_1"]}
    line waits 4 s
    line: It was worth it.
    caller: thank you
    line: Goodbye, and thanks.
    line hangs up
"""
DEATH: Final = f"""
    rings
    line: {SAYS["greeting"]}
    line: {SAYS["ask_help"]}
    caller: hello
    line: Hello, how are you?
    caller: die
    line: {SAYS["hold_1"]}
    line waits 4 s
    line: {SAYS["hold_2"]}
    line waits 9 s
    line: {SAYS["no_result"]}
    line: {SAYS["connecting"]}
    line dials {PERSON}
    callee answers
    line: {SAYS["goodbye"]}
    line hangs up
"""
MANNERS: Final = {
    "do you have anything vegetarian": says(
        "Yes! 🍕\n- **Margherita**\n- **Verdura**\n\nWhich one would you like?"
    ),
    "2": says("A *Verdura*. Anything else?"),
    "yes, I lost my scarf at your place": says(
        'Oh!\n```json\n{"say": "I connect you.", "then": "transfer", "to": "Lost and found"}\n```'
    ),
    "think hard": says("It was worth it.", seconds=7),
    "thank you": says('{"say": "Goodbye, and thanks.", "then": "hangup"}'),
    "hello": says("Hello, how are you?"),
}


CALLS: Final = {"transfer": TRANSFER, "seven seconds": SEVEN_SECONDS, "death": DEATH}
Played = tuple[dict[str, list[str]], dict[str, Caller], Model]


def play_calls(folder: Path, *names: str) -> Played:
    """Calls at once on two models, and where they differ from what is written above."""
    mortal = Model(lambda talk: die(mortal) if talk.heard == "die" else MANNERS[talk.heard])
    found: dict[str, list[str]] = {}
    with Model(lambda talk: MANNERS[talk.heard]) as model, mortal:
        envs = {
            name: {**LINE, **chosen.settings, "TWILIO_AUTH_TOKEN": TOKEN, "PUBLIC_URL": ORIGIN}
            for name, chosen in (("model", model), ("mortal", mortal))
        }
        with (
            Instance({**envs["model"], "STATE_FILE": str(folder / "model")}) as instance,
            Instance({**envs["mortal"], "STATE_FILE": str(folder / "mortal")}) as doomed,
        ):
            callers = {
                name: Caller(doomed if name == "death" else instance, token=TOKEN) for name in names
            }

            def play(name: str) -> None:
                found[name] = Transcript(CALLS[name]).play(callers[name].phone)

            together(*[partial(play, name) for name in names])
    return found, callers, model


def die(model: Model) -> Reply:
    """The endpoint is gone in the middle of an answer."""
    model.die()
    return Reply(b"", cut=True)


def judge_call(played: Played, name: str) -> None:
    """Hold a call to what is written, and to the deadline."""
    found, callers, _ = played
    assert found[name] == []
    assert callers[name].phone.broken == []
    assert callers[name].slowest < 4.5 + LATE


def test_a_talk_and_a_transfer_go_as_they_are_written(tmp_path: Path) -> None:
    """A conversation in a model's own words, as written, ends with the right department."""
    judge_call(play_calls(tmp_path, "transfer"), "transfer")


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    """The calls that take long, made at once for all tests that look at them."""
    return play_calls(tmp_path_factory.mktemp("calls"), "seven seconds", "death")


@pytest.mark.long
@pytest.mark.waits
@pytest.mark.xdist_group("model")
@pytest.mark.parametrize("name", ["seven seconds", "death"])
def test_a_call_goes_as_it_is_written(played: Played, name: str) -> None:
    """An answer after seven seconds, and an endpoint that dies in mid-call."""
    judge_call(played, name)


@pytest.mark.long
@pytest.mark.waits
@pytest.mark.xdist_group("model")
def test_a_slow_answer_is_asked_for_once(played: Played) -> None:
    """While the caller is held nobody asks the model a second time, and it is heard once."""
    _, callers, model = played
    caller = callers["seven seconds"]
    assert [talk.heard for talk in model.of(caller.call_sid)] == ["think hard", "thank you"]
    assert caller.times("line: It was worth it.") == 1
    assert 7 < caller.waited_for("line: It was worth it.") < 9 + LATE
    assert model.complaints == []
