"""A second number calls the line, over and over: what is found out by that, and what goes wrong.

The line is a real process. The second number is the stand-in's: it plays the TwiML that live.py
hands to Twilio's API, by a clock that runs SPEED times as fast as a caller's.
"""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Final

import pytest

import live
from deployed import line as at_line
from deployed import rehearsal
from deployed.account import Account, Refused
from deployed.arguments import read_arguments
from deployed.findings import Finding
from deployed.rehearsal import Owner, Rehearsal
from deployed.script import Beat, Move, Script, Timed, time_script, write_twiml
from deployed.verdicts import (
    DIAL,
    END,
    HOLD,
    INTERRUPTS,
    KEYS,
    PAUSE,
    PLAYS,
    SILENCE,
    WORDS,
    Answers,
)
from live import agree_always
from phone_line.settings import read_settings
from phone_line.words import read_words
from standins.backend import Backend, says
from standins.media import Media
from standins.second_number import SecondNumber
from standins.served import PASSWORD, TOKEN, AnyRecording, Served
from standins.twilio_account import ACCOUNT, NUMBER, SECOND, TwilioAccount
from standins.twiml import Problem, parse

pytestmark = [pytest.mark.waits, pytest.mark.long]
SPEED: Final = 25.0
Serve = Callable[..., Served]
DEPARTMENTS: Final = "billing=+15550100001 cancel=+15550100002"


class Deployed:
    """A line, the account whose number leads to it, and what is set here."""

    def __init__(
        self, serve: Serve, held: ExitStack, speed: float = SPEED, **settings: str
    ) -> None:
        self.env = {"TWILIO_AUTH_TOKEN": TOKEN, "TWILIO_ACCOUNT_SID": ACCOUNT, **settings}
        self.env |= {"ADMIN_TOKEN": PASSWORD}
        self.line = serve(**self.env)
        self.twilio = held.enter_context(TwilioAccount(self.line.url, TOKEN))
        self.twilio.speed = self.speed = speed

    def find(self, *given: str, **env: str) -> list[Finding]:
        """The findings of live.py --ring, with an owner who agrees."""
        fixed = ("--api", self.twilio.url, "--speed", str(self.speed), "--ring", SECOND)
        settings = self.env | env
        options = read_arguments([self.line.url, *fixed, *given], settings)
        account = Account(ACCOUNT, (ACCOUNT, TOKEN), self.twilio.url)
        new_phone = partial(at_line.new_phone, self.line.url, token=TOKEN, account=ACCOUNT)
        return list(live.ring_line(options, settings, account, new_phone, agree_always, {}))

    def try_script(self, name: str, *, may_dial: bool = False) -> tuple[list[Finding], Answers]:
        """One script alone: what is found, and the answers that it gives."""
        settings = read_settings(self.env)
        words = read_words(settings.language[0])
        account = Account(ACCOUNT, (ACCOUNT, TOKEN), self.twilio.url)
        owner = Owner(self.line.url, PASSWORD)
        here = Rehearsal(account, owner, SECOND, NUMBER, settings, words, self.speed)
        every = rehearsal.list_scripts(settings, words, may_dial=may_dial)
        chosen = [script for script in every if script.name == name]
        assert chosen
        new_phone = partial(at_line.new_phone, self.line.url, token=TOKEN, account=ACCOUNT)
        answers: Answers = {}
        findings = list(rehearsal.rehearse(here, chosen, new_phone, agree_always, answers))
        return findings, answers

    def shape(self, **attributes: object) -> None:
        """Make the second number, or the network, another one: see SecondNumber."""

        def change(second: SecondNumber) -> None:
            vars(second).update(attributes)

        self.twilio.shape = change


Deploy = Callable[..., Deployed]


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """Starts a line, once for all tests that want the same settings: it knows calls apart."""
    running: dict[str, Served] = {}
    with ExitStack() as held:
        media = held.enter_context(Media())
        media.recordings = AnyRecording()

        def start(**env: str) -> Served:
            key = repr(sorted(env.items()))
            if key not in running:
                folder = tmp_path_factory.mktemp("served")
                running[key] = held.enter_context(Served(media, folder, **env))
            return running[key]

        yield start


@pytest.fixture
def deploy(serve: Serve) -> Iterator[Deploy]:
    """Makes a deployed line with settings."""
    with ExitStack() as held:
        yield partial(Deployed, serve, held)


