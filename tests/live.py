"""Rings a deployed line as Twilio would, looks at its number's settings, and says what to change.

    python tests/live.py https://line.example --number +15550001111

It reads TWILIO_AUTH_TOKEN, which the line must share. With TWILIO_ACCOUNT_SID it also reads the
number's settings at Twilio (with TWILIO_API_KEY and TWILIO_API_SECRET, if they are set), and with
UPSTASH_REDIS_REST_URL and UPSTASH_REDIS_REST_TOKEN it sees that the call arrives in that database.
The exit status is 1 if there is something to change.

Nothing is changed anywhere. It makes one call, from Twilio's number for tests and with a CallSid
that begins with CA7e57, which leaves cells that expire. It needs only what production needs.
"""

import argparse
import json
import os
import re
import sys
import time
import uuid
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any, Final, Literal
from urllib.parse import parse_qsl, quote, urldefrag, urlencode, urlsplit

from standins.call import OVERRIDES, Phone, Webhook
from standins.webhooks import Answer

CALLER: Final = "+15005550006"  # Twilio's own number for tests: nobody has it
PATIENCE: Final = 30.0  # seconds that a service gets to wake up
NEAR: Final = 0.025  # seconds that a round trip to a database in the same region stays below
LOOKS: Final = 7  # measurements; the quickest counts, because the network only ever adds
PATHS: Final = {  # what a number has to know: the field, its method's field, the path, the option
    "voice_url": ("voice_method", "/voice/inbound", "VoiceUrl"),
    "voice_fallback_url": ("voice_fallback_method", "/voice/fallback", "VoiceFallbackUrl"),
    "status_callback": ("status_callback_method", "/voice/status", "StatusCallback"),
}
OVERRIDING: Final = {
    "voice_application_sid": ("a TwiML app", "VoiceApplicationSid"),
    "trunk_sid": ("a SIP trunk", "TrunkSid"),
}


@dataclass(frozen=True)
class Finding:
    """Something seen, or not; `advice` says what to do about it, and is empty where all is well."""

    level: Literal["ok", "note", "unseen", "CHANGE"]
    seen: str
    advice: str = ""

    def __str__(self) -> str:
        """One line, and the advice below it."""
        return f"{self.level:<7} {self.seen}" + (
            f"\n        > {self.advice}" if self.advice else ""
        )


Findings = Iterator[Finding]


def ok(seen: str) -> Finding:
    return Finding("ok", seen)


def note(seen: str, advice: str = "") -> Finding:
    return Finding("note", seen, advice)


def unseen(why: str, advice: str = "") -> Finding:
    return Finding("unseen", f"the number's settings were not looked at: {why}", advice)


def change(seen: str, advice: str) -> Finding:
    return Finding("CHANGE", seen, advice)


# --- asking ---


class Wire:
    """One connection to one origin, kept open, so that only the first request pays for it."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        self._connection = kind(parts.hostname or "", parts.port, timeout=20)

    def ask(
        self, method: str, target: str, headers: Mapping[str, str] | None = None, body: str = ""
    ) -> Answer:
        """One request and its whole answer; OSError or HTTPException when there is none."""
        began = time.monotonic()
        self._connection.request(method, target, body.encode() or None, dict(headers or {}))
        response: HTTPResponse = self._connection.getresponse()
        whole = response.read()
        return Answer(response.status, dict(response.getheaders()), whole, time.monotonic() - began)

    def close(self) -> None:
        self._connection.close()


def ask(method: str, url: str, headers: Mapping[str, str] | None = None, body: str = "") -> Answer:
    """One request over a connection of its own. Redirects are not followed: they are findings."""
    wire = Wire(url)
    try:
        parts = urlsplit(url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return wire.ask(method, target, headers, body)
    finally:
        wire.close()


def header(answer: Answer, name: str) -> str:
    return {key.lower(): value for key, value in answer.headers.items()}.get(name, "")


def parsed(answer: Answer) -> dict[str, Any]:
    """The JSON object of an answer; empty when it is something else."""
    try:
        found = json.loads(answer.body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


# --- the deployed line ---


def health(answer: Answer) -> Findings:
    """Passes on what the line says about its settings and its store."""
    report = parsed(answer)
    if "problems" not in report:
        yield stranger(answer)
    for problem in report.get("problems", []):
        yield change(f"/healthz: {problem}", "Mend the variable and deploy again.")
    if report.get("ok"):
        yield ok(f"/healthz: settings are complete and the store takes writes ({edge(answer)})")


def awake(url: str, until: float) -> tuple[Answer, int]:
    """The health of the line, asked until something that is not the platform's edge answers."""
    for tries in range(1, 1000):
        try:
            answer = ask("GET", f"{url}/healthz")
            waking = bool(header(answer, "x-railway-fallback"))
        except (OSError, HTTPException):
            if time.monotonic() > until:
                raise
            waking = True
        else:
            if not waking or time.monotonic() > until:
                return answer, tries
        time.sleep(0.5)
    raise TimeoutError("it never woke")


