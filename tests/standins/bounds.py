"""A room of the line with other bounds, so that a test need not send gigabytes or wait a minute.

with changed(recordings, PLAYING=0.5, LARGEST=1_000_000):
...
"""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def changed(room: object, **values: object) -> Iterator[None]:
    """A while in which names of a module stand for other values."""
    before = {name: getattr(room, name) for name in values}
    try:
        for name, value in values.items():
            setattr(room, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(room, name, value)