def changes(findings: list[Finding]) -> list[str]:
    """The findings that are to be changed."""
    return [each.seen for each in findings if each.level == "CHANGE"]


def seen(findings: list[Finding], level: str = "ok") -> str:
    """All that is well, or of another level, in one text."""
    return " | ".join(each.seen for each in findings if each.level == level)


def test_a_line_is_rung_without_anybody_holding_a_phone(
    deploy: Deploy, capsys: pytest.CaptureFixture[str]
) -> None:
    """The whole command: the price first, then calls that ring nobody, then a table of answers."""
    here = deploy(DEPARTMENTS=DEPARTMENTS)
    given = [here.line.url, "--api", here.twilio.url, "--speed", str(SPEED), "--yes"]
    status = live.main([*given, "--number", NUMBER, "--ring", SECOND], here.env)
    printed = capsys.readouterr().out
    assert (status, "CHANGE" in printed) == (0, False), printed
    assert f"{SECOND} would call {NUMBER} 4 times: at most 0.11 USD for 5 minutes" in printed
    rows = printed.partition("what the calls have shown:\n")[2].splitlines()
    table = dict(zip(map(str.strip, rows[::2]), map(str.strip, rows[1::2]), strict=False))
    assert re.fullmatch(r"-?[\d.]+ s from the last key to the line's answer", table[KEYS])
    assert table[WORDS] == "'repeat' became 'repeat', Confidence 0.9"
    assert re.fullmatch(r"about [\d.]+ s, SPEECH_TIMEOUT=3", table[PAUSE])
    assert re.search(r"it was answered", table[INTERRUPTS])
    assert table[SILENCE] == "yes, after 3 silences"
    assert table[PLAYS] == "yes: a recording's link is answered 206 audio/mpeg: it plays"
    assert table[DIAL] == "not tried"
    assert table[END].startswith("yes: completed")
    heard = [each for _, second in here.twilio.calls.values() for each in second.phone.transcript]
    assert not [each for each in heard if each.startswith(("line dials", "# broken"))]


def test_calls_have_a_limit_and_are_short(deploy: Deploy) -> None:
    """Twilio itself ends a call that should have been over, and TwiML stays below 4,000 letters."""
    here = deploy(DEPARTMENTS=DEPARTMENTS)
    here.try_script("key")
    [(call, _)] = here.twilio.calls.values()
    form = call["form"]
    assert (form["From"], form["To"]) == (SECOND, NUMBER)
    assert 30 <= int(form["TimeLimit"]) <= 60
    script = parse(form["Twiml"])
    assert not isinstance(script, Problem)
    assert [verb.tag for verb in script] == ["Pause", "Play", "Pause", "Hangup"]
    assert len(form["Twiml"]) < 4000


def test_seconds_are_those_of_the_call(deploy: Deploy) -> None:
    """Speech that took two seconds to be recognised is told to have taken about two."""
    here = deploy(DEPARTMENTS=DEPARTMENTS, speed=5.0)
    here.shape(pause=2.0)
    _, answers = here.try_script("word")
    found = re.match(r"about ([\d.]+) s", answers[PAUSE])
    assert found
    assert 1.5 < float(found[1]) < 5


def test_speech_that_cuts_a_prompt_short_is_told(deploy: Deploy) -> None:
    """An answer that came before the line could have ended its words means that it was cut."""
    _, answers = deploy(DEPARTMENTS=DEPARTMENTS, speed=5.0).try_script("interrupt")
    assert re.fullmatch(r"yes: it was answered [5-8]\.\d s into words of 9 s", answers[INTERRUPTS])


def test_speech_that_is_lost_during_a_prompt_is_told(deploy: Deploy) -> None:
    """Where speech does not cut a prompt short, the table says so, and nothing is to be changed."""
    here = deploy(DEPARTMENTS=DEPARTMENTS)
    here.shape(interrupts=False)
    findings, answers = here.try_script("interrupt")
    assert changes(findings) == []
    assert answers[INTERRUPTS] == "no: what is said during a prompt is lost"


