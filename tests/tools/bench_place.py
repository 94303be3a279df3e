"""The place where a bench runs: its contestants, compiled, and how much is to be measured."""

import os
import shutil
import subprocess
import tomllib
import venv
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from standins.instance import ROOT
from tools.bench_contestants import EXPRESS, ORIGIN, PACKAGES, SERVER, SOURCES, TOKEN
from tools.bench_processes import PATIENCE, Server


@dataclass(frozen=True)
class Size:
    """The size of a measurement: rounds of each kind, calls in a round, and a slow backend."""

    cold: int = 15
    warm: int = 45  # many and short: what else a machine does weighs on all contestants alike
    warm_calls: int = 16
    busy: int = 7
    busy_calls: int = 400
    crowd: int = 3
    crowd_calls: int = 192
    memory_calls: int = 10_000
    backend: float = 8.0  # seconds that it takes: more than a webhook waits, which are 3.15


QUICK: Final = Size(1, 2, 4, 2, 40, 1, 64, 100, 4.0)


class LeftOut(Exception):
    """A row cannot be measured on this machine, and why."""


def production(folder: Path) -> Path:
    """The folder of a `python` with the packages of requirements.txt, and none of the tests'."""
    venv.create(folder)
    packages = next(folder.glob("lib/python*/site-packages"))
    waiting, known = (ROOT / "requirements.txt").read_text().splitlines(), set[str]()
    for line in waiting:
        wish = Requirement(line) if line and not line.startswith("#") else None
        if not wish or (wish.marker and not wish.marker.evaluate({"extra": ""})):
            continue
        if (name := canonicalize_name(wish.name)) not in known:
            known.add(name)
            waiting += metadata.requires(name) or []
            place(metadata.distribution(name), packages)
    return folder / "bin"


def place(package: metadata.Distribution, folder: Path) -> None:
    """Link what a package consists of, which stays where it is, into a folder."""
    for top in {file.parts[0] for file in package.files or ()} - {"..", "__pycache__"}:
        with suppress(FileExistsError):  # a folder may be shared by several packages
            (folder / top).symlink_to(Path(str(package.locate_file(top))))


@dataclass
class Bench:
    """A place to run in, its contestants compiled, and how much to measure."""

    folder: Path
    size: Size = field(default_factory=Size)
    say: Callable[[str], object] = lambda _: None

    def __post_init__(self) -> None:
        for name, source in SOURCES.items():
            (self.folder / name).mkdir()
            (self.folder / name / "main.py").write_text(source)
        self.bin = production(self.folder / "production")
        self.fixed = {
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "HOME": str(self.folder),
            "PYTHONPYCACHEPREFIX": str(self.folder / "bytecode"),
            "TWILIO_AUTH_TOKEN": TOKEN,
            "PUBLIC_URL": ORIGIN,
            "FORWARD_TO": "+15550100099",
            "STATE_FILE": str(self.folder / "calls.sqlite3"),
        }
        self.build_line(self.folder / "line")

    def build_line(self, folder: Path) -> None:
        """Copy what is deployed, and compile it as the build does; how it is started then."""
        without_bytecode = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "phone_line", folder / "phone_line", ignore=without_bytecode)
        shutil.copy(ROOT / "main.py", folder)
        recipe = tomllib.loads((ROOT / "nixpacks.toml").read_text())
        compiling = recipe["phases"]["build"]["cmds"][0]
        subprocess.run(["/bin/sh", "-c", compiling], cwd=folder, env=self.fixed, check=True)
        self.deployed = ("/bin/sh", "-c", recipe["start"]["cmd"])

    def serve(self, name: str, command: Sequence[str] = SERVER, **env: str) -> Server:
        """A contestant's process; bytecode is kept in the bench's own folder."""
        return Server(command, self.folder / name, self.fixed | env)

    def install_express(self) -> None:
        """Fetch the contestant on Node. Raises LeftOut where Node or npm's registry is missing."""
        if not shutil.which("node") or not shutil.which("npm"):
            raise LeftOut("Node is not installed: apt-get install nodejs npm")
        folder = self.folder / "express"
        folder.mkdir()
        (folder / "server.mjs").write_text(EXPRESS)
        fetching = ["npm", "install", "--no-audit", "--no-fund", "--silent", *PACKAGES]
        try:
            subprocess.run(fetching, cwd=folder, check=True, capture_output=True, timeout=PATIENCE)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
            raise LeftOut(f"npm could not install {', '.join(PACKAGES)}") from None

    def rounds(self, row: str, count: int) -> Iterator[int]:
        """Counts the rounds of a row, and says so."""
        for number in range(count):
            self.say(f"{row}: round {number + 1} of {count}")
            yield number

    def certificate(self) -> Path:
        """A certificate for the loopback, in a folder of authorities as a Linux system has it."""
        folder = self.folder / "authorities"
        folder.mkdir(exist_ok=True)
        key, own = self.folder / "key.pem", self.folder / "own.pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
             "-nodes", "-days", "2", "-subj", "/CN=bench", "-addext", "subjectAltName=IP:127.0.0.1",
             "-keyout", key, "-out", own],
            check=True, capture_output=True,
        )  # fmt: skip
        look = ["openssl", "x509", "-hash", "-noout", "-in", str(own)]
        name = subprocess.run(look, check=True, capture_output=True, text=True).stdout.strip()
        certificate = folder / f"{name}.0"
        certificate.write_text(key.read_text() + own.read_text())
        return certificate
