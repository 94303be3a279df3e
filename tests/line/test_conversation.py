"""Decisions, and the TwiML of them: plain values in, plain values out.

The first table reads as situation, what the caller does, what the caller hears. The rest holds for
everything at once: each step of every line, with whatever a webhook may bring, has an answer in
words that Twilio accepts.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from itertools import product
from typing import Final
from urllib.parse import quote
from xml.etree.ElementTree import Element

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phone_line.conversation import LEAVING, Reply, decide
from phone_line.flow import Ask, Consult, End, Refuse, Tell, Transfer, Voicemail
from phone_line.plan import Plan
from phone_line.records import LAST_TURN, Answer, Call, Heard
from phone_line.text import ENCODED, fit_say
from phone_line.twiml import connection_overrides, render_reply
from standins.examples import STEADY, as_many
from standins.inside import ORIGIN
from standins.lines import (
    BACKEND,
    FORWARD,
    HOOK,
    LINES,
    MENU,
    SILENCE,
    Line,
    at,
    line_of,
    said,
    told,
)
from standins.rows import mostly_long
from standins.sentences import say
from standins.twiml import Problem, judge, parse

GUESS: Final = at("menu", guess="to_billing")

GREETING: Final = say("greeting")
CLOSED: Final = say("closed")
REASON: Final = say("ask_reason")
HELP_YOU: Final = say("ask_help")
FOR_BILLING: Final = say("menu_item", name="billing", key="1")
FOR_LOST: Final = say("menu_item", name="lost and found", key="2")
TO_BILLING: Final = say("connecting_department", name="billing")
TO_LOST: Final = say("connecting_department", name="lost and found")
ZU_LOST: Final = say("connecting_department", "de", name="lost and found")
CONNECTING: Final = say("connecting")
NOT_HEARD: Final = say("not_heard")
NOT_UNDERSTOOD: Final = say("not_understood")
GIVING_UP: Final = say("giving_up")
HELP: Final = say("help")
DID_YOU: Final = say("did_you_say", name="billing")
BUSY: Final = say("busy")
LEAVE: Final = say("leave_message")
GOODBYE: Final = say("goodbye")

HEARD: Final[list[tuple[str, str, Call, Heard, str, str]]] = [
    # situation, line, the call, what is heard: the next step, and words of the answer
    ("a new call", "forward", Call(), SILENCE, "reason", GREETING),
    ("a new call for a menu", "menu", Call(), SILENCE, "menu", FOR_LOST),
    ("a new call for a backend", "backend", Call(), SILENCE, "listen", HELP_YOU),
    ("closed", "forward", Call(), Heard(entrance="closed"), "voicemail", CLOSED),
    ("blocked", "forward", Call(), Heard(entrance="blocked"), "blocked", ""),
    ("too many calls", "forward", Call(), Heard(entrance="too_many"), "too_many", ""),
    (
        "a reason",
        "forward",
        at("reason"),
        said("Ann, a bill"),
        "connect",
        say("heard_connecting", heard="Ann, a bill"),
    ),
    (
        "a reason as it is recognised",
        "forward",
        at("reason"),
        said("Where is my order?"),
        "connect",
        say("heard_connecting", heard="Where is my order"),
    ),
    ("a reason, nobody there", "alone", at("reason"), said("Ann"), "voicemail", LEAVE),
    (
        "hardly understood",
        "forward",
        at("reason"),
        said("Ann", 0.0),
        "connect",
        say("heard_connecting", heard="Ann"),
    ),
    ("an operator", "forward", at("reason"), said("operator"), "operator", CONNECTING),
    ("an operator, please", "menu", at("menu"), said("a human, please!"), "operator", CONNECTING),
    (
        "a long sentence",
        "forward",
        at("reason"),
        said("the person I met was rude"),
        "connect",
        say("heard_connecting", heard="the person I met was rude"),
    ),
    ("no operator", "alone", at("reason"), said("operator"), "voicemail", LEAVE),
    ("repeat", "menu", at("menu"), said("Repeat, please."), "menu", FOR_BILLING),
    ("key 0", "menu", at("menu"), Heard(keys="0"), "operator", CONNECTING),
    ("key 0 for the backend", "backend", at("listen"), Heard(keys="0"), "operator", CONNECTING),
    ("key *", "menu", at("menu"), Heard(keys="*"), "menu", FOR_BILLING),
    ("key 1", "menu", at("menu"), Heard(keys="1"), "to_billing", TO_BILLING),
    ("key 2", "menu", at("menu"), Heard(keys="2"), "to_lost_and-found", TO_LOST),
    ("key 3", "menu", at("menu"), Heard(keys="3"), "menu", NOT_UNDERSTOOD),
    ("key #", "menu", at("menu"), Heard(keys="#"), "menu", NOT_UNDERSTOOD),
    ("key 1 of no menu", "forward", at("reason"), Heard(keys="1"), "reason", NOT_UNDERSTOOD),
    (
        "keys and words",
        "menu",
        at("menu"),
        Heard(keys="2", speech="billing"),
        "to_lost_and-found",
        "",
    ),
    ("a department", "menu", at("menu"), said("Billing."), "to_billing", TO_BILLING),
    ("in a sentence", "menu", at("menu"), said("it's my BILLING!"), "to_billing", TO_BILLING),
    ("only part of a word", "menu", at("menu"), said("billings"), "menu", DID_YOU),
    ("of several words", "menu", at("menu"), said("lost and found"), "to_lost_and-found", ""),
    ("a number", "menu", at("menu"), said("two"), "to_lost_and-found", TO_LOST),
    ("a digit", "menu", at("menu"), said("1."), "to_billing", TO_BILLING),
    ("a number in a sentence", "menu", at("menu"), said("two of my bills"), "menu", NOT_UNDERSTOOD),
    (
        "two departments",
        "menu",
        at("menu"),
        said("lost and found, billing"),
        "menu",
        say("did_you_say", name="lost and found"),
    ),
    (
        "low confidence",
        "menu",
        at("menu"),
        said("billing", 0.4),
        "menu",
        say("did_you_say", name="billing"),
    ),
    ("just enough", "menu", at("menu"), said("billing", 0.5), "to_billing", TO_BILLING),
    ("no confidence", "menu", at("menu"), said("billing", None), "to_billing", TO_BILLING),
    ("yes to a guess", "menu", GUESS, said("yes, please", 0.1), "to_billing", TO_BILLING),
    ("no to a guess", "menu", GUESS, said("no", 0.1), "menu", FOR_BILLING),
    ("a guess again", "menu", GUESS, said("billing", 0.1), "to_billing", TO_BILLING),
    ("another than guessed", "menu", GUESS, said("lost and found"), "to_lost_and-found", ""),
    ("a key to a guess", "menu", GUESS, Heard(keys="2"), "to_lost_and-found", ""),
    ("silence to a guess", "menu", GUESS, SILENCE, "menu", NOT_HEARD),
    ("a guess that is gone", "menu", at("menu", guess="to_sales"), said("yes"), "menu", GREETING),
    ("yes to nothing", "menu", at("menu"), said("yes"), "menu", NOT_UNDERSTOOD),
    ("silence", "forward", at("reason"), SILENCE, "reason", NOT_HEARD),
    ("silence twice", "forward", at("reason", misses=1), SILENCE, "reason", HELP),
    ("silence thrice", "forward", at("reason", misses=2), SILENCE, "voicemail", NOT_HEARD),
    ("thrice, nobody there", "alone", at("reason", misses=2), SILENCE, "voicemail", LEAVE),
    ("nonsense twice", "menu", at("menu", misses=1), said("purple"), "menu", HELP),
    ("nonsense thrice", "menu", at("menu", misses=2), said("purple"), "operator", GIVING_UP),
    (
        "nonsense, no person",
        "menu alone",
        at("menu", misses=2),
        said("purple"),
        "operator",
        GIVING_UP,
    ),
    ("nonsense, nobody", "alone", at("reason", misses=2), Heard(keys="5"), "voicemail", LEAVE),
    ("help, nobody there", "alone", at("reason", misses=1), SILENCE, "reason", say("help_alone")),
    ("blanks", "forward", at("reason"), said(" \t "), "reason", REASON),
    ("only marks", "forward", at("reason"), said("?!..."), "reason", REASON),
    ("nobody spoke", "menu", GUESS, Heard(again=True), "menu", FOR_BILLING),
    ("a talk", "forward", at("connect"), Heard(dial="completed"), "goodbye", GOODBYE),
    ("a conference", "forward", at("connect"), Heard(dial="answered"), "goodbye", GOODBYE),
    ("called off", "forward", at("connect"), Heard(dial="canceled"), "goodbye", GOODBYE),
    ("busy", "forward", at("connect"), Heard(dial="busy"), "voicemail", BUSY),
    ("no answer", "menu", at("to_billing"), Heard(dial="no-answer"), "voicemail", say("no-answer")),
    ("failed", "forward", at("connect"), Heard(dial="failed"), "voicemail", say("failed")),
    ("unheard-of", "forward", at("connect"), Heard(dial="exploded"), "voicemail", say("failed")),
    ("dial, record lost", "forward", at(""), Heard(dial="busy"), "voicemail", BUSY),
    ("dial, at a question", "menu", at("menu"), Heard(dial="completed"), "goodbye", GOODBYE),
    (
        "dial that recorded",
        "menu",
        at("to_billing"),
        Heard(dial="completed", recording="https://x"),
        "goodbye",
        GOODBYE,
    ),
    ("nothing of a dial", "forward", at("connect"), SILENCE, "voicemail", say("interrupted")),
    (
        "a message",
        "alone",
        at("voicemail"),
        Heard(recording="https://x"),
        "message_taken",
        say("message_taken"),
    ),
    (
        "message, record lost",
        "alone",
        at(""),
        Heard(recording="https://x"),
        "message_taken",
        say("message_taken"),
    ),
    ("no message", "alone", at("voicemail"), SILENCE, "goodbye", GOODBYE),
    ("an unknown step", "forward", at("tickets"), said("Boston"), "reason", REASON),
    ("an end", "forward", at("goodbye"), SILENCE, "reason", REASON),
    ("words for the backend", "backend", at("listen"), said("a ticket"), "think", ""),
    ("keys for the backend", "backend", at("listen"), Heard(keys="4711"), "think", ""),
    ("it listens", "backend", at("think"), told(say="Where to?"), "listen", "Where to?"),
    ("it listens, mute", "backend", at("think"), told(), "listen", HELP_YOU),
    (
        "it transfers",
        "backend",
        at("think"),
        told(then="transfer", to="billing", say="Bye"),
        "to_billing",
        "Bye",
    ),
    (
        "it transfers, mute",
        "backend",
        at("think"),
        told(then="transfer", to="FORWARD_TO"),
        "operator",
        CONNECTING,
    ),
    (
        "to nobody",
        "backend alone",
        at("think"),
        told(then="transfer", to="FORWARD_TO", say="Bye"),
        "voicemail",
        "",
    ),
    (
        "it takes a message",
        "backend",
        at("think"),
        told(then="voicemail", say="Speak"),
        "voicemail",
        "Speak",
    ),
    (
        "it hangs up",
        "backend",
        at("think"),
        told(then="hangup", say="Booked."),
        "goodbye",
        "Booked.",
    ),
    ("it hangs up, mute", "backend", at("think"), told(then="hangup"), "goodbye", GOODBYE),
    ("it failed", "backend", at("think"), told(failed=True), "operator", say("no_result")),
    (
        "failed, nobody there",
        "backend alone",
        at("think"),
        told(failed=True),
        "voicemail",
        say("no_result"),
    ),
    (
        "its question again",
        "backend",
        at("listen", prompt="Where to?"),
        SILENCE,
        "listen",
        "Where to?",
    ),
    ("nobody spoke, thinking", "backend", at("think"), Heard(again=True), "listen", HELP_YOU),
    ("turn 97", "forward", at("reason", turn=96), said("repeat"), "reason", REASON),
    ("turn 98", "forward", at("reason", turn=97), said("repeat"), "operator", GIVING_UP),
    ("turn 98, backend", "backend", at("listen", turn=97), said("ticket"), "operator", GIVING_UP),
    (
        "jawohl",
        "German",
        at("menu", guess="to_billing"),
        said("Ja, genau"),
        "to_billing",
        say("connecting_department", "de", name="billing"),
    ),
    (
        "nein",
        "German",
        at("menu", guess="to_billing"),
        said("Nein."),
        "menu",
        say("menu_item", "de", name="billing", key="1"),
    ),
    ("Zentrale", "German", at("menu"), said("Zentrale bitte"), "operator", say("connecting", "de")),
    ("zwei", "German", at("menu"), said("Zwei"), "to_lost_and-found", ZU_LOST),
]


@pytest.mark.parametrize(
    ("name", "call", "heard", "step", "words"),
    [row[1:] for row in HEARD],
    ids=[row[0] for row in HEARD],
)
def test_what_is_heard_decides_what_is_said(
    name: str, call: Call, heard: Heard, step: str, words: str
) -> None:
    """In each situation the call goes where the table says, with the words that it says."""
    after, reply = decide(line_of(LINES[name]).plan, call, heard)
    assert (after.turn, after.step) == (call.turn + 1, step)
    assert words in " ".join(reply.says)


def test_a_quoted_caller_cannot_put_words_into_our_mouth() -> None:
    """Braces in what was heard stay braces: they name no other value."""
    plan = line_of(FORWARD).plan
    _, reply = decide(plan, at("reason"), said("{name} {menu} {heard}"))
    assert "{name} {menu} {heard}" in reply.says[0]


def test_patience_grows_with_every_miss_up_to_ten_seconds() -> None:
    """Who was silent is given longer to begin and longer to pause, but never more than 10 s."""
    quick, patient = line_of(FORWARD), line_of({**FORWARD, "SPEECH_TIMEOUT": "9"})
    waits = [[listening(each, misses) for misses in (0, 1, 2)] for each in (quick, patient)]
    for grown in waits:
        assert [timeout for timeout, _ in grown] == sorted({timeout for timeout, _ in grown})
    assert [pause for _, pause in waits[0]] == sorted({pause for _, pause in waits[0]})
    assert max(max(pair) for grown in waits for pair in grown) == 10


def listening(known: Line, misses: int) -> tuple[int, int]:
    """The timeout and the speechTimeout after so many misses, the last of them silence."""
    call, heard = (at("reason", misses=misses - 1), SILENCE) if misses else (Call(), SILENCE)
    twiml = render_reply(known.settings, known.plan, HOOK, *decide(known.plan, call, heard))
    timeout, pause = (
        re.search(r' timeout="(\d+)"', twiml),
        re.search(r'speechTimeout="(\d+)"', twiml),
    )
    assert timeout is not None
    assert pause is not None
    return int(timeout[1]), int(pause[1])


def document(known: Line, call: Call, heard: Heard) -> Element:
    """An answer as Twilio reads it."""
    root = parse(render_reply(known.settings, known.plan, HOOK, *decide(known.plan, call, heard)))
    assert isinstance(root, Element)
    return root


def verb(name: str, known: Line, call: Call, heard: Heard) -> Mapping[str, str]:
    """The attributes of the one verb of this name in an answer."""
    [found] = document(known, call, heard).iter(name)
    return found.attrib


def test_a_transfer_rings_through_and_has_an_end() -> None:
    """The caller hears it ring; after four rings voicemail is ours, and no talk costs for ever."""
    dial = verb("Dial", line_of(FORWARD), at("reason"), said("Ann"))
    assert dial["answerOnBridge"] == "true"
    assert 15 <= int(dial["timeout"]) <= 30
    assert 600 <= int(dial["timeLimit"]) <= 4 * 3600


def test_a_message_has_an_end() -> None:
    """Silence or the hash key ends a message, and so do some minutes."""
    record = verb("Record", line_of({}), at("reason"), said("Ann"))
    assert record["finishOnKey"] == "#"
    assert int(record["timeout"]) <= 10
    assert int(record["maxLength"]) <= 600
    assert record.get("playBeep", "true") == "true"


def test_a_menu_listens_for_one_key_and_for_its_names() -> None:
    """Any one key is an answer at once, # too, and the recogniser is told what may be said."""
    gather = verb("Gather", line_of(MENU), Call(), SILENCE)
    assert set(gather["input"].split()) == {"dtmf", "speech"}
    assert (gather["numDigits"], gather["finishOnKey"]) == ("1", "")
    assert {"billing", "lost and found", "operator", "repeat"} <= set(gather["hints"].split(", "))


