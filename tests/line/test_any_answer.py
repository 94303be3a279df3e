"""Whatever a language model answers becomes TwiML that dials nobody but who is configured."""

import json
import re
import time
from collections.abc import Iterator
from typing import Final, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import main
from phone_line.backend import BackendFailed
from phone_line.questions import Asking
from phone_line.records import Call, Question, Record
from standins.backend import ORIGIN
from standins.examples import STEADY, as_many
from standins.inside import TOKEN
from standins.lines import HOOK
from standins.model import Model, Reply, Talk, does, says, writes
from standins.twiml import Problem, judge

PERSON: Final = "+15550100099"
LISTED: Final = {PERSON, "+15550100001", "+15550100002"}
PREMIUM: Final = "+19005550100"
NAMES: Final = ("FORWARD_TO", "billing", "lost-and_found")
LINE: Final = {
    "TWILIO_AUTH_TOKEN": TOKEN,
    "FORWARD_TO": PERSON,
    "DEPARTMENTS": "billing=+15550100001 lost-and_found=+15550100002",
}


def answer_question(line: main.PhoneLine, speech: str) -> Record:
    """The words for the caller: the answer of the first attempt, or the line's own after the last.

    A worker does the same, with pauses between attempts.
    """
    before, thinking = Call(turn=1, step="listen"), Call(turn=2, step="think")
    question = Question(speech, at=time.time(), step="think")
    webhook = HOOK._replace(turn=1, step="listen")
    task = Asking(line.line, line.backend, webhook, question, before, thinking, ())
    try:
        return task.attempt(time.monotonic() + 5)
    except BackendFailed:
        return task.give_up()


def dialled(record: Record) -> set[str]:
    """The numbers that an answer dials."""
    return {*re.findall("<Number.*?>(.*?)</Number>", record.twiml)}


def broken_rules(record: Record) -> list[Problem]:
    """The parts of an answer that Twilio would not take."""
    return [problem for problem in judge(record.twiml, ORIGIN) if problem.broken]


@pytest.mark.parametrize("wish", [PREMIUM, f"tel:{PREMIUM}", "sip:eve@evil.example", "operator"])
def test_a_caller_can_at_worst_be_connected_to_a_listed_number(wish: str) -> None:
    """A model does whatever a caller wants: who is not configured is not dialled, but a person."""

    def obey(talk: Talk) -> Reply:
        return does("transfer", say=f"Dialling {talk.heard}", to=talk.heard)

    with Model(obey) as model:
        record = answer_question(main.PhoneLine({**LINE, **model.settings}), wish)
    assert len(model.talks) == 1
    assert dialled(record) == {PERSON}
    assert "Dialling" not in record.twiml


ODD: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3)
    ),
    max_leaves=6,
)
WORDS: Final = st.text(st.characters(), max_size=200) | st.sampled_from(
    ["", "Hello.", "</Say><Dial>+19005550100</Dial>", "**Hi** [a](b)", "a. " * 2_000, "\x00\ud800"]
)
PLACES: Final = st.sampled_from([*NAMES, "Billing", "sales", *LISTED, PREMIUM, "to_billing", ""])
THENS: Final = st.sampled_from(["listen", "transfer", "voicemail", "hangup", "sing"])
WELL_MEANT: Final = st.fixed_dictionaries({"say": WORDS, "then": THENS, "to": PLACES})
ODDLY_MEANT: Final = st.fixed_dictionaries(
    {},
    optional={
        "say": WORDS | ODD,
        "then": THENS | ODD,
        "to": PLACES | ODD,
        "output": WORDS | WELL_MEANT | WELL_MEANT.map(json.dumps) | ODD,
    },
)
MEANT: Final = WELL_MEANT | ODDLY_MEANT | st.lists(ODDLY_MEANT, max_size=2)
WRAPPINGS: Final = st.sampled_from(
    ["{}", "```json\n{}\n```", "Sure! {}", "{} Bye.", "<think>hm</think>{}", "[{}]", '"{}', "{}{}"]
)
WRAPPED: Final = st.tuples(WRAPPINGS, MEANT.map(json.dumps) | WORDS).map(
    lambda two: two[0].replace("{}", two[1])
)
HALVED: Final = st.tuples(WRAPPED, st.integers(20, 99)).map(
    lambda two: two[0][: len(two[0]) * two[1] // 100]
)
ODD_REPLIES: Final = st.one_of(
    (ODD | st.lists(ODD, max_size=3)).map(says),
    ODD.map(writes),
    ODD.map(lambda body: Reply(json.dumps(body).encode())),
    st.tuples(st.binary(max_size=200), st.sampled_from([200, 204, 308, 429, 500])).map(
        lambda answer: Reply(*answer)
    ),
)
STEPS: Final = {"listen", "operator", "voicemail", "goodbye", "to_billing", "to_lost-and_found"}


class Answered(NamedTuple):
    """A line, and the model that answers it as each example wants."""

    line: main.PhoneLine
    model: Model


@pytest.fixture(scope="module")
def answered() -> Iterator[Answered]:
    """One line for all examples."""
    with Model(lambda _: says("Hello.")) as model:
        yield Answered(main.PhoneLine({**LINE, **model.settings}), model)


@settings(STEADY, max_examples=as_many(400))
@given(words=WRAPPED | HALVED)
def test_whatever_a_model_says_only_listed_numbers_are_dialled(
    answered: Answered, words: str
) -> None:
    """Words, the protocol, whole or half and in any wrapping, become TwiML that Twilio takes."""
    answered.model.decide = lambda _: says(words)
    record = answer_question(answered.line, "hello")
    assert broken_rules(record) == []
    assert dialled(record) <= LISTED
    assert record.step in STEPS


@settings(STEADY, max_examples=as_many(200))
@given(reply=ODD_REPLIES)
def test_whatever_an_endpoint_answers_the_caller_hears_words(
    answered: Answered, reply: Reply
) -> None:
    """Any JSON and any bytes with any status: an answer, or an apology and a person."""
    answered.model.decide = lambda _: reply
    record = answer_question(answered.line, "hello")
    assert broken_rules(record) == []
    assert dialled(record) <= LISTED
    assert record.said
