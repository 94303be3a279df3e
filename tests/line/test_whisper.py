"""Whoever picks up a phone that the line rings hears who calls, and takes the call by a key.

Whole calls of this kind are in tests/calls (accepted, voicemail_of_the_owner, wrong_key ...). Here
stands what a transcript cannot show: what a whisper costs, what it does not say, and what it is
worth while Redis is away.
"""

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest

from standins.asking import Webhook
from standins.call import Phone
from standins.inside import ORIGIN, TOKEN, Inside, webhook
from standins.pool import Pool
from standins.sentences import say
from standins.timing import LATE
from standins.twiml import judge_screening
from standins.upstash import Upstash

PERSON: Final = "+15550100099"
MENU: Final = {"DEPARTMENTS": "billing=+15550100001,+15550100002", "FORWARD_TO": PERSON}
REASON: Final = "Ann, about my last bill"
WITH_REASON: Final = say("whisper_you", heard=REASON)
WITHOUT: Final = say("whisper_you_silent")


def ringing(here: Inside, reason: str = REASON) -> Phone:
    """A caller who has said what the call is about, and hears it ring."""
    phone = here.phone()
    phone.ring()
    phone.say(reason)
    assert phone.state == "dial"
    return phone


def whispers(phone: Phone) -> list[Webhook]:
    """The webhooks of the phones that were picked up."""
    return [sent for sent in phone.webhooks if urlsplit(sent.url).path == "/voice/accept"]


def target_of(sent: Webhook) -> str:
    """The target of a webhook, without the origin."""
    return sent.url.removeprefix(ORIGIN)


def test_a_whisper_costs_one_command_and_writes_nothing(upstash: Upstash) -> None:
    """The primary is asked for the caller's cell; the key that accepts costs nothing at all."""
    phone = ringing(Inside({"FORWARD_TO": PERSON, **upstash.settings}))
    cells = {*upstash.keys()}
    upstash.forget()
    phone.pick_up()
    assert phone.callees[0].heard == [WITH_REASON] * 2
    assert upstash.commands == [("GETEX", f"call:{phone.call_sid}:2")]
    [asked] = whispers(phone)
    phone.callee_presses("5")
    assert [command[0] for command in upstash.commands] == ["GETEX", "MGET", "SET"]
    assert {*upstash.keys()} - cells == {f"call:{phone.call_sid}:3"}
    assert (asked.form["ParentCallSid"], asked.form["CallSid"] != phone.call_sid) == (
        phone.call_sid,
        True,
    )


def test_a_repeated_whisper_is_the_same_on_any_instance(upstash: Upstash) -> None:
    """Also after the call has gone on: the words, and what the key has led to."""
    pool = Pool({"FORWARD_TO": PERSON, **upstash.settings})
    first, second = pool.instances
    phone = ringing(first)
    phone.callee("completed")
    pair = whispers(phone)
    assert len(pair) == 2
    for sent in (*reversed(pair), *pair):
        assert sent.answer is not None
        assert second.deliver(sent.url, sent.fields, sent.headers).body == sent.answer.body


@pytest.mark.parametrize("fault", ["hang", "drop", "502", "garbage"])
def test_a_whisper_without_redis_asks_all_the_same(upstash: Upstash, fault: str) -> None:
    """In time, and without name and reason, which nobody knows then; the key still connects."""
    phone = ringing(Inside({"FORWARD_TO": PERSON, "RESPONSE_DEADLINE": "1", **upstash.settings}))
    upstash.fault = lambda _: fault
    began = time.monotonic()
    phone.pick_up()
    assert time.monotonic() - began < 1 + LATE
    assert phone.callees[0].heard == [WITHOUT] * 2
    upstash.fault = None
    upstash.release()
    phone.callee_presses("1")
    assert phone.webhooks[-2].form["DialBridged"] == "true"
    assert phone.heard == [say("goodbye")]
    assert phone.broken == []


@pytest.mark.parametrize("parent", [None, "", "CA" + "0" * 32, "x", "*"])
def test_a_whisper_of_a_call_that_nobody_knows_asks_all_the_same(
    tmp_path: Path, parent: str | None
) -> None:
    """No ParentCallSid, or one without a cell: the department is known by the URL, no more."""
    here = Inside({**MENU, "STATE_FILE": str(tmp_path / "calls")})
    fields = webhook() | ({} if parent is None else {"ParentCallSid": parent})
    for step, words in (
        ("to_billing", say("whisper_silent", name="billing")),
        ("operator", WITHOUT),
        ("nowhere", WITHOUT),
    ):
        said = here.post(f"/voice/accept?turn=2&step={step}", fields).body.decode()
        assert judge_screening(said) == []
        assert said.count(words) == 2


