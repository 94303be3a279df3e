"""Telephone numbers are read digit by digit, where the voice can; what is stored keeps the words.

A table has numbers as people write them and what only looks like one. Properties hold for every
text, and a hostile one is timed, because the thread that reads it has a caller waiting.
"""

import json
import time
from typing import Final
from urllib.parse import quote
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phone_line.conversation import Reply, decide
from phone_line.flow import End
from phone_line.phones import POLLY, knows_phones, split_phones
from phone_line.records import Call, Record, read_turn
from phone_line.text import ENCODED, fit_say
from phone_line.twiml import render_reply
from phone_line.words import FOLDER, languages, read_words
from standins.backend import Backend, says
from standins.examples import STEADY, as_many
from standins.inside import Inside, webhook
from standins.lines import FORWARD, HOOK, at, line_of, said
from standins.ssml import NO_PHONES
from standins.twiml import judge
from standins.upstash import Upstash

JOANNA: Final = "Polly.Joanna-Neural"

NUMBERS: Final = [
    *("+15550100099", "+1 (555) 010-0099", "+1.555.010.0099", "+49 30 123456", "+44 20 7946 0958"),
    *("+49 (0)30 123 456", "+41 44 668 18 00", "+353 1 555 0123", "+1\u2011555\u2011010\u20110099"),
    *("(555) 010-0099", "(555)010-0099", "555-010-0099", "555.010.0099", "555 010 0099"),
    *("1-800-555-0199", "030 1234567", "030-1234567", "030 / 12 34 567", "0170/1234567"),
    *("(030) 123 456", "01 23 45 67 89", "01.23.45.67.89", "020 7946 0958", "0049 30 1234567"),
    *("02 555 12 12", "0800 123 4567", "915 55 01 99", "91 555 01 99", "655 012 345"),
    "55 1234 5678",
]
NO_NUMBERS: Final = [
    *("1999", "2026-2027", "2026-05-14", "05/12/2026", "05.12.2026 10", "24 12 2026", "12-25"),
    *(
        "9:00-17:00",
        "17:30",
        "0900-1700",
        "5 pm",
        "1'21",
        "$1,500,000",
        "1.500.000,00",
        "$555 0100",
    ),
    *("600 000 000 euros", "650 000 000 \u20ac", "0,50", "100 200 300", "+15", "+1.000", "25 %"),
    *("4155551212", "12345678", "A-555-010-0099", "#555-010-0099", "no. 12345-678", "4711"),
    *("4111 1111 1111 1111", "978-3-16-148410-0", "192.168.001.255", "555-010-00997", "*69"),
    *("+0555 010 0099", "7 of 9", "x555-010-0099", "555-010-0099x", "3.555 010 0099"),
    *("030 12, 345 678", "030 12 3 4 5 6 7"),
]


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("sentence", ["{}", "Call {}, please.", "({})", "Ann, {}? Yes."])
def test_a_number_as_people_write_it_is_found(sentence: str, number: str) -> None:
    """All of it, and nothing around it."""
    parts = [*split_phones(sentence.format(number), JOANNA)]
    assert [part for part, is_phone in parts if is_phone] == [number]


@pytest.mark.parametrize("words", NO_NUMBERS)
def test_prices_years_times_and_order_numbers_are_none(words: str) -> None:
    """They are read as the voice reads them by itself."""
    assert [*split_phones(f"It is {words} there.", JOANNA)] == [(f"It is {words} there.", False)]


def test_the_hours_behind_a_number_are_no_part_of_it() -> None:
    """A plain number ends where its digits end."""
    parts = [*split_phones("+15550100099 24 hours a day, or 555-010-0099 8 to 5", JOANNA)]
    assert [part for part, is_phone in parts if is_phone] == ["+15550100099", "555-010-0099"]
    parts = [*split_phones("Au 01 23 45 67 89, 24h/24, ou 01 23 45 67 88 24h/24.", JOANNA)]
    assert [part for part, is_phone in parts if is_phone] == ["01 23 45 67 89", "01 23 45 67 88"]


# Which voices.


@pytest.mark.parametrize(
    "voice",
    [
        *("woman", "man", "Google.en-US-Wavenet-F", "Polly.Niamh-Neural", "Polly.Hannah-Neural"),
        *("Polly.Joanna-Odd", "Polly.", "Polly.Nobody", "Joanna", "Polly.Joanna-Neural-x"),
    ],
)
def test_a_voice_that_is_not_known_to_take_the_tag_gets_plain_words(voice: str) -> None:
    """A tag that a voice does not know may make the whole Say fail: silence."""
    assert [*split_phones("Call +15550100099.", voice)] == [("Call +15550100099.", False)]


def test_the_tables_of_the_line_and_of_the_judge_agree() -> None:
    """No voice stands in both; each of ours is in one of them."""
    listed = " ".join(POLLY.values()).split()
    unlisted = " ".join(NO_PHONES.values()).split()
    assert len(listed) == len({*listed})
    assert not {*listed} & {*unlisted}
    for language in languages(FOLDER):
        for region in POLLY.keys() | NO_PHONES.keys():
            if region.startswith(f"{language}-"):
                assert knows_phones(read_words(region).voice) == (region in POLLY)


