"""The rules for tags inside Say, as `judge` in twiml.py applies them: which voice takes which.

Twilio passes SSML on to the provider of the voice. "Use of SSML tags that a provider or voice
doesn't support may result in error and Say instruction failure"; basic voices take none
(https://www.twilio.com/docs/voice/twiml/say/text-speech, "SSML"). For Polly's voices the tags and
values are Amazon's (https://docs.aws.amazon.com/polly/latest/dg/supportedtags.html and
say-as-tag.html). What Google's voices take is not written down here, but that they take a tag.
"""

import re
from collections.abc import Iterator
from typing import Final
from xml.etree.ElementTree import Element

TAGS: Final = frozenset(
    {"break", "emphasis", "lang", "p", "phoneme", "prosody", "s", "say-as", "sub", "w"}
)
NOT_NEURAL: Final = frozenset({"emphasis"})  # of Polly: neither Neural nor Generative takes it
SPELLED: Final = ("characters", "spell-out")  # Neural voices fall back to a standard one for it
MEANINGS: Final = frozenset(
    {*SPELLED, "cardinal", "number", "ordinal", "digits", "fraction", "unit", "date", "time"}
    | {"address", "expletive", "telephone"}
)
DURATION: Final = r"\d+'(\d+\")?|\d+\""  # "time" is minutes and seconds: 1'21"
# Polly's voices by language, as Twilio lists them, where Amazon lists no "telephone".
NO_PHONES: Final = {
    "en-IE": "Niamh",
    "en-NZ": "Aria",
    "en-ZA": "Ayanda",
    "de-AT": "Hannah",
    "fr-BE": "Isabelle",
    "nl": "Laura Lisa Lotte Ruben",
    "da-DK": "Mads Naja Sofie",
    "nb-NO": "Ida Liv",
    "pl-PL": "Ewa Jacek Jan Maja Ola",
    "ko-KR": "Seoyeon",
}


def judge_tags(say: Element) -> Iterator[str]:
    """What is wrong with the tags inside a Say, in plain words."""
    voice = say.get("voice", "")
    for tag in say.iter():
        if tag is say:
            continue
        if "." not in voice:
            yield f"<{tag.tag}> inside <Say>: the basic voice {voice!r} takes no SSML"
        elif tag.tag in NOT_NEURAL and voice.endswith(("-Neural", "-Generative")):
            yield f"<{tag.tag}>: {voice} does not take it"
        elif tag.tag == "say-as":
            yield from judge_say_as(tag, voice)


def judge_say_as(tag: Element, voice: str) -> Iterator[str]:
    """What is wrong with one say-as; a voice of Google's may take other values than Polly's."""
    meaning = tag.get("interpret-as", "")
    text = "".join(tag.itertext())
    if len(tag) or not text.strip():
        yield "<say-as> holds words, and nothing but words"
    if set(tag.attrib) - {"interpret-as", "format"}:
        yield f"<say-as> has no such attributes: {', '.join(tag.attrib)}"
    if not voice.startswith("Polly."):
        return
    if meaning not in MEANINGS:
        yield f"<say-as interpret-as={meaning!r}> means nothing to Polly"
    if meaning == "telephone" and not knows_phones(voice):
        yield f"<say-as interpret-as='telephone'>: Amazon does not list it for {voice}"
    if meaning == "telephone" and not 7 <= sum(map(str.isdigit, text)) <= 15:
        yield f"<say-as interpret-as='telephone'>: {text!r} is no telephone number"
    if meaning == "time" and not re.fullmatch(DURATION, text):
        yield f"<say-as interpret-as='time'>: Polly reads {text!r} as minutes and seconds"


def knows_phones(voice: str) -> bool:
    """Tell whether the language of a voice of Polly's is one that has telephone numbers."""
    name = voice.removeprefix("Polly.").partition("-")[0]
    return name not in " ".join(NO_PHONES.values()).split()
