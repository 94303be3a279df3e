"""A stand-in for Twilio's REST APIs, as far as they tell of one account and change it.

    with TwilioAccount(line.url, token) as twilio:
        twilio.number["voice_method"] = "GET"       # the line's number; every list may be changed
        twilio.refusals["/v1/Alerts"] = (403, "Forbidden")
        ... Account(twilio.sid, (twilio.sid, token), twilio.url) ...
        assert twilio.asked[0].method == "GET"

It knows its numbers, verified callers, recordings, alerts, prices, and the countries that may be
called. A call that it is told to make is made: a SecondNumber plays the TwiML to the line. Every
product has a host of its own at Twilio, and a first folder here: /voice/v1/DialingPermissions/...
The push of a held caller, over TLS as Twilio's library has it, stands in twilio_api.py.

Source: https://www.twilio.com/docs/phone-numbers/api/incomingphonenumber-resource,
/docs/voice/api/call-resource, /docs/voice/api/dialingpermissions-country-resource,
/docs/voice/pricing, /docs/usage/monitor-alert.
"""

import json
import re
import threading
import uuid
from base64 import b64encode
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any, Final, Self
from urllib.parse import parse_qsl, urlsplit

from standins.asking import OVERRIDES
from standins.second_number import CallingPhone, SecondNumber
from standins.serving import Asked, Reply, serving

ACCOUNT: Final = "AC" + "0123456789abcdef" * 2
NUMBER: Final = "+15550001111"
SECOND: Final = "+15550002222"
JSON: Final = {"Content-Type": "application/json"}
Row = dict[str, Any]
NOT_OWNED: Final = (400, 21210, "From phone number is not owned by this account")
NOT_HERE: Final = (400, 21211, "The stand-in only calls the line")


class Refusal(Exception):
    """An error, as Twilio's API tells it: https://www.twilio.com/docs/api/errors."""

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class TwilioAccount:
    """One account. Its lists are what the API answers, and may be changed by a test."""

    def __init__(self, line: str, token: str, sid: str = ACCOUNT) -> None:
        self.line, self.token, self.sid = line, token, sid
        self.about: Row = {"type": "Full", "status": "active"}
        self.numbers = [number_row(NUMBER, "0", line), number_row(SECOND, "1", "")]
        self.verified: list[Row] = []
        self.recordings: list[Row] = []
        self.alerts: list[Row] = []
        self.countries = [country_row("United States", "1"), country_row("Germany", "49")]
        self.price: Row = {
            "price_unit": "USD",
            "outbound_call_prices": [{"current_price": "0.0140"}],
            "inbound_call_price": {"current_price": "0.0085"},
        }
        self.refusals: dict[str, tuple[int, str]] = {}  # the end of a path: status, message
        self.asked: list[Asked] = []
        self.calls: dict[str, tuple[Row, SecondNumber]] = {}
        self.shape: Callable[[SecondNumber], object] = lambda _: None  # see SecondNumber
        self.speed = 1.0
        self._held = ExitStack()

    def __enter__(self) -> Self:
        self.url = self._held.enter_context(serving(self.answer))
        return self

    def __exit__(self, *_: object) -> None:
        for call in self.calls.values():
            call[1].stop()
        self._held.close()

    @property
    def number(self) -> Row:
        """The line's number."""
        return self.numbers[0]

    def answer(self, asked: Asked) -> Reply:
        """The parts of a request."""
        self.asked.append(asked)
        try:
            return 200, JSON, json.dumps(self.find(asked)).encode()
        except Refusal as error:
            told = {"code": error.code, "message": str(error), "status": error.status}
            return error.status, JSON, json.dumps(told).encode()

    def find(self, asked: Asked) -> Row:
        """The object that a request asks for. Raises Refusal."""
        login = b64encode(f"{self.sid}:{self.token}".encode()).decode()
        if asked.headers.get("authorization") != f"Basic {login}":
            raise Refusal(401, 20003, "Authenticate")
        parts = urlsplit(asked.path)
        for end, (status, message) in self.refusals.items():
            if parts.path.endswith(end):
                raise Refusal(status, 20000 + status, message)
        form = dict(parse_qsl(asked.body.decode(), keep_blank_values=True))
        for method, path, answer in ROUTES:
            found = re.fullmatch(path.replace("{account}", self.sid), parts.path)
            if found and method == asked.method:
                sid = found[1] if found.groups() else ""
                return answer(self, sid, dict(parse_qsl(parts.query)) | form)
        raise Refusal(404, 20404, "The requested resource was not found")

    # -- what the routes bring --

    def tell_account(self, _: str, __: Mapping[str, str]) -> Row:
        return self.about

    def list_numbers(self, _: str, query: Mapping[str, str]) -> Row:
        return {"incoming_phone_numbers": fitting(self.numbers, query)}

    def list_verified(self, _: str, query: Mapping[str, str]) -> Row:
        return {"outgoing_caller_ids": fitting(self.verified, query)}

    def list_recordings(self, _: str, __: Mapping[str, str]) -> Row:
        return {"recordings": self.recordings[:1]}

    def list_alerts(self, _: str, __: Mapping[str, str]) -> Row:
        return {"alerts": self.alerts}

    def list_countries(self, _: str, __: Mapping[str, str]) -> Row:
        return {"content": self.countries}

    def tell_price(self, _: str, __: Mapping[str, str]) -> Row:
        return self.price

    def change_number(self, sid: str, form: Mapping[str, str]) -> Row:
        """Set what the form names, as Twilio spells it: VoiceUrl is voice_url."""
        for row in self.numbers:
            if row["sid"] == sid:
                row |= {re.sub("(?<!^)(?=[A-Z])", "_", k).lower(): v for k, v in form.items()}
                return row
        raise Refusal(404, 20404, "The requested resource was not found")

    def make_call(self, _: str, form: Mapping[str, str]) -> Row:
        """A number of the account calls the line, at the URLs that the line's number has."""
        if not fitting(self.numbers, {"PhoneNumber": form["From"]}):
            raise Refusal(*NOT_OWNED)
        rows = fitting(self.numbers, {"PhoneNumber": form["To"]})
        if not rows or not rows[0]["voice_url"].startswith(self.line):
            raise Refusal(*NOT_HERE)
        phone = CallingPhone(
            rows[0]["voice_url"],
            fallback=rows[0]["voice_fallback_url"] or None,
            status=rows[0]["status_callback"] or None,
            token=self.token,
            caller=form["From"],
            called=form["To"],
            account=self.sid,
        )
        second = SecondNumber(phone, speed=self.speed)
        self.shape(second)
        row: Row = {"sid": "CA" + uuid.uuid4().hex, "status": "queued", "form": dict(form)}
        self.calls[row["sid"]] = row, second
        threading.Thread(target=second.play, args=(form["Twiml"],), daemon=True).start()
        return row

    def tell_call(self, sid: str, _: Mapping[str, str]) -> Row:
        row, second = self.find_call(sid)
        states = {"new": "ringing", "ended": second.phone.call_status}
        return row | {"status": states.get(second.phone.state, "in-progress")}

    def change_call(self, sid: str, form: Mapping[str, str]) -> Row:
        """End a call; one that is over stays over (21220)."""
        row, second = self.find_call(sid)
        if second.phone.state == "ended":
            raise Refusal(400, 21220, "Call is not in-progress. Cannot redirect.")
        if form.get("Status") == "completed":
            second.stop()
        return row

    def find_call(self, sid: str) -> tuple[Row, SecondNumber]:
        if sid not in self.calls:
            raise Refusal(404, 20404, "The requested resource was not found")
        return self.calls[sid]


