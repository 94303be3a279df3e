"""The number's own settings at Twilio: what each has to be, and how it is put right.

A fallback at handler.twilio.com (a TwiML Bin, which runs at Twilio) is as good as the line's own,
and stays.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl, quote, urldefrag, urlsplit

from deployed.account import ENOUGH, Account, Refused
from deployed.asking import find_origin
from deployed.findings import Agree, Finding, Findings, change, note, ok, unseen

Row = Mapping[str, Any]  # a number, as https://www.twilio.com/docs/phone-numbers/api lists it
PATHS: Final = {  # what a number has to know: the field, its method's field, the path, the option
    "voice_url": ("voice_method", "/voice/inbound", "VoiceUrl"),
    "voice_fallback_url": ("voice_fallback_method", "/voice/fallback", "VoiceFallbackUrl"),
    "status_callback": ("status_callback_method", "/voice/status", "StatusCallback"),
}
OVERRIDING: Final = {
    "voice_application_sid": ("a TwiML app", "VoiceApplicationSid"),
    "trunk_sid": ("a SIP trunk", "TrunkSid"),
}
BINS: Final = "handler.twilio.com"
SETTINGS: Final = "the number's settings"


class Wrong(NamedTuple):
    """A setting that has to be changed: what is seen, and the options that put it right."""

    seen: str
    options: Mapping[str, str]  # by the names that the API takes
    before: str
    after: str


class NoNumber(Exception):
    """It cannot be told which number is meant; the message says so, `advice` what to do."""

    def __init__(self, seen: str, advice: str) -> None:
        super().__init__(seen)
        self.advice = advice


def check_number(account: Account, number: str, url: str, overrides: str) -> Findings:
    """The account, and the number that leads to the line, as Twilio knows them."""
    try:
        yield from check_account(account.get(".json"))
        row = find_number(account, number, url)
    except NoNumber as error:
        yield change(str(error), error.advice)
    except Refused as error:
        yield explain_refusal(error)
    else:
        yield from check_settings(row, url, overrides)


def explain_refusal(error: Refused) -> Finding:
    """Twilio does not tell about the number."""
    if not error.status:
        return unseen(SETTINGS, str(error))
    return change(
        str(error),
        "TWILIO_ACCOUNT_SID with TWILIO_AUTH_TOKEN, or with an API key that may read numbers?",
    )


def check_account(about: Row) -> Findings:
    """Tell of a trial, or of a suspended account."""
    if about.get("type") == "Trial":
        yield note(
            "this is a trial account: it connects nobody and records no message",
            "Calls come from verified numbers only, and a webhook has 5 seconds.",
        )
    if about.get("status") not in (None, "active"):
        yield change(f"the account is {about['status']}", "Twilio's Console says why.")


def find_number(account: Account, number: str, url: str) -> Row:
    """The number that is meant: the one named, the one that leads here, or the account's only one.

    Raises NoNumber, Refused.
    """
    only = f"PhoneNumber={quote(number, safe='')}" if number else f"PageSize={ENOUGH}"
    rows = account.get(f"/IncomingPhoneNumbers.json?{only}").get("incoming_phone_numbers", [])
    if number:
        return pick_number([row for row in rows if row.get("phone_number") == number], number)
    here = [row for row in rows if find_origin(row.get("voice_url") or "") == url]
    return pick_number(here or rows, "")


def pick_number(rows: Sequence[Row], number: str) -> Row:
    """The one number that there is. Raises NoNumber if there is none, or more than one."""
    if len(rows) == 1:
        return rows[0]
    if number:
        raise NoNumber(
            f"{number} is no number of this account",
            "Give --number with one of its numbers (it may belong to a subaccount or a project).",
        )
    raise NoNumber(
        f"the account has {len(rows)} numbers that may be meant",
        "Say which one leads to this line: --number +1...",
    )


# ---- what it has to be -------------------------------------------------------------------------


def check_settings(row: Row, url: str, overrides: str) -> Findings:
    """The number's settings one by one, and the command that puts each right."""
    number = row["phone_number"]
    if not (row.get("capabilities") or {"voice": True}).get("voice"):
        yield change(f"{number} cannot take calls", "It has no voice: buy another number.")
    wrong = find_wrong(row, url, overrides)
    for each in wrong:
        yield change(f"{number}: {each.seen}", write_command(row, each.options))
    done = {option for each in wrong for option in each.options}
    for name, (_, _, option) in PATHS.items():
        if option not in done:
            yield ok(f"{number}: {name} is {row[name]}")


