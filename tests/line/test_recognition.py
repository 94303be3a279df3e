"""The speech model fits the language, or Twilio would let the gather fail (error 13331)."""

import re

import pytest

from phone_line.conversation import decide
from phone_line.flow import Offer
from phone_line.line import build_plan
from phone_line.recognition import choose_model, knows_language
from phone_line.records import Call, Heard
from phone_line.settings import read_settings
from phone_line.twiml import render_reply
from standins.lines import FORWARD, HOOK, line_of

MENU = {"DEPARTMENTS": "billing=+15550100001"} | FORWARD


def model_of(**env: str) -> str | None:
    """The speechModel of the first question of a line."""
    line = line_of(env)
    call, reply = decide(line.plan, Call(), Heard())
    twiml = render_reply(line.settings, line.plan, HOOK, call, reply)
    found = re.search('speechModel="([^"]*)"', twiml)
    return found[1] if found else None


@pytest.mark.parametrize(
    ("language", "menu", "question"),
    [
        ("en-US", "phone_call", "phone_call"),
        ("en-GB", "phone_call", "phone_call"),
        ("es-US", "phone_call", "phone_call"),
        ("fr-CA", "phone_call", "phone_call"),
        ("de-DE", "experimental_utterances", "experimental_conversations"),
        ("en-IN", "experimental_utterances", "experimental_conversations"),
        ("en-CA", None, None),
        ("de-AT", None, None),
        ("de-CH", None, None),
        ("es-MX", None, None),
    ],
)
def test_the_model_is_one_that_knows_the_language(
    language: str, menu: str | None, question: str | None
) -> None:
    """By language, and for menus and open questions apart; none where Twilio lists none."""
    assert model_of(LANGUAGE=language, **MENU) == menu
    assert model_of(LANGUAGE=language, **FORWARD) == question


def test_a_model_for_every_arabic_country_is_known() -> None:
    """Twilio lists ar-*: any country of that language."""
    assert knows_language("experimental_utterances", "ar-AE")
    assert choose_model("ar-EG", short=False) == "experimental_conversations"


@pytest.mark.parametrize(
    ("model", "language"), [("phone_call", "de-DE"), ("experimental_utterances", "en-CA")]
)
def test_a_pair_that_does_not_fit_is_a_problem(model: str, language: str) -> None:
    """Set by hand, it is told at deploy time, and not by a caller whose words go nowhere."""
    env = {"TWILIO_AUTH_TOKEN": "t", "SPEECH_MODEL": model, "LANGUAGE": language}
    settings = read_settings(env)
    _, faults = build_plan(settings)
    assert any(model in fault and language in fault for fault in faults)


@pytest.mark.parametrize("model", ["deepgram_nova-3", "googlev2_telephony", "default"])
def test_a_model_of_another_provider_is_the_owners_choice(model: str) -> None:
    """Twilio repeats no list of their languages, so it is passed on."""
    assert model_of(SPEECH_MODEL=model, LANGUAGE="de-DE", **FORWARD) == model


def test_auto_drops_the_model() -> None:
    """Twilio forbids the pair (13335)."""
    assert model_of(SPEECH_TIMEOUT="auto", **FORWARD) is None


def test_the_offer_of_languages_is_listened_to_in_the_first() -> None:
    """A short answer in the line's first language, by a model that knows it."""
    line = line_of({"LANGUAGE": "de-DE en-US", **FORWARD})
    call, reply = decide(line.plan, Call(), Heard(entrance="language"))
    twiml = render_reply(line.settings, line.plan, HOOK, call, reply)
    assert isinstance(reply.step, Offer)
    assert 'language="de-DE"' in twiml
    assert 'speechModel="experimental_utterances"' in twiml
