"""Polly's Neural voices by language, as Twilio lists them. A region without one has none.

Source: https://www.twilio.com/docs/voice/twiml/say/text-speech, "Available voices and languages",
and Amazon's https://docs.aws.amazon.com/polly/latest/dg/available-voices.html.
"""

from typing import Final

NEURAL: Final = {
    "en-US": "Danielle Gregory Ivy Joanna Joey Justin Kendra Kevin Kimberly Matthew Ruth Salli"
    " Stephen",
    "en-GB": "Amy Arthur Brian Emma",
    "en-IE": "Niamh",
    "en-AU": "Olivia",
    "en-NZ": "Aria",
    "en-IN": "Kajal",
    "en-ZA": "Ayanda",
    "de-DE": "Vicki Daniel",
    "de-AT": "Hannah",
    "es-US": "Lupe Pedro",
    "es-MX": "Mia Andres",
    "es-ES": "Lucia Sergio",
    "fr-FR": "Lea Remi",
    "fr-CA": "Gabrielle Liam",
    "fr-BE": "Isabelle",
    # Of languages that may come next.
    "it-IT": "Adriano Bianca",
    "pt-BR": "Camila Thiago Vitoria",
    "pt-PT": "Ines",
    "nl-NL": "Laura",
    "nl-BE": "Lisa",
    "pl-PL": "Ola",
    "da-DK": "Sofie",
    "nb-NO": "Ida",
    "fi-FI": "Suvi",
    "ca-ES": "Arlet",
    "ja-JP": "Kazuha Takumi Tomoko",
    "ko-KR": "Seoyeon",
}
NEIGHBOURS: Final = {"en": "en-US", "de": "de-DE", "es": "es-US", "fr": "fr-FR"}


def find_region(voice: str) -> str:
    """The region whose Neural voice this is; empty for any other voice."""
    name = voice.removeprefix("Polly.").removesuffix("-Neural")
    if voice != f"Polly.{name}-Neural":
        return ""
    return next((region for region, names in NEURAL.items() if name in names.split()), "")
