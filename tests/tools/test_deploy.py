"""What a deploy is made from agrees: .railway/railway.py, railway.json, nixpacks.toml and the code.

The file for Railway's CLI is evaluated with the real SDK, in the way of the CLI: the first python3
of the PATH loads it, takes PARTIAL, and calls `main` with what it knows of the project at hand.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Final

import pytest

from phone_line.settings import VARIABLES, read_settings
from phone_line.words import languages
from standins.asking import OVERRIDES
from standins.inside import Inside
from standins.instance import Instance
from standins.twilio_account import ACCOUNT, TwilioAccount

ROOT: Final = Path(__file__).resolve().parents[2]
FILE: Final = ROOT / ".railway/railway.py"
EXAMPLE: Final = (ROOT / ".env.example").read_text(encoding="utf-8")
ENTRY: Final = "^#?([A-Z][A-Z0-9_]*)=(.*)$"

# As src/iac/eval.rs of Railway's CLI does it, in its words for an error.
EVALUATE: Final = """
import importlib.util, json, sys
spec = importlib.util.spec_from_file_location("railway_sdk_user", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
found = module.main(json.loads(sys.argv[2])).to_graph()
print(json.dumps({"partial": module.PARTIAL, "project": found}))
"""
LINKED: Final = {"command": "plan", "projectName": "phone", "environment": "production"}
KEYS: Final = {  # what the CLI knows of a service; it drops any other key without a word
    "build": {"builder"},
    "deploy": {
        "startCommand",
        "healthcheckPath",
        "healthcheckTimeout",
        "sleepApplication",
        "overlapSeconds",
        "drainingSeconds",
        "multiRegionConfig",
    },
}
DEFAULTS: Final = {"sleepApplication": False, "overlapSeconds": 0, "healthcheckTimeout": 300}
LONGEST: Final = 15  # seconds that Twilio waits for a webhook


def run(*command: str, **env: str) -> subprocess.CompletedProcess[str]:
    """A Python program, with no settings of a deploy but these."""
    kept = {k: v for k, v in os.environ.items() if k not in ("SERVICE", "PROJECT")}
    return subprocess.run(
        [sys.executable, "-c", *command],
        env=kept | env,
        capture_output=True,
        text=True,
        check=False,
    )


def evaluate(linked: Mapping[str, str] = LINKED, **env: str) -> dict[str, Any]:
    """The configuration that the CLI gets from the file."""
    done = run(EVALUATE, str(FILE), json.dumps(linked), **env)
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def service() -> dict[str, Any]:
    """The one service that the file declares."""
    [found] = evaluate()["project"]["resources"]
    assert isinstance(found, dict)
    return found


def read_example() -> Iterator[tuple[str, str]]:
    """Every variable of .env.example with its value, without quotes."""
    for name, value in re.findall(ENTRY, EXAMPLE, re.MULTILINE):
        yield name, value.removeprefix('"').removesuffix('"')


# ---- the file for Railway's CLI ----------------------------------------------------------------


def test_an_apply_touches_one_service_and_no_other() -> None:
    """A partial of this name owns the service, so nothing else in the project can be deleted."""
    found = evaluate()
    assert re.fullmatch("[a-zA-Z0-9._-]{1,64}", found["partial"])
    [service] = found["project"]["resources"]
    assert service["address"] == "service.phone"
    assert found["project"]["name"] == "phone"


def test_railway_is_told_the_same_by_both_files(service: dict[str, Any]) -> None:
    """What services of before read in railway.json is what an apply sets, but for the region."""
    told = json.loads((ROOT / "railway.json").read_text(encoding="utf-8"))
    assert service["build"] == told["build"]
    regions = {"multiRegionConfig": {"us-east4-eqdc4a": {"numReplicas": 1}}}
    assert service["deploy"] == told["deploy"] | regions


def test_no_setting_is_dropped_or_shown_as_a_change_for_ever(service: dict[str, Any]) -> None:
    """Every key is one that the CLI knows, and none has the value that Railway gives by itself."""
    for part, names in KEYS.items():
        assert {*service[part]} == names
    assert (
        not DEFAULTS.items() & {k: v for k, v in service["deploy"].items() if k in DEFAULTS}.items()
    )
    assert {*service} == {"address", "type", "kind", "name", "build", "deploy", "variables"}


def test_the_start_command_is_the_one_of_the_image(service: dict[str, Any]) -> None:
    """Whichever file starts the line, it is started in the same way."""
    plan = tomllib.loads((ROOT / "nixpacks.toml").read_text(encoding="utf-8"))
    assert service["deploy"]["startCommand"] == plan["start"]["cmd"]


def test_the_health_check_and_the_times_fit_the_code(
    service: dict[str, Any], tmp_path: Path
) -> None:
    """The path answers 200 to anybody; a webhook under way is answered before the line is ended."""
    deploy = service["deploy"]
    here = Inside({"STATE_FILE": str(tmp_path / "calls")})
    assert here.send("GET", deploy["healthcheckPath"]).status == 200
    assert deploy["drainingSeconds"] > LONGEST
    assert deploy["healthcheckTimeout"] > here.line.settings.response_deadline
    assert deploy["sleepApplication"] is True


def test_no_variable_that_an_owner_may_have_set_is_deleted(service: dict[str, Any]) -> None:
    """Each setting is named and keeps its value at Railway; only the port is given one."""
    variables = dict(service["variables"])
    assert variables.pop("PORT") == {"type": "literal", "value": "8080"}
    greetings = {f"GREETING_{language.upper()}" for language in languages()}
    assert {*variables} == {*VARIABLES} | greetings
    assert all(value == {"type": "preserve"} for value in variables.values())


def test_a_service_that_exists_may_have_another_name() -> None:
    """SERVICE names it, so that nobody gets a second one beside it."""
    [service] = evaluate(SERVICE="callbot")["project"]["resources"]
    assert service["address"] == "service.callbot"


@pytest.mark.long
def test_another_project_is_refused_in_a_sentence() -> None:
    """Who is linked to another project than PROJECT names does not get a service there."""
    done = run(EVALUATE, str(FILE), json.dumps(LINKED | {"projectName": "shop"}), PROJECT="phone")
    assert done.returncode == 1
    [said] = done.stderr.splitlines()
    assert said == "This folder is linked to the project 'shop', not 'phone': `railway link`."
    assert evaluate(PROJECT="phone")["project"]["name"] == "phone"
    assert evaluate({}, PROJECT="phone")["project"]["name"] == "phone"


def test_a_missing_sdk_is_said_in_a_sentence() -> None:
    """The CLI takes the python3 of the PATH, which may know nothing of the SDK."""
    without = "import sys; sys.modules['railway_sdk'] = None\n"
    done = run(without + EVALUATE, str(FILE), "{}")
    assert done.returncode == 1
    [said] = done.stderr.splitlines()
    assert said.startswith("railway-sdk is not installed for this python3: ")
    assert "tests/requirements.txt" in said


def test_there_is_one_file_for_the_cli() -> None:
    """The CLI takes one of railway.ts, railway.py and railway.go; of two one would be forgotten."""
    files = [path for path in (ROOT / ".railway").iterdir() if path.is_file()]
    assert [path.name for path in files] == ["railway.py"]
    assert not (ROOT / "package.json").exists()


# ---- the example environment -------------------------------------------------------------------


def test_the_example_environment_has_every_setting_and_nothing_else() -> None:
    """What settings.py reads and what .env.example offers are the same names, each once."""
    greetings = [f"GREETING_{language.upper()}" for language in languages()]
    names = [name for name, _ in read_example()]
    assert sorted(names) == sorted([*VARIABLES, *greetings])


def test_every_example_is_understood() -> None:
    """A value that is taken over from .env.example as it stands is no problem of the line's."""
    given = {name: value for name, value in read_example() if value}
    needed = {"TWILIO_AUTH_TOKEN": "0123456789abcdef" * 2, "BACKEND_URL": given["BACKEND_URL"]}
    assert read_settings(given | needed).problems == ()


def test_defaults_are_shown_as_they_are() -> None:
    """Where a setting has a default, .env.example shows that, and not another value."""
    shown, settings = dict(read_example()), read_settings({})
    for name, each in VARIABLES.items():
        default = getattr(settings, name.lower())
        if isinstance(default, str | int | float | tuple) and default:
            assert each.metadata["understand"](shown[name]) == default, name


@pytest.mark.needs("bash")
def test_the_example_environment_can_be_sourced(tmp_path: Path) -> None:
    """With every # taken away a shell understands it, as the README has it sourced."""
    filled = tmp_path / "env"
    filled.write_text(re.sub("^#(?=[A-Z][A-Z0-9_]*=)", "", EXAMPLE, flags=re.MULTILINE), "utf-8")
    script = 'set -eua; . "$1"; exec "$2" -c "import json, os; print(json.dumps(dict(os.environ)))"'
    command = ["bash", "-c", script, "bash", str(filled), sys.executable]
    done = subprocess.run(command, env={}, capture_output=True, text=True, check=True)
    exported = json.loads(done.stdout)
    assert {name: exported[name] for name, _ in read_example()} == dict(read_example())


# ---- what is sent ------------------------------------------------------------------------------


def is_left_at_home(path: str, file: str = ".railwayignore") -> bool:
    """Tell whether .railwayignore names a path, or a folder that it is in."""
    patterns = (ROOT / file).read_text(encoding="utf-8").splitlines()
    parts = Path(path).parts
    for pattern in filter(None, patterns):
        if pattern.endswith("/") and pattern[:-1] in parts[:-1]:
            return True
        if any(fnmatch(part, pattern) for part in parts):
            return True
    return False


@pytest.mark.long
def test_a_deploy_takes_all_that_it_needs_and_no_more(tmp_path: Path) -> None:
    """What `railway up` sends serves the line, and is nothing but that."""
    here = ["main.py", "nixpacks.toml", "railway.json", "requirements.txt", ".python-version"]
    files = [path.name for path in ROOT.iterdir() if path.is_file()]
    shown = [name for name in files if not is_left_at_home(name, ".gitignore")]
    assert sorted(name for name in shown if not is_left_at_home(name)) == sorted(here)
    for folder in ("tests/live.py", ".railway/railway.py", ".github/SECURITY.md", ".ci/run"):
        assert is_left_at_home(folder)
    for path in (ROOT / "phone_line").rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            assert not is_left_at_home(str(path.relative_to(ROOT)))
    shutil.copy(ROOT / "main.py", tmp_path)
    shutil.copytree(ROOT / "phone_line", tmp_path / "phone_line")
    settings = {"TWILIO_AUTH_TOKEN": "0123456789abcdef", "STATE_FILE": str(tmp_path / "calls")}
    done = subprocess.run(
        [sys.executable, "-c", "import main; print(main.LINE.settings.problems)"],
        cwd=tmp_path,
        env=settings | {"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "()\n"


# ---- the README's steps ------------------------------------------------------------------------

RAILWAY: Final = """#!/usr/bin/env bash
# Railway's CLI, as far as the README uses it: it notes how it was called, and what it was given.
printf '%s\\n' "$*" >> "$NOTES/asked"
case "$1 $2" in
    "config apply") exec python3 -c "$EVALUATE" "$FILE" '{}' > "$NOTES/applied" ;;
    "variable set") printf '%s=%s\\n' "$3" "$(cat)" >> "$NOTES/given" ;;
    "variable list") printf 'PORT=8080\\nRAILWAY_PUBLIC_DOMAIN=line.example\\n' ;;
esac
"""
SETTINGS: Final = """# a line of its owner's
TWILIO_AUTH_TOKEN={token}
TWILIO_ACCOUNT_SID={account}
FORWARD_TO=
ADMIN_TOKEN=let-me-see-it
GREETING="Hello, and thank you for calling."
#VOICE=Polly.Joanna
"""


def read_steps() -> list[str]:
    """The commands of the README's section on deploying, block by block."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    section = re.search("^## Deploy.*?(?=^## )", readme, re.MULTILINE | re.DOTALL)
    assert section
    return re.findall(r"^```bash\n(.*?)^```$", section[0], re.MULTILINE | re.DOTALL)


def write_program(path: Path, text: str) -> None:
    """A program of a test's own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    path.chmod(0o755)


def make_clone(folder: Path, token: str) -> dict[str, str]:
    """A clone with its environment and settings, and programs in place of npm's and Railway's.

    Answers the variables of a shell in it.
    """
    for name in ("tests", ".railway", "phone_line", "main.py", ".env.example"):
        (folder / name).symlink_to(ROOT / name)
    for name in ("python", "python3"):
        write_program(folder / f".venv/bin/{name}", f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    write_program(folder / ".venv/bin/pip", "#!/bin/sh\n")
    write_program(folder / "bin/npm", "#!/bin/sh\n")
    write_program(folder / "bin/railway", RAILWAY)
    (folder / ".env").write_text(SETTINGS.format(token=token, account=ACCOUNT), "utf-8")
    return {
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(folder),
        "NOTES": str(folder),
        "EVALUATE": EVALUATE,
        "FILE": str(FILE),
    }


@pytest.mark.long
@pytest.mark.needs("bash")
def test_the_steps_of_the_readme_deploy_a_line(tmp_path: Path) -> None:
    """Pasted one after the other, they end with a number that leads to the line, and a check."""
    token = "0123456789abcdef" * 2
    env = make_clone(tmp_path, token)
    line = {"TWILIO_AUTH_TOKEN": token, "TWILIO_ACCOUNT_SID": ACCOUNT}
    state = {"STATE_FILE": str(tmp_path / "calls")}
    with Instance({**line, **state}) as instance, TwilioAccount(instance.url, token) as twilio:
        twilio.number["voice_url"] = "https://demo.twilio.com/welcome/voice/"
        steps = "\n".join(step for step in read_steps() if "--ring" not in step)
        steps = steps.replace('"https://$HOST"', f"{instance.url} --api {twilio.url} --yes")
        subprocess.run(
            ["bash", "-euc", steps], cwd=tmp_path, env=env, stdin=subprocess.DEVNULL, check=True
        )
        assert twilio.number["voice_url"] == f"{instance.url}/voice/inbound{OVERRIDES}"
    applied = json.loads((tmp_path / "applied").read_text(encoding="utf-8"))
    assert applied["project"]["resources"][0]["address"] == "service.phone"
    asked = (tmp_path / "asked").read_text(encoding="utf-8").splitlines()
    assert "config apply --yes" in asked  # which deletes nothing without --confirm-destructive
    words = list(dict.fromkeys(each.split()[0] for each in asked))
    assert words == ["login", "init", "config", "variable", "domain", "up"]
    assert (tmp_path / "given").read_text(encoding="utf-8").splitlines() == [
        f"TWILIO_AUTH_TOKEN={token}",
        f"TWILIO_ACCOUNT_SID={ACCOUNT}",
        "ADMIN_TOKEN=let-me-see-it",
        "GREETING=Hello, and thank you for calling.",
    ]
