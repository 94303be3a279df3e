"""Redis for tests: the real one where it is installed, else fakeredis.

And the few lines of RESP that it takes to keep every reply exactly as Redis gave it.
"""

import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self, cast

Address = str | tuple[str, int]
Reply = int | bytes | str | None | list["Reply"]


class Failure(str):
    """An error reply, with its prefix: `ERR ...`, `NOSCRIPT ...`, `WRONGTYPE ...`."""


class Resp:
    """A connection to Redis. Its errors are replies; a lost connection is a ConnectionError."""

    def __init__(self, address: Address) -> None:
        self._socket = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
        try:
            self._socket.connect(address)
        except OSError:
            self._socket.close()
            raise
        self._replies = self._socket.makefile("rb")

    def ask(self, *commands: Sequence[str]) -> list[Reply]:
        """Send all commands in one write and return their replies in the same order."""
        self._socket.sendall(b"".join(map(self._packed, commands)))
        return [self._reply() for _ in commands]

    def close(self) -> None:
        self._replies.close()
        self._socket.close()

    @staticmethod
    def _packed(command: Sequence[str]) -> bytes:
        words = [word.encode(errors="replace") for word in command]
        return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(w), w) for w in words)

    def _reply(self) -> Reply:
        head = self._replies.readline()
        if not head.endswith(b"\r\n"):
            raise ConnectionError("Redis hung up")
        kind, rest = head[:1], head[1:-2]
        if kind == b"+":
            return rest
        if kind == b"-":
            return Failure(rest.decode(errors="replace"))
        size = int(rest)
        if kind == b":":
            return size
        if size < 0:
            return None
        if kind == b"$":
            return self._replies.read(size + 2)[:-2]
        return [self._reply() for _ in range(size)]


class RedisServer:
    """A redis-server on a socket file, keeping nothing on disk, gone at the end of the `with`."""

    address: Address

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="redis-")
        self.address = str(Path(self._folder.name) / "redis.sock")
        program = ["redis-server", "--port", "0", "--unixsocket", self.address]
        program += ["--save", "", "--appendonly", "no", "--dir", self._folder.name]
        self._process = subprocess.Popen(program, stdout=subprocess.DEVNULL)
        try:
            self._wait_until_it_answers(time.monotonic() + 10)
        except BaseException:
            self.__exit__()
            raise
        return self

    def _wait_until_it_answers(self, deadline: float) -> None:
        while self._process.poll() is None and time.monotonic() < deadline:
            with suppress(OSError):
                resp = Resp(self.address)
                resp.ask(["PING"])
                return resp.close()
            time.sleep(0.005)
        raise RuntimeError("redis-server did not come up")

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._folder.cleanup()


class FakeRedis:
    """A stand-in for redis-server on a machine without one: the package fakeredis."""

    address: Address

    def __enter__(self) -> Self:
        from fakeredis import TcpFakeServer  # only wanted where redis-server is missing

        self._server = TcpFakeServer(("127.0.0.1", 0))
        self._server.RequestHandlerClass = outliving_errors(self._server.RequestHandlerClass)
        self.address = cast("tuple[str, int]", self._server.server_address)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def outliving_errors(handler: Any) -> Any:  # noqa: ANN401 (the class has no public name)
    """A handler of fakeredis that goes on after an error reply, as Redis does, and not hangs up."""
    from redis import ResponseError

    class Handler(handler):  # type: ignore[misc]  # for the same reason
        def setup(self) -> None:
            super().setup()
            read = self.current_client.read_response

            def read_response() -> object:
                try:
                    return read()
                except ResponseError as error:
                    return error

            self.current_client.read_response = read_response

    return Handler


def server() -> RedisServer | FakeRedis:
    """The Redis to run on: a real one where it is installed, and always in CI."""
    if shutil.which("redis-server"):
        return RedisServer()
    if os.environ.get("CI"):
        raise RuntimeError("in CI nothing stands in for Redis: apt-get install redis-server")
    return FakeRedis()
