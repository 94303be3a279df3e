"""The last resort when our own code fails: words for a caller, and a person if there is one.

It reads nothing but the request and the configured numbers, since whatever else there is may be
what failed. It settles nothing either.
"""

from typing import Final

from flask import Request, Response
from twilio.twiml.voice_response import VoiceResponse

from phone_line.answers import Line
from phone_line.records import LAST_TURN, Heard
from phone_line.twiml import next_url, render_apology
from phone_line.webhook import Webhook, read_count

NO_WORDS: Final = ("/voice/status", "/voice/transcript")  # there no caller hears the answer
WHISPER: Final = "/voice/accept"  # there somebody listens who must not be joined with the caller


def apologise(line: Line, request: Request) -> Response:
    """The answer to a request that our own code cannot answer. Never a 500, never silence.

    A person is rung, unless this is what comes after that talk.
    """
    path = request.path.rstrip("/")
    if request.method != "POST" or path in NO_WORDS:
        words = "Something went wrong on our side; the log says more.\n"
        return Response(words, 503, content_type="text/plain; charset=utf-8")
    document = write_hangup() if path == WHISPER else write_apology(line, request)
    return Response(document, content_type="text/xml; charset=utf-8")


def write_hangup() -> str:
    """The end of a callee's leg. A document that simply ends would join it with the caller."""
    response = VoiceResponse()
    response.hangup()
    return str(response)


def write_apology(line: Line, request: Request) -> str:
    """An apology, and a Dial that goes on at the next turn."""
    form = request.form
    caller, called = form.get("From", ""), form.get("To", "")
    webhook = Webhook(form.get("CallSid", ""), caller, called, "", Heard())
    url = ""
    if "DialCallStatus" not in form:
        turn = read_count(request.args.get("turn", ""), LAST_TURN - 1) or 0
        url = next_url(line.settings, 0, {"turn": turn + 1, "step": "operator"})
    plan = line.plan.leave_out((caller, called, form.get("ForwardedFrom", "")))
    return render_apology(line.settings, plan, webhook, url)
