"""Trials that somebody else notices: the owner is told of a test call, the backend is asked.

Each has an option of its own. Both go through the deployed line, by a call that nobody makes.
"""

import json
import time
from collections.abc import Mapping
from typing import Final

from deployed.asking import FAULTS, ask, quote_body
from deployed.findings import Finding, Findings, change, note, ok
from phone_line.words import languages, read_words
from standins.call import Phone

QUESTION: Final = "This is a test. Please answer with one short sentence."
LONGEST: Final = 150.0  # seconds: the line gives a backend two minutes
AGAIN: Final = 3.0  # seconds after which Twilio's second attempt to report a call is played
EVENT: Final = {
    "event": "test",
    "text": "A test of your phone line: here you will hear of voicemails and missed calls.",
    "content": "A test of your phone line: here you will hear of voicemails and missed calls.",
    "call_sid": "CA7e57" + "0" * 28,
    "from": "",
    "to": "",
    "heard": "",
    "seconds": 0,
    "recording": "",
    "transcript": "",
}


def tell_owner(phone: Phone, env: Mapping[str, str]) -> Findings:
    """A test event from here, and a missed call that the line itself tells of.

    The phone has not rung yet, and reports the end of its call to the line.
    """
    yield post_event(env["NOTIFY_URL"])
    phone.ring()
    if phone.state == "ended":
        yield note(f"calls from {phone.caller} are turned away there, and nobody is told of those")
        return
    if phone.state == "record":
        phone.silent()  # outside of the hours: to hang up now would leave a message
    if phone.state != "ended":
        phone.hang_up()
    if not is_taken(phone):
        time.sleep(AGAIN)
        phone.retry(phone.last_status)
    if is_taken(phone):
        yield ok(
            f"the line says that somebody was told of a missed call from {phone.caller}: look "
            "whether it arrived"
        )
    else:
        yield change(
            "the line could tell nobody of a missed call",
            'NOTIFY_URL there does not take it: look for "NOTIFY_URL" in `railway logs`.',
        )


def is_taken(phone: Phone) -> bool:
    """Tell whether the report of a call's end was answered 204: all is told that is to be told."""
    answer = phone.last_status.answer if phone.last_status else None
    return bool(answer and answer.status == 204)


def post_event(address: str) -> Finding:
    """A test event to NOTIFY_URL, straight from here. The address is a secret, and not shown."""
    body = json.dumps({**EVENT, "at": round(time.time())})
    key = f"{EVENT['call_sid']}:test"
    headers = {"Content-Type": "application/json", "Idempotency-Key": key}
    try:
        answer = ask("POST", address, headers, body)
    except FAULTS as error:
        return change(f"NOTIFY_URL does not answer here: {type(error).__name__}", "Is it right?")
    if 200 <= answer.status < 300:
        return ok(f"NOTIFY_URL takes a test event ({answer.status}): look whether it arrived")
    seen = f"NOTIFY_URL answers {answer.status} to a test event: {quote_body(answer)}"
    if 300 <= answer.status < 400:
        return change(seen, "A redirect is not followed: set the last address itself.")
    return change(seen, "Anything that takes a POST of JSON will do.")


def ask_backend(phone: Phone) -> Findings:
    """A question that the line takes to its backend; the caller is on hold meanwhile.

    The phone has not rung yet, and its clock runs at the speed of real time.
    """
    phone.ring()
    if phone.state != "gather":
        yield note(f"the backend was not asked: the line did not listen, but: {phone.state}")
        return
    began = time.monotonic()
    phone.say(QUESTION)
    held = 0  # sentences that kept the caller company
    while phone.state == "hold" and time.monotonic() < began + LONGEST:
        held = len(phone.heard)
        phone.wait()
    seconds = time.monotonic() - began
    words = " ".join(phone.heard[held:])
    if is_failure(words) or phone.state == "hold":
        yield change(
            f"the backend gave the line no usable answer within {seconds:.0f} s: {words[:70]!r}",
            'Look for "backend" in `railway logs`: it says what was answered.',
        )
    else:
        yield ok(f"the backend's answer is heard after {seconds:.1f} s: {words[:70]!r}")


def is_failure(words: str) -> bool:
    """Tell whether a caller was told, in any language, that the backend has no answer."""
    tags = [f"{language}-{language.upper()}" for language in languages()]
    failures = [read_words(tag).sentences.get("no_result", "") for tag in tags]
    return any(failure and failure in words for failure in failures)