HERE: Final = "/2010-04-01/Accounts/{account}"
ROUTES: Final[list[tuple[str, str, Callable[[TwilioAccount, str, Mapping[str, str]], Row]]]] = [
    ("GET", HERE + r"\.json", TwilioAccount.tell_account),
    ("GET", HERE + r"/IncomingPhoneNumbers\.json", TwilioAccount.list_numbers),
    ("POST", HERE + r"/IncomingPhoneNumbers/(PN\w+)\.json", TwilioAccount.change_number),
    ("GET", HERE + r"/OutgoingCallerIds\.json", TwilioAccount.list_verified),
    ("GET", HERE + r"/Recordings\.json", TwilioAccount.list_recordings),
    ("POST", HERE + r"/Calls\.json", TwilioAccount.make_call),
    ("GET", HERE + r"/Calls/(CA\w+)\.json", TwilioAccount.tell_call),
    ("POST", HERE + r"/Calls/(CA\w+)\.json", TwilioAccount.change_call),
    ("GET", r"/voice/v1/DialingPermissions/Countries", TwilioAccount.list_countries),
    ("GET", r"/pricing/v2/Voice/Numbers/\+\d+", TwilioAccount.tell_price),
    ("GET", r"/monitor/v1/Alerts", TwilioAccount.list_alerts),
]


def fitting(rows: list[Row], query: Mapping[str, str]) -> list[Row]:
    """The rows with the number that a query asks for; all, if it asks for none."""
    wanted = query.get("PhoneNumber")
    return [row for row in rows if not wanted or row["phone_number"] == wanted]


def number_row(phone: str, digit: str, line: str) -> Row:
    """A number that leads to a line; without one, to Twilio's demo, as a new one does."""
    urls = {
        "voice_url": f"{line}/voice/inbound{OVERRIDES}",
        "voice_fallback_url": f"{line}/voice/fallback{OVERRIDES}",
        "status_callback": f"{line}/voice/status{OVERRIDES}",
    }
    if not line:
        demo = "https://demo.twilio.com/welcome/voice/"
        urls = {"voice_url": demo, "voice_fallback_url": "", "status_callback": ""}
    return {
        "sid": "PN" + digit * 32,
        "phone_number": phone,
        **urls,
        "voice_method": "POST",
        "voice_fallback_method": "POST",
        "status_callback_method": "POST",
        "voice_application_sid": "",
        "trunk_sid": None,
        "capabilities": {"voice": True, "SMS": False},
    }


def country_row(name: str, code: str, *, may_be_called: bool = True) -> Row:
    """A country and whether its ordinary numbers may be called."""
    return {"name": name, "country_codes": [code], "low_risk_numbers_enabled": may_be_called}
