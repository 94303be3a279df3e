"""A language model's words, made fit to be spoken: nothing that only an eye can use is read aloud.

A table has what models send, by hand. Properties hold for arbitrary texts of markup, and a hostile
answer is timed, because the thread that reads it has a caller waiting.
"""

import time
from html import escape
from typing import Final
from urllib.parse import quote
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phone_line.speakable import make_speakable
from phone_line.text import ENCODED, SAID
from standins.examples import STEADY, as_many
from standins.rows import first_quick

SPEAKABLE: Final = [
    # the situation, what the model sent, what the caller hears
    ("plain words", "We open at nine. Can I help?", "We open at nine. Can I help?"),
    ("nothing", " \n ", ""),
    ("bold and italic", "It is **very** *good*, _really_ ***so***!", "It is very good, really so!"),
    ("more of it", "__Very__ good, *5 pm*, \\*so\\*", "Very good, 5 pm, so"),
    (
        "a star that is a key",
        "Press * to repeat, or *69, or *.",
        "Press * to repeat, or *69, or *.",
    ),
    ("sums", "2 * 3 is 6, 5 > 3, 2*3*4", "2 * 3 is 6, 5 > 3, 2*3*4"),
    ("an address in letters", "jane_doe@example.com", "jane_doe@example.com"),
    ("half a pair", "It is **very *good", "It is very good"),
    ("struck out", "~~Ten~~ nine, ~5 minutes", "Ten nine, ~5 minutes"),
    ("a heading", "# Our hours\nWe open at nine.", "Our hours. We open at nine."),
    ("a list", "We have:\n- coffee\n* tea,\n+ milk", "We have: coffee. tea, milk"),
    ("a numbered list", "1. Billing\n2) Sales!\n3. Else", "1. Billing. 2. Sales! 3. Else"),
    ("a list of things done", "- [x] Paid\n- [ ] Sent", "Paid. Sent"),
    ("a list in a list", "- One\n  - Two\n    - Three", "One. Two. Three"),
    ("lines that were broken", "We are open\nfrom nine.", "We are open from nine."),
    ("paragraphs", "Hello\n\n\nThere", "Hello. There"),
    ("line breaks escaped twice", "Hello.\\nThere", "Hello. There"),
    ("a quotation", "> Be brief\n>> Or not", "Be brief. Or not"),
    ("a rule", "One.\n\n---\n\n***\nTwo", "One. Two"),
    ("a table", "| Day | Time |\n|---|:--|\n| Mon | nine |", "Day, Time. Mon, nine"),
    ("an indented table", "   | Mon | nine |\n\t|---|---|", "Mon, nine"),
    ("a sentence in quotes", 'I say "Yes."\nYou say "no"\nGood', 'I say "Yes." You say "no". Good'),
    ("a link", "See [our menu](https://a.example/m?x=1 'Menu').", "See our menu."),
    ("brackets in a link", "[Wiki](https://a.example/A_(b)) has it", "Wiki has it"),
    ("a link by number", "See [it][menu].\n\n[menu]: https://a.example/x", "See it."),
    ("an image", "![a pizza](https://a.example/p.png) Yum", "a pizza Yum"),
    ("sources", "It is so[1], and so[^2]【4†source】.", "It is so, and so."),
    ("a bare address", "Go to https://www.a.example/x/y?z=1#f.", "Go to a.example."),
    ("a bare host", "Go to https://a.example.", "Go to a.example."),
    ("an address without https", "Go to www.a.example, please", "Go to a.example, please"),
    ("a login in an address", "https://ann:secret@a.example/x", "a.example"),
    ("addresses in angles", "<https://a.example/x> <ann@a.example>", "a.example ann@a.example"),
    ("inline code", "Say `yes` now", "Say yes now"),
    ("a block of code", "Run it:\n```python\nprint('x')\n```\nDone.", "Run it: Done."),
    ("an answer in a fence", "```\nWe open at nine.\n```", "We open at nine."),
    ("a fence without an end", "Run it:\n~~~sh\nrm -r", "Run it:"),
    ("HTML", "<p>Hello <b>Ann</b></p><ul><li>One<li>Two</ul>", "Hello Ann. One. Two"),
    ("scripts", "Hi<script>alert(1)</script><style>b{}</style> Ann", "Hi. Ann"),
    ("a comment", "Hi <!-- no -->Ann", "Hi Ann"),
    ("entities", "Smith &amp; Co &lt;3 &#39;x&#39;", "Smith & Co <3 'x'"),
    ("markup in entities", "&amp;lt;b&amp;gt;Hi&amp;lt;/b&amp;gt;", "Hi"),
    ("less than", "If 3 < 5 and x<y", "If 3 < 5 and x y"),
    ("emoji", "Sure 😊! 👩🏽‍🚀 Go 🇩🇪 1️⃣ ✅", "Sure! Go 1"),
    ("emoji in front of lines", "✅ Paid\n❌ Late", "Paid. Late"),
    ("nothing but emoji", "👍", ""),
    ("units", "25 °C, № 5, € 6.50, $5, 10 %", "25 °C, № 5, € 6.50, $5, 10 %"),
    ("arrows", "Home → Menu -> Pizza", "Home, Menu, Pizza"),
    ("thoughts", "<think>\nHm.\n</think>\n\nHello.", "Hello."),
    ("thoughts without a beginning", "Hm. </think>Hello.", "Hello."),
    ("thoughts without an end", "<think>Hm.", ""),
    ("long thoughts", f"<think>{'hm ' * 9000}</think>Hello.", "Hello."),
    ("controls", "A\x00b\x1b[31m \u202ec\u202c \u200bd\u00ade", "A b 31m c de"),
    ("half of a character", "Hi \ud83d Ann", "Hi Ann"),
    ("placeholders", "Dear {name}, [name]", "Dear name, name"),
    ("other languages", "¿Qué tal? « Ça va ! » Grüße.", "¿Qué tal? « Ça va! » Grüße."),
]


