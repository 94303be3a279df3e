r"""A phone in the terminal that stands in for Twilio, and the doorway to its library.

    python tests/phone.py                # starts the function and rings; !help explains the keys
    python tests/phone.py --url https://line.example --token ...      # rings at one that runs
    python tests/phone.py --env .env     # rehearses your own settings, without any account
    printf 'Ann, my bill\n!answer 30\n' | python tests/phone.py --set FORWARD_TO=+15550100099

Its output is a transcript: it can be kept as a test case. Before it rings it prints what /healthz
complains about, and in the end what the function logged as an error. Nothing but --env and --set
configures the function that it starts, not what is exported.
What it plays a call with is in standins/: call.py, webhooks.py, twiml.py, transcript.py.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 # said before an older one stumbles over an import
    sys.exit("Python 3.11 or newer is needed; this is " + sys.version.split()[0])

import argparse
import contextlib
import difflib
import http.client
import json
import math
import os
import re
import select
import shutil
import sqlite3
import subprocess
import tempfile
import textwrap
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from standins.call import MESSAGE_SECONDS, TALK_SECONDS, Clock, NotNow, Phone
from standins.instance import ROOT, SETTINGS, Instance, free_port

UNSURE: Final = 0.3
APOLOGIES: Final = re.findall('"apology": "(.+)"', (ROOT / "main.py").read_text(encoding="utf-8"))
TRANSCRIPT: Final = r"set [A-Z][A-Z0-9_]*=.*|rings( from .+)?"  # how one begins
ENTRY: Final = r"""(?:export\s+)?(\w+)\s*=\s*(?:"([^"]*)"|'([^']*)'|(.*?))\s*(?:\s#.*)?"""
LEFT_OUT: Final = ("TWILIO_", "UPSTASH_", "PUBLIC_URL", "STATE_FILE")  # of --env: a real line's own
SECRET: Final = ("_TOKEN", "_SECRET")  # how the names end whose values are not printed
COLOURS: Final = {
    "line:": "36",
    "line": "36;2",
    "caller": "32",
    "callee": "33",
    "# broken": "31;1",
    "# warning": "33;2",
    "#": "2",
}
WAITS: Final = {
    "gather": "you speak; #1 presses a key; an empty line is silence",
    "dial": "the callee: !answer [seconds], !busy, !no-answer, !fail",
    "record": "after the beep: !message [seconds], ## ends it",
}
HELP: Final = """\
# words              what the caller says
# !unsure words      the same, badly understood (confidence 0.3)
# #1                 keys that the caller presses (## is the key #)
# an empty line      silence
# !answer [seconds]  the callee answers and talks; also !busy, !no-answer, !fail
# !message [seconds] the caller leaves a message after the beep
# !retry             Twilio delivers the last webhook again; are the words the same?
# !kill              kill -9 the function in mid-call, and start a fresh process
# !history           what was written down about this call
# !hangup            the caller hangs up (so does the end of the input)"""


HEALTH_SECONDS: Final = 10.0


class Script:
    """Standard input that is no keyboard: its lines, and those that nobody came to ask for."""

    def __init__(self, number: int) -> None:
        self._number, self._read = number, b""

    def line(self) -> str:
        """The next line; EOFError when there is none."""
        while b"\n" not in self._read and (some := os.read(self._number, 65536)):
            self._read += some
        if not self._read:
            raise EOFError
        line, _, self._read = self._read.partition(b"\n")
        return line.decode(errors="replace").strip()

    def is_transcript(self) -> bool:
        """Whether what is there already begins as tests/calls/*.call do; waits for nothing."""
        if select.select([self._number], [], [], 0)[0]:
            self._read += os.read(self._number, 65536)
        lines = [line.strip() for line in self._read.decode(errors="replace").splitlines()]
        first = next((line for line in lines if line and not line.startswith("#")), "")
        return re.fullmatch(TRANSCRIPT, first) is not None

    def rest(self) -> list[str]:
        """The lines that are there already and were never asked for; waits for no others."""
        while select.select([self._number], [], [], 0)[0]:
            if not (some := os.read(self._number, 65536)):
                break
            self._read += some
        return [line.strip() for line in self._read.decode(errors="replace").rstrip().splitlines()]


