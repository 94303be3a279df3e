"""An account at Twilio, as its REST APIs tell of it. Every product has a host of its own."""

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

from deployed.asking import FAULTS, ask, read_object
from standins.webhooks import Answer

API: Final = "https://api.twilio.com"
ENOUGH: Final = 1000  # rows of a list that are looked at: as many as Twilio gives at a time


class Refused(Exception):
    """Twilio's API does not do what it is asked; the message says so in a sentence."""

    def __init__(self, reason: str, status: int = 0) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True)
class Account:
    """The login for Twilio's REST APIs, and their addresses."""

    sid: str
    login: tuple[str, str]
    api: str = API

    def get(self, path: str, product: str = "api") -> dict[str, Any]:
        """Read something. Raises Refused."""
        return self.ask("GET", path, product)

    def post(self, path: str, fields: Mapping[str, str]) -> dict[str, Any]:
        """Change something of the account, or make it. Raises Refused."""
        return self.ask("POST", path, "api", urlencode(fields))

    def ask(self, method: str, path: str, product: str, body: str = "") -> dict[str, Any]:
        """The JSON object that a request brings. Raises Refused."""
        login = b64encode(":".join(self.login).encode()).decode()
        headers = {"Authorization": f"Basic {login}"}
        if body:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        try:
            answer = ask(method, self.place(path, product), headers, body)
        except FAULTS as error:
            raise Refused(f"Twilio's REST API cannot be reached from here: {error}") from None
        if answer.status not in (200, 201):
            raise Refused(explain(answer), answer.status)
        return read_object(answer)

    def place(self, path: str, product: str) -> str:
        """The URL of a path: of this account's, or of another product's API."""
        if product == "api":
            return f"{self.api}/2010-04-01/Accounts/{self.sid}{path}"
        if self.api == API:
            return f"https://{product}.twilio.com{path}"
        return f"{self.api}/{product}{path}"  # a stand-in has one host


def explain(answer: Answer) -> str:
    """A refusal in a sentence, in Twilio's words."""
    message = read_object(answer).get("message", "")
    return f"Twilio answers {answer.status}: {message}"
