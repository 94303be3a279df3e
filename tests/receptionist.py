"""A pizzeria's receptionist: the worked example of a language model that answers the phone.

    python tests/receptionist.py            # you call; a stand-in plays the model, so no account
    python tests/receptionist.py --play     # the caller below calls

The same against a real endpoint, for example a model on this machine by Ollama:

    BACKEND_URL=http://127.0.0.1:11434/v1/chat/completions BACKEND_MODEL=llama3.2 \
        python tests/receptionist.py --play

There is no code of a receptionist here: `SETTINGS` is all that makes one. The stand-in talks as
models do, with Markdown, emoji and JSON in fences. What a caller then hears is the line's work.
Exit status: 0 if the call went as a call should, 1 if not, 2 for a wrong command.
"""

import argparse
import contextlib
import json
import os
import re
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from phone import function
from standins.asking import Clock
from standins.call import Phone
from standins.instance import Instance
from standins.model import Model, Reply, Talk, says
from standins.screen import announcer, tell
from standins.terminal import Script, Terminal

PROMPT: Final = """\
You are the receptionist of Pizzeria Napoli, 5 Harbour Street. We are open from Tuesday to Sunday,
from 5 in the afternoon to 11 at night. Margherita is 9 euros, Verdura 11, Salami 12; the first two
are vegetarian. We deliver in town for 3 euros, in about 40 minutes. For an order ask for the
pizzas, the address and a name, then repeat all three. Questions about allergies are for the
kitchen. Complaints, and tables for more than six: a person.
"""
SETTINGS: Final = {
    "BACKEND_PROMPT": PROMPT,
    "GREETING": "Pizzeria Napoli, hello!",
    "FORWARD_TO": "+15550100099",
    "DEPARTMENTS": "kitchen=+15550100001",
    "SPEECH_TIMEOUT": "1",
}
REAL: Final = ("BACKEND_URL", "BACKEND_TOKEN", "BACKEND_MODEL")
PRICE_OF_WAITING: Final = 0.2  # seconds that a second on hold takes here, with the stand-in

CALLER: Final = (
    "Do you have anything vegetarian?",
    "How much is the Margherita?",
    "I am allergic to nuts. Can I ask the kitchen?",
)
KITCHEN: Final = {"say": "The kitchen knows that best.", "then": "transfer", "to": "kitchen"}
PERSON: Final = {"say": "Let me find a colleague.", "then": "transfer", "to": "FORWARD_TO"}
GOODBYE: Final = {"say": "Thank you for calling. Goodbye!", "then": "hangup"}
# What the stand-in says to words of the caller, from the first pattern that fits.
MANNERS: Final = (
    ("allerg|kitchen", f"Of course.\n```json\n{json.dumps(KITCHEN, indent=2)}\n```"),
    ("person|human|manager|complain", json.dumps(PERSON)),
    (r"\bbye\b|that is all|thank you", f"{json.dumps(GOODBYE)}\nHave a nice day!"),
    (
        r"vegetarian|vegan",
        "Yes! 🍕\n\n- **Margherita**\n- **Verdura**\n\nWhich one would you like?",
    ),
    ("how much|price|cost", "The *Margherita* is 9 euros. Would you like to order it?"),
    ("open|close|when", "We are open from Tuesday to Sunday, from 5 to 11."),
    ("", "Would you like to order a pizza, or know something about us?"),
)


def answer_caller(talk: Talk) -> Reply:
    """The stand-in's answer. It takes no time, which no model manages."""
    heard = talk.heard.lower()
    return says(next(words for pattern, words in MANNERS if re.search(pattern, heard)))


def converse(caller: Phone) -> None:
    """Call, say what `CALLER` says as long as somebody listens, and do what then has to be done."""
    caller.ring()
    for words in CALLER:
        if caller.state != "gather":
            break
        began = time.monotonic()
        caller.say(words)
        hold_on(caller)
        tell(f"# answered after {time.monotonic() - began:.1f} s")
    if caller.state == "dial":
        caller.callee("completed")
    if caller.state == "record":
        caller.leave_message()
    if caller.state != "ended":
        caller.hang_up()


def hold_on(caller: Phone) -> None:
    """Stay on hold for as long as it takes."""
    while caller.state == "hold":
        caller.wait()


def sum_up(caller: Phone, instance: Instance) -> bool:
    """Tell what the answers cost, and what was wrong; answer whether all was well."""
    log = instance.log()
    answers = [entry for entry in log if entry.get("message") == "backend answered"]
    for entry in answers:
        tell(f"# turn {entry['turn']}: {entry['seconds']} s, {entry.get('tokens', 0)} tokens")
    errors = [entry for entry in log if entry.get("level") == "error"]
    for entry in errors:
        tell(f"# error in the log: {entry['message']}: {entry.get('cause', '')}")
    for problem in caller.broken:
        tell(f"# broken {problem}")
    return bool(answers) and not errors and not caller.broken


@contextlib.contextmanager
def find_model(env: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """The settings of the model at BACKEND_URL, if that is given; else of a stand-in."""
    if env.get("BACKEND_URL"):
        yield {name: env[name] for name in REAL if env.get(name)}
        return
    with Model(answer_caller) as model:
        yield model.settings


def main(given: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description="Call a pizzeria where a language model answers.")
    parser.add_argument("--play", action="store_true", help="let the caller of this file call")
    parser.add_argument("--say", action="store_true", help="speak the line's words aloud")
    options = parser.parse_args(given)
    if os.environ.get("BACKEND_URL") and not os.environ.get("BACKEND_MODEL"):
        parser.error("BACKEND_URL needs BACKEND_MODEL: which model is asked there?")
    pace = 1.0 if os.environ.get("BACKEND_URL") else PRICE_OF_WAITING
    token = uuid.uuid4().hex
    with (
        find_model(os.environ) as model,
        function({**SETTINGS, **model}, token) as (instance, state),
    ):
        tell(f"# {model['BACKEND_MODEL']} answers at {model['BACKEND_URL']}")
        caller = Phone(
            instance.url, token=token, say=announcer(aloud=options.say), clock=Clock(pace=pace)
        )
        if options.play:
            converse(caller)
            return 0 if sum_up(caller, instance) else 1
        return Terminal(caller, Script(sys.stdin.fileno()), instance, state).converse()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except RuntimeError as error:
        sys.exit(f"receptionist: {error}")
    except EOFError:  # nobody reads any more
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
