"""Records that are lost, spoiled, or of another release: the conversation goes on.

Records of older releases stay in tests/records and must still load.
"""

import json
import uuid
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phone_line.records import DEFAULTS, Record, read_turn, write_record
from standins.examples import STEADY, as_many
from standins.inside import (
    ORIGIN,
    Inside,
    fill_cell,
    judged,
    new_call,
    replace_cell,
    stored,
    webhook,
)
from standins.lines import BACKEND, FORWARD, MENU
from standins.rows import mostly_long
from standins.sentences import in_twiml, say
from standins.twiml import judge
from standins.upstash import Upstash

SAVED: Final = sorted(Path(__file__).parents[1].glob("records/*.json"))


@settings(STEADY, max_examples=as_many(200))
@given(
    turn=st.integers(0, 100),
    misses=st.integers(0, 3),
    said_=st.text(),
    at_=st.floats(0, 2e9),
    twiml=st.text(min_size=1),
)
def test_a_record_is_read_as_it_was_written(
    turn: int, misses: int, said_: str, at_: float, twiml: str
) -> None:
    """Any text survives the way into a cell and back, half characters aside that UTF-8 has not."""
    text = said_.encode("utf-8", "ignore").decode()
    record = Record(turn=turn, step=text, misses=misses, quote=text, twiml=twiml, said=text, at=at_)
    assert read_turn(write_record(record)) == record


@pytest.mark.parametrize("value", [None, "", "null", "[]", "7", "{}", '"x"', "{", "[" * 99_999])
def test_what_is_no_record_is_none(value: str | None) -> None:
    """An empty cell and rubbish are the same: there is no record."""
    assert read_turn(value) is None


def test_there_are_saved_records() -> None:
    """The folder of saved records is where the next tests look."""
    assert len(SAVED) >= 5


class Saved(NamedTuple):
    """A record of an older release, what the next webhook brings, and what the caller hears."""

    cell: str
    turn: int
    step: str
    twiml: str
    brings: dict[str, str]
    hears: str


def saved(path: Path) -> Saved:
    """A file in tests/records."""
    known = json.loads(path.read_text(encoding="utf-8"))
    cell = known["cell"]
    text = json.dumps(cell, ensure_ascii=False)
    hears = known["hears"]
    if isinstance(hears, dict):  # a sentence by its name, and what is filled in
        hears = in_twiml(hears["name"], **hears.get("blanks", {}))
    return Saved(text, cell["turn"], cell["step"], cell["twiml"], known["brings"], hears)


class Memory(NamedTuple):
    """A line with a store, and a way to put records into it."""

    line: Inside
    upstash: Upstash

    def fill_cell(self, record: Saved) -> str:
        """Put a record where it stood; the CallSid of a call that knows it."""
        call_sid = "CA" + uuid.uuid4().hex
        cell = f"call:{call_sid}:{record.turn}"
        self.upstash.quietly(["SET", cell, record.cell, "EX", "600"])
        return call_sid


@pytest.fixture(scope="module")
def memory() -> Iterator[Memory]:
    with Upstash() as running:
        yield Memory(Inside({**FORWARD, **MENU, **BACKEND, **running.settings}), running)


@pytest.mark.parametrize("path", SAVED, ids=lambda path: str(path.stem))
def test_what_an_older_release_said_is_said_again(path: Path, memory: Memory) -> None:
    """A webhook that an older release has answered is answered with the same bytes."""
    record = saved(path)
    target = f"/voice/process?turn={record.turn - 1}&step=reason"
    answer = memory.line.post(target, {"CallSid": memory.fill_cell(record), "Digits": "0"})
    assert answer.body.decode() == record.twiml


@pytest.mark.parametrize("path", SAVED, ids=lambda path: str(path.stem))
def test_a_call_of_an_older_release_goes_on(path: Path, memory: Memory) -> None:
    """A deploy in mid-call: the new release carries on from the step at which the call waits."""
    record = saved(path)
    target = f"/voice/process?turn={record.turn}&step={record.step}"
    answer = memory.line.post(target, {"CallSid": memory.fill_cell(record), **record.brings})
    said_ = answer.body.decode()
    assert record.hears in said_
    assert f"turn={record.turn + 1}&" in said_ or "<Hangup" in said_
    assert judge(said_, ORIGIN + target) == []


PERSON: Final = "+15550100099"


def test_a_step_of_another_release_is_asked_from_the_start(line: Inside, file: Path) -> None:
    """A deploy in mid-call has taken the step away: the first question again, and nothing lost."""
    phone = line.phone()
    phone.ring()
    record = stored(file)[f"call:{phone.call_sid}:1"]
    assert '"reason"' in record
    replace_cell(file, phone.call_sid, 1, record.replace('"reason"', '"tickets"'))
    phone.say("one way to Boston")
    assert phone.state == "gather"
    assert say("ask_reason") in phone.heard
    sent = phone.webhooks[-1].answer
    assert sent is not None
    assert b"turn=2" in sent.body