def test_a_backend_is_brought_as_many_keys_as_come() -> None:
    """A ticket number is keyed whole: # or a pause ends it."""
    gather = verb("Gather", line_of(BACKEND), Call(), SILENCE)
    assert "numDigits" not in gather
    assert gather["finishOnKey"] == "#"


@pytest.mark.parametrize(
    ("env", "voice", "language", "model"),
    [
        ({}, "Polly.Joanna-Neural", "en-US", "phone_call"),
        ({"LANGUAGE": "de-DE"}, "Polly.Vicki-Neural", "de-DE", "experimental_conversations"),
        ({"LANGUAGE": "de-AT"}, "Polly.Hannah-Neural", "de-AT", None),
        ({"VOICE": "Polly.Amy", "LANGUAGE": "en-GB"}, "Polly.Amy", "en-GB", "phone_call"),
        ({"VOICE": "woman", "LANGUAGE": "en-GB"}, "woman", "en-GB", "phone_call"),
        ({"SPEECH_MODEL": "deepgram_nova-3"}, "Polly.Joanna-Neural", "en-US", "deepgram_nova-3"),
        ({"SPEECH_TIMEOUT": "auto"}, "Polly.Joanna-Neural", "en-US", None),
    ],
)
def test_it_speaks_and_listens_as_set(
    env: dict[str, str], voice: str, language: str, model: str | None
) -> None:
    """Voice, language and model are those of the settings; `auto` names no model."""
    known = line_of({"SPEECH_TIMEOUT": "4"} | env)
    gather = verb("Gather", known, at("reason"), SILENCE)
    assert (gather["language"], gather.get("speechModel")) == (language, model)
    says = [say.attrib for say in document(known, Call(), SILENCE).iter("Say")]
    own = {} if "." in voice else {"language": language}  # Polly.Amy is British by herself
    assert says == [{"voice": voice} | own] * 2


