"""Work that takes longer than a webhook may, done at a desk, with one worker at a time.

A task is a question to the backend, or an event that somebody has to be told. Its worker holds a
lease: a cell with a short life that the worker renews. When the worker's instance dies, the lease
runs out, and the next webhook that needs the task takes it over. Nobody waits for a lock, and
nothing has to be cleaned up.

A worker looks whether the task is done already, tries, and tries again with growing pauses, until
the task's time is over. The result is kept in the store, however often that has to be tried; the
webhooks that wait in this process get it at the first attempt. If no webhook here has used it, the
task follows up: a caller whom no webhook waits for is pushed to the answer (`questions.py` says
when not).
"""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from phone_line.backend import BackendFailed
from phone_line.cells import Cells, Store, StoreUnavailable
from phone_line.deadline import Moment, in_background
from phone_line.log import find_cause, write_log

LEASE: Final = 8  # seconds: so long a dead worker delays its successor
LOOK: Final = 0.8  # seconds between looks for a result that another instance works on
ATTEMPT: Final = 45  # seconds for one attempt: two that hang still leave time for a third
PAUSES: Final = (1, 2, 4, 8, 0)  # seconds after each attempt; there is none after the last
JOBS: Final = 64  # tasks that one instance works on at once


class Task(Protocol):
    """Something to be done once. A result is anything but None."""

    alone: bool  # without a lease nobody may work on it, because a caller waits for one answer

    @property
    def name(self) -> str:
        """The key of its lease, without the last part."""

    @property
    def asked(self) -> str:
        """Whom an attempt turns to, as the log names them: `backend`, or `NOTIFY_URL`."""

    @property
    def call_sid(self) -> str:
        """The call that it is for."""

    @property
    def until(self) -> Moment:
        """The moment at which it is too late."""

    def find_result(self, cells: Cells) -> Any | None:  # noqa: ANN401 # each task has its own
        """The result, if the task is done already. Raises StoreUnavailable."""

    def prepare(self, cells: Cells) -> bool:
        """Look, before an attempt, how things stand. False: nobody needs the result any more."""

    def put_off(self) -> None:
        """Take note that a webhook could not wait any longer."""

    def attempt(self, until: Moment) -> Any:  # noqa: ANN401
        """Try once; the result. Raises BackendFailed."""

    def give_up(self) -> Any | None:  # noqa: ANN401
        """The result when no attempt has succeeded."""

    def keep(self, result: Any) -> Any:  # noqa: ANN401
        """Settle the result; the one that stands. Raises StoreUnavailable: then it comes again."""

    def follow_up(self, owner: str) -> None:
        """The result is kept, and nobody here waits for it."""


@dataclass(slots=True, eq=False)
class Job:
    """A task under way in this process. `waiting` webhooks will use its result at once."""

    task: Task
    owner: str = field(default_factory=lambda: os.urandom(8).hex())
    renewed: Moment = 0.0  # when the lease was surely ours; 0: it never was
    result: Any | None = None
    published: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)
    waiting: int = 1
    used: bool = False  # a webhook of this process has the result

    @property
    def lease(self) -> str:
        """The key of the lease."""
        return f"{self.task.name}:lease"

    @property
    def is_ours(self) -> bool:
        """Tell whether the lease is surely still ours: nobody has it before it has run out."""
        return time.monotonic() < self.renewed + LEASE


