"""The phone in the terminal: what it prints, what it takes, and what it says of mistakes."""

import ast
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest

from phone import arguments, is_private
from sabotage import copy_tree
from standins.call import Phone
from standins.canned import TOKEN, Canned, Reply, voicemail
from standins.instance import ROOT, SETTINGS
from standins.rehearsal import find_faults, settings_of
from standins.rows import first_quick, mostly_long
from standins.sentences import in_twiml, say
from standins.transcript import run_script

pytestmark = pytest.mark.long  # each rings a process; a run of this file has them all

COMMAND = ROOT / "tests/phone.py"


def at(line: Canned, fragment: str, **options: str | None) -> Phone:
    """A phone that rings at a voice URL with these overrides, and no other ones."""
    phone = Phone(f"{line.url}/voice/inbound{fragment}", token=TOKEN, **options)  # type: ignore[arg-type]  # only str and None are passed
    phone.ring()
    return phone


def terminal(line: Canned, script: str, *options: str) -> subprocess.CompletedProcess[str]:
    """The command, fed with a script, ringing at the canned line."""
    environment = {k: v for k, v in os.environ.items() if k != "TWILIO_AUTH_TOKEN"}
    return subprocess.run(
        [sys.executable, str(COMMAND), "--url", line.url, "--token", TOKEN, *options],
        input=script,
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
        check=False,
    )


@pytest.mark.quick
def test_the_terminal_prints_a_transcript(line: Canned) -> None:
    """A script on standard input comes out as a call that can be played again."""
    voicemail(line)
    done = terminal(line, "billing\n!no-answer\n!message 7\n")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\x1b" not in done.stdout
    said = [event for event in done.stdout.splitlines() if not event.startswith("#")]
    assert said == [
        "rings",
        "line: Which?",
        "caller: billing",
        "line: Connecting you now.",
        "line dials +15550100099",
        "callee does not answer",
        "line records",
        "caller leaves a message (7 s)",
        "line: Thank you.",
        "line waits 2 s",
        "line: Goodbye.",
        "line hangs up",
    ]
    assert run_script(voicemail(line), said) == []


def test_the_end_of_the_input_hangs_up(line: Canned) -> None:
    """A script that ends in mid-call is a caller who hangs up."""
    voicemail(line)
    done = terminal(line, "", "--from", "anonymous")
    assert "rings from anonymous\n" in done.stdout
    assert "caller hangs up\n" in done.stdout
    assert done.returncode == 0
    assert line.forms("/voice/inbound")[0]["From"] == "anonymous"


def test_the_terminal_explains_what_it_cannot_do(line: Canned) -> None:
    """What is of no use is answered with a comment; the call goes on, and the script fails."""
    voicemail(line)
    done = terminal(line, "!retry\n!kill\n!history\n!help\n!dance\n!answer 5\n#1\n!busy\n!hangup\n")
    for words in (
        "twilio retries\n# the same words: HTTP 200",
        "not ours to kill",
        "cannot be read from here",
        "!message [seconds]",
        "not understood: !dance",
        "not now: you speak",
        "caller presses 1\n",
        "callee is busy\n",
        "caller hangs up\n",
        "lines of the script not usable: 4 (CA",
    ):
        assert words in done.stdout
    assert "all well" not in done.stdout
    assert done.returncode == 1


@pytest.mark.parametrize(
    "script",
    first_quick(
        [
            (ROOT / "tests/calls/instance_killed.call").read_text(encoding="utf-8"),
            "# A call on 1 May 2025.\n\nset FORWARD_TO=+15550100099\nrings\n",
            "rings from anonymous\nline: Which?\n",
        ]
    ),
)
def test_a_transcript_is_not_taken_for_a_script(line: Canned, script: str) -> None:
    """Whoever pipes a saved call in is told how such a file is run, and nobody rings."""
    done = terminal(line, script)
    assert (done.returncode, done.stdout) == (1, "")
    assert "this is a transcript" in done.stderr
    assert "run python -m pytest tests/line/test_calls.py" in done.stderr
    assert line.asked == []


