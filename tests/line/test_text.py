"""Text that is kept, compared, spoken and shown: cut to size, clean, and telling no number.

The tables say by hand what becomes of a text. The properties hold for every text, and every one of
them for the letters that do harm: controls, halves of characters, and what takes many bytes.
"""

import json
import re
import time
from html import escape
from typing import Final
from urllib.parse import quote
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phone_line.text import (
    ENCODED,
    SAID,
    SPOKEN,
    clean_text,
    fit_say,
    fold_words,
    mask_phone,
    shorten,
    speak_name,
    without_digits,
)
from standins.examples import STEADY, as_many

TRIED: Final = settings(STEADY, max_examples=as_many(200))
HARMFUL: Final = "\x00\x1b\x7f\x85\u202e\u2066\ud83d\udca9\ufffe\uffff\u2028 \t\n.,!?<&\"'"
LETTERS: Final = st.characters() | st.sampled_from(HARMFUL)
TEXTS: Final = st.text(LETTERS, max_size=200)
PARTS: Final = ["word ", "End. ", "Ж", "😀", "Really?! ", "\u202e", "z" * 90, " - ", "Dr. ", "5. "]
LONG: Final = st.lists(st.sampled_from(PARTS), max_size=900).map("".join)


def parsed(words: str) -> str:
    """Words after a way through XML, as Twilio reads them."""
    return ElementTree.fromstring(f"<Say>{escape(words)}</Say>").text or ""  # noqa: S314 # our own


# --- Keeping ---


@TRIED
@given(words=TEXTS, limit=st.integers(1, 50))
def test_what_is_kept_is_bounded_and_fits_into_xml_and_json(words: str, limit: int) -> None:
    """Cleaned words are short, survive both formats, and are left as they are a second time."""
    kept = clean_text(words, limit)
    assert len(kept) <= limit
    assert clean_text(kept, limit) == kept
    assert parsed(kept) == kept
    assert json.loads(json.dumps(kept)) == kept
    assert kept.encode().decode() == kept


CLEANED: Final = [
    # the situation, the words, what is kept
    ("nothing", "", ""),
    ("blanks", " \t\n ", ""),
    ("lines and tabs", "Ann,\n\tmy   bill", "Ann, my bill"),
    ("colours of a terminal", "Ann \x1b[31mmy bill", "Ann [31mmy bill"),
    ("a text that runs backwards", "Ann\u202egnp.exe", "Ann gnp.exe"),
    ("colours, in one letter", "Ann \x9b31mmy bill", "Ann 31mmy bill"),
    ("what is no letter", "Ann\ufffemy\uffffbill", "Ann my bill"),
    ("half of a character", "Ann \ud83d\ude00", "Ann"),
    ("an emoji of several parts", "Ann 👩🏽‍🚀 my bill", "Ann 👩🏽‍🚀 my bill"),
    ("other scripts", "Żółć, 你好, שלום", "Żółć, 你好, שלום"),
]


@pytest.mark.parametrize(("words", "kept"), [pytest.param(*row[1:], id=row[0]) for row in CLEANED])
def test_words_stay_and_what_does_harm_goes(words: str, kept: str) -> None:
    """Only what XML forbids, what steers a terminal, and what turns the text around is dropped."""
    assert clean_text(words) == kept


def test_a_long_breath_is_cut_at_a_word() -> None:
    """Ten thousand letters are kept as a thousand; a word is only cut if it is longer than that."""
    kept = clean_text("lalala " * 2000)
    assert SPOKEN - len("lalala ") < len(kept) <= SPOKEN
    assert set(kept.split()) == {"lalala"}
    assert clean_text("one two", 5) == "one"
    assert clean_text("one two", 3) == "one"
    assert clean_text("x" * 5000) == "x" * SPOKEN


# --- Comparing ---


@TRIED
@given(words=TEXTS, others=TEXTS)
def test_folded_words_can_be_looked_for_as_whole_words(words: str, others: str) -> None:
    """Folded again they stay; joined they fold as each alone, so that a phrase is found in both."""
    folded = fold_words(words)
    assert fold_words(folded) == folded
    assert folded == " ".join(folded.split())
    assert fold_words(f"{words} {others}").split() == [*folded.split(), *fold_words(others).split()]


ALIKE: Final = [
    ("Billing!", "billing"),
    ("  LOST-and_Found. ", "lost and found"),
    ("\uff22\uff29\uff2c\uff2c", "bill"),  # full-width letters
    ("STRASSE", "straße"),
    ("cafe\u0301", "caf\u00e9"),  # the accent as a letter of its own
    ("\u00bfS\u00cd?", "s\u00ed"),
]


@pytest.mark.parametrize(("one", "other"), ALIKE)
def test_words_that_sound_alike_are_folded_alike(one: str, other: str) -> None:
    """Case, punctuation, full-width forms and the way an accent is stored make no difference."""
    assert fold_words(one) == fold_words(other)


def test_a_department_is_said_without_its_signs() -> None:
    """A name that is written with - and _ is read out as words."""
    assert speak_name("lost-and_found") == "lost and found"
    assert speak_name("billing") == "billing"


# --- Speaking ---


@TRIED
@given(words=LONG | TEXTS)
def test_every_text_fits_into_one_say(words: str) -> None:
    """Both of Twilio's limits hold, in every script; said again it is the same."""
    said = fit_say(words)
    assert len(said) <= 3000
    assert len(quote(said, safe="")) <= 4500
    assert fit_say(said) == said
    assert parsed(said) == said


def test_a_text_that_just_fits_is_not_cut() -> None:
    """750 Cyrillic letters are 4500 bytes in a URL; of Latin ones 2500 are enough."""
    assert fit_say("Ж" * 750) == "Ж" * 750
    assert len(fit_say("Ж" * 751)) < 750
    assert len(fit_say("z" * 9000)) == 2500


