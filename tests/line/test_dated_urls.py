"""A signature is for one request, and for a day: it has no boundary and no date of its own."""

import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from urllib.parse import urlencode

import pytest

from standins.inside import FORM, ORIGIN, TOKEN, Inside, judged, stored, webhook
from standins.webhooks import sign

DAY = 24 * 3600
TURN = "/voice/process?turn=1&step=reason"


@pytest.fixture
def here(tmp_path: Path) -> Inside:
    """A line with a person behind it."""
    return Inside({"FORWARD_TO": "+15550100099", "STATE_FILE": str(tmp_path / "calls")})


def test_every_url_says_when_the_call_began(here: Inside) -> None:
    """The first answer dates the call, and all later ones hand the date on."""
    call = webhook()
    before = int(time.time())
    first = judged(here.post("/voice/inbound", call))
    began = int(first.partition("began=")[2].partition("#")[0])
    assert before <= began <= time.time()
    second = judged(here.post(f"{TURN}&began={began - 7}", {**call, "SpeechResult": "Ann"}))
    assert second.count(f"began={began - 7}#") == second.count("/voice/")


def test_a_recorded_webhook_has_no_effect_after_a_day(here: Inside, tmp_path: Path) -> None:
    """Its cells are gone, and nothing knows it for a repeat: refused, and nothing is stored."""
    old = int(time.time()) - DAY - 60
    answer = here.post(f"{TURN}&began={old}", webhook(SpeechResult="Ann"))
    assert (answer.status, answer.kind) == (403, "text/plain")
    assert stored(tmp_path / "calls") == {}


def test_a_url_without_a_date_is_served(here: Inside) -> None:
    """The release before handed out such ones, to calls that are in progress."""
    assert here.post(TURN, webhook(SpeechResult="Ann")).status == 200


@pytest.mark.parametrize("began", ["", "x", "-5", "1e9", "99999999999", "0x10"])
def test_a_malformed_date_is_refused(here: Inside, began: str) -> None:
    """A date that is none, or that lies ahead, was not written by us."""
    assert here.post(f"{TURN}&began={began}", webhook(SpeechResult="Ann")).status == 400


@pytest.mark.parametrize(("age", "status"), [(None, 400), (DAY + 60, 403)])
def test_the_fallback_looks_at_the_date_in_error_url(
    here: Inside, age: int | None, status: int
) -> None:
    """ErrorUrl is one of our URLs, and held to the same."""
    began = "x" if age is None else str(int(time.time()) - age)
    url = f"{ORIGIN}{TURN}&began={began}"
    assert here.post("/voice/fallback", webhook(ErrorUrl=url)).status == status


@pytest.mark.parametrize(
    "name", ["2&step=operator&x", "a b", "1st", "näme", "a=b", "[0]", "Digits\n"]
)
def test_a_field_that_twilio_would_not_send_is_refused(here: Inside, name: str) -> None:
    """URL and fields are signed without a boundary: a bent form could move it."""
    assert here.post("/voice/inbound", {**webhook(), name: "1"}).status == 403


@pytest.mark.parametrize("name", ["SipHeader_X-Name", "AddOns", "ReferTransferTarget", "Digits"])
def test_the_fields_that_twilio_sends_are_taken(here: Inside, name: str) -> None:
    """Add-ons and SIP headers included."""
    assert here.post("/voice/inbound", {**webhook(), name: "1"}).status == 200


def test_a_captured_webhook_cannot_be_cut_in_another_place(here: Inside) -> None:
    """Turn 12 of a call, its signature kept, sent as turn 1 with a field named after the rest."""
    call = webhook()
    signature = sign(TOKEN, f"{ORIGIN}/voice/process?turn=12&step=reason", list(call.items()))
    form = {
        "2&step=reason" + min(call): call[min(call)],
        **{k: v for k, v in call.items() if k != min(call)},
    }
    headers = {"Content-Type": FORM, "X-Twilio-Signature": signature}
    answer = here.send("POST", "/voice/process?turn=1", urlencode(form).encode(), headers)
    assert answer.status == 403


def ended(here: Inside, sent: str) -> dict[str, str]:
    """The cells after a status callback that was sent at this time."""
    call = webhook(CallStatus="completed", CallDuration="5", Timestamp=sent)
    assert here.post("/voice/status", call).status == 204
    return stored(Path(here.env["STATE_FILE"]))


def test_a_status_callback_is_judged_by_its_timestamp(here: Inside) -> None:
    """A recorded one ends nothing after a day; one without a date, or of today, ends its call."""
    now = datetime.now(UTC)
    assert ended(here, format_datetime(now - timedelta(days=2))) == {}
    assert len(ended(here, format_datetime(now))) == 1
    assert len(ended(here, "yesterday")) == 2


@pytest.mark.parametrize("status", ["ringing", "in-progress", "initiated", "queued", "", "odd"])
def test_a_status_that_is_no_end_ends_nothing(here: Inside, status: str) -> None:
    """The API and compatible platforms report all of them: 204, and nothing is kept."""
    answer = here.post("/voice/status", webhook(CallStatus=status))
    assert answer.status == 204
    assert stored(Path(here.env["STATE_FILE"])) == {}


@pytest.mark.parametrize("status", ["completed", "busy", "failed", "no-answer", "canceled"])
def test_a_status_that_is_an_end_is_kept(here: Inside, status: str) -> None:
    """The five that end a call."""
    here.post("/voice/status", webhook(CallStatus=status))
    assert len(stored(Path(here.env["STATE_FILE"]))) == 1