def stranger(answer: Answer) -> Finding:
    """Something else than this line answers."""
    seen = f"/healthz is answered {answer.status} {answer.kind} by something else"
    if not header(answer, "x-railway-fallback"):
        return change(seen, "The domain leads elsewhere: give the origin of `railway domain`.")
    if answer.status == 404:
        return change(
            seen, "Railway knows no service at this domain: `railway domain`, then `railway up`."
        )
    return change(
        seen,
        "Railway does not reach the process: PORT and `railway domain --port` must be the same.",
    )


def edge(answer: Answer) -> str:
    """What stands between the caller and the line, as far as its headers tell."""
    if found := header(answer, "x-railway-edge"):
        return f"through Railway's edge {found}"
    return "through Railway" if header(answer, "x-railway-request-id") else "not through Railway"


def encryption(url: str, plain: str = "") -> Findings:
    """Whether http leads to https. `plain`: the http origin, if it is not on the usual port."""
    if url.startswith("http:"):
        yield note("this origin is not encrypted", "Twilio is to call the https:// one.")
        return
    try:
        answer = ask("GET", f"{plain or url.replace('https:', 'http:', 1)}/healthz")
    except (OSError, HTTPException):
        yield ok("http:// is not served at all")
        return
    if answer.status in (301, 302, 307, 308) and header(answer, "location").startswith("https:"):
        yield ok(f"http:// leads to https:// ({answer.status})")
    else:
        yield change(
            f"http:// is answered {answer.status} in place of a redirect to https://",
            "Let the proxy redirect, so that nobody's words travel in the open by mistake.",
        )


def forgery(url: str) -> Findings:
    """Whether a webhook that nobody signed is refused."""
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    body = urlencode({"CallSid": test_sid(), "From": CALLER, "CallStatus": "ringing"})
    answer = ask("POST", f"{url}/voice/inbound", form, body)
    if answer.status == 403:
        yield ok("a webhook without a signature is refused (403)")
    elif 300 <= answer.status < 400:
        yield change(
            f"a POST is redirected to {header(answer, 'location')[:80]}",
            "Twilio would come back with a GET and without its fields: use the last URL itself.",
        )
    else:
        yield change(
            f"a webhook without a signature is answered {answer.status}, not 403",
            "Whoever answers here believes anybody. Is it this line, in this release?",
        )


def test_sid() -> str:
    """A CallSid that Twilio will hardly ever give, and that is found in a log as CA7e57."""
    return "CA7e57" + uuid.uuid4().hex[:28]


def ring(phone: Phone) -> Findings:
    """One signed call, which is asked for its first words only, and the same webhook again."""
    phone.ring()
    webhook = phone.webhooks[0]
    answer = webhook.answer
    if answer is None or answer.status != 200:
        yield refused(answer, phone)
        return
    for problem in phone.broken:
        yield change(f"the answer breaks a rule of Twilio's: {problem}", "This is a bug of ours.")
    words = " ".join(phone.heard)[:70]
    yield ok(f"a signed call is answered in {answer.seconds * 1000:.0f} ms: {words!r}")
    if "turn=1" not in answer.body.decode():
        yield without_return(answer)
    elif phone.retry().same:
        yield ok("the same webhook again is answered alike, byte for byte")
    else:
        yield change(
            "the same webhook again is answered otherwise",
            'The store does not keep calls: look for "degraded" in `railway logs`.',
        )