@pytest.mark.parametrize(
    "value", ["", "null", "[]", "{", "[" * 9999, "7", '{"twiml": 1}', '{"misses": "x"}', "\x00"]
)
def test_a_cell_that_holds_no_record_counts_as_lost(line: Inside, file: Path, value: str) -> None:
    """Rubbish in a cell is no reason to lose a caller: the step in the URL carries on."""
    form = webhook(SpeechResult="Ann, my bill")
    replace_cell(file, form["CallSid"], 1, value)
    said = judged(line.post("/voice/process?turn=1&step=reason", form))
    assert PERSON in said


def test_rubbish_in_the_cell_of_the_answer_is_not_said(line: Inside, file: Path) -> None:
    """Where the answer should stand there is rubbish: the caller hears what is decided now."""
    form = webhook(SpeechResult="Ann, my bill")
    replace_cell(file, form["CallSid"], 2, "rubbish")
    assert PERSON in judged(line.post("/voice/process?turn=1&step=reason", form))


LOST: Final[list[tuple[str, dict[str, str], str]]] = [
    ("reason", {"SpeechResult": "Ann, my bill"}, f">{PERSON}</Number>"),
    ("reason", {"Digits": "0"}, f">{PERSON}</Number>"),
    ("reason", {}, in_twiml("not_heard")),
    ("connect", {"DialCallStatus": "completed"}, in_twiml("goodbye")),
    ("connect", {"DialCallStatus": "no-answer"}, "<Record"),
    ("", {"DialCallStatus": "busy"}, "<Record"),
    ("voicemail", {"RecordingUrl": "https://api.example/RE1"}, in_twiml("message_taken")),
    ("", {"RecordingUrl": "https://api.example/RE1"}, in_twiml("message_taken")),
    ("", {"SpeechResult": "Ann, my bill"}, in_twiml("ask_reason")),
]


@pytest.mark.parametrize(("step", "brought", "said"), LOST)
def test_a_lost_record_is_made_up_for_by_the_webhook(
    line: Inside, step: str, brought: dict[str, str], said: str
) -> None:
    """Nobody knows this call: its step comes from the URL, and what the webhook brings is used."""
    answer = line.post(f"/voice/process?turn=5&step={step}", webhook(**brought))
    assert said in judged(answer)


ADMIN = {"ADMIN_TOKEN": "a" * 12}
LOGIN = {"Authorization": "Basic " + b64encode(b"x:" + b"a" * 12).decode()}


HALF = r'"\ud800"'

SPOILED: Final = {
    f"{name} {value}": (name, value)
    for name, blank in DEFAULTS[Record].items()
    for value in ([HALF] if isinstance(blank, str) else ["-1", "-1e9", "NaN", "1e999"])
}


@pytest.mark.parametrize(
    ("field", "value"),
    mostly_long(SPOILED, f"step {HALF}", "turn -1", "misses NaN", "lasted 1e999"),
)
def test_a_spoiled_cell_does_not_end_a_conversation(field: str, value: str, tmp_path: Path) -> None:
    """Half a character, or a number that is none, in any field: it goes on from the URL's step."""
    here = Inside({"FORWARD_TO": PERSON, "STATE_FILE": str(tmp_path / "calls"), **ADMIN})
    record = f'{{"twiml":"<Response/>","step":"reason","{field}":{value}}}'
    for turn in (1, 2):  # what had been asked; what this webhook was answered before
        call = new_call()
        fill_cell(here, f"call:{call}:{turn}", record)
        said = here.post(
            "/voice/process?turn=1&step=reason", webhook(CallSid=call, SpeechResult="Ann")
        )
        stands = turn == 2 and value != HALF
        assert said.status == 200
        answer = "<Response/>" if stands else in_twiml("heard_connecting", heard="Ann")
        assert answer in said.body.decode()
        assert here.send("GET", f"/calls/{call}", headers=LOGIN).status in (200, 404)


@pytest.mark.parametrize("misses", ["-1000000", "-1", "NaN"])
def test_a_spoiled_count_does_not_keep_a_silent_caller(misses: str, tmp_path: Path) -> None:
    """Who says nothing three times gets voicemail, whatever number of misses stands in a cell."""
    here = Inside({"FORWARD_TO": PERSON, "STATE_FILE": str(tmp_path / "calls")})
    call = new_call()
    fill_cell(here, f"call:{call}:1", f'{{"twiml":"x","step":"reason","misses":{misses}}}')
    at = "/voice/process?step=reason&turn="
    said = [here.post(f"{at}{turn}", webhook(CallSid=call)).body for turn in (1, 2, 3)]
    assert [b"<Record" in each for each in said] == [False, False, True]
