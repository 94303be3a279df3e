"""The findings of live.py at a line that is well, and at one with each mistake of a deploy.

The line is a real process, its Redis the stand-in of upstash.py, and Twilio's REST APIs those of
twilio_account.py. Every mistake is made alone; it must be found, and nothing else.
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

import live
from deployed import line as at_line
from deployed import number as at_number
from deployed.account import Account
from deployed.arguments import read_arguments
from deployed.asking import ask
from deployed.findings import Agree, Finding
from live import agree_always
from standins.asking import OVERRIDES
from standins.backend import Backend, says
from standins.backend import Reply as Answered
from standins.instance import ROOT, Instance
from standins.media import Media
from standins.rows import mostly_long
from standins.served import PASSWORD, AnyRecording, Served
from standins.serving import Asked, Reply, serving
from standins.sink import Sink
from standins.twilio_account import ACCOUNT, NUMBER, SECOND, TwilioAccount, country_row, number_row
from standins.upstash import Upstash

pytestmark = pytest.mark.long  # each looks at a whole line; a run of this file has them all

TOKEN: Final = "secret"
PROGRAM: Final = ROOT / "tests/live.py"


@pytest.fixture(scope="module")
def upstash() -> Iterator[Upstash]:
    """The database of the line."""
    with Upstash() as database:
        yield database


@pytest.fixture(scope="module")
def line(upstash: Upstash) -> Iterator[Instance]:
    """A deployed line that is well."""
    settings = {"TWILIO_AUTH_TOKEN": TOKEN, "ADMIN_TOKEN": PASSWORD, **upstash.settings}
    with Instance(settings) as instance:
        yield instance


@pytest.fixture
def twilio(line: Instance) -> Iterator[TwilioAccount]:
    """An account whose number points at the line, with everything that it should have."""
    with TwilioAccount(line.url, TOKEN) as account:
        yield account


def never(question: str) -> bool:
    """An owner who is not to be asked."""
    raise AssertionError(question)


def refuse(_: str) -> bool:
    """An owner who says no."""
    return False


def look(url: str, api: str = "", *given: str, token: str = TOKEN, **env: str) -> list[Finding]:
    """All findings at a line; with `api`, also those at Twilio. Nobody is to be asked."""
    return look_and(never, url, api, *given, token=token, **env)


def look_and(
    agree: Agree, url: str, api: str, *given: str, token: str = TOKEN, **env: str
) -> list[Finding]:
    """All findings, with an owner who is asked."""
    account = {"TWILIO_ACCOUNT_SID": ACCOUNT} if api else {}
    settings = {"TWILIO_AUTH_TOKEN": token, **account, **env}
    options = read_arguments([url, "--number", NUMBER, "--api", api, *given], settings)
    return list(live.check_all(options, settings, agree, {}))


def changes(findings: list[Finding]) -> list[str]:
    """The findings that are to be changed, each with its advice."""
    return [f"{each.seen} > {each.advice}" for each in findings if each.level == "CHANGE"]


def notes(findings: list[Finding]) -> list[str]:
    """The findings that should be known, each with its advice."""
    return [f"{each.seen} > {each.advice}" for each in findings if each.level == "note"]


def seen(findings: list[Finding], level: str = "ok") -> str:
    """All that was seen and is well, or of another level, in one text."""
    return " | ".join(each.seen for each in findings if each.level == level)


# ---- all is well -------------------------------------------------------------------------------


@pytest.mark.quick
def test_a_line_that_is_well_has_nothing_to_change(
    line: Instance, twilio: TwilioAccount, upstash: Upstash
) -> None:
    """Health, signatures, repeats, the number, the account and the database are all seen well."""
    findings = look(line.url, twilio.url, FORWARD_TO="+15550100099", **upstash.settings)
    assert changes(findings) == []
    for what in (
        "settings are complete",
        "is refused (403)",
        "a signed call is answered in",
        "byte for byte",
        "voice_url is",
        "voice_fallback_url is",
        "status_callback is",
        "+15550100099 may be called (United States)",
        "complained of nothing",
        "longer than none",
        "expires in 24 hours",
    ):
        assert what in seen(findings)
    assert "not tried: --event" in seen(findings, "note")


def test_looking_leaves_only_a_test_call_that_expires(
    line: Instance, twilio: TwilioAccount, upstash: Upstash
) -> None:
    """One call with a CallSid of its own, each cell with an end, and only reads at Twilio."""
    upstash.flush()
    look(line.url, twilio.url)
    calls = {key: seconds for key, seconds in upstash.keys().items() if key != "health"}
    assert len({key.split(":")[1] for key in calls}) == 1
    assert all(key.startswith("call:CA7e57") for key in calls)
    assert all(0 < seconds <= 24 * 3600 for seconds in calls.values())
    assert {asked.method for asked in twilio.asked} == {"GET"}


# ---- the number --------------------------------------------------------------------------------


NUMBERS_MISTAKES: Final[list[tuple[str, dict[str, Any], str, str]]] = [
    # what is wrong, the settings of the number, what is seen, what is advised
    (
        "no fragment",
        {"voice_url": "{}/voice/inbound"},
        "voice_url has no #",
        "VoiceUrl={}/voice/in",
    ),
    (
        "another fragment",
        {"voice_url": "{}/voice/inbound#rc=2"},
        "voice_url has #rc=2 in place of #rc=5&rp=all&ct=2000&rt=5000",
        "VoiceUrl=",
    ),
    (
        "elsewhere",
        {"voice_url": "https://demo.twilio.com/welcome/voice/"},
        "voice_url leads to https://demo.twilio.com, not here",
        "VoiceUrl=",
    ),
    (
        "another path",
        {"voice_fallback_url": "{}/fallback" + OVERRIDES},
        "voice_fallback_url has the path /fallback",
        "VoiceFallbackUrl={}/voice/fallback#rc=5",
    ),
    ("GET", {"voice_method": "GET"}, "voice_url is asked with GET, not POST", "VoiceMethod=POST"),
    (
        "GET at the end",
        {"status_callback_method": "GET"},
        "status_callback is asked with GET",
        "StatusCallbackMethod=POST",
    ),
    (
        "no fallback",
        {"voice_fallback_url": ""},
        "voice_fallback_url is not set",
        "VoiceFallbackUrl=",
    ),
    ("no status", {"status_callback": None}, "status_callback is not set", "StatusCallback="),
    (
        "an app",
        {"voice_application_sid": "AP1"},
        "a TwiML app (AP1) overrides",
        "VoiceApplicationSid=",
    ),
    ("a trunk", {"trunk_sid": "TK1"}, "a SIP trunk (TK1) overrides", "TrunkSid="),
    ("no voice", {"capabilities": {"voice": False}}, "cannot take calls", "another number"),
]


@pytest.mark.parametrize(
    ("settings", "found", "advice"), [pytest.param(*row[1:], id=row[0]) for row in NUMBERS_MISTAKES]
)
def test_a_mistake_in_the_number_is_found(
    twilio: TwilioAccount, line: Instance, settings: dict[str, Any], found: str, advice: str
) -> None:
    """Whatever is wrong with the number is one finding, with the command that puts it right."""
    twilio.number.update(
        {
            name: value.replace("{}", line.url) if isinstance(value, str) else value
            for name, value in settings.items()
        }
    )
    [told] = changes(look_at_number(twilio, line.url))
    assert told.startswith(NUMBER)
    assert found in told
    assert advice.replace("{}", line.url) in told


def look_at_number(
    twilio: TwilioAccount, url: str, chosen: str = NUMBER, token: str = TOKEN
) -> list[Finding]:
    """The findings at Twilio alone."""
    account = Account(ACCOUNT, (ACCOUNT, token), twilio.url)
    return list(at_number.check_number(account, chosen, url, OVERRIDES))


def test_the_order_is_that_in_which_things_matter(line: Instance, twilio: TwilioAccount) -> None:
    """The line comes before its number, the number before whom it rings, the store after that."""
    twilio.number["voice_method"] = "GET"
    findings = look(line.url, twilio.url, FORWARD_TO="+15550100099")
    told = [each.seen for each in findings]
    found = [next(i for i, each in enumerate(told) if words in each) for words in ORDER]
    assert found == sorted(found)


ORDER: Final = (
    "/healthz: settings",
    "without a signature is refused",
    "a signed call",
    "voice_url is asked with GET",
    "may be called",
    "a recording's link",
    "longer than none",
    "not tried",
)


def test_a_bin_is_a_good_fallback(twilio: TwilioAccount, line: Instance) -> None:
    """A TwiML Bin as fallback runs at Twilio, and is as good as the line's own."""
    twilio.number["voice_fallback_url"] = "https://handler.twilio.com/twiml/EH1"
    assert changes(look_at_number(twilio, line.url)) == []