class Desk:
    """Where slow work is done. While nothing is asked and nothing is told, nothing runs here."""

    def __init__(self, store: Store, threads: int) -> None:
        self.store = store
        self.lock = threading.Lock()
        self.jobs: dict[str, Job] = {}
        # At most half of the server's threads wait for slow work: the others answer new calls.
        self.places = threading.BoundedSemaphore(max(1, threads // 2))

    def wait_for(self, task: Task, cells: Cells, until: Moment) -> tuple[Any | None, bool]:
        """The result of a task if it comes before a moment, and whether it was made here.

        Starts the work, unless somebody is at it. Raises StoreUnavailable when nobody can know.
        """
        with self.take_place() as may_wait:
            moment = until if may_wait else 0.0
            while True:
                if job := self.join(task, cells):
                    return self.listen(job, moment), True
                result = task.find_result(cells)
                if result is not None or time.monotonic() + LOOK > moment:
                    return result, False
                time.sleep(LOOK)

    def start(self, task: Task, cells: Cells) -> None:
        """Let somebody do a task; wait for nothing."""
        with suppress(StoreUnavailable):
            if job := self.join(task, cells):
                self.listen(job, 0.0)

    @contextmanager
    def take_place(self) -> Iterator[bool]:
        """Tell whether a webhook may wait here; its place is free again at the end."""
        taken = self.places.acquire(blocking=False)
        try:
            yield taken
        finally:
            if taken:
                self.places.release()

    def join(self, task: Task, cells: Cells) -> Job | None:
        """This instance's job for a task: the one under way, or a new one if the lease is free."""
        with self.lock:
            if job := self.jobs.get(task.name):
                job.waiting += 1
                return job
            if len(self.jobs) >= JOBS:
                return None
        job = Job(task)
        if not self.take_lease(job, cells):
            return None
        with self.lock:
            rival = self.jobs.setdefault(task.name, job)
            if rival is not job:  # Redis had forgotten the lease of a job of ours
                rival.waiting += 1
                rival.owner, rival.renewed = job.owner, job.renewed
                return rival
        try:
            in_background(keep_lease, self.store, job)
            in_background(self.work, job)  # last: once it runs, it is worked on
        except OSError:  # no thread is left: a later look tries again
            self.leave(job)
            return None
        return job

    def take_lease(self, job: Job, cells: Cells) -> bool:
        """Take the lease of a task. Raises StoreUnavailable, unless the task can do without."""
        began = time.monotonic()
        until = min(began + LEASE / 4, cells.until)
        try:
            if cells.settle(job.lease, job.owner, LEASE, until) != job.owner:
                return False
        except StoreUnavailable:
            if job.task.alone:
                raise
            return True
        job.renewed = began
        return True

    def listen(self, job: Job, until: Moment) -> Any | None:  # noqa: ANN401
        """The result of a job under way, if it comes before a moment."""
        job.published.wait(max(until - time.monotonic(), 0))
        with self.lock:
            job.waiting -= 1
            if job.result is None:
                job.task.put_off()
            else:
                job.used = True
            return job.result

    def work(self, job: Job) -> None:
        """Do a task from beginning to end. Runs in a thread of its own."""
        try:
            result = try_task(self.store, job.task)
            if result is None or not self.keep_result(job, result):
                return
            with self.lock:
                used = job.used or job.waiting > 0
                self.jobs.pop(job.task.name, None)
            if not used:
                job.task.follow_up(job.owner)
        except Exception as error:  # not even a bug of ours may leave a caller on hold
            write_log("error", "slow work failed", call=job.task.call_sid, cause=find_cause(error))
        finally:
            self.publish(job, job.result)
            self.leave(job)

    def publish(self, job: Job, result: Any | None) -> None:  # noqa: ANN401
        """Hand the result to the webhooks that wait here."""
        with self.lock:
            job.result = result
            job.used = job.used or (result is not None and job.waiting > 0)
        job.published.set()

    def keep_result(self, job: Job, result: Any) -> bool:  # noqa: ANN401
        """Settle the result, however often that fails within the task's time, and publish it.

        Whoever waits here gets the one that stands; if the store is away, after one attempt, ours.
        """
        while True:
            try:
                self.publish(job, job.task.keep(result))
            except StoreUnavailable:
                self.publish(job, result)
            else:
                return True
            if time.monotonic() > job.task.until:
                return False
            time.sleep(LEASE / 8)

    def leave(self, job: Job) -> None:
        """The work is over, or handed to whoever comes next."""
        with self.lock:
            if self.jobs.get(job.task.name) is job:
                del self.jobs[job.task.name]
        job.over.set()
        if job.is_ours:
            with suppress(StoreUnavailable):
                Cells(self.store, time.monotonic() + 1).release(job.lease)

    def give_back(self) -> None:
        """A graceful stop: others need not wait until our leases have run out."""
        for job in [*self.jobs.values()]:
            self.leave(job)


def try_task(store: Store, task: Task) -> Any | None:  # noqa: ANN401
    """Try until it succeeds, fails for good, or nobody needs it. Its result, or None."""
    for pause in PAUSES:
        wait: float = pause
        cells = Cells(store, time.monotonic() + 4)
        with suppress(StoreUnavailable):
            result = task.find_result(cells)
            if result is not None:
                return result
            if not task.prepare(cells):
                return None
        try:
            return task.attempt(min(time.monotonic() + ATTEMPT, task.until))
        except BackendFailed as error:
            message = f"{task.asked} failed"
            write_log("error", message, call=task.call_sid, cause=str(error))
            wait = max(pause, error.retry_after)
            if error.final or not pause or time.monotonic() + wait > task.until:
                break
        time.sleep(wait)
    return task.give_up()


def keep_lease(store: Store, job: Job) -> None:
    """Renew a lease until the work is over or the lease is lost."""
    while not job.over.wait(LEASE / 4) and job.is_ours:
        began = time.monotonic()
        with suppress(StoreUnavailable):
            if Cells(store, began + 1).renew(job.lease, LEASE) == job.owner:
                job.renewed = began
