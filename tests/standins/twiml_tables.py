"""What Twilio takes in TwiML: the attributes of each verb, their values, what stands in what.

A check answers what it would have accepted, or None when it is content. Sources: those of twiml.py,
which applies these tables, and for fragments
https://www.twilio.com/docs/usage/webhooks/webhooks-connection-overrides.
"""

import re
from collections.abc import Callable
from typing import Final
from urllib.parse import parse_qsl, urldefrag

from standins.ssml import TAGS

Check = Callable[[str], str | None]


def text(_: str) -> str | None:
    return None


def whole(low: int, high: int | None = None, *also: str) -> Check:
    """Accepts a whole number from `low` to `high` (None: no end), and the words in `also`."""
    span = f"from {low} to {high}" if high is not None else f"of {low} or more"
    wanted = " or ".join([f"a whole number {span}", *map(repr, also)])

    def check(value: str) -> str | None:
        fits = re.fullmatch(r"\d+", value) and low <= int(value) <= (high or int(value))
        return None if fits or value in also else wanted

    return check


def one_of(*values: str) -> Check:
    return lambda value: None if value in values else "one of " + ", ".join(map(repr, values))


def like(pattern: str, wanted: str) -> Check:
    return lambda value: None if re.fullmatch(pattern, value, re.DOTALL) else wanted


def hints(value: str) -> str | None:
    entries = value.split(",")
    fits = len(entries) <= 500 and max(map(len, entries)) <= 100
    return None if fits else "at most 500 phrases of at most 100 characters"


def retry_policy(value: str) -> str | None:
    known = set(value.split(",")) <= {"4xx", "5xx", "ct", "rt", "all"}
    return None if known else "a list of 4xx, 5xx, ct, rt, all"


OVERRIDES: Final[dict[str, Check]] = {
    "ct": whole(100, 10000),
    "rt": whole(100, 15000),
    "tt": whole(100, 15000),
    "rc": whole(0, 5),
    "rp": retry_policy,
    "sni": one_of("y", "n"),
    "e": text,
}


def link(value: str) -> str | None:
    """Accepts a URL without blanks whose fragment holds only connection overrides."""
    if not value or re.search(r"\s", value):
        return "a URL"
    for name, setting in parse_qsl(urldefrag(value).fragment, keep_blank_values=True):
        wanted = OVERRIDES[name](setting) if name in OVERRIDES else "a known override"
        if wanted:
            return f"{wanted} in the fragment, for {name!r}"
    return None


# --- the tables: attributes by verb, who may stand in whom, the codes Twilio gives them ---

