"""Webhooks as Twilio sends them. Nothing in a request is believed before its signature fits.

Twilio signs the URL and all form fields (https://www.twilio.com/docs/usage/webhooks/webhooks-security),
and leaves the port out of an https URL, mostly. Nothing is normalised first, since a signature is
for exactly one text: Flask's `request.url` and `request.form` would do that.

The signature has no boundary between the URL and the fields. So a form with a field name that
Twilio does not send is refused; else a recorded webhook could be cut in another place. And it has
no date: the URLs that we hand out say when the call began, and one that is older than the cells
live is refused, because nothing would be left that knows it for a repeat.
"""

import hmac
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Final, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from flask import Request
from twilio.request_validator import RequestValidator
from werkzeug.exceptions import BadRequest, Forbidden

from phone_line.cells import DAY
from phone_line.log import warn_sparingly
from phone_line.records import LAST_TURN, Heard, Transcript, name_cell
from phone_line.settings import Settings
from phone_line.text import clean_text
from phone_line.values import E164

MOST_FIELDS: Final = 2000  # Twilio's webhooks have about thirty
# So look all names in Twilio's documentation, AddOns and SipHeader_X-Name included.
FIELD_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")
TRANSCRIBED: Final = 4000  # letters of a transcript: two minutes are about 2000
EARLY: Final = 300  # seconds that another instance's clock may be ahead of ours
# Twilio spells the word that stands in place of a withheld number on the keypad, as a "number":
# https://twilio.com/changelog/upcoming-changes-to-withheld-caller-ids-behavior-for-dial-calls
WITHHELD: Final = ("anonymous", "blocked", "private", "restricted", "unavailable", "unknown")
KEYPAD: Final = str.maketrans("abcdefghijklmnopqrstuvwxyz", "22233344455566677778889999")
ON_KEYPAD: Final = frozenset(("+464", *(f"+{word.translate(KEYPAD)}" for word in WITHHELD)))
# CallStatus of an ended call.
OVER: Final = ("completed", "busy", "failed", "no-answer", "canceled")


class Webhook(NamedTuple):
    """One webhook of Twilio's, verified and understood."""

    call_sid: str
    caller: str  # From: a number, "anonymous", a client's name, or nothing
    called: str  # To
    base: str  # the origin at which it reached us
    heard: Heard
    forwarded_from: str = ""
    status: str = ""  # CallStatus
    seconds: int = 0  # CallDuration
    talked: int = 0  # DialCallDuration
    recorded: int = 0  # RecordingDuration
    turn: int = 0
    step: str = ""  # a hint, for when there is no record that the caller has heard
    began: int = 0  # Unix time of the call's first webhook; 0 in URLs of the release before
    hold: int = 0  # how often this turn's caller has been put on hold
    since: int = 0  # Unix time of the question that the caller waits for
    language: str = ""  # the one that the caller has chosen: a hint, as `step` is
    pushed: bool = False  # we sent the caller here ourselves, because the answer is there

    @property
    def number(self) -> str:
        """The caller's phone number; none if it is withheld, or no telephone calls."""
        if re.fullmatch(E164, self.caller) and self.caller not in ON_KEYPAD:
            return self.caller
        return ""

    @property
    def is_withheld(self) -> bool:
        """Tell whether the caller hides a number. A SIP or browser client has none to hide."""
        word = self.caller.lower()
        return not word or word in WITHHELD or word in ON_KEYPAD

    @property
    def is_over(self) -> bool:
        """Tell whether the call has ended."""
        return self.status in OVER

    def cell(self, *parts: object) -> str:
        """The key of a cell of this call."""
        return name_cell(self.call_sid, *parts)


def verify_request(settings: Settings, request: Request) -> tuple[str, dict[str, str]]:
    """The origin and the form of a request that Twilio signed. Raises Forbidden for any other."""
    target = str(request.environ["RAW_URI"])
    body = request.get_data(as_text=True)
    form = read_form(body)
    given = request.headers.get("X-Twilio-Signature", "").encode()
    for origin in settings.public_url or (forwarded_origin(request),):
        for spelling in spellings(origin):
            if form is not None and is_signed(settings, spelling + target, form, given):
                return origin, {name: found[0] for name, found in form.items()}
    warn_sparingly(
        "signature",
        "signature refused: is TWILIO_AUTH_TOKEN this account's, and PUBLIC_URL what Twilio calls?",
        url=(forwarded_origin(request) + target)[:300],
        fields=sorted(form or ())[:40],
    )
    raise Forbidden("This is not a request that Twilio signed with this line's token.")


