"""Rows of the bench about starts: from the beginning of a process to its first answer."""

import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack

from tools.bench_calls import RINGING, exchange, new_sid
from tools.bench_figures import Figure, compared
from tools.bench_place import Bench
from tools.bench_processes import Redis, Server


def cold(bench: Bench) -> list[Figure]:
    """Cold start: from the start of the process to the first signed webhook answered."""
    with ExitStack() as stack:
        redis = stack.enter_context(Redis()).settings
        secure = stack.enter_context(Redis(certificate=bench.certificate())).settings
        starts: dict[str, Callable[[], Server]] = {
            "hello": lambda: bench.serve("hello"),
            "naive": lambda: bench.serve("naive", **redis),
            "line, embedded file": lambda: bench.serve("line"),
            "line": lambda: bench.serve("line", **redis),
            "line, as deployed": lambda: bench.serve("line", bench.deployed, **redis),
            "line, as deployed, Redis over TLS": lambda: bench.serve(
                "line", bench.deployed, **secure
            ),
        }
        for start in starts.values():
            first_answer(start)  # writes the bytecode
        rounds: dict[str, list[float]] = {"bare interpreter": [], **{name: [] for name in starts}}
        for _ in bench.rounds("cold", bench.size.cold):
            rounds["bare interpreter"].append(bare())
            for name, start in starts.items():
                rounds[name].append(first_answer(start))
    return compared("cold", "", "ms", rounds, "hello")


def bare() -> float:
    """Milliseconds of an interpreter that does nothing."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    return (time.perf_counter() - began) * 1000


def first_answer(start: Callable[[], Server]) -> float:
    """Milliseconds from a process's start to its first answer."""
    with start() as server:
        return until_answered(server)


def until_answered(server: Server) -> float:
    """Milliseconds from the start of a process that has just been started to its first answer."""
    with server.connect() as connection:
        exchange(connection, RINGING.signed(new_sid()))
    return (time.perf_counter() - server.began) * 1000


def imports(bench: Bench) -> list[Figure]:
    """The imports of a cold start, by module, as a share of the whole start (-X importtime)."""
    shares: dict[str, list[float]] = {}
    with Redis() as redis:
        env = {"PYTHONPROFILEIMPORTTIME": "1", **redis.settings}
        first_answer(lambda: bench.serve("line", **env))  # writes the bytecode
        for _ in bench.rounds("imports", max(1, bench.size.cold // 3)):
            with bench.serve("line", **env) as server:
                took = until_answered(server)
            spent = import_times(server.output.read_text())
            spent["all imports"] = sum(spent.values())
            for name, milliseconds in spent.items():
                shares.setdefault(name, []).append(milliseconds / took * 100)
    medians = {name: statistics.median(values) for name, values in shares.items()}
    top = sorted(medians, key=lambda name: -medians[name])[:16]
    return [Figure("imports", name, medians[name], "%") for name in top]


def import_times(report: str) -> dict[str, float]:
    """Milliseconds of each top-level package, its own modules only, without what they import."""
    spent: dict[str, float] = {}
    for own, name in re.findall(r"import time: +(\d+) \| +\d+ \| +(\S+)", report):
        top = name.partition(".")[0]
        spent[top] = spent.get(top, 0.0) + int(own) / 1000
    return spent