@pytest.mark.parametrize("keys", ["0", "2", "5", "9", "*", "#"])
def test_any_other_key_is_no_acceptance(tmp_path: Path, keys: str) -> None:
    """It hangs up on the callee, and the caller may leave a message."""
    phone = ringing(Inside({"FORWARD_TO": PERSON, "STATE_FILE": str(tmp_path / "calls")}))
    phone.pick_up()
    phone.callee_presses(keys)
    assert phone.webhooks[-1].form["DialBridged"] == "false"
    assert phone.heard == [say("no-answer"), say("leave_message")]
    assert phone.state == "record"


def test_silence_is_no_acceptance(tmp_path: Path) -> None:
    """A mailbox presses nothing, and neither does a pocket."""
    phone = ringing(Inside({"FORWARD_TO": PERSON, "STATE_FILE": str(tmp_path / "calls")}))
    phone.pick_up()
    phone.callee_silent()
    assert phone.state == "record"


SPOKEN: Final = {
    "markup": f"</Say></Gather><Dial>{PERSON}</Dial>",
    "braces": "{name} {heard}",
    "very much": "word " * 2000,
    "without a blank": "x" * 10_000,
    "wide": "猫" * 5_000,
    "control characters": "Ann\x00\x1b, my\u202e bill",
}


@pytest.mark.parametrize("reason", SPOKEN.values(), ids=SPOKEN)
def test_what_a_caller_said_is_whispered_safely_and_short(tmp_path: Path, reason: str) -> None:
    """It becomes no verb and no other sentence, and the question comes before anybody hangs up."""
    phone = ringing(Inside({"FORWARD_TO": PERSON, "STATE_FILE": str(tmp_path / "calls")}), reason)
    phone.pick_up()
    [once, again] = phone.callees[0].heard
    assert once == again
    assert len(once) < 120 + len(WITHOUT) + 20
    before, after = say("whisper_you", heard="|").split("|")
    assert once.startswith(before)
    assert once.endswith(after.lstrip("."))
    phone.callee_presses("1")
    assert phone.broken == phone.warned == []


@pytest.mark.parametrize(
    "caller", ["anonymous", "", "+266696687", "client:ann", "sip:ann@pbx.example", "5551234"]
)
def test_a_caller_without_a_number_is_connected(tmp_path: Path, caller: str) -> None:
    """The rung phone shows the line's number, since Twilio or the carrier refuses any other."""
    here = Inside({"FORWARD_TO": PERSON, "STATE_FILE": str(tmp_path / "calls")})
    phone = here.phone(caller)
    phone.ring()
    phone.say(REASON)
    phone.callee("completed")
    assert phone.heard == [say("goodbye")]
    assert phone.broken == []
    assert {sent.form["From"] for sent in whispers(phone)} == {phone.called}


def test_who_is_not_asked_is_connected_at_once(tmp_path: Path) -> None:
    """With PRESS_1_TO_ACCEPT=0 nothing is whispered, and a mailbox counts as a talk."""
    env = {"FORWARD_TO": PERSON, "PRESS_1_TO_ACCEPT": "0"}
    here = Inside({**env, "STATE_FILE": str(tmp_path / "calls")})
    person, mailbox = ringing(here), ringing(here)
    person.callee("completed")
    mailbox.callee("voicemail")
    assert person.heard == mailbox.heard == [say("goodbye")]
    assert whispers(person) + whispers(mailbox) == []


def test_a_status_without_a_word_of_the_bridge_counts(tmp_path: Path) -> None:
    """Where DialBridged is absent, as on compatible platforms, completed is a talk."""
    here = Inside({"FORWARD_TO": PERSON, "STATE_FILE": str(tmp_path / "calls")})
    phone = ringing(here)
    target = "/voice/process?turn=2&step=connect"
    said = here.post(target, webhook(CallSid=phone.call_sid, DialCallStatus="completed"))
    assert say("goodbye") in said.body.decode()


