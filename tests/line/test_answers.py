"""Answers of a backend or a language model, and the words that are made of them."""

import json
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

import pytest

import main
from phone_line.backend import BackendFailed
from phone_line.protocol import NOT_PROTOCOL, NotUnderstood, Received, understand_answer
from phone_line.records import Answer, Question
from standins import backend as own
from standins.backend import Backend
from standins.inside import TOKEN
from standins.lines import HOOK
from standins.model import TOKENS, Model, Reply, says, writes

PREMIUM: Final = "+19005550100"
BILLING: Final = "+15550100001"
LINE: Final = {
    "FORWARD_TO": "+15550100099",
    "DEPARTMENTS": f"billing={BILLING} lost-and_found=+15550100002",
}


def ask(env: Mapping[str, str], seconds: float = 5.0) -> Answer:
    """One attempt to have a question answered, over HTTP."""
    line = main.PhoneLine({"TWILIO_AUTH_TOKEN": TOKEN, **LINE, **env})
    until = time.monotonic() + seconds
    return line.backend.ask(HOOK, Question("hello"), (), "en-US", until)


UNDERSTOOD: Final[Mapping[str, tuple[object, Answer]]] = {
    "plain words": ("We open at five.", Answer("We open at five.")),
    "parts": (
        [
            {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]},
            {"type": "text", "text": "We open "},
            {"type": "text", "text": "at five."},
        ],
        Answer("We open at five."),
    ),
    "Markdown": (
        "**Yes!** 🍕\n- [Salami](https://a.example/b)\n- Tonno",
        Answer("Yes! Salami. Tonno"),
    ),
    "the protocol": ('{"say": "Bye.", "then": "hangup", "to": ""}', Answer("Bye.", "hangup")),
    "without then": ('{"say": "Which one?"}', Answer("Which one?")),
    "then is null": ('{"say": "Which one?", "then": null, "to": null}', Answer("Which one?")),
    "a fence": ('```json\n{"say": "Bye.", "then": "hangup"}\n```', Answer("Bye.", "hangup")),
    "text around": (
        'Sure!\n{"say": "I connect you.", "then": "transfer", "to": "billing"}\nAnything else?',
        Answer("I connect you.", "transfer", "billing"),
    ),
    "words in front": (
        'Ready at six. Bye! {"then": "hangup"}',
        Answer("Ready at six. Bye!", "hangup"),
    ),
    "lines in a string": ('{"say": "One.\nTwo.", "then": "hangup"}', Answer("One. Two.", "hangup")),
    "thoughts": ('<think>{"then": "hangup"}?</think>\nWe do.', Answer("We do.")),
    "a person": ('{"then": "transfer"}', Answer("", "transfer", "FORWARD_TO")),
    "a name as people write it": (
        '{"say": "", "then": "transfer", "to": "Lost and found"}',
        Answer("", "transfer", "lost-and_found"),
    ),
    "an agent": ('{"output": "We open at five."}', Answer("We open at five.")),
    "an agent in a list": ('[{"output": "We open at five."}]', Answer("We open at five.")),
    "an agent that acts": (
        '{"output": {"say": "Bye.", "then": "hangup"}}',
        Answer("Bye.", "hangup"),
    ),
    "an agent that quotes": (
        json.dumps([{"output": '```json\n{"say": "Bye.", "then": "hangup"}\n```'}]),
        Answer("Bye.", "hangup"),
    ),
    "control characters": ("Bell \x07 and \x1b escape \u202e.", Answer("Bell and escape.")),
    "braces in words": (
        'Your {"size": "large"} is ready.',
        Answer('Your "size": "large" is ready.'),
    ),
}
NO_WORDS: Final = "its answer has no words"
STRANGER: Final = "its answer transfers to a name that is not configured"
UNKNOWN: Final = "its answer has an unknown then"
FAULTS: Final[Mapping[str, tuple[str, str]]] = {
    "a number": ("42", NOT_PROTOCOL),
    "a string of JSON": ('"Hello."', NOT_PROTOCOL),
    "nothing of JSON": ("null", NOT_PROTOCOL),
    "another object": ('{"text": "Hello.", "more": {"say": "Hello."}}', NOT_PROTOCOL),
    "another object in a fence": ('```json\n{"text": "Hello."}\n```', NOT_PROTOCOL),
    "a list": ('["Hello."]', NOT_PROTOCOL),
    "half an object": ('{"say": "Hel', NOT_PROTOCOL),
    "half an object after words": ('Sure! {"say": "Hel', NOT_PROTOCOL),
    "HTML": ("<!doctype html><title>502</title>", NOT_PROTOCOL),
    "braces": ("{" * 50_000, NOT_PROTOCOL),
    "brackets": ("[" * 50_000, NOT_PROTOCOL),
    "nesting": ('{"a":' * 50_000 + '{"say": "x"}', NOT_PROTOCOL),
    "an emoji": ("🍕", NO_WORDS),
    "a say without words": ('{"say": "🍕"}', NO_WORDS),
    "a say that is no text": ('{"say": ["Hello."]}', "its answer has a say that is no text"),
    "an output that is no text": ('{"output": 5}', NOT_PROTOCOL),
    "an unknown then": ('{"say": "Hello.", "then": "sing"}', UNKNOWN),
    "a then that is no text": ('{"say": "Hello.", "then": ["listen"]}', UNKNOWN),
    "a number to dial": (f'{{"then": "transfer", "to": "{PREMIUM}"}}', STRANGER),
    "a listed number": (f'{{"then": "transfer", "to": "{BILLING}"}}', STRANGER),
    "a number that is one": (f'{{"then": "transfer", "to": {BILLING[1:]}}}', STRANGER),
    "a list of names": ('{"then": "transfer", "to": ["billing"]}', STRANGER),
    "nobody": ('{"then": "transfer", "to": "sales"}', STRANGER),
    "a SIP address": ('{"then": "transfer", "to": "sip:eve@evil.example"}', STRANGER),
}
NO_COMPLETION: Final = "its answer is no chat completion"
BODIES: Final[Mapping[str, tuple[Reply, str]]] = {
    "nothing": (Reply(b""), NO_COMPLETION),
    "an error with 200": (Reply(b'{"error": {"message": "busy"}}'), NO_COMPLETION),
    "no choices": (Reply(b'{"choices": []}'), NO_COMPLETION),
    "choices of another kind": (Reply(b'{"choices": {"0": {}}}'), NO_COMPLETION),
    "a message that is text": (writes("Hello."), NO_COMPLETION),
    "content of another kind": (says({"text": "Hello."}), NO_COMPLETION),
    "deep nesting": (Reply(b'{"choices":' * 50_000), NO_COMPLETION),
    "HTML": (Reply(b"<html>"), NO_COMPLETION),
    "no text": (Reply(b"\xff\xfe\xff"), NO_COMPLETION),
    "empty content": (says(""), "the model says nothing"),
    "no content": (says(None), "the model says nothing"),
    "parts without text": (says([{"type": "image_url"}, "x", 5]), "the model says nothing"),
    "a refusal": (writes({"content": None, "refusal": "I cannot."}), "the model refuses to answer"),
    "a tool call": (
        writes({"content": "", "tool_calls": [{"function": {"name": "dial"}}]}),
        "the model calls a tool, and was offered none",
    ),
}


