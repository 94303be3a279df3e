"""What the settings for opening hours, callers and languages change in what a caller hears.

The clock is the real one: the hours are made so that now is inside or outside of them, in a time
zone far away; what they mean at other moments is a table.
"""

import json
import re
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

import pytest
from inside import ORIGIN, Inside
from phone import Answer, Phone, judge
from upstash import Upstash

import main

PERSON: Final = {"FORWARD_TO": "+15550100099"}
CALLER: Final = "+15557654321"
DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def heard(line: Inside, caller: str = CALLER) -> Phone:
    """A phone that has rung there; whether its answer kept Twilio's rules is the judge's to say."""
    phone = line.phone(caller)
    phone.ring()
    assert phone.broken == []
    return phone


# Opening hours.

BERLIN: Final = "Mon-Fri 09:00-17:00, Sat 10:00-14:00 Europe/Berlin"
MOMENTS: Final = [
    # the hours, a moment in UTC, whether it is open then
    (BERLIN, "2026-07-06 06:59", False),  # a Monday in summer, when Berlin is two hours ahead
    (BERLIN, "2026-07-06 07:00", True),
    (BERLIN, "2026-07-06 14:59", True),
    (BERLIN, "2026-07-06 15:00", False),
    (BERLIN, "2026-01-05 07:59", False),  # a Monday in winter, when it is one
    (BERLIN, "2026-01-05 08:00", True),
    (BERLIN, "2026-01-05 15:59", True),
    (BERLIN, "2026-01-05 16:00", False),
    (BERLIN, "2026-07-11 08:00", True),  # Saturday
    (BERLIN, "2026-07-11 12:00", False),
    (BERLIN, "2026-07-12 10:00", False),  # Sunday
    ("Mon 00:00-24:00 Pacific/Auckland", "2026-07-05 12:00", True),  # Monday has begun there
    ("Mon 00:00-24:00 Pacific/Auckland", "2026-07-06 11:59", True),
    ("Mon 00:00-24:00 Pacific/Auckland", "2026-07-06 12:00", False),
    ("mon-mon 09:00-12:00,Mon 13:00-17:00 UTC", "2026-07-06 12:30", False),  # a lunch break
    ("mon-mon 09:00-12:00,Mon 13:00-17:00 UTC", "2026-07-06 13:00", True),
]


@pytest.mark.parametrize(("hours", "moment", "is_open"), MOMENTS)
def test_hours_are_those_of_the_place(hours: str, moment: str, *, is_open: bool) -> None:
    """The clock on the wall there decides, summer time included; at closing time it is closed."""
    at = datetime.fromisoformat(moment).replace(tzinfo=UTC).timestamp()
    closed = main.read_settings({"TWILIO_AUTH_TOKEN": "secret", "HOURS": hours}).closed
    assert closed
    assert closed(at) is not is_open


def around_now(zone: str, *, is_open: bool) -> str:
    """Hours of today or of the day after tomorrow, so that it is open or closed there now."""
    there = datetime.now(ZoneInfo(zone))
    days = [there + timedelta(days=n) for n in (0, 1)] if is_open else [there + timedelta(days=2)]
    return ", ".join(f"{DAYS[day.weekday()]} 00:00-24:00" for day in days) + f" {zone}"


@pytest.mark.parametrize("zone", ["Europe/Berlin", "Pacific/Auckland", "America/Los_Angeles"])
def test_outside_the_hours_a_caller_may_leave_a_message(tmp_path: Path, zone: str) -> None:
    """Closed is said, then recorded; nobody is called, whatever the caller would have said."""
    state = {"STATE_FILE": str(tmp_path / "calls")}
    phone = heard(Inside({**state, **PERSON, "HOURS": around_now(zone, is_open=False)}))
    assert phone.heard[0].startswith("We are closed at the moment.")
    assert phone.state == "record"
    phone.leave_message()
    assert phone.heard[-1].startswith("Thank you. Your message is recorded.")


