"""A lease is touched by its owner alone, and an instance works on so many tasks and no more."""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from phone_line import slow_work
from phone_line.cells import Cells
from phone_line.deadline import Moment
from phone_line.slow_work import JOBS, Desk, Job
from phone_line.sqlite import SQLite
from standins.backend import until
from standins.bounds import changed

RIVAL = "another instance"


@dataclass(slots=True)
class Errand:
    """A task that takes as long as the test wants."""

    name: str = "call:CA1:1"
    asked: str = "backend"
    alone: bool = True
    done: threading.Event = field(default_factory=threading.Event)
    attempts: int = 0

    @property
    def call_sid(self) -> str:
        return "CA1"

    @property
    def until(self) -> Moment:
        return time.monotonic() + 60

    def find_result(self, _cells: Cells) -> str | None:
        return None

    def prepare(self, _cells: Cells) -> bool:
        return True

    def put_off(self) -> None:
        """Nobody is told."""

    def attempt(self, _until: Moment) -> str:
        self.attempts += 1
        self.done.wait(30)
        return "done"

    def give_up(self) -> str | None:
        return None

    def keep(self, result: str) -> str:
        return result

    def follow_up(self, owner: str) -> None:
        """Nobody waits."""


@pytest.fixture
def store(tmp_path: Path) -> SQLite:
    """A store of the test's own."""
    return SQLite(str(tmp_path / "calls"))


@pytest.fixture
def desk(store: SQLite) -> Desk:
    """A desk with room for two who wait."""
    return Desk(store, threads=4)


@pytest.fixture
def errand() -> Iterator[Errand]:
    """A task that is over when the test is."""
    errand = Errand()
    yield errand
    errand.done.set()


def look(store: SQLite) -> Cells:
    """The cells, for a test that has time."""
    return Cells(store, time.monotonic() + 5)


@pytest.fixture
def short_leases() -> Iterator[None]:
    """Leases of a second, so that no test has to wait for eight."""
    with changed(slow_work, LEASE=1):
        yield


def lose_lease(store: SQLite, job: Job) -> None:
    """The lease has run out, and another instance has it now."""
    look(store).release(job.lease)
    assert look(store).settle(job.lease, RIVAL, 60) == RIVAL


@pytest.mark.usefixtures("short_leases")
def test_a_worker_renews_its_lease_for_as_long_as_it_works(
    desk: Desk, store: SQLite, errand: Errand
) -> None:
    """Work that takes longer than a lease lives is nobody else's meanwhile, and then anybody's."""
    desk.start(errand, look(store))
    [job] = desk.jobs.values()
    time.sleep(1.5)
    assert look(store).settle(job.lease, RIVAL, 60) == job.owner
    errand.done.set()
    assert until(lambda: look(store).settle(job.lease, RIVAL, 60) == RIVAL)


@pytest.mark.usefixtures("short_leases")
def test_a_worker_knows_when_its_lease_is_no_longer_its_own(
    desk: Desk, store: SQLite, errand: Errand
) -> None:
    """Another instance took the work over: to look at its lease does not make it ours again."""
    desk.start(errand, look(store))
    [job] = desk.jobs.values()
    assert job.is_ours
    lose_lease(store, job)
    assert until(lambda: not job.is_ours)


@pytest.mark.usefixtures("short_leases")
def test_a_successors_lease_is_not_taken_away(desk: Desk, store: SQLite, errand: Errand) -> None:
    """A worker that was overtaken leaves quietly: whoever works on now keeps the lease."""
    desk.start(errand, look(store))
    [job] = desk.jobs.values()
    lose_lease(store, job)
    assert until(lambda: not job.is_ours)
    lose_lease(store, job)  # it may have run out meanwhile
    errand.done.set()
    assert until(lambda: not desk.jobs)
    assert look(store).settle(job.lease, "a third", 60) == RIVAL


def test_a_busy_instance_takes_no_more_work(desk: Desk, store: SQLite) -> None:
    """With so many tasks under way another one is left to others: no lease, no attempt, no wait."""
    errands = [Errand(f"call:CA{number}:1") for number in range(JOBS + 1)]
    *taken, last = errands
    try:
        for each in taken:
            desk.start(each, look(store))
        assert len(desk.jobs) == JOBS
        assert desk.wait_for(last, look(store), 0.0) == (None, False)
        assert last.name not in desk.jobs
        assert look(store).settle(f"{last.name}:lease", RIVAL, 60) == RIVAL
        assert last.attempts == 0
    finally:
        for each in errands:
            each.done.set()
    assert until(lambda: not desk.jobs)
