"""Cells in Upstash Redis, over REST: one command is one POST of a JSON list.

Source: https://upstash.com/docs/redis/features/restapi

Upstash's own client has no time-out, sleeps for 3 seconds before it blindly repeats a command, and
drops its connections after 5, which is sooner than a caller's next words (upstash-redis 1.8.0,
http.py). So the way over the network is ours. The wire format is theirs. Plain results are decoded
here, because to import their client takes two thirds of what this package adds to a cold start;
errors and unusual replies are left to it (`read_rarity`). The tests hold both against each other.
`cells.Store` is what any store has to do, and `line.open_store` chooses one.
"""

import json
from base64 import b64decode
from http.client import HTTPException
from typing import Any

from phone_line.cells import HangMemory, Refused
from phone_line.deadline import Moment
from phone_line.http import Endpoint, HttpAnswer


class Upstash:
    """A database, and the connections to it."""

    def __init__(self, url: str, token: str) -> None:
        """Raises ValueError for what is no URL, or no token."""
        self.endpoint = Endpoint(url, headers_for(token))
        self.hang_memory = HangMemory()

    def execute(self, command: list[str], until: Moment) -> Any:  # noqa: ANN401 # Redis' types
        """Execute any command of Redis in one round trip; strings come as text.

        Raises Refused for an error of the database, OSError, HTTPException or ValueError for the
        network's. The command may have taken effect even so.
        """
        answer = self.endpoint.post(json.dumps(command).encode(), until)
        return read_result(answer)

    def close(self) -> None:
        """Hang up."""
        self.endpoint.close()


def headers_for(token: str) -> dict[str, str]:
    """Write the headers as the client does with encoding="base64" and no telemetry."""
    return {"Authorization": f"Bearer {token}", "Upstash-Encoding": "base64"}


def read_result(answer: HttpAnswer) -> Any:  # noqa: ANN401 # Redis' types
    """Read the result in an answer. Raises Refused, HTTPException or ValueError."""
    if answer.status >= 500 or answer.status == 429:  # a gateway's, whatever is in it
        raise HTTPException(f"status {answer.status}")
    reply = json.loads(answer.body)
    match answer.status, reply:
        case 200, {"result": None | str() | int() as value} if len(reply) == 1:
            return decode_value(value)
        case 200, {"result": [*values]} if len(reply) == 1 and are_plain(values):
            return [decode_value(value) for value in values]
        case _, {}:
            return read_rarity(answer.status, reply)
        case _:
            raise HTTPException("no result")


def are_plain(values: list[Any]) -> bool:
    """Tell if there are only strings, numbers and None in a list."""
    return all(value is None or isinstance(value, str | int) for value in values)


def decode_value(value: str | int | None) -> str | int | None:
    """Decode a value of a result. Every string is in base64, except for the word OK."""
    if isinstance(value, str) and value != "OK":
        return b64decode(value).decode()
    return value


def read_rarity(status: int, reply: dict[str, Any]) -> Any:  # noqa: ANN401 # Redis' types
    """Let Upstash's client read a reply. It is slow to load, and what it is needed for is rare."""
    from upstash_redis.errors import UpstashError
    from upstash_redis.http import format_response

    try:
        result = format_response(reply, "base64")
    except UpstashError as error:
        raise Refused(str(error)) from None
    if status != 200:
        raise HTTPException(f"a result with status {status}")
    return result
