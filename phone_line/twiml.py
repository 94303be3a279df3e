"""A reply as the TwiML that Twilio executes (https://www.twilio.com/docs/voice/twiml).

Every URL that we hand out names the turn that will come back to it, the step that is waiting there
(a hint, for when there is no record that the caller has heard), and when the call began. Twilio
signs it, and repeats it verbatim when it retries.
"""

from collections.abc import Mapping
from typing import Final
from urllib.parse import urlencode
from xml.etree.ElementTree import tostring

from twilio.twiml.voice_response import Dial, Gather, Record, VoiceResponse

from phone_line.conversation import Reply
from phone_line.flow import Ask, Consult, End, Offer, Refuse, Tell, Transfer, Voicemail
from phone_line.phones import split_phones
from phone_line.plan import Plan
from phone_line.recognition import choose_model
from phone_line.records import Call
from phone_line.settings import Settings
from phone_line.text import drop_unfit, fit_say, speak_name
from phone_line.values import E164, matching
from phone_line.webhook import Webhook

MOST_HINTS: Final = 6  # of each list, the commonest first; more would make each of them count less
TALK: Final = 3600  # seconds that a transfer may last; Twilio's own limit of four hours costs money
MESSAGE: Final = 180  # seconds of a voicemail
TRANSCRIBED: Final = 119  # seconds of one that is transcribed: Twilio takes less than two minutes
LONGEST_SILENCE: Final = 10  # seconds that we sit through, at most
DECLARATION: Final = '<?xml version="1.0" encoding="UTF-8"?>'
# Words and seconds of waiting of each hold: few and long, because trial accounts allow ten hops.
HOLDS: Final = (("hold_1", 4), ("hold_2", 9), ("hold_3", 10))


def next_url(
    settings: Settings, began: int, query: Mapping[str, object], path: str = "process"
) -> str:
    """The URL, relative, at which Twilio brings what comes next in a call.

    `began` is the Unix time of the call's first webhook; 0 leaves it out.
    """
    if began:
        query = {**query, "began": began}
    return f"/voice/{path}?{urlencode(query)}{connection_overrides(settings)}"


def place_of(call: Call) -> dict[str, object]:
    """Where a call stands, for a URL."""
    place: dict[str, object] = {"turn": call.turn, "step": call.step}
    if call.language:
        place["language"] = call.language
    return place


def connection_overrides(settings: Settings) -> str:
    """Have Twilio ask us again when an instance dies or is still waking up, as a URL fragment.

    Without it only a failed connect is retried, once. All attempts together get 15 seconds
    (https://www.twilio.com/docs/usage/webhooks/webhooks-connection-overrides), so an attempt is
    given up shortly after the deadline within which we answer, and whatever failed is asked again.
    """
    patience = int(settings.response_deadline * 1000) + 500
    return f"#rc=5&rp=all&ct=2000&rt={patience}"


def render_reply(settings: Settings, plan: Plan, webhook: Webhook, call: Call, reply: Reply) -> str:
    """A reply as TwiML, in the call's language: also when the caller has chosen it just now.

    Prompts are nested in Gather, so that an answer cuts them short.
    """
    plan = plan.in_language(call.language)
    response = VoiceResponse()
    url = next_url(settings, webhook.began, place_of(call))
    speaker: VoiceResponse | Gather = response
    if isinstance(reply.step, Ask):
        speaker = gather_answer(settings, plan, reply, reply.step, url)
        response.append(speaker)
    if isinstance(reply.step, Offer):
        response.append(offer_languages(settings, plan, reply, reply.step, url))
    for sentence in reply.says:
        say_words(settings, plan, speaker, sentence)
    match reply.step:
        case Ask() | Offer():
            pass  # what is asked stands in the Gather
        case Transfer():
            response.append(dial_phones(settings, plan, webhook, call, reply.step, url))
        case Voicemail():
            response.append(record_message(settings, webhook, call, url))
            response.redirect(url)  # nothing said: there is no recording, and Twilio goes on here
        case Refuse(reason=reason):
            response.reject(reason=reason)
        case End():
            response.hangup()
        case Tell() | Consult():
            response.redirect(url)  # nobody waits here: go on at the next turn
    return write_document(response)


def write_document(response: VoiceResponse) -> str:
    """TwiML as text, at once: `str` writes bytes first, which takes twice as long."""
    return DECLARATION + tostring(response.xml(), encoding="unicode")


def say_words(settings: Settings, plan: Plan, speaker: VoiceResponse | Gather, words: str) -> None:
    """Say words in the line's voice. Polly.Joanna and the like have a language of their own.

    A voice with another language would make Say fail, and then en-GB would be silence. Telephone
    numbers are tagged as such for voices that know the tag.
    """
    sayable = fit_say(words)
    if not sayable:
        return
    voice = plan.words.voice
    if settings.voice and plan.words.tag == settings.language[0]:
        voice = settings.voice
    language = None if "." in voice else plan.words.tag
    say = speaker.say(voice=voice, language=language)
    for part, is_phone in split_phones(sayable, voice):
        if is_phone:
            say.say_as(part, interpret_as="telephone")
        else:
            say.append(part)


def gather_answer(settings: Settings, plan: Plan, reply: Reply, ask: Ask, url: str) -> Gather:
    """Listen for speech and keys. `speechTimeout=auto` drops the model: Twilio forbids the pair.

    https://www.twilio.com/docs/voice/twiml/gather, warning 13335.
    """
    pause, model = settings.speech_timeout, None
    if pause != "auto":
        pause = str(min(int(pause) + reply.patience, LONGEST_SILENCE))
        short = bool(ask.routes) or reply.guessing
        model = settings.speech_model or choose_model(plan.words.tag, short=short)
    return Gather(
        input="dtmf speech",
        action=url,
        timeout=min(5 + reply.patience, LONGEST_SILENCE),
        speech_timeout=pause,
        speech_model=model or None,
        language=plan.words.tag,
        hints=", ".join(hint_words(plan, ask, reply)),
        num_digits=ask.keys,
        finish_on_key="#" if ask.keys is None else "",
        action_on_empty_result=True,
    )


