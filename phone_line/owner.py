"""News for the owner, at NOTIFY_URL: a message, its words, or a call that nobody took.

One POST an event, JSON, and `Idempotency-Key: {CallSid}:{event}`, the same on every attempt:

    event         voicemail, missed or transcript
    text          a sentence for people, in the line's first language
    content       the same: some chat services read the one name, some the other
    call_sid      the call
    from, to      who called, and the number that was called
    heard         what the caller said first
    seconds       length of the message, or of a call that was missed
    recording     a link that plays the message, for seven days; see `links.py`
    transcript    the words of the message
    at            when it happened, in Unix seconds

Whatever receives it: the sentence is bounded (Discord takes 2000 letters), and nothing in it is a
command to a chat service, because callers choose their words, and some of them even their number.
A redirect is not followed: the message is for this address.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from http.client import HTTPException
from typing import Any, Final

from phone_line.answers import Line
from phone_line.backend import AGAIN, BackendFailed
from phone_line.deadline import Moment
from phone_line.http import Endpoint
from phone_line.links import link_recording
from phone_line.log import find_cause
from phone_line.outcome import find_words
from phone_line.records import MISSED, TRANSCRIPT, VOICEMAIL, Ending, Message, Record, Transcript
from phone_line.text import clean_text, shorten
from phone_line.webhook import Webhook
from phone_line.words import Words, unfilled

# What the owner is told, by its name in the words file, and what is filled in.
SENTENCES: Final = (
    *("owner_voicemail", "owner_missed", "owner_missed_silent", "owner_transcript"),
    *("owner_transcript_failed", "withheld"),
)
FILLED: Final = ("caller", "seconds", "link", "heard", "transcript")

LONGEST: Final = 2000  # letters of a sentence
MOST_WORDS: Final = 1500  # letters of the caller's words in it, so that a link fits behind them
FINAL: Final = range(400, 500)  # statuses that say: not this, nor later

# Slack makes links and alarms of <...>; Discord alarms everybody who is there at two words.
LINKS: Final = "[<>]"
ALARMS: Final = r"@+(?=everyone\b|here\b)"


class Owner:
    """The service at NOTIFY_URL."""

    name: Final = "NOTIFY_URL"
    mark: Final = "notified"
    lease: Final = "notices"
    events: Final = (VOICEMAIL, MISSED, TRANSCRIPT)
    wants_past: Final = True

    def __init__(self, line: Line) -> None:
        """The owner is told in the line's first language, whichever the caller has chosen."""
        plan = line.plan.in_language(line.settings.language[0])
        self.line = replace(line, plan=plan)

    @cached_property
    def endpoint(self) -> Endpoint:
        """The connections to the service, made when it is needed first."""
        return Endpoint(self.line.settings.notify_url, {"User-Agent": "phone-line"})

    def tell(
        self,
        webhook: Webhook,
        event: str,
        fact: Message | Transcript | Ending,
        past: Sequence[Record],
        until: Moment,
    ) -> None:
        """One attempt to bring an event. Raises BackendFailed, which never names the address."""
        body = json.dumps(write_notice(self.line, webhook, event, fact, past)).encode()
        key = f"{webhook.call_sid}:{event}"
        try:
            answer = self.endpoint.post(body, until, {"Idempotency-Key": key})
        except (OSError, HTTPException) as error:
            raise BackendFailed(f"NOTIFY_URL does not answer: {find_cause(error)}") from None
        if not 200 <= answer.status < 300:
            final = answer.status in FINAL and answer.status not in AGAIN
            raise BackendFailed(f"NOTIFY_URL answered {answer.status}", final=final)


def write_notice(
    line: Line,
    webhook: Webhook,
    event: str,
    fact: Message | Transcript | Ending,
    past: Sequence[Record],
) -> Mapping[str, Any]:
    """The fields of an event."""
    caller = webhook.caller or (past[0].caller if past else "")
    notice = {
        "event": event,
        "text": "",
        "content": "",
        "call_sid": webhook.call_sid,
        "from": caller,
        "to": webhook.called,
        "heard": find_words(past),
        "seconds": 0,
        "recording": "",
        "transcript": "",
        "at": round(fact.at),
    }
    match fact:
        case Ending():
            notice["seconds"] = fact.seconds
        case Message():
            notice["seconds"] = fact.seconds
            notice["recording"] = write_link(line, webhook, fact)
        case Transcript():
            notice["recording"] = write_link(line, webhook, fact)
            notice["transcript"] = fact.text
    sentence = write_sentence(line, webhook._replace(caller=caller), notice)
    return {**notice, "text": sentence, "content": sentence}


def write_link(line: Line, webhook: Webhook, fact: Message | Transcript) -> str:
    """A link that plays a message; Twilio's own, which asks for a login, where there is none."""
    path = link_recording(line.settings, fact.recording_url, fact.at)
    if not path:
        return fact.recording_url
    origins = line.settings.public_url or (webhook.base,)
    return origins[-1] + path


def write_sentence(line: Line, webhook: Webhook, notice: Mapping[str, Any]) -> str:
    """An event as a sentence for people."""
    sentence = line.plan.sentence(
        choose_sentence(notice),
        caller=name_caller(line, webhook),
        seconds=str(notice["seconds"]),
        link=notice["recording"],
        heard=quote_words(notice["heard"]),
        transcript=quote_words(notice["transcript"]),
    )
    return clean_text(sentence, LONGEST)


def choose_sentence(notice: Mapping[str, Any]) -> str:
    """The name of an event's sentence in the words file."""
    event = notice["event"]
    if event == MISSED and not notice["heard"]:
        return "owner_missed_silent"
    if event == TRANSCRIPT and not notice["transcript"]:
        return "owner_transcript_failed"
    return f"owner_{event}"


def name_caller(line: Line, webhook: Webhook) -> str:
    """The caller: a number, the name of a client, or that it is withheld."""
    if webhook.is_withheld:
        return line.plan.sentence("withheld")
    return quote_words(webhook.caller)


def quote_words(words: str) -> str:
    """The words of somebody else, as they can stand in a chat.

    Alarms are looked for last: "@<everyone" is one only when the bracket is gone.
    """
    return re.sub(ALARMS, "", shorten(re.sub(LINKS, "", words), MOST_WORDS))


def find_faults(words: Words) -> Iterator[str]:
    """The faults of the sentences for the owner, each in one plain sentence."""
    for name in SENTENCES:
        place, sentence = words.place_of(name), words.sentences.get(name, "")
        if not sentence:
            yield f"{place}: there is no sentence {name!r}, and the owner is told it"
        for blank in unfilled(sentence, FILLED):
            yield f"{place}: {name!r} has {blank}, which nothing fills in"
