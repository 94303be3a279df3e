"""A late answer, and who speaks it.

A caller on hold comes back now and then to look. With a login for Twilio's REST API the worker
need not wait for that: it moves the call to the answer (a push). Look and push may meet, and then
the caller would hear the answer twice, or be dialled twice. So whoever is about to speak a late
answer first claims the cell `voice`; exactly one gets it.
- A webhook that waits for the worker in the same process needs no claim: then no push begins.
- A look that loses keeps a silence that outlasts the push. If the push fails, it then speaks.
- Before and after its claim a pusher checks that the call has not gone on: while Redis was away, a
  caller who came back may have been given the answer without a claim.
"""

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from phone_line.answers import Line
from phone_line.cells import Cells, StoreUnavailable
from phone_line.deadline import Moment
from phone_line.log import find_cause, write_log
from phone_line.records import Question
from phone_line.settings import Settings
from phone_line.slow_work import LEASE
from phone_line.twiml import next_url
from phone_line.webhook import Webhook

if TYPE_CHECKING:
    from twilio.rest import Client

CONNECT: Final = 2.0  # seconds for a connection to Twilio's API
REPLY: Final = 5.0  # seconds for its answer: three or four have been seen under load
PAUSE: Final = 0.5  # seconds until another attempt, after Twilio put one off or refused a login
LATEST: Final = 1.5  # seconds after the claim: no attempt begins later than that
LIMIT: Final = LATEST + CONNECT + REPLY  # seconds after the claim: no push arrives later than that
SILENCE: Final = 9  # seconds: outlasts LIMIT
# "Never processed, safe to repeat": https://www.twilio.com/docs/api/errors/20429
TOO_MANY: Final = 429
NO_LOGIN: Final = 401  # https://www.twilio.com/docs/api/errors/20003
CALL_IS_OVER: Final = 21220  # https://www.twilio.com/docs/api/errors/21220

# Who may hold the voice. No push can come once somebody else has it.
LOOKS, TALKS, PUSHES = "look", "person", "push by "


def may_speak(line: Line, cells: Cells, webhook: Webhook) -> bool:
    """Tell whether a webhook may speak a late answer, or a push is about to."""
    if webhook.pushed or not line.settings.rest_logins:
        return True
    try:
        holder = cells.settle(webhook.cell(webhook.turn, "voice"), LOOKS)
        return not holder.startswith(PUSHES)
    except StoreUnavailable:
        return True  # at worst it is said twice; a caller who hears nothing is worse off


def forbid_push(line: Line, webhook: Webhook, until: Moment) -> None:
    """No push may end this talk: say so as soon as the store can be told. Runs in the background.

    The talk goes on without the worker's answer, with a person or with the question asked again,
    because the store was away or our own code has failed. The worker may know nothing of it.
    """
    while time.monotonic() < until:
        with suppress(StoreUnavailable):
            cells = Cells(line.store, time.monotonic() + 4)
            cells.settle(webhook.cell(webhook.turn, "voice"), TALKS)
            return
        time.sleep(LEASE / 4)


def push_caller(line: Line, webhook: Webhook, question: Question, owner: str) -> None:
    """Move a held caller to the answer, unless it is spoken already or the caller has gone on."""
    try:
        clients = open_clients(line.settings)  # which takes long the first time
        claim = PUSHES + owner
        if has_gone_on(line, webhook):
            return
        claimed = time.monotonic()
        cells = Cells(line.store, claimed + 4)
        if cells.settle(webhook.cell(webhook.turn, "voice"), claim) != claim:
            return
        if has_gone_on(line, webhook):
            return
        place: dict[str, object] = {"turn": webhook.turn, "step": question.step, "hold": 1}
        place |= {"since": int(question.at), "pushed": 1}
        if webhook.language:
            place["language"] = webhook.language
        path = next_url(line.settings, webhook.began, place)
        origin = (webhook.base, *line.settings.public_url)[-1]  # the new one of two
        while time.monotonic() < claimed + LATEST:
            if redirect_call(clients, webhook.call_sid, origin + path):
                return
            time.sleep(PAUSE)
    except Exception as error:  # the next look brings the answer all the same
        write_log("error", "push failed", call=webhook.call_sid, cause=find_cause(error))


def has_gone_on(line: Line, webhook: Webhook) -> bool:
    """Tell whether the call has ended, or the caller has replied to the late answer already."""
    answered = webhook.turn + 1
    cells = Cells(line.store, time.monotonic() + 4)
    names = (webhook.cell("end"), webhook.cell(answered + 1), webhook.cell(answered, "asked"))
    return any(cells.read(*names))


def open_clients(settings: Settings) -> "list[Client]":
    """Twilio's own client for its REST API, once for each login.

    The library is loaded only here, because that takes long, and few lines need it.
    """
    from twilio.http.http_client import TwilioHttpClient
    from twilio.rest import Client

    http_client = TwilioHttpClient()
    http_client.timeout = (CONNECT, REPLY)  # as requests takes it; by itself it waits for ever
    account = settings.twilio_account_sid
    return [Client(*login, account, http_client=http_client) for login in settings.rest_logins]


def redirect_call(clients: "list[Client]", call_sid: str, url: str) -> bool:
    """Send a live call to a URL. False: not now, but it may be tried again.

    A login that Twilio refuses is dropped, if there is another one. Raises whatever the library
    raises for any other failure.
    """
    from twilio.base.exceptions import TwilioRestException

    try:
        clients[0].calls(call_sid).update(url=url, method="POST")
    except TwilioRestException as error:
        if error.code == CALL_IS_OVER:
            return True
        if error.status == NO_LOGIN and len(clients) > 1:
            del clients[0]
        elif error.status != TOO_MANY:
            raise
        return False
    return True
