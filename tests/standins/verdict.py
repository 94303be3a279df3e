"""Prints what is wrong with a line before a call, and after it how the call went."""

import http.client
import json
from collections import Counter
from collections.abc import Collection
from contextlib import suppress
from typing import Final
from urllib.parse import urlsplit

from standins.call import Phone
from standins.instance import Instance
from standins.screen import one_line, tell
from standins.sentences import say_in_every_language

HEALTH_SECONDS: Final = 10.0


def examine(url: str) -> list[str]:
    """The problems that the line at this origin reports of itself; they are printed."""
    try:
        problems = complaints(url)
    except (OSError, ValueError, http.client.HTTPException) as error:
        tell(f"# no report at /healthz: {error}")
        return []
    for problem in problems:
        tell(f"# broken setting: {one_line(problem)}")
    return problems


def complaints(url: str) -> list[str]:
    """The problems that /healthz reports at this origin. ValueError when it is no such report."""
    parts = urlsplit(url)
    https = parts.scheme == "https"
    connect = http.client.HTTPSConnection if https else http.client.HTTPConnection
    connection = connect(parts.hostname or "", parts.port, timeout=HEALTH_SECONDS)
    try:
        connection.request("GET", "/healthz")
        response = connection.getresponse()
        body = response.read()
    finally:
        connection.close()
    with suppress(ValueError, KeyError, TypeError):
        return [str(problem) for problem in json.loads(body)["problems"]]
    raise ValueError(f"HTTP {response.status}")


def explain_refusal(phone: Phone, *, ours: bool) -> None:
    """Prints why a line took no call, in its own words; `ours`: it was started here."""
    refused = phone.webhooks[0].answer
    if not refused or refused.status != 403:
        return
    said = one_line(refused.body.decode(errors="replace"))
    if refused.kind == "text/plain":
        tell(f"# the line answered: {said}")
    if "another account" in said:
        tell("# export the TWILIO_ACCOUNT_SID that is set there")
    elif not ours:
        rung = urlsplit(phone.url)
        tell("# either --token is not the TWILIO_AUTH_TOKEN of the line,")
        tell(f"# or the line's PUBLIC_URL is not {rung.scheme}://{rung.netloc}, which was rung")


def sum_up(
    phone: Phone, instance: Instance | None, *, problems: Collection[str], unusable: int
) -> bool:
    """Prints how the call went; answers whether all was well.

    `problems` are those that the line had reported itself, `unusable` counts lines of a script.
    """
    apologies = apologies_in(phone)
    if apologies and not instance:
        tell("# the line apologised for a mistake of its own: its log has the cause")
    errors = errors_in(instance, problems) if instance else Counter()
    for error, times in errors.items():
        tell(f"# error in the log{f', {times} times' if times > 1 else ''}: {error}")
    kinds = {
        "broken rules": len(phone.broken),
        "broken settings": len(problems),
        "apologies": apologies,
        "errors in the log": errors.total(),
        "lines of the script not usable": unusable,
    }
    wrong = ", ".join(f"{kind}: {count}" for kind, count in kinds.items() if count)
    tell(f"# {figures_of(phone)}, {wrong or 'all well'} ({phone.call_sid})")
    return not wrong


def figures_of(phone: Phone) -> str:
    """The length of the call, and its slowest answer."""
    answers = [webhook.answer.seconds for webhook in phone.webhooks if webhook.answer]
    slowest = f", the slowest answered in {max(answers):.2f} s" if answers else ""
    return f"{phone.duration} s, {len(phone.webhooks)} webhooks{slowest}"


def apologies_in(phone: Phone) -> int:
    """The number of times that the line apologised for a mistake of its own."""
    apologies = say_in_every_language("apology")
    return sum(event.removeprefix("line: ") in apologies for event in phone.transcript)


def errors_in(instance: Instance, problems: Collection[str]) -> Counter[str]:
    """The errors in the log of an instance, but for the problems that were told before."""
    found: Counter[str] = Counter()
    for entry in instance.log():
        facts = [f"{k}={v}" for k, v in entry.items() if k not in {"level", "message", "call"}]
        words = " ".join([str(entry.get("message")), *facts])
        if entry.get("level") == "error" and not any(each in words for each in problems):
            found[one_line(words)] += 1
    return found
