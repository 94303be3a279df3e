"""The row of the bench with Node in it: this line beside Express with Upstash's own client."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial

from tools.bench_calls import learn, play
from tools.bench_contestants import NODE
from tools.bench_figures import Figure, compared, percentile
from tools.bench_place import Bench
from tools.bench_processes import Redis, Server
from tools.bench_rows import calls_of, rate, spoken_later
from tools.bench_starts import first_answer


def express(bench: Bench) -> list[Figure]:
    """Beside Express 5 with @upstash/redis, by WORKERS: a start, one caller, 32 callers, memory."""
    bench.say("express: npm install")
    bench.install_express()
    with ExitStack() as stack:
        redis = stack.enter_context(Redis()).settings

        def start(name: str, workers: int) -> Server:
            command = NODE if name == "express" else bench.deployed
            return bench.serve(name, command, WORKERS=str(workers), **redis)

        starts: dict[str, Callable[[], Server]] = {
            f"{name}, WORKERS={workers}": partial(start, name, workers)
            for workers in (1, 2)
            for name in ("express", "line")
        }
        figures = starts_compared(bench, starts)
        servers = {name: stack.enter_context(begin()) for name, begin in starts.items()}
        return figures + crowds_compared(bench, servers)


def starts_compared(bench: Bench, starts: Mapping[str, Callable[[], Server]]) -> list[Figure]:
    """Milliseconds from a process's start to its first answer."""
    rounds: dict[str, list[float]] = {name: [] for name in starts}
    for begin in starts.values():
        first_answer(begin)
    for _ in bench.rounds("express, start", bench.size.cold):
        for name, begin in starts.items():
            rounds[name].append(first_answer(begin))
    return compared("express", "start: ", "ms", rounds, next(iter(starts)))


def crowds_compared(bench: Bench, servers: Mapping[str, Server]) -> list[Figure]:
    """One caller's milliseconds, the webhooks a second of 32 callers, and memory after that."""
    one: dict[str, list[float]] = {name: [] for name in servers}
    many: dict[str, list[float]] = {name: [] for name in servers}
    script = learn(servers["line, WORKERS=1"])
    for server in servers.values():
        play(server, calls_of(script, 40), 32)
    for _ in bench.rounds("express, callers", bench.size.busy):
        for name, server in servers.items():
            later = spoken_later(server, calls_of(script, bench.size.warm_calls))
            one[name].append(percentile(later, 0.5))
            many[name].append(rate(server, calls_of(script, bench.size.busy_calls), 32)[0])
    sizes = {name: [server.whole_memory() / 2**20] for name, server in servers.items()}
    base = next(iter(servers))
    return [
        *compared("express", "one caller, p50: ", "ms", one, base),
        *compared("express", "32 callers: ", "webhooks/s", many, base),
        *compared("express", "memory, all processes: ", "MiB", sizes, base),
    ]