SENTENCES: Final = ["Тихий жук. ", "你好 世界! ", "All is well. ", "😀 😀! ", "1/2/3/4/5/6! "]


@pytest.mark.parametrize("sentence", SENTENCES)
def test_a_say_is_filled_and_ends_with_a_sentence(sentence: str) -> None:
    """A long text loses no more than a tenth of what would have fitted, and no half sentence."""
    said = fit_say(sentence * 900)
    assert said.endswith(sentence.strip())
    full = max(len(said) / SAID, len(quote(said, safe="")) / ENCODED)
    assert 0.88 < full <= 1


@TRIED
@given(words=LONG | TEXTS, limit=st.integers(0, 300))
def test_a_shortened_text_is_the_beginning_of_it(words: str, limit: int) -> None:
    """It is within the limit, begins as the whole does, and is not shortened any further."""
    short = shorten(words, limit)
    assert len(short) <= limit
    assert shorten(words, 10**6).startswith(short)
    assert shorten(short, limit) == short


SHORTENED: Final = [
    # the situation, the words, the limit, what is left
    ("it fits", "Ann, my bill.", 40, "Ann, my bill."),
    ("exactly", "Ann, my bill.", 13, "Ann, my bill."),
    ("several sentences", "Hello. I am Ann. It is my bill that", 20, "Hello. I am Ann."),
    ("sentences as long as the limit", "I am Ann. I see. Then", 16, "I am Ann. I see."),
    ("a question", "Is it you? I am Ann and so on and on", 16, "Is it you?"),
    ("no more than hello", "Hello. I call because of it all", 20, "Hello. I call"),
    ("no sentence at all", "it is about my bill, and then", 22, "it is about my bill"),
    ("a word as long as the limit", "incomprehensible", 6, "incomp"),
    ("a title", "It is about Dr. Smith and more", 25, "It is about Dr. Smith and"),
    ("a date", "Es geht um den 15. Mai und mehr", 22, "Es geht um den 15. Mai"),
    ("letters with dots", "I came at 5 p.m. and then left", 22, "I came at 5 p.m. and"),
    ("a quotation", 'She said "Come in!" and then left', 24, 'She said "Come in!"'),
    ("dots", "Well... I do not know what it is", 9, "Well..."),
]


@pytest.mark.parametrize(
    ("words", "limit", "left"), [pytest.param(*row[1:], id=row[0]) for row in SHORTENED]
)
def test_a_text_is_cut_at_a_sentence_or_at_a_word(words: str, limit: int, left: str) -> None:
    """Whole sentences, if they are at least half of what fits; else whole words."""
    assert shorten(words, limit) == left


def test_a_run_of_dots_is_read_once() -> None:
    """A hostile text without any word does not keep a thread busy."""
    began = time.thread_time()
    shorten("." * 10_000, 5_000)
    assert time.thread_time() - began < 0.2  # usually 0.01


# --- Showing ---

PHONES: Final = [
    # as people write them, and as the log has it
    ("+15550100021", "+15*******21"),
    ("+1 (555) 010-0021", "+15*******21"),
    ("+1.555.010.0021", "+15*******21"),
    ("+1\u2013555\u2013010\u20130021", "+15*******21"),
    ("+49 30/123456", "+49******56"),
    ("5550100021", "55******21"),
    ("5551234", "55***34"),
    ("555123", "******"),
    ("911", "***"),
    ("", ""),
    ("anonymous", "anonymous"),
    ("client:alice", "cl********ce"),
    ("sip:ann@x.example", "si************le"),
]


@pytest.mark.parametrize(("phone", "masked"), PHONES)
def test_a_number_is_masked_however_it_is_written(phone: str, masked: str) -> None:
    """Its owner would know it again by four digits; a short one is hidden whole."""
    assert mask_phone(phone) == masked


def shown_digits(text: str) -> int:
    """The number of digits of any script in a text."""
    return len(re.findall(r"\d", text))


WRITTEN: Final = st.text(st.sampled_from("+0123456789 ()-./\u2013"), max_size=30)


@TRIED
@given(phone=WRITTEN | TEXTS)
def test_a_masked_number_shows_four_digits_at_most(phone: str) -> None:
    """However it is written, at least three letters of it are hidden before any is shown."""
    masked = mask_phone(phone)
    assert shown_digits(masked) <= 4
    assert masked.count("*") >= 3 or shown_digits(masked) == 0


VALUES: Final = [
    ("+1 (555) 010-0099", "+# (###) ###-####"),
    ("555-0100", "###-####"),
    ("billing=+15550100001 cancel=5", "billing=+########### cancel=#"),
    ("Call us: 5 5 5 0 1", "Call us: # # # # #"),
    ("\uff15\uff15\uff15\u0660\u0661", "#####"),  # full-width and Arabic digits
    ("1.5", "1.5"),
    ("often", "often"),
    ("", ""),
]


@pytest.mark.parametrize(("value", "shown"), VALUES)
def test_a_setting_is_shown_without_the_digits_of_a_number(value: str, shown: str) -> None:
    """The signs between stay, so that the owner sees what is wrong with it."""
    assert without_digits(value) == shown


@TRIED
@given(before=TEXTS, phone=st.from_regex(r"\+?\d{5,15}", fullmatch=True), after=TEXTS)
def test_no_digit_of_a_number_is_shown(before: str, phone: str, after: str) -> None:
    """Whatever stands around it, the value keeps its length and loses every digit."""
    value = before + phone + after
    shown = without_digits(value)
    assert shown_digits(shown) == 0
    assert len(shown) == len(value)