class Terminal:
    """A phone at a keyboard, or fed by a script: one line of input is one event."""

    def __init__(
        self,
        phone: Phone,
        script: Script,
        instance: Instance | None = None,
        state: Path | None = None,
    ) -> None:
        self.phone, self._instance, self._state = phone, instance, state
        self._typed = sys.stdin.isatty() and sys.stdout.isatty()
        self._script = script
        self._ill: list[str] = []
        self._unusable = 0

    def converse(self) -> int:
        """Asks how the line is, rings, and obeys until the call ends. Answers the exit status."""
        self._ill = self._examine()
        try:
            self.phone.ring()
            self._explain_refusal()
            while self.phone.state != "ended":
                self._turn()
        except (KeyboardInterrupt, EOFError):
            if self._typed:
                print()
            if self.phone.state != "ended":
                self.phone.hang_up()
        return 1 if self._sum_up() else 0

    def _examine(self) -> list[str]:
        """Prints what the line's own report complains about, and answers it."""
        try:
            problems = complaints(self.phone.url)
        except (OSError, ValueError, http.client.HTTPException) as error:
            tell(f"# no report at /healthz: {error}")
            return []
        for problem in problems:
            tell(f"# broken setting: {one_line(problem)}")
        return problems

    def _explain_refusal(self) -> None:
        """Says why the line would not take the call at all, in its own words."""
        refused = self.phone.webhooks[0].answer
        if not refused or refused.status != 403:
            return
        said = one_line(refused.body.decode(errors="replace"))
        if refused.kind == "text/plain":
            tell(f"# the line answered: {said}")
        if "another account" in said:
            tell("# export the TWILIO_ACCOUNT_SID that is set there")
        elif not self._instance:
            here = urlsplit(self.phone.url)
            tell("# either --token is not the TWILIO_AUTH_TOKEN of the line,")
            tell(f"# or the line's PUBLIC_URL is not {here.scheme}://{here.netloc}, which was rung")

    def _turn(self) -> None:
        if self.phone.state == "hold":
            self.phone.wait()
            return
        try:
            self._obey(self._line())
        except NotNow:
            self._refuse(f"not now: {WAITS[self.phone.state]}")

    def _refuse(self, why: str) -> None:
        """Says why a line of input was of no use."""
        tell(f"# {why}")
        self._unusable += 1

    def _line(self) -> str:
        """The next line of input; EOFError at its end. What was typed gives way to its event."""
        if not self._typed:
            return self._script.line()
        line = input(paint(f"# {WAITS[self.phone.state]}\n", "2") + "> ")
        print("\x1b[A\x1b[2K\x1b[A\x1b[2K", end="")
        return line.strip()

    def _obey(self, line: str) -> None:
        name, _, rest = line.partition(" ")
        if not line:
            self.phone.silent()
        elif not line.startswith(("#", "!")):
            self.phone.say(line)
            if re.fullmatch("[0-9*]", line):
                tell(f"# heard as the word {line}; #{line} presses the key")
        elif re.fullmatch(r"#[0-9*#]+", line):
            self.phone.press(line[1:])
        elif name == "!unsure" and rest.strip():
            self.phone.say(rest.strip(), UNSURE)
        elif name in COMMANDS and re.fullmatch(r"\d*", rest.strip()):
            COMMANDS[name](self, int(rest) if rest.strip() else None)
        else:
            self._refuse(f"not understood: {line} (!help lists what is)")

    def _retry(self, _: int | None) -> None:
        answer, same = self.phone.retry()
        tell(f"# {'the same words' if same else 'another answer'}: HTTP {answer.status}")

    def _kill(self, _: int | None) -> None:
        if not self._instance:
            self._refuse("a function at --url is not ours to kill")
            return
        self.phone.tell("instance is killed")
        self._instance.restart()

    def _history(self, _: int | None) -> None:
        """Prints the cells of this call, in the order of its turns."""
        if not self._state or not self._state.exists():
            self._refuse("the cells of a function at --url cannot be read from here")
            return
        with contextlib.closing(sqlite3.connect(self._state)) as database:
            found = database.execute(
                "SELECT key, value FROM cells WHERE key LIKE ?", (f"call:{self.phone.call_sid}:%",)
            ).fetchall()
        for key, value in sorted(found, key=lambda row: _turn_number(row[0])):
            tell(f"# {key.rpartition(':')[2]}: {value}")

    def _sum_up(self) -> bool:
        """Says how the call went, in the last line; answers whether anything was wrong."""
        if unused := [] if self._typed else self._script.rest():
            lines = "1 line" if len(unused) == 1 else f"{len(unused)} lines"
            words = one_line(", ".join(map(repr, unused)))
            tell(f"# the call had ended, {lines} of the script never used: {words}")
        wrong = ", ".join(f"{what}: {n}" for what, n in self._wrong().items() if n)
        answers = [w.answer.seconds for w in self.phone.webhooks if w.answer]
        slowest = f", the slowest answered in {max(answers):.2f} s" if answers else ""
        told = f"{self.phone.duration} s, {len(self.phone.webhooks)} webhooks{slowest}"
        tell(f"# {told}, {wrong or 'all well'} ({self.phone.call_sid})")
        return bool(wrong)

    def _wrong(self) -> dict[str, int]:
        """How much went wrong, by kind; what the log says of it is printed."""
        said = [event.removeprefix("line: ") for event in self.phone.transcript]
        apologies = sum(words in APOLOGIES for words in said)
        if apologies and not self._instance:
            tell("# the line apologised for a mistake of its own: its log has the cause")
        errors = self._errors()
        for error, n in errors.items():
            tell(f"# error in the log{f', {n} times' if n > 1 else ''}: {error}")
        return {
            "broken rules": len(self.phone.broken),
            "broken settings": len(self._ill),
            "apologies": apologies,
            "errors in the log": errors.total(),
            "lines of the script not usable": 0 if sys.stdin.isatty() else self._unusable,
        }

    def _errors(self) -> Counter[str]:
        """What the function started here logged as errors, but for what /healthz told before."""
        found: Counter[str] = Counter()
        for entry in self._instance.log() if self._instance else []:
            known = [f"{k}={v}" for k, v in entry.items() if k not in {"level", "message", "call"}]
            words = " ".join([str(entry.get("message")), *known])
            if entry.get("level") == "error" and not any(each in words for each in self._ill):
                found[one_line(words)] += 1
        return found