# Everything at once.


ALL_ANSWERS: Final = [
    Heard(speech="hi", answer=Answer(say=say, then=then, to=to, failed=failed))
    for say, then, to, failed in product(
        ("", "Yes & <no>", "word " * 999),
        ("listen", "transfer", "voicemail", "hangup", "dance"),
        ("", "FORWARD_TO", "billing", "+19005550100"),
        (False, True),
    )
]

ALL_HEARD: Final = [
    SILENCE,
    Heard(again=True),
    *[
        said(words, sure)
        for words in ("billing", "yes", "no", "Ann", "x" * 1000)
        for sure in (0.1, None)
    ],
    *[
        said(words)
        for words in ("operator", "repeat", "lost and found billing", "</Say>", "👩🏽‍🚀", "\u202eא")
    ],
    *[Heard(keys=keys) for keys in ("0", "1", "2", "9", "*", "#", "12", "0*#" * 13)],
    *[
        Heard(dial=dial)
        for dial in ("completed", "answered", "busy", "no-answer", "failed", "canceled", "?")
    ],
    Heard(recording="https://api.example/RE1"),
    Heard(dial="completed", recording="https://api.example/RE1"),
    *[Heard(entrance=name) for name in ("closed", "blocked", "too_many", "nowhere")],
]

WAITING: Final = (Ask, Transfer, Voicemail, Consult, End, Refuse)


