"""The language that a caller has chosen is that of the whole call, whatever happens to it."""

import re
import time
from pathlib import Path

import pytest

from phone_line.words import read_words
from standins.backend import Backend, Question, Reply, says
from standins.inside import Inside, judged, line_with, stored, webhook
from standins.upstash import Upstash

TWO = {"LANGUAGE": "en-US es-US", "FORWARD_TO": "+15550100099"}
OFFER = "/voice/process?turn=1&step=language"


def in_spanish(name: str) -> str:
    """A sentence as it is said in Spanish."""
    return read_words("es-US").sentences[name]


def target_of(said: str) -> str:
    """The URL at which Twilio comes back: of a Gather's answer, or of a Redirect."""
    found = re.search('action="([^"#]*)|<Redirect>([^<#]*)', said)
    assert found
    return (found[1] or found[2]).replace("&amp;", "&")


def test_with_one_language_nothing_is_offered(line: Inside) -> None:
    """Not one webhook more, and no word of it in the URLs."""
    said = judged(line.post("/voice/inbound", webhook()))
    assert read_words("en-US").sentences["ask_reason"] in said
    assert "language=" not in said.replace(' language="', "")


def test_each_offer_has_its_own_voice(file: Path) -> None:
    """Nobody understands Spanish that is read by an English voice."""
    here = Inside({**TWO, "STATE_FILE": str(file)})
    said = judged(here.post("/voice/inbound", webhook()))
    voices = re.findall('<Say voice="([^"]*)">', said)
    assert voices == [read_words("en-US").voice, read_words("es-US").voice]


@pytest.mark.parametrize(
    ("choice", "spoken"),
    [
        ({"Digits": "2"}, "en-US"),
        ({"Digits": "3"}, "es-US"),
        ({"SpeechResult": "Español"}, "es-US"),
    ],
)
def test_the_first_words_after_the_choice_are_in_it(
    file: Path, choice: dict[str, str], spoken: str
) -> None:
    """The very answer to the choice has the voice of that language, and listens for it."""
    here = Inside({**TWO, "LANGUAGE": "fr-FR en-US es-US", "STATE_FILE": str(file)})
    call = webhook()
    here.post("/voice/inbound", call)
    said = judged(here.post(OFFER, {**call, **choice}))
    assert {*re.findall(' language="([^"]*)"', said)} == {spoken}
    assert {*re.findall('voice="([^"]*)"', said)} == {read_words(spoken).voice}


def test_the_language_outlives_a_store_that_is_away(upstash: Upstash) -> None:
    """It stands in the URL as well: a caller goes on in Spanish while Redis is down."""
    here = Inside({**TWO, **upstash.settings, "RESPONSE_DEADLINE": "1"})
    call = webhook()
    here.post("/voice/inbound", call)
    said = judged(here.post(OFFER, {**call, "Digits": "2"}))
    target = target_of(said)
    upstash.fault = lambda _: "drop"
    assert in_spanish("not_heard") in judged(here.post(target, call))
    assert 'language="es-US"' in judged(here.post(target, call))


def test_the_record_knows_better_than_the_url(file: Path) -> None:
    """The URL is a hint: what was settled counts."""
    here = Inside({**TWO, "STATE_FILE": str(file)})
    call = webhook()
    here.post("/voice/inbound", call)
    here.post(OFFER, {**call, "Digits": "2"})
    bent = "/voice/process?turn=2&step=reason&language=en-US"
    assert in_spanish("not_heard") in judged(here.post(bent, call))


@pytest.mark.parametrize(
    ("hint", "tag"), [("es-US", "es-US"), ("", "en-US"), ("fr-FR", "en-US"), ("x" * 99, "en-US")]
)
def test_an_apology_for_a_bug_is_in_it(file: Path, hint: str, tag: str) -> None:
    """The URL says which it is; whoever picks up is asked in the line's first language."""
    here = Inside({**TWO, "STATE_FILE": str(file)})
    del here.line.desk  # any webhook is a bug now
    said = judged(here.post(f"/voice/process?turn=2&step=reason&language={hint}", webhook()))
    words = read_words(tag)
    assert words.sentences["apology"] in said
    assert {*re.findall('voice="([^"]*)"', said)} == {words.voice}
    assert ("language=es-US" in said) == (tag == "es-US")
    screen = said.partition('url="')[2].partition("#")[0].replace("&amp;", "&")
    asked = here.post(screen, webhook()).body.decode()
    assert read_words("en-US").sentences["whisper_you_silent"] in asked


@pytest.mark.parametrize("hint", ["fr-FR", "xx", "", "es-US" * 50])
def test_a_hint_that_is_no_language_of_the_line_is_ignored(file: Path, hint: str) -> None:
    """A deploy took the language away: the first one is spoken."""
    here = Inside({**TWO, "STATE_FILE": str(file)})
    target = f"/voice/process?turn=2&step=reason&language={hint}"
    assert read_words("en-US").sentences["not_heard"] in judged(here.post(target, webhook()))


