"""The callers of a chaos run: whom they call, what they wait to hear, and what they then do.

What the line says is taken from its words file, so whoever changes a sentence changes none here.
"""

import re
import tomllib
from typing import Final

from standins.instance import ROOT
from tools.chaos_backend import ANSWER
from tools.chaos_ledger import BILLING, CANCEL, FORWARD, Script

WORDS: Final = ROOT / "phone_line/words/en.toml"
SENTENCES: Final = tomllib.loads(WORDS.read_text(encoding="utf-8"))["sentences"]


def said(sentence: str, /, **values: str) -> str:
    """A pattern for a sentence of the line; what fills its placeholders may be left open."""
    parts = re.split(r"{(\w+)}", SENTENCES[sentence])
    filled = [values.get(blank, ".*") for blank in parts[1::2]]
    texts = map(re.escape, parts[::2])
    return "".join(text + blank for text, blank in zip(texts, [*filled, ""], strict=True))


MENU: Final = said("menu_item", name="billing", key="1")
HELP: Final = said("ask_help")
GOODBYE: Final = said("goodbye")
RECORDED: Final = said("message_taken")
BUG: Final = said("apology")
GREETING: Final = said("greeting")
RECORDS: Final = "line records"
NOBODY: Final = f"{said('no-answer')}.*{RECORDS}"
FOR_BILLING: Final = f"callee hears: {said('whisper', name='billing', heard='.*')}"
FOR_CANCEL: Final = f"callee hears: {said('whisper_silent', name='cancel')}"
FOR_YOU: Final = f"callee hears: {said('whisper_you_silent')}"
CALLED: Final = f"callee hears: {said('whisper_silent', name='billing')}"
HOLDING: Final = "line waits"
ASK: Final = "caller: please answer {} about {{case}}"
NONSENSE: Final = "caller: purple monkey dishwasher"
SILENT: Final = "caller is silent"
PICKS_UP, TAKES, LEAVES = "callee answers", "callee presses 1", "caller leaves a message"
ANY_WHISPER: Final = f"{FOR_BILLING}|{CALLED}"  # with Redis away the reason is left out


def dials(number: str) -> str:
    """A pattern for the line ringing one number."""
    return f"dials \\{number}$"


