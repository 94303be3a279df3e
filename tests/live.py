"""Checks everything between Twilio and a deployed line, and says what to change.

    set -a; . ./.env; set +a        # the settings of the line, as they are there
    python tests/live.py https://line.example --number +15550001111

It reads TWILIO_AUTH_TOKEN, which the line must share. With TWILIO_ACCOUNT_SID it also looks at the
number and the account (with TWILIO_API_KEY and TWILIO_API_SECRET, if they are set), and with
UPSTASH_REDIS_REST_URL and UPSTASH_REDIS_REST_TOKEN it sees that the call arrives in that database.
What it finds comes in the order in which it should be mended. The exit status is 1 if there is
something to change.

By itself it changes nothing anywhere. It makes one call, from Twilio's number for tests and with a
CallSid that begins with CA7e57, which leaves cells that expire. What others notice has an option:

    --fix                 sets the number's URLs at Twilio; shows them and asks before
    --event               the owner is told of a test event, at NOTIFY_URL
    --question            the backend is asked a question
    --ring +15550002222   a second number of the account calls the line, several times, for money
    --dial                with --ring: the line may ring its people

It needs only what production needs.
"""

import argparse
import os
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from functools import partial
from typing import Final

from deployed import effects, line, number, reach, rehearsal, store
from deployed.account import Account, Refused
from deployed.arguments import read_arguments
from deployed.asking import FAULTS, find_origin, read_object
from deployed.findings import Agree, Finding, Findings, change, note, unseen
from deployed.rehearsal import Owner, Rehearsal
from deployed.verdicts import QUESTIONS, Answers
from phone_line.settings import read_settings
from phone_line.words import read_words
from standins.asking import Clock
from standins.call import Phone
from standins.screen import print_no_more

UNTRIED: Final = {  # an option that was not given: what it would try
    "event": "--event (the owner is told of a test event)",
    "question": "--question (the backend is asked)",
    "ring": "--ring (a second number calls the line)",
}


def check_all(
    options: argparse.Namespace, env: Mapping[str, str], agree: Agree, answers: Answers
) -> Findings:
    """All that can be seen from here, in the order in which it should be mended."""
    # 1. The line itself; nothing else counts before it answers.
    url = find_origin(options.url)
    sid = env.get("TWILIO_ACCOUNT_SID", "")
    new_phone = partial(
        line.new_phone, url, token=options.token, called=options.number, account=sid
    )
    phone = new_phone()
    is_well = yield from check_line(phone, url, options.patience)
    answer = phone.webhooks[0].answer if phone.webhooks else None
    # 2. The number, and what else Twilio knows.
    account = find_account(options, env)
    if account:
        yield from check_twilio(account, options, env, phone, agree)
    else:
        yield unseen(number.SETTINGS, "TWILIO_ACCOUNT_SID is not set here", "Export it.")
    if answer is None or answer.status != 200:
        return
    # 3. Its store, which every turn waits for; one that is away has been told of already.
    if is_well:
        yield from store.measure_distance(url, phone.webhooks[0])
        yield from store.find_call(env, phone.call_sid)
    # 4. What others notice.
    yield from try_effects(options, env, new_phone)
    if options.ring and account:
        yield from ring_line(options, env, account, new_phone, agree, answers)


def check_line(phone: Phone, url: str, patience: float) -> Generator[Finding, None, bool]:
    """Findings at the deployed line itself; no more once it cannot be reached.

    Returns what the line says of itself: that it is well.
    """
    began = time.monotonic()
    try:
        answer, tries = line.wake_line(url, began + patience)
        if tries > 1:
            yield note(
                f"it took {time.monotonic() - began:.0f} s and {tries} requests to wake it",
                "So long do the first callers after a quiet spell wait.",
            )
        yield from line.check_health(answer)
        yield from line.check_release(answer, line.find_release())
        report = read_object(answer)
        if "problems" in report:
            yield from line.check_encryption(url)
            yield from line.check_forgery(url)
            yield from line.check_call(phone, is_kept=bool(report.get("ok")))
    except FAULTS as error:
        yield change(
            f"{url} cannot be reached: {type(error).__name__}: {error}",
            "Compare it with `railway domain`; a name made a minute ago may need some more.",
        )
        return False
    return bool(report.get("ok"))


