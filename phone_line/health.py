"""The health page: what is wrong with the settings, and whether the store can be written.

Railway asks it before it routes traffic to a new deployment; anybody else may look, too. So it
tells no secret, and it cannot be used to spend the store's plan: what callers' own commands showed
counts for a minute, and otherwise the store is asked once a minute while all is well, by all
processes together, and every five seconds while not (a blink must not fail a deploy). It asks
nothing by itself, so it keeps no sleeping service awake.
"""

import json
import os
import threading
import time
from collections.abc import Mapping
from typing import Final

from flask import Response

from phone_line.answers import Line
from phone_line.cells import Cells, StoreUnavailable
from phone_line.log import write_log

WELL_FOR: Final = 60  # seconds, times WORKERS, for which a good answer is believed
ILL_FOR: Final = 5  # seconds for which a bad one is
CELL: Final = "health"
# The commit that is deployed, or, after `railway up`, which tells none, the deployment's id:
# https://docs.railway.com/variables/reference.
RELEASE: Final = ("RAILWAY_GIT_COMMIT_SHA", "RAILWAY_DEPLOYMENT_ID")


def find_release(env: Mapping[str, str]) -> str:
    """The name of the release that serves: the first letters of a commit, or a deployment's id."""
    commit, deployment = (env.get(name, "").strip() for name in RELEASE)
    return commit[:12] or deployment[:40] or "unknown"


class Health:
    """The state of a line, as its health page tells it."""

    def __init__(self, line: Line) -> None:
        self.line = line
        self.lock = threading.Lock()
        self.asked = 0.0  # time.monotonic() of the last question; 0: never
        self.problem = "The store is being asked for the first time."

    def report(self) -> Response:
        """200 when the settings are complete and the store can be written; else 503, and why."""
        problems = [*self.line.settings.problems]
        if not any("UPSTASH" in problem for problem in problems):
            problems += filter(None, [self.find_problem()])
        page = {"ok": not problems, "problems": problems, "release": find_release(os.environ)}
        return Response(
            json.dumps(page, indent=1) + "\n",
            503 if problems else 200,
            {"Cache-Control": "no-store"},
            content_type="application/json",
        )

    def find_problem(self) -> str:
        """The store's problem, none if it is well. One look at a time asks it.

        Where a caller's own cell was settled within the last minute, nobody has to.
        """
        settled = self.line.store.hang_memory.settled
        if settled and time.monotonic() < settled + WELL_FOR:
            return ""
        with self.lock:
            age = time.monotonic() - self.asked
            well_for = WELL_FOR * self.line.settings.workers  # together they ask once a minute
            if self.asked and age < (ILL_FOR if self.problem else well_for):
                return self.problem
            self.asked = time.monotonic()  # who looks meanwhile need not wait
        problem = self.ask_store()
        with self.lock:
            self.problem, self.asked = problem, time.monotonic()
        return problem

    def ask_store(self) -> str:
        """Write a cell; the problem if that fails."""
        settings = self.line.settings
        cells = Cells(self.line.store, time.monotonic() + settings.response_deadline)
        try:
            cells.settle(CELL, "well", ttl=WELL_FOR)
        except StoreUnavailable as error:
            place = "Redis at UPSTASH_REDIS_REST_URL" if settings.has_redis else "STATE_FILE"
            problem = f"{place} cannot be written: {error}"
            write_log("error", problem)
            return problem
        return ""
