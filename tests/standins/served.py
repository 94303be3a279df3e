"""A real process of the function, whose recordings are fetched at a stand-in for Twilio's hosts.

No setting of a line can do that, so a program of its own puts the stand-in in their place.

    with Media() as media, Served(media, tmp_path, FORWARD_TO="+15550100099") as instance:
        media.recordings = AnyRecording()
"""

from pathlib import Path
from typing import Final

from standins.instance import ROOT, Instance, free_port
from standins.media import Media, silence

TOKEN: Final = "secret"
PASSWORD: Final = "let-me-see-it"
PROGRAM: Final = """
import sys
sys.path[:0] = [{root!r}]
from phone_line import recordings
recordings.SOURCE = recordings.Source({media!r}, lambda url: url.startswith({media!r}), None)
from main import LINE, handler
"""


class AnyRecording(dict[str, bytes]):
    """A message of 14 seconds for every SID that is asked for."""

    def __contains__(self, _: object) -> bool:
        return True

    def __getitem__(self, _: str) -> bytes:
        return silence(14)


class Served(Instance):
    """The function, with a token, a password for its pages, and a file for its calls."""

    def __init__(self, media: Media, folder: Path, **env: str) -> None:
        program = folder / "served.py"
        program.write_text(PROGRAM.format(root=str(ROOT), media=media.url), "utf-8")
        port = free_port()
        served = ["--target=handler", f"--source={program}", f"--port={port}"]
        self.program = ["-m", "functions_framework", *served]
        usual = {
            "TWILIO_AUTH_TOKEN": TOKEN,
            "ADMIN_TOKEN": PASSWORD,
            "STATE_FILE": str(folder / "calls"),
        }
        super().__init__({**usual, **env}, port)
