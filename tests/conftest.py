"""What several test files share: one stand-in for Upstash a file, as new for every test."""

from collections.abc import Iterator

import pytest
from upstash import Upstash


@pytest.fixture(scope="module")
def redis() -> Iterator[Upstash]:
    """The stand-in, started once for all tests of a file."""
    with Upstash() as running:
        yield running


@pytest.fixture
def upstash(redis: Upstash) -> Iterator[Upstash]:
    """The stand-in, empty and in good health; healthy again afterwards."""
    redis.flush()
    redis.forget()
    yield redis
    redis.fault, redis.before, redis.after = None, None, None
    redis.release()
