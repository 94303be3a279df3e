"""A stand-in for Upstash: its REST dialect, spoken over a real Redis, able to fail on demand.

The official client cannot tell it from the service, so the line is tested through that client:

    with Upstash() as upstash:  # starts a redis-server of its own
        line = Line({**upstash.settings, "TWILIO_AUTH_TOKEN": "secret"})
        upstash.fault = lambda command: "apply-then-drop" if command[0] == "SET" else None
        upstash.before = once("SET", deliver_the_rival_webhook)
        assert upstash.round_trips == 2 and upstash.commands[-1][0] == "SET"

From a shell in `tests`, for other processes: `python -m standins.upstash --latency-ms 5` prints the
variables to export and runs until Ctrl-C. They steer it with `POST /_control` and count with
`GET /_control` (see `Upstash.control` and `Upstash.report`).

The dialect is that of Upstash's documentation (redis/features/restapi): POST / for one command,
/pipeline, /multi-exec, and the path form; statuses 200, 400, 401 and 405. What a malformed body is
told is a guess: the wording is documented nowhere.
"""

import argparse
import math
import secrets
import signal
import socket
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Final, Self, TypeVar, cast

from standins.redis_server import Failure, FakeRedis, RedisServer, Reply, Resp, server
from standins.upstash_dialect import Command, unavailable
from standins.upstash_faults import Hook, Judge, at_random, once
from standins.upstash_wire import Door

__all__ = ["Command", "Upstash", "once"]

Answer = TypeVar("Answer")
EXPIRED: Final = (
    -2,
    0,
)  # of a key that was still there a moment ago: https://redis.io/commands/pttl