COMMANDS: Final[dict[str, Callable[[Terminal, int | None], object]]] = {
    "!help": lambda _, __: tell(HELP),
    "!hangup": lambda terminal, _: terminal.phone.hang_up(),
    "!answer": lambda terminal, n: terminal.phone.callee("completed", n or TALK_SECONDS),
    "!busy": lambda terminal, _: terminal.phone.callee("busy"),
    "!no-answer": lambda terminal, _: terminal.phone.callee("no-answer"),
    "!fail": lambda terminal, _: terminal.phone.callee("failed"),
    "!message": lambda terminal, n: terminal.phone.leave_message(n or MESSAGE_SECONDS),
    "!retry": Terminal._retry,
    "!kill": Terminal._kill,
    "!history": Terminal._history,
}


def _turn_number(key: str) -> float:
    last = key.rpartition(":")[2]
    return int(last) if last.isdigit() else math.inf


def one_line(text: str) -> str:
    """Words from elsewhere, fit for one comment line."""
    return textwrap.shorten(text, 300, placeholder=" ...")


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
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return [str(problem) for problem in json.loads(body)["problems"]]
    raise ValueError(f"HTTP {response.status}")


def paint(text: str, colour: str) -> str:
    plain = not sys.stdout.isatty() or "NO_COLOR" in os.environ
    return text if plain else f"\x1b[{colour}m{text}\x1b[0m"


def tell(event: str) -> None:
    """Prints one event, in the colour of whoever acts."""
    colour = next((c for start, c in COLOURS.items() if event.startswith(start)), "0")
    print(paint(event, colour), flush=True)


def speaker() -> Callable[[str], None] | None:
    """A way to hear the line: the system's own voice, if it has one."""
    program = shutil.which("espeak-ng") or shutil.which("espeak") or shutil.which("say")
    if not program:
        return None
    return lambda text: void(subprocess.run([program, text], check=False))


