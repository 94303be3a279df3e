"""The plan of a line's calls: all that decides what happens in them, and none of it changes."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from typing import Final

from phone_line.flow import Ask, Flow, Transfer
from phone_line.text import speak_name
from phone_line.understanding import OPERATOR
from phone_line.words import Words

NATIONAL: Final = 8  # digits that a number has at least without its country


@dataclass(frozen=True, slots=True)
class Plan:
    """All that decides: the table, the words and the numbers. The same for every call."""

    flow: Flow
    words: Words
    numbers: Mapping[str, tuple[str, ...]]  # whom FORWARD_TO and each department ring
    others: Mapping[str, Words] = field(default_factory=dict)  # of each language that is offered

    def in_language(self, tag: str) -> "Plan":
        """The plan in the language that a caller has chosen; as it is, if that is none of ours."""
        return replace(self, words=self.others[tag]) if tag in self.others else self

    def sentence(self, say: str, **values: str) -> str:
        """A sentence by its name (or the sentence itself), {placeholders} filled in."""
        text = self.words.sentences.get(say, say)
        return re.sub(r"{(\w+)}", lambda blank: values.get(blank[1], blank[0]), text)

    def menu(self, ask: Ask) -> str:
        """The choices of an Ask, a sentence each: For billing, say billing, or press 1."""
        items = []
        for key, name in enumerate(ask.routes, 1):
            items.append(self.sentence("menu_item", name=speak_name(name), key=str(key)))
        return " ".join(items)

    @property
    def person(self) -> tuple[str, ...]:
        """The numbers of the person for everything; none where nobody can be rung."""
        step = self.flow.get(OPERATOR)
        return self.numbers.get(step.to, ()) if isinstance(step, Transfer) else ()

    @property
    def anybody(self) -> tuple[str, ...]:
        """The numbers of somebody for a caller whom our own code fails: it asks no table."""
        return self.numbers.get("FORWARD_TO") or next(iter(self.numbers.values()), ())

    def leave_out(self, numbers: Iterable[str]) -> "Plan":
        """The plan without some numbers: a line must not ring itself, nor who is calling."""
        left_out, endings = spellings_of(tuple(numbers))
        rest = {}
        for name, phones in self.numbers.items():
            named = zip(phones, bare_numbers(phones), strict=True)
            kept = tuple(
                phone
                for phone, bare in named
                if bare not in left_out and not bare.endswith(endings)
            )
            if kept:
                rest[name] = kept
        return self if rest == self.numbers else replace(self, numbers=rest)


@lru_cache(maxsize=256)  # the webhooks of a call all ask for the same
def spellings_of(numbers: tuple[str, ...]) -> tuple[frozenset[str], tuple[str, ...]]:
    """Numbers as carriers write them: bare, and the endings by which others are known.

    A number without + or 00 may lack its country (`0155...`); a SIP address may be a number's.
    """
    bare: set[str] = set()
    endings = []
    for number in filter(None, numbers):
        user = re.sub("^sips?:([^@;]*)@.*", r"\1", number.strip())
        bare |= {bare_number(number), bare_number(user)}
        national = bare_number(user).lstrip("0")
        if not user.startswith(("+", "00")) and len(national) >= NATIONAL:
            endings.append(national)
    return frozenset(bare), tuple(endings)


@cache
def bare_numbers(phones: tuple[str, ...]) -> tuple[str, ...]:
    """The numbers that a step rings, as they are compared. They are the same for every call."""
    return tuple(map(bare_number, phones))


def bare_number(phone: str) -> str:
    """A phone as it is compared: the digits of a number, or a whole SIP address.

    Carriers leave out the plus, or write 00 in its place.
    """
    if "@" in phone:
        return phone.lower()
    return re.sub(r"\D", "", phone).removeprefix("00")
