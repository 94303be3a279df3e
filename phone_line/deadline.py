"""Deadlines: a moment by which something has to be over, and threads to wait for what has none.

Every wait of this program ends at a moment that was fixed when a webhook arrived, whatever it
waits for and in however many steps. That is why functions take `until`, and never a time-out.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final, TypeVar

Moment = float  # of time.monotonic(), in seconds
Result = TypeVar("Result")

# A look-up of a name that hangs keeps its thread for half a minute. Callers come faster than that,
# and a process with thousands of threads is killed for its memory.
MOST_THREADS: Final = 512
thread_places: Final = threading.BoundedSemaphore(MOST_THREADS)


def seconds_left(until: Moment) -> float:
    """Count the seconds until a moment. Raises TimeoutError once there are none."""
    seconds = until - time.monotonic()
    if seconds <= 0:
        raise TimeoutError("out of time")
    return seconds


def in_background(work: Callable[..., Result], *arguments: Any) -> Future[Result]:  # noqa: ANN401 # whatever the work takes
    """Start work on a thread that does not keep the process alive; its result is in the future.

    Raises OSError when no thread is left: to the caller that is a network that does not answer.
    """
    done: Future[Result] = Future()

    def run() -> None:
        try:
            done.set_result(work(*arguments))
        except BaseException as error:  # whoever waits for it must hear of any end
            done.set_exception(error)
        finally:
            thread_places.release()

    if not thread_places.acquire(blocking=False):
        raise OSError("too many threads in the background")
    try:
        threading.Thread(target=run, daemon=True).start()
    except RuntimeError as error:  # the limit of the system, or the process is ending
        thread_places.release()
        raise OSError(str(error)) from None
    return done
