"""One real process of the function, for tests and for the phone in the terminal.

    with Instance({"TWILIO_AUTH_TOKEN": "secret", "STATE_FILE": "/tmp/calls"}) as instance:
        ...                     # instance.url answers
        instance.kill()         # kill -9, as a crash or an evicted machine would
        instance.restart()      # a fresh process on the same port
    instance.log()              # what it logged, one dict per JSON line

It runs `python main.py` in the repository's root, in a process group of its own, and is always gone
at the end: the context manager and the interpreter's exit both see to it.
"""

import atexit
import contextlib
import http.client
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

ROOT: Final = Path(__file__).resolve().parents[2]
LEFTOVERS: Final = ("TWILIO_", "UPSTASH_", "RAILWAY_")
EXAMPLE: Final = (ROOT / ".env.example").read_text(encoding="utf-8")
SETTINGS: Final = frozenset(re.findall(r"^#?([A-Z][A-Z0-9_]*)=", EXAMPLE, re.MULTILINE))
START_SECONDS: Final = 30.0  # it takes one; but the machine may be busy
STOP_SECONDS: Final = 30.0
SILENCE_SECONDS: Final = 1.0


def free_port() -> int:
    """A port on the loopback that nobody listens on, and that no other test is about to take.

    The kernel gives ports above 32767 to whoever connects, so one of those may be gone again before
    a process listens on it.
    """
    while True:
        port = random.SystemRandom().randrange(10_000, 30_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class Instance:
    """A running function: answers at `url` from construction until `kill` or `stop`.

    `program` is what Python runs; a subclass may run the function with something in its place.
    """

    program: Sequence[str] = ("main.py",)

    def __init__(self, env: Mapping[str, str], port: int = 0) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._env = self._environment(env)
        handle, name = tempfile.mkstemp(prefix="instance-")
        os.close(handle)
        self._output = Path(name)
        weakref.finalize(self, self._output.unlink, missing_ok=True)
        self._process: subprocess.Popen[bytes] | None = None
        atexit.register(self.kill)
        self.restart()

    def _environment(self, env: Mapping[str, str]) -> dict[str, str]:
        """The environment of here, without any setting of a line, and the settings of this one."""
        foreign = {k: v for k, v in os.environ.items() if k not in SETTINGS}
        kept = {k: v for k, v in foreign.items() if not k.startswith(LEFTOVERS)}
        return kept | {"THREADS": "8"} | dict(env) | {"PORT": str(self.port)}

    @property
    def pid(self) -> int:
        """The process's number; 0 when none runs."""
        return self._process.pid if self._process else 0

    def restart(self) -> Self:
        """Kills what runs and starts a fresh process on the same port; returns when it answers."""
        self.kill()
        with self._output.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, *self.program],
                cwd=ROOT,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._await()
        return self

    def _await(self) -> None:
        assert self._process
        deadline = time.monotonic() + START_SECONDS
        while self._process.poll() is None and time.monotonic() < deadline:
            if self._answers():
                return
            time.sleep(0.02)
        self.kill()
        raise RuntimeError(f"the function did not start:\n{self.output()[-2000:]}")

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=START_SECONDS)
        try:
            connection.request("GET", "/healthz")
            connection.getresponse().read()
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
        return True

    def kill(self) -> None:
        """Ends the whole group with kill -9 and waits for it. Harmless when nothing runs."""
        if self._process:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None
            self._await_silence()

    def _await_silence(self) -> None:
        """Waits until nobody listens any more: the last of a killed group may live on a moment."""
        deadline = time.monotonic() + SILENCE_SECONDS
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)):
                    return
            time.sleep(0.01)

    def stop(self) -> float:
        """SIGTERM, as a deploy sends it; returns the seconds that the goodbye took (at most 30)."""
        assert self._process, "nothing runs"
        started = time.monotonic()
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_SECONDS)
        took = time.monotonic() - started
        self.kill()
        return took

    def output(self) -> str:
        """All that the process wrote so far, of every start."""
        return self._output.read_text(errors="replace")

    def log(self) -> list[dict[str, Any]]:
        """The JSON objects among the lines written so far."""
        found = []
        for line in self.output().splitlines():
            with contextlib.suppress(ValueError):
                if isinstance(entry := json.loads(line), dict):
                    found.append(entry)
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()
        atexit.unregister(self.kill)