@pytest.mark.parametrize("outcome", ["completed", "answered"])
@pytest.mark.parametrize(("bridged", "sentence"), [("false", "leave_message"), ("true", "goodbye")])
def test_a_leg_that_was_not_bridged_is_no_talk(
    tmp_path: Path, outcome: str, bridged: str, sentence: str
) -> None:
    """Whatever word Twilio has for it: somebody picked up, and did not take the call."""
    here = Inside({"FORWARD_TO": PERSON, "STATE_FILE": str(tmp_path / "calls")})
    fields = {"DialCallStatus": outcome, "DialBridged": bridged}
    said = here.post("/voice/process?turn=2&step=connect", webhook(**fields))
    assert say(sentence) in said.body.decode()


def test_who_did_not_accept_is_seen_by_the_owner(
    tmp_path: Path, log: Callable[[], list[dict[str, Any]]]
) -> None:
    """The page of the call and the log say "not accepted", not that there was a talk."""
    env = {"FORWARD_TO": PERSON, "ADMIN_TOKEN": "let-me-see-it"}
    here = Inside({**env, "STATE_FILE": str(tmp_path / "calls")})
    phone = ringing(here)
    phone.callee("voicemail")
    phone.leave_message()
    login = {"Authorization": "Basic eDpsZXQtbWUtc2VlLWl0"}
    page = here.send("GET", f"/calls/{phone.call_sid}", headers=login).body.decode()
    assert "not-accepted" in page or "not accepted" in page
    assert [entry["dial"] for entry in log() if "dial" in entry] == ["not-accepted"]


def test_a_log_names_neither_the_callee_nor_the_reason(
    tmp_path: Path, log: Callable[[], list[dict[str, Any]]]
) -> None:
    """Whether the call was taken is logged, under the caller's CallSid; no number and no word."""
    phone = ringing(Inside({"FORWARD_TO": PERSON, "STATE_FILE": str(tmp_path / "calls")}))
    phone.callee("completed")
    entries = log()
    [taken] = [entry for entry in entries if entry["message"] == "callee"]
    assert (taken["call"], taken["accepted"]) == (phone.call_sid, True)
    assert [private for private in (PERSON, REASON) if private in json.dumps(entries)] == []


def test_of_several_phones_the_first_that_accepts_talks(upstash: Upstash) -> None:
    """The first is a mailbox, the second takes it; another phone's key never reaches the call."""
    pool = Pool({**MENU, **upstash.settings})
    phone = Phone(ORIGIN, token=TOKEN, deliver=pool.each)
    phone.ring()
    phone.press("1")
    assert phone.transcript[-1] == "line dials +15550100001, +15550100002"
    phone.mailbox()
    assert phone.state == "dial"
    phone.pick_up(which=1)
    phone.callee_presses("1")
    assert phone.heard == [say("goodbye")]
    words = say("whisper_silent", name="billing")
    assert [callee.heard for callee in phone.callees] == [[words] * 2] * 2
    assert len({sent.form["CallSid"] for sent in whispers(phone)}) == 2
    assert phone.broken == phone.warned == []


def test_a_caller_who_gives_up_during_the_whisper_leaves_no_trouble(tmp_path: Path) -> None:
    """The end is reported as of any caller who hangs up while it rings."""
    phone = ringing(Inside({"FORWARD_TO": PERSON, "STATE_FILE": str(tmp_path / "calls")}))
    phone.pick_up()
    phone.hang_up()
    assert phone.state == "ended"
    assert phone.broken == phone.warned == []


def test_a_whisper_says_when_the_call_began(tmp_path: Path) -> None:
    """Its URL is refused when it is older than the cells live, as any URL of a call is."""
    here = Inside({"FORWARD_TO": PERSON, "STATE_FILE": str(tmp_path / "calls")})
    phone = ringing(here)
    phone.pick_up()
    [asked] = whispers(phone)
    assert re.search(r"[?&]began=\d{10}$", asked.url)
    old = f"/voice/accept?turn=2&step=connect&began={int(time.time()) - 25 * 3600}"
    assert here.post(old, asked.fields).status == 403
    for bad in ("turn=2&began=x", "turn=x", "step=connect"):
        assert here.post(f"/voice/accept?{bad}", asked.fields).status == 400
    assert here.post(target_of(asked), asked.fields).status == 200
