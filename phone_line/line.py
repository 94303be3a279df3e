"""A line, made from its settings: the plan of its calls, what is wrong with it, and its store."""

from dataclasses import replace

from phone_line.answers import Line
from phone_line.cells import Store
from phone_line.checks import find_flaws
from phone_line.flow import build_flow
from phone_line.plan import Plan
from phone_line.settings import Settings
from phone_line.sqlite import SQLite
from phone_line.upstash import Upstash
from phone_line.words import Words, read_words


def open_line(settings: Settings) -> Line:
    """The line of these settings, whose `problems` then have the faults of its flow and words."""
    plan, faults = build_plan(settings)
    settings = replace(settings, problems=(*settings.problems, *faults))
    return Line(settings, plan, open_store(settings))


def build_plan(settings: Settings) -> tuple[Plan, list[str]]:
    """The plan of the line's calls in its first language, and what is wrong in any of them."""
    words = [choose_words(settings, tag) for tag in settings.language]
    others = {each.tag: each for each in words}
    plan = Plan(build_flow(settings), words[0], settings.numbers, others)
    faults: list[str] = []
    for each in words:
        faults += each.problems
        if each.was_read:
            faults += find_flaws(settings, replace(plan, words=each))
    return plan, list(dict.fromkeys(faults))


def choose_words(settings: Settings, tag: str) -> Words:
    """The words of a language, with the owner's own greeting. GREETING is the first language's."""
    words = read_words(tag)
    greeting = settings.greetings.get(tag.partition("-")[0], "")
    if settings.greeting and tag == settings.language[0]:
        greeting = settings.greeting
    if greeting:
        words = replace(words, sentences={**words.sentences, "greeting": greeting})
    return words


def open_store(settings: Settings) -> Store:
    """Where calls live: Upstash's database, else a file."""
    if settings.has_redis:
        return Upstash(settings.upstash_redis_rest_url, settings.upstash_redis_rest_token)
    return SQLite(settings.state_file)
