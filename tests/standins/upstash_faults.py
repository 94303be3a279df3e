"""The faults of the stand-in for Upstash, by name, and who is struck by them.

Each is told how to get the answer (which applies the commands), and decides its fate.
"""

import random
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from standins.upstash_dialect import Command, page, refusal

if TYPE_CHECKING:
    from standins.upstash_wire import Wire

Hook = Callable[[Command], None]
Judge = Callable[[Command], str | None]
ALL_ARE_KEYS: Final = frozenset({"MGET", "DEL", "UNLINK", "EXISTS", "TOUCH"})


class Exchange(NamedTuple):
    """One request while it is being answered."""

    wire: "Wire"
    commands: list[Command]
    answer: Callable[[], bytes]


def hang(exchange: Exchange) -> None:
    """Nothing, until the client gives up or `Upstash.release` closes the connection."""
    wire = exchange.wire
    wire.upstash.hanging.add(wire.connection)
    while wire.connection.recv(1024):
        pass
    drop(exchange)


def drip(exchange: Exchange) -> None:
    for byte in exchange.answer():
        exchange.wire.send(bytes([byte]))
        exchange.wire.upstash.closing.wait(exchange.wire.upstash.drip_seconds)


def late(exchange: Exchange) -> None:
    if exchange.wire.upstash.closing.wait(exchange.wire.upstash.late_seconds):
        drop(exchange)
    exchange.wire.send(exchange.answer())


def drop(_: Exchange) -> None:
    raise ConnectionAbortedError


def forget(exchange: Exchange) -> None:
    """Amnesia: the keys are gone before the command comes, or with `apply-then-`, after it."""
    keys = [key for command in exchange.commands for key in keys_of(command)]
    exchange.wire.upstash.quietly(["DEL", *keys])
    exchange.wire.send(exchange.answer())


def instead(whole: bytes) -> Callable[[Exchange], None]:
    return lambda exchange: exchange.wire.send(whole)


def keys_of(command: Command) -> Command:
    if command[0].upper() in ALL_ARE_KEYS:
        return command[1:]
    if command[0].upper() in ("EVAL", "EVALSHA"):
        return command[3 : 3 + int(command[2])]
    return command[1:2]


# A fault strikes before its command reaches Redis. `apply-then-` in front of any of these lets
# the command take effect first, so that only the answer suffers (which is all a drip ever does).
FAULTS: Final[Mapping[str, Callable[[Exchange], None]]] = {
    "hang": hang,
    "drip": drip,
    "late": late,
    "drop": drop,
    "forget": forget,
    "502": instead(page(502, b"<h1>502 Bad Gateway</h1>", "Content-Type: text/html")),
    "empty": instead(page(200, b"")),
    "garbage": instead(page(200, b"<!doctype html><title>Please wait</title>")),
    "no-result": instead(page(200, b'{"status": "ok"}')),
    "quota": instead(
        refusal(400, "ERR max requests limit exceeded. Limit: 500000, Usage: 500000.")
    ),
    "read-only": instead(
        refusal(400, "NOPERM this user has no permissions to run the 'set' command")
    ),
}
APPLIED: Final = "apply-then-"


def strike(name: str, exchange: Exchange) -> None:
    """Answer an exchange the way the named fault does."""
    if name.startswith(APPLIED):
        whole = exchange.answer()
        exchange = exchange._replace(answer=lambda: whole)
    FAULTS[name.removeprefix(APPLIED)](exchange)


def at_random(name: str, share: float, seed: int, match: str | None) -> Judge:
    """A judge that strikes this share of the commands called `match` (None: of all of them)."""
    if name.removeprefix(APPLIED) not in FAULTS:
        raise ValueError(f"ERR no such fault: {name}")
    dice = random.Random(seed)

    def judge(command: Command) -> str | None:
        meant = match is None or match == command[0].upper()
        return name if meant and dice.random() < share else None

    return judge


def once(name: str, action: Callable[[], object]) -> Hook:
    """A hook that acts at the first command of this name, and lets all others pass."""
    pending = threading.Lock()

    def hook(command: Command) -> None:
        if command[0].upper() == name and pending.acquire(blocking=False):
            action()

    return hook
