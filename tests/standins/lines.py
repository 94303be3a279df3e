"""Lines as plain values: what decides and what renders, without a server around it."""

from collections.abc import Mapping
from typing import Final, NamedTuple

from phone_line.line import build_plan
from phone_line.plan import Plan
from phone_line.records import Answer, Call, Heard
from phone_line.settings import Settings, read_settings
from phone_line.webhook import Webhook

FORWARD: Final = {"FORWARD_TO": "+15550100099"}
MENU: Final = {"DEPARTMENTS": "billing=+15550100001 lost_and-found=+15550100002"}
BACKEND: Final = {"BACKEND_URL": "https://backend.example"}

LINES: Final[Mapping[str, dict[str, str]]] = {
    "alone": {},
    "forward": FORWARD,
    "menu": MENU | FORWARD,
    "menu alone": MENU,
    "backend": BACKEND | MENU | FORWARD,
    "backend alone": BACKEND,
    "German": {"LANGUAGE": "de-DE", **MENU, **FORWARD},
    "auto": {"SPEECH_TIMEOUT": "auto", **BACKEND, **FORWARD},
    "patient": {"SPEECH_TIMEOUT": "10", "SPEECH_MODEL": "deepgram_nova-3", **MENU},
    "slow": {
        "RESPONSE_DEADLINE": "14",
        "VOICE": "Google.en-US-Standard-A",
        "GREETING": "<Hi> & so",
    },
}


class Line(NamedTuple):
    """A line as values: all that decides, and all that renders."""

    settings: Settings
    plan: Plan


def line_of(env: Mapping[str, str]) -> Line:
    known = read_settings({"TWILIO_AUTH_TOKEN": "secret", **env})
    assert known.problems == ()
    plan, faults = build_plan(known)
    assert faults == []
    return Line(known, plan)


def at(step: str, turn: int = 3, *, misses: int = 0, guess: str = "", prompt: str = "") -> Call:
    """A call that waits at a step."""
    return Call(turn=turn, step=step, misses=misses, guess=guess, prompt=prompt)


def said(speech: str, confidence: float | None = 0.9) -> Heard:
    return Heard(speech=speech, confidence=confidence)


def told(say: str = "", then: str = "listen", to: str = "", *, failed: bool = False) -> Heard:
    """The backend has answered."""
    return Heard(speech="hi", answer=Answer(say=say, then=then, to=to, failed=failed))


SILENCE: Final = Heard()
HOOK: Final = Webhook(  # whose answer is rendered
    "CA" + "0" * 32, "+15557654321", "+15550001111", "https://line.example", SILENCE
)