@pytest.mark.parametrize("zone", ["Europe/Berlin", "Pacific/Auckland", "America/Los_Angeles"])
def test_within_the_hours_nothing_is_different(tmp_path: Path, zone: str) -> None:
    """Open means the usual greeting, word for word."""
    usual, opened = (
        heard(Inside({"STATE_FILE": str(tmp_path / name), **PERSON, **more}))
        for name, more in (("a", {}), ("b", {"HOURS": around_now(zone, is_open=True)}))
    )
    assert opened.heard == usual.heard


def test_a_call_that_began_in_time_is_carried_on(tmp_path: Path) -> None:
    """The hours decide at the door: who is inside at closing time is served."""
    state = {"STATE_FILE": str(tmp_path / "calls")}
    phone = heard(Inside({**state, **PERSON}))
    closed = Inside({**state, **PERSON, "HOURS": around_now("UTC", is_open=False)})
    answer = closed.post(
        "/voice/process?turn=1&step=reason",
        {"CallSid": phone.call_sid, "From": CALLER, "SpeechResult": "Ann"},
    )
    assert b"<Dial" in answer.body


# Callers.


def first(line: Inside, call_sid: str, caller: str = CALLER) -> Answer:
    """The first webhook of a call."""
    return line.post("/voice", {"CallSid": call_sid, "From": caller, "To": "+15550001111"})


def sid() -> str:
    return "CA" + uuid.uuid4().hex


@pytest.mark.parametrize(
    ("caller", "served"),
    [
        ("+15550100066", False),
        ("anonymous", False),
        ("+15550100067", True),
        ("+1555010006", True),
        ("unknown", False),
    ],
)
def test_a_blocked_caller_is_turned_away(tmp_path: Path, caller: str, *, served: bool) -> None:
    """Exactly those named are rejected before the call is answered, so that nothing is billed."""
    state = {"STATE_FILE": str(tmp_path / "calls")}
    line = Inside({**state, **PERSON, "BLOCKED": "+15550100066 anonymous"})
    said = first(line, sid(), caller).body.decode()
    assert ('<Reject reason="rejected"' in said) is not served
    assert ("<Gather" in said) is served


def test_a_caller_has_so_many_calls_an_hour(upstash: Upstash) -> None:
    """With CALLS_PER_HOUR=2 the third call of a number hears busy; another number does not."""
    line = Inside({**upstash.settings, **PERSON, "CALLS_PER_HOUR": "2"})
    said = [first(line, sid()).body.decode() for _ in range(4)]
    assert ['<Reject reason="busy"' in each for each in said] == [False, False, True, True]
    assert b"<Gather" in first(line, sid(), "+15550100001").body


def test_the_limit_holds_for_all_instances(upstash: Upstash) -> None:
    """Who has used up the calls at one instance has used them up at every one."""
    env = {**upstash.settings, **PERSON, "CALLS_PER_HOUR": "1"}
    assert b"<Gather" in first(Inside(env), sid()).body
    assert b"<Reject" in first(Inside(env), sid()).body


def test_a_repeated_first_webhook_is_counted_once(upstash: Upstash) -> None:
    """Twilio's repeats are the same call: the next call of the caller is still served."""
    line = Inside({**upstash.settings, **PERSON, "CALLS_PER_HOUR": "2"})
    one = sid()
    answers = {first(line, one).body for _ in range(5)}
    assert len(answers) == 1
    assert b"<Gather" in first(line, sid()).body
    assert b"<Reject" in first(line, sid()).body


def test_a_repeat_after_a_lost_answer_is_counted_once(upstash: Upstash) -> None:
    """The place was taken, then Redis failed: the same call again finds its own place."""
    line = Inside({**upstash.settings, **PERSON, "CALLS_PER_HOUR": "1", "RESPONSE_DEADLINE": "1"})
    one = sid()
    upstash.fault = lambda command: "drop" if command[1].startswith("call:") else None
    assert b"<Gather" in first(line, one).body
    upstash.fault = None
    assert b"<Gather" in first(line, one).body
    assert b"<Reject" in first(line, sid()).body


