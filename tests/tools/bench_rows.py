"""Rows of the bench about servers that run: webhooks, callers, Redis, memory."""

import re
import socket
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Final

from standins.backend import slow_backend
from tools.bench_calls import HEARD, OVER, RINGING, SENT, Webhook, exchange, learn, new_sid, play
from tools.bench_contestants import LEAST
from tools.bench_figures import Figure, compared, percentile
from tools.bench_place import Bench
from tools.bench_processes import Redis, Server

DOLLARS: Final = 0.20 / 100_000  # for a command, pay as you go: https://upstash.com/pricing/redis
THREADS: Final = "32"  # the same for all, where threads are not what is measured
COUNTS: Final = ("4", "8", "16", "32", "64")
WAITING: Final = 8  # callers at once who wait for a backend
SETTLING: Final = 0.5  # seconds that a worker may take to give its lease back
HELD: Final = 60  # callers on hold at once; an instance works on 64 questions


def contestants(bench: Bench, stack: ExitStack, redis: Redis) -> dict[str, Server]:
    """Those that answer webhooks, warm and reachable."""
    servers = {
        name: stack.enter_context(bench.serve(name, THREADS=THREADS, **redis.settings))
        for name in ("stateless", LEAST, "naive", "line")
    }
    for server in servers.values():
        server.connect().close()
    return servers


def calls_of(script: Sequence[Webhook], count: int) -> list[list[bytes]]:
    """Calls with every signature made beforehand."""
    sids = [new_sid() for _ in range(count)]
    return [[webhook.signed(sid) for webhook in script] for sid in sids]


def warm(bench: Bench) -> list[Figure]:
    """A warm webhook, one caller: p50 and p99 of those after a call's first."""
    middle: dict[str, list[float]] = {}
    worst: dict[str, list[float]] = {}
    with ExitStack() as stack:
        redis = stack.enter_context(Redis())
        servers = contestants(bench, stack, redis)
        script = learn(servers["line"])
        for server in servers.values():
            play(server, calls_of(script, 20), 1)
        for _ in bench.rounds("warm", bench.size.warm):
            for name, server in servers.items():
                later = spoken_later(server, calls_of(script, bench.size.warm_calls))
                middle.setdefault(name, []).append(percentile(later, 0.5))
                worst.setdefault(name, []).append(percentile(later, 0.99))
    least = {name: middle[name] for name in (LEAST, "line")}
    return [
        *compared("warm", "p50 ", "ms", middle, "stateless"),
        *compared("warm", f"p50 against {LEAST}: ", "ms", least, LEAST)[1:],
        *compared("warm", "p99 ", "ms", worst, "stateless"),
    ]


def spoken_later(server: Server, calls: list[list[bytes]]) -> list[float]:
    """Seconds of each webhook but the first of each call: a line's take two round trips each."""
    return [seconds for call in play(server, calls, 1) for seconds in call[1:]]


def busy(bench: Bench) -> list[Figure]:
    """Throughput: 32 callers at once, Redis without latency."""
    rounds: dict[str, list[float]] = {}
    with ExitStack() as stack:
        servers = contestants(bench, stack, stack.enter_context(Redis()))
        script = learn(servers["line"])
        for server in servers.values():
            play(server, calls_of(script, 40), 32)
        for _ in bench.rounds("busy", bench.size.busy):
            for name, server in servers.items():
                calls = calls_of(script, bench.size.busy_calls)
                rounds.setdefault(name, []).append(rate(server, calls, 32)[0])
    return compared("busy", "", "webhooks/s", rounds, "naive")


def rate(
    servers: Server | Sequence[Server], calls: list[list[bytes]], callers: int
) -> tuple[float, list[float]]:
    """Webhooks a second, and the seconds that each of them took."""
    began = time.perf_counter()
    spoken = play(servers, calls, callers)
    flat = [seconds for call in spoken for seconds in call]
    return len(flat) / (time.perf_counter() - began), flat


