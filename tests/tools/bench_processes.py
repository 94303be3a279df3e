"""The processes of a bench: each in a group of its own, measured, and gone at the end."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Self

from tools.bench_contestants import TOKEN

PATIENCE: Final = 30.0  # seconds, then something hangs that should be mended
REDIS: Final = Path(__file__).with_name("bench_redis.py")


class Process:
    """A process in a group of its own, gone at the end of the `with`."""

    def __init__(self, command: Sequence[str], **how: Any) -> None:  # noqa: ANN401 (as Popen)
        self.running = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, start_new_session=True, **how
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.running.pid, signal.SIGKILL)
        self.running.wait()
        if self.running.stdout:
            self.running.stdout.close()


class Redis(Process):
    """The stand-in, in its own process. `settings` lead a function to it."""

    def __init__(self, latency: float = 0.0, certificate: Path | None = None) -> None:
        words = [sys.executable, str(REDIS), str(latency), str(certificate or "")]
        super().__init__(words, stdout=subprocess.PIPE)
        assert self.running.stdout
        self.port = int(self.running.stdout.readline())
        scheme = "https" if certificate else "http"
        self.settings = {
            "UPSTASH_REDIS_REST_URL": f"{scheme}://127.0.0.1:{self.port}",
            "UPSTASH_REDIS_REST_TOKEN": TOKEN,
        } | ({"SSL_CERT_FILE": "", "SSL_CERT_DIR": str(certificate.parent)} if certificate else {})

    def report(self) -> Counter[str]:
        """Commands and round trips so far, cells and their bytes."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/") as answer:
            return Counter(json.loads(answer.read()))


def reserved_port() -> socket.socket:
    """A socket that keeps others from being given its port by chance, until it is closed.

    On Linux a server that asks for this port by number still gets it, since both allow reuse and
    this one does not listen. Elsewhere the port is only known to have been free.
    """
    reserved = socket.socket()
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reserved.bind(("127.0.0.1", 0))
    return reserved


class Server(Process):
    """One contestant that serves. Answers when `connect` has returned."""

    def __init__(self, command: Sequence[str], folder: Path, env: Mapping[str, str]) -> None:
        self.reserved = reserved_port()
        self.port, self.began = self.reserved.getsockname()[1], time.perf_counter()
        if sys.platform != "linux":
            self.reserved.close()
        own = {**env, "PORT": str(self.port), "HOST": "127.0.0.1"}
        self.output = folder / f"output-{self.port}"
        with self.output.open("wb") as output:
            super().__init__(command, cwd=folder, env=own, stdout=output, stderr=output)

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self.reserved.close()

    def connect(self) -> socket.socket:
        """A connection, as soon as there can be one."""
        until = time.perf_counter() + PATIENCE
        while time.perf_counter() < until and self.running.poll() is None:
            with suppress(OSError):
                made = socket.create_connection(("127.0.0.1", self.port), PATIENCE)
                made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return made
            time.sleep(0.001)
        raise RuntimeError(f"a contestant did not start: {self.running.args!r}")

    def memory(self) -> int:
        """Bytes of the largest process of the group: the worker."""
        return max(self.memories().values())

    def whole_memory(self) -> int:
        """Bytes of all processes of the group; what they share counts once, where Linux says so."""
        return sum(proportional_size(pid) or size for pid, size in self.memories().items())

    def memories(self) -> dict[int, int]:
        """The processes of the group, and the bytes of each that are in memory."""
        listing = subprocess.run(
            ["ps", "-A", "-o", "pid=,pgid=,rss="], capture_output=True, text=True, check=True
        )
        rows = [map(int, line.split()) for line in listing.stdout.splitlines()]
        return {pid: rss * 1024 for pid, group, rss in rows if group == self.running.pid}


def proportional_size(pid: int) -> int:
    """Bytes of a process, with its share of what others use as well; 0 where nobody knows."""
    with suppress(OSError):
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        found = re.search(r"^Pss: +(\d+) kB", rollup, re.MULTILINE)
        return int(found[1]) * 1024 if found else 0
    return 0
