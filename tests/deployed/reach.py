"""Whom the account may call, what Twilio complained of lately, and how a recording plays."""

import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote, urlsplit

from deployed.account import ENOUGH, Account, Refused
from deployed.asking import FAULTS, ask, find_origin, quote_body
from deployed.findings import Finding, Findings, change, note, ok, unseen
from phone_line.links import link_recording
from phone_line.settings import Settings, read_settings

COUNTRIES: Final = f"/v1/DialingPermissions/Countries?PageSize={ENOUGH}"
DAY: Final = 24 * 3600
RECORDING: Final = "a recording's link"
PLAYS: Final = (200, 206)


def check_reach(account: Account, env: Mapping[str, str]) -> Findings:
    """The phones that are set here can be called, and shown."""
    settings = read_settings(env)
    phones = [phone for target in settings.numbers.values() for phone in target]
    numbers = sorted({phone for phone in phones if phone.startswith("+")})
    if numbers:
        yield from check_countries(account, numbers)
    if settings.caller_id.startswith("+"):
        yield from check_caller_id(account, settings.caller_id)


def check_countries(account: Account, numbers: Sequence[str]) -> Findings:
    """Geographic permissions: the countries that the account may call.

    https://www.twilio.com/docs/voice/api/dialingpermissions-country-resource
    """
    try:
        rows = account.get(COUNTRIES, "voice").get("content", [])
    except Refused as error:
        yield unseen("which countries may be called", str(error))
        return
    for number in numbers:
        countries = find_countries(number, rows)
        names = ", ".join(str(row.get("name")) for row in countries)
        if not countries:
            yield note(f"{number}: Twilio names no country for it", "Is it a number?")
        elif any(row.get("low_risk_numbers_enabled") for row in countries):
            yield ok(f"{number} may be called ({names})")
        else:
            yield change(
                f"{number} may not be called: the account has no permission for {names}",
                "Console, Voice, Settings, Geo permissions: allow the country.",
            )


def find_countries(number: str, rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The countries with the longest code that a number begins with; +1 has several."""
    digits = number.lstrip("+")
    fitting: dict[int, list[Mapping[str, Any]]] = {}
    for row in rows:
        for code in row.get("country_codes") or []:
            prefix = re.sub(r"\D", "", str(code))
            if prefix and digits.startswith(prefix):
                fitting.setdefault(len(prefix), []).append(row)
    return fitting[max(fitting)] if fitting else []


def check_caller_id(account: Account, number: str) -> Findings:
    """CALLER_ID has to be a number of the account, or a verified one (error 13214)."""
    only = f"PhoneNumber={quote(number, safe='')}"
    try:
        own = account.get(f"/IncomingPhoneNumbers.json?{only}").get("incoming_phone_numbers")
        verified = account.get(f"/OutgoingCallerIds.json?{only}").get("outgoing_caller_ids")
    except Refused as error:
        yield unseen("CALLER_ID", str(error))
        return
    if own or verified:
        yield ok(f"CALLER_ID {number} may be shown")
    else:
        yield change(
            f"CALLER_ID {number} is neither a number of this account nor verified",
            "Every transfer would fail: verify it in the Console, or set CALLER_ID=line.",
        )


def check_alerts(account: Account, url: str) -> Findings:
    """Twilio's own complaints about this line's answers within the last day.

    https://www.twilio.com/docs/usage/monitor-alert
    """
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - DAY))
    try:
        found = account.get(f"/v1/Alerts?PageSize={ENOUGH}&StartDate={quote(since)}", "monitor")
    except Refused as error:
        yield unseen("what Twilio complained of", str(error))
        return
    here = [each for each in found.get("alerts", []) if is_here(each, url)]
    if not here:
        yield ok("Twilio complained of nothing here within the last day")
    counts = Counter((str(each.get("error_code")), name_path(each)) for each in here)
    for (code, path), count in counts.most_common():
        yield note(
            f"Twilio complained of {path} within the last day, {count} times: error {code}",
            f"https://www.twilio.com/docs/api/errors/{code}",
        )


def is_here(alert: Mapping[str, Any], url: str) -> bool:
    """Tell whether an alert is about this line."""
    return find_origin(str(alert.get("request_url") or "")) == url


def name_path(alert: Mapping[str, Any]) -> str:
    """The path that an alert is about."""
    return urlsplit(str(alert.get("request_url") or "")).path


# ---- recordings --------------------------------------------------------------------------------


def check_recording(account: Account, url: str, env: Mapping[str, str]) -> Findings:
    """The account's latest recording plays by a link of this line."""
    try:
        rows = account.get("/Recordings.json?PageSize=1").get("recordings", [])
    except Refused as error:
        yield unseen(RECORDING, str(error))
        return
    if rows:
        yield play_link(url + link_latest(read_settings(env), account, str(rows[0]["sid"])))
    else:
        yield unseen(RECORDING, "the account has none", "Leave a message, and look again.")


def link_latest(settings: Settings, account: Account, sid: str) -> str:
    """The path of a link to a recording, as the line itself would make it."""
    place = f"https://api.twilio.com/2010-04-01/Accounts/{account.sid}/Recordings/{sid}"
    return link_recording(settings, place, time.time())


def play_link(link: str) -> Finding:
    """Ask for the beginning of a recording by its link."""
    try:
        answer = ask("GET", link, {"Range": "bytes=0-1023"})
    except FAULTS as error:
        return change(f"a recording's link is not answered: {error}", "`railway logs`")
    seen = f"a recording's link is answered {answer.status} {answer.kind}"
    if answer.status in PLAYS and answer.kind.startswith("audio/"):
        return ok(f"{seen}: it plays")
    advice = {
        403: "The line signs with another TWILIO_AUTH_TOKEN than the one here.",
        404: "Twilio has no such recording, or not yet; an older release has no such path.",
        502: "Set TWILIO_API_KEY and TWILIO_API_SECRET there: Twilio refuses the line's login.",
        503: "The line does not reach Twilio's API.",
    }.get(answer.status, "Look at `railway logs` at this minute.")
    return change(f"{seen}: {quote_body(answer)}", advice)