SCRIPTS: Final = (
    Script(
        "presses a key, talks",
        "menu",
        ((MENU, "caller presses 1"), (dials(BILLING), PICKS_UP), (CALLED, TAKES)),
        GOODBYE,
    ),
    Script(
        "says a word, it is busy, leaves a message",
        "menu",
        (
            (MENU, "caller: I would like to cancel my contract"),
            (dials(CANCEL), "callee is busy"),
            (f"{said('busy')}.*{RECORDS}", LEAVES),
        ),
        RECORDED,
    ),
    Script(
        "is answered by a mailbox, leaves a message",
        "menu",
        (
            (MENU, "caller presses 1"),
            (dials(BILLING), "callee's voicemail answers"),
            (NOBODY, LEAVES),
        ),
        RECORDED,
    ),
    Script(
        "is not taken by whoever picks up",
        "menu",
        (
            (MENU, "caller: two please"),
            (dials(CANCEL), PICKS_UP),
            (FOR_CANCEL, "callee presses 5"),
            (NOBODY, LEAVES),
        ),
        RECORDED,
    ),
    Script(
        "loses whoever picks up, hangs up after the beep",
        "menu",
        (
            (MENU, "caller presses 0"),
            (dials(FORWARD), PICKS_UP),
            (FOR_YOU, "callee hangs up"),
            (NOBODY, "caller hangs up"),
        ),
        "",
    ),
    Script(
        "mumbles, confirms, talks",
        "menu",
        (
            (MENU, "caller: billing (confidence 0.3)"),
            (said("did_you_say", name="billing"), "caller: yes"),
            (dials(BILLING), PICKS_UP),
            (CALLED, TAKES),
        ),
        GOODBYE,
        remembered=True,
    ),
    Script(
        "is silent until the line records",
        "menu",
        (
            (MENU, SILENT),
            (f"{said('not_heard')}.*{MENU}", SILENT),
            (f"{said('not_heard')}.*{said('help')}.*{MENU}", SILENT),
            (f"{said('not_heard')}.*{RECORDS}", LEAVES),
        ),
        RECORDED,
        remembered=True,
    ),
    Script(
        "talks nonsense until a person comes",
        "menu",
        (
            (MENU, NONSENSE),
            (f"{said('not_understood')}.*{MENU}", NONSENSE),
            (f"{said('not_understood')}.*{said('help')}.*{MENU}", NONSENSE),
            (f"{said('giving_up')}.*{dials(FORWARD)}", PICKS_UP),
            (FOR_YOU, TAKES),
        ),
        GOODBYE,
        remembered=True,
    ),
    Script(
        "talks nonsense, has it repeated, leaves a message",
        "menu",
        (
            (MENU, NONSENSE),
            (f"{said('not_understood')}.*{MENU}", "caller presses *"),
            (MENU, "caller: two"),
            (dials(CANCEL), "callee fails"),
            (f"{said('failed')}.*{RECORDS}", LEAVES),
        ),
        RECORDED,
    ),
    Script("hangs up at the menu", "menu", ((MENU, "caller hangs up"),), ""),
    Script(
        "consults twice, is connected",
        "desk",
        (
            (HELP, ASK.format("quick then listen")),
            (f"{ANSWER}.$", ASK.format("quick then transfer")),
            (f"{ANSWER}.*{dials(BILLING)}", PICKS_UP),
            (ANY_WHISPER, TAKES),
        ),
        GOODBYE,
        remembered=True,
    ),
    Script(
        "waits for an answer, leaves a message",
        "desk",
        ((HELP, ASK.format("slow then voicemail")), (f"{ANSWER}.*{RECORDS}", LEAVES)),
        RECORDED,
        remembered=True,
    ),
    Script(
        "waits for an answer, asks on, is connected",
        "desk",
        (
            (HELP, ASK.format("slow then listen")),
            (f"{ANSWER}.$", ASK.format("slow then transfer")),
            (f"{ANSWER}.*{dials(BILLING)}", PICKS_UP),
            (ANY_WHISPER, TAKES),
        ),
        GOODBYE,
        remembered=True,
    ),
    Script(
        "gets an answer at the third attempt",
        "desk",
        ((HELP, ASK.format("flaky then hangup")),),
        ANSWER,
        remembered=True,
    ),
    Script(
        "gets an answer though the first one was lost",
        "desk",
        (
            (HELP, ASK.format("lossy then transfer")),
            (f"{ANSWER}.*{dials(BILLING)}", "callee's voicemail answers"),
            (NOBODY, LEAVES),
        ),
        RECORDED,
        remembered=True,
    ),
    Script(
        "gets a person since the backend refuses",
        "desk",
        (
            (HELP, ASK.format("broken then hangup")),
            (f"{said('no_result')}.*{dials(FORWARD)}", PICKS_UP),
            ("callee hears: ", TAKES),
        ),
        GOODBYE,
        remembered=True,
    ),
    Script(
        "hangs up on hold",
        "desk",
        ((HELP, ASK.format("slow then hangup")), (HOLDING, "caller hangs up")),
        f"{ANSWER}|^$",
        remembered=True,
    ),
)
# What an excused call may hear in addition to its script, and what its caller does then.
DETOURS: Final = (
    (f"{RECORDS}$", LEAVES),
    (f"({said('no_result')}|{said('giving_up')}).*{dials(FORWARD)}", PICKS_UP),
    ("callee hears: ", TAKES),
)
DETOUR_ENDS: Final = f"{GOODBYE}|{RECORDED}"
