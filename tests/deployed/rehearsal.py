"""The whole line over the real telephone network: a second number of the account calls it.

Twilio's API is told to call the line with TwiML that speaks, presses keys and keeps silent. What
the line understood and did is read from its own /calls, which asks for ADMIN_TOKEN. Nobody's phone
is rung, unless `--dial` allows it. It says before what it costs, and asks; every call has a limit
of its own, and is ended in any case.
"""

import time
from base64 import b64encode
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from deployed.account import Account, Refused
from deployed.asking import FAULTS, ask, read_object
from deployed.findings import Agree, Findings, change, note, ok
from deployed.script import Move, Script, Timed, count_minutes, time_script, write_twiml
from deployed.verdicts import Answers, Heard, judge_script
from phone_line.settings import Settings
from phone_line.words import Words
from standins.call import Phone

NewPhone = Callable[[], Phone]
FINAL: Final = ("completed", "busy", "failed", "no-answer", "canceled")
LIMIT: Final = 30  # seconds after which a call is ended that should have been over
LOOK: Final = 2.0  # seconds between looks at a call
SETTLING: Final = 20.0  # seconds that the end of a call may take to reach the line
MESSAGE: Final = (
    "This is a test message of your phone line. It was not left by a person. "
    "It goes on for a while, so that it cannot miss the tone. "
    "If you hear this, the voicemail of your line works, and nothing is left to do. "
    "One, two, three, four, five, six, seven, eight, nine, ten. Goodbye."
)
QUESTION: Final = "This is a test. Please answer with one short sentence."
REASON: Final = "This is a test call."
SCREENED: Final = 25.0  # seconds that whoever picks up may take to press the key


class Owner:
    """The deployed line as its owner sees it, at /calls."""

    def __init__(self, url: str, token: str) -> None:
        login = b64encode(f"owner:{token}".encode()).decode()
        self.url = url
        self.headers = {"Authorization": f"Basic {login}", "Accept": "application/json"}

    def get(self, path: str) -> dict[str, Any]:
        """Read a page as JSON. Raises Refused."""
        try:
            answer = ask("GET", self.url + path, self.headers)
        except FAULTS as error:
            raise Refused(f"{path} is not answered: {error}") from None
        if answer.status == 200:
            return read_object(answer)
        reasons = {
            401: "ADMIN_TOKEN there is another than the one here",
            404: "there is no /calls: set ADMIN_TOKEN there, and deploy",
        }
        reason = reasons.get(answer.status, f"{path} is answered {answer.status}")
        raise Refused(reason, answer.status)

    def list_calls(self, caller: str) -> list[str]:
        """The CallSids of a caller's calls, the newest first. Raises Refused."""
        rows = self.get("/calls").get("calls", [])
        return [row["call_sid"] for row in rows if row.get("from") == caller]


@dataclass(frozen=True)
class Rehearsal:
    """The two numbers of a rehearsal, and its speed, which is 1 but for tests."""

    account: Account
    owner: Owner
    second: str
    number: str
    settings: Settings
    words: Words
    speed: float = 1.0

    def wait(self, seconds: float) -> None:
        """Let time pass, as the calls count it."""
        time.sleep(seconds / self.speed)


# ---- the scripts -------------------------------------------------------------------------------


def list_scripts(settings: Settings, words: Words, *, may_dial: bool) -> list[Script]:
    """The scripts that fit a line. Nobody is rung, unless `may_dial`."""
    again = words.repeat[0] if words.repeat else "repeat"
    choose = (Move("press", "1"),) if len(settings.language) > 1 else ()
    scripts = [
        Script("key", (*choose, Move("press", "*")), 8),
        Script("word", (*choose, Move("say", again)), 10),
        Script("interrupt", (*choose, Move("interrupt", again)), 15),
        Script("voicemail", (*choose, Move("message", MESSAGE)), 3),
    ]
    if choose:  # the offer of languages cannot be interrupted by the word for "again"
        scripts = [script for script in scripts if script.name != "interrupt"]
    if settings.backend_url:
        scripts.append(Script("hold", (*choose, Move("say", QUESTION)), 45))
    elif may_dial:
        scripts += list_transfers(settings, choose)
    return scripts


def list_transfers(settings: Settings, choose: tuple[Move, ...]) -> list[Script]:
    """The scripts that ring somebody: the first department, by key and by word, or FORWARD_TO."""
    after = settings.ring_seconds + SCREENED
    if settings.departments:
        first = next(iter(settings.departments)).replace("-", " ")
        return [
            Script("menu by key", (*choose, Move("press", "1")), after),
            Script("menu by word", (*choose, Move("say", first)), after),
        ]
    if settings.forward_to:
        return [Script("connected", (*choose, Move("say", REASON)), after)]
    return []


# ---- what it costs -----------------------------------------------------------------------------