@pytest.mark.parametrize("words", first_quick(["set up a meeting", "my phone rings"]))
def test_a_caller_may_talk_like_a_transcript(line: Canned, words: str) -> None:
    """Words that only resemble one are said."""
    voicemail(line)
    assert f"caller: {words}\n" in terminal(line, words).stdout


@pytest.mark.parametrize(
    ("typed", "hint"), [("0", True), ("*", True), ("42", False), ("#0", False)]
)
def test_a_bare_digit_is_said_to_be_a_word(line: Canned, typed: str, hint: bool) -> None:
    """Who types 0 hears that it was spoken, and how the key is pressed."""
    voicemail(line)
    told = f"# heard as the word {typed}; #{typed} presses the key\n"
    assert (told in terminal(line, typed).stdout) is hint


def test_an_apology_is_not_well(line: Canned) -> None:
    """A line at --url that apologised for a bug of its own went wrong, whatever its TwiML."""
    line.on("/voice/inbound", f"<Say>{in_twiml('apology')}</Say>")
    done = terminal(line, "")
    assert "# the line apologised for a mistake of its own: its log has the cause\n" in done.stdout
    assert "apologies: 1 (CA" in done.stdout
    assert done.returncode == 1


def test_a_broken_rule_is_the_exit_status(line: Canned) -> None:
    """Status 1 says that something was broken, and the words say what."""
    line.on("/voice/inbound", '<Say voise="man">Hi</Say>')
    done = terminal(line, "")
    assert done.returncode == 1
    assert "# broken 12200: <Say> has no attribute 'voise'" in done.stdout