OUTCOMES: Final = {
    "completed": "true (DialCallStatus=completed): somebody talked to the caller",
    "voicemail": "false (DialCallStatus=completed): picked up, and the call was not taken",
    "busy": "false or nothing (DialCallStatus=busy)",
}


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_what_a_transfer_came_to_is_told(deploy: Deploy, outcome: str) -> None:
    """With --dial the line may ring its people, and the table has what DialBridged said."""
    here = deploy(DEPARTMENTS=DEPARTMENTS)
    here.shape(callee=outcome)
    findings, answers = here.try_script("menu by key", may_dial=True)
    assert changes(findings) == []
    assert answers[DIAL] == OUTCOMES[outcome]


@pytest.mark.quick
@pytest.mark.parametrize("name", ["menu by key", "menu by word", "connected"])
def test_nobody_is_rung_unless_that_is_allowed(name: str) -> None:
    """Without --dial there is no script that leads to a transfer."""
    settings = read_settings({"DEPARTMENTS": DEPARTMENTS, "FORWARD_TO": "+15550100099"})
    scripts = rehearsal.list_scripts(settings, read_words("en-US"), may_dial=False)
    assert name not in [script.name for script in scripts]


@pytest.mark.quick
def test_a_menu_by_word_leads_where_it_should(deploy: Deploy) -> None:
    """The first department's name is said, and that is where the caller is sent."""
    findings, _ = deploy(DEPARTMENTS=DEPARTMENTS).try_script("menu by word", may_dial=True)
    assert "menu by word: 'billing' led to to_billing: no-answer" in seen(findings)


def test_a_line_without_a_menu_is_told_a_reason(deploy: Deploy) -> None:
    """FORWARD_TO alone: a reason is said, and the person is rung."""
    findings, _ = deploy(FORWARD_TO="+15550100099").try_script("connected", may_dial=True)
    assert "connected: 'This is a test call.' led to connect: no-answer" in seen(findings)


def test_a_language_is_chosen_first(deploy: Deploy) -> None:
    """A line of several languages is told by key that the first is wanted."""
    here = deploy(DEPARTMENTS=DEPARTMENTS, LANGUAGE="de-DE es-ES")
    findings, answers = here.try_script("word")
    assert changes(findings) == []
    assert answers[WORDS].startswith("'wiederholen' became 'wiederholen'")


def test_a_hold_is_told_of(deploy: Deploy) -> None:
    """The seconds of the backend are told, and how often the caller was told to wait."""
    with Backend(lambda _: says("Booked.")) as backend:
        here = deploy(BACKEND_URL=backend.url)
        findings, answers = here.try_script("hold")
    assert changes(findings) == []
    assert re.match(r"the backend took \d\.\d s, the caller was put on hold 0 times", answers[HOLD])
    assert "was answered 'Booked.'" in seen(findings)


# ---- what goes wrong ---------------------------------------------------------------------------


def test_a_line_that_turns_the_second_number_away_is_not_rung(deploy: Deploy) -> None:
    """A call that would be refused is not made: the scripts are played to the line before."""
    here = deploy(BLOCKED=SECOND)
    findings = here.find()
    assert "key: not tried: the line does not listen: ended" in seen(findings, "note")
    assert here.twilio.calls == {}


def test_a_line_that_is_closed_gets_a_message(deploy: Deploy) -> None:
    """Where there is no question, only the script for voicemail has a place."""
    here = deploy(HOURS=closed_hours())
    findings = here.find()
    assert seen(findings, "note").count("not tried: the line does not listen: record") == 3
    assert "voicemail: the message is there" in seen(findings)


def closed_hours() -> str:
    """Hours that are over, whenever the test runs."""
    return time.strftime("%a 10:00-10:01 UTC", time.gmtime(time.time() - 24 * 3600))


def test_a_number_that_leads_elsewhere_is_found(deploy: Deploy) -> None:
    """A call that never reaches the line is told from one that the line took."""
    here = deploy()
    here.twilio.number["voice_url"] = f"{here.line.url}/nowhere"
    here.twilio.number["voice_fallback_url"] = ""
    [found] = changes(here.try_script("key")[0])
    assert "the line never heard of the call" in found


def test_a_call_that_twilio_does_not_make_ends_the_rehearsal(deploy: Deploy) -> None:
    """What Twilio answers is passed on once, and no further call is tried."""
    here = deploy()
    here.twilio.refusals["/Calls.json"] = (400, "Account not authorized to call")
    findings = here.find()
    assert changes(findings) == ["key: Twilio answers 400: Account not authorized to call"]