def instances(bench: Bench) -> list[Figure]:
    """1, 2 and 4 instances over one store: 32 callers, whose webhooks meet them in turn."""
    rates: dict[str, list[float]] = {}
    slowest: dict[str, list[float]] = {}
    with ExitStack() as stack:
        redis = stack.enter_context(Redis()).settings
        servers = [stack.enter_context(bench.serve("line", **redis)) for _ in range(4)]
        script = learn(servers[0])
        play(servers, calls_of(script, 80), 32)
        for _ in bench.rounds("instances", bench.size.busy):
            for count in (1, 2, 4):
                calls = calls_of(script, bench.size.busy_calls)
                found, seconds = rate(servers[:count], calls, 32)
                rates.setdefault(f"{count}", []).append(found)
                slowest.setdefault(f"{count}", []).append(max(seconds) * 1000)
    return [
        *compared("instances", "", "webhooks/s", rates, "1"),
        *compared("instances", "the slowest: ", "ms", slowest, "1"),
    ]


def hold(bench: Bench) -> list[Figure]:
    """New calls at an instance of 8 threads, while others wait on hold for a backend."""
    rounds: dict[str, list[float]] = {}
    with ExitStack() as stack:
        redis = stack.enter_context(Redis()).settings
        silent = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=512))
        backend = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        env = {"THREADS": "8", "RESPONSE_DEADLINE": "1", "BACKEND_URL": backend, **redis}
        free, full = (stack.enter_context(bench.serve("line", **env)) for _ in range(2))
        for server in (free, full):
            play(server, calls_of([RINGING], 100), 8)
        bench.say(f"hold: {HELD} callers speak")
        play(full, calls_of(learn(full), HELD), HELD)  # ends when all of them are told to wait
        servers = {"nobody on hold": free, f"{HELD} callers on hold": full}
        for _ in bench.rounds("hold", bench.size.busy):
            for name, server in servers.items():
                calls = calls_of([RINGING], bench.size.busy_calls)
                rounds.setdefault(name, []).append(rate(server, calls, 8)[0])
    return compared("hold", "", "webhooks/s", rounds, "nobody on hold")


def waiting(bench: Bench) -> list[Figure]:
    """How long after the backend an answer can be heard, and Redis commands, by WORKERS."""
    late: dict[str, list[float]] = {"1": [], "2": []}
    spent: dict[str, list[float]] = {"1": [], "2": []}
    with ExitStack() as stack:
        backend = stack.enter_context(slow_backend(bench.size.backend))
        stores = {workers: stack.enter_context(Redis()) for workers in late}
        servers = {
            workers: stack.enter_context(
                bench.serve("line", WORKERS=workers, BACKEND_URL=backend.url, **redis.settings)
            )
            for workers, redis in stores.items()
        }
        for _ in bench.rounds("waiting", bench.size.crowd):
            for workers, server in servers.items():
                before = stores[workers].report()["commands"]
                with ThreadPoolExecutor(WAITING) as callers:
                    took = [*callers.map(wait_for_answer, [server] * WAITING)]
                late[workers].append((statistics.mean(took) - bench.size.backend) * 1000)
                time.sleep(SETTLING)
                after = stores[workers].report()["commands"]
                spent[workers].append((after - before) / WAITING)
    return [
        *compared("waiting", "after the backend, WORKERS=", "ms", late, "1"),
        *compared("waiting", "a call, WORKERS=", "commands", spent, "1"),
    ]


def wait_for_answer(server: Server) -> float:
    """Seconds from a caller's question to the answer. Each webhook has a connection of its own.

    Pauses take no time here: a caller comes to look as soon as the line says so.
    """
    call_sid = new_sid()
    answer = ask(server, RINGING, call_sid)
    began = time.perf_counter()
    answer = ask(server, Webhook(way_on(answer, "Gather"), [*SENT, *HEARD]), call_sid)
    while "<Redirect>" in answer:
        answer = ask(server, Webhook(way_on(answer, "Redirect"), SENT), call_sid)
    way_on(answer, "Gather")
    return time.perf_counter() - began