def all_calls(plan: Plan) -> Iterator[Call]:
    """A call at every step of a line, and at steps that it does not have, in every state."""
    for step in (*plan.flow, "", "tickets"):
        for turn, misses in ((1, 0), (5, 2), (97, 1), (99, 7), (100, 0)):
            yield Call(turn=turn, step=step, misses=misses)
        yield Call(turn=2, step=step, guess="to_billing", quote="Ann", prompt="Where & when?")
        yield Call(turn=2, step=step, guess="tickets", recording="https://api.example/RE0")
    yield Call()


def everything(plan: Plan) -> Iterator[tuple[Call, Heard]]:
    """Every call with all that it may hear, the backend's answers where it is asked."""
    for call in all_calls(plan):
        consulting = isinstance(plan.flow.get(call.step), Consult)
        yield from ((call, heard) for heard in ALL_HEARD + (ALL_ANSWERS if consulting else []))


@pytest.mark.parametrize("name", mostly_long({name: name for name in LINES}, "menu"))
def test_every_step_has_an_answer_to_everything(name: str) -> None:
    """Whatever is heard wherever, one turn later the caller hears words that Twilio accepts."""
    known = line_of(LINES[name])
    for call, heard in everything(known.plan):
        after, reply = decide(known.plan, call, heard)
        assert after.turn == call.turn + 1
        assert isinstance(reply.step, WAITING)
        assert any(reply.says) or isinstance(reply.step, Consult | Refuse)
        rendered(known, after, reply)


