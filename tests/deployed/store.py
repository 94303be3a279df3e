"""The line's store, as far as it can be seen from outside: how far it is, and that it is ours."""

import json
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlencode, urlsplit

from deployed.asking import FAULTS, Wire, ask, quote_body, read_object
from deployed.findings import Findings, change, ok
from standins.asking import Webhook

NEAR: Final = 0.025  # seconds that a round trip to a database in the same region stays below
LOOKS: Final = 7  # measurements; the quickest counts, because the network only ever adds
MOST_LOOKS: Final = 40  # as many, while the store seems far: a busy machine adds, too


def measure_distance(url: str, webhook: Webhook) -> Findings:
    """Measure how far the store is from the line, by a webhook with one look at it and /healthz.

    What cannot be told: how a database elsewhere behaves at another hour, and what of the time is
    the answer's own work.
    """
    wire, target = Wire(url), urlsplit(webhook.url).path
    body, headers = urlencode(webhook.fields), {**webhook.headers, "Connection": "keep-alive"}
    asked = idle = more = float("inf")
    try:
        wire.ask("GET", "/healthz")
        for look in range(1, MOST_LOOKS + 1):
            asked = min(asked, wire.ask("POST", target, headers, body).seconds)
            idle = min(idle, wire.ask("GET", "/healthz").seconds)
            more = max(asked - idle, 0)
            if look >= LOOKS and more < NEAR:
                break
    finally:
        wire.close()
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


def find_call(env: Mapping[str, str], call_sid: str) -> Findings:
    """See that the call arrived in this database, in a cell that expires. Only reads."""
    url, token = env.get("UPSTASH_REDIS_REST_URL"), env.get("UPSTASH_REDIS_REST_TOKEN")
    if not url or not token:
        return
    login = {"Authorization": f"Bearer {token}"}
    try:
        answer = ask("POST", url, login, json.dumps(["TTL", f"call:{call_sid}:1"]))
    except FAULTS as error:
        yield change(f"Upstash cannot be reached from here: {error}", "UPSTASH_REDIS_REST_URL?")
        return
    seconds = read_object(answer).get("result")
    if not isinstance(seconds, int):
        seen = f"Upstash answers {answer.status}: {quote_body(answer)}"
        yield change(seen, "UPSTASH_REDIS_REST_TOKEN?")
    elif seconds > 0:
        yield ok(f"the call stands in this database, and expires in {seconds / 3600:.0f} hours")
    elif seconds == -1:
        yield change("the call stands in this database for ever", "This is a bug of ours.")
    else:
        yield change(
            "the call is not in this database",
            "The deployed line uses another one: compare UPSTASH_REDIS_REST_URL there and here.",
        )