def test_a_call_in_progress_is_not_counted_again(upstash: Upstash) -> None:
    """The limit is asked at the first webhook only: later ones cost what they always cost."""
    line = Inside({**upstash.settings, **PERSON, "CALLS_PER_HOUR": "1"})
    phone = heard(line)
    upstash.forget()
    phone.say("my bill")
    assert phone.state == "dial"
    assert [command[0] for command in upstash.commands] == ["MGET", "SET"]


def test_without_a_limit_nothing_is_asked(upstash: Upstash) -> None:
    """Unset, CALLS_PER_HOUR costs no command: the first webhook is one, and there is no counter."""
    first(Inside({**upstash.settings, **PERSON}), sid())
    assert [command[0] for command in upstash.commands] == ["SET"]
    assert not [key for key in list(upstash.keys()) if key.startswith("caller:")]


def test_who_hides_the_number_is_not_counted(upstash: Upstash) -> None:
    """Callers without a number have nothing in common: one does not use up the calls of another."""
    line = Inside({**upstash.settings, **PERSON, "CALLS_PER_HOUR": "1"})
    said = [first(line, sid(), "anonymous").body for _ in range(3)]
    assert all(b"<Gather" in each for each in said)


def test_the_counter_forgets_and_hides_who_called(upstash: Upstash) -> None:
    """A counter lives for an hour, and no key of Redis has a phone number in it."""
    first(Inside({**upstash.settings, **PERSON, "CALLS_PER_HOUR": "2"}), sid())
    counters = {key: ttl for key, ttl in upstash.keys().items() if key.startswith("caller:")}
    assert counters
    assert all(0 < ttl <= 3600 for ttl in counters.values())
    assert not [key for key in list(upstash.keys()) if "7654321" in key]


def test_without_redis_callers_are_not_limited() -> None:
    """The counter is out of reach: a caller too many is better than one who is turned away."""
    away = {"UPSTASH_REDIS_REST_URL": "http://127.0.0.1:1", "UPSTASH_REDIS_REST_TOKEN": "t"}
    line = Inside({**away, **PERSON, "CALLS_PER_HOUR": "1"})
    assert all(b"<Gather" in first(line, sid()).body for _ in range(3))


# Languages.

PLACEHOLDER: Final = re.compile(r"{\w+}")


@pytest.mark.parametrize("language", sorted(set(main.WORDS) - {"en"}))
def test_a_language_is_complete(language: str) -> None:
    """Every sentence of English is there, not empty, its own, and with the same placeholders."""
    english, other = main.WORDS["en"], main.WORDS[language]
    assert sorted(other) == sorted(english)
    for name, sentence in english.items():
        assert other[name].strip()
        assert sorted(PLACEHOLDER.findall(other[name])) == sorted(PLACEHOLDER.findall(sentence))
    assert [name for name in other if other[name] == english[name]] == ["ask_menu"]


@pytest.mark.parametrize("language", sorted(main.WORDS))
def test_the_words_of_a_language_do_not_contradict_each_other(language: str) -> None:
    """No word means both yes and no, or both a person and a repetition; nine numbers are there."""
    words = main.WORDS[language]
    lists = {name: main.word_list(words[name]) for name in words if name.startswith("words_")}
    assert not {*lists["words_yes"]} & {*lists["words_no"]}
    assert not {*lists["words_operator"]} & {*lists["words_repeat"]}
    assert len(lists["words_numbers"]) == 9
    assert all(word for each in lists.values() for word in each)


def sentences(table: dict[str, str]) -> Callable[[str], bool]:
    """Whether something said is made of the sentences of a table, and of nothing else."""
    silent = ("words_", "voice", "ask_menu")  # the menu is made of menu_items
    spoken = [table[name] for name in table if not name.startswith(silent)]
    patterns = [PLACEHOLDER.sub(".+?", re.sub(r"([.?*+()])", r"\\\1", each)) for each in spoken]
    known = re.compile("(?:(?:" + "|".join(sorted(patterns, key=len, reverse=True)) + ") ?)+")
    return lambda said: known.fullmatch(said) is not None