@cache
def problems(twiml: str) -> list[Problem]:
    return judge(twiml, ORIGIN)


def rendered(known: Line, after: Call, reply: Reply) -> str:
    """An answer as TwiML, held to Twilio's rules and to the numbers of the settings."""
    twiml = render_reply(known.settings, known.plan, HOOK, after, reply)
    if not isinstance(reply.step, Consult):  # that one is held, and never rendered
        assert problems(twiml) == []
    dialled = set(re.findall(r"<Number[^>]*>(.*?)</Number>", twiml))
    assert dialled <= {phone for rung in known.settings.numbers.values() for phone in rung}
    assert bool(dialled) == isinstance(reply.step, Transfer)
    if "/voice/process" in twiml and after.turn <= LAST_TURN:
        way = re.escape(connection_overrides(known.settings).replace("&", "&amp;"))
        ways = re.findall(r'/voice/(?:process|accept)[^"<]*', twiml)
        assert all(
            re.search(rf"\?turn={after.turn}&amp;step=[\w.%-]+{way}$", each) for each in ways
        )
    return twiml


@pytest.mark.parametrize("name", mostly_long({name: name for name in LINES}, "German"))
def test_the_same_again_is_decided_the_same(name: str) -> None:
    """Nothing but the arguments decides: asked again, the answer is the same to the byte."""
    known, again = line_of(LINES[name]), line_of(LINES[name])
    for call, heard in product(all_calls(known.plan), ALL_HEARD[::4]):
        first = decide(known.plan, call, heard)
        assert first == decide(again.plan, call, heard)
        twiml = render_reply(known.settings, known.plan, HOOK, *first)
        assert twiml == render_reply(again.settings, again.plan, HOOK, *first)