def check_twilio(
    account: Account,
    options: argparse.Namespace,
    env: Mapping[str, str],
    phone: Phone,
    agree: Agree,
) -> Findings:
    """The number's settings, whom the account may call, recordings, and Twilio's own alerts."""
    url, overrides = find_origin(options.url), line.find_overrides(phone)
    if options.fix:
        yield from fix_number(account, options.number, url, overrides, agree)
    else:
        findings = list(number.check_number(account, options.number, url, overrides))
        yield from findings
        if findings and findings[0].level == "unseen":
            return  # Twilio's API is out of reach: once is enough
    yield from reach.check_reach(account, env)
    yield from reach.check_recording(account, url, env)
    yield from reach.check_alerts(account, url)


def fix_number(account: Account, chosen: str, url: str, overrides: str, agree: Agree) -> Findings:
    """Set the number's URLs, if its owner agrees."""
    try:
        row = number.find_number(account, chosen, url)
    except number.NoNumber as error:
        yield change(str(error), error.advice)
    except Refused as error:
        yield number.explain_refusal(error)
    else:
        yield from number.fix_number(account, row, url, overrides, agree)


def find_account(options: argparse.Namespace, env: Mapping[str, str]) -> Account | None:
    """The account that is set here, with an API key if there is one."""
    sid = env.get("TWILIO_ACCOUNT_SID", "")
    key, secret = env.get("TWILIO_API_KEY"), env.get("TWILIO_API_SECRET")
    login = (key, secret) if key and secret else (sid, options.token)
    return Account(sid, login, options.api) if sid else None


def try_effects(
    options: argparse.Namespace, env: Mapping[str, str], new_phone: "partial[Phone]"
) -> Findings:
    """Findings that others notice, as far as they were asked for."""
    url = find_origin(options.url)
    if options.event:
        yield from effects.tell_owner(new_phone(status=f"{url}/voice/status"), env)
    if options.question:
        phone = new_phone()
        phone.clock = Clock(pace=1 / options.speed)
        yield from effects.ask_backend(phone)
    rest = [words for option, words in UNTRIED.items() if not getattr(options, option)]
    if rest:
        yield note(f"not tried: {'; '.join(rest)}")


def ring_line(
    options: argparse.Namespace,
    env: Mapping[str, str],
    account: Account,
    new_phone: "partial[Phone]",
    agree: Agree,
    answers: Answers,
) -> Findings:
    """The whole line over the telephone network, by a second number of the account."""
    url, settings = find_origin(options.url), read_settings(env)
    try:
        row = number.find_number(account, options.number, url)
    except number.NoNumber as error:
        yield change(str(error), error.advice)
        return
    except Refused as error:
        yield number.explain_refusal(error)
        return
    here = Rehearsal(
        account,
        Owner(url, env["ADMIN_TOKEN"]),
        options.ring,
        str(row["phone_number"]),
        settings,
        read_words(settings.language[0]),
        options.speed,
    )
    findings = list(rehearsal.check_second(here))
    yield from findings
    if any(finding.level != "ok" for finding in findings):
        return
    if options.dial:
        yield note("--dial: the line will ring its people; let a mailbox answer, or press 1")
    scripts = rehearsal.list_scripts(settings, here.words, may_dial=options.dial)
    yield from rehearsal.rehearse(
        here, scripts, partial(new_phone, caller=options.ring), agree, answers
    )


# ---- the command -------------------------------------------------------------------------------


def ask_owner(question: str) -> bool:
    """Ask at the terminal; where there is none, nobody agrees."""
    if not sys.stdin.isatty():
        print(f"        {question} Nobody is here to ask: --yes agrees.", flush=True)
        return False
    try:
        return input(f"        {question} [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:  # Ctrl-D
        print(flush=True)
        return False


def agree_always(_: str) -> bool:
    """Agree, because --yes was given."""
    return True


def print_answers(answers: Mapping[str, str]) -> None:
    """The results of the calls of --ring, question by question."""
    print("\nwhat the calls have shown:")
    for question in QUESTIONS:
        print(f"  {question}\n      {answers.get(question, 'not tried')}")


def main(given: Sequence[str], env: Mapping[str, str]) -> int:
    """Print every finding as it is made; 1 if there is something to change."""
    options = read_arguments(given, env)
    answers: Answers = {}
    levels = []
    for finding in check_all(options, env, agree_always if options.yes else ask_owner, answers):
        print(finding, flush=True)
        levels.append(finding.level)
    if answers:
        print_answers(answers)
    wrong, missed = levels.count("CHANGE"), levels.count("unseen")
    if wrong:
        print(f"\nto change: {wrong}")
    elif missed:
        print(f"\nwhat was looked at is well; {missed} could not be looked at")
    else:
        print("\nall well: dial the number")
    return 1 if wrong else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:], os.environ))
    except BrokenPipeError:  # nobody reads any more
        print_no_more()
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