@pytest.mark.parametrize(
    ("env", "tagged"),
    [
        ({}, True),
        ({"LANGUAGE": "de-DE"}, True),
        ({"LANGUAGE": "de-CH"}, True),  # spoken by a German voice
        ({"LANGUAGE": "fr-CA"}, True),
        ({"LANGUAGE": "es-MX"}, True),
        ({"LANGUAGE": "de-AT"}, False),
        ({"LANGUAGE": "en-IE"}, False),
        ({"LANGUAGE": "fr-BE"}, False),
        ({"VOICE": "Polly.Brian"}, True),
        ({"VOICE": "Polly.Amy-Generative"}, True),
        ({"VOICE": "woman"}, False),
        ({"VOICE": "Google.en-US-Wavenet-F"}, False),
    ],
)
def test_the_voice_of_the_line_decides(env: dict[str, str], *, tagged: bool) -> None:
    """A greeting with the number of the shop is tagged where that is safe, and said anyhow."""
    line = line_of({"GREETING": "Bo's, +1 555 010 0099.", **FORWARD, **env})
    call, reply = decide(line.plan, Call(), said(""))
    twiml = render_reply(line.settings, line.plan, HOOK, call, reply)
    assert judge(twiml, "/") == []
    number = '<say-as interpret-as="telephone">+1 555 010 0099</say-as>'
    assert (f"Bo's, {number}." in twiml) == tagged
    assert ("Bo's, +1 555 010 0099." in twiml) != tagged


# Whatever is said.

PARTS: Final = st.sampled_from(
    [
        *"0123456789+-./() <>&\"'",
        *(
            "</Say>",
            "<Dial>",
            "+1",
            "555",
            "010",
            "0099",
            " 030 ",
            "word ",
            "\u00df",
            "&amp;",
            "]]>",
        ),
        *("+15550100099", "(555) 010-0099 ", "\u0665" * 9),
    ]
)
TEXTS: Final = st.lists(PARTS, max_size=400).map("".join)


def say(words: str) -> str:
    """The document that says something and hangs up."""
    line = line_of(FORWARD)
    return render_reply(
        line.settings, line.plan, HOOK, at("goodbye"), Reply((words,), End("goodbye"))
    )


@settings(STEADY, max_examples=as_many(300))
@given(TEXTS)
def test_whatever_is_said_is_said_in_full_and_stays_words(words: str) -> None:
    """Tags are added around numbers, and nothing else: no word is lost, none becomes a verb."""
    document = say(words)
    assert judge(document, "/") == []
    root = ElementTree.fromstring(document)  # noqa: S314 # our own
    assert {tag.tag for tag in root.iter()} <= {"Response", "Say", "say-as", "Hangup"}
    assert "".join("".join(each.itertext()) for each in root.iter("Say")) == fit_say(words)


def test_a_sentence_full_of_numbers_still_fits_into_one_say() -> None:
    """Tags count, too, when Twilio counts: the numbers behind stay plain, and are said."""
    words = fit_say("Call +15550100099. " * 400)
    document = say(words)
    inside = document.partition("<Say")[2].partition(">")[2].partition("</Say>")[0]
    assert 5 < document.count("<say-as") < 100
    assert len(quote(inside, safe="")) <= ENCODED
    assert judge(document, "/") == []


@pytest.mark.parametrize(
    "part", [*"01+-( ", "+1", "0 ", "01 ", "1-", "( ", "0/", "555-", "+1 ( )", "0 1-"]
)
def test_a_hostile_answer_keeps_no_thread_busy(part: str) -> None:
    """As many digits as one Say holds are read in a moment, however they are set."""
    began = time.thread_time()
    for words in (part * 2500, f"{part}x" * 1000):
        [*split_phones(words[:2500], JOANNA)]
    assert time.thread_time() - began < 0.5  # usually a hundredth of that


# What is stored.


def test_what_is_kept_is_plain_and_a_repeat_says_the_same(upstash: Upstash) -> None:
    """The tag is in the TwiML alone: not in the record's words, nor in what the backend is told."""
    words = "We are at +1 555 010 0099. Anything else?"
    with Backend(lambda _: says(words)) as backend:
        line = Inside({**FORWARD, **upstash.settings, "BACKEND_URL": backend.url})
        call = webhook()
        line.post("/voice/inbound", call)
        ask = {**call, "SpeechResult": "my number is 555-010-0066"}
        first, again = (line.post("/voice/process?turn=1&step=listen", ask) for _ in range(2))
        line.post("/voice/process?turn=2&step=listen", {**call, "SpeechResult": "No."})
        told = backend.questions[1].body
    assert first.body == again.body
    assert b'<say-as interpret-as="telephone">+1 555 010 0099</say-as>' in first.body
    (cell,) = upstash.quietly(["GET", f"call:{call['CallSid']}:2"])
    assert isinstance(cell, bytes)
    record = read_turn(cell.decode())
    assert isinstance(record, Record)
    assert record.said == record.prompt == words
    assert words in json.dumps(told)
    assert "say-as" not in json.dumps(told)