LINE_OF: Final = {name: line_of(env) for name, env in LINES.items()}
TEXT: Final = st.text(max_size=300) | st.sampled_from(["yes", "no", "billing", "operator", "0"])


@settings(STEADY, max_examples=as_many(300))
@given(
    name=st.sampled_from(sorted(LINES)),
    step=st.sampled_from(["", "reason", "menu", "listen", "connect", "voicemail"]) | TEXT,
    speech=TEXT,
    keys=st.text("0123456789*#", max_size=5),
    confidence=st.none() | st.floats(0, 1),
    guess=st.sampled_from(["", "to_billing"]) | TEXT,
    quote=TEXT,
    say=TEXT,
)
def test_any_words_are_answered_in_words(
    *,
    name: str,
    step: str,
    speech: str,
    keys: str,
    confidence: float | None,
    guess: str,
    quote: str,
    say: str,
) -> None:
    """No text at all, from a caller, a record or a backend, makes an answer that Twilio refuses."""
    known = LINE_OF[name]
    call = Call(turn=4, step=step, guess=guess, quote=quote, prompt=say)
    for heard in (
        Heard(speech=speech, keys=keys, confidence=confidence),
        Heard(answer=Answer(say=say, then="listen")),
    ):
        rendered(known, *decide(known.plan, call, heard))


