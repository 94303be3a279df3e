"""One HTTP request and its whole answer. Redirects are not followed: they are findings."""

import json
import time
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any, Final
from urllib.parse import urlsplit

from standins.webhooks import Answer

FAULTS: Final = (OSError, HTTPException)  # what a request that gets no answer raises
PORTS: Final = {"https": 443, "http": 80}


class Wire:
    """One connection to one origin, kept open, so that only the first request pays for it."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        self._connection = kind(parts.hostname or "", parts.port, timeout=20)

    def ask(
        self, method: str, target: str, headers: Mapping[str, str] | None = None, body: str = ""
    ) -> Answer:
        """One request and its whole answer. Raises one of FAULTS when there is none."""
        began = time.monotonic()
        self._connection.request(method, target, body.encode() or None, dict(headers or {}))
        response: HTTPResponse = self._connection.getresponse()
        whole = response.read()
        return Answer(response.status, dict(response.getheaders()), whole, time.monotonic() - began)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def ask(method: str, url: str, headers: Mapping[str, str] | None = None, body: str = "") -> Answer:
    """One request over a connection of its own. Raises one of FAULTS when there is no answer."""
    wire = Wire(url)
    parts = urlsplit(url)
    target = parts.path or "/"
    if parts.query:
        target += f"?{parts.query}"
    try:
        return wire.ask(method, target, headers, body)
    finally:
        wire.close()


def find_header(answer: Answer, name: str) -> str:
    """The value of a header, by its name in small letters; empty when it is not there."""
    return {key.lower(): value for key, value in answer.headers.items()}.get(name, "")


def read_object(answer: Answer) -> dict[str, Any]:
    """The JSON object of an answer; empty when it is something else."""
    try:
        found = json.loads(answer.body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def quote_body(answer: Answer) -> str:
    """The beginning of an answer's body, in one line."""
    return " ".join(answer.body.decode("utf-8", "replace").split())[:90]


def find_origin(url: str) -> str:
    """The scheme and host of a URL, in small letters, without login and without a usual port.

    Nothing if it is no URL.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return ""
    if not parts.hostname:
        return ""
    is_usual = port in (None, PORTS.get(parts.scheme.lower()))
    host = parts.hostname if is_usual else f"{parts.hostname}:{port}"
    return f"{parts.scheme}://{host}".lower()