def test_an_owner_who_says_no_is_not_charged(deploy: Deploy) -> None:
    """The price is told first; nobody is called without a yes."""
    here = deploy()
    settings = read_settings(here.env)
    words = read_words("en-US")
    account = Account(ACCOUNT, (ACCOUNT, TOKEN), here.twilio.url)
    where = Rehearsal(account, Owner(here.line.url, PASSWORD), SECOND, NUMBER, settings, words)
    new_phone = partial(at_line.new_phone, here.line.url, token=TOKEN, account=ACCOUNT)
    scripts = rehearsal.list_scripts(settings, words, may_dial=False)
    questions: list[str] = []

    def refuse(question: str) -> bool:
        questions.append(question)
        return False

    findings = list(rehearsal.rehearse(where, scripts, new_phone, refuse, {}))
    assert questions == ["Make these calls?"]
    assert findings[-1].seen == "nobody was called"
    assert here.twilio.calls == {}


def test_a_call_is_ended_whatever_happens(deploy: Deploy) -> None:
    """If live.py is stopped in the middle of a call, the call is, too."""
    here = deploy()
    account = Account(ACCOUNT, (ACCOUNT, TOKEN), here.twilio.url)
    owner = Owner(here.line.url, PASSWORD)
    where = Rehearsal(account, owner, SECOND, NUMBER, read_settings({}), read_words("en-US"))
    script = Script("key", (Move("press", "*"),), 600)
    phone = at_line.new_phone(here.line.url, token=TOKEN, account=ACCOUNT)
    timed = time_script(script, phone, 3)
    with pytest.raises(KeyboardInterrupt), rehearsal.calling(where, timed):
        raise KeyboardInterrupt
    [(_, second)] = here.twilio.calls.values()
    assert second.is_stopped


@pytest.mark.parametrize("status", [403, 200], ids=["not told", "of no use"])
def test_a_price_that_is_not_told_is_said(deploy: Deploy, status: int) -> None:
    """Without a price the minutes are told all the same."""
    here = deploy()
    here.twilio.price = {}
    if status != 200:
        here.twilio.refusals[f"/Numbers/{NUMBER}"] = (status, "Forbidden")
    account = Account(ACCOUNT, (ACCOUNT, TOKEN), here.twilio.url)
    told = rehearsal.tell_cost(account, SECOND, NUMBER, 4)
    assert told == "4 minutes, paid twice (out and in), at a price that Twilio did not tell"


WRONG: Final[list[tuple[str, tuple[str, ...], dict[str, str], str]]] = [
    ("itself", ("--ring", NUMBER), {}, "--ring names the line's own number"),
    ("not ours", ("--ring", "+15550009999"), {}, "+15550009999 is no number of this account"),
    ("password", (), {"ADMIN_TOKEN": "another-password"}, "ADMIN_TOKEN there is another"),
    ("not meant", ("--number", "+15550009999"), {}, "+15550009999 is no number of this account"),
]


@pytest.mark.parametrize(
    ("given", "env", "found"), [pytest.param(*row[1:], id=row[0]) for row in WRONG]
)
def test_a_rehearsal_that_cannot_be_is_said_in_a_sentence(
    deploy: Deploy, given: tuple[str, ...], env: dict[str, str], found: str
) -> None:
    """Nobody is called where something of it cannot work."""
    here = deploy()
    [told] = changes(here.find(*given, **env))
    assert found in told
    assert here.twilio.calls == {}


def test_a_line_without_a_list_of_calls_is_said(deploy: Deploy) -> None:
    """Without ADMIN_TOKEN there, nothing could be read of what the line understood."""
    here = deploy()
    with pytest.raises(Refused, match="there is no /calls: set ADMIN_TOKEN there"):
        Owner(here.line.url + "/none", PASSWORD).list_calls(SECOND)


def test_words_are_written_for_an_xml_reader() -> None:
    """Whatever a department is called, the second number can be told to say it."""
    script = Script("word", (Move("say", "Research & <Development>"),), 5)
    timed = Timed(script, (Beat(script.moves[0], 5.0, 5.0),), 5.0)
    root = parse(write_twiml(timed, "en-US", "Polly.Joanna"))
    assert not isinstance(root, Problem)
    assert [verb.text for verb in root.iter("Say")] == ["Research & <Development>"]