def test_a_hold_is_worded_in_the_callers_language(upstash: Upstash) -> None:
    """The backend is told the language, and "one moment" is said in it, with Redis and without."""

    def think(question: Question) -> Reply:
        time.sleep(1.2)
        return says("Reservado." if question.heard else "")

    with Backend(think) as backend:
        here = line_with(upstash, backend, LANGUAGE="en-US es-US", RESPONSE_DEADLINE="1")
        call = webhook()
        here.post("/voice/inbound", call)
        here.post(OFFER, {**call, "Digits": "2"})
        target = "/voice/process?turn=2&step=listen&language=es-US"
        held = judged(here.post(target, {**call, "SpeechResult": "un billete"}))
        asked = backend.questions[0].body
        upstash.fault = lambda _: "drop"
        later = target_of(held)
        still = judged(here.post(later, call))
    assert in_spanish("hold_1") in held
    assert in_spanish("hold_2") in still
    assert "language=es-US" in held
    assert asked["language"] == "es-US"


def test_a_greeting_for_each_language(file: Path) -> None:
    """GREETING is the first language's; GREETING_ES is for those who chose Spanish."""
    greetings = {"GREETING": "Welcome to Bo's.", "GREETING_ES": "Bienvenido a Bo's."}
    here = Inside({**TWO, **greetings, "STATE_FILE": str(file)})
    for keys, greeting in (("1", "Welcome to Bo's."), ("2", "Bienvenido a Bo's.")):
        call = webhook()
        here.post("/voice/inbound", call)
        assert greeting in judged(here.post(OFFER, {**call, "Digits": keys}))


def test_a_voice_of_the_owners_is_the_first_languages(file: Path) -> None:
    """VOICE speaks English; Spanish keeps a voice that can speak it."""
    here = Inside({**TWO, "VOICE": "Polly.Matthew", "STATE_FILE": str(file)})
    said = judged(here.post("/voice/inbound", webhook()))
    assert re.findall('<Say voice="([^"]*)">', said) == ["Polly.Matthew", read_words("es-US").voice]


def test_the_choice_is_kept_in_the_record(file: Path) -> None:
    """The cell of the answer says which language was chosen."""
    here = Inside({**TWO, "STATE_FILE": str(file)})
    call = webhook()
    here.post("/voice/inbound", call)
    here.post(OFFER, {**call, "SpeechResult": "Español, por favor"})
    assert '"language":"es-US"' in stored(file)[f"call:{call['CallSid']}:2"]


@pytest.mark.parametrize(
    ("before", "after", "keyed", "spoken"),
    [
        ("en-US es-US fr-FR", "es-US en-US fr-FR", "1", "en-US"),
        ("en-US es-US fr-FR", "fr-FR es-US", "2", "es-US"),
        ("en-US es-US", "fr-FR en-US es-US", "2", "es-US"),
    ],
)
def test_a_key_is_the_language_that_was_read_out(
    file: Path, before: str, after: str, keyed: str, spoken: str
) -> None:
    """A deploy in mid-call has reordered LANGUAGE: the caller gets what the offer promised."""
    line = {**TWO, "STATE_FILE": str(file)}
    call = webhook()
    Inside({**line, "LANGUAGE": before}).post("/voice/inbound", call)
    said = judged(Inside({**line, "LANGUAGE": after}).post(OFFER, {**call, "Digits": keyed}))
    assert f'language="{spoken}"' in said


def test_a_key_of_a_language_that_is_gone_is_asked_again(file: Path) -> None:
    """The new offer is read out, and then its keys count."""
    line = {**TWO, "STATE_FILE": str(file)}
    call = webhook()
    Inside({**line, "LANGUAGE": "en-US es-US"}).post("/voice/inbound", call)
    later = Inside({**line, "LANGUAGE": "fr-FR es-US"})
    assert "numDigits" in judged(later.post(OFFER, {**call, "Digits": "1"}))
    second = OFFER.replace("turn=1", "turn=2")
    assert 'language="fr-FR"' in judged(later.post(second, {**call, "Digits": "1"}))


def test_a_fallback_at_the_offer_offers_again(file: Path) -> None:
    """The caller was silent once, then chose, and that webhook failed: nobody chose for them."""
    here = Inside({**TWO, "STATE_FILE": str(file), "LANGUAGE": "en-US es-US"})
    call = webhook()
    here.post("/voice/inbound", call)
    here.post(OFFER, call)
    second = OFFER.replace("turn=1", "turn=2")
    failed = {**call, "ErrorCode": "11200", "ErrorUrl": f"https://line.example{second}"}
    said = judged(here.post("/voice/fallback", failed))
    assert "turn=3&amp;step=language" in said


def test_who_was_silent_at_the_offer_gets_three_seconds_more(file: Path) -> None:
    """As at any other question, the line listens for longer the second time."""
    here = Inside({**TWO, "STATE_FILE": str(file), "LANGUAGE": "en-US es-US"})
    call = webhook()
    said = [judged(here.post(target, call)) for target in ("/voice/inbound", OFFER)]
    first, second = (int(re.findall(r' timeout="(\d+)"', each)[0]) for each in said)
    assert second == first + 3
