"""Measures a caller's waits and an owner's costs: cold starts, webhooks, Redis, memory.

    python tests/bench.py                 # every row, about ten minutes, a table
    python tests/bench.py --only cold     # one row alone; each figure names the command for its own
    python tests/bench.py --json          # the same figures, for a program
    python tests/bench.py --quick         # a few seconds a row: it runs, but its figures are noise

Absolute times belong to one machine and one hour, so whatever is compared runs in turns: each round
measures every contestant once, each ratio is taken within a round, and a figure is the median of
those ratios, with the quartiles as its spread. The contestants are whole functions-framework
servers in processes of their own, all with bytecode, the same number of threads, and no packages
but those that requirements.txt brings to production:

- hello: the framework's own first example; the least that a cold start can cost;
- stateless: verifies with Twilio's library and says one sentence; keeps nothing;
- stateless, two round trips: the same, and as many bytes to Redis and back as the line's, over a
  connection that is kept, with nothing understood of them; the least that durable state can cost;
- naive: stateless, and one GET and one SET through the Upstash client as it comes;
- express: the same on Node, with Express 5 and @upstash/redis; left out, and said so, where Node or
  npm's registry is missing. It is the one contestant without functions-framework;
- line: `main.py` and its package; "as deployed" with the build's and the start's own commands.

Redis is played by a small asyncio server in a third process (`tools/bench_redis.py`), in memory:
the one in `standins/upstash.py` speaks the whole dialect over a real Redis, and takes longer for a
command than what is measured here.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

from tools.bench_express import express
from tools.bench_figures import Figure, written
from tools.bench_place import QUICK, Bench, LeftOut, Size
from tools.bench_rows import busy, commands, hold, instances, memory, threads, waiting, warm
from tools.bench_starts import cold, imports

Row = Callable[[Bench], list[Figure]]
ROWS: Final[Mapping[str, Row]] = {
    row.__name__: row
    for row in (
        cold,
        imports,
        warm,
        busy,
        instances,
        hold,
        waiting,
        commands,
        threads,
        memory,
        express,
    )
}
TITLES: Final = {name: row.__doc__ or "" for name, row in ROWS.items()}


def measure(names: Sequence[str], size: Size, say: Callable[[str], object]) -> list[Figure]:
    """The figures of these rows, in a folder that is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    try:
        bench = Bench(folder, size, say)
        figures: list[Figure] = []
        for name in names:
            try:
                figures += ROWS[name](bench)
            except LeftOut as reason:
                say(f"{name}: left out. {reason}\n")
        return figures
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def progress(line: str) -> None:
    """One line on stderr; on a terminal always the same one."""
    end = "\r" if sys.stderr.isatty() else "\n"
    print(f"{line:<60}", end=end, file=sys.stderr, flush=True)


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--only", action="append", choices=ROWS, help="this row; may be repeated")
    parser.add_argument("--quick", action="store_true", help="a few seconds a row, rough figures")
    parser.add_argument("--json", action="store_true", help="figures instead of a table")
    wish = parser.parse_args()
    figures = measure(wish.only or list(ROWS), QUICK if wish.quick else Size(), progress)
    if wish.json:
        print(json.dumps([asdict(figure) | {"repeat": figure.repeat} for figure in figures]))
    else:
        print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}\n")
        print(written(figures, TITLES))


if __name__ == "__main__":
    main()
