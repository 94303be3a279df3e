"""The judge of TwiML: what Twilio would refuse, and what makes no sense."""

import pytest

from standins.canned import Canned, ring
from standins.twiml import judge

GOOD = [
    '<Gather input="dtmf speech" action="/a#rc=5&amp;rp=all&amp;ct=2000&amp;rt=5000" timeout="5"'
    ' speechTimeout="3" speechModel="phone_call" language="en-US" hints="billing, cancel"'
    ' actionOnEmptyResult="true" finishOnKey="#" numDigits="1"><Say voice="Polly.Joanna">Hi'
    '<break time="1s"/></Say></Gather>',
    '<Say>One moment.</Say><Dial action="/a" answerOnBridge="true" timeout="20" timeLimit="3600"'
    ' callerId="+15550001111"><Number>+15550100099</Number></Dial>',
    '<Say>Beep.</Say><Record action="/a" maxLength="120" playBeep="true" finishOnKey="#"/>',
    '<Pause length="5"/><Redirect method="POST">/a?turn=2</Redirect>',
    '<Reject reason="busy"/>',
    '<Dial action="/a" timeLimit="60"><Number url="/w#rc=5">+15550100099</Number>'
    "<Sip>sip:desk@pbx.example.com:5061</Sip></Dial>",
    '<Gather action="/a" speechModel="experimental_conversations" language="de-DE"'
    ' actionOnEmptyResult="true"><Say>Ja?</Say></Gather>',
    '<Gather action="/a" speechModel="experimental_utterances" language="ar-EG"'
    ' actionOnEmptyResult="true"><Say>Hi</Say></Gather>',
    '<Gather action="/a" speechModel="default" language="is-IS" actionOnEmptyResult="true">'
    "<Say>Hi</Say></Gather>",
    '<Say voice="Polly.Vicki-Neural">Unter <say-as interpret-as="telephone">030 1234567</say-as>'
    "</Say>",
    '<Say voice="Polly.Joanna">In <say-as interpret-as="time">1\'21"</say-as></Say>',
    '<Say voice="Google.en-US-Wavenet-F">At <say-as interpret-as="time" format="hms12">2:30pm'
    "</say-as></Say>",
]

DIAL = '<Dial timeLimit="60">+15550100099</Dial>'
SAID = "<Say>Hi</Say>"

BROKEN = [
    ('<Say voise="man">Hi</Say>', 12200),
    ("<say>Hi</say>", 12200),
    ("<Speak>Hi</Speak>", 12200),
    (f"{SAID} stray", 12200),
    (f'<Gather action="/a">{DIAL}</Gather>', 12200),
    ("<Number>+15550100099</Number>", 12200),
    ("<Say></Say>", 13520),
    (f'<Say voice="Polly.Joanna">{"a" * 3001}</Say>', 13521),
    ('<Say loop="-1">Hi</Say>', 12200),
    ('<Pause length="x"/>', 12200),
    (f'<Gather speechTimeout="auto" speechModel="phone_call">{SAID}</Gather>', 13335),
    (f'<Gather speechModel="phone_call" language="de-DE">{SAID}</Gather>', 13331),
    (f'<Gather speechModel="phone_call" language="en-IN">{SAID}</Gather>', 13331),
    (f'<Gather speechModel="experimental_utterances" language="it-IT">{SAID}</Gather>', 13331),
    (f'<Gather timeout="0">{SAID}</Gather>', 13313),
    (f'<Gather speechTimeout="soon">{SAID}</Gather>', 13327),
    (f'<Gather speechModel="best">{SAID}</Gather>', 13334),
    (f'<Gather finishOnKey="##">{SAID}</Gather>', 13310),
    (f'<Gather numDigits="0">{SAID}</Gather>', 12200),
    (f"<Gather input=\"['speech', 'dtmf']\">{SAID}</Gather>", 12200),
    (f'<Gather hints="{",".join(["a"] * 501)}">{SAID}</Gather>', 12200),
    (f'<Gather hints="{"a" * 101}">{SAID}</Gather>', 12200),
    (f'<Gather actionOnEmptyResult="True">{SAID}</Gather>', 12200),
    (f'<Gather action="/a b">{SAID}</Gather>', 11100),
    (f'<Gather action="/a#rp=always">{SAID}</Gather>', 11243),
    (f'<Gather action="/a#rt=20000">{SAID}</Gather>', 11100),
    ('<Dial timeLimit="60" timeout="4">+15550100099</Dial>', 12200),
    ('<Dial timeLimit="60" timeout="601">+15550100099</Dial>', 12200),
    ('<Dial timeLimit="0">+15550100099</Dial>', 12200),
    ('<Dial timeLimit="60" callerId="me">+15550100099</Dial>', 12200),
    ('<Dial timeLimit="60">5550100</Dial>', 13224),
    ('<Dial timeLimit="60"/>', 13224),
    (f'<Dial timeLimit="60">{"<Number>+15550100099</Number>" * 11}</Dial>', 13221),
    (f'<Dial timeLimit="60">{"<Sip>sip:a@b.example</Sip>" * 11}</Dial>', 13221),
    ('<Dial timeLimit="60"><Sip>desk</Sip></Dial>', 13224),
    ('<Dial timeLimit="60"><Number url="/a b">+15550100099</Number></Dial>', 11100),
    ('<Record maxLength="0"/>', 12200),
    ("<Redirect/>", 11100),
    ("<Redirect>/v</Redirect>", 0),
    ('<Connect><Stream url="wss://a.example"/></Connect>', 0),
    ('<Reject reason="tired"/>', 12200),
    (f"<Say>{'a' * 70000}</Say>", 11750),
]

