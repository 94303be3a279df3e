"""The line with a person behind it, its file and its log: many tests begin with them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from phone_line import log as log_room
from standins.inside import Inside


@pytest.fixture(autouse=True)
def warnings_anew() -> None:
    """Each test is the first that is warned of anything: a kind of warning comes once a minute."""
    log_room.warned.clear()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The file of a test's embedded store."""
    return tmp_path / "calls"


@pytest.fixture
def line(file: Path) -> Inside:
    """A line with a person behind it and the embedded store."""
    return Inside({"FORWARD_TO": "+15550100099", "STATE_FILE": str(file)})


@pytest.fixture
def log(capsys: pytest.CaptureFixture[str]) -> Callable[[], list[dict[str, Any]]]:
    """Reads the lines logged since the last look."""
    return lambda: [json.loads(each) for each in capsys.readouterr().out.splitlines()]