def void(_: object) -> None:
    return None


def announcer(aloud: bool) -> Callable[[str], None]:
    """Prints events and, when asked to, speaks what the line says."""
    voice = speaker() if aloud else None
    if aloud and not voice:
        tell("# nothing to speak with: install espeak-ng")

    def announce(event: str) -> None:
        tell(event)
        if voice and event.startswith("line: "):
            voice(event.removeprefix("line: "))

    return announce


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
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
    parser.add_argument("--say", action="store_true", help="speak the line's words aloud")
    options = parser.parse_args(given)
    options.token = options.token or os.environ.get("TWILIO_AUTH_TOKEN")
    if options.url and not options.token:
        parser.error("--url needs --token or TWILIO_AUTH_TOKEN")
    options.settings = settings(options, parser)
    return options


def settings(options: argparse.Namespace, parser: argparse.ArgumentParser) -> dict[str, str]:
    """What --env and --set say of the function started here; any mistake ends the program."""
    if options.url and (options.set or options.env):
        parser.error("--set and --env are for the function started here, not for one at --url")
    if wrong := [pair for pair in options.set if "=" not in pair]:
        parser.error(f"--set wants NAME=VALUE, not {wrong[0]!r}")
    given = dict(pair.split("=", 1) for pair in options.set)
    try:
        filed = dotenv(Path(options.env)) if options.env else {}
    except OSError as error:
        parser.error(f"--env: {options.env} cannot be read: {error.strerror}")
    except ValueError as error:
        parser.error(f"--env: {options.env}: {error}")
    for name in filed | given:
        if name not in SETTINGS and not re.fullmatch("RAILWAY_[A-Z0-9_]+", name):
            option = "--set" if name in given else "--env"
            parser.error(f"{option}: there is no setting {name!r}; {suggestion(name)}")
    return filed | given


def dotenv(path: Path) -> dict[str, str]:
    """The settings in a file like .env that a rehearsal takes; empty ones are not set."""
    found = {}
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        if not line.strip() or line.strip().startswith("#"):
            continue
        if not (entry := re.fullmatch(ENTRY, line.strip())):
            raise ValueError(f"line {number} is not NAME=VALUE")
        name, *values = entry.groups()
        found[name] = "".join(filter(None, values))
    return {n: value for n, value in found.items() if value and not n.startswith(LEFT_OUT)}


def suggestion(name: str) -> str:
    """What may have been meant by a name that is no setting."""
    close = difflib.get_close_matches(name.upper(), sorted(SETTINGS), 1)
    return f"did you mean {close[0]}?" if close else ".env.example lists them all"


def wishes(options: argparse.Namespace) -> dict[str, str]:
    """The settings of the function started here; somebody to call when nothing is configured."""
    chosen: dict[str, str] = options.settings
    if not {"FORWARD_TO", "DEPARTMENTS", "BACKEND_URL"} & chosen.keys():
        chosen = {"FORWARD_TO": "+15550100099"} | chosen
    return chosen


def account(settings: Mapping[str, str]) -> dict[str, str]:
    """The account that the function takes calls of, when it takes those of one only."""
    only = settings.get("TWILIO_ACCOUNT_SID")
    return {"account": only} if only else {}


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
    today = datetime.now().astimezone()
    tell(f"# A call on {today.day} {today:%B %Y}.")
    announce = announcer(options.say)
    common = {"caller": options.caller, "called": options.called}
    if options.url:
        common |= account(os.environ)
        phone = Phone(options.url, token=options.token, say=announce, trial=options.trial, **common)
        return Terminal(phone, script).converse()
    chosen = wishes(options)
    common |= account(chosen)
    for name, value in chosen.items():
        tell(f"# {name} is set" if name.endswith(SECRET) else f"set {name}={value}")
    token = chosen.get("TWILIO_AUTH_TOKEN", uuid.uuid4().hex)
    with function(chosen, token) as (instance, state):
        phone = Phone(
            instance.url,
            token=token.split(",")[0],
            say=announce,
            trial=options.trial,
            clock=Clock(pace=0.2),
            **common,
        )
        return Terminal(phone, script, instance, state).converse()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except RuntimeError as error:
        sys.exit(f"phone: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