def find_wrong(row: Row, url: str, overrides: str) -> list[Wrong]:
    """The settings that have to be changed, in the order in which they matter."""
    wrong = []
    for name, (what, option) in OVERRIDING.items():
        if row.get(name):
            seen = f"{what} ({row[name]}) overrides the number's own URLs"
            wrong.append(Wrong(seen, {option: ""}, row[name], "none"))
    for name, (method, path, option) in PATHS.items():
        wanted = url + path + overrides
        if seen := find_difference(row, name, wanted):
            options = {option: wanted, name_option(method): "POST"}
            before = f"{row.get(method) or ''} {row.get(name) or 'not set'}".strip()
            wrong.append(Wrong(seen, options, before, f"POST {wanted}"))
    return wrong


def find_difference(row: Row, name: str, wanted: str) -> str:
    """The difference of one of the number's URLs to what it should be; empty without any."""
    found = row.get(name) or ""
    if not found:
        return f"{name} is not set"
    if name == "voice_fallback_url" and urlsplit(found).hostname == BINS:
        return ""
    if find_origin(found) != find_origin(wanted):
        return f"{name} leads to {find_origin(found) or found}, not here"
    if urlsplit(found).path != urlsplit(wanted).path:
        return f"{name} has the path {urlsplit(found).path or '/'}"
    method = PATHS[name][0]
    if row.get(method) != "POST":
        return f"{name} is asked with {row.get(method)}, not POST"
    given, right = (dict(parse_qsl(urldefrag(each).fragment)) for each in (found, wanted))
    if given == right:
        return ""
    return f"{name} has {write_fragment(given)} in place of {write_fragment(right)}"


def write_fragment(given: Mapping[str, str]) -> str:
    """Connection overrides as they stand in a URL."""
    if not given:
        return "no #"
    return "#" + "&".join(f"{name}={value}" for name, value in given.items())


def name_option(field: str) -> str:
    """A field's name as the API takes it: VoiceMethod for voice_method."""
    return "".join(map(str.capitalize, field.split("_")))


def write_command(row: Row, options: Mapping[str, str]) -> str:
    """The command that sets options of a number."""
    place = f"/2010-04-01/Accounts/$TWILIO_ACCOUNT_SID/IncomingPhoneNumbers/{row.get('sid')}.json"
    given = " ".join(f"--data-urlencode '{name}={value}'" for name, value in options.items())
    login = '-u "$TWILIO_ACCOUNT_SID:$TWILIO_AUTH_TOKEN"'
    return f'--fix, or: curl -s {login} "https://api.twilio.com{place}" {given}'


# ---- putting it right --------------------------------------------------------------------------


def fix_number(account: Account, row: Row, url: str, overrides: str, agree: Agree) -> Findings:
    """Show what a number has and what it will have, ask, and set it."""
    wrong = find_wrong(row, url, overrides)
    if not wrong:
        yield note(f"{row['phone_number']}: there is nothing to set")
        return
    for each in wrong:
        names = ", ".join(each.options)
        yield note(f"{names}\n        before: {each.before}\n        after:  {each.after}")
    if not agree(f"Set this for {row['phone_number']} at Twilio?"):
        yield note("nothing was changed")
        return
    options = {name: value for each in wrong for name, value in each.options.items()}
    try:
        changed = account.post(f"/IncomingPhoneNumbers/{row['sid']}.json", options)
    except Refused as error:
        yield change(str(error), "Is the API key one that may change numbers?")
        return
    yield from check_settings(changed, url, overrides)
