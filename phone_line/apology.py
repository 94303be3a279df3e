"""The last resort when our own code fails: words for a caller, and a person if there is one.

It reads nothing but the request and the configured numbers, since whatever else there is may be
what failed. It settles nothing either.
"""

from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from flask import Request, Response

from phone_line.answers import Line
from phone_line.records import LAST_TURN, Heard
from phone_line.twiml import next_url, render_apology
from phone_line.understanding import OPERATOR
from phone_line.webhook import Webhook, read_count, read_query
from phone_line.whisper import ACCEPT, render_key, render_question

NO_WORDS: Final = ("/voice/status", "/voice/transcript")  # there no caller hears the answer
ASIDE: Final = LAST_TURN - 10  # a turn that hardly any call has reached, so nothing stands there
WHISPER: Final = "/voice/accept"  # there somebody listens who must not be joined with the caller


def apologise(line: Line, request: Request) -> Response:
    """The answer to a request that our own code cannot answer. Never a 500, never silence.

    A person is rung, unless this is what comes after that talk.
    """
    path = request.path.rstrip("/")
    if request.method != "POST" or path in NO_WORDS:
        words = "Something went wrong on our side; the log says more.\n"
        return Response(words, 503, content_type="text/plain; charset=utf-8")
    document = write_whisper(line, request) if path == WHISPER else write_apology(line, request)
    return Response(document, content_type="text/xml; charset=utf-8")


def write_apology(line: Line, request: Request) -> str:
    """An apology, and a Dial that goes on at the next turn.

    Whoever picks up is asked to press 1, as after any other words: the owner's own mailbox would
    take the call otherwise, and nobody would hear of it. The question needs no store, and where it
    fails as well, `write_whisper` asks it.
    """
    form = request.form
    caller, called = form.get("From", ""), form.get("To", "")
    webhook = Webhook(form.get("CallSid", ""), caller, called, "", Heard())
    place = read_place(request)
    language = place.get("language", "")
    plan = line.plan.in_language(language)
    plan = plan.leave_out((caller, called, form.get("ForwardedFrom", "")))
    if "DialCallStatus" in form:
        return render_apology(line.settings, plan)
    turn = find_turn(place)
    following: dict[str, object] = {"turn": turn + 1, "step": OPERATOR}
    if plan.words.tag == language:  # one that the caller has chosen, and that the line has
        following["language"] = language
    url = next_url(line.settings, 0, following)
    screen = None
    if line.settings.press_1_to_accept:
        screen = next_url(line.settings, 0, {"turn": turn, "step": OPERATOR}, path="accept")
    return render_apology(line.settings, plan, webhook, url, screen)


def write_whisper(line: Line, request: Request) -> str:
    """The question to whoever picked up, without name and reason; the answer, if a key came."""
    keys = request.form.get("Digits", "")
    if keys:
        return render_key(accepted=keys == ACCEPT)
    place = {"turn": find_turn(read_place(request)), "step": OPERATOR}
    url = next_url(line.settings, 0, place, path="accept")
    return render_question(line, line.plan.sentence("whisper_you_silent"), url)


def read_place(request: Request) -> Mapping[str, str]:
    """The query that says where a call stands: of the URL, or of the one that has failed."""
    failed = request.form.get("ErrorUrl", "")
    with suppress(ValueError):
        return read_query(failed) if failed else request.args
    return {}


def find_turn(place: Mapping[str, str]) -> int:
    """The turn that a query names; 0 if it names none, and out of the way if that is unusable."""
    turn = place.get("turn", "0")
    found = read_count(turn, LAST_TURN - 1)
    return ASIDE if found is None else found