def test_the_number_is_found_without_being_named(twilio: TwilioAccount, line: Instance) -> None:
    """The number that points here is the one that is meant, among others."""
    twilio.number["voice_method"] = "GET"
    [found] = changes(look_at_number(twilio, line.url, chosen=""))
    assert "voice_url is asked with GET" in found


def test_two_numbers_that_lead_here_have_to_be_named(twilio: TwilioAccount, line: Instance) -> None:
    """Of two numbers that may be meant none is taken by chance."""
    twilio.numbers[1] = number_row(SECOND, "1", line.url)
    [found] = changes(look_at_number(twilio, line.url, chosen=""))
    assert "the account has 2 numbers that may be meant > Say which" in found


def test_a_number_of_another_account_is_said(twilio: TwilioAccount, line: Instance) -> None:
    """A number that the account does not have is named."""
    [found] = changes(look_at_number(twilio, line.url, chosen="+15550009999"))
    assert "+15550009999 is no number of this account" in found
    assert "--number" in found


def test_a_wrong_login_at_twilio_is_said(twilio: TwilioAccount, line: Instance) -> None:
    """What Twilio answers to a wrong token is passed on, and the token is not shown."""
    [found] = changes(look_at_number(twilio, line.url, token="not-the-token"))
    assert "401: Authenticate" in found
    assert "not-the-token" not in found


