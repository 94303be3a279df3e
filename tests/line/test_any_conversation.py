"""Whatever is heard at whatever step of whatever flow has an answer that Twilio accepts."""

import json
from collections.abc import Mapping
from dataclasses import fields, replace
from html import escape
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from twilio.twiml.voice_response import VoiceResponse

from phone_line.conversation import decide
from phone_line.flow import Ask, Consult, End, Refuse, Step, Tell, Transfer, Voicemail
from phone_line.line import build_plan
from phone_line.plan import Plan
from phone_line.records import LAST_TURN, Answer, Call, Heard, Record, read_turn
from phone_line.settings import read_settings
from phone_line.text import clean_text
from phone_line.twiml import render_reply, write_document
from standins.examples import STEADY, as_many
from standins.inside import ORIGIN, TOKEN
from standins.lines import HOOK
from standins.twiml import judge

FORWARD: Final = {"FORWARD_TO": "+15550100099"}
MENU: Final = {"DEPARTMENTS": "billing=+15550100001 lost_and-found=+15550100002"}

LINES: Final[Mapping[str, dict[str, str]]] = {
    "alone": {},
    "forward": FORWARD,
    "menu": MENU | FORWARD,
    "backend": {"BACKEND_URL": "", **MENU, **FORWARD},  # where the backend is, is filled in
}


class Known(NamedTuple):
    """A document: what it waits for, at which target, and what it dials."""

    kind: str
    target: str
    dialled: set[str]


WAITS: Final = {"Gather": "gather", "Dial": "dial", "Record": "record", "Redirect": "redirect"}
NAMES: Final = st.sampled_from(sorted(LINES))


def turn_of(target: str) -> int:
    """The turn that a target names; 0 when it begins a call."""
    return int(parse_qs(urlsplit(target).query).get("turn", ["0"])[0])


def parsed(document: str) -> ElementTree.Element:
    return ElementTree.fromstring(document)  # noqa: S314 (it is the line's own)


def known_of(twiml: str) -> Known:
    """The next step of Twilio after a document, once it has spoken."""
    dialled = {number.text or "" for number in parsed(twiml).iter("Number")}
    for verb in parsed(twiml):
        if verb.tag in WAITS and (way := verb.get("action") or (verb.text or "").strip()):
            return Known(WAITS[verb.tag], way.partition("#")[0], dialled)
    return Known("over", "", dialled)


TEXT: Final = st.text(max_size=60) | st.sampled_from(
    ["", "yes", "no", "billing", "operator", "repeat", "one", "FORWARD_TO", "{heard}", "</Say>"]
)

STEPS: Final = [
    *("start", "reason", "connect", "operator", "voicemail", "message_taken", "goodbye", "closed"),
    *(
        "blocked",
        "too_many",
        "menu",
        "to_billing",
        "to_lost_and-found",
        "listen",
        "think",
        "a",
        "b",
    ),
]

STEP_NAMES: Final = st.sampled_from(STEPS) | TEXT
NUMBER: Final = st.integers(0, 105)

ANSWERS: Final = st.builds(
    Answer,
    say=TEXT,
    then=st.sampled_from(["listen", "transfer", "voicemail", "hangup"]) | TEXT,
    to=st.sampled_from(["", "FORWARD_TO", "billing", "+19005550100"]) | TEXT,
    failed=st.booleans(),
)

HEARD: Final = st.builds(
    Heard,
    speech=TEXT,
    confidence=st.none() | st.floats(),
    keys=st.text("0123456789*#", max_size=3),
    dial=st.sampled_from(["", "", "", "completed", "busy", "no-answer", "failed"]) | TEXT,
    recording=st.sampled_from(["", "", "", "https://api.example/RE1"]) | TEXT,
    entrance=STEP_NAMES,
    again=st.booleans(),
    answer=st.none() | ANSWERS,
)

CALLS: Final = st.builds(
    Call,
    turn=NUMBER,
    step=STEP_NAMES,
    misses=NUMBER,
    guess=STEP_NAMES,
    quote=TEXT,
    prompt=TEXT,
    recording=TEXT,
    repeats=NUMBER,
    choices=st.lists(st.sampled_from(["billing", "lost_and-found"]) | TEXT, max_size=3).map(tuple),
    language=st.sampled_from(["", "de-DE"]) | TEXT,
)

WAY: Final = st.sampled_from(STEPS)

UNFIT: Final = st.sampled_from(["a\x01b", "\ufffe", "one\ntwo"])  # for XML
WORD: Final = TEXT | UNFIT  # a route is a word that a caller may say
TARGET: Final = TEXT.filter(bool)

OWN_STEPS: Final = st.one_of(
    st.builds(
        Ask,
        say=TEXT,
        routes=st.dictionaries(WORD, WAY, max_size=3),
        then=st.just("") | WAY,
        keys=st.none() | st.integers(1, 5),
    ),
    st.builds(Transfer, to=TARGET, say=TEXT, unanswered=WAY),
    st.builds(Voicemail, say=TEXT, then=WAY),
    st.builds(End, say=TEXT),
    st.builds(Tell, say=TEXT | UNFIT, then=st.sampled_from(["reason", "menu", "goodbye"])),
)

