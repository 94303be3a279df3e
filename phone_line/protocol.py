"""The protocol of a backend: what it is asked, and how its answer is understood.

A service of your own is asked in JSON `{call_sid, turn, from, to, heard, confidence, digits,
language, history}`. It answers JSON `{"say": text, "then": "listen" | "transfer" | "voicemail" |
"hangup", "to": department or "FORWARD_TO"}`. Services differ, and language models forget, so an
answer is read leniently:

    {"say": "Hello."}                               then is listen
    {"output": "Hello."}, [{"output": "Hello."}]    as agents of n8n answer; output is say
    Hello.                                          plain text is words
    Bye! ```json {"say": "Bye!", "then": ...} ```   JSON in a fence, or with text around it

Anything else is a fault, and asked again: an unknown `then`, a `to` that is not configured, what is
or looks like JSON without being the protocol, HTML, an answer without words. Whatever is answered,
nobody is connected but by a configured name. No answer can keep a thread busy: few places are
tried, and nesting ends where Python's own JSON ends it.
"""

import json
import re
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from itertools import islice
from typing import Any, Final, NamedTuple

from phone_line.records import Answer, Question
from phone_line.speakable import drop_thoughts, make_speakable
from phone_line.text import fold_words
from phone_line.webhook import Webhook

THENS: Final = ("listen", "transfer", "voicemail", "hangup")
NOT_PROTOCOL: Final = "its answer is not the JSON of the protocol"
MOST_PLACES: Final = 20  # at which an object is looked for: models write one or two

OBJECT: Final = r'\{\s*"'  # how one begins
FENCE: Final = "```"
MARKUP: Final = ("<", "{", "[")  # what begins so is meant for no ear
FIELDS: Final = frozenset({"say", "then", "output"})  # an object of the protocol has one of them
HALF: Final = r'"(?:say|then|output)"\s*:'  # what is left of an object that broke off
UNREADABLE: Final = (ValueError, RecursionError)
decoder: Final = json.JSONDecoder(strict=False)  # models break lines within their strings


class NotUnderstood(Exception):
    """An answer is a fault. The message says why, without a word of the answer."""


class Received(NamedTuple):
    """An answer as it came: its text, the tokens that it cost, and what is wrong with it."""

    text: str = ""
    tokens: int = 0
    fault: str = ""


class OwnService:
    """A service of your own, which speaks the protocol."""

    refusals: Mapping[int, str] = {
        401: "BACKEND_TOKEN is not what it expects",
        403: "BACKEND_TOKEN does not allow that",
        404: "there is nothing at the path of BACKEND_URL",
    }

    def write_question(
        self,
        webhook: Webhook,
        question: Question,
        history: Iterable[tuple[str, str]],
        language: str,
    ) -> Mapping[str, Any]:
        """The question, and what was heard and said so far, turn by turn."""
        return {
            "call_sid": webhook.call_sid,
            "turn": webhook.turn,
            "from": webhook.caller,
            "to": webhook.called,
            "heard": question.speech,
            "confidence": question.confidence,
            "digits": question.keys,
            "language": language,
            "history": [{"heard": heard, "said": said} for heard, said in history],
        }

    def read_answer(self, body: bytes) -> Received:
        """The text of a body. It is understood later."""
        try:
            return Received(body.decode(json.detect_encoding(body)))
        except UnicodeDecodeError:
            return Received(fault="its answer is no text")


def understand_answer(received: Received, names: Collection[str]) -> Answer:
    """Understand an answer. `names` can be connected to. Raises NotUnderstood for a fault."""
    if received.fault:
        raise NotUnderstood(received.fault)
    plain = unwrap_text(received.text)
    fields = find_protocol(plain)
    if fields is not None:
        return read_fields(unwrap_output(fields), names)
    if looks_like_code(plain):
        raise NotUnderstood(NOT_PROTOCOL)
    return Answer(speak_words(plain))


def unwrap_text(text: str) -> str:
    """Drop a model's thoughts, and the fence around an answer."""
    plain = drop_thoughts(text).strip()
    inside = plain.removeprefix(FENCE).removesuffix(FENCE)
    if len(plain) - len(inside) < 2 * len(FENCE):
        return plain
    language, _, rest = inside.partition("\n")
    return rest.strip() if rest and len(language.split()) < 2 else inside.strip()


def find_protocol(text: str) -> Mapping[str, Any] | None:
    """Find the first object of the protocol in a text. An object within another one is none.

    If it has no words itself, the text before it is what the model says.
    """
    end = 0
    for beginning in islice(re.finditer(OBJECT, text), MOST_PLACES):
        if beginning.start() < end:
            continue
        with suppress(*UNREADABLE):
            fields, end = decoder.raw_decode(text, beginning.start())
            if not FIELDS.isdisjoint(fields):
                words = {} if "output" in fields else {"say": text[: beginning.start()]}
                return {**words, **fields}
    return None


def looks_like_code(text: str) -> bool:
    """Tell whether a text is JSON, HTML, or half of an object, which nobody should hear."""
    if text.startswith(MARKUP) or re.search(HALF, text):
        return True
    try:
        decoder.decode(text)
    except UNREADABLE:
        return False
    return True


def unwrap_output(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """Put the `output` of an agent in the place of `say`; it may hold the protocol itself."""
    output = fields.get("output")
    if "say" in fields or output is None:
        return fields
    inner = output
    if isinstance(output, str):
        inner = find_protocol(output) or {"say": output}
    if not isinstance(inner, Mapping):
        raise NotUnderstood(NOT_PROTOCOL)
    return {**fields, **inner}


def read_fields(fields: Mapping[str, Any], names: Collection[str]) -> Answer:
    """Read the fields of the protocol. Raises NotUnderstood for what they cannot be."""
    say, then = fields.get("say"), fields.get("then")
    if say is not None and not isinstance(say, str):
        raise NotUnderstood("its answer has a say that is no text")
    if then in (None, ""):
        return Answer(speak_words(say or ""))
    if then not in THENS:
        raise NotUnderstood("its answer has an unknown then")
    words = make_speakable(say or "")
    if then != "transfer":
        return Answer(words, then)
    return Answer(words, then, find_name(fields.get("to"), names))


def speak_words(text: str) -> str:
    """The words of an answer that has nothing else. Raises NotUnderstood if there are none."""
    words = make_speakable(text)
    if not words:
        raise NotUnderstood("its answer has no words")
    return words


def find_name(to: object, names: Collection[str]) -> str:
    """The configured name that an answer transfers to. Raises NotUnderstood for any other.

    Models write "Lost and found" for lost-and-found, so case and signs between words are their own.
    """
    wanted = to or "FORWARD_TO"
    if wanted in [*names]:  # a list, because what came may be no text
        return str(wanted)
    similar = [name for name in names if fold_words(name) == fold_words(str(wanted))]
    if len(similar) != 1 or not isinstance(wanted, str):
        raise NotUnderstood("its answer transfers to a name that is not configured")
    return similar[0]