def test_a_trial_account_is_told_its_limits(twilio: TwilioAccount, line: Instance) -> None:
    """A trial is no mistake, but one who expects to be connected should know."""
    twilio.about = {"type": "Trial", "status": "active"}
    findings = look(line.url, twilio.url)
    assert changes(findings) == []
    assert "trial account" in seen(findings, "note")


def test_a_suspended_account_is_said(twilio: TwilioAccount, line: Instance) -> None:
    """An account that Twilio has suspended takes no calls, whatever else is right."""
    twilio.about = {"type": "Full", "status": "suspended"}
    assert "the account is suspended" in changes(look_at_number(twilio, line.url))[0]


def test_twilio_out_of_reach_is_only_noted(line: Instance) -> None:
    """Without Twilio's REST API the rest is looked at all the same, and it is said once."""
    findings = look(line.url, "http://127.0.0.1:1")
    assert changes(findings) == []
    [unseen] = [each.seen for each in findings if each.level == "unseen"]
    assert "number's settings: Twilio's REST API cannot be reached" in unseen
    assert "longer than none" in seen(findings)


@pytest.mark.needs("bash", "curl")
def test_the_command_that_is_advised_puts_the_number_right(
    twilio: TwilioAccount, line: Instance
) -> None:
    """Pasted into a shell, the commands leave nothing that live.py would change."""
    twilio.number.update(number_row(NUMBER, "0", "") | {"trunk_sid": "TK1"})
    env = {"TWILIO_ACCOUNT_SID": ACCOUNT, "TWILIO_AUTH_TOKEN": TOKEN, "NO_PROXY": "127.0.0.1"}
    findings = look_at_number(twilio, line.url)
    for each in findings:
        _, _, command = each.advice.partition("or: ")
        command = command.replace("https://api.twilio.com", twilio.url)
        subprocess.run(["bash", "-ec", command], env=os.environ | env, check=True)
    assert len(findings) == 4
    assert [each.level for each in look_at_number(twilio, line.url)] == ["ok"] * 3


# ---- putting it right --------------------------------------------------------------------------


def test_fix_sets_what_is_wrong_and_keeps_what_is_right(
    twilio: TwilioAccount, line: Instance
) -> None:
    """Before and after are shown, the owner is asked once, and only what was wrong is sent."""
    twilio.number["voice_url"] = "https://demo.twilio.com/welcome/voice/"
    twilio.number["voice_application_sid"] = "AP1"
    twilio.number["voice_fallback_url"] = "https://handler.twilio.com/twiml/EH1"
    questions: list[str] = []

    def agree(question: str) -> bool:
        questions.append(question)
        return True

    findings = look_and(agree, line.url, twilio.url, "--fix")
    assert questions == [f"Set this for {NUMBER} at Twilio?"]
    told = seen(findings, "note")
    assert "before: POST https://demo.twilio.com/welcome/voice/" in told
    assert f"after:  POST {line.url}/voice/inbound{OVERRIDES}" in told
    assert changes(findings) == []
    [sent] = [asked for asked in twilio.asked if asked.method == "POST"]
    assert b"Fallback" not in sent.body
    assert twilio.number["voice_url"] == f"{line.url}/voice/inbound{OVERRIDES}"
    assert twilio.number["voice_application_sid"] == ""
    assert twilio.number["voice_fallback_url"] == "https://handler.twilio.com/twiml/EH1"


def test_fix_changes_nothing_if_nobody_agrees(twilio: TwilioAccount, line: Instance) -> None:
    """An owner who says no keeps the number as it is."""
    twilio.number["voice_method"] = "GET"
    findings = look_and(refuse, line.url, twilio.url, "--fix")
    assert "nothing was changed" in seen(findings, "note")
    assert {asked.method for asked in twilio.asked} == {"GET"}


