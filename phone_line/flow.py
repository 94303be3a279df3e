"""The call as a table: every step says something and names the steps that can follow it.

To change what happens in a call, edit `build_flow`. What a step says is the name of a sentence in
`words/*.toml`, or the sentence itself. `checks.py` rehearses the whole table before the first call.
A new kind of step is a class here; `conversation.py` decides what it does, `twiml.py` says it, and
mypy names every `match` that has to know it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from phone_line.settings import Settings


class Ask(NamedTuple):
    """Ask, and listen for speech and keys together."""

    say: str
    routes: Mapping[str, str] = MappingProxyType({})  # what is said or keyed: step, in order
    then: str = ""  # where any other words go; without it they are nonsense
    keys: int | None = 1  # how many keys make an answer; None: as many as come before #


class Offer(NamedTuple):
    """Offer the line's languages, each in its own voice, and go on in the one that is chosen."""

    languages: tuple[str, ...]  # tags like en-US; the key of the first is 1, and it is the default


class Tell(NamedTuple):
    """Say something and go on."""

    say: str
    then: str


class Transfer(NamedTuple):
    """Connect the caller to FORWARD_TO or a department; no number, no answer: `unanswered`."""

    to: str
    say: str
    unanswered: str


class Voicemail(NamedTuple):
    """Record a message."""

    say: str
    then: str


class Consult(NamedTuple):
    """Ask the backend what comes next; `listen` is where it continues the conversation."""

    listen: str
    failed: str


class End(NamedTuple):
    """Say something and hang up."""

    say: str


class Refuse(NamedTuple):
    """Do not even answer the call: nothing is billed."""

    reason: Literal["rejected", "busy"]


Step = Ask | Offer | Tell | Transfer | Voicemail | Consult | End | Refuse
Flow = Mapping[str, Step]

# Steps that `decide` goes to by itself, and those at which a call may begin.
NEEDED = ("start", "operator", "voicemail", "message_taken", "goodbye")
ENTRANCES = ("start", "closed", "blocked", "too_many")  # or "language", in place of the first two


def build_flow(settings: Settings) -> Flow:
    """The steps of this line. Every call begins at one of the `ENTRANCES`."""
    menu = {name: name_step(name) for name in settings.departments}
    person = "FORWARD_TO"
    if menu and not settings.forward_to:
        person = next(iter(menu))  # somebody has to take the calls of those who ask for a person
    table: dict[str, Step] = {
        "start": Tell("greeting", then=choose_first(settings)),
        "reason": Ask("ask_reason", then="connect"),
        "connect": Transfer("FORWARD_TO", say="heard_connecting", unanswered="voicemail"),
        "operator": Transfer(person, say="connecting", unanswered="voicemail"),
        "voicemail": Voicemail("leave_message", then="message_taken"),
        "message_taken": End("message_taken"),
        "goodbye": End("goodbye"),
        "closed": Tell("closed", then="voicemail"),
        "blocked": Refuse("rejected"),
        "too_many": Refuse("busy"),
    }
    if len(settings.language) > 1:
        table["language"] = Offer(settings.language)
    if menu:
        table["menu"] = Ask("ask_menu", routes=menu)
    for name, step in menu.items():
        table[step] = Transfer(name, say="connecting_department", unanswered="voicemail")
    if settings.backend_url:
        table["listen"] = Ask("ask_help", then="think", keys=None)
        table["think"] = Consult(listen="listen", failed="operator")
    return table


def choose_first(settings: Settings) -> str:
    """The first question of a call: the backend's, else the menu, else the reason of the call."""
    if settings.backend_url:
        return "listen"
    if settings.departments:
        return "menu"
    return "reason"


def name_step(department: str) -> str:
    """The step that connects to a department."""
    return f"to_{department}"


def follow_steps(step: Step) -> tuple[str, ...]:
    """The names of the steps that can follow this one."""
    match step:
        case Ask():
            open_question = (step.then,) if step.then else ()
            return (*step.routes.values(), *open_question)
        case Tell() | Voicemail():
            return (step.then,)
        case Transfer():
            return (step.unanswered,)
        case Consult():
            return (step.listen, step.failed)
        case Offer() | End() | Refuse():
            return ()
