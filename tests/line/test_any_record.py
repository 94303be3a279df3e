"""Whatever is written into a cell is read back; whatever else stands there is no record."""

import json
from dataclasses import fields
from typing import Any, Final

from hypothesis import given, settings
from hypothesis import strategies as st

from phone_line.records import Answer, Question, Record, read_record, write_record
from standins.examples import STEADY, as_many

FLOATS: Final = st.floats(allow_nan=False)
MOMENT: Final = st.floats(0, 1e11)
KEPT: Final = st.text(max_size=40)
COUNT: Final = st.integers(0, 10**9)

RECORDS: Final = st.builds(
    Record,
    **dict.fromkeys(("turn", "misses", "ms", "hold"), COUNT),
    **dict.fromkeys(("step", "guess", "quote", "prompt", "recording", "twiml"), KEPT),
    **dict.fromkeys(("asker", "heard", "keys", "dial", "said"), KEPT),
    at=MOMENT,
    confidence=st.none() | MOMENT,
)

ASKED: Final = st.builds(
    Question, speech=KEPT, confidence=st.none() | MOMENT, keys=KEPT, at=MOMENT, step=KEPT
)

PLAIN_ANSWERS: Final = st.builds(Answer, say=KEPT, then=KEPT, to=KEPT, failed=st.booleans())
ANY_RECORD: Final = st.one_of(RECORDS, ASKED, PLAIN_ANSWERS)

JSON: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | FLOATS | KEPT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(KEPT, inner, max_size=2),
    max_leaves=4,
)

READ: Final[Any] = read_record  # the kind is chosen at run time


@settings(STEADY, max_examples=as_many(200))
@given(record=ANY_RECORD, more=st.dictionaries(KEPT, JSON, max_size=3))
def test_a_cell_says_what_was_written_into_it(
    record: Record | Question | Answer, more: dict[str, Any]
) -> None:
    """A record is read as it was written, and what another release added to it is ignored."""
    value = write_record(record)
    assert READ(type(record), value) == record
    newer = {f"{name} of a newer release": each for name, each in more.items()}
    assert READ(type(record), json.dumps(newer | json.loads(value))) == record


@settings(STEADY, max_examples=as_many(200))
@given(record=RECORDS, wrong=st.dictionaries(st.sampled_from(fields(Record)), JSON))
def test_a_field_of_another_type_counts_as_missing(record: Record, wrong: dict[Any, Any]) -> None:
    """Whatever stands in a cell, what is read from it has the types that the code relies on."""
    known = json.loads(write_record(record)) | {f.name: value for f, value in wrong.items()}
    read = read_record(Record, json.dumps(known))
    assert read is not None
    for each in fields(Record):
        numbers = (int, float)
        kinds = {float: numbers, type(None): (*numbers, type(None))}.get(
            type(each.default), (type(each.default),)
        )
        assert isinstance(getattr(read, each.name), kinds)


@settings(STEADY, max_examples=as_many(200))
@given(value=KEPT | JSON.map(json.dumps) | st.binary(max_size=40).map(repr))
def test_rubbish_in_a_cell_is_read_as_nothing_or_as_a_record(value: str) -> None:
    """No text in a cell is an exception."""
    for kind in (Record, Question, Answer):
        read = READ(kind, value)
        assert read is None or isinstance(read, kind)
