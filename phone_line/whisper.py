"""Words for whoever picks up a phone that the line rings: who calls, and press 1 to take it.

A mobile that is off or declines answers with its own mailbox, and for Dial that is a talk. A
mailbox presses no key, so the caller gets our voicemail, and the owner hears of the call. Phones
screen calls, too; so the words name what the call is about, and are said twice.

TwiML for the callee's own leg, before the bridge (https://www.twilio.com/docs/voice/twiml/number,
"url"): it may only speak, listen and hang up (error 13201). When it ends without a Hangup, the
legs are joined. It writes nothing, so a repeat gets the same answer.
"""

from contextlib import suppress
from typing import Final

from twilio.twiml.voice_response import VoiceResponse

from phone_line.answers import Line
from phone_line.cells import Cells, StoreUnavailable
from phone_line.deadline import Moment
from phone_line.flow import Transfer
from phone_line.log import write_log
from phone_line.plan import Plan
from phone_line.records import Call, name_cell, read_turn
from phone_line.text import open_end, speak_name
from phone_line.twiml import next_url, say_words, write_document
from phone_line.webhook import Webhook

ACCEPT: Final = "1"
THINKING: Final = 5  # seconds to press the key after the words


def whisper_call(line: Line, webhook: Webhook, caller_sid: str, until: Moment) -> str:
    """The TwiML for a phone that was picked up, or whose owner has keyed something.

    `caller_sid` is the CallSid of the caller, ParentCallSid in the webhook. Its settled cell says
    who calls and why; without it, or without the store, the same is said without name and reason.
    """
    if webhook.heard.keys:
        accepted = webhook.heard.keys == ACCEPT
        write_log("info", "callee", call=caller_sid, accepted=accepted)
        return render_key(accepted=accepted)
    words = choose_words(line.plan, find_call(line, webhook, caller_sid, until))
    place = {"turn": webhook.turn, "step": webhook.step}
    url = next_url(line.settings, webhook.began, place, path="accept")
    return render_question(line, words, url)


def render_key(*, accepted: bool) -> str:
    """The answer to a key: a document that simply ends joins the legs, a Hangup does not."""
    response = VoiceResponse()
    if not accepted:
        response.hangup()
    return write_document(response)


def render_question(line: Line, words: str, url: str) -> str:
    """Words, twice, and time to press a key, which comes to `url`; without a key the leg ends."""
    response = VoiceResponse()
    gather = response.gather(num_digits=1, timeout=THINKING, action=url, finish_on_key="")
    say_words(line.settings, line.plan, gather, words)
    gather.pause(length=1)
    say_words(line.settings, line.plan, gather, words)
    response.hangup()
    return write_document(response)


def find_call(line: Line, webhook: Webhook, caller_sid: str, until: Moment) -> Call:
    """The caller's call as it stands, by one command that only the primary answers."""
    if caller_sid:
        with suppress(StoreUnavailable):
            cells = Cells(line.store, until)
            record = read_turn(cells.read_primary(name_cell(caller_sid, webhook.turn)))
            if record:
                return record
    return Call(step=webhook.step)


def choose_words(plan: Plan, call: Call) -> str:
    """The sentence for the callee: with the department and the reason, as far as they are known."""
    step = plan.flow.get(call.step)
    name = "whisper"
    department = step.to if isinstance(step, Transfer) else ""
    if department in ("", "FORWARD_TO"):
        name += "_you"
    if not call.quote:
        name += "_silent"
    return plan.sentence(name, name=speak_name(department), heard=open_end(call.quote))