def test_whoever_ends_the_input_agrees_to_nothing() -> None:
    """Ctrl-D at the question is a no, like every key but y."""
    ours, theirs = os.openpty()
    ask = "import live; print(live.ask_owner('Set it?'))"
    with subprocess.Popen(
        [sys.executable, "-c", ask],
        cwd=ROOT / "tests",
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=theirs,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        os.write(ours, b"\x04")
        told, _ = process.communicate(timeout=30)
    os.close(ours)
    os.close(theirs)
    assert told.endswith("False\n")
    assert process.returncode == 0


def test_fix_asks_nothing_where_nothing_is_wrong(twilio: TwilioAccount, line: Instance) -> None:
    """A number that is right is left alone."""
    findings = look(line.url, twilio.url, "--fix")
    assert "there is nothing to set" in seen(findings, "note")
    assert changes(findings) == []


def test_a_key_that_may_not_change_numbers_is_said(twilio: TwilioAccount, line: Instance) -> None:
    """What Twilio answers to a change that it does not take is passed on."""
    twilio.number["voice_method"] = "GET"
    twilio.refusals[f"/{twilio.number['sid']}.json"] = (403, "Forbidden")
    [found] = changes(look_and(agree_always, line.url, twilio.url, "--fix"))
    assert "Twilio answers 403: Forbidden" in found


def test_fix_names_no_number_by_chance(twilio: TwilioAccount, line: Instance) -> None:
    """A number that is not the account's is not set, nor is another in its place."""
    del twilio.numbers[0]
    [found] = changes(look_and(agree_always, line.url, twilio.url, "--fix"))
    assert f"{NUMBER} is no number of this account" in found
    assert {asked.method for asked in twilio.asked} == {"GET"}


# ---- whom the line may ring, and what Twilio says ----------------------------------------------


def test_a_country_that_may_not_be_called_is_found(twilio: TwilioAccount, line: Instance) -> None:
    """Without the permission every transfer there would fail, and only then."""
    twilio.countries = [
        country_row("United States", "1"),
        country_row("Jamaica", "1876", may_be_called=False),
        country_row("Germany", "+49", may_be_called=False),
    ]
    phones = "+15550100099,+4930123456,sip:desk@pbx.example.com"
    findings = look(line.url, twilio.url, FORWARD_TO=phones, DEPARTMENTS="beach=+18765550100")
    jamaica, germany = changes(findings)
    assert "+18765550100 may not be called: the account has no permission for Jamaica" in jamaica
    assert "+4930123456 may not be called" in germany
    assert "+15550100099 may be called (United States)" in seen(findings)


def test_a_number_of_no_country_is_noted(twilio: TwilioAccount, line: Instance) -> None:
    """A code that Twilio does not list is told, because it may be a typing error."""
    findings = look(line.url, twilio.url, FORWARD_TO="+99955501000")
    assert "+99955501000: Twilio names no country for it" in seen(findings, "note")


VERIFIED: Final = "+15550003333"
CALLER_IDS: Final[list[tuple[str, str, list[str], list[bool]]]] = [
    # which number is shown, those that are verified, whether that is to be changed
    ("a number of the account", NUMBER, [], []),
    ("verified", VERIFIED, [VERIFIED], []),
    ("neither", VERIFIED, [], [True]),
]


@pytest.mark.parametrize(
    ("shown", "verified", "told"), [pytest.param(*row[1:], id=row[0]) for row in CALLER_IDS]
)
def test_a_caller_id_has_to_be_the_accounts(
    twilio: TwilioAccount, line: Instance, shown: str, verified: list[str], told: list[bool]
) -> None:
    """A number that the account may not show would make every transfer fail."""
    twilio.verified = [{"phone_number": number} for number in verified]
    found = changes(look(line.url, twilio.url, CALLER_ID=shown))
    assert [f"CALLER_ID {shown} is neither" in each for each in found] == told


def test_what_twilio_complained_of_is_passed_on(twilio: TwilioAccount, line: Instance) -> None:
    """Errors of the last day at this line are counted by code and path; those elsewhere are not."""
    path = f"{line.url}/voice/process?turn=1"
    twilio.alerts = [
        {"error_code": "11200", "request_url": path},
        {"error_code": "11200", "request_url": path},
        {"error_code": "12100", "request_url": "https://other.example/voice"},
        {"error_code": "20003", "request_url": None},
    ]
    [found] = [each for each in notes(look(line.url, twilio.url)) if "complained" in each]
    assert "complained of /voice/process within the last day, 2 times: error 11200" in found
    assert found.endswith("https://www.twilio.com/docs/api/errors/11200")


REFUSING: Final = {
    "/v1/Alerts": "what Twilio complained of",
    "/v1/DialingPermissions/Countries": "which countries may be called",
    "/Recordings.json": "a recording's link",
    "/OutgoingCallerIds.json": "CALLER_ID",
}


@pytest.mark.parametrize("end", REFUSING)
def test_what_the_login_may_not_see_is_said(
    twilio: TwilioAccount, line: Instance, end: str
) -> None:
    """A restricted API key hides something: that is said, and the rest is looked at."""
    twilio.refusals[end] = (403, "Forbidden")
    env = {"FORWARD_TO": "+15550100099", "CALLER_ID": VERIFIED}
    twilio.verified = [{"phone_number": VERIFIED}]
    findings = look(line.url, twilio.url, **env)
    assert f"not looked at: {REFUSING[end]}: Twilio answers 403: Forbidden" in seen(
        findings, "unseen"
    )
    assert changes(findings) == []


# ---- recordings --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hosts() -> Iterator[Media]:
    """Twilio's media hosts, with every recording that is asked for."""
    with Media() as hosts:
        hosts.recordings = AnyRecording()
        yield hosts


@pytest.fixture
def media(hosts: Media) -> Iterator[Media]:
    """The same; the line's login is taken again afterwards."""
    login = hosts.login
    yield hosts
    hosts.login = login


@pytest.fixture(scope="module")
def playing(hosts: Media, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A line whose recordings can be had."""
    with Served(hosts, tmp_path_factory.mktemp("playing")) as instance:
        yield instance


def test_a_recording_plays(playing: Served) -> None:
    """The account's latest recording is asked for by a link of this line's."""
    with TwilioAccount(playing.url, TOKEN) as twilio:
        twilio.recordings = [{"sid": "RE" + "0" * 32}]
        findings = look(playing.url, twilio.url)
    assert changes(findings) == []
    assert "a recording's link is answered 206 audio/mpeg: it plays" in seen(findings)


def test_a_login_that_plays_nothing_is_found(playing: Served, media: Media) -> None:
    """Where Twilio refuses the line's login, the owner would hear no message."""
    media.login = "somebody:else"
    with TwilioAccount(playing.url, TOKEN) as twilio:
        twilio.recordings = [{"sid": "RE" + "0" * 32}]
        [found] = changes(look(playing.url, twilio.url))
    assert "a recording's link is answered 502" in found
    assert "TWILIO_API_KEY" in found


def test_an_account_without_recordings_is_said(line: Instance, twilio: TwilioAccount) -> None:
    """Where there is nothing to play, nobody is told that it plays."""
    assert "a recording's link: the account has none" in seen(look(line.url, twilio.url), "unseen")


# ---- the line ----------------------------------------------------------------------------------


def test_another_token_is_found(line: Instance) -> None:
    """A line that refuses our signature has another token or another PUBLIC_URL."""
    [found] = changes(look(line.url, token="another"))
    assert "a signed call is answered 403" in found
    assert "TWILIO_AUTH_TOKEN" in found
    assert f"PUBLIC_URL there is not {line.url}" in found


LINES: Final[dict[str, tuple[dict[str, str], list[str]]]] = {
    # what is wrong with the line: its settings, what is found
    "another PUBLIC_URL": ({"PUBLIC_URL": "https://old.example"}, ["call is answered 403"]),
    "another account": (
        {"TWILIO_ACCOUNT_SID": "AC" + "f" * 32},
        ["TWILIO_ACCOUNT_SID there is another"],
    ),
    "a typo": (
        {"FORWARD_TO": "5550100099", "HOURS": "always"},
        ["/healthz: FORWARD_TO", "/healthz: HOURS"],
    ),
    "a store that keeps nothing": (
        {"UPSTASH_REDIS_REST_URL": "http://127.0.0.1:1", "UPSTASH_REDIS_REST_TOKEN": "t"},
        ["UPSTASH_REDIS_REST_URL cannot be written"],
    ),
}


@pytest.mark.parametrize(("settings", "wanted"), mostly_long(LINES, "another PUBLIC_URL", "a typo"))
def test_a_mistake_in_the_line_is_found(
    settings: dict[str, str], wanted: list[str], tmp_path: Path
) -> None:
    """What the line says of itself, and what it refuses, is passed on with what to do."""
    env = {"TWILIO_AUTH_TOKEN": TOKEN, "STATE_FILE": str(tmp_path / "calls"), **settings}
    with Instance(env) as instance:
        found = changes(look(instance.url))
    assert len(found) == len(wanted)
    assert all(words in each for words, each in zip(wanted, found, strict=True))


def test_a_caller_that_is_turned_away_is_only_noted(tmp_path: Path) -> None:
    """A line that blocks the number for tests is well; the rest cannot be seen by ringing."""
    env = {"TWILIO_AUTH_TOKEN": TOKEN, "STATE_FILE": str(tmp_path / "c"), "BLOCKED": at_line.CALLER}
    with Instance(env) as instance:
        findings = look(instance.url)
    assert changes(findings) == []
    assert any("turned away" in each for each in notes(findings))


def test_the_deadline_of_the_line_decides_the_fragment(tmp_path: Path) -> None:
    """With another RESPONSE_DEADLINE Twilio has to wait longer, in the number's URLs as well."""
    env = {"TWILIO_AUTH_TOKEN": TOKEN, "STATE_FILE": str(tmp_path / "c"), "RESPONSE_DEADLINE": "7"}
    with Instance(env) as instance, TwilioAccount(instance.url, TOKEN) as twilio:
        found = changes(look(instance.url, twilio.url))
    assert len(found) == 3
    assert all("rt=5000 in place of #rc=5&rp=all&ct=2000&rt=7500" in each for each in found)


def test_another_database_is_found(line: Instance) -> None:
    """The call is looked for in the database that is set here: it must arrive in that one."""
    with Upstash() as other:
        [found] = changes(look(line.url, **other.settings))
    assert "not in this database" in found


def test_a_wrong_token_of_the_database_is_found(line: Instance, upstash: Upstash) -> None:
    """What Upstash answers to a wrong token is passed on."""
    settings = {**upstash.settings, "UPSTASH_REDIS_REST_TOKEN": "nonsense"}
    [found] = changes(look(line.url, **settings))
    assert "401" in found
    assert "nonsense" not in found


def test_a_database_far_away_is_found() -> None:
    """A round trip of 60 ms is seen in the difference between a webhook and /healthz."""
    with (
        Upstash(latency=0.06) as far,
        Instance({"TWILIO_AUTH_TOKEN": TOKEN, **far.settings}) as instance,
    ):
        [found] = changes(look(instance.url))
    taken = re.search(r"takes (\d+) ms longer", found)
    assert taken
    assert 55 <= int(taken[1]) <= 120
    assert "us-east-1" in found


def test_signatures_verify_through_a_proxy(tmp_path: Path) -> None:
    """An edge that talks to the line under another name does no harm when PUBLIC_URL is its own."""
    behind: list[str] = []

    def edge(asked: Asked) -> Reply:
        inner = {**asked.headers, "host": "10.0.0.7:8080", "x-forwarded-proto": "http"}
        found = ask(asked.method, behind[0] + asked.path, inner, asked.body.decode())
        return found.status, {"Content-Type": found.kind}, found.body

    with serving(edge) as url:
        env = {"TWILIO_AUTH_TOKEN": TOKEN, "STATE_FILE": str(tmp_path / "c"), "PUBLIC_URL": url}
        with Instance(env) as instance:
            behind.append(instance.url)
            assert changes(look(url)) == []
            assert any("403" in each for each in changes(look(instance.url)))


FALLBACK: Final = {"x-railway-fallback": "true", "Content-Type": "application/json"}


def test_an_edge_that_wakes_the_service_is_waited_for() -> None:
    """A 502 of Railway's edge, then the line: no mistake, but it is said how long it took."""
    waking = iter([(502, FALLBACK, b"{}")] * 2)
    report = b'{"ok": true, "problems": []}'

    def edge(_: Asked) -> Reply:
        return next(waking, (200, {"X-Railway-Edge": "iad1"}, report))

    with serving(edge) as url:
        answer, tries = at_line.wake_line(url, time.monotonic() + 10)
    assert (answer.status, tries) == (200, 3)
    [found] = at_line.check_health(answer)
    assert "through Railway's edge iad1" in found.seen


EDGES: Final[list[tuple[str, Reply, str]]] = [
    ("nothing deployed", (404, FALLBACK, b'{"message": "not found"}'), "`railway domain`, then"),
    ("another port", (502, FALLBACK, b'{"message": "failed to respond"}'), "--port"),
    ("another site", (200, {"Content-Type": "text/html"}, b"<h1>Hi</h1>"), "leads elsewhere"),
    ("another JSON", (200, {"Content-Type": "application/json"}, b"[]"), "leads elsewhere"),
]


@pytest.mark.parametrize(("reply", "advice"), [pytest.param(*row[1:], id=row[0]) for row in EDGES])
def test_something_else_at_the_domain_is_found(reply: Reply, advice: str) -> None:
    """What answers in place of the line is recognised, with what to do about it."""
    with serving(lambda _: reply) as url:
        answer, _tries = at_line.wake_line(url, time.monotonic())
    [found] = changes(list(at_line.check_health(answer)))
    assert advice in found
    assert str(reply[0]) in found


def test_a_domain_without_anything_is_found() -> None:
    """Nobody there at all: that is said, and the rest is not tried."""
    [found] = changes(look("http://127.0.0.1:1", "", "--patience", "0"))
    assert "cannot be reached" in found


REDIRECTS: Final[list[tuple[str, Reply, str]]] = [
    ("as Railway does", (301, {"Location": "https://line.example/healthz"}, b""), ""),
    ("served in the open", (200, {}, b"{}"), "in place of a redirect"),
]


@pytest.mark.parametrize(
    ("reply", "seen"), [pytest.param(*row[1:], id=row[0]) for row in REDIRECTS]
)
def test_http_leads_to_https(reply: Reply, seen: str) -> None:
    """A line that also talks in the open is found."""
    with serving(lambda _: reply) as plain:
        found = changes(list(at_line.check_encryption("https://line.example", plain)))
    assert [seen in each for each in found] == ([True] if seen else [])


FORGED: Final[list[tuple[str, Reply, str]]] = [
    ("believed", (200, {}, b"<Response/>"), "answered 200, not 403"),
    ("redirected", (301, {"Location": "https://x.example/"}, b""), "redirected to https://x.ex"),
    ("refused", (403, {}, b"no"), ""),
]


@pytest.mark.parametrize(("reply", "seen"), [pytest.param(*row[1:], id=row[0]) for row in FORGED])
def test_a_line_that_believes_anybody_is_found(reply: Reply, seen: str) -> None:
    """An unsigned webhook must be refused with 403 and nothing else."""
    with serving(lambda _: reply) as url:
        found = changes(list(at_line.check_forgery(url)))
    assert [seen in each for each in found] == ([True] if seen else [])


DEPLOYMENT: Final = "9f2c1a7e-0f6b-4c1d-8a3e-5b7d9e0c1f2a"
RELEASES: Final[list[tuple[str, str, str, str, str]]] = [
    # what serves: what /healthz says, what is here, the level, what is seen
    ("this one", "0123456789ab", "0123456789abcdef", "ok", "which is the one here"),
    (
        "another",
        "fedcba987654",
        "0123456789abcdef",
        "note",
        "fedcba987654 serves, and 0123456789ab",
    ),
    ("no clone here", "fedcba987654", "", "ok", "release fedcba987654 serves"),
    ("elsewhere", "unknown", "0123456789abcdef", "note", "is not known"),
    ("no GitHub", DEPLOYMENT, "0123456789abcdef", "note", f"deployment {DEPLOYMENT} serves"),
    ("an old one", "", "0123456789abcdef", "CHANGE", "names no release"),
]


@pytest.mark.parametrize(
    ("serving_one", "here", "level", "words"),
    [pytest.param(*row[1:], id=row[0]) for row in RELEASES],
)
def test_the_release_that_serves_is_told(
    serving_one: str, here: str, level: str, words: str
) -> None:
    """An owner who has deployed learns whether that is what answers."""
    release = f', "release": "{serving_one}"' if serving_one else ""
    body = f'{{"ok": true, "problems": []{release}}}'.encode()
    with serving(lambda _: (200, {"Content-Type": "application/json"}, body)) as url:
        answer, _tries = at_line.wake_line(url, time.monotonic())
    [found] = at_line.check_release(answer, here)
    assert (found.level, words in found.seen) == (level, True)


def test_the_release_here_is_the_commit_that_is_checked_out() -> None:
    """It is asked of git, in the folder of the line."""
    assert re.fullmatch("[0-9a-f]{40}|", at_line.find_release())


# ---- what others notice ------------------------------------------------------------------------


def test_the_owner_is_told_of_a_test_event(tmp_path: Path) -> None:
    """One event comes straight from here, and one from the line itself, of a missed call."""
    state = str(tmp_path / "c")
    with Sink() as sink:
        env = {"TWILIO_AUTH_TOKEN": TOKEN, "STATE_FILE": state, "NOTIFY_URL": sink.url}
        with Instance(env) as instance:
            findings = look(instance.url, "", "--event", NOTIFY_URL=sink.url)
    assert changes(findings) == []
    assert sink.told() == ["test", "missed"]
    assert "NOTIFY_URL takes a test event (204)" in seen(findings)
    assert "somebody was told of a missed call from +15005550006" in seen(findings)


def test_a_line_that_is_closed_tells_of_a_missed_call_too(tmp_path: Path) -> None:
    """Where callers go to voicemail at once, the test leaves no message."""
    with Sink() as sink:
        yesterday = time.strftime("%a", time.gmtime(time.time() - 24 * 3600))
        env = {"NOTIFY_URL": sink.url, "HOURS": f"{yesterday} 10:00-10:01 UTC"}
        settings = {"TWILIO_AUTH_TOKEN": TOKEN, "STATE_FILE": str(tmp_path / "c"), **env}
        with Instance(settings) as instance:
            findings = look(instance.url, "", "--event", NOTIFY_URL=sink.url)
    assert changes(findings) == []
    assert sink.told() == ["test", "missed"]


ADDRESSES: Final[dict[str, tuple[int | str, str, str]]] = {
    "refusing": (500, "NOTIFY_URL answers 500 to a test event", "Anything that takes a POST"),
    "moved": ("redirect", "NOTIFY_URL answers 302 to a test event", "not followed"),
    "cut": ("cut", "NOTIFY_URL does not answer here", "Is it right?"),
}


@pytest.mark.parametrize(("fault", "found", "advice"), mostly_long(ADDRESSES, "moved"))
def test_an_address_that_takes_no_event_is_found(
    tmp_path: Path, fault: int | str, found: str, advice: str
) -> None:
    """What does not take the test event, an owner would never hear of; its address is not shown."""
    with Sink() as sink:
        sink.fault = fault
        env = {"RESPONSE_DEADLINE": "1", "NOTIFY_URL": sink.url}
        settings = {"TWILIO_AUTH_TOKEN": TOKEN, "STATE_FILE": str(tmp_path / "c"), **env}
        with Instance(settings) as instance:
            findings = look(instance.url, "", "--event", NOTIFY_URL=sink.url)
    [posted, told] = changes(findings)
    assert found in posted
    assert advice in posted
    assert "the line could tell nobody of a missed call" in told
    assert "geheim" not in str(findings)


def asked_backend(tmp_path: Path, decide: Callable[[Any], Answered]) -> list[Finding]:
    """The findings at a line whose backend is asked a test question."""
    with Backend(decide) as backend:
        env = {"RESPONSE_DEADLINE": "1", "BACKEND_URL": backend.url}
        settings = {"TWILIO_AUTH_TOKEN": TOKEN, "STATE_FILE": str(tmp_path / "c"), **env}
        with Instance(settings) as instance:
            given = ("--question", "--speed", "10")
            return look(instance.url, "", *given, BACKEND_URL=backend.url)


def test_the_backend_answers_a_test_question(tmp_path: Path) -> None:
    """The question goes through the line, and a caller on hold is played until there is words."""

    def decide(_: object) -> Answered:
        time.sleep(1.5)
        return says("I am well.")

    findings = asked_backend(tmp_path, decide)
    assert changes(findings) == []
    found = re.search(r"backend's answer is heard after ([\d.]+) s: 'I am well.'", seen(findings))
    assert found
    assert 1.4 < float(found[1]) < 6


def test_a_backend_that_fails_is_found(tmp_path: Path) -> None:
    """A backend that refuses for good is told from one that answers, by what the caller hears."""
    [found] = changes(asked_backend(tmp_path, lambda _: Answered(b"no", status=404)))
    assert "no usable answer" in found


# ---- the command -------------------------------------------------------------------------------


def program(*given: str, **env: str) -> subprocess.CompletedProcess[str]:
    """live.py as from a shell."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("TWILIO_", "UPSTASH_"))}
    command = [sys.executable, str(PROGRAM), *given]
    return subprocess.run(
        command,
        env=kept | env,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )


@pytest.mark.quick
def test_the_program_prints_what_it_finds(line: Instance, twilio: TwilioAccount) -> None:
    """From a shell: a line each, what to change with its command, and exit status 1."""
    twilio.number["status_callback"] = ""
    env = {"TWILIO_AUTH_TOKEN": TOKEN, "TWILIO_ACCOUNT_SID": ACCOUNT}
    done = program(line.url, "--number", NUMBER, "--api", twilio.url, **env)
    assert (done.returncode, done.stderr) == (1, "")
    assert "CHANGE  +15550001111: status_callback is not set\n        > --fix, or: " in done.stdout
    assert done.stdout.endswith("\nto change: 1\n")
    assert TOKEN not in done.stdout


def test_the_program_ends_well_when_all_is_well(playing: Served) -> None:
    """From a shell, with nothing to change: exit status 0."""
    env = {"TWILIO_AUTH_TOKEN": TOKEN, "TWILIO_ACCOUNT_SID": ACCOUNT}
    with TwilioAccount(playing.url, TOKEN) as twilio:
        twilio.recordings = [{"sid": "RE" + "0" * 32}]
        done = program(playing.url, "--api", twilio.url, **env)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("\nall well: dial the number\n")


def test_the_program_asks_before_it_changes_a_number(line: Instance, twilio: TwilioAccount) -> None:
    """Where nobody is at the terminal nothing is changed; --yes agrees beforehand."""
    twilio.number["voice_method"] = "GET"
    env = {"TWILIO_AUTH_TOKEN": TOKEN, "TWILIO_ACCOUNT_SID": ACCOUNT}
    given = (line.url, "--number", NUMBER, "--api", twilio.url, "--fix")
    done = program(*given, **env)
    assert f"Set this for {NUMBER} at Twilio? Nobody is here to ask: --yes agrees." in done.stdout
    assert twilio.number["voice_method"] == "GET"
    done = program(*given, "--yes", **env)
    assert (done.returncode, twilio.number["voice_method"]) == (0, "POST")


@pytest.mark.parametrize("account", [{}, {"TWILIO_ACCOUNT_SID": ACCOUNT}], ids=["unset", "unheard"])
def test_the_program_owns_up_to_what_it_did_not_see(
    line: Instance, account: dict[str, str]
) -> None:
    """Without the number's settings nobody is told that all is well."""
    done = program(line.url, "--api", "http://127.0.0.1:1", TWILIO_AUTH_TOKEN=TOKEN, **account)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\nunseen  not looked at: the number's settings: " in done.stdout
    assert done.stdout.endswith("\nwhat was looked at is well; 1 could not be looked at\n")
    assert "all well" not in done.stdout


URL: Final = "https://line.example"
USAGE: Final[list[tuple[str, tuple[str, ...], dict[str, str], str]]] = [
    ("no scheme", ("line.example",), {}, "not 'line.example'"),
    ("no host", ("https://",), {}, "not 'https://'"),
    ("no token", (URL,), {"TWILIO_AUTH_TOKEN": ""}, "set TWILIO_AUTH_TOKEN"),
    ("two numbers", (URL, "--number", NUMBER, "--number", SECOND), {}, "give one --number"),
    ("no number", (URL, "--number", "555-1234"), {}, "not '555-1234'"),
    ("no second number", (URL, "--ring", "me"), {}, "not 'me'"),
    ("no Account SID", (URL,), {"TWILIO_ACCOUNT_SID": "SK123"}, "this is no Account SID"),
    (
        "nothing to fix",
        (URL, "--fix"),
        {"TWILIO_ACCOUNT_SID": ""},
        "--fix needs TWILIO_ACCOUNT_SID",
    ),
    ("no address", (URL, "--event"), {}, "--event needs NOTIFY_URL"),
    ("no backend", (URL, "--question"), {}, "--question needs BACKEND_URL"),
    ("no account", (URL, "--ring", SECOND), {"TWILIO_ACCOUNT_SID": ""}, "--ring needs TWILIO_ACC"),
    ("no password", (URL, "--ring", SECOND), {}, "--ring needs ADMIN_TOKEN"),
    ("nobody to ring", (URL, "--dial"), {}, "--dial goes with --ring"),
]


@pytest.mark.quick
@pytest.mark.parametrize(
    ("given", "env", "said"), [pytest.param(*row[1:], id=row[0]) for row in USAGE]
)
def test_what_is_missing_on_the_command_line_is_said_in_a_sentence(
    given: tuple[str, ...], env: dict[str, str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is asked anywhere before the command line makes sense."""
    usual = {"TWILIO_AUTH_TOKEN": TOKEN, "TWILIO_ACCOUNT_SID": ACCOUNT}
    with pytest.raises(SystemExit) as ended:
        read_arguments(given, usual | env)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err.splitlines()[-1]
