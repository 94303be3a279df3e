"""The line as a real process of the test's own: started, killed, stopped."""

from pathlib import Path

import pytest

from standins.call import Phone
from standins.canned import TOKEN
from standins.instance import Instance
from standins.webhooks import Failed, http_deliver

pytestmark = pytest.mark.long  # each starts a process


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, str]:
    """The settings that a function needs to start."""
    state = str(tmp_path / "calls.sqlite3")
    return {"TWILIO_AUTH_TOKEN": TOKEN, "STATE_FILE": state, "FORWARD_TO": "+15550100099"}


def test_an_instance_answers_until_it_is_killed(settings: dict[str, str]) -> None:
    """A call is answered by a real process, which then is gone and comes back on its port."""
    with Instance(settings) as instance:
        phone = Phone(instance.url, token=TOKEN)
        phone.ring()
        assert phone.state == "gather", phone.transcript
        first = instance.pid
        instance.kill()
        with pytest.raises(Failed, match="no connection"):
            http_deliver(instance.url, [], {})
        instance.restart()
        assert phone.retry().same
        assert instance.pid not in {0, first}
        assert instance.log()


def test_an_instance_stops_when_told(settings: dict[str, str]) -> None:
    """SIGTERM ends it well before it would be killed."""
    with Instance(settings) as instance:
        assert instance.stop() < 10
        assert instance.pid == 0


def test_an_instance_that_cannot_start_says_why(settings: dict[str, str]) -> None:
    """A process that ends at once is an error with its own last words."""
    with pytest.raises(RuntimeError, match="did not start"):
        Instance(settings | {"PYTHONHOME": "/nowhere"})


def test_exported_settings_do_not_leak(
    settings: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line in a test is set up by the test, whatever the shell that runs it exports."""
    monkeypatch.setenv("GREETING", "Leaked.")
    monkeypatch.setenv("HOURS", "never")
    with Instance(settings) as instance:
        phone = Phone(instance.url, token=TOKEN)
        assert "Leaked." not in phone.ring()
        assert phone.state == "gather", phone.transcript
    with Instance(settings | {"GREETING": "Meant."}) as instance:
        assert "Meant." in Phone(instance.url, token=TOKEN).ring()