def tell_cost(account: Account, second: str, number: str, minutes: int) -> str:
    """The price of calls from one number of the account to another, as Twilio tells it.

    https://www.twilio.com/docs/voice/pricing, "Numbers"
    """
    extra = "what speech recognition and voices cost comes on top: some cents"
    path = f"/v2/Voice/Numbers/{number}?OriginationNumber={quote(second, safe='')}"
    try:
        found = account.get(path, "pricing")
        out = float(found["outbound_call_prices"][0]["current_price"])
        inward = float((found.get("inbound_call_price") or {}).get("current_price") or 0)
    except (Refused, KeyError, IndexError, TypeError, ValueError):
        return f"{minutes} minutes, paid twice (out and in), at a price that Twilio did not tell"
    total, unit = minutes * (out + inward), found.get("price_unit", "")
    return f"at most {total:.2f} {unit} for {minutes} minutes, out and in; {extra}"


# ---- calls -------------------------------------------------------------------------------------


def rehearse(
    here: Rehearsal, scripts: list[Script], new_phone: NewPhone, agree: Agree, answers: Answers
) -> Findings:
    """Make the calls, one after the other, and hold what the line did against each script."""
    pause = here.settings.speech_timeout
    patience = float(pause) if pause.isdigit() else 2.0
    timed = []
    for script in scripts:
        try:
            timed.append(time_script(script, new_phone(), patience))
        except ValueError as error:
            yield note(f"{script.name}: not tried: {error}")
    if not timed:
        return
    cost = tell_cost(here.account, here.second, here.number, count_minutes(timed))
    yield note(f"{here.second} would call {here.number} {len(timed)} times: {cost}")
    if not agree("Make these calls?"):
        yield note("nobody was called")
        return
    for each in timed:
        try:
            heard = make_call(here, each)
        except Refused as error:
            yield change(f"{each.script.name}: {error}", "The calls after it were not made.")
            return
        if isinstance(heard, str):
            yield change(f"{each.script.name}: {heard}", "Look at this call in Twilio's Console.")
        else:
            yield from judge_script(heard, answers)


def make_call(here: Rehearsal, timed: Timed) -> Heard | str:
    """One call from its beginning to its end; what the line wrote down, or what went wrong.

    Raises Refused.
    """
    before = here.owner.list_calls(here.second)
    with calling(here, timed) as sid:
        state = follow_call(here, sid, timed.seconds + LIMIT)
    if state.get("status") != "completed":
        return f"the call did not come about: {state.get('status')}"
    call = find_call(here, before)
    if not call:
        return "the line never heard of the call: does the number lead to it?"
    return Heard(timed, call, here.settings, here.speed)


@contextmanager
def calling(here: Rehearsal, timed: Timed) -> Iterator[str]:
    """A call that is under way, by its CallSid; it is over in any case afterwards.

    Raises Refused. https://www.twilio.com/docs/voice/api/call-resource
    """
    fields = {
        "To": here.number,
        "From": here.second,
        "Twiml": write_twiml(timed, here.words.tag, here.words.voice),
        "TimeLimit": str(round(timed.seconds + LIMIT)),
    }
    sid = str(here.account.post("/Calls.json", fields)["sid"])
    try:
        yield sid
    finally:
        with suppress(Refused):  # it is over by itself
            here.account.post(f"/Calls/{sid}.json", {"Status": "completed"})


def follow_call(here: Rehearsal, sid: str, seconds: float) -> Mapping[str, Any]:
    """A call as the API tells of it, when it is over or has lasted too long. Raises Refused."""
    state: Mapping[str, Any] = {}
    for _ in range(int(seconds / LOOK) + 1):
        state = here.account.get(f"/Calls/{sid}.json")
        if state.get("status") in FINAL:
            break
        here.wait(LOOK)
    return state


def find_call(here: Rehearsal, before: Collection[str]) -> Mapping[str, Any]:
    """The call that the line did not have before, when its end has reached the line, or never will.

    Empty if there is none. Raises Refused.
    """
    call: Mapping[str, Any] = {}
    for _ in range(int(SETTLING / LOOK)):
        for call_sid in here.owner.list_calls(here.second):
            if call_sid not in before:
                call = here.owner.get(f"/calls/{call_sid}")
        if call.get("end"):
            break
        here.wait(LOOK)
    return call


def check_second(here: Rehearsal) -> Findings:
    """See that the second number is the account's, is not the line's own, and /calls is open."""
    if here.second == here.number:
        yield change("--ring names the line's own number", "A line cannot ring itself: another.")
        return
    only = quote(here.second, safe="")
    try:
        here.owner.list_calls(here.second)
        found = here.account.get(f"/IncomingPhoneNumbers.json?PhoneNumber={only}")
    except Refused as error:
        yield change(f"--ring: {error}", "What the line understood is read at its /calls.")
        return
    if found.get("incoming_phone_numbers"):
        yield ok(f"{here.second} is a number of this account")
    else:
        yield change(
            f"{here.second} is no number of this account",
            "--ring takes a second number of the account that has the first.",
        )
