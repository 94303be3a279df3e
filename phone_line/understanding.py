"""The meaning of a caller's keys and words at a question. Pure: the same always means the same.

Keys mean the same at every question: 0 is a person, * is the question once more, 1 to 9 are the
choices in the order in which they were read out. Words are compared folded (`fold_words`), and as
whole words. How sure the line has to be before it acts on them is `conversation.py`'s.

Three things keep an answer from being taken for something else:
- a command ("operator") is one only if hardly anything else is said: "travel agent" is a reason;
- an open question has no choices, so "two" is an answer to it like any other;
- what only sounds like a choice ("biling") is near enough to ask about, never to connect.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from phone_line.flow import Ask
from phone_line.text import fold_words, speak_name
from phone_line.words import Words

AGAIN: Final = "*"  # in place of a step: the same question once more
OPERATOR: Final = "operator"
DIGITS: Final = "123456789"
LIKE: Final = 0.75  # difflib's ratio: "biling" has 0.92 of "billing", "bowling" has 0.71
SHORTEST: Final = 4  # letters of a word that may be a misheard choice


def step_of_key(ask: Ask, choices: Sequence[str], keys: str) -> str:
    """The step that keys lead to; none if they mean nothing here.

    `choices` is the menu as the caller heard it. A deploy may have changed the order since.
    """
    if keys == "0":
        return OPERATOR
    if keys == "*":
        return AGAIN
    if len(keys) != 1 or keys not in DIGITS:
        return ""
    names = [*(choices or ask.routes)]
    place = DIGITS.index(keys)
    return ask.routes.get(names[place], "") if place < len(names) else ""


def is_whole_answer(ask: Ask, keys: str) -> bool:
    """Tell whether keys answer an open question, which has to ask for more than one of them."""
    if ask.keys is None:
        return True
    return ask.keys > 1 and len(keys) == ask.keys


def steps_of_words(words: Words, ask: Ask, choices: Sequence[str], said: str) -> list[str]:
    """The steps that folded words lead to: all choices that they mention, the first one first."""
    if ask.routes and (key := key_of_words(words, said)):
        step = step_of_key(ask, choices, key)
        return [step] if step else []
    return mentioned_steps(ask, said) or commanded_steps(words, said)


def mentioned_steps(ask: Ask, said: str) -> list[str]:
    """The steps of the choices that stand in the words, in the order of the words.

    A name inside a longer one is not meant: "billing disputes" does not mention billing.
    """
    left = double_spaces(said)
    names = {double_spaces(fold_words(speak_name(name))): name for name in ask.routes}
    places: dict[str, int] = {}
    for words in sorted(names, key=len, reverse=True):
        place, step = left.find(words), ask.routes[names[words]]
        if place >= 0:
            places[step] = min(place, places.get(step, place))
            left = left.replace(words, "#" * len(words))
    return sorted(places, key=places.__getitem__)


def commanded_steps(words: Words, said: str) -> list[str]:
    """The step of a command, if hardly anything else is said."""
    zero = said == "0" or words.keys.get(said) == "0"  # "room 0" is no command
    if zero or is_command(words, said, words.operator):
        return [OPERATOR]
    if is_command(words, said, words.repeat):
        return [AGAIN]
    return []


def steps_after_guess(
    words: Words, ask: Ask, choices: Sequence[str], said: str, guess: str
) -> list[str]:
    """The steps that folded words lead to where the question was "did you say", about a guess.

    Whoever names something else means that: "no, billing", and "right, I said billing".
    """
    if is_yes(words, said):
        rest = without_phrases(said, words.yes)
        named = mentioned_steps(ask, rest) or commanded_steps(words, rest)
        return [step for step in named if step != guess] or [guess]
    if is_no(words, said):
        rest = without_phrases(said, (*words.no, *words.negations))
        return [step for step in steps_of_words(words, ask, choices, rest) if step != guess]
    return steps_of_words(words, ask, choices, said)


def command_in_any(languages: Mapping[str, Words], keys: str, said: str) -> str:
    """The step of a command, keyed or spoken, while the language is open; none if it is none."""
    if keys:
        return {"0": OPERATOR, "*": AGAIN}.get(keys, "")
    found = [step for words in languages.values() for step in commanded_steps(words, said)]
    return found[0] if found else ""


def find_language(
    languages: Mapping[str, Words], offered: Sequence[str], keys: str, said: str
) -> str:
    """The tag of the language that was keyed or named; none if none was, or if it was denied.

    `offered` are the tags as the caller heard them. A deploy may have changed the order since. A
    no in any of the languages denies what is named next: "no hablo inglés", "no English, Spanish".
    """
    if keys:
        return dict(zip(DIGITS, offered, strict=False)).get(keys, "")
    named = {
        tag: place
        for tag, words in languages.items()
        if (place := find_any(said, words.chosen_by)) >= 0
    }
    no = [phrase for words in languages.values() for phrase in (*words.no, *words.negations)]
    if (place_of_no := find_any(said, no)) >= 0:
        denied = min((place for place in named.values() if place > place_of_no), default=None)
        named = {tag: place for tag, place in named.items() if place != denied}
        if denied is None or len({*named.values()}) > 1:
            return ""
    return min(named, key=named.__getitem__, default="")


def similar_step(ask: Ask, said: str) -> str:
    """The step of the choice that the words sound like; none if they sound like none of them."""
    from difflib import SequenceMatcher  # only a caller who was not understood needs it

    best, found = 0.0, ""
    for name, step in ask.routes.items():
        for part in fold_words(speak_name(name)).split():
            for word in said.split():
                if min(len(word), len(part)) < SHORTEST:
                    continue
                likeness = SequenceMatcher(None, word, part).ratio()
                if word.startswith(part) or part.startswith(word):
                    likeness = 1.0  # "bill" for billing
                if likeness >= LIKE and likeness > best:
                    best, found = likeness, step
    return found


def is_yes(words: Words, said: str) -> bool:
    """Tell whether words agree. "That's right" does; "that's not right" is a no."""
    return mentions_any(said, words.yes) and not is_no(words, said)


def is_no(words: Words, said: str) -> bool:
    """Tell whether words deny: a no, or anything with a "not" in it."""
    return mentions_any(said, words.no) or is_negated(words, said)


def is_negated(words: Words, said: str) -> bool:
    """Tell whether a "not" stands in the words."""
    return mentions_any(said, words.negations)


def key_of_words(words: Words, said: str) -> str:
    """The key that words name: "two", "number two", "two please", or "to" said alone."""
    if said in words.keys_alone:
        return words.keys_alone[said]
    for form in (said, without_filler(words, said)):
        if form in words.keys:
            return words.keys[form]
        if len(form) == 1 and form in "0" + DIGITS:
            return form
    return ""


def is_command(words: Words, said: str, phrases: Iterable[str]) -> bool:
    """Tell whether words are one of the phrases, and nothing else that counts."""
    said_phrases = [phrase for phrase in phrases if mentions_any(said, [phrase])]
    for phrase in said_phrases:
        rest = without_phrases(without_phrases(said, [phrase]), said_phrases)
        if not without_filler(words, rest):
            return True
    return False


def without_filler(words: Words, said: str) -> str:
    """Folded words without those that only stand around: please, the, I would like."""
    return without_phrases(said, words.filler)


def without_phrases(said: str, phrases: Iterable[str]) -> str:
    """Folded words without some phrases, wherever they stand as whole words."""
    left = double_spaces(said)
    for phrase in phrases:
        if phrase in said:
            left = left.replace(double_spaces(phrase), " ")
    return " ".join(left.split())


def double_spaces(said: str) -> str:
    """Words with two spaces between and around: each has its own, so that neighbours both go."""
    return f" {'  '.join(said.split())} "


def mentions_any(said: str, phrases: Iterable[str]) -> bool:
    """Tell whether one of the phrases stands in the words, as whole words; all of them folded."""
    return find_any(said, phrases) >= 0


def find_any(said: str, phrases: Iterable[str]) -> int:
    """The place of the first of the phrases in the words, as whole words; -1 if none is there."""
    between_blanks = f" {said} "
    places = [between_blanks.find(f" {phrase} ") for phrase in phrases]
    return min((place for place in places if place >= 0), default=-1)
