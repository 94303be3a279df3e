"""A language model asked over HTTP: the dialect of OpenAI's `/chat/completions`.

OpenAI, OpenRouter, Groq, Gemini, Mistral, vLLM, Ollama and LiteLLM speak it, each with its own
additions. So a question has only what all of them take, `model` and `messages`. Some insist that
the first message after the system's is the user's, and that the two take turns. Messages are:

    system       our instructions, then the owner's (BACKEND_PROMPT)
    user         what the caller said or keyed
    assistant    what the caller heard                     ... and so on, turn by turn
    user         what was heard just now

A model talks in plain words, and acts by the JSON of the protocol (`protocol.py`). It knows the
names of departments, never a number.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

from phone_line.protocol import Received
from phone_line.records import Question
from phone_line.settings import Settings
from phone_line.webhook import Webhook

Message = dict[str, str]

INSTRUCTIONS: Final = """\
You answer the telephone. Your words are read aloud to the caller, so answer as one speaks: one or
two short sentences in the language {language}, no lists, no markup, no emoji, no web addresses. Ask
one thing at a time. What the caller says comes from speech recognition and may be misheard: if it
makes no sense, ask again. Digits alone are keys that the caller pressed. Never invent facts: what
you do not know, you do not know.

To talk, answer in plain words. Only to do one of these, answer with this JSON and nothing else:
{transfer}
{{"say": "your words", "then": "voicemail"}} lets the caller leave a message.
{{"say": "your words", "then": "hangup"}} ends the call; say goodbye in it.
Nothing else can be done from here, whatever the caller says, and no number can be dialled.
"""
TRANSFER: Final = '{"say": "your words", "then": "transfer", "to": "NAME"} connects the caller.'
NAMES: Final = "NAME is one of: {names}."
PERSON: Final = "FORWARD_TO is a person who helps with anything."
NOBODY: Final = "There is nobody whom you could connect the caller to."
OPENING: Final = "The caller has already heard: {words}"
MOST_TOKENS: Final = 10**9  # no conversation has more, and no record takes any number
SILENCE: Final = "(silence)"  # an empty message is refused by some


class LanguageModel:
    """A model at the endpoint of a service, asked for chat completions."""

    refusals: Mapping[int, str] = {
        401: "BACKEND_TOKEN is not a key that it knows",
        402: "there is no money left in the account of BACKEND_TOKEN",
        403: "BACKEND_TOKEN may not use this model",
        404: "it does not know BACKEND_MODEL, or BACKEND_URL is not its /chat/completions",
        429: "it is asked too often, or there is no money left in the account of BACKEND_TOKEN",
    }

    def __init__(self, settings: Settings, names: Collection[str]) -> None:
        """`names` are the departments, and FORWARD_TO, that a caller can be connected to."""
        self.settings, self.names = settings, names

    def write_question(
        self,
        webhook: Webhook,  # noqa: ARG002 # the protocol tells more of the call than a model needs
        question: Question,
        history: Iterable[tuple[str, str]],
        language: str,
    ) -> Mapping[str, Any]:
        """The model and the messages: instructions, what was heard and said so far, the question.

        The model is not told the caller's number.
        """
        prompt = self.settings.backend_prompt
        instructions = write_instructions(self.names, language, prompt)
        messages = write_messages(instructions, history, question)
        return {"model": self.settings.backend_model, "messages": messages}

    def read_answer(self, body: bytes) -> Received:
        """The model's text, as `choices[0].message.content` has it, and the tokens of `usage`."""
        return read_completion(body)


def write_instructions(names: Collection[str], language: str, prompt: str) -> str:
    """Our instructions, with the names that can be connected to; then the owner's."""
    transfer = NOBODY
    if names:
        transfer = f"{TRANSFER} {NAMES.format(names=', '.join(names))}"
    if "FORWARD_TO" in names:
        transfer = f"{transfer} {PERSON}"
    rules = INSTRUCTIONS.format(language=language, transfer=transfer)
    return f"{rules}\n{prompt}".strip()


def write_messages(
    instructions: str, history: Iterable[tuple[str, str]], question: Question
) -> list[Message]:
    """The conversation as messages. `history` is what was heard and what was said, turn by turn."""
    talk: list[Message] = []
    opening = ""
    for heard, said in history:
        add_message(talk, "user", heard)
        if talk:
            add_message(talk, "assistant", said)
        else:  # the line has spoken first, as it does on the telephone
            opening = f"{opening} {said}".strip()
    add_message(talk, "user", question.speech or question.keys or SILENCE)
    if opening:
        instructions = f"{instructions}\n\n{OPENING.format(words=opening)}"
    return [{"role": "system", "content": instructions}, *talk]


def add_message(talk: list[Message], role: str, words: str) -> None:
    """Add words to a conversation. Who speaks twice in a row has said one thing, in two lines."""
    if not words:
        return
    if talk and talk[-1]["role"] == role:
        talk[-1]["content"] += f"\n{words}"
    else:
        talk.append({"role": role, "content": words})


def read_completion(body: bytes) -> Received:
    """Read the body of an answer."""
    try:
        found = json.loads(body)
        choice = found["choices"][0]
        message = choice["message"]
        text = read_content(message.get("content"))
        tokens = count_tokens(found.get("usage"))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return Received(fault="its answer is no chat completion")
    if message.get("refusal") or choice.get("finish_reason") == "content_filter":
        return Received(text, tokens, "the model refuses to answer")
    if message.get("tool_calls") or message.get("function_call"):
        return Received(text, tokens, "the model calls a tool, and was offered none")
    if not text.strip():
        return Received(text, tokens, "the model says nothing")
    return Received(text, tokens)


def read_content(content: object) -> str:
    """The text of a message: text, or a list of parts, of which those of another type are dropped.

    Raises TypeError for anything else.
    """
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, Sequence):
        raise TypeError(content)
    return "".join(map(read_part, content))


def read_part(part: Any) -> str:  # noqa: ANN401 # whatever a service sends
    """The text of one part of a message; none if it is no text."""
    if not isinstance(part, Mapping) or part.get("type") != "text":
        return ""
    text = part.get("text")
    return text if isinstance(text, str) else ""


def count_tokens(usage: object) -> int:
    """The tokens of a question and its answer, as `usage` says; 0 if it does not."""
    if not isinstance(usage, Mapping):
        return 0
    total = usage.get("total_tokens")
    if not isinstance(total, int) or isinstance(total, bool):
        return 0
    return min(max(total, 0), MOST_TOKENS)
