"""The text of a language model, made fit to be spoken.

A model is told to answer as one does on the telephone, and forgets it: it sends Markdown, lists,
links, code, emoji, HTML, or what it thought before it answered. A voice would read all of that
aloud ("asterisk asterisk"). Here it becomes plain sentences:

    **Yes!** See [our menu](https://pizza.example/menu):    Yes! See our menu: Margherita. Marinara.
    - Margherita 🍕
    - Marinara

Words stay, and their order. What goes is what only an eye can use. Every text has an answer, an
empty one if nothing in it can be said; made speakable again it stays as it is.
"""

import re
import unicodedata
from html import unescape
from typing import Final

from phone_line.text import SAID, fit_say, shorten

PASSES: Final = 8  # markup in markup in markup; nobody but a prankster needs more than two

# Patterns and what stands in their place, from the first to the last. None may try a long run of
# letters anew from each of them, or a hostile answer keeps a thread busy: the tests time that.
BLOCKS: Final = (
    (r"\\n", "\n"),  # escaped twice
    (r"\\", ""),
    (r"[ \t]+", " "),
    (r"(?is)<(script|style)\b.*?(?:</\1\s*>|\Z)", "\n"),
    (r"(?s)<!--.*?(?:-->|\Z)", " "),
    (r"(?i)</?(?:p|br|li|[uo]l|div|h[1-6]|tr|table|blockquote|hr)\b[^<>]*>", "\n\n"),
    (r"</?[A-Za-z][\w:-]*(?:\s[^<>]*)?/?>", ""),
    (r"(?m)^ ?\[[^\[\]\n]+\]: ?\S.*$", ""),  # [1]: https://... at the end
    (r"(?m)^[ :|+]*[-=]{2}[-=:|+ ]*$", ""),  # rules, and the head of a table
    (r"(?m)^ ?\|", "\n"),
    (r"(?m)\| ?$", ""),
    (r" ?\| ?", ", "),
    (r"(?m)^( ?\d{1,2})\)", r"\1."),
)
INLINE: Final = (
    (r"!?\[([^\[\]]*)\]\((?:[^()]|\([^()]*\))*\)", r"\1"),  # [words](address)
    (r"!?\[([^\[\]]*)\]\[[^\[\]]*\]", r"\1"),  # [words][1]
    (r"\[\^?\d{0,3}\]|\[[ xX]\]|【[^【】]*】", ""),  # footnotes, boxes to tick, sources
    (r"[\[\]{}]", " "),
    (r"`+|\*{2,}|~{2,}", ""),
    (r"_{2,}", " "),
    (r"(?<![\w*_])([*_])(?=\S)([^*_\n]+)(?<=\S)\1(?![\w*_])", r"\2"),  # *so*, but not "press *"
    (r"(?<!\w)[*_](?=[^\W\d_])|(?<=[^\W\d_])[*_](?!\w)", ""),  # one whose other half is missing
    (r"[-=]>|[\u2190-\u21ff]", ", "),  # arrows
    (r"<(?=[A-Za-z/!?])|(?<=\w)>(?!\w)", " "),  # what is left of <ann@example.com>
)
SPACING: Final = ((r" +(?=[.,;:!?\u2026](?:\s|$))", ""), (r"^[\s,;:]+", ""))

FENCED: Final = r"(?ms)^[ \t]*(?:```|~~~)[^`\n]*\n.*?(?:```|~~~|\Z)"
FENCE: Final = r"(?m)^[ \t]*(?:```|~~~)[^`\n]*$"
URL: Final = (
    r"(?i)(?:https?://(?:[^\s/@]{1,64}@)?|(?<![\w.])www\.)(?:www\.)*([\w.-]*)[^\s<>()\[\]\"']*"
)
MARKER: Final = r"(?:(?:[-*+\u2022\u00b7\u2013\u2014]|>+|#{1,6})(?:\s+|$))+"
CLOSERS: Final = "\"')]\u201d\u00bb\u2019"
ENDS: Final = ".!?\u2026:;,\u3002\uff01\uff1f"

SYMBOLS: Final = "\u00b0\u2116"  # degrees and the number sign have words in every voice
MUTE: Final = {"Cc", "Cn", "Co", "Cs", "So", "Sk"}  # categories of Unicode: emoji are So and Sk
JOINERS: Final = "\ufe0e\ufe0f\u20e3"  # what makes an emoji of the letter before


def make_speakable(text: str, limit: int = SAID) -> str:
    """Make a model's words speakable: plain sentences, no more than `limit` letters of them.

    They also fit into one Say (see `fit_say`). A longer answer is cut at the end of a sentence.
    """
    plain = drop_thoughts(text)[: 4 * limit]
    for _ in range(PASSES):
        before = plain
        sentences = join_lines(strip_markup(before))
        plain = fit_say(shorten(sentences, limit))
        if plain == before:
            break
    return plain


def drop_thoughts(text: str) -> str:
    """Drop what a reasoning model thought before it answered: <think>...</think>."""
    answer = re.split("(?i)</think(?:ing)?>", text)[-1]
    return re.split("(?i)<think(?:ing)?>", answer)[0]


def strip_markup(text: str) -> str:
    """Strip one layer of HTML, Markdown, links and symbols; the lines stay."""
    plain = drop_code(unescape(text))
    for pattern, replacement in BLOCKS:
        plain = re.sub(pattern, replacement, plain)
    for pattern, replacement in INLINE:
        plain = re.sub(pattern, replacement, plain)
    plain = re.sub(URL, speak_host, plain)
    return "".join(map(speak_letter, plain))


def drop_code(text: str) -> str:
    """Drop blocks of code; but if that leaves nothing, the block is the answer."""
    without = re.sub(FENCED, "\n", text)
    if without.strip():
        return without
    return re.sub(FENCE, "", text)


def speak_host(url: re.Match[str]) -> str:
    """Write an address as one says it: pizza.example, without the rest."""
    host = url[1].strip(".-")
    behind = url[0][len(url[0].rstrip(ENDS)) :]  # the end of the sentence, not of the address
    return host + behind


def speak_letter(letter: str) -> str:
    """Keep a letter that has a sound, and the line breaks; others are a blank, or nothing."""
    if letter == "\n" or letter in SYMBOLS:
        return letter
    category = unicodedata.category(letter)
    if category == "Cf" or letter in JOINERS:
        return ""  # they only join letters, or turn their direction
    return " " if category in MUTE else letter


def join_lines(text: str) -> str:
    """Join lines to sentences: before each new line there is a dot, for a pause.

    A line that begins with a small letter goes on with the one before, unless it is a list item.
    """
    sentences: list[str] = []
    for line in text.split("\n"):
        bare = " ".join(line.split())
        words = re.sub(f"^{MARKER}", "", bare)
        if not words:
            continue
        if sentences and (words != bare or not words[0].islower()):
            sentences[-1] = end_sentence(sentences[-1])
        sentences.append(words)
    joined = " ".join(sentences)
    for pattern, replacement in SPACING:
        joined = re.sub(pattern, replacement, joined)
    return joined


def end_sentence(words: str) -> str:
    """End words with a dot, if nothing else ends them: a voice pauses there."""
    last = words.rstrip(CLOSERS)[-1:]
    return words if last in ENDS else f"{words}."