TAGGED = [
    # a voice, what stands in Say, what is held against it
    ("woman", '<say-as interpret-as="telephone">+15550100099</say-as>', "takes no SSML"),
    ("", '<break time="1s"/>Hi', "takes no SSML"),
    ("Polly.Niamh-Neural", '<say-as interpret-as="telephone">+35315550123</say-as>', "not list it"),
    (
        "Polly.Joanna-Neural",
        '<say-as interpret-as="telephone">soon</say-as>',
        "no telephone number",
    ),
    ("Polly.Joanna", '<say-as interpret-as="time">17:30</say-as>', "minutes and seconds"),
    ("Polly.Joanna", '<say-as interpret-as="phone">+15550100099</say-as>', "means nothing"),
    ("Polly.Joanna", "<say-as>+15550100099</say-as>", "means nothing"),
    ("Polly.Joanna", '<say-as interpret-as="digits"/>12', "nothing but words"),
    ("Polly.Joanna", '<say-as interpret-as="digits" speed="2">12</say-as>', "no such attributes"),
    ("Polly.Joanna-Neural", "<emphasis>Hi</emphasis>", "does not take it"),
]

WARNED = [
    ("", "empty"),
    ('<Gather action="/a" actionOnEmptyResult="true"/>', "no prompt"),
    (f'<Gather actionOnEmptyResult="true">{SAID}</Gather>', "no action"),
    (f'<Gather action="/a">{SAID}</Gather>', "silence"),
    (f'<Gather action="/a" bargeIn="true">{SAID}</Gather>{SAID}', "bargeIn"),
    (f'<Gather action="/a" enhanced="true">{SAID}</Gather>{SAID}', "enhanced"),
    (f'<Gather action="/a" method="GET">{SAID}</Gather>{SAID}', "POST"),
    ("<Dial>+15550100099</Dial>", "timeLimit"),
    ('<Say voice="alice">Hi</Say>', "alice"),
    (f"<Hangup/>{SAID}", "ever reached"),
    (f'<Dial action="/a" timeLimit="60">+15550100099</Dial>{SAID}', "ever reached"),
    (f"{SAID}<Reject/>", "answered"),
]


def verdict(inside: str) -> list[tuple[int, str, bool]]:
    """The judge's problems with the inside of a <Response> fetched from /v."""
    found = judge(f"<Response>{inside}</Response>", "http://a.example/v#rc=1")
    return [(problem.code, problem.words, problem.broken) for problem in found]


@pytest.mark.parametrize("inside", GOOD)
def test_good_documents_pass(inside: str) -> None:
    """The judge has nothing to say about documents that Twilio takes as they are."""
    assert verdict(inside) == []


@pytest.mark.parametrize(("inside", "code"), BROKEN)
def test_broken_rules_are_named_by_their_code(inside: str, code: int) -> None:
    """Every rule that Twilio enforces is found, once, under Twilio's own number."""
    assert [found[0] for found in verdict(inside) if found[2]] == [code]


@pytest.mark.parametrize(("voice", "inside", "words"), TAGGED)
def test_a_tag_that_a_voice_does_not_know_is_named(voice: str, inside: str, words: str) -> None:
    """Twilio may let the whole Say fail: the caller would hear silence."""
    own = f' voice="{voice}"' if voice else ""
    ((_, said, broken),) = verdict(f"<Say{own}>{inside}</Say>")
    assert words in said
    assert broken


@pytest.mark.parametrize(("inside", "words"), WARNED)
def test_doubtful_documents_are_warned_about(inside: str, words: str) -> None:
    """What Twilio takes but hardly anybody means is said, and breaks nothing."""
    ((_, said, broken),) = verdict(inside)
    assert words in said
    assert not broken


@pytest.mark.parametrize(
    "document", ["", " <?xml version='1.0'?><Response/>", "<Response>&</Response>"]
)
def test_what_is_no_xml_is_no_twiml(document: str) -> None:
    """A document that cannot be parsed is one problem: 12100."""
    assert [problem.code for problem in judge(document, "/v")] == [12100]


def test_the_phone_keeps_what_the_judge_says(line: Canned) -> None:
    """Problems are in the transcript at the moment they happen, as comments."""
    phone = ring(line, '<Say voise="man">Hi</Say>')
    assert phone.transcript[1] == "# broken 12200: <Say> has no attribute 'voise'"
    assert len(phone.broken) == 1
