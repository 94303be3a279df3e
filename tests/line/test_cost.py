"""The cost of each webhook in commands and round trips to Redis."""

from collections.abc import Iterator
from typing import Final

import pytest

from standins.inside import Inside
from standins.upstash import Upstash
from standins.webhooks import Fields

SID: Final = "CA" + "5" * 32
BOOK: Final = {"DEPARTMENTS": "billing=+15550100001 sales=+15550100002"}
PERSON: Final = {"FORWARD_TO": "+15550100099"}
LEAVING: Final = {"RecordingUrl": "https://api.twilio.com/recording", "RecordingDuration": "7"}

CONVERSATIONS: Final[dict[str, tuple[dict[str, str], list[dict[str, str]]]]] = {
    "a question, a person": (
        PERSON,
        [{"SpeechResult": "My bill"}, {"DialCallStatus": "completed"}],
    ),
    "a person who is out": (PERSON, [{"Digits": "0"}, {"DialCallStatus": "no-answer"}, LEAVING]),
    "a menu by key": (BOOK, [{"Digits": "2"}, {"DialCallStatus": "completed"}]),
    "a doubtful word": (BOOK, [{"SpeechResult": "billing", "Confidence": "0.2"}, {"Digits": "1"}]),
    "silence, and nonsense": (BOOK | PERSON, [{}, {"SpeechResult": "Whale"}, {"Digits": "9"}, {}]),
    "nobody to connect to": ({}, [{"SpeechResult": "Hello?"}, LEAVING, {}]),
}


@pytest.fixture(scope="module")
def upstash() -> Iterator[Upstash]:
    with Upstash() as running:
        yield running


def cost(line: Inside, upstash: Upstash, target: str, fields: Fields) -> tuple[int, int, str]:
    """Commands and round trips of one webhook, and where its answer leads."""
    upstash.forget()
    answer = line.post(target, [("CallSid", SID), *fields])
    assert answer.status in {200, 204}
    way_back = answer.body.decode().partition('action="')[2].partition('"')[0]
    spent = len(upstash.commands), upstash.round_trips
    return *spent, way_back.partition("#")[0].replace("&amp;", "&")


@pytest.mark.parametrize("situation", CONVERSATIONS)
def test_a_first_webhook_costs_one_command_and_every_later_one_two(
    upstash: Upstash, situation: str
) -> None:
    """A call's first webhook costs one command, each later one two, each in its own round trip."""
    env, answers = CONVERSATIONS[situation]
    upstash.flush()
    line = Inside({**upstash.settings, **env})
    commands, trips, target = cost(line, upstash, "/voice/inbound", [])
    assert (commands, trips) == (1, 1)
    for turn, answer in enumerate(answers, 1):
        target = target or f"/voice/process?turn={turn}"
        commands, trips, target = cost(line, upstash, target, list(answer.items()))
        assert (commands, trips) == (2, 2), f"turn {turn}"


def test_a_repeated_webhook_costs_no_more_than_the_first_time(upstash: Upstash) -> None:
    """Twilio's retry is answered within the same two commands, whatever turn it repeats."""
    upstash.flush()
    line = Inside({**upstash.settings, **PERSON})
    target = cost(line, upstash, "/voice/inbound", [])[2]
    said = [("SpeechResult", "My bill")]
    first = cost(line, upstash, target, said)
    assert max(first[:2]) == max(cost(line, upstash, target, said)[:2]) == 2
    assert max(cost(line, upstash, "/voice/inbound", [])[:2]) <= 2


def test_the_end_of_a_call_costs_one_command(upstash: Upstash) -> None:
    """Without a backend to tell, the status callback only settles the end."""
    upstash.flush()
    line = Inside({**upstash.settings, **PERSON})
    cost(line, upstash, "/voice/inbound", [])
    over = [("CallStatus", "completed"), ("CallDuration", "61")]
    assert cost(line, upstash, "/voice/status", over)[:2] == (1, 1)


def test_a_refused_webhook_costs_nothing(upstash: Upstash) -> None:
    """A forged request reaches no Redis."""
    line = Inside({**upstash.settings, **PERSON})
    upstash.forget()
    assert line.send("POST", "/voice/inbound", b"CallSid=" + SID.encode()).status == 403
    assert upstash.commands == []
