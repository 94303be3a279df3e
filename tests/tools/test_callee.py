"""The phone that a Dial rings, as the stand-in plays it: screened, joined, or not."""

from xml.etree.ElementTree import fromstring

import pytest

from standins.call import NotNow, Phone
from standins.canned import TOKEN, Canned, Reply
from standins.transcript import perform, run_script
from standins.twiml import judge_caller_id, judge_screening
from standins.webhooks import sign

FIRST = "+15550100001"
SECOND = "+15550100002"
ASKED = (
    '<Gather action="/key" numDigits="1" finishOnKey="" timeout="5"><Say>A call.</Say>'
    '<Pause length="1"/><Say>A call.</Say></Gather><Hangup/>'
)
SCREENED = f'<Number url="/whisper#rc=5&amp;rp=all">{FIRST}</Number>'


def dialling(line: Canned, *phones: str, caller: str = "+15557654321", more: str = "") -> Phone:
    """A caller at a line that rings these phones, and says how that went."""
    dial = f'<Dial action="/dialled" timeLimit="60" {more}>{"".join(phones)}</Dial>'
    line.on("/voice/inbound", dial)
    line.on("/whisper", ASKED)
    line.on("/key", "")
    line.on("/dialled", "<Say>Back.</Say><Hangup/>")
    phone = Phone(line.url, token=TOKEN, caller=caller)
    phone.ring()
    return phone


def bridged(line: Canned) -> list[tuple[str, str]]:
    """The fields of the Dial's action: the status, and whether there was a bridge."""
    return [(each["DialCallStatus"], each["DialBridged"]) for each in line.forms("/dialled")]


def test_who_answers_hears_the_whisper_presses_1_and_talks(line: Canned) -> None:
    """The legs are joined when the document ends, and the Dial's action is told of the talk."""
    phone = dialling(line, SCREENED)
    assert phone.callee("completed", 42) == ["Back."]
    assert phone.callees[0].heard == ["A call."] * 2
    assert [form["Digits"] for form in line.forms("/key")] == ["1"]
    [told] = line.forms("/dialled")
    assert (told["DialCallDuration"], told["DialBridged"]) == ("42", "true")
    assert told["DialCallSid"] == phone.callees[0].call_sid
    assert phone.broken == phone.warned == []


def test_a_whisper_is_asked_for_another_leg(line: Canned) -> None:
    """Its webhook is signed, has a CallSid of its own, and the caller's as ParentCallSid."""
    phone = dialling(line, SCREENED)
    phone.pick_up()
    [form] = line.forms("/whisper")
    assert form["ParentCallSid"] == phone.call_sid != form["CallSid"]
    assert (form["From"], form["To"], form["Called"]) == (phone.caller, FIRST, FIRST)
    assert (form["Direction"], form["CallStatus"]) == ("outbound-dial", "in-progress")
    [asked] = [each for each in line.asked if each.target == "/whisper"]
    signature = sign(TOKEN, f"{line.url}/whisper", asked.fields)
    assert asked.headers["X-Twilio-Signature"] == signature


@pytest.mark.parametrize(
    ("key", "answer", "told"),
    [
        ("1", "", ("completed", "true")),
        ("5", "<Hangup/>", ("completed", "false")),
        ("5", "", ("completed", "true")),
        ("5", "<Say>No.</Say><Hangup/>", ("completed", "false")),
    ],
)
def test_the_document_decides_and_not_the_key(
    line: Canned, key: str, answer: str, told: tuple[str, str]
) -> None:
    """A document that simply ends joins the legs; Hangup ends the callee's."""
    phone = dialling(line, SCREENED)
    line.on("/key", answer)
    phone.pick_up()
    assert phone.state == "screening"
    phone.callee_presses(key)
    assert bridged(line) == [told]


@pytest.mark.parametrize("event", ["callee is silent", "callee hangs up"])
def test_who_presses_nothing_has_not_taken_the_call(line: Canned, event: str) -> None:
    """The question runs out into the Hangup behind it, or the callee is faster."""
    phone = dialling(line, SCREENED)
    phone.pick_up()
    assert perform(phone, event) is None
    assert bridged(line) == [("completed", "false")]
    assert line.forms("/key") == []