def refused(answer: Answer | None, phone: Phone) -> Finding:
    """A signed call got no TwiML."""
    if answer is None:
        return change(f"a signed call is not answered: {phone.broken[0].words}", "`railway logs`")
    said = answer.body.decode("utf-8", "replace").strip()[:90]
    seen = f"a signed call is answered {answer.status}: {said}"
    if answer.status != 403:
        return change(seen, "Look at `railway logs` at this minute.")
    if "account" in said:
        return change(
            seen, "TWILIO_ACCOUNT_SID there is another than here: export the one that is set there."
        )
    return change(
        seen,
        f"Either TWILIO_AUTH_TOKEN there is not the one here, or PUBLIC_URL there is not "
        f'{origin(phone.url)}: the line "signature refused" in the log has the URL that it tried.',
    )


def without_return(answer: Answer) -> Finding:
    """The call is answered, but nothing can follow."""
    if b"<Reject" in answer.body:
        return note(f"calls from {CALLER} are turned away there", "BLOCKED or CALLS_PER_HOUR.")
    return change(
        "the answer leads nowhere: it is the apology for a bug",
        'Look for "a bug" in `railway logs`: the cause and the line stand there.',
    )


def distance(url: str, webhook: Webhook) -> Findings:
    """How far the store is from the line: a repeated webhook costs one round trip, /healthz none.

    The quickest of several counts, since the network only adds. What it cannot tell: how a
    database elsewhere behaves at another hour, and what of the time is the answer's own work.
    """
    wire, target = Wire(url), urlsplit(webhook.url).path
    body, headers = urlencode(webhook.fields), {**webhook.headers, "Connection": "keep-alive"}
    try:
        wire.ask("GET", "/healthz")
        pairs = [
            (wire.ask("POST", target, headers, body).seconds, wire.ask("GET", "/healthz").seconds)
            for _ in range(LOOKS)
        ]
    finally:
        wire.close()
    asked, idle = (min(times) for times in zip(*pairs, strict=True))
    more = max(asked - idle, 0)
    seen = (
        f"a webhook with one look at the store takes {more * 1000:.0f} ms longer than none "
        f"({asked * 1000:.0f} against {idle * 1000:.0f} ms from here)"
    )
    if more < NEAR:
        yield ok(seen)
    else:
        yield change(
            seen,
            "Redis is far from the service: make the database in the region where the service runs "
            "(`railway scale us-east=1` and Upstash's us-east-1); every turn pays this twice.",
        )


def database(url: str, token: str, call_sid: str) -> Findings:
    """Whether the call arrived in this database, in a cell that expires. Only reads."""
    login = {"Authorization": f"Bearer {token}"}
    command = json.dumps(["TTL", f"call:{call_sid}:1"])
    try:
        answer = ask("POST", url, login, command)
    except (OSError, HTTPException) as error:
        yield change(f"Upstash cannot be reached from here: {error}", "UPSTASH_REDIS_REST_URL?")
        return
    seconds = parsed(answer).get("result")
    if not isinstance(seconds, int):
        said = answer.body.decode("utf-8", "replace")[:90]
        yield change(f"Upstash answers {answer.status}: {said}", "UPSTASH_REDIS_REST_TOKEN?")
    elif seconds > 0:
        yield ok(f"the call stands in this database, and expires in {seconds / 3600:.0f} hours")
    elif seconds == -1:
        yield change("the call stands in this database for ever", "This is a bug of ours.")
    else:
        yield change(
            "the call is not in this database",
            "The deployed line uses another one: compare UPSTASH_REDIS_REST_URL there and here.",
        )


# --- the number at Twilio ---


@dataclass(frozen=True)
class Account:
    """Who asks Twilio's REST API, and where it is."""

    sid: str
    login: tuple[str, str]
    api: str = "https://api.twilio.com"

    def get(self, path: str) -> Answer:
        """Read something of the account."""
        login = b64encode(":".join(self.login).encode()).decode()
        url = f"{self.api}/2010-04-01/Accounts/{self.sid}{path}"
        return ask("GET", url, {"Authorization": f"Basic {login}"})