def read_form(body: str) -> dict[str, list[str]] | None:
    """The fields of a form, blanks and repeats included. None for a form that is not Twilio's.

    A caller waits for thirty fields, few of which have anything to decode: to give all to
    `parse_qsl`, against which the tests hold this, makes a webhook three percent slower.
    """
    if body.count("&") >= MOST_FIELDS:  # to sort them would only take time
        return None
    form: dict[str, list[str]] = {}
    for field in filter(None, body.replace("+", " ").split("&")):
        name, _, value = field.partition("=")
        if "%" in field:
            name, value = unquote(name), unquote(value)
        form.setdefault(name, []).append(value)
    return form if all(map(FIELD_NAME.fullmatch, form)) else None


def is_signed(settings: Settings, url: str, form: Mapping[str, list[str]], given: bytes) -> bool:
    """Tell whether a signature is Twilio's for this URL and form, under any of our tokens."""
    fields = Fields(form)
    for token in settings.twilio_auth_token:
        expected = RequestValidator(token).compute_signature(url, fields)
        if hmac.compare_digest(expected.encode(), given):
            return True
    return False


class Fields(dict[str, list[str]]):
    """A form with repeated fields, as twilio's validator asks for them first."""

    def getall(self, name: str) -> list[str]:
        """All values of a field."""
        return self[name]


def forwarded_origin(request: Request) -> str:
    """The origin that Twilio called, as the proxy in front reports it; of a list the first."""
    direct = {"Proto": request.scheme, "Host": request.headers.get("Host", "")}
    parts = []
    for name, value in direct.items():
        forwarded = request.headers.get(f"X-Forwarded-{name}", value)
        parts.append(forwarded.partition(",")[0].strip())
    return "://".join(parts)


def spellings(origin: str) -> Iterator[str]:
    """An origin as Twilio may have signed it, the likeliest first.

    Twilio leaves the port of an https URL out, its own library accepts both, and host names are
    the same in any case (https://www.twilio.com/docs/usage/security).
    """
    yield origin
    scheme, _, host = origin.partition("://")
    name, _, port = host.partition(":")
    hosts = [host, name] if port else [host]
    if scheme == "https":
        hosts.append(f"{name}:{port or 443}")
    every = [*hosts, *map(str.lower, hosts)]
    for spelling in dict.fromkeys(f"{scheme}://{host}" for host in every):
        if spelling != origin:
            yield spelling


def read_webhook(settings: Settings, base: str, form: Mapping[str, str]) -> Webhook:
    """Understand a verified webhook. Raises BadRequest if it is no call, Forbidden if not ours."""
    if not re.fullmatch("CA[0-9a-fA-F]{32}", form.get("CallSid", "")):
        warn_sparingly("call", "refused: no CallSid. Is the URL set as a voice URL at Twilio?")
        raise BadRequest("CallSid is missing, or it is no CallSid.")
    if settings.twilio_account_sid and form.get("AccountSid") != settings.twilio_account_sid:
        warn_sparingly("account", "refused: the call is not TWILIO_ACCOUNT_SID's. Another account?")
        raise Forbidden("This call belongs to another account.")
    return Webhook(
        call_sid=form["CallSid"],
        caller=clean_text(form.get("From", ""), 80),
        called=clean_text(form.get("To", ""), 80),
        forwarded_from=clean_text(form.get("ForwardedFrom", ""), 80),
        base=base,
        heard=read_heard(form),
        status=clean_text(form.get("CallStatus", ""), 20),
        seconds=read_count(form.get("CallDuration", ""), DAY) or 0,
        talked=read_count(form.get("DialCallDuration", ""), DAY) or 0,
        recorded=read_count(form.get("RecordingDuration", ""), DAY) or 0,
    )