class Upstash:
    """The database as a client sees it, and as only a test can: counted, slowed down and broken.

    `fault` names the fault (see FAULTS) that strikes the request with this command; None is good
    health. `before` and `after` are called around each command that is applied, in its request's
    thread and under no lock: what a hook sends through this same server is served meanwhile (and
    meets the hook too: `once` guards against that). An exception in any of the three does not reach
    the client; it is raised when the `with` ends. All times are in seconds.
    """

    def __init__(
        self,
        redis: RedisServer | FakeRedis | None = None,
        *,
        port: int = 0,
        token: str = "",
        latency: float = 0.0,
    ) -> None:
        self.redis = redis or server()
        self.token = token or secrets.token_hex(16)
        self.latency = latency
        self.late_seconds, self.drip_seconds = 2.0, 1.0
        self.fault: Judge | None = None
        self.before: Hook | None = None
        self.after: Hook | None = None
        self.errors: list[Exception] = []
        self.connections: set[socket.socket] = set()
        self.hanging: set[socket.socket] = set()
        self.closing = threading.Event()
        self._owns_redis, self._port = redis is None, port
        self._resp: Resp | None = None
        self._lock = threading.Lock()
        self._requests = 0
        self.era = 0  # counts fresh starts: what a connection of an older one sends is abandoned
        self.forget()

    @property
    def settings(self) -> dict[str, str]:
        """The variables by which a client finds it."""
        return {"UPSTASH_REDIS_REST_URL": self.url, "UPSTASH_REDIS_REST_TOKEN": self.token}

    def __enter__(self) -> Self:
        with ExitStack() as opened:
            if self._owns_redis:
                opened.enter_context(self.redis)
            self._door = opened.enter_context(Door(self, self._port))
            self._closing = opened.pop_all()
        self.url = f"http://127.0.0.1:{self._door.server_address[1]}"
        threading.Thread(target=self._door.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, _: object, failure: BaseException | None, *__: object) -> None:
        self.closing.set()
        self._door.shutdown()
        cut(self.connections)
        with self._lock:
            self._hang_up()
        self._closing.close()
        if self.errors and failure is None:
            raise self.errors[0]

    def start_afresh(self) -> None:
        """Become what it was at first: empty, in good health, nothing counted, nobody connected.

        Commands that are still under way are abandoned, so that none of them takes effect in the
        next test: a `late` one would, long after its client has gone.
        """
        with self._lock:
            self.era += 1
        cut(self.connections)
        self.recover()
        self.flush()
        self.forget()

    def recover(self) -> None:
        """Be in good health again, and hang up where it hangs."""
        self.fault, self.before, self.after = None, None, None
        self.latency = 0.0
        self.release()

    def forget(self) -> None:
        """Start counting afresh. A request that only holds PING is no round trip: it is free."""
        self.commands: list[tuple[str, ...]] = []
        self.pings = 0
        self.round_trips = 0
        self.faults: Counter[str] = Counter()

    def flush(self) -> None:
        """Empty the database."""
        self.quietly(["FLUSHALL"])

    def keys(self) -> dict[str, int]:
        """Every key with the seconds it has left, begun ones counted; -1 is for ever."""
        names = [name.decode() for name in cast("list[bytes]", self.quietly(["KEYS", "*"])[0])]
        lives = cast("list[int]", self.quietly(*(["PTTL", name] for name in names)))
        return {
            name: math.ceil(milliseconds / 1000) if milliseconds > 0 else -1
            for name, milliseconds in zip(names, lives, strict=True)
            if milliseconds not in EXPIRED
        }

    def release(self) -> None:
        """Close the connections that hang."""
        cut(self.hanging)

    def control(self, wish: object) -> None:
        """Do what `POST /_control` asks for; a ValueError says what is wrong with it.

        {"fault": a name, or null to stop and release, "share": 0.0 to 1.0, "seed": a number,
        "match": "SET" or null, "latency": seconds, "forget": true, "flush": true}, all optional.
        """
        if not isinstance(wish, dict):
            raise ValueError("ERR a wish is an object")  # noqa: TRY004 (the client's fault, a 400)
        if "latency" in wish:
            self.latency = float(wish["latency"])
        if wish.get("fault"):
            share, seed = float(wish.get("share", 1.0)), int(wish.get("seed", 0))
            self.fault = at_random(str(wish["fault"]), share, seed, wish.get("match"))
        elif "fault" in wish:
            self.fault = None
            self.release()
        if wish.get("forget"):
            self.forget()
        if wish.get("flush"):
            self.flush()

    def report(self) -> dict[str, object]:
        """The answer to `GET /_control`."""
        with self._lock:
            names = Counter(command[0].upper() for command in self.commands)
        return {
            "commands": names.total(),
            "by_name": names,
            "round_trips": self.round_trips,
            "pings": self.pings,
            "faults": self.faults,
            "without_ttl": [key for key, ttl in self.keys().items() if ttl == -1],
        }

    def announce(self, commands: list[Command], era: int) -> tuple[int, str | None]:
        """Count a request in; its number, and the fault that strikes it."""
        self._abandon_older_than(era)
        fault = next(filter(None, (self._call(self.fault, command) for command in commands)), None)
        with self._lock:
            self._abandon_older_than(era)
            self._requests += 1
            self.round_trips += any(command[0].upper() != "PING" for command in commands)
            self.faults.update([fault] if fault else [])
            return self._requests, fault

    def apply(self, commands: list[Command], era: int, *, together: bool) -> list[Reply] | Failure:
        """Reply to each command, one by one or in one transaction; a Failure discards it whole."""
        if not together:
            return [unavailable(each) or self._around([each], [each], era)[0] for each in commands]
        refused = next(filter(None, map(unavailable, commands)), None)
        whole = [["MULTI"], *commands, ["EXEC"]]
        return refused or cast("list[Reply] | Failure", self._around(commands, whole, era)[-1])

    def quietly(self, *commands: Command) -> list[Reply]:
        """Ask Redis on the test's own behalf: not counted, no hooks, no faults."""
        return self._reach_redis(list(commands), [], self.era)

    def _around(self, commands: list[Command], whole: list[Command], era: int) -> list[Reply]:
        self._abandon_older_than(era)
        for command in commands:
            self._call(self.before, command)
        replies = self._reach_redis(whole, commands, era)
        for command in commands:
            self._call(self.after, command)
        return replies

    def _reach_redis(
        self, commands: list[Command], counted: list[Command], era: int
    ) -> list[Reply]:
        with self._lock:  # one at a time, so that the log has the order in which Redis took them
            self._abandon_older_than(era)
            if self.closing.is_set():
                raise ConnectionError("the stand-in is closed")
            try:
                self._resp = self._resp or Resp(self.redis.address)
                replies = self._resp.ask(*commands)
            except OSError:
                self._hang_up()
                raise
            asked = [tuple(command) for command in counted if command[0].upper() != "PING"]
            self.commands += asked
            self.pings += len(counted) - len(asked)
            return replies

    def _abandon_older_than(self, era: int) -> None:
        if era < self.era:
            raise ConnectionAbortedError("sent before the stand-in started afresh")

    def _hang_up(self) -> None:
        if self._resp:
            self._resp.close()
        self._resp = None

    def _call(self, hook: Callable[[Command], Answer] | None, command: Command) -> Answer | None:
        try:
            return hook(command) if hook else None
        except Exception as error:
            self.errors.append(error)
            return None


def cut(connections: set[socket.socket]) -> None:
    for connection in tuple(connections):
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)


def main() -> None:
    """Run until Ctrl-C (or SIGTERM), for clients in other processes."""
    parser = argparse.ArgumentParser(
        description="A stand-in for Upstash's REST API, over a Redis of its own."
    )
    parser.add_argument("--port", type=int, default=0, help="default: any free one")
    parser.add_argument("--token", default="", help="default: a random one")
    parser.add_argument("--latency-ms", type=float, default=0.0, help="added to every answer")
    wanted = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with Upstash(port=wanted.port, token=wanted.token, latency=wanted.latency_ms / 1000) as upstash:
        for name, value in upstash.settings.items():
            print(f"export {name}={value}", flush=True)
        with suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()