def ask(server: Server, webhook: Webhook, call_sid: str) -> str:
    """The answer to one webhook."""
    with server.connect() as connection:
        return exchange(connection, webhook.signed(call_sid)).decode()


def way_on(answer: str, verb: str) -> str:
    """The target of a Gather or a Redirect. Raises RuntimeError if the answer has none."""
    found = re.search(r'<Gather\b[^>]* action="([^"]*)"|<Redirect>([^<]*)', answer)
    if not found or f"<{verb}" not in answer:
        raise RuntimeError(f"this has no {verb}: {answer}")
    return (found[1] or found[2]).replace("&amp;", "&").partition("#")[0]


def commands(bench: Bench) -> list[Figure]:
    """Redis: what each webhook of a call costs in commands and round trips, and in money."""
    bench.say("commands: one call")
    with Redis() as redis, bench.serve("line", **redis.settings) as server:
        script = [*learn(server), OVER]
        before, spent, call_sid = redis.report(), list[Counter[str]](), new_sid()
        with server.connect() as connection:
            for webhook in script:
                exchange(connection, webhook.signed(call_sid))
                now = redis.report()
                spent.append(Counter({name: now[name] - before[name] for name in now}))
                before = now
    total = sum(spent, Counter[str]())
    return [
        *(
            Figure("commands", webhook.target, cost["commands"], "commands")
            for webhook, cost in zip(script, spent, strict=True)
        ),
        Figure("commands", "a call", total["commands"], "commands"),
        Figure("commands", "a call", total["round_trips"], "round trips"),
        Figure("commands", "a cell", total["bytes"] / total["cells"], "bytes"),
        Figure("commands", "1,000 calls", total["commands"] * 1000 * DOLLARS * 100, "cents"),
    ]


def threads(bench: Bench) -> list[Figure]:
    """64 callers at once, Redis 20 ms away, by the number of server threads."""
    speed, wait = dict[str, list[float]](), dict[str, list[float]]()
    with ExitStack() as stack:
        redis = stack.enter_context(Redis(latency=0.02)).settings
        servers = {"as main.py sets it": stack.enter_context(bench.serve("line", **redis))}
        for count in COUNTS:
            servers[count] = stack.enter_context(bench.serve("line", THREADS=count, **redis))
        script = learn(servers["as main.py sets it"])
        for server in servers.values():
            play(server, calls_of(script, 64), 64)
        for _ in bench.rounds("threads", bench.size.crowd):
            for name, server in servers.items():
                calls = calls_of(script, bench.size.crowd_calls)
                webhooks, took = rate(server, calls, 64)
                speed.setdefault(name, []).append(webhooks)
                wait.setdefault(name, []).append(percentile(took, 0.99))
    return [
        *compared("threads", "THREADS ", "webhooks/s", speed, "as main.py sets it"),
        *compared("threads", "p99, THREADS ", "ms", wait, "as main.py sets it"),
    ]


def memory(bench: Bench) -> list[Figure]:
    """Memory of the worker (RSS): at rest, and as calls go by."""
    total = bench.size.memory_calls
    marks = [total // 10, total // 2, total]
    with ExitStack() as stack:
        redis = stack.enter_context(Redis()).settings
        server = stack.enter_context(bench.serve("line", **redis))
        hello = stack.enter_context(bench.serve("hello"))
        with hello.connect() as connection:
            exchange(connection, RINGING.signed(new_sid()))
        script, done = [*learn(server), OVER], 0
        sizes = {"hello, at rest": hello.memory(), "line, at rest": server.memory()}
        for mark in marks:
            bench.say(f"memory: {done} of {total} calls")
            play(server, calls_of(script, mark - done), 32)
            done = mark
            sizes[f"line, after {done:,} calls"] = server.memory()
    rounds = {name: [size / 2**20] for name, size in sizes.items()}
    return compared("memory", "", "MiB", rounds, f"line, after {marks[0]:,} calls")