def at_twilio(account: Account, number: str, url: str, overrides: str) -> Findings:
    """What Twilio knows about the account and the number."""
    try:
        about, found = account.get(".json"), account.get(listed(number))
    except (OSError, HTTPException) as error:
        yield unseen(f"Twilio's REST API cannot be reached from here: {error}")
        return
    if found.status != 200:
        said = parsed(found).get("message", "")
        yield change(
            f"Twilio answers {found.status}: {said}",
            "TWILIO_ACCOUNT_SID with TWILIO_AUTH_TOKEN, or with an API key that may read numbers?",
        )
        return
    yield from kind_of_account(parsed(about))
    rows = parsed(found).get("incoming_phone_numbers", [])
    if row := chosen(rows, number, url):
        yield from settings_of(row, url, overrides)
    else:
        yield change(
            f"the account has {len(rows)} numbers, and none of them is {number or 'meant'}",
            "Give --number with a number of this account (it may belong to a subaccount).",
        )


def listed(number: str) -> str:
    """The path of the account's numbers, or of the one."""
    only = f"PhoneNumber={quote(number, safe='')}" if number else "PageSize=1000"
    return f"/IncomingPhoneNumbers.json?{only}"


def chosen(rows: Sequence[dict[str, Any]], number: str, url: str) -> dict[str, Any] | None:
    """The number that is meant: the one asked for, the one that points here, or the only one."""
    fitting = [row for row in rows if row.get("phone_number") == number]
    here = [row for row in rows if origin(row.get("voice_url") or "") == url]
    only = rows if len(rows) == 1 else []
    found = fitting if number else [*here, *only]
    return found[0] if found else None


def kind_of_account(about: Mapping[str, Any]) -> Findings:
    """A trial, or a suspended account."""
    if about.get("type") == "Trial":
        yield note(
            "this is a trial account: it connects nobody and records no message",
            "Calls come from verified numbers only. The README has its limits.",
        )
    if about.get("status") not in (None, "active"):
        yield change(f"the account is {about['status']}", "Twilio's Console says why.")


def settings_of(row: Mapping[str, Any], url: str, overrides: str) -> Findings:
    """The number's own settings, one by one, and the command that mends them."""
    number, wrong = row["phone_number"], []
    for name, (what, option) in OVERRIDING.items():
        if row.get(name):
            seen = f"{number}: {what} ({row[name]}) overrides the number's own URLs"
            wrong.append((seen, f"-d {option}="))
    for name, (method, path, option) in PATHS.items():
        wanted = url + path + overrides
        if seen := differing(row, name, method, wanted):
            mend = f"--data-urlencode '{option}={wanted}' -d {option_of(method)}"
            wrong.append((f"{number}: {seen}", mend))
        else:
            yield ok(f"{number}: {name} is {row[name]}")
    if not (row.get("capabilities") or {"voice": True}).get("voice"):
        yield change(f"{number} cannot take calls", "It has no voice: buy another number.")
    yield from mended(row, wrong)


def option_of(method: str) -> str:
    """voice_method as the API takes it: VoiceMethod=POST."""
    return "".join(map(str.capitalize, method.split("_"))) + "=POST"


def mended(row: Mapping[str, Any], wrong: Sequence[tuple[str, str]]) -> Findings:
    """What is wrong with a number, each with the command that changes it."""
    for seen, options in wrong:
        place = f"/2010-04-01/Accounts/$TWILIO_ACCOUNT_SID/IncomingPhoneNumbers/{row.get('sid')}"
        login = '-u "$TWILIO_ACCOUNT_SID:$TWILIO_AUTH_TOKEN"'
        yield change(seen, f'curl -s {login} "https://api.twilio.com{place}.json" {options}')


def differing(row: Mapping[str, Any], name: str, method: str, wanted: str) -> str:
    """How one of the number's URLs is not what it should be; empty when it is."""
    found = row.get(name) or ""
    if not found:
        return f"{name} is not set"
    if name == "voice_fallback_url" and urlsplit(found).hostname == "handler.twilio.com":
        return ""
    if origin(found) != origin(wanted):
        return f"{name} leads to {origin(found) or found}, not here"
    if urlsplit(found).path != urlsplit(wanted).path:
        return f"{name} has the path {urlsplit(found).path or '/'}"
    if row.get(method) != "POST":
        return f"{name} is asked with {row.get(method)}, not POST"
    given, right = (dict(parse_qsl(urldefrag(each).fragment)) for each in (found, wanted))
    return "" if given == right else f"{name} has {fragment(given)} in place of {fragment(right)}"


def fragment(given: Mapping[str, str]) -> str:
    """Connection overrides as they stand in a URL."""
    return "#" + "&".join(f"{name}={value}" for name, value in given.items()) if given else "no #"


