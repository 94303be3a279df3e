"""Twilio's rules for TwiML: the tables of twiml_tables.py, and what is more, applied by `judge`.

Twilio checks little when it is given a document: a misspelt attribute is dropped with a warning in
a debugger that nobody reads, and the call goes on without it. The stand-in phone is stricter. For
every document it calls `judge(twiml, url)` and keeps what comes back:

    >>> [str(problem) for problem in judge("<Response><Say voise='man'>Hi</Say></Response>", "/")]
    ["12200: <Say> has no attribute 'voise'"]

A `Problem` is `broken` when Twilio would fail the call, the verb or the attribute; otherwise it is
a warning about sense. `judge_screening` has the rules for what a phone hears that a Dial rings,
`judge_caller_id` those for what it shows, because they depend on the call; those for tags inside
Say stand in ssml.py. Sources: the attribute tables of the verb pages under
https://www.twilio.com/docs/voice/twiml, and the error pages under
https://www.twilio.com/docs/api/errors.
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import urldefrag, urljoin
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from standins.ssml import judge_tags
from standins.twiml_tables import (
    ATTRIBUTES,
    CHILDREN,
    CODES,
    E164,
    FINAL,
    KNOWN_BY,
    MOST_SAID,
    OTHER_VERBS,
    SCREENING,
    SIP,
    WITHHELD,
    WORDS_IN,
    Check,
    link,
)

MOST_BYTES: Final = 64 * 1024


@dataclass(frozen=True)
class Problem:
    """One broken rule: Twilio's code (0: no code, it only offends sense) and plain words."""

    code: int
    words: str
    broken: bool = True

    def __str__(self) -> str:
        return f"{self.code}: {self.words}" if self.code else self.words


def words(element: Element) -> str:
    """The text in an element and below it, with every run of blanks as one blank."""
    return " ".join("".join(element.itertext()).split())


def parse(twiml: str) -> Element | Problem:
    """The document's root, or the reason why Twilio could not read it (12100)."""
    try:
        root = ElementTree.fromstring(twiml)  # noqa: S314 (it comes from our own function)
    except (ElementTree.ParseError, ValueError) as error:
        return Problem(12100, f"this is not XML: {error}")
    if root.tag != "Response":
        return Problem(12100, f"the document's root is <{root.tag}>, not <Response>")
    return root


def judge(twiml: str, url: str) -> list[Problem]:
    """Everything that Twilio, or good sense, holds against a document fetched from `url`."""
    if len(twiml.encode()) > MOST_BYTES:
        return [Problem(11750, "the document is larger than 64 kB")]
    root = parse(twiml)
    if isinstance(root, Problem):
        return [root]
    return [*_everywhere(root), *_order(root, url)]


def judge_screening(twiml: str) -> list[Problem]:
    """What is held against a document for a phone that a Dial rings, before the legs are joined."""
    if len(twiml.encode()) > MOST_BYTES:
        return [Problem(11750, "the document is larger than 64 kB")]
    root = parse(twiml)
    if isinstance(root, Problem):
        return [root]
    return [*_everywhere(root), *_screening(root)]


def judge_caller_id(dial: Element, caller: str, own: Collection[str]) -> list[Problem]:
    """What is held against the number that the rung phones show; `own` are the account's.

    By itself Dial shows the caller (https://www.twilio.com/docs/voice/twiml/dial, callerId).
    """
    if not dial_numbers(dial):
        return []
    shown = dial.get("callerId", caller)
    if "callerId" not in dial.attrib and re.match("client:|sip:", caller):
        return [Problem(13214, f"<Dial> needs a callerId, because {caller!r} calls")]
    if not re.fullmatch(E164, shown) or shown in WITHHELD:
        return [Problem(13214, f"<Dial> would show {shown!r}: the carrier refuses that")]
    if shown not in {caller, *own}:
        return [Problem(13214, f"<Dial> shows {shown!r}, which is no number of this call")]
    return []


def dial_numbers(dial: Element) -> list[str]:
    """The telephone numbers that a Dial rings; its SIP addresses are none."""
    numbers = [words(number) for number in dial.iter("Number")]
    bare = [words(dial)] if not len(dial) else []
    return numbers + bare


def _everywhere(root: Element) -> list[Problem]:
    """What holds for an element wherever it stands."""
    found = list(_element(root))
    found += [problem for element in root.iter("Say") for problem in _say(element)]
    found += [problem for element in root.iter("Gather") for problem in _gather(element)]
    found += [problem for element in root.iter("Dial") for problem in _dial(element)]
    return found


def _screening(root: Element) -> Iterator[Problem]:
    """What may stand in a screening document; one that simply ends joins the legs."""
    for verb in root:
        if verb.tag not in SCREENING:
            yield Problem(13201, f"<{verb.tag}> may not stand in a screening document")
    verbs = list(root)
    if verbs and verbs[-1].tag == "Gather":
        yield Problem(0, "no key in this <Gather> joins the legs: a mailbox, too", broken=False)