PERSON = "+15550100099"


@pytest.mark.parametrize(
    ("words", "step"),
    [("no, billing", "to_billing"), ("no, operator please", "operator"), ("no cancel", "menu")],
)
def test_a_no_can_bring_the_right_word_along(words: str, step: str) -> None:
    """Did you say cancel? No, billing: that is an answer, not only a no."""
    menu = {"DEPARTMENTS": "billing=+15550100001 cancel=+15550100002", "FORWARD_TO": PERSON}
    plan = line_of(menu).plan
    call = Call(turn=2, step="menu", guess="to_cancel")
    after_, _ = decide(plan, call, Heard(speech=words, confidence=0.9))
    assert after_.step == step


def test_a_say_keeps_both_of_twilios_limits() -> None:
    """Letters of several bytes are cut sooner: the other limit is 4500 bytes, URL-encoded."""
    assert len(quote(fit_say("Жук " * 900))) <= ENCODED
    assert fit_say("Short.") == "Short."


def test_a_step_that_waits_for_nobody_goes_on() -> None:
    """Two consultations in a row, or words in a circle: Twilio comes back, the call goes on."""
    known = line_of({"BACKEND_URL": "https://b.example"})
    again = Consult(listen="think", failed="operator")
    circle = Tell("Hello.", then="start")
    plan = replace(known.plan, flow={**known.plan.flow, "think": again, "start": circle})
    for step in ("think", "start"):
        heard = Heard(answer=Answer("One more thing.", "listen"))
        call, reply = decide(plan, Call(turn=1, step=step), heard)
        assert "<Redirect>/voice/process?turn=2&amp;" in render_reply(
            known.settings, plan, HOOK, call, reply
        )


@pytest.mark.parametrize(("turn", "step"), [(LEAVING - 1, "to_sales"), (LEAVING, "voicemail")])
def test_departments_that_lead_to_each_other_end_in_voicemail(turn: int, step: str) -> None:
    """Near the end of a call nobody else is rung, so that there is a turn left for a message."""
    plan = LINE_OF["menu"].plan
    circle = {
        "to_billing": Transfer("billing", "connecting_department", unanswered="to_sales"),
        "to_sales": Transfer("billing", "connecting_department", unanswered="to_billing"),
    }
    plan = replace(plan, flow={**plan.flow, **circle})
    after, _ = decide(plan, at("to_billing", turn=turn), Heard(dial="busy"))
    assert after.step == step


def test_a_prompt_of_blanks_is_no_prompt() -> None:
    """What cannot be spoken does not leave a question without words."""
    plan = line_of({}).plan
    call = Call(turn=1, step="reason", prompt=" \n")
    assert decide(plan, call, Heard(keys="*"))[1].says == (plan.sentence("ask_reason"),)