def test_the_line_is_spoken_aloud_when_asked(
    line: Canned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With --say the words of the line, and only those, go to the system's voice."""
    voice, spoken = tmp_path / "espeak-ng", tmp_path / "spoken"
    voice.write_text(f'#!/bin/sh\necho "$1" >> {spoken}\n')
    voice.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    voicemail(line)
    terminal(line, "billing\n", "--say")
    assert spoken.read_text() == "Which?\nConnecting you now.\n"


def test_without_a_voice_it_says_how_to_get_one(
    line: Canned, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With --say, where no speech program is installed, the call goes on in writing."""
    monkeypatch.setenv("PATH", os.devnull)
    voicemail(line)
    done = terminal(line, "billing\n", "--say")
    assert "# nothing here can speak: apt-get install espeak-ng" in done.stdout
    assert "line: Connecting you now.\n" in done.stdout
    assert done.returncode == 0


@pytest.mark.quick
def test_words_after_the_beep_are_the_message(line: Canned) -> None:
    """Whoever goes on talking leaves a message, as long as the words take to say."""
    voicemail(line)
    done = terminal(line, "billing\n!busy\nplease call me back tomorrow\n")
    assert "# the message: please call me back tomorrow\ncaller leaves a message (3 s)\n" in (
        done.stdout
    )
    assert line.forms("/recorded")[0]["RecordingDuration"] == "3"
    assert done.returncode == 0


def test_help_is_there_at_any_prompt(line: Canned) -> None:
    """Asked for at a question, while it rings and after the beep, it costs the caller nothing."""
    voicemail(line)
    done = terminal(line, "!help\nbilling\n!help\n!busy\n!help\nbye\n")
    assert done.stdout.count("# !help              these lines, at any prompt\n") == 3
    assert done.returncode == 0


def test_a_keyboard_is_told_what_to_try(line: Canned) -> None:
    """The first line on a terminal says what can be typed; who acts is seen by the colour."""
    first, *rest = typed(line, "billing\r!hangup\r")
    assert "Type what the caller says; #1 presses a key" in first
    assert "\x1b[36mline: Which?\x1b[0m" in rest
    assert "\x1b[32mcaller: billing\x1b[0m" in "".join(rest)


@pytest.mark.parametrize("setting", first_quick([{"NO_COLOR": "1"}, {"TERM": "dumb"}]))
def test_nobody_is_forced_to_see_colours(line: Canned, setting: dict[str, str]) -> None:
    """A terminal that has none, or whose owner wants none, gets plain words."""
    assert "line: Which?" in typed(line, "!hangup\r", **setting)


def typed(line: Canned, keys: str, **env: str) -> list[str]:
    """The lines that a terminal shows on which the command runs and these keys are typed."""
    voicemail(line)
    ours, theirs = pty.openpty()
    mode = termios.tcgetattr(theirs)
    mode[3] &= ~termios.ECHO  # the keys are typed before anybody asks for them
    termios.tcsetattr(theirs, termios.TCSANOW, mode)
    command = [sys.executable, str(COMMAND), "--url", line.url, "--token", TOKEN]
    plain = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    os.write(ours, keys.encode())
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=plain | {"TERM": "xterm"} | env
    ) as process:
        os.close(theirs)
        shown = b""
        with suppress(OSError):  # Linux says so when the other end is closed
            while some := os.read(ours, 65536):
                shown += some
        assert process.wait(10) == 0
    os.close(ours)
    return shown.decode().splitlines()


def test_whoever_reads_no_more_hangs_up(line: Canned) -> None:
    """With `| head` the call ends where the reader has seen enough, and is reported."""
    voicemail(line)
    with subprocess.Popen(
        [sys.executable, str(COMMAND), "--url", line.url, "--token", TOKEN],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as command:
        assert command.stdin is not None
        assert command.stdout is not None
        assert command.stderr is not None
        while command.stdout.readline() != "line: Which?\n":
            assert command.poll() is None
        command.stdout.close()
        command.stdin.write("billing\n!no-answer\n")
        command.stdin.flush()
        assert command.wait(10) == 0
        assert command.stderr.read() == ""
    assert [form["CallStatus"] for form in line.forms("/voice/status")] == ["completed"]


def test_an_interrupt_hangs_up(line: Canned) -> None:
    """Ctrl-C is a caller who hangs up: the call is reported and the command ends well."""
    voicemail(line)
    # Tests that a script runs in the background ignore Ctrl-C, and so would what they start.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(
        [sys.executable, str(COMMAND), "--url", line.url, "--token", TOKEN],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as command:
        signal.signal(signal.SIGINT, before)
        assert command.stdout is not None
        while command.stdout.readline() != "line: Which?\n":
            assert command.poll() is None
        time.sleep(0.2)
        command.send_signal(signal.SIGINT)
        assert command.stdout.readline() == "caller hangs up\n"
        assert command.wait(10) == 0
    assert line.forms("/voice/status")


@pytest.mark.parametrize(
    "options", first_quick([["--set", "A=1"], ["--env", ".env"], ["--what"], ["--token", ""]])
)
def test_wrong_usage_is_status_two(line: Canned, options: list[str]) -> None:
    """Options that cannot be meant are refused before anybody rings."""
    done = terminal(line, "", *options)
    assert done.returncode == 2
    assert "usage:" in done.stderr
    assert line.asked == []


@pytest.mark.quick
@pytest.mark.parametrize(
    ("pair", "words"),
    first_quick(
        [
            ("GREETNG=Hi", "'GREETNG'; did you mean GREETING?"),
            ("hours=never", "'hours'; did you mean HOURS?"),
            ("SPEECH_TIME_OUT=3", "'SPEECH_TIME_OUT'; did you mean SPEECH_TIMEOUT?"),
            ("XYZZY=1", "'XYZZY'; .env.example lists them all"),
            ("=1", "''; .env.example lists them all"),
        ]
    ),
)
def test_a_setting_that_does_not_exist_is_refused(pair: str, words: str) -> None:
    """A misspelt name starts nothing, and the name that was probably meant is told."""
    done = command("", "--set", pair)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"there is no setting {words}" in done.stderr


ENV = """\ufeff# the settings of a line
TWILIO_AUTH_TOKEN=real
UPSTASH_REDIS_REST_URL=https://real.example
PUBLIC_URL=https://real.example
STATE_FILE=/data/calls

FORWARD_TO=+15550100098  # Ann
export HOURS = "Mon-Sun 00:00-24:00 Europe/Berlin"
GREETING='Hello, and press "#".'
LANGUAGE=
ADMIN_TOKEN="do#not#show#this"
"""


def test_a_rehearsal_takes_its_settings_from_a_file(tmp_path: Path) -> None:
    """--env reads what .env has, but for the account, the store and the URL; --set wins."""
    (file := tmp_path / ".env").write_text(ENV, encoding="utf-8")
    assert arguments(["--env", str(file), "--set", "FORWARD_TO=+15550100097"]).settings == {
        "FORWARD_TO": "+15550100097",
        "HOURS": "Mon-Sun 00:00-24:00 Europe/Berlin",
        "GREETING": 'Hello, and press "#".',
        "ADMIN_TOKEN": "do#not#show#this",
    }


@pytest.mark.quick
@pytest.mark.parametrize(
    ("text", "value"),
    [
        (r'"Say \"hi\" please"  # aloud', 'Say "hi" please'),
        ("'It says \"hi\"'", 'It says "hi"'),
        ('"one # two" # three', "one # two"),
        ("Mon-Fri 09:00-17:00  # hours", "Mon-Fri 09:00-17:00"),
        ("a#b", "a#b"),
        (" # nothing", ""),
        ('""', ""),
    ],
)
def test_a_value_is_read_as_the_shell_reads_it(tmp_path: Path, text: str, value: str) -> None:
    """What is rehearsed is what a deploy sets; unquoted blanks are taken as they are meant."""
    (file := tmp_path / ".env").write_text(f"GREETING={text}\n", encoding="utf-8")
    assert settings_of(str(file), [])[0].get("GREETING", "") == value


@pytest.mark.quick
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('"Say hi', "line 2: a quotation mark is missing"),
        ('"Say" hi', "line 2: something follows the quoted value"),
    ],
)
def test_a_value_that_no_shell_reads_is_refused(tmp_path: Path, text: str, words: str) -> None:
    """Its line is told."""
    (file := tmp_path / ".env").write_text(f"\nGREETING={text}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=words):
        settings_of(str(file), [])


@pytest.mark.quick
@pytest.mark.parametrize(
    ("name", "value", "private"),
    [
        ("BACKEND_URL", "https://line:hunter2@backend.example/next", True),
        ("BACKEND_URL", "https://hooks.example/T0/B0/s3cret", True),
        ("BACKEND_URL", "http://127.0.0.1:5077", False),
        ("NOTIFY_URL", "https://ntfy.sh/a-name", True),
        ("FORWARD_TO", "+15550100099", False),
    ],
)
def test_an_address_elsewhere_may_hold_a_secret(name: str, value: str, private: bool) -> None:
    """What the phone prints is kept as a test, and a test in a repository."""
    assert is_private(name, value) is private


@pytest.mark.parametrize("url", ["localhost:8080", "http://127.0.0.1:99999", "http://[::1", "x"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    """In a sentence, before anybody rings."""
    with pytest.raises(SystemExit) as ended:
        arguments(["--url", url, "--token", TOKEN])
    assert ended.value.code == 2


def test_a_rehearsal_is_a_call_without_secrets(tmp_path: Path) -> None:
    """The line starts with the settings of the file, and prints those that are no secret."""
    (file := tmp_path / ".env").write_text(ENV, encoding="utf-8")
    done = command("!hangup\n", "--env", str(file))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\nset FORWARD_TO=+15550100098\n" in done.stdout
    assert "\n# ADMIN_TOKEN is set\n" in done.stdout
    assert 'rings\nline: Hello, and press "#".\n' in done.stdout
    assert "do#not#show#this" not in done.stdout
    assert "real" not in done.stdout


def test_what_a_rehearsal_leaves_out_is_looked_at(tmp_path: Path) -> None:
    """The account, the store and the URL are not used; what cannot be right in them is told."""
    slips = "TWILIO_ACCOUNT_SID=AChush\nUPSTASH_REDIS_REST_URL=rediss://x:hush@redis.example\n"
    slips += "TWILIO_AUTH_TOKEN=hush hush\nPUBLIC_URL=nowhere\n"
    (file := tmp_path / ".env").write_text(slips, encoding="utf-8")
    done = command("!hangup\n", "--env", str(file), "--set", "TWILIO_AUTH_TOKEN=better")
    told = re.findall("^# left out here, and broken: (.*)$", done.stdout, re.MULTILINE)
    assert [fault.split(" ")[0] for fault in told] == [
        "PUBLIC_URL",
        "UPSTASH_REDIS_REST_URL",
        "TWILIO_ACCOUNT_SID",
        "UPSTASH_REDIS_REST_TOKEN",  # the half of a pair
    ]
    assert "hush" not in done.stdout
    assert done.returncode == 0


@pytest.mark.parametrize("text", [f"{ENV}UPSTASH_REDIS_REST_TOKEN=real", "FORWARD_TO=+1555010009"])
def test_nothing_is_wrong_with_what_is_left_out(text: str, tmp_path: Path) -> None:
    """Settings that fit, or are not there yet, are not complained of."""
    (file := tmp_path / ".env").write_text(text, encoding="utf-8")
    assert find_faults(*settings_of(str(file), [])) == []


def test_an_empty_line_takes_a_setting_back(tmp_path: Path) -> None:
    """As it does in the shell that deploys the file."""
    (file := tmp_path / ".env").write_text("HOURS=Mon-Fri\nHOURS=\nRING_SECONDS=9\n", "utf-8")
    assert settings_of(str(file), []) == ({"RING_SECONDS": "9"}, {})


@pytest.mark.parametrize(
    ("language", "status"), [("en", 1), pytest.param("de", 0, marks=pytest.mark.long)]
)
def test_a_forgotten_quotation_mark_is_told_once(
    tmp_path: Path, language: str, status: int
) -> None:
    """The line of it, and nothing that only follows from it; another language's is not read."""
    tree = copy_tree(ROOT, tmp_path / "tree")
    file = tree / f"phone_line/words/{language}.toml"
    text = re.sub('(?m)^(greeting = ".*)"$', r"\1", file.read_text("utf-8"), count=1)
    file.write_text(text, encoding="utf-8")
    phone = [sys.executable, str(tree / "tests/phone.py")]
    done = subprocess.run(
        phone, input="!hangup\n", capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (status, "")
    told = re.findall("^# broken setting: .*$", done.stdout, re.MULTILINE)
    line = text[: text.index("greeting = ")].count("\n") + 1
    own = f"# broken setting: phone_line/words/{language}.toml, line {line}, or just above: "
    assert [each.startswith(own) for each in told] == [True] * status


@pytest.mark.parametrize(
    ("text", "words"),
    first_quick(
        [
            ("GREETNG=Hi", "--env: there is no setting 'GREETNG'; did you mean GREETING?"),
            ("\nFORWARD_TO +1", ".env: line 2 is not NAME=VALUE"),
            (None, ".env cannot be read: No such file or directory"),
        ]
    ),
)
def test_a_file_of_settings_that_cannot_be_meant_is_refused(
    tmp_path: Path, text: str | None, words: str
) -> None:
    """A missing file, a line that is no setting and a misspelt name are told before it starts."""
    if text is not None:
        (tmp_path / ".env").write_text(text, encoding="utf-8")
    done = command("", "--env", str(tmp_path / ".env"))
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr


def test_every_setting_of_the_example_may_be_set(capsys: pytest.CaptureFixture[str]) -> None:
    """The names come from .env.example, commented ones included, and Railway's own are known."""
    assert {"TWILIO_AUTH_TOKEN", "GREETING", "HOURS", "LOG_WORDS"} <= SETTINGS
    pairs = [f"{name}=1" for name in (*sorted(SETTINGS), "RAILWAY_PUBLIC_DOMAIN")]
    given = [word for pair in pairs for word in ("--set", pair)]
    assert arguments(given).set == pairs
    with pytest.raises(SystemExit):
        arguments(["--set", "values=1"])
    assert "did you mean" not in capsys.readouterr().err


def test_the_report_of_health_comes_before_the_call(line: Canned) -> None:
    """Each problem is one comment before the line rings, and the status is 1 after a good call."""
    report = '{"ok": false, "problems": ["HOURS is wrong;\\nexpected hours", "no store"]}'
    line.on("/healthz", Reply(report, 503, "application/json"))
    line.on("/voice/inbound", "<Hangup/>")
    done = terminal(line, "")
    assert done.stdout.splitlines()[1:5] == [
        "# broken setting: HOURS is wrong; expected hours",
        "# broken setting: no store",
        "rings",
        "line hangs up",
    ]
    assert "broken settings: 2" in done.stdout
    assert done.returncode == 1
    assert [asked.target for asked in line.asked][:2] == ["/healthz", "/voice/inbound"]


@pytest.mark.parametrize("body", first_quick(["not here", "[]", '{"problems": null}', "7"]))
def test_a_line_without_a_report_is_called_all_the_same(line: Canned, body: str) -> None:
    """What is no report of health is said, and breaks nothing."""
    line.on("/healthz", Reply(body, 404, "application/json"))
    line.on("/voice/inbound", "<Hangup/>")
    done = terminal(line, "")
    assert "# no report at /healthz: HTTP 404\nrings\n" in done.stdout
    assert done.returncode == 0


@pytest.mark.quick
def test_a_printed_call_can_be_kept_and_found_again(line: Canned) -> None:
    """It opens with a sentence, as a file in tests/calls does, and closes with the CallSid."""
    line.on("/voice/inbound", "<Hangup/>")
    opening, *_, closing = terminal(line, "").stdout.splitlines()
    assert re.fullmatch(r"# A call on [1-9]\d? [A-Z][a-z]+ \d{4}\.", opening)
    assert closing.startswith("# ")
    assert closing.endswith(f"all well ({line.forms('/voice/inbound')[0]['CallSid']})")


def test_words_can_be_badly_understood(line: Canned) -> None:
    """!unsure speaks with little confidence; without words it is not understood."""
    voicemail(line)
    done = terminal(line, "!unsure\n!unsure my bill 5\n!help\n")
    assert "# not understood: !unsure (" in done.stdout
    assert "caller: my bill 5 (confidence 0.3)\n" in done.stdout
    assert "# !unsure words" in done.stdout
    (form,) = line.forms("/next")
    assert (form["SpeechResult"], form["Confidence"]) == ("my bill 5", "0.3")


def test_a_refused_call_is_explained_once(line: Canned) -> None:
    """The line's own sentence is told, and both causes that it may have, and no echo."""
    for path in ("/voice/inbound", "/voice/fallback", "/voice/status"):
        line.on(path, Reply("Twilio did not\nsign this.", 403, "text/plain"))
    done = terminal(line, "")
    assert done.returncode == 1
    assert done.stdout.count("# the line answered: Twilio did not sign this.\n") == 1
    assert done.stdout.count("# either --token is not the TWILIO_AUTH_TOKEN of the line,\n") == 1
    assert f"# or the line's PUBLIC_URL is not {line.url}, which was rung\n" in done.stdout
    assert len(line.forms("/voice/inbound")) == 6
    again = "# twilio tries again, 5 times: the answer was HTTP 403\n"
    assert done.stdout.startswith(again, done.stdout.index("rings\n") + len("rings\n"))
    assert done.stdout.count("tries again") == 3, "inbound, fallback and status, one line each"


def test_a_call_of_another_account_is_explained(line: Canned) -> None:
    """A line that takes the calls of one account only needs its number, not another token."""
    line.on("/voice/inbound", Reply("This call belongs to another account.", 403, "text/plain"))
    done = terminal(line, "")
    assert "# export the TWILIO_ACCOUNT_SID that is set there\n" in done.stdout
    assert "# either --token" not in done.stdout


def test_a_page_that_refuses_is_not_read_out(line: Canned) -> None:
    """Only plain words are told: what stands before a line may answer with a whole page."""
    line.on("/voice/inbound", Reply("<html>Forbidden</html>", 403, "text/html"))
    done = terminal(line, "")
    assert "html" not in done.stdout
    assert "# either --token" in done.stdout


def test_attempts_that_fail_otherwise_are_told_apart(line: Canned) -> None:
    """A line for as many attempts in a row as failed alike."""
    codes = (403, 403, 502, 403)
    fine = Reply("<Response><Hangup/></Response>")
    line.on("/voice/inbound", *(Reply("no", code) for code in codes), fine)
    assert at(line, "#rc=5&rp=all").transcript == [
        "rings",
        "# twilio tries again, 2 times: the answer was HTTP 403",
        "# twilio tries again: the answer was HTTP 502",
        "# twilio tries again: the answer was HTTP 403",
        "line hangs up",
    ]


@pytest.mark.parametrize(
    ("script", "told"),
    first_quick(
        [
            ("!hangup\nbilling\n\n#1\n\n", "3 lines of the script never used: 'billing', '', '#1'"),
            ("!hangup\nbilling", "1 line of the script never used: 'billing'"),
            ("!hangup\n\n", ""),
            ("", ""),
        ]
    ),
)
def test_what_came_too_late_is_told_at_the_end(line: Canned, script: str, told: str) -> None:
    """Lines after the end of the call are in one comment; empty ones at the end are none."""
    voicemail(line)
    done = terminal(line, script)
    late = [event for event in done.stdout.splitlines() if "never used" in event]
    assert late == ([f"# the call had ended, {told}"] if told else [])
    assert done.returncode == 0


def test_an_open_input_does_not_keep_the_phone(line: Canned) -> None:
    """Whoever writes the script slowly is not waited for when the call has ended."""
    line.on("/voice/inbound", "<Hangup/>")
    with subprocess.Popen(
        [sys.executable, str(COMMAND), "--url", line.url, "--token", TOKEN],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    ) as command:
        assert command.wait(10) == 0


# --- the real process ---


def command(
    script: str, *options: str, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """The command on a function of its own, fed with a script."""
    return subprocess.run(
        [sys.executable, str(COMMAND), *options],
        input=script,
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | (env or {}),
        check=False,
    )


def test_the_command_runs_the_function_itself() -> None:
    """Without --url the function is started, killed, looked into, and gone at the end."""
    script = "!kill\n!retry\nAnn, my bill\n!history\n!answer 30\n"
    done = command(script, "--set", "FORWARD_TO=+15550100098")
    assert done.returncode == 0, done.stdout + done.stderr
    opening, rest = done.stdout.split("\n", 1)
    assert opening.startswith("# A call on ")
    assert rest.startswith("set FORWARD_TO=+15550100098\nrings\nline: ")
    assert "# the same words" in done.stdout
    assert "# turn 1: " in done.stdout
    assert "line dials +15550100098" in done.stdout
    assert "callee answers (30 s)" in done.stdout


def test_the_history_is_told_for_people() -> None:
    """!history says turn by turn what the caller did and what the line said, without TwiML."""
    done = command("Ann, my bill\n!history\n!answer 30\n")
    assert "# turn 1: a new call -> reason\n" in done.stdout
    assert f"#   line: {say('greeting')}" in done.stdout
    assert "# turn 2: reason -> connect\n#   caller: Ann, my bill\n#   line: " in done.stdout
    assert "<Response>" not in done.stdout


def test_the_history_can_be_had_to_the_letter() -> None:
    """!history json prints each cell as it stands, one a line."""
    done = command("Ann, my bill\n!history json\n!answer 30\n")
    cells = dict(re.findall(r"^# (\d+): (\{.*\})$", done.stdout, re.MULTILINE))
    records = [json.loads(value) for value in cells.values()]
    assert [*cells] == ["1", "2"]
    assert [record["step"] for record in records] == ["reason", "connect"]
    assert "<Response>" in records[1]["twiml"]


def test_a_broken_setting_of_the_own_function_is_told() -> None:
    """What the function's report says of a setting is printed before the call, which goes on."""
    done = command("!hangup\n", "--set", "FORWARD_TO=+15550100098", "--set", "HOURS=never")
    before, _, after = done.stdout.partition("rings\n")
    assert "\n# broken setting: HOURS: 'never'" in before
    assert after.startswith("line: ")
    assert done.returncode == 1


def test_exported_settings_do_not_reach_the_terminal() -> None:
    """Nor do they set up the function that the terminal starts: --set does."""
    exported = dict.fromkeys(SETTINGS, "never") | {"GREETING": "Leaked."}
    done = command("!hangup\n", env=exported)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "set FORWARD_TO=+15550100099\nrings\nline: " in done.stdout
    assert "Leaked." not in done.stdout


BUG = """

def answer_webhook(*_: object) -> None:
    raise ZeroDivisionError
"""


def test_a_bug_of_the_own_function_is_told_with_its_cause(tmp_path: Path) -> None:
    """The caller hears an apology; the terminal shows what the log says of it, and ends ill."""
    skipped = shutil.ignore_patterns("test_*", "calls", "records", "__pycache__")
    shutil.copytree(ROOT / "tests", tmp_path / "tests", ignore=skipped)
    shutil.copy(ROOT / ".env.example", tmp_path)
    text = (ROOT / "main.py").read_text(encoding="utf-8")
    (tmp_path / "main.py").write_text(text + BUG, encoding="utf-8")
    shutil.copytree(ROOT / "phone_line", tmp_path / "phone_line", ignore=skipped)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "tests/phone.py")],
        input="!answer\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert f"line: {say('apology')}\n" in done.stdout
    found = "# error in the log: a bug: apologised to the caller path=/voice/inbound cause=ZeroDiv"
    assert found in done.stdout
    assert "apologies: 2, errors in the log: 2 (CA" in done.stdout
    assert "all well" not in done.stdout
    assert done.returncode == 1


PROGRAMS: Final = ("phone.py", "live.py", "chaos.py", "conftest.py")


@pytest.mark.parametrize("program", mostly_long({name: name for name in PROGRAMS}, "phone.py"))
def test_an_older_python_is_told_which_one_is_needed(program: str) -> None:
    """Not an ImportError from somewhere inside: a sentence, and status 1."""
    code = (
        "import pytest, runpy, sys; sys.version_info = (3, 10, 13); sys.path.insert(0, 'tests'); "
        f"runpy.run_path('tests/{program}', run_name='__main__')"
    )
    old = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert old.returncode == 1
    assert re.fullmatch("Python 3.11 or newer is needed, not .*\n", old.stderr)


@pytest.mark.parametrize("path", ["phone.py", "conftest.py", "standins/__init__.py"])
def test_an_older_python_can_read_what_it_is_told_by(path: str) -> None:
    """The files that say so use nothing that Python 3.10 cannot parse."""
    source = (ROOT / "tests" / path).read_text(encoding="utf-8")
    ast.parse(source, feature_version=(3, 10))