@pytest.mark.parametrize("name", UNDERSTOOD)
def test_a_models_answer_is_read_leniently(name: str) -> None:
    """Words, JSON in any wrapping, and what agents answer all mean what they seem to mean."""
    content, expected = UNDERSTOOD[name]
    with Model(lambda _: says(content)) as model:
        answer = ask(model.settings)
    assert (answer.say, answer.then, answer.to) == (expected.say, expected.then, expected.to)
    assert answer.usage == TOKENS


@pytest.mark.parametrize(
    "name", [name for name, (text, _) in UNDERSTOOD.items() if isinstance(text, str)]
)
def test_your_own_service_is_read_as_leniently(name: str) -> None:
    """The same texts as the body of an answer: a service may be as free as a model."""
    text, expected = UNDERSTOOD[name]
    with Backend(lambda _: own.Reply(str(text).encode())) as backend:
        answer = ask({"BACKEND_URL": backend.url})
    assert (answer.say, answer.then, answer.to) == (expected.say, expected.then, expected.to)


@pytest.mark.parametrize("name", FAULTS)
def test_what_is_no_answer_is_a_fault_in_either_dialect(name: str) -> None:
    """Nothing of it is heard or done; the log says what was wrong, and not what was said."""
    text, cause = FAULTS[name]
    with Model(lambda _: says(text)) as model, pytest.raises(BackendFailed) as fault:
        ask(model.settings)
    assert str(fault.value) == cause
    service = Backend(lambda _: own.Reply(text.encode()))
    with service, pytest.raises(BackendFailed) as fault:
        ask({"BACKEND_URL": service.url})
    assert (str(fault.value), fault.value.final) == (cause, False)


@pytest.mark.parametrize("name", BODIES)
def test_what_is_no_completion_is_a_fault(name: str) -> None:
    """Refusals, tool calls, empty content and other bodies are asked again, not spoken."""
    reply, cause = BODIES[name]
    with Model(lambda _: reply) as model, pytest.raises(BackendFailed) as fault:
        ask(model.settings)
    assert (str(fault.value), fault.value.final) == (cause, False)


HOSTILE: Final[Mapping[str, str]] = {
    "a fence of blanks": "```" + " " * 500_000 + "x",
    "a fence of letters": "```" + "a" * 500_000,
    "fences": "```\n" * 120_000,
    "braces and blanks": "{ " * 250_000,
    "objects that break off": '{"say": ' * 60_000,
    "thoughts": "<think>" * 70_000,
    "half a name": '"say"' + " " * 500_000,
    "nested lists": '{"say":' + "[" * 500_000,
    "digits": "1" * 500_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_no_answer_keeps_a_thread_busy(name: str) -> None:
    """Half a megabyte of anything is read within a second, whatever comes of it."""
    began = time.process_time()
    with suppress(NotUnderstood):
        understand_answer(Received(HOSTILE[name]), ("FORWARD_TO",))
    assert time.process_time() - began < 1


def test_an_answer_that_is_no_text_is_a_fault() -> None:
    """Your own service answers a picture: it is not read aloud."""
    service = Backend(lambda _: own.Reply(b"\x89PNG\r\n\xff"))
    with service, pytest.raises(BackendFailed, match="its answer is no text"):
        ask({"BACKEND_URL": service.url})


def test_a_long_answer_ends_with_a_sentence() -> None:
    """Of 50,000 letters a caller hears whole sentences, as many as one Say takes."""
    with Model(lambda _: says("We open at five. " * 3_000)) as model:
        words = ask(model.settings).say
    assert re.fullmatch(r"(We open at five\. )+We open at five\.", words)
    assert 2_400 < len(words) <= 2_500