def _element(element: Element) -> Iterator[Problem]:
    """The tables' part: attributes, values, nesting, stray words."""
    known = ATTRIBUTES.get(element.tag, {})
    for name, value in element.items():
        yield from _attribute(element.tag, name, value, known.get(name))
    if element.tag not in WORDS_IN and (element.text or "").strip():
        yield Problem(12200, f"<{element.tag}> holds words of its own")
    for child in element:
        if element.tag not in WORDS_IN and (child.tail or "").strip():
            yield Problem(12200, f"there are words after <{child.tag}> in <{element.tag}>")
        yield from _child(element.tag, child)


def _attribute(tag: str, name: str, value: str, check: Check | None) -> Iterator[Problem]:
    if check is None:
        yield Problem(12200, f"<{tag}> has no attribute {name!r}")
    elif wanted := check(value):
        code = 11100 if check is link else CODES.get((tag, name), 12200)
        code = 11243 if "'rp'" in wanted else code
        yield Problem(code, f"<{tag} {name}={value[:60]!r}> should be {wanted}")
    elif name.lower().endswith("method") and value == "GET":
        yield Problem(0, f"<{tag} {name}='GET'>: this line only takes POST", broken=False)


def _child(parent: str, child: Element) -> Iterator[Problem]:
    if child.tag in CHILDREN.get(parent, frozenset()):
        yield from _element(child) if parent != "Say" else ()
    elif child.tag in OTHER_VERBS:
        yield Problem(0, f"<{child.tag}> is Twilio's, but this phone cannot play it")
    elif child.tag in ATTRIBUTES:
        yield Problem(12200, f"<{child.tag}> may not stand in <{parent}>")
    else:
        yield Problem(12200, f"Twilio has no verb <{child.tag}> (in <{parent}>)")


def _say(say: Element) -> Iterator[Problem]:
    voice, said = say.get("voice", ""), words(say)
    most = MOST_SAID[next(kind for kind in MOST_SAID if voice.startswith(kind))]
    if not said:
        yield Problem(13520, "<Say> has no words")
    if len(said) > most:
        yield Problem(13521, f"<Say> has {len(said)} characters; this voice reads {most}")
    for fault in judge_tags(say):
        yield Problem(0, fault)
    if voice == "alice":
        yield Problem(0, "the voice 'alice' is gone from Twilio's documentation", broken=False)


def _gather(gather: Element) -> Iterator[Problem]:
    if gather.get("speechTimeout") == "auto" and "speechModel" in gather.attrib:
        yield Problem(13335, "speechTimeout='auto' and a speechModel exclude each other")
    yield from _model(gather)
    if not len(gather):
        yield Problem(0, "<Gather> has no prompt: the caller hears nothing", broken=False)
    if "action" not in gather.attrib:
        yield Problem(0, "<Gather> has no action: it asks this document again", broken=False)
    for name, why in (("enhanced", "deprecated"), ("bargeIn", "no longer documented")):
        if name in gather.attrib:
            yield Problem(0, f"<Gather {name}> is {why}", broken=False)


def _model(gather: Element) -> Iterator[Problem]:
    """A model that does not know the language: the gather fails."""
    model, language = gather.get("speechModel", ""), gather.get("language", "en-US")
    listed = KNOWN_BY.get(model)
    if listed and not {language, language.partition("-")[0]} & {*listed}:
        yield Problem(13331, f"the speechModel {model!r} does not know {language!r}")


def _dial(dial: Element) -> Iterator[Problem]:
    addresses = [words(address) for address in dial.iter("Sip")]
    numbers = dial_numbers(dial)
    if len(numbers + addresses) > 10:
        yield Problem(13221, f"<Dial> rings {len(numbers + addresses)} phones; Twilio rings ten")
    for number in numbers:
        if not re.fullmatch(E164, number):
            yield Problem(13224, f"<Dial> cannot call {number!r}")
    for address in addresses:
        if not re.fullmatch(SIP, address):
            yield Problem(13224, f"<Dial> cannot call {address!r}")
    if "timeLimit" not in dial.attrib:
        yield Problem(0, "<Dial> has no timeLimit: Twilio allows four hours", broken=False)


def _order(root: Element, url: str) -> Iterator[Problem]:
    """What the verbs mean together: dead ends, loops, verbs that are never reached."""
    verbs = list(root)
    if not verbs:
        yield Problem(0, "the document is empty: the call ends", broken=False)
    for place, verb in enumerate(verbs):
        last = place == len(verbs) - 1
        if not last and (verb.tag in FINAL or (verb.tag == "Dial" and "action" in verb.attrib)):
            yield Problem(0, f"nothing after <{verb.tag}> is ever reached", broken=False)
        if verb.tag == "Gather" and last and verb.get("actionOnEmptyResult") != "true":
            yield Problem(0, "silence in this <Gather> ends the call", broken=False)
        if verb.tag == "Reject" and place:
            yield Problem(0, "<Reject> after another verb: the call is answered", broken=False)
        if verb.tag == "Redirect":
            yield from _redirect(verb, url, alone=place == 0)


def _redirect(redirect: Element, url: str, *, alone: bool) -> Iterator[Problem]:
    target = words(redirect)
    if wanted := link(target):
        yield Problem(11100, f"<Redirect>{target[:60]}</Redirect> should be {wanted}")
    elif alone and urldefrag(urljoin(url, target)).url == urldefrag(url).url:
        yield Problem(0, "<Redirect> leads to its own document and loops")