def offer_languages(settings: Settings, plan: Plan, reply: Reply, offer: Offer, url: str) -> Gather:
    """Say each language's offer in its own voice, and listen for a key or the language's name."""
    plans = [plan.in_language(tag) for tag in offer.languages]
    names = [name for each in plans for name in each.words.chosen_by[:1]]
    model = choose_model(plan.words.tag, short=True)
    if settings.speech_timeout == "auto":
        model = ""
    gather = Gather(
        input="dtmf speech",
        action=url,
        timeout=min(5 + reply.patience, LONGEST_SILENCE),
        speech_timeout=settings.speech_timeout,
        speech_model=model or None,
        language=plan.words.tag,
        hints=", ".join(names),
        num_digits=1,
        finish_on_key="",
        action_on_empty_result=True,
    )
    for key, each in enumerate(plans, 1):
        say_words(settings, each, gather, each.sentence("language_offer", key=str(key)))
    return gather


def hint_words(plan: Plan, ask: Ask, reply: Reply) -> list[str]:
    """The words to expect: the choices, their keys as words, and the commands."""
    words = plan.words
    hints = [drop_unfit(speak_name(name)) for name in ask.routes]
    if ask.routes:
        hints += words.hints
    if reply.guessing:
        hints += [*words.yes[:MOST_HINTS], *words.no[:MOST_HINTS]]
    hints += [*words.operator[:MOST_HINTS], *words.repeat[:MOST_HINTS]]
    return list(dict.fromkeys(hints))


def dial_phones(
    settings: Settings, plan: Plan, webhook: Webhook, call: Call, step: Transfer, url: str
) -> Dial:
    """Ring all phones of a step at once; the first that takes the call has it.

    A SIP address may be an agent or a telephone system, which cannot press keys: it is not asked.
    """
    screen = None
    if settings.press_1_to_accept:
        screen = next_url(settings, webhook.began, place_of(call), path="accept")
    dial = Dial(
        action=url,
        answer_on_bridge=True,
        timeout=settings.ring_seconds,
        time_limit=TALK,
        caller_id=choose_caller_id(settings, webhook) or None,
    )
    for phone in plan.numbers[step.to]:
        add_phone(dial, phone, screen)
    return dial


def add_phone(dial: Dial, phone: str, screen: str | None = None) -> None:
    """One phone of a Dial: a number, screened at a URL of ours if there is one, or SIP."""
    if phone.startswith("sip"):
        dial.sip(phone)
    else:
        dial.number(phone, url=screen)


def record_message(settings: Settings, webhook: Webhook, call: Call, url: str) -> Record:
    """Record a message. Its words, if the owner wants them, come minutes later.

    https://www.twilio.com/docs/voice/twiml/record, "transcribe"; error 13617.
    """
    if not settings.transcribe:
        return Record(action=url, max_length=MESSAGE, timeout=5, finish_on_key="#")
    words = next_url(settings, webhook.began, {"turn": call.turn}, path="transcript")
    return Record(
        action=url,
        max_length=TRANSCRIBED,
        timeout=5,
        finish_on_key="#",
        transcribe=True,
        transcribe_callback=words,
    )


def choose_caller_id(settings: Settings, webhook: Webhook) -> str:
    """The number that the rung phone shows; none where it is the caller's, as Twilio has it.

    By itself Dial shows the caller. It fails, or the carrier refuses it, where the caller is a
    browser, a SIP address, withheld, or no whole number (errors 13214, 32220); the called number
    is always allowed (https://www.twilio.com/docs/voice/twiml/dial, callerId).
    """
    if settings.caller_id.startswith("+"):
        return settings.caller_id
    if webhook.number and settings.caller_id == "caller":
        return ""
    try:
        return str(matching(E164)(webhook.called))
    except ValueError:
        return ""


def render_hold(settings: Settings, plan: Plan, url: str, nth: int) -> str:
    """Words, a pause, and a way back to look again. The first hold is the 1st."""
    sentence, seconds = HOLDS[min(nth, len(HOLDS)) - 1]
    response = VoiceResponse()
    say_words(settings, plan, response, plan.sentence(sentence))
    response.pause(length=seconds)
    response.redirect(url)
    return write_document(response)


def render_silence(url: str, seconds: int) -> str:
    """A silence for a caller who is being moved to the answer, and a way back if that fails."""
    response = VoiceResponse()
    response.pause(length=seconds)
    response.redirect(url)
    return write_document(response)


def render_apology(
    settings: Settings,
    plan: Plan,
    webhook: Webhook | None = None,
    url: str = "",
    screen: str | None = None,
) -> str:
    """The last resort when our own code fails: an apology, and a person if there is one.

    What comes after the talk is at `url`; without it nobody is rung. Whoever picks up is asked to
    take the call at `screen`, if there is one.
    """
    response = VoiceResponse()
    say_words(settings, plan, response, plan.sentence("apology"))
    if plan.anybody and webhook and url:
        dial = response.dial(
            action=url,
            answer_on_bridge=True,
            timeout=settings.ring_seconds,
            time_limit=TALK,
            caller_id=choose_caller_id(settings, webhook) or None,
        )
        for phone in plan.anybody:
            add_phone(dial, phone, screen)
        return write_document(response)
    say_words(settings, plan, response, plan.sentence("call_again"))
    response.hangup()
    return write_document(response)
