"""What `live.py` is asked for on its command line. Whatever is wrong with that is one sentence."""

import argparse
import re
from collections.abc import Mapping, Sequence
from typing import Final

from deployed.account import API
from deployed.asking import find_origin
from phone_line.values import E164

PATIENCE: Final = 30.0  # seconds that a service gets to wake up
ACCOUNT: Final = "AC[0-9a-fA-F]{32}"


def read_arguments(given: Sequence[str], env: Mapping[str, str]) -> argparse.Namespace:
    """The options. Whatever is wrong with them ends the program, in a sentence."""
    parser = argparse.ArgumentParser(
        prog="live.py",
        description="Checks a deployed line and its number, and says what to change.",
    )
    parser.add_argument("url", help="the line's origin, like https://line.example")
    parser.add_argument("--number", action="append", default=[], help="the number that leads to it")
    parser.add_argument("--token", default=env.get("TWILIO_AUTH_TOKEN", ""))
    parser.add_argument("--patience", type=float, default=PATIENCE, help="seconds to wake up in")
    parser.add_argument("--fix", action="store_true", help="set the number's URLs; asks before")
    parser.add_argument("--event", action="store_true", help="tell the owner of a test event")
    parser.add_argument("--question", action="store_true", help="ask the backend a question")
    parser.add_argument("--ring", default="", metavar="NUMBER", help="a second number that calls")
    parser.add_argument("--dial", action="store_true", help="with --ring: the line may ring people")
    parser.add_argument("--yes", action="store_true", help="agree to whatever would be asked")
    parser.add_argument("--api", default=API, help=argparse.SUPPRESS)
    parser.add_argument("--speed", type=float, default=1.0, help=argparse.SUPPRESS)
    options = parser.parse_args(given)
    options.token = options.token.split(",")[0].strip()
    if problem := find_problem(options, env):
        parser.error(problem)
    options.number = options.number[0] if options.number else ""
    return options


def find_problem(options: argparse.Namespace, env: Mapping[str, str]) -> str:
    """The first thing that is wrong with what was given; empty if nothing is."""
    sid = env.get("TWILIO_ACCOUNT_SID", "")
    numbers = [*options.number, *filter(None, [options.ring])]
    wrong = [each for each in numbers if not re.fullmatch(E164, each)]
    rules = [
        (
            not find_origin(options.url).startswith(("https://", "http://")),
            f"the line's origin looks like https://line.example, not {options.url!r}",
        ),
        (not options.token, "set TWILIO_AUTH_TOKEN: the line takes signed calls only"),
        (len(options.number) > 1, "give one --number: a line is checked for one at a time"),
        (bool(wrong), f"a number looks like +15550001111, not {(wrong or [''])[0]!r}"),
        (
            bool(sid and not re.fullmatch(ACCOUNT, sid)),
            "TWILIO_ACCOUNT_SID is AC and 32 hex digits: this is no Account SID",
        ),
        (options.fix and not sid, "--fix needs TWILIO_ACCOUNT_SID: the number is the account's"),
        (options.event and not env.get("NOTIFY_URL"), "--event needs NOTIFY_URL"),
        (options.question and not env.get("BACKEND_URL"), "--question needs BACKEND_URL"),
        (bool(options.ring) and not sid, "--ring needs TWILIO_ACCOUNT_SID: the account calls"),
        (
            bool(options.ring) and not env.get("ADMIN_TOKEN"),
            "--ring needs ADMIN_TOKEN: what the line understood is read at /calls",
        ),
        (options.dial and not options.ring, "--dial goes with --ring"),
    ]
    return next((sentence for is_wrong, sentence in rules if is_wrong), "")
