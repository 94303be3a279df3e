"""A stand-in for Twilio's REST API, which moves a live call to another URL.

The twilio library reaches it unchanged: as the HTTPS proxy of the function's process, it answers
for api.twilio.com with a certificate of its own, which that process is told to trust.

    with TwilioApi(token) as api, Instance({... , **api.settings}) as instance:
        api.calls[phone.call_sid] = phone      # this phone is moved when the API is asked to
        api.fault = lambda push: "429"         # or "500", "21220", "hang"; None is good health
        ...
        assert [push.url for push in api.pushes] == [...]

`relay` is the origin of another program that answers in its place (tools/test_emulate.py). What the
API tells of an account, its numbers and the calls that it makes stands in twilio_account.py.

Source: https://www.twilio.com/docs/voice/api/call-resource#update-a-call-resource and
https://www.twilio.com/docs/api/errors for the bodies of errors.
"""

import base64
import json
import re
import ssl
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final, NamedTuple, Self, cast
from urllib.parse import parse_qs

from standins.call import Phone

HOST: Final = "api.twilio.com"
UPDATE: Final = r"/2010-04-01/Accounts/(AC[0-9a-f]{32})/Calls/(CA[0-9a-f]{32})\.json"
REFUSALS: Final = {  # fault: (status, code, message)
    "401": (401, 20003, "Authenticate"),
    "404": (404, 20404, "The requested resource was not found"),
    "21205": (400, 21205, "Url is not a valid URL"),
    "21220": (400, 21220, "Call is not in-progress. Cannot redirect."),
    "429": (429, 20429, "Too Many Requests"),
    "500": (500, 20500, "An internal server error has occurred"),
}


class Push(NamedTuple):
    """One request to move a call, and when it came (time.monotonic)."""

    call_sid: str
    url: str
    method: str
    at: float


class Api(BaseHTTPRequestHandler):
    """The server inside of the tunnel."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        form = {name: values[0] for name, values in parse_qs(body).items()}
        api = cast("Door", self.server).api
        found = re.fullmatch(UPDATE, self.path)
        if not found or self.headers.get("Authorization") != api.authorization:
            return self.refuse("404" if not found else "401")
        push = Push(found[2], form.get("Url", ""), form.get("Method", "POST"), time.monotonic())
        if api.relay:
            return self.hand_on(api, push, body)
        fault = api.take(push)
        if fault == "hang":
            return void(api.closing.wait(60))
        return self.refuse(fault) if fault else self.reply(200, {"sid": push.call_sid})

    def hand_on(self, api: "TwilioApi", push: Push, body: str) -> None:
        """Pass a request on as it came, and the answer back; `pushes` has what was taken."""
        names = ("Authorization", "Content-Type")
        headers = {name: self.headers[name] for name in names}
        host, _, port = api.relay.removeprefix("http://").partition(":")
        connection = HTTPConnection(host, int(port), timeout=10)
        connection.request("POST", self.path, body, headers)
        answer = connection.getresponse()
        found = json.loads(answer.read())
        connection.close()
        if answer.status == 200:
            api.pushes.append(push)
        self.reply(answer.status, found)

    def refuse(self, fault: str) -> None:
        status, code, message = REFUSALS[fault]
        more = f"https://www.twilio.com/docs/errors/{code}"
        self.reply(status, {"code": code, "message": message, "more_info": more, "status": status})

    def reply(self, status: int, answer: dict[str, object]) -> None:
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return


class Tunnel(BaseHTTPRequestHandler):
    """The proxy's side: it leads to the one host that there is, which is ourselves."""

    def do_CONNECT(self) -> None:
        if self.path != f"{HOST}:443":
            return self.send_error(403, "This proxy leads to Twilio only")
        self.send_response_only(200)
        self.end_headers()
        self.close_connection = True
        door = cast("Door", self.server)
        with (
            suppress(OSError),  # the client is gone, killed perhaps
            door.api.tls.wrap_socket(self.connection, server_side=True) as inside,
        ):
            Api(inside, self.client_address, door)
        return None

    def log_message(self, *_: object) -> None:
        return


class Door(ThreadingHTTPServer):
    """The server for the library; it only ever listens on this machine."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, api: "TwilioApi") -> None:
        self.api = api
        super().__init__(("127.0.0.1", 0), Tunnel)


class TwilioApi:
    """The part of Twilio that is asked to move calls, as a test sees it.

    Like Twilio it answers before the moved call's next webhook is under way, and refuses to move
    a call that is over. `fault` is asked about each push; it comes before anything takes effect.
    """

    def __init__(self, auth_token: str, account: str = "AC" + "0123456789abcdef" * 2) -> None:
        self.account, self.auth_token = account, auth_token
        self.calls: dict[str, Phone] = {}
        self.pushes: list[Push] = []
        self.fault: Callable[[Push], str | None] | None = None
        self.relay = ""
        self.closing = threading.Event()

    def __enter__(self) -> Self:
        import trustme  # only tests have it; phones and `bless.py` do without

        authority = trustme.CA()
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(HOST).configure_cert(self.tls)
        self._folder = tempfile.TemporaryDirectory(prefix="twilio-")
        self._bundle = Path(self._folder.name, "authority.pem")
        authority.cert_pem.write_to_path(str(self._bundle))
        self._door = Door(self)
        threading.Thread(target=self._door.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._door.shutdown()
        self._door.server_close()
        self._folder.cleanup()

    @property
    def settings(self) -> dict[str, str]:
        """The variables with which a process of the function finds it and trusts it."""
        proxy, bundle = f"http://127.0.0.1:{self._door.server_port}", str(self._bundle)
        proxies = dict.fromkeys(("HTTPS_PROXY", "https_proxy"), proxy)
        exempt = dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1,localhost")
        trust = {"REQUESTS_CA_BUNDLE": bundle, "SSL_CERT_FILE": bundle}
        return {"TWILIO_ACCOUNT_SID": self.account, **proxies, **exempt, **trust}

    @property
    def authorization(self) -> str:
        """The account's own login, as it looks on the wire."""
        login = f"{self.account}:{self.auth_token}".encode()
        return f"Basic {base64.b64encode(login).decode()}"

    def pushes_of(self, call_sid: str) -> list[Push]:
        """The questions about one call."""
        return [push for push in tuple(self.pushes) if push.call_sid == call_sid]

    def take(self, push: Push) -> str | None:
        """Moves the call; else what is wrong, as a key of REFUSALS or "hang"."""
        self.pushes.append(push)
        if fault := self.fault(push) if self.fault else None:
            return fault
        phone = self.calls.get(push.call_sid)
        if not phone:
            return "404"
        if not re.match("https?://[^/]", push.url):
            return "21205"
        if phone.state in {"new", "ended"}:
            return "21220"
        threading.Thread(target=phone.redirect, args=(push.url,), daemon=True).start()
        return None


def void(_: object) -> None:
    return None
