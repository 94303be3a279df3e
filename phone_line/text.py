"""Text that is safe to keep, to compare, to speak, and to show.

Whatever comes from outside (what a caller said, a caller's number, what a backend answers) goes
through here before it stands in a cell, in TwiML, on a page or in the log:

    clean_text    before it is kept: no unfit characters, bounded
    fold_words    before it is compared
    fit_say       before it is spoken: within both limits of one Say
    shorten       before it is read back: whole sentences, if they fit
    mask_phone    before a number is logged
    without_digits, show_part  before a setting is shown to anybody

A language model's words need more than that: `speakable.py`. Pure, and total: every text has an
answer, an empty one included.
"""

import re
import unicodedata
from typing import Final
from urllib.parse import quote

SPOKEN: Final = 1000  # characters kept of what a caller said: more than a minute of talking

# One Say holds 3000 characters with a voice of Polly, 4096 with a basic one, 5000 with one of
# Google, which counts the tags as well; and 4500 bytes when it is URL-encoded (error 13521,
# https://www.twilio.com/docs/api/errors/13521). SAID leaves room for tags around numbers.
SAID: Final = 2500
ENCODED: Final = 4500

# Each of these becomes a blank. XML forbids most control characters, U+FFFE and U+FFFF
# (https://www.w3.org/TR/xml/#charsets); those from 0x7F are allowed, and do nothing but harm. The
# two ranges from 0x202A turn the direction of all text behind them, on pages and in terminals.
CONTROLS: Final = (*range(0x20), *range(0x7F, 0xA0), 0xFFFE, 0xFFFF)
DIRECTIONS: Final = (*range(0x202A, 0x202F), *range(0x2066, 0x206A))
UNFIT: Final = dict.fromkeys(CONTROLS + DIRECTIONS, " ")

# A dot ends no sentence behind a single letter or digit ("p.m.", "5. Mai"), behind a number, or
# behind a title. It is no harm to miss an end: the text is then cut at the one before.
TITLES: Final = "".join(f"(?<!\\b{title})" for title in ("Dr", "Mr", "Ms", "St", "No", "Nr", "Mrs"))
SENTENCE_END: Final = (
    rf"(?<![.!?\u2026])(?:(?<!\b\w)(?<!\d){TITLES}\.+|[!?\u2026]+)[\"')\u201d\u00bb]*(?= )"
)
LOOSE_END: Final = " ,;:(-\u2013\u2014"  # what no text should end with when it is cut

SHORTEST_PHONE: Final = 5  # digits; with fewer it is an extension, an hour, or seconds
BETWEEN_DIGITS: Final = r"[\s()./\u2010-\u2015-]"  # +1 (555) 010-0099


def clean_text(words: str, limit: int = SPOKEN) -> str:
    """Clean words of what XML forbids, of spare blanks, and of what is more than `limit` letters.

    Cleaned again they stay as they are.
    """
    return cut_words(drop_unfit(words[: 4 * limit]), limit)


def fold_words(words: str) -> str:
    """Fold words for comparing: no case, full-width forms, punctuation or spare blanks."""
    plain = unicodedata.normalize("NFKC", words).casefold()
    return " ".join(re.findall(r"\w+", plain.replace("_", " ")))


def speak_name(name: str) -> str:
    """Write the name of a department as it is said: lost-and_found is lost and found."""
    return re.sub("[-_]", " ", name)


def open_end(words: str) -> str:
    """Words without the mark at their end, so that they can stand inside a sentence."""
    return words.rstrip(".!?… ")


def shorten(words: str, limit: int) -> str:
    """Shorten words to `limit` letters: whole sentences, or else whole words.

    Sentences that would fill less than half of the limit are not worth it: "Hello. I am calling
    because ..." is not cut to Hello.
    """
    whole = drop_unfit(words[: 4 * limit])
    if len(whole) <= limit:
        return whole
    ends = [found.end() for found in re.finditer(SENTENCE_END, whole[: limit + 1])]
    if ends and 2 * ends[-1] >= limit:
        return whole[: ends[-1]]
    return cut_words(whole, limit)


def fit_say(words: str) -> str:
    """Fit words into one Say: SAID letters, and ENCODED bytes when they are URL-encoded."""
    whole = shorten(drop_unfit(words), SAID)
    while 3 * len(whole.encode()) > ENCODED and len(quote(whole, safe="")) > ENCODED:
        nine_tenths = len(whole) * 9 // 10
        whole = shorten(whole, nine_tenths)
    return whole


def mask_phone(phone: str) -> str:
    """Mask a phone number: its owner would know it again, and nobody else: +15*******21.

    However it is written, no more than four of its digits are shown, and none if only two or
    fewer would be hidden. SIP addresses and names of clients are masked alike; a bare word, like
    "anonymous", is neither.
    """
    plain = re.sub(BETWEEN_DIGITS, "", phone)
    if plain.isalpha():
        return plain
    first = plain[:3] if plain.startswith("+") else plain[:2]
    last = plain[-2:]
    hidden = len(plain) - len(first + last)
    if hidden < 3:
        return "*" * len(plain)
    return first + "*" * hidden + last


def without_digits(value: str) -> str:
    """Write a setting's value as anybody may see it: a # for each digit of a phone number.

    The signs between stay, so that an owner sees what is wrong: `+# (###) ###-####`. A value with
    fewer than five digits holds no phone number and stays as it is: `1.5`.
    """
    digits = sum(map(str.isnumeric, value))
    if digits < SHORTEST_PHONE:
        return value
    return "".join("#" if letter.isnumeric() else letter for letter in value)


def show_part(value: str) -> str:
    """Quote a part of a setting's value for a sentence, in case it is long."""
    return repr(value[:40])


def drop_unfit(words: str) -> str:
    """Drop what is unfit for XML and JSON, halves of characters, and spare blanks."""
    if words.isascii() and words.isprintable():
        return " ".join(words.split())
    fit = words.translate(UNFIT)
    whole = fit.encode("utf-8", "ignore").decode()  # half of a character cannot be encoded
    return " ".join(whole.split())


def cut_words(whole: str, limit: int) -> str:
    """Cut words at a blank, or within a word that alone is longer than `limit` letters."""
    if len(whole) <= limit:
        return whole
    whole_words = whole[: limit + 1].rsplit(" ", 1)[0]
    return whole_words[:limit].rstrip(LOOSE_END)