@pytest.mark.parametrize(
    ("sent", "spoken"), [pytest.param(*row[1:], id=row[0]) for row in SPEAKABLE]
)
def test_what_a_model_sends_becomes_sentences(sent: str, spoken: str) -> None:
    """Words stay in their order, markup goes, and a new line is a pause."""
    assert make_speakable(sent) == spoken


def test_a_long_answer_is_cut_at_a_sentence() -> None:
    """Fifty thousand letters become what one Say holds, or less if asked for; no half sentence."""
    sent = "**We** open at nine. Every day. " * 1600
    for limit in (SAID, 400):
        spoken = make_speakable(sent, limit)
        assert limit - 40 < len(spoken) <= limit
        assert spoken.endswith(("nine.", "day."))


def test_letters_of_many_bytes_are_counted_as_such() -> None:
    """Cyrillic takes six bytes a letter in a URL, so that less of it fits into one Say."""
    spoken = make_speakable("Тихий жук. " * 900)
    assert 4000 < len(quote(spoken, safe="")) <= 4500
    assert spoken.endswith("жук.")


MARKUP: Final = [
    *"*_~`#>-+|<>[](){}!&;:.,\\/=\"'1x \n😀\u202e\x00\ud800",
    *("**", "```\n", "~~~", "<b>", "</b>", "<!--", "-->", "<script>", "</script>", "&lt;", "&amp;"),
    *("https://", "www.", "a.example", "[x](y)", "- ", "1. ", "## ", "->", "Word", "word. ", "]:"),
]
TEXTS: Final = st.lists(st.sampled_from(MARKUP) | st.characters(), max_size=60).map("".join)


@settings(STEADY, max_examples=as_many(500))
@given(sent=TEXTS, limit=st.sampled_from([20, SAID]))
def test_every_answer_can_be_spoken(sent: str, limit: int) -> None:
    """It fits into one Say and into XML, has no tag left, and is left as it is a second time."""
    spoken = make_speakable(sent, limit)
    assert len(spoken) <= limit
    assert len(quote(spoken, safe="")) <= ENCODED
    assert make_speakable(spoken, limit) == spoken
    document = ElementTree.fromstring(f"<Say>{escape(spoken)}</Say>")  # noqa: S314 # our own
    assert (document.text or "") == spoken
    assert not any(sign in spoken for sign in ("**", "`", "[", "]", "{", "}", "<b>", "\u202e"))


HOSTILE: Final = [each for each in MARKUP if each.strip()] + [
    " ",
    "\n",
    "\t",
    "http://a@",
    "<a ",
    "x ",
]


@pytest.mark.parametrize("part", first_quick(HOSTILE))
def test_a_hostile_answer_keeps_no_thread_busy(part: str) -> None:
    """Whatever part of markup is repeated, for millions of letters, it is read in a moment."""
    began = time.thread_time()
    for sent in (part * (3_000_000 // len(part)), f"x{part} " * 20_000, f"[{part * 9000}"):
        make_speakable(sent)
    assert time.thread_time() - began < 1.5  # usually a tenth of that
