"""Which speech model Twilio listens with: by language, and by the kind of question.

A model that does not know the language makes the whole gather fail (error 13331), so no such pair
is ever sent. The tables are those of https://www.twilio.com/docs/voice/twiml/gather, "speechModel".
"""

from typing import Final

PHONE_CALL: Final = "phone_call"
SHORT_ANSWERS: Final = "experimental_utterances"  # menus, yes or no
OPEN_ANSWERS: Final = "experimental_conversations"

EXPERIMENTAL: Final = """
    ar da-DK de-DE en-AU en-GB en-IN en-US es-ES es-US fi-FI fr-CA fr-FR hi-IN ja-JP ko-KR mk-MK
    nl-NL no-NO pl-PL pt-BR pt-PT ro-RO ru-RU th-TH tr-TR uk-UA vi-VN
"""  # ar: in every country
LISTED: Final = "en-US en-GB en-AU fr-FR fr-CA ja-JP ru-RU es-US es-ES pt-BR"
MODELS: Final = {
    PHONE_CALL: LISTED.split(),
    SHORT_ANSWERS: EXPERIMENTAL.split(),
    OPEN_ANSWERS: EXPERIMENTAL.split(),
}

# Where Twilio names no model for a language it takes one that knows "any language of Google's list"
# (https://cloud.google.com/speech-to-text/docs/speech-to-text-supported-languages): de-AT and de-CH
# are in it. These are the countries there of the languages that we ship.
COUNTRIES: Final = {
    "en": "AU CA GB GH HK IE IN KE NG NZ PH PK SG TZ US ZA",
    "de": "AT CH DE",
    "es": "AR BO CL CO CR DO EC ES GT HN MX NI PA PE PR PY SV US UY VE",
    "fr": "BE CA CH FR",
}


def find_stranger(language: str) -> str:
    """Say what is wrong with a language and country that no model knows: en-UK; else nothing."""
    name, _, country = language.partition("-")
    known = COUNTRIES.get(name, country).split()
    if country in known:
        return ""
    return f"speech recognition knows no {language}; expected one of {name}-{', '.join(known)}"


def knows_language(model: str, language: str) -> bool:
    """Tell whether a model may be sent with a language. One that is not in the table may."""
    listed = MODELS.get(model)
    if listed is None:
        return True  # of another provider, whose list Twilio does not repeat
    return language in listed or language.partition("-")[0] in listed


def choose_model(language: str, *, short: bool) -> str:
    """The model for a language and a question; none where Twilio lists none: its own default."""
    for model in (PHONE_CALL, SHORT_ANSWERS if short else OPEN_ANSWERS):
        if knows_language(model, language):
            return model
    return ""
