"""What the tests of the phone begin with: a server with fixed answers."""

from collections.abc import Iterator

import pytest

from standins.canned import Canned


@pytest.fixture
def line() -> Iterator[Canned]:
    """A fresh server for one test."""
    canned = Canned()
    yield canned
    canned.close()