def test_a_mailbox_presses_nothing(line: Canned) -> None:
    """It listens to all of the whisper; without one it is a talk, like any other."""
    phone = dialling(line, SCREENED)
    phone.callee("voicemail")
    assert phone.transcript[-5:] == [
        "callee's voicemail answers",
        *["callee hears: A call."] * 2,
        "line: Back.",
        "line hangs up",
    ]
    unasked = dialling(line, f"<Number>{FIRST}</Number>")
    unasked.callee("voicemail")
    assert bridged(line) == [("completed", "false"), ("completed", "true")]


def test_without_the_hangup_a_mailbox_is_joined(line: Canned) -> None:
    """A question that runs out at the end of the document joins the legs, which is warned about."""
    phone = dialling(line, SCREENED)
    line.on("/whisper", ASKED.removesuffix("<Hangup/>"))
    phone.callee("voicemail")
    assert bridged(line) == [("completed", "true")]
    assert ["a mailbox, too" in str(problem) for problem in phone.warned] == [True]


def test_several_phones_ring_until_one_takes_the_call(line: Canned) -> None:
    """A mailbox that does not take it leaves the others ringing."""
    phone = dialling(line, SCREENED, f"<Number>{SECOND}</Number>")
    assert phone.transcript[-1] == f"line dials {FIRST}, {SECOND}"
    assert phone.mailbox() == []
    assert phone.state == "dial"
    with pytest.raises(NotNow):
        phone.pick_up(which=0)
    assert phone.pick_up(which=1) == ["Back."]
    assert bridged(line) == [("completed", "true")]


def test_nobody_takes_a_call_that_one_phone_has_answered(line: Canned) -> None:
    """One was picked up and the other rings out: completed, and not bridged."""
    phone = dialling(line, SCREENED, f"<Number>{SECOND}</Number>")
    phone.mailbox()
    phone.callee("no-answer")
    assert bridged(line) == [("completed", "false")]


def test_a_caller_who_hangs_up_ends_the_screening(line: Canned) -> None:
    """The action is told of a Dial that was canceled; the callee is asked nothing more."""
    phone = dialling(line, SCREENED)
    phone.pick_up()
    phone.hang_up()
    assert bridged(line) == [("canceled", "false")]
    assert phone.state == "ended"
    with pytest.raises(NotNow):
        phone.callee_presses("1")


def test_a_whisper_that_fails_ends_that_leg(line: Canned) -> None:
    """It is tried as often as its URL says; then nobody is joined with the caller."""
    phone = dialling(line, SCREENED)
    line.on("/whisper", Reply("no", 503), Reply(f"<Response>{ASKED}</Response>"))
    phone.pick_up()
    assert phone.state == "screening"
    assert len(line.forms("/whisper")) == 2
    broken = dialling(line, SCREENED)
    line.on("/whisper", Reply("no", 404, "text/plain"))
    assert broken.callee("completed") == ["Back."]
    assert bridged(line) == [("completed", "false")]
    assert [problem.code for problem in broken.broken] == [11217]


@pytest.mark.parametrize(
    ("document", "code"),
    [
        ('<Dial timeLimit="60">+15550100003</Dial>', 13201),
        ('<Record action="/a"/>', 13201),
        ("<Redirect>/other</Redirect>", 13201),
        ("<Reject/>", 13201),
        ("<Say></Say><Hangup/>", 13520),
        ('<Say voise="man">Hi</Say>', 12200),
        ("no TwiML", 12200),
    ],
)
def test_what_a_screening_document_may_not_hold(document: str, code: int) -> None:
    """It may speak, listen and hang up; everything else that is wrong is wrong there, too."""
    found = judge_screening(f"<Response>{document}</Response>")
    assert [problem.code for problem in found if problem.broken] == [code]


