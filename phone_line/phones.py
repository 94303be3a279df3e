"""Telephone numbers inside sentences, which a voice should read digit by digit.

Without a hint a voice reads 4155551212 as four billion. TwiML's hint is a tag around the number,
`<say-as interpret-as="telephone">` (https://www.twilio.com/docs/voice/twiml/say/text-speech,
"Read a phone number"). A tag that a voice does not know may make the whole Say fail, and basic
voices know none, so it goes to the voices of Polly in the languages that Amazon lists for it
(https://docs.aws.amazon.com/polly/latest/dg/say-as-tag.html, "telephone"). Any other voice gets the
plain sentence.

A number is what people write as one, since our sentences, a backend and a caller's quoted words
all come through here:

    +15550100099   +49 (0)30 123 456     international
    (555) 010-0099   1-800-555-0199      North America
    030 1234567   01 23 45 67 89         with a leading zero: most of Europe
    915 55 01 99   55 1234 5678          Spain, Mexico

Prices, years, dates, times and order numbers stay as they are, and so do bare digits: nobody knows
what 4155551212 counts. Times get no tag: for Polly `interpret-as="time"` is a duration, minutes and
seconds (say-as-tag.html, as above), so 17:30 is left to the voice, which goes by how it is written.

Only TwiML has the tags. Records, pages and the log keep the words.
"""

import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import quote

from phone_line.text import ENCODED

# The voices of Polly that Twilio lists (text-speech, "Available voices and languages"), in the
# languages that Amazon lists for telephone numbers: de-AT, en-IE, en-NZ, en-ZA, fr-BE are not.
POLLY: Final = {
    "en-US": "Danielle Gregory Ivy Joanna Joey Justin Kendra Kevin Kimberly Matthew Ruth Salli"
    " Stephen",
    "en-GB": "Amy Arthur Brian Emma Geraint",
    "en-AU": "Nicole Olivia Russell",
    "en-IN": "Aditi Kajal Raveena",
    "de-DE": "Daniel Hans Marlene Vicki",
    "es-US": "Lupe Miguel Pedro Penelope",
    "es-MX": "Andres Mia",
    "es-ES": "Conchita Enrique Lucia Sergio",
    "fr-FR": "Celine Lea Mathieu Remi",
    "fr-CA": "Chantal Gabrielle Liam",
    "it-IT": "Adriano Bianca Carla Giorgio",
    "pt-BR": "Camila Ricardo Thiago Vitoria",
    "pt-PT": "Cristiano Ines",
    "ja-JP": "Kazuha Mizuki Takumi Tomoko",
    "ru-RU": "Maxim Tatyana",
}
KNOWING: Final = frozenset(" ".join(POLLY.values()).split())
KINDS: Final = ("", "Neural", "Generative")

BETWEEN: Final = r"[ ./\u2010-\u2013-]"
SHAPES: Final = (
    r"\+[1-9]\d{6,14}",
    rf"\+[1-9](?:(?:{BETWEEN}|[()]){{0,2}}\d){{7,14}}",
    rf"(?:1{BETWEEN})?(?:\([2-9]\d\d\) ?|[2-9]\d\d{BETWEEN})\d{{3}}{BETWEEN}\d{{4}}",
    rf"(?=(?:(?:{BETWEEN}|[()]){{0,3}}\d){{9,15}})"
    rf"(?:0\d{{1,4}}|\(0\d{{1,4}}\))(?: ?{BETWEEN} ?\d{{2,9}}){{1,5}}",
    r"[6-9]\d\d \d\d \d\d \d\d|[6-9]\d \d{3} \d\d \d\d|[67]\d\d \d{3} \d{3}",
    r"[2-9]\d \d{4} \d{4}",
)
DATE: Final = r"(?!\d{1,2}([ ./-])\d{1,2}\1\d{4})"
MONEY: Final = r" ?(?:[$\u20ac\u00a3%]|euros?\b|dollars?\b|d\u00f3lares\b|francs?\b|pesos\b)"
PHONE: Final = (
    rf"(?ai)(?<![\w+$\u20ac\u00a3#.,:/-]){DATE}(?:{'|'.join(SHAPES)})(?!\w|[.,:/-]\d|{MONEY})"
)
FEWEST: Final = 7  # digits; of fewer a voice makes no telephone number
TAG: Final = len(quote('<say-as interpret-as="telephone"></say-as>', safe=""))


def split_phones(words: str, voice: str) -> Iterator[tuple[str, bool]]:
    """The parts of a sentence in order, and which of them are telephone numbers for this voice.

    Joined, the parts are the sentence. Where the tags would make it outgrow one Say, the last
    numbers stay plain; see `fit_say`.
    """
    said = 0
    for start, end in find_phones(words) if knows_phones(voice) else ():
        if start > said:
            yield words[said:start], False
        yield words[start:end], True
        said = end
    if said < len(words):
        yield words[said:], False


def find_phones(words: str) -> list[tuple[int, int]]:
    """Where the telephone numbers of a sentence begin and end: as many as may be tagged."""
    if count_digits(words) < FEWEST:
        return []  # as nearly every sentence; the pattern is compiled when it is needed
    spans = [
        found.span() for found in re.finditer(PHONE, words) if count_digits(found[0]) >= FEWEST
    ]
    room = ENCODED - len(quote(words, safe=""))
    return spans[: max(0, room // TAG)]


def count_digits(text: str) -> int:
    """The number of digits in a text."""
    return sum(map(str.isdigit, text))


def knows_phones(voice: str) -> bool:
    """Tell whether a voice takes the tag for telephone numbers: `Polly.Joanna-Neural` does."""
    name, _, kind = voice.removeprefix("Polly.").partition("-")
    return voice.startswith("Polly.") and name in KNOWING and kind in KINDS
