"""The start of the server: gunicorn, as functions-framework sets it up, and what that leaves out.

There are two starts, `python -m main` and functions-framework's own command, and both hold every
promise. The first is ours (`serve`). The second reads its options, loads main.py, and only then
chooses its server; so what main.py asks for while it is loaded (`guard`) is in time for both.

The framework has no setting for its server, so `guard` puts one class in the place of another.
tests/line/test_strangers.py checks that this is still the class which the framework takes.
"""

import os
import sys
from collections.abc import Mapping
from typing import Final, NoReturn

import click
import gunicorn  # type: ignore[import-untyped] # it has no types
from functions_framework._http import gunicorn as framework

from phone_line.log import write_log
from phone_line.reception import Reception

OFF: Final = ("", "0", "false", "f", "no", "n", "off")  # what click reads as a switch that is off
DEBUG_IGNORED: Final = "DEBUG is ignored: it would open a console of this process to anybody"
DEBUG_REFUSED: Final = (
    "The line does not start with DEBUG set: functions-framework would serve it with Werkzeug's "
    "debugger, which opens a console of this process to anybody."
)

READ: Final = 27  # the major version of gunicorn whose source `Reception` was written for
GUNICORN_UNREAD: Final = (
    "this gunicorn is not the one that this release was written for, so it serves with its own "
    "worker: calls are answered until strangers send as many half requests as there are THREADS"
)


def serve(source: str) -> NoReturn:
    """Serve the function in the file `source` on HOST and PORT. Does not return.

    DEBUG is taken away before the framework reads it: it would start Werkzeug's debugger.
    """
    if os.environ.pop("DEBUG", "").lower() not in OFF:
        write_log("warning", DEBUG_IGNORED)
    from functions_framework._cli import _cli

    # The type is named, because FUNCTION_SIGNATURE_TYPE of another function would refuse all calls.
    function = ["--target=handler", f"--source={source}", "--signature-type=http"]
    _cli(function, prog_name="functions-framework")
    sys.exit()


def guard(threads: int, workers: int) -> None:
    """Have functions-framework, which is loading main.py, serve it with `PatientServer`.

    Raises SystemExit if the framework is to debug: it has read that before any code of ours.
    """
    command = click.get_current_context(silent=True)
    if command and command.params.get("debug"):
        raise SystemExit(DEBUG_REFUSED)
    os.environ["THREADS"] = str(threads)
    os.environ["WORKERS"] = str(workers)
    framework.GunicornApplication = PatientServer  # type: ignore[misc] # it has no setting


class PatientServer(framework.GunicornApplication):
    """gunicorn as functions-framework sets it up, and what the framework does not set."""

    def load_config(self) -> None:
        """Set what differs. gunicorn calls this method of an application for its settings.

        - worker_connections: with what else is open, they fit into the 1,024 files that a process
          commonly may have, and half requests of 96 kB each into 48 MB.
        - limit_request_line: the most that gunicorn knows; the framework lifts it. Of a longer line
          gunicorn would copy all that came whenever more comes: 40 seconds of work for 16 MB.
        - forwarded_allow_ips: no client's header replaces the path (SCRIPT_NAME) or the scheme,
          not even from this machine. PUBLIC_URL says what Twilio signed.
        - keepalive: seconds, longer than the minute for which proxies commonly keep an idle
          connection. With gunicorn's two, a proxy sends webhooks into connections just closed.
        - control_socket_disable: nobody steers this server through a socket in the home folder.
        """
        super().load_config()  # type: ignore[no-untyped-call] # the framework has no types here
        settings: Mapping[str, object] = {
            "worker_class": choose_worker(gunicorn.version_info[0]),
            "worker_connections": 500,
            "limit_request_line": 8190,
            "forwarded_allow_ips": "",
            "keepalive": 75,
            "control_socket_disable": True,
        }
        for name, value in settings.items():
            if name in self.cfg.settings:  # another gunicorn may have dropped one
                self.cfg.set(name, value)


def choose_worker(major: int) -> type | str:
    """Reception, unless a build has brought another major version of gunicorn than was read.

    Reception replaces methods that gunicorn does not promise to keep, and gunicorn is not pinned.
    """
    if major == READ:
        return Reception
    write_log("error", GUNICORN_UNREAD, major=major)
    return "gthread"