TALKS: Final[list[tuple[str, dict[str, str], list[tuple[str, str]]]]] = [
    # the line, its settings, what the caller does
    ("forward", PERSON, [("say", "Anna, meine Rechnung"), ("callee", "no-answer")]),
    ("nothing heard", PERSON, [("silent", ""), ("silent", ""), ("silent", "")]),
    (
        "menu",
        {**PERSON, "DEPARTMENTS": "rechnung=+15550100001 verkauf=+15550100002"},
        [("say", "hm"), ("say", "zwei"), ("callee", "busy")],
    ),
    (
        "a doubt",
        {"DEPARTMENTS": "rechnung=+15550100001"},
        [("doubt", "rechnung"), ("say", "ja, genau"), ("callee", "completed")],
    ),
    ("a person", PERSON, [("say", "Vermittlung, bitte"), ("callee", "failed")]),
    ("again", PERSON, [("say", "nochmal"), ("press", "*"), ("press", "0")]),
]


@pytest.mark.parametrize(
    ("settings", "deeds"), [pytest.param(*row[1:], id=row[0]) for row in TALKS]
)
def test_a_german_call_is_german_throughout(
    tmp_path: Path, settings: dict[str, str], deeds: list[tuple[str, str]]
) -> None:
    """With LANGUAGE=de-DE every word, every voice and every recognition is German."""
    state = {"STATE_FILE": str(tmp_path / "calls"), "LANGUAGE": "de-DE"}
    phone = heard(Inside({**state, **settings}))
    said = [*phone.heard]
    for deed, words in deeds:
        said += do(phone, deed, words)
    assert phone.broken == []
    german = sentences(dict(main.WORDS["de"]))
    assert not any(map(german, main.WORDS["en"].values()))
    assert [each for each in said if not german(each)] == []
    for webhook in phone.webhooks:
        if webhook.answer and webhook.answer.body:
            body = webhook.answer.body.decode()
            assert {*re.findall('language="(.*?)"', body)} <= {"de-DE"}
            assert {*re.findall('voice="(.*?)"', body)} <= {"Polly.Vicki"}
            assert judge(body, ORIGIN) == []


def do(phone: Phone, deed: str, words: str) -> list[str]:
    """One thing that a caller or a callee does; what the line says then."""
    if deed == "doubt":
        return phone.say(words, 0.2)
    deeds: dict[str, Callable[[], list[str]]] = {
        "say": lambda: phone.say(words),
        "press": lambda: phone.press(words),
        "silent": phone.silent,
        "callee": lambda: phone.callee(words),
    }
    return deeds[deed]()


def test_german_words_have_the_effect_of_english_ones(tmp_path: Path) -> None:
    """A number, a yes and a wish for a person are understood in German, and shown in the record."""
    menu = {"DEPARTMENTS": "rechnung=+15550100001 verkauf=+15550100002", **PERSON}
    state = {"STATE_FILE": str(tmp_path / "calls"), "LANGUAGE": "de-DE", "ADMIN_TOKEN": "x" * 12}
    line = Inside({**state, **menu})
    ways: list[tuple[str, str]] = [("zwei", "+15550100002"), ("mensch", "+15550100099")]
    for words, number in ways:
        phone = heard(line)
        phone.say(words)
        assert phone.state == "dial"
        assert f"line dials {number}" in phone.transcript


def test_a_greeting_of_ones_own_is_said_in_any_language(tmp_path: Path) -> None:
    """GREETING replaces the first sentence and no other."""
    for number, language in enumerate(("en-US", "de-DE")):
        state = {"STATE_FILE": str(tmp_path / str(number)), "LANGUAGE": language}
        usual, own = heard(Inside(state)), heard(Inside({**state, "GREETING": "Moin & hello <3"}))
        assert own.heard[0] == "Moin & hello <3"
        assert own.heard[1:] == usual.heard[1:]


def test_the_log_is_in_english(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The language is the callers': who reads the log finds the same words everywhere."""
    heard(Inside({"STATE_FILE": str(tmp_path / "c"), "LANGUAGE": "de-DE"})).hang_up()
    entries: list[dict[str, Any]] = [
        json.loads(each) for each in capsys.readouterr().out.splitlines()
    ]
    assert [entry["message"] for entry in entries] == ["webhook", "call ended"]
