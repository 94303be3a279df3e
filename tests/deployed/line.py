"""The deployed line by itself: who answers, in which release, and whether it verifies.

One call is made, from Twilio's number for tests and with a CallSid that begins with CA7e57. It
leaves cells that expire.
"""

import re
import subprocess
import time
import uuid
from typing import Final
from urllib.parse import urlencode

from deployed import ROOT
from deployed.asking import FAULTS, ask, find_header, find_origin, quote_body, read_object
from deployed.findings import Finding, Findings, change, note, ok
from standins.asking import OVERRIDES
from standins.call import Phone
from standins.webhooks import Answer

CALLER: Final = "+15005550006"  # Twilio's own number for tests: nobody has it
FORM: Final = "application/x-www-form-urlencoded"


def new_phone(
    url: str,
    *,
    token: str,
    called: str = "",
    account: str = "",
    status: str | None = None,
    caller: str = CALLER,
) -> Phone:
    """A phone that rings a line as Twilio would, and falls back to nothing."""
    phone = Phone(
        f"{url}/voice/inbound",
        token=token,
        caller=caller,
        called=called or "+15005550000",
        fallback=None,
        status=status,
        account=account or "AC" + "0" * 32,
    )
    phone.call_sid = new_call()
    return phone


def new_call() -> str:
    """A CallSid that Twilio will hardly ever give, and that is found in a log as CA7e57."""
    return "CA7e57" + uuid.uuid4().hex[:28]


# ---- who answers -------------------------------------------------------------------------------


def wake_line(url: str, until: float) -> tuple[Answer, int]:
    """The line's health, asked until something that is not the platform's edge answers.

    Raises what the last request raised, if nobody answers until then (time.monotonic).
    """
    for tries in range(1, 1000):
        try:
            answer = ask("GET", f"{url}/healthz")
            is_waking = bool(find_header(answer, "x-railway-fallback"))
        except FAULTS:
            if time.monotonic() > until:
                raise
            is_waking = True
        else:
            if not is_waking or time.monotonic() > until:
                return answer, tries
        time.sleep(0.5)
    raise TimeoutError("it never woke")


def check_health(answer: Answer) -> Findings:
    """Pass on what the line says about its settings and its store."""
    report = read_object(answer)
    if "problems" not in report:
        yield name_stranger(answer)
    for problem in report.get("problems", []):
        yield change(f"/healthz: {problem}", "Mend the variable and deploy again.")
    if report.get("ok"):
        yield ok(
            f"/healthz: settings are complete and the store takes writes ({name_edge(answer)})"
        )


def check_release(answer: Answer, here: str) -> Findings:
    """Compare the release that serves with the one that is checked out here, if that is known."""
    report = read_object(answer)
    if "problems" not in report:
        return
    serving = str(report.get("release", ""))
    if not serving:
        yield change("/healthz names no release: an older one serves", "Deploy this one.")
    elif serving == "unknown":
        yield note("which release serves is not known: it does not run on Railway")
    elif "-" in serving:
        yield note(
            f"deployment {serving} serves; `railway up` tells no commit",
            "The newest of `railway deployment list` should be the same.",
        )
    elif not here:
        yield ok(f"release {serving} serves")
    elif here.startswith(serving):
        yield ok(f"release {serving} serves, which is the one here")
    else:
        yield note(
            f"release {serving} serves, and {here[:12]} is here", "Deploy, if this is newer."
        )


def find_release() -> str:
    """The commit that is checked out here; empty where that is no clone, or git is missing."""
    command = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip()


def name_stranger(answer: Answer) -> Finding:
    """Something else than this line answers."""
    seen = f"/healthz is answered {answer.status} {answer.kind} by something else"
    if not find_header(answer, "x-railway-fallback"):
        advice = "The domain leads elsewhere, or to another project: give that of `railway domain`."
    elif answer.status == 404:
        advice = "Railway knows no service at this domain: `railway domain`, then `railway up`."
    else:
        advice = (
            "Railway does not reach the process: PORT and `railway domain --port` must be the same."
        )
    return change(seen, advice)


def name_edge(answer: Answer) -> str:
    """The proxies between here and the line, as far as their headers tell."""
    if found := find_header(answer, "x-railway-edge"):
        return f"through Railway's edge {found}"
    if find_header(answer, "x-railway-request-id"):
        return "through Railway"
    return "not through Railway"