def read_heard(form: Mapping[str, str]) -> Heard:
    """Read what the caller said or keyed, or how a Dial or a Record went."""
    confidence, recording = form.get("Confidence", ""), form.get("RecordingUrl", "")[:500]
    return Heard(
        speech=clean_text(form.get("SpeechResult", "")),
        confidence=read_share(confidence),
        keys="".join(key for key in form.get("Digits", "")[:40] if key in "0123456789*#"),
        dial=read_outcome(form),
        recording=recording if re.fullmatch(r"https?://[!-~]+", recording) else "",
    )


def read_outcome(form: Mapping[str, str]) -> str:
    """Read how a Dial went. Whoever picked up and did not take the call is no answer.

    DialBridged=false says so where a call was screened; where it is absent the status counts
    (https://www.twilio.com/docs/voice/twiml/dial). Canceled means that the caller hung up; while
    the caller is still there (CallStatus is in-progress, or ringing before an answer on bridge),
    somebody else called the Dial off.
    """
    outcome = clean_text(form.get("DialCallStatus", ""), 20)
    if outcome in ("completed", "answered") and form.get("DialBridged") == "false":
        return "not-accepted"
    status = form.get("CallStatus")
    if outcome == "canceled" and status and status not in OVER:
        return "called-off"
    return outcome


def read_transcript(form: Mapping[str, str]) -> Transcript:
    """The words of a voicemail, as Twilio made them out. No text: it could not.

    Source: https://www.twilio.com/docs/voice/twiml/record, "transcribeCallback".
    """
    text = clean_text(form.get("TranscriptionText", ""), TRANSCRIBED)
    if form.get("TranscriptionStatus", "completed") != "completed":
        text = ""
    return Transcript(text, read_heard(form).recording, time.time())


def read_share(value: str) -> float | None:
    """A number from 0 to 1, however it is written (0.5, .5, 9.5E-4, 5E-1); else None."""
    if not re.fullmatch(r"[0-9]{0,40}\.?[0-9]{0,40}([eE][+-]?[0-9]{1,3})?", value.strip()):
        return None
    with suppress(ValueError):  # no digit in it
        return float(value) if float(value) <= 1 else None
    return None


def read_count(value: str, most: int) -> int | None:
    """A whole number from 0 to `most` in plain digits, else None."""
    if not value.isascii() or not value.isdigit() or len(value) > 12:
        return None
    return int(value) if int(value) <= most else None


def place_webhook(webhook: Webhook, url: str) -> Webhook:
    """The webhook, placed where one of our own URLs says.

    Raises BadRequest if that names no turn or no date, Forbidden if it is older than cells live.
    """
    query = read_query(url)
    turn = read_count(query.get("turn", ""), LAST_TURN)
    if turn is None:
        raise BadRequest(f"turn must be a number from 0 to {LAST_TURN}.")
    began, since = check_dates(query)
    return webhook._replace(
        turn=turn,
        step=query.get("step", "")[:80],
        language=query.get("language", "")[:12],
        began=began,
        hold=read_count(query.get("hold", ""), 10_000) or 0,
        since=since,
        pushed=query.get("pushed") == "1",
    )


def check_dates(query: Mapping[str, str]) -> tuple[int, int]:
    """The Unix times at which a call and a question began, as our query says; 0: it does not.

    Raises BadRequest for what is no date, Forbidden for a call that is older than cells live.
    """
    now = time.time()
    began = read_count(query.get("began", "0"), int(now) + EARLY)
    since = read_count(query.get("since", "0"), int(now) + EARLY)
    if began is None or since is None:
        raise BadRequest("began and since must be times that have been.")
    if began and began < now - DAY:
        warn_sparingly("old", "refused: a webhook of a call that began over a day ago")
        raise Forbidden("This call began more than a day ago.")
    return began, since


def read_query(url: str) -> dict[str, str]:
    """The query of a URL, of a repeated name the first."""
    found = parse_qs(urlsplit(url).query, keep_blank_values=True)
    return {name: values[0] for name, values in found.items()}


def is_stale(form: Mapping[str, str]) -> bool:
    """Tell whether a status callback is older than the cells live, by its Timestamp (RFC 2822)."""
    try:
        sent = parsedate_to_datetime(form.get("Timestamp", "")).timestamp()
    except (ValueError, TypeError, OverflowError):
        return False  # compatible platforms send none
    return sent < time.time() - DAY
