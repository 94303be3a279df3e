"""The server with fixed answers that the tests of the phone begin with."""

from collections.abc import Iterator

import pytest

import standins.inside  # noqa: F401 # it loads main.py without the log's word on missing settings
from standins.canned import Canned


@pytest.fixture
def line() -> Iterator[Canned]:
    """A fresh server for one test."""
    canned = Canned()
    yield canned
    canned.close()