# ---- who is believed ---------------------------------------------------------------------------


def check_encryption(url: str, plain: str = "") -> Findings:
    """See that http leads to https. `plain`: the http origin, if it is not on the usual port."""
    if url.startswith("http:"):
        yield note("this origin is not encrypted", "Twilio is to call the https:// one.")
        return
    try:
        answer = ask("GET", f"{plain or url.replace('https:', 'http:', 1)}/healthz")
    except FAULTS:
        yield ok("http:// is not served at all")
        return
    is_redirect = answer.status in (301, 302, 307, 308)
    if is_redirect and find_header(answer, "location").startswith("https:"):
        yield ok(f"http:// leads to https:// ({answer.status})")
    else:
        yield change(
            f"http:// is answered {answer.status} in place of a redirect to https://",
            "Let the proxy redirect, so that nobody's words travel in the open by mistake.",
        )


def check_forgery(url: str) -> Findings:
    """See that a webhook that nobody signed is refused."""
    body = urlencode({"CallSid": new_call(), "From": CALLER, "CallStatus": "ringing"})
    answer = ask("POST", f"{url}/voice/inbound", {"Content-Type": FORM}, body)
    if answer.status == 403:
        yield ok("a webhook without a signature is refused (403)")
    elif 300 <= answer.status < 400:
        yield change(
            f"a POST is redirected to {find_header(answer, 'location')[:80]}",
            "Twilio would come back with a GET and without its fields: use the last URL itself.",
        )
    else:
        yield change(
            f"a webhook without a signature is answered {answer.status}, not 403",
            "Whoever answers here believes anybody. Is it this line, in this release?",
        )


def check_call(phone: Phone, *, is_kept: bool) -> Findings:
    """One signed call, which is asked for its first words only, and the same webhook again.

    Without a store that keeps calls (`is_kept`) the second answer may well be another.
    """
    phone.ring()
    answer = phone.webhooks[0].answer
    if answer is None or answer.status != 200:
        yield explain_refusal(answer, phone)
        return
    for problem in phone.broken:
        yield change(f"the answer breaks a rule of Twilio's: {problem}", "This is a bug of ours.")
    words = " ".join(phone.heard)[:70]
    yield ok(f"a signed call is answered in {answer.seconds * 1000:.0f} ms: {words!r}")
    if "turn=1" not in answer.body.decode():
        yield explain_dead_end(answer, phone)
    elif not is_kept:
        yield note("the same webhook was not sent again, because of what /healthz says")
    elif phone.retry().same:
        yield ok("the same webhook again is answered alike, byte for byte")
    else:
        yield change(
            "the same webhook again is answered otherwise",
            'The store does not keep calls: look for "degraded" in `railway logs`.',
        )


def explain_refusal(answer: Answer | None, phone: Phone) -> Finding:
    """A signed call got no TwiML."""
    if answer is None:
        return change(f"a signed call is not answered: {phone.broken[0].words}", "`railway logs`")
    reason = quote_body(answer)
    seen = f"a signed call is answered {answer.status}: {reason}"
    if answer.status != 403:
        return change(seen, "Look at `railway logs` at this minute.")
    if "account" in reason:
        return change(
            seen, "TWILIO_ACCOUNT_SID there is another than here: export the one that is set there."
        )
    return change(
        seen,
        f"Either TWILIO_AUTH_TOKEN there is not the one here, or PUBLIC_URL there is not "
        f'{find_origin(phone.url)}: the line "signature refused" in the log has the URL that it '
        "tried.",
    )


def explain_dead_end(answer: Answer, phone: Phone) -> Finding:
    """The call is answered, but nothing can follow."""
    if b"<Reject" in answer.body:
        seen = f"calls from {phone.caller} are turned away there"
        return note(seen, "BLOCKED or CALLS_PER_HOUR.")
    return change(
        "the answer leads nowhere: it is the apology for a bug",
        'Look for "a bug" in `railway logs`: the cause and the line stand there.',
    )


def find_overrides(phone: Phone) -> str:
    """The connection overrides that the line itself puts into its URLs."""
    answer = phone.webhooks[0].answer if phone.webhooks else None
    body = answer.body.decode("utf-8", "replace") if answer else ""
    found = re.search(r"#[a-z0-9=&;]+", body)
    return found[0].replace("&amp;", "&") if found else OVERRIDES