BOOL: Final = one_of("true", "false")
METHOD: Final = one_of("GET", "POST")
E164: Final = r"\+[1-9]\d{6,14}"
LANGUAGE: Final = like(r"multi|[a-z]{2,3}(-[A-Za-z0-9]+)*", "a language such as 'en-US'")
MODELS: Final = (
    r"default|numbers_and_commands|phone_call|experimental_(conversations|utterances)"
    r"|googlev2_(long|short|telephony|telephony_short)|deepgram_nova-(2(-\w+)?|3)"
)
# The languages that a speech model knows; any other model, and none, is not in Twilio's table.
# https://www.twilio.com/docs/voice/twiml/gather, "speechModel"; ar is Arabic of every country.
PHONE_CALL: Final = "en-US en-GB en-AU fr-FR fr-CA ja-JP ru-RU es-US es-ES pt-BR"
EXPERIMENTAL: Final = (
    "ar da-DK de-DE en-AU en-GB en-IN en-US es-ES es-US fi-FI fr-CA fr-FR hi-IN ja-JP ko-KR mk-MK"
    " nl-NL no-NO pl-PL pt-BR pt-PT ro-RO ru-RU th-TH tr-TR uk-UA vi-VN"
)
KNOWN_BY: Final = {
    "phone_call": PHONE_CALL.split(),
    "experimental_utterances": EXPERIMENTAL.split(),
    "experimental_conversations": EXPERIMENTAL.split(),
}
SIP: Final = r"sips?:[\w.+-]+@[\w.-]+(:\d+)?([;?].*)?"
# A withheld number as older paths bring it: the word typed on a keypad (anonymous, restricted,
# blocked, unknown, unavailable, private). No carrier takes it for a number.
WITHHELD: Final = frozenset(
    {"+266696687", "+7378742833", "+2562533", "+8656696", "+86282452253", "+7748283"}
)
CALLBACK: Final[dict[str, Check]] = {
    "recordingStatusCallback": link,
    "recordingStatusCallbackMethod": METHOD,
    "recordingStatusCallbackEvent": text,
}
ATTRIBUTES: Final[dict[str, dict[str, Check]]] = {
    "Response": {},
    "Say": {
        "voice": like(r"man|woman|alice|(Polly|Google)\.[\w-]+", "a voice such as 'Polly.Joanna'"),
        "language": LANGUAGE,
        "loop": whole(0, 1000),
    },
    "Play": {"loop": whole(0, 1000), "digits": like(r"[0-9wW#*]+", "keys to press")},
    "Pause": {"length": whole(1)},
    "Gather": {
        "action": link,
        "method": METHOD,
        "input": one_of("dtmf", "speech", "dtmf speech", "speech dtmf"),
        "timeout": whole(1, None, "auto"),
        "speechTimeout": whole(1, None, "auto"),
        "speechModel": like(MODELS, "one of Twilio's speech models"),
        "language": LANGUAGE,
        "hints": hints,
        "enhanced": BOOL,
        "profanityFilter": BOOL,
        "finishOnKey": like(r"[0-9#*]?", "one key, or nothing"),
        "numDigits": whole(1),
        "actionOnEmptyResult": BOOL,
        "partialResultCallback": link,
        "partialResultCallbackMethod": METHOD,
        "bargeIn": BOOL,
        "maxSpeechTime": whole(1),
    },
    "Dial": CALLBACK
    | {
        "action": link,
        "method": METHOD,
        "answerOnBridge": BOOL,
        "timeout": whole(5, 600),
        "timeLimit": whole(1, 86400),
        "callerId": like(rf"{E164}|(client|sip):.+", "a number such as '+15550001111'"),
        "hangupOnStar": BOOL,
        "record": like(
            r"true|false|do-not-record|record-from-(answer|ringing)(-dual)?", "a way to record"
        ),
        "trim": one_of("trim-silence", "do-not-trim"),
        "recordingTrack": one_of("both", "inbound", "outbound"),
        "recordingConfigurationId": text,
        "ringTone": text,
        "sequential": BOOL,
        "referUrl": link,
        "referMethod": METHOD,
        "callReason": text,
        "passports": text,
        "events": text,
    },
    "Number": {
        "url": link,
        "method": METHOD,
        "sendDigits": like(r"[0-9wW#*]+", "keys to press"),
        "statusCallback": link,
        "statusCallbackMethod": METHOD,
        "statusCallbackEvent": text,
        "machineDetection": one_of("Enable", "DetectMessageEnd"),
    },
    "Sip": {
        "url": link,
        "method": METHOD,
        "username": text,
        "password": text,
        "statusCallback": link,
        "statusCallbackMethod": METHOD,
        "statusCallbackEvent": text,
    },
    "Record": CALLBACK
    | {
        "action": link,
        "method": METHOD,
        "timeout": whole(1),
        "finishOnKey": like(r"[0-9#*]*", "keys"),
        "maxLength": whole(1, 14400),
        "playBeep": BOOL,
        "trim": one_of("trim-silence", "do-not-trim"),
        "transcribe": BOOL,
        "transcribeCallback": link,
    },
    "Redirect": {"method": METHOD},
    "Hangup": {},
    "Reject": {"reason": one_of("rejected", "busy")},
}
CHILDREN: Final[dict[str, frozenset[str]]] = {
    "Response": frozenset(
        {"Say", "Play", "Pause", "Gather", "Dial", "Record", "Redirect", "Hangup", "Reject"}
    ),
    "Gather": frozenset({"Say", "Play", "Pause"}),
    "Dial": frozenset({"Number", "Sip"}),
    "Say": TAGS,
}
OTHER_VERBS: Final = frozenset(
    {"Application", "Client", "Conference", "Connect", "Enqueue", "Leave", "Pay", "Prompt", "Queue"}
    | {"Recording", "Refer", "Sim", "Siprec", "Sms", "Start", "Stop", "Stream"}
    | {"Transcription"}
)
CODES: Final[dict[tuple[str, str], int]] = {
    ("Gather", "finishOnKey"): 13310,
    ("Gather", "timeout"): 13313,
    ("Gather", "speechTimeout"): 13327,
    ("Gather", "maxSpeechTime"): 13328,
    ("Gather", "bargeIn"): 13332,
    ("Gather", "speechModel"): 13334,
}
WORDS_IN: Final = frozenset({"Say", "Play", "Number", "Sip", "Dial", "Redirect"})
SCREENING: Final = frozenset({"Say", "Play", "Pause", "Gather", "Hangup"})
FINAL: Final = frozenset({"Redirect", "Hangup", "Reject"})
MOST_SAID: Final = {"Polly": 3000, "Google": 5000, "": 4096}