OWN: Final = st.dictionaries(st.sampled_from(["a", "b", "menu", "reason"]), OWN_STEPS, max_size=3)

SETTINGS: Final = {
    name: read_settings(
        {"TWILIO_AUTH_TOKEN": TOKEN, **env}
        | ({"BACKEND_URL": "https://backend.example"} if "BACKEND_URL" in env else {})
    )
    for name, env in LINES.items()
}

ENDS_A_TURN: Final = (Ask, Transfer, Voicemail, Consult, End, Refuse)


def plan_of(name: str, own: Mapping[str, Step] | None = None) -> Plan:
    """The plan of one of LINES, with some steps of somebody's own."""
    plan, faults = build_plan(SETTINGS[name])
    assert faults == []
    return replace(plan, flow={**plan.flow, **(own or {})})


@settings(STEADY, max_examples=as_many(250))
@given(name=NAMES, call=CALLS, heard=HEARD)
def test_every_call_has_an_answer_to_everything(name: str, call: Call, heard: Heard) -> None:
    """No state and no webhook is without a decision: one turn later somebody is waited for."""
    plan = plan_of(name)
    after, reply = decide(plan, call, heard)
    assert after.turn == call.turn + 1
    assert isinstance(reply.step, ENDS_A_TURN)
    assert isinstance(reply.step, Consult) or plan.flow.get(after.step) in (reply.step, None)
    assert decide(plan, call, heard) == (after, reply)


@settings(STEADY, max_examples=as_many(200))
@given(name=NAMES, call=CALLS, heard=HEARD, own=OWN)
def test_every_answer_is_twiml(name: str, call: Call, heard: Heard, own: dict[str, Step]) -> None:
    """Any decision, with any table of steps, is a document that Twilio takes; no other number."""
    plan = plan_of(name, own)
    after, reply = decide(plan, call, heard)
    assume(not isinstance(reply.step, Consult))  # the backend comes next: nothing is rendered
    twiml = render_reply(SETTINGS[name], plan, HOOK, after, reply)
    assert [problem for problem in judge(twiml, ORIGIN) if problem.broken] == []
    known = known_of(twiml)
    assert known.dialled <= {phone for rung in plan.numbers.values() for phone in rung}
    if after.turn <= LAST_TURN and known.target:
        assert turn_of(known.target) == after.turn


@pytest.mark.parametrize("words", ["a\x01b", "a\ufffeb", "a\ud800b"])
def test_what_no_xml_may_hold_is_left_out(words: str) -> None:
    """Neither a sentence nor the word of a choice costs the document: Twilio would read none."""
    plan = plan_of("forward", {"start": Ask(words, routes={words: "connect"})})
    after, reply = decide(plan, Call(), Heard(entrance="start"))
    twiml = render_reply(SETTINGS["forward"], plan, HOOK, after, reply)
    assert judge(twiml, ORIGIN) == []
    gather = parsed(twiml)[0]
    assert gather.get("hints", "").startswith(("a b,", "ab,"))
    assert gather[0].text in {"a b", "ab"}


@settings(STEADY, max_examples=as_many(200))
@given(words=st.text(st.characters(), max_size=200), limit=st.integers(1, 50))
def test_whatever_is_spoken_can_be_spoken(words: str, limit: int) -> None:
    """Cleaned words are short, fit into XML and JSON, and are left as they are a second time."""
    kept = clean_text(words, limit)
    assert len(kept) <= limit
    assert clean_text(kept, limit) == kept
    assert parsed(f"<a>{escape(kept)}</a>").text == (kept or None)
    assert json.loads(json.dumps(kept)) == kept


SAVED: Final = sorted(Path(__file__).parents[1].glob("records/*.json"))


@settings(STEADY, max_examples=as_many(100))
@given(path=st.sampled_from(SAVED), dropped=st.sets(st.sampled_from(fields(Record))))
def test_any_part_of_an_old_record_is_enough(path: Path, dropped: set[Any]) -> None:
    """A release that had never heard of some fields wrote records that still carry a call on."""
    cell = json.loads(path.read_text(encoding="utf-8"))["cell"]
    names = {each.name for each in dropped} - {"twiml"}
    older = {name: value for name, value in cell.items() if name not in names}
    record = read_turn(json.dumps(older))
    assert record is not None
    assert record.twiml == cell["twiml"]
    after, reply = decide(plan_of("menu"), record, Heard(speech="billing"))
    assert after.turn == record.turn + 1
    assert isinstance(reply.step, ENDS_A_TURN)


@settings(STEADY, max_examples=as_many(200))
@given(words=st.text(), url=st.text())
def test_twiml_is_written_as_twilios_library_writes_it(words: str, url: str) -> None:
    """Letter for letter, whatever is said and wherever it leads."""
    response = VoiceResponse()
    response.gather(action=url, num_digits=1, action_on_empty_result=True).say(words)
    response.redirect(url)
    assert write_document(response) == str(response)
