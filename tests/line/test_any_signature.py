"""A signature is for one URL and one form, whichever they are."""

import string
from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl, urlencode

from flask import Request
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from twilio.request_validator import RequestValidator
from werkzeug.datastructures import MultiDict
from werkzeug.exceptions import Forbidden

from phone_line.settings import read_settings
from phone_line.webhook import FIELD_NAME, read_form, verify_request
from standins.examples import STEADY, as_many
from standins.inside import FORM, ORIGIN, TOKEN, environ
from standins.webhooks import Fields, sign

TEXT: Final = st.text(max_size=60) | st.sampled_from(
    ["", "yes", "no", "billing", "operator", "repeat", "one", "FORWARD_TO", "{heard}", "</Say>"]
)


URL_LETTERS: Final = string.ascii_letters + string.digits + "-._~%&=/?+"
TARGETS: Final = st.text(URL_LETTERS, max_size=30).map("/voice".__add__)
FIELD_NAMES: Final = st.builds(str.__add__, st.sampled_from("ABcd"), st.text("ABcd12", max_size=4))
NAMED: Final = st.dictionaries(FIELD_NAMES, st.text(max_size=8), max_size=6)


def verified(target: str, form: Mapping[str, str] | Fields, signature: str) -> bool:
    """Tells if the line believes that Twilio sent this."""
    fields = [*form.items()] if isinstance(form, Mapping) else form
    body = urlencode(fields).encode()
    headers = {"Content-Type": FORM, "X-Twilio-Signature": signature}
    request = Request(environ("POST", target, body, headers))
    known = read_settings({"TWILIO_AUTH_TOKEN": f"other,{TOKEN}", "PUBLIC_URL": ORIGIN})
    try:
        return verify_request(known, request) == (ORIGIN, dict(reversed(fields)))
    except Forbidden:
        return False


@settings(STEADY, max_examples=as_many(250))
@given(target=TARGETS, form=st.lists(st.tuples(st.text("ABcd12", max_size=3), TEXT), max_size=8))
def test_a_signature_is_the_one_that_twilios_library_makes(
    target: str, form: list[tuple[str, str]]
) -> None:
    """Blank and repeated fields are signed as Twilio's own library does, for any URL."""
    # A form with a name that no field of Twilio's has is refused all the same.
    known = RequestValidator(TOKEN).compute_signature(ORIGIN + target, MultiDict(form))
    assert sign(TOKEN, ORIGIN + target, form) == known
    assert verified(target, form, known) == all(name[:1].isalpha() for name, _ in form)


def altered(text: str, at: int, letter: str) -> str:
    """The text with another letter at one place."""
    place = at % len(text)
    return text[:place] + letter + text[place + 1 :]


@settings(STEADY, max_examples=as_many(250))
@given(target=TARGETS, form=NAMED, at=st.integers(0), letter=st.sampled_from(URL_LETTERS))
def test_a_signature_is_for_one_url(
    target: str, form: dict[str, str], at: int, letter: str
) -> None:
    """What Twilio signed is believed; with any one letter of its URL changed it is not."""
    signature = sign(TOKEN, ORIGIN + target, list(form.items()))
    assert verified(target, form, signature)
    other = target[0] + altered(target[1:], at, letter)
    assert verified(other, form, signature) == (other == target)


@settings(STEADY, max_examples=as_many(250))
@given(form=NAMED, which=st.integers(0), at=st.integers(0), letter=st.characters(codec="utf-8"))
def test_a_signature_is_for_one_form(
    form: dict[str, str], which: int, at: int, letter: str
) -> None:
    """With any one letter of any field's value changed, or one more, a webhook is nobody's."""
    signature = sign(TOKEN, ORIGIN + "/voice", list(form.items()))
    assert verified("/voice", form, signature)
    assume(form)
    name = sorted(form)[which % len(form)]
    value = form[name]
    longer = form | {name: value + letter}
    assert not verified("/voice", longer, signature)
    assume(value and altered(value, at, letter) != value)
    assert not verified("/voice", form | {name: altered(value, at, letter)}, signature)


@settings(STEADY, max_examples=as_many(250))
@given(form=NAMED, at=st.integers(0), letter=st.characters(codec="latin-1"), cut=st.integers(0))
def test_a_signature_counts_whole(form: dict[str, str], at: int, letter: str, cut: int) -> None:
    """A signature with one letter changed, or a part of one, is none."""
    signature = sign(TOKEN, ORIGIN + "/voice", list(form.items()))
    assert not verified("/voice", form, signature[: cut % len(signature)])
    assert not verified("/voice", form, signature + letter)
    other = altered(signature, at, letter)
    assert verified("/voice", form, other) == (other == signature)


@settings(STEADY, max_examples=as_many(400))
@given(
    body=st.lists(st.sampled_from([*"aB=&+%;", "%41", "%C3%A4", "%ff", "%2", "ä", "X="])).map(
        "".join
    )
)
def test_a_form_is_read_as_the_standard_library_reads_it(body: str) -> None:
    """Whatever is encoded in it, or left out of it."""
    expected: dict[str, list[str]] = {}
    for name, value in parse_qsl("A=1&" + body, keep_blank_values=True):
        expected.setdefault(name, []).append(value)
    is_twilios = all(map(FIELD_NAME.fullmatch, expected))
    assert read_form("A=1&" + body) == (expected if is_twilios else None)