def origin(url: str) -> str:
    """The scheme and host of a URL, in lower case."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}".lower() if parts.netloc else ""


# --- all of it ---


def everything(options: argparse.Namespace, env: Mapping[str, str]) -> Findings:
    """All that can be seen from here, in the order in which it should be mended."""
    url = origin(options.url)
    account_sid = env.get("TWILIO_ACCOUNT_SID", "")
    phone = Phone(
        f"{url}/voice/inbound",
        token=options.token,
        caller=CALLER,
        called=options.number or "+15005550000",
        fallback=None,
        status=None,
        account=account_sid or "AC" + "0" * 32,
    )
    phone.call_sid = test_sid()
    yield from the_line(phone, url, env, options.patience)
    if not account_sid:
        yield unseen("TWILIO_ACCOUNT_SID is not set here", "Export it, and look again.")
        return
    key, secret = env.get("TWILIO_API_KEY"), env.get("TWILIO_API_SECRET")
    login = (key, secret) if key and secret else (account_sid, options.token)
    account = Account(account_sid, login, options.api)
    yield from at_twilio(account, options.number, url, handed_out(phone))


def the_line(phone: Phone, url: str, env: Mapping[str, str], patience: float) -> Findings:
    """What the deployed line itself shows; no more once it cannot be reached."""
    began = time.monotonic()
    try:
        answer, tries = awake(url, began + patience)
        if tries > 1:
            yield note(
                f"it took {time.monotonic() - began:.0f} s and {tries} requests to wake it",
                "So long do the first callers after a quiet spell wait; the README has what to do.",
            )
        yield from health(answer)
        if "problems" in parsed(answer):
            yield from the_call(phone, url, env)
    except (OSError, HTTPException) as error:
        yield change(
            f"{url} cannot be reached: {type(error).__name__}: {error}",
            "Compare it with `railway domain`; a name made a minute ago may need some more.",
        )


def the_call(phone: Phone, url: str, env: Mapping[str, str]) -> Findings:
    """What webhooks to a line that answers show."""
    yield from encryption(url)
    yield from forgery(url)
    yield from ring(phone)
    answer = phone.webhooks[0].answer
    if answer is None or answer.status != 200:
        return
    yield from distance(url, phone.webhooks[0])
    redis, token = env.get("UPSTASH_REDIS_REST_URL"), env.get("UPSTASH_REDIS_REST_TOKEN")
    if redis and token:
        yield from database(redis, token, phone.call_sid)


def handed_out(phone: Phone) -> str:
    """The connection overrides that the line itself puts into its URLs."""
    answer = phone.webhooks[0].answer if phone.webhooks else None
    found = re.search(r"#[a-z0-9=&;]+", answer.body.decode("utf-8", "replace")) if answer else None
    return found[0].replace("&amp;", "&") if found else OVERRIDES


def arguments(given: Sequence[str], env: Mapping[str, str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="live.py", description="Checks a deployed line and its number. Changes nothing."
    )
    parser.add_argument("url", help="the line's origin, like https://line.example")
    parser.add_argument("--number", default="", help="the number that leads to it")
    parser.add_argument("--token", default=env.get("TWILIO_AUTH_TOKEN", ""))
    parser.add_argument("--patience", type=float, default=PATIENCE, help="seconds to wake up in")
    parser.add_argument("--api", default="https://api.twilio.com", help=argparse.SUPPRESS)
    options = parser.parse_args(given)
    options.token = options.token.split(",")[0].strip()
    if not origin(options.url).startswith(("https://", "http://")):
        parser.error(f"the line's origin looks like https://line.example, not {options.url!r}")
    if not options.token:
        parser.error("set TWILIO_AUTH_TOKEN: the line takes signed calls only")
    return options


def main(given: Sequence[str], env: Mapping[str, str]) -> int:
    """Prints every finding as it is made; 1 if there is something to change."""
    levels = []
    for finding in everything(arguments(given, env), env):
        print(finding, flush=True)
        levels.append(finding.level)
    wrong = levels.count("CHANGE")
    if wrong:
        print(f"\nto change: {wrong}")
    elif "unseen" in levels:
        print("\nwhat was looked at is well; the number's settings were not looked at")
    else:
        print("\nall well: dial the number")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
