"""Which voice speaks and which model listens, for every language and country that can be set.

What the defaults produce is held against Twilio's tables, as the judge and the stand-ins have them:
a voice of another language, and a model that does not know it, would be silence to a caller.
"""

from typing import Final
from xml.etree import ElementTree

import pytest

from phone_line.conversation import decide
from phone_line.line import build_plan
from phone_line.recognition import COUNTRIES, find_stranger
from phone_line.records import Call, Heard
from phone_line.settings import read_settings
from phone_line.twiml import render_reply
from phone_line.words import languages
from standins.lines import BACKEND, FORWARD, HOOK, MENU, at, line_of, said
from standins.rows import mostly_long
from standins.twiml import judge
from standins.twiml_tables import KNOWN_BY
from standins.voices import NEIGHBOURS, NEURAL, find_region

TAGS: Final = [
    f"{name}-{country}" for name, found in COUNTRIES.items() for country in found.split()
]

USUAL: Final = ("en-US", "de-DE", "es-US", "fr-FR")

CHOSEN: Final = [
    # the language, its voice, the model for short answers, the one for open questions
    ("en-US", "Joanna", "phone_call", "phone_call"),
    ("en-GB", "Amy", "phone_call", "phone_call"),
    ("en-AU", "Olivia", "phone_call", "phone_call"),
    ("en-IN", "Kajal", "experimental_utterances", "experimental_conversations"),
    ("en-IE", "Niamh", None, None),
    ("en-CA", "Joanna", None, None),
    ("de-DE", "Vicki", "experimental_utterances", "experimental_conversations"),
    ("de-AT", "Hannah", None, None),
    ("de-CH", "Vicki", None, None),
    ("es-US", "Lupe", "phone_call", "phone_call"),
    ("es-ES", "Lucia", "phone_call", "phone_call"),
    ("es-MX", "Mia", None, None),
    ("es-AR", "Lupe", None, None),
    ("fr-FR", "Lea", "phone_call", "phone_call"),
    ("fr-CA", "Gabrielle", "phone_call", "phone_call"),
    ("fr-BE", "Isabelle", None, None),
    ("fr-CH", "Lea", None, None),
]


def document(call: Call, heard: Heard, **env: str) -> ElementTree.Element:
    """What a line says, which has passed the judge."""
    line = line_of(env)
    after, reply = decide(line.plan, call, heard)
    twiml = render_reply(line.settings, line.plan, HOOK, after, reply)
    assert judge(twiml, "/") == []
    return ElementTree.fromstring(twiml)  # noqa: S314 # our own


def listened(call: Call, heard: Heard, **env: str) -> tuple[str, str | None]:
    """The language in which a line listens, and the model."""
    (gather,) = document(call, heard, **env).iter("Gather")
    return gather.attrib["language"], gather.get("speechModel")


@pytest.mark.parametrize(("tag", "voice", "short", "open_"), CHOSEN)
def test_a_region_has_its_voice_and_its_model(
    tag: str, voice: str, short: str | None, open_: str | None
) -> None:
    """By region where Twilio has one; Swiss German, say, is spoken by the German voice."""
    spoken = {each.attrib["voice"] for each in document(Call(), said(""), LANGUAGE=tag).iter("Say")}
    assert spoken == {f"Polly.{voice}-Neural"}
    assert listened(Call(), said(""), LANGUAGE=tag, **MENU) == (tag, short)
    assert listened(Call(), said(""), LANGUAGE=tag, **FORWARD) == (tag, open_)


@pytest.mark.parametrize("tag", mostly_long({tag: tag for tag in TAGS}, *USUAL))
def test_whatever_the_defaults_produce_is_in_twilios_tables(tag: str) -> None:
    """A Neural voice of the region or its neighbour; a model that knows the language, or none."""
    language = tag.partition("-")[0]
    region = tag if tag in NEURAL else NEIGHBOURS[language]
    other = "fr-CA" if tag != "fr-CA" else "fr-FR"
    first = at("menu")
    calls: list[tuple[Call, Heard, dict[str, str]]] = [
        (Call(), said(""), MENU),  # a menu
        (first, said("nonsense"), MENU),  # once more
        (first, said("billing", 0.1), MENU),  # "did you say"
        (Call(), said(""), FORWARD),  # an open question
        (Call(), said(""), BACKEND | FORWARD),  # the backend's
        (Call(), said(""), {**FORWARD, "SPEECH_TIMEOUT": "auto"}),
        (Call(), Heard(entrance="language"), {**FORWARD, "LANGUAGE": f"{tag} {other}"}),
    ]
    for call, heard, env in calls:
        found = document(call, heard, **{"LANGUAGE": tag, **env})
        for gather in found.iter("Gather"):
            model = gather.get("speechModel")
            assert gather.attrib["language"] == tag
            assert model is None or tag in KNOWN_BY[model]
        voices = [each.attrib["voice"] for each in found.iter("Say")]
        assert voices
        assert find_region(voices[0]) == region
        assert {*map(find_region, voices[1:])} <= {region, other}


@pytest.mark.parametrize("tag", mostly_long({tag: tag for tag in TAGS}, *USUAL))
def test_the_second_language_of_a_call_is_served_like_the_first(tag: str) -> None:
    """Chosen by key, it has the voice and the model that it would have alone."""
    first = "fr-CA" if tag != "fr-CA" else "en-US"
    call = Call(turn=1, step="language")
    chosen = document(call, Heard(keys="2"), LANGUAGE=f"{first} {tag}", **MENU)
    alone = document(Call(), said(""), LANGUAGE=tag, **MENU)
    for name in ("voice", "language", "speechModel", "hints"):
        one, other = ([each.get(name) for each in found.iter()] for found in (alone, chosen))
        assert one == other


def test_every_language_that_we_ship_has_its_countries() -> None:
    """Its voices are of countries that are listened to."""
    assert COUNTRIES.keys() == NEIGHBOURS.keys()
    assert COUNTRIES.keys() <= {*languages()}
    ours = {region for region in NEURAL if region.partition("-")[0] in COUNTRIES}
    assert ours <= {*TAGS}
    assert [tag for tag in TAGS if find_stranger(tag)] == []


@pytest.mark.parametrize("tag", ["en-UK", "en-EN", "de-US", "es-LA", "fr-US"])
def test_a_country_that_no_model_knows_is_named_at_deploy_time(tag: str) -> None:
    """Every gather would fail, and no caller be understood."""
    env = {"TWILIO_AUTH_TOKEN": "t", "LANGUAGE": f"en-US {tag}"}
    for more in ({}, {"SPEECH_MODEL": "default"}, {"SPEECH_TIMEOUT": "auto"}):
        _, faults = build_plan(read_settings(env | more))
        [fault] = [each for each in faults if tag in each]
        assert fault.startswith(f"LANGUAGE: speech recognition knows no {tag}; expected one of ")
    other = {**env, "SPEECH_MODEL": "deepgram_nova-3"}
    assert [each for each in build_plan(read_settings(other))[1] if tag in each] == []


def test_a_language_that_somebody_adds_needs_no_row() -> None:
    """Whoever adds Italian touches no code."""
    assert find_stranger("it-IT") == ""