@pytest.mark.parametrize("document", ["", ASKED, "<Play>/a.wav</Play>", "<Hangup/>"])
def test_what_a_screening_document_may_hold(document: str) -> None:
    """An empty one joins the legs at once, and is nothing to be warned of."""
    assert judge_screening(f"<Response>{document}</Response>") == []


CALLER_IDS = [
    # who calls, the Dial's callerId, whether Twilio and the carrier take it
    ("+15557654321", None, True),
    ("+15557654321", "+15557654321", True),
    ("+15557654321", "+15550001111", True),
    ("+15557654321", "+15550001112", True),  # another number of the account
    ("+15557654321", "+15550009999", False),
    ("client:ann", None, False),
    ("client:ann", "+15550001111", True),
    ("client:ann", "client:ann", False),
    ("sip:ann@pbx.example", None, False),
    ("sip:ann@pbx.example", "+15550001112", True),
    ("anonymous", None, False),
    ("anonymous", "+15550001111", True),
    ("+266696687", None, False),
    ("+266696687", "+266696687", False),
    ("5551234", None, False),
    ("", None, False),
]


@pytest.mark.parametrize(("caller", "shown", "good"), CALLER_IDS)
def test_only_some_numbers_may_be_shown(caller: str, shown: str | None, good: bool) -> None:
    """The caller's own, the called one, or another of the account; and nobody can show nothing."""
    attribute = "" if shown is None else f'callerId="{shown}"'
    dial = fromstring(f"<Dial {attribute}><Number>{FIRST}</Number></Dial>")  # noqa: S314 (ours)
    found = judge_caller_id(dial, caller, ["+15550001111", "+15550001112"])
    assert [problem.code for problem in found] == [] if good else [13214]
    sip = fromstring("<Dial><Sip>sip:desk@pbx.example</Sip></Dial>")  # noqa: S314 (ours)
    assert judge_caller_id(sip, caller, []) == []


def test_a_dial_with_a_wrong_caller_id_fails_at_once(line: Canned) -> None:
    """Nobody is rung: the action is told so, and the phone has a problem."""
    phone = dialling(line, SCREENED, caller="anonymous")
    assert phone.heard == ["Back."]
    assert bridged(line) == [("failed", "false")]
    assert [problem.code for problem in phone.broken] == [13214]
    assert line.forms("/whisper") == []


SCRIPT = [
    "rings",
    f"line dials {FIRST}",
    "callee answers",
    "callee hears: A call.",
    "callee hears: A call.",
    "callee presses 1",
    "line: Back.",
    "line hangs up",
]


def test_what_a_callee_did_can_be_played_again(line: Canned) -> None:
    """A phone's own transcript has the whisper in it, and plays as it was."""
    phone = dialling(line, SCREENED)
    phone.callee("completed")
    assert phone.transcript == SCRIPT
    assert run_script(Phone(line.url, token=TOKEN), SCRIPT) == []


def test_a_transcript_may_leave_the_whisper_out(line: Canned) -> None:
    """Who answers, and is not said to do anything, presses 1."""
    dialling(line, SCREENED)
    short = [event for event in SCRIPT if not event.startswith("callee ")]
    short.insert(2, "callee answers")
    assert run_script(Phone(line.url, token=TOKEN), short) == []


@pytest.mark.parametrize(
    ("written", "instead", "complaint"),
    [
        (3, "callee hears: Another call.", "it was 'callee hears: A call.'"),
        (2, "callee hears: A call.", "the callee hears nothing"),
        (5, "callee presses 1\ncallee presses 1", "before it came"),
        (6, "callee hears: A call.", "the callee hears nothing"),
        (2, "the third phone answers", "does not ring"),
    ],
)
def test_a_whisper_that_differs_is_a_difference(
    line: Canned, written: int, instead: str, complaint: str
) -> None:
    """What is written of a whisper has to be so."""
    dialling(line, SCREENED)
    script = [*SCRIPT[:written], *instead.split("\n"), *SCRIPT[written + 1 :]]
    (difference, *_) = run_script(Phone(line.url, token=TOKEN), script)
    assert complaint in difference
