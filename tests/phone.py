r"""A phone in the terminal that stands in for Twilio: you type what the caller says.

    python tests/phone.py                # starts the function and rings; !help explains the keys
    python tests/phone.py --say          # speaks the line's words, where a speech program is
    python tests/phone.py --url https://line.example --token ...      # rings at one that runs
    python tests/phone.py --env .env     # rehearses your own settings, without any account
    printf 'Ann, my bill\n!answer 30\n' | python tests/phone.py --set FORWARD_TO=+15550100099

Its output is a transcript: it can be kept as a test case. Before it rings it prints what /healthz
complains about, and in the end what the function logged as an error. Nothing but --env and --set
configures the function that it starts, not what is exported.

The call itself is played by standins/call.py.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 # said before an older one stumbles over an import
    OLD = sys.version.split()[0]
    sys.exit(
        "Python 3.11 or newer is needed, not " + OLD + ": remove .venv, begin with a newer one"
    )

import argparse
import contextlib
import os
import re
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from deployed.asking import find_origin
from standins.asking import ACCOUNT, Clock
from standins.call import Phone
from standins.instance import Instance, free_port
from standins.rehearsal import find_faults, settings_of, with_somebody
from standins.screen import TO_HAVE_ONE, announcer, one_line, tell
from standins.terminal import Script, Terminal, is_typed

# How the names of settings end whose values are not printed; addresses may have a key in them.
SECRET: Final = ("_TOKEN", "_SECRET", "_PROMPT", "NOTIFY_URL")
HERE: Final = r"https?://(localhost|127\.0\.0\.1)(:\d+)?/?"  # an address without any secret
TO_TRY: Final = (
    "# Type what the caller says; #1 presses a key, an empty line is silence, !help tells the rest."
)


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    """The command line, understood; any mistake ends the program."""
    parser = argparse.ArgumentParser(
        description="Rings at the phone line and plays what it answers. !help at the prompt."
    )
    parser.add_argument("--url", help="ring at a function that runs already")
    parser.add_argument("--token", help="its TWILIO_AUTH_TOKEN (default: from the environment)")
    parser.add_argument(
        "--env",
        metavar="FILE",
        help="settings of the line that is started, as in .env; no account, store or URL",
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="one more; wins over --env"
    )
    parser.add_argument("--from", dest="caller", default="+15557654321", help="the caller's number")
    parser.add_argument("--to", dest="called", default="+15550001111", help="the line's number")
    parser.add_argument("--trial", action="store_true", help="with a trial account's limits")
    parser.add_argument(
        "--say", action="store_true", help=f"speak the line's words aloud ({TO_HAVE_ONE})"
    )
    options = parser.parse_args(given)
    options.token = options.token or os.environ.get("TWILIO_AUTH_TOKEN")
    if options.url and not find_origin(options.url).startswith("http"):
        parser.error(f"--url {options.url} is no address; http://127.0.0.1:8080 is one")
    if options.url and not options.token:
        parser.error("--url needs --token or TWILIO_AUTH_TOKEN")
    if options.url and (options.set or options.env):
        parser.error("--set and --env are for the function started here, not for one at --url")
    try:
        options.settings, options.left_out = settings_of(options.env, options.set)
    except ValueError as error:
        parser.error(str(error))
    return options


def is_private(name: str, value: str) -> bool:
    """Tells whether a setting may hold a secret: what is printed here is kept as a test."""
    is_elsewhere = name == "BACKEND_URL" and not re.fullmatch(HERE, value)
    return name.endswith(SECRET) or is_elsewhere


def account(settings: Mapping[str, str]) -> str:
    """The account that the function takes calls of; any, unless it takes those of one only."""
    return settings.get("TWILIO_ACCOUNT_SID") or ACCOUNT


@contextlib.contextmanager
def function(chosen: Mapping[str, str], token: str) -> Iterator[tuple[Instance, Path]]:
    """Runs the function with embedded state in a folder that goes when the call is over."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="calls-") as folder:
        state = Path(folder, "calls.sqlite3")
        own = {
            "TWILIO_AUTH_TOKEN": token,
            "PUBLIC_URL": f"http://127.0.0.1:{port}",
            "STATE_FILE": str(state),
        }
        with Instance(own | dict(chosen), port) as instance:
            yield instance, Path(chosen.get("STATE_FILE", state))


def main(given: Sequence[str] | None = None) -> int:
    """The command. Exit status: 0 all well, 1 something was wrong, 2 usage."""
    options = arguments(given)
    script = Script(sys.stdin.fileno())
    if not sys.stdin.isatty() and script.is_transcript():
        words = "this is a transcript, not what a caller types: keep it in tests/calls and run"
        raise RuntimeError(f"{words} python -m pytest tests/line/test_calls.py")
    if is_typed():
        tell(TO_TRY)
    today = datetime.now().astimezone()
    tell(f"# A call on {today.day} {today:%B %Y}.")
    return ring_there(options, script) if options.url else ring_here(options, script)


def ring_there(options: argparse.Namespace, script: Script) -> int:
    """Rings at a function that runs already."""
    phone = Phone(
        options.url,
        token=options.token,
        say=announcer(aloud=options.say),
        trial=options.trial,
        caller=options.caller,
        called=options.called,
        account=account(os.environ),
    )
    return Terminal(phone, script).converse()


def ring_here(options: argparse.Namespace, script: Script) -> int:
    """Starts the function and rings at it."""
    announce = announcer(aloud=options.say)
    chosen = with_somebody(options.settings)
    for name, value in chosen.items():
        tell(f"# {name} is set" if is_private(name, value) else f"set {name}={value}")
    for fault in find_faults(options.settings, options.left_out):
        tell(f"# left out here, and broken: {one_line(fault)}")
    token = chosen.get("TWILIO_AUTH_TOKEN", uuid.uuid4().hex)
    with function(chosen, token) as (instance, state):
        phone = Phone(
            instance.url,
            token=token.split(",")[0],
            say=announce,
            trial=options.trial,
            clock=Clock(pace=0.2),
            caller=options.caller,
            called=options.called,
            account=account(chosen),
        )
        return Terminal(phone, script, instance, state).converse()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except RuntimeError as error:
        sys.exit(f"phone: {error}")
    except EOFError:  # nobody reads, and nobody has rung yet
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
