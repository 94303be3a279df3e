"""Whose number the rung phone shows, and whom a line never rings: itself, and whoever calls."""

from pathlib import Path
from typing import Final
from xml.etree import ElementTree

import pytest

from standins.inside import Inside, judged, webhook

LINE: Final = "+15550001111"
OWNER: Final = "+15550100099"
SECOND: Final = "+15550100098"


def parse_document(twiml: str) -> ElementTree.Element:
    """The Response of a document of ours."""
    return ElementTree.fromstring(twiml)  # noqa: S314 # our own, which the judge has passed


def dial(twiml: str) -> tuple[str | None, list[str]]:
    """The callerId of a document's Dial, and the phones that it rings."""
    element = parse_document(twiml).find("Dial")
    if element is None:
        return None, []
    return element.get("callerId"), [phone.text or "" for phone in element]


def connected(tmp_path: Path, fields: dict[str, str], **env: str) -> tuple[str | None, list[str]]:
    """The Dial that a caller gets who has said a reason."""
    here = Inside({"FORWARD_TO": OWNER, "STATE_FILE": str(tmp_path / "calls"), **env})
    call = webhook(**fields)
    here.post("/voice/inbound", call)
    said = here.post("/voice/process?turn=1&step=reason", {**call, "SpeechResult": "Ann"})
    return dial(judged(said))


@pytest.mark.parametrize(
    "caller",
    ["client:alice", "sip:bob@example.com", "5551234", "", "anonymous", "Anonymous", "+266696687"],
)
def test_a_caller_without_a_number_to_show_is_shown_as_the_line(
    tmp_path: Path, caller: str
) -> None:
    """A browser, a SIP address, a short or withheld number: the called number is shown."""
    assert connected(tmp_path, {"From": caller}) == (LINE, [OWNER])


def test_a_caller_with_a_number_is_shown(tmp_path: Path) -> None:
    """By itself Dial shows the caller, so nothing is said of it."""
    assert connected(tmp_path, {"From": "+15557654321"}) == (None, [OWNER])


@pytest.mark.parametrize(("choice", "shown"), [("line", LINE), ("+15550001112", "+15550001112")])
def test_the_owner_may_choose_what_is_shown(tmp_path: Path, choice: str, shown: str) -> None:
    """CALLER_ID is the line's number, or another of the account."""
    assert connected(tmp_path, {}, CALLER_ID=choice)[0] == shown


def test_a_called_address_that_is_no_number_is_not_shown(tmp_path: Path) -> None:
    """A SIP caller of a SIP line has no number at all to show; Twilio decides."""
    fields = {"From": "sip:bob@example.com", "To": "sip:line@example.sip.twilio.com"}
    assert connected(tmp_path, fields)[0] is None


@pytest.mark.parametrize("caller", ["client:alice", "sip:bob@x", "5551234", "+15557654321"])
def test_who_withholds_nothing_is_not_blocked_as_anonymous(tmp_path: Path, caller: str) -> None:
    """BLOCKED=anonymous means withheld numbers alone."""
    here = Inside({"BLOCKED": "anonymous", "STATE_FILE": str(tmp_path / "calls")})
    assert "<Reject" not in judged(here.post("/voice", webhook(From=caller)))


@pytest.mark.parametrize(
    "caller", ["anonymous", "ANONYMOUS", "", "Restricted", "+464", "+7378742833"]
)
def test_whoever_withholds_a_number_is_blocked_as_anonymous(tmp_path: Path, caller: str) -> None:
    """The words that carriers use, in any case, as letters or as typed on the keypad."""
    here = Inside({"BLOCKED": "anonymous", "STATE_FILE": str(tmp_path / "calls")})
    assert "<Reject" in judged(here.post("/voice", webhook(From=caller)))


@pytest.mark.parametrize(
    "fields",
    [
        {"ForwardedFrom": OWNER},
        {"From": OWNER},
        {"To": OWNER},
        {"ForwardedFrom": "1 (555) 010-0099"},
        {"From": "15550100099"},
        {"To": " +1 555 0100099"},
        {"ForwardedFrom": "5550100099"},
        {"ForwardedFrom": "05550100099"},
        {"ForwardedFrom": "001 555 010 0099"},
        {"ForwardedFrom": "sip:+15550100099@carrier.example;user=phone"},
        {"To": "sip:15550100099@example.sip.twilio.com"},
    ],
)
def test_a_line_never_rings_itself(tmp_path: Path, fields: dict[str, str]) -> None:
    """The number that forwarded the call, that calls, or that was called: voicemail at once."""
    assert connected(tmp_path, fields) == (None, [])


@pytest.mark.parametrize(
    "fields",
    [
        {"From": "client:alice"},
        {"From": "sip:0099@pbx.example.com"},
        {"ForwardedFrom": "0100099"},
        {"ForwardedFrom": "+5550100099"},
        {"ForwardedFrom": "+4915550100099"},
        {"ForwardedFrom": ""},
    ],
)
def test_another_number_is_not_taken_for_the_phone(tmp_path: Path, fields: dict[str, str]) -> None:
    """A number of another country, an extension, the name of a client: the phone rings."""
    assert connected(tmp_path, fields)[1] == [OWNER]


def test_of_several_phones_only_the_callers_own_is_left_out(tmp_path: Path) -> None:
    """The other one rings."""
    phones = f"{OWNER}, {SECOND}"
    assert connected(tmp_path, {"From": OWNER}, FORWARD_TO=phones)[1] == [SECOND]
    assert connected(tmp_path, {}, FORWARD_TO=phones)[1] == [OWNER, SECOND]


def test_a_sip_address_is_rung_without_being_asked(tmp_path: Path) -> None:
    """An agent or a telephone system cannot press 1; a number is asked to."""
    phones = f"{OWNER},sip:desk@pbx.example.com"
    here = Inside({"FORWARD_TO": phones, "STATE_FILE": str(tmp_path / "calls")})
    call = webhook()
    here.post("/voice/inbound", call)
    said = judged(here.post("/voice/process?turn=1&step=reason", {**call, "Digits": "0"}))
    [number, sip] = parse_document(said).findall("Dial/*")
    assert (number.tag, number.text) == ("Number", OWNER)
    assert "/voice/accept?" in number.get("url", "")
    assert (sip.tag, sip.text, sip.get("url")) == ("Sip", "sip:desk@pbx.example.com", None)


def test_the_apology_does_not_ring_the_line_itself(tmp_path: Path) -> None:
    """A bug of ours, and FORWARD_TO is the line: an apology, and no Dial that comes back here."""
    here = Inside({"FORWARD_TO": LINE, "STATE_FILE": str(tmp_path / "calls")})
    del here.line.desk  # any webhook is a bug now
    said = judged(here.post("/voice/inbound", webhook()))
    assert dial(said) == (None, [])
    assert "<Hangup" in said
