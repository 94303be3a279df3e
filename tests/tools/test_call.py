"""The tests' own phone, tried on a tiny server with fixed answers: its verdicts must be trusted."""

import threading
import time
from collections.abc import Mapping

import pytest

from phone_line.deadline import in_background
from standins.asking import Clock
from standins.call import NotNow, Phone
from standins.canned import TOKEN, Canned, Reply, gather, ring
from standins.timing import await_workers
from standins.transcript import run_script
from standins.webhooks import Answer, Failed, Fields, Limits, http_deliver, sign, signed_url

PARAMS = [
    ("CallSid", "CA1234567890ABCDE"),
    ("Caller", "+14158675309"),
    ("Digits", "1234"),
    ("From", "+14158675309"),
    ("To", "+18005551212"),
]

HOST = "mycompany.com"
QUERY = "/myapp.php?foo=1&bar=2"

VECTORS = [
    (f"https://{HOST}{QUERY}", PARAMS, "RSOYDt4T1cUTdK1PDd93/VVr8B8="),
    (f"https://{HOST}:443{QUERY}", PARAMS, "kvajT1Ptam85bY51eRf/AJRuM3w="),
    (f"http://{HOST}:1234{QUERY}", PARAMS, "Zmvh+3yNM1Phv2jhDCwEM3q5ebU="),
    (f"http://{HOST}:80{QUERY}", PARAMS, "0ZXoZLH/DfblKGATFgpif+LLRf4="),
    (f"https://{HOST}{QUERY}&Body=It's+amazing", PARAMS, "dsq4Ehbj6cs+KdTkpF5sSSplOWw="),
    (
        f"https://{HOST}{QUERY}",
        [("Sid", "CA123"), ("SidAccount", "AC123")]
        + [("Digits", digits) for digits in ("5678", "1234", "1234")],
        "IK+Dwps556ElfBT0I3Rgjkr1wJU=",
    ),
    (
        "https://example.com/voice",
        [("CallSid", "CA1"), ("ToZip", ""), ("From", "+15551234567")],
        "T5ygwuEjXXyuXH64UPuJjlygSWE=",
    ),
    (
        "https://example.com/voice",
        [("CallSid", "CA1"), ("SpeechResult", "café con leche")],
        "6Wcs861x1cpe8dwGt6NxIlfQ1Rk=",
    ),
]


@pytest.mark.parametrize(("url", "fields", "signature"), VECTORS)
def test_the_phone_signs_as_twilio_does(url: str, fields: Fields, signature: str) -> None:
    """Twilio's published vectors come out of the phone's own HMAC."""
    assert sign(TOKEN, url, fields) == signature


@pytest.mark.parametrize(
    ("url", "signed"),
    [
        ("https://a.example:8443/v?x=1#rc=2", "https://a.example/v?x=1"),
        ("http://a.example:8080/v#rp=all", "http://a.example:8080/v"),
        ("https://me:word@a.example/v", "https://a.example/v"),
    ],
)
def test_fragment_password_and_https_port_are_not_signed(url: str, signed: str) -> None:
    """The signed text is the URL without what Twilio leaves out of it."""
    assert signed_url(url) == signed


def test_the_first_webhook_carries_what_twilio_sends(line: Canned) -> None:
    """A new call is ringing and inbound, and its blank fields are sent and signed."""
    ring(line, "<Hangup/>")
    asked = line.asked[0]
    assert asked.target == "/voice/inbound"
    assert asked.form["CallStatus"] == "ringing"
    assert asked.form["Direction"] == "inbound"
    assert asked.form["Caller"] == asked.form["From"] == "+15557654321"
    assert asked.form["ToZip"] == asked.form["CalledZip"] == ""
    assert asked.headers["User-Agent"] == "TwilioProxy/1.1"
    assert asked.headers["I-Twilio-Idempotency-Token"]
    assert ("ToZip", "") in asked.fields
    assert asked.headers["X-Twilio-Signature"] == sign(TOKEN, line.url + asked.target, asked.fields)


def test_later_webhooks_are_in_progress_and_resolved_against_the_document(line: Canned) -> None:
    """A relative action belongs to the document's URL; its fragment is neither sent nor signed."""
    line.on("/voice/process", "<Hangup/>")
    phone = ring(line, '<Gather input="speech" action="process?turn=1&amp;x=a%2Fb#rc=2"/>')
    phone.say("hello")
    asked = line.asked[1]
    assert asked.target == "/voice/process?turn=1&x=a%2Fb"
    assert asked.form["CallStatus"] == "in-progress"
    assert asked.headers["X-Twilio-Signature"] == sign(TOKEN, line.url + asked.target, asked.fields)


def test_the_end_is_reported_to_the_status_callback(line: Canned) -> None:
    """After the call one status webhook tells how long it took."""
    phone = ring(line, '<Pause length="61"/>')
    phone.wait()
    (end,) = line.forms("/voice/status")
    assert end["CallStatus"] == "completed"
    assert (end["CallDuration"], end["Duration"]) == (str(phone.duration), "2")
    assert end["CallbackSource"] == "call-progress-events"
    assert end["SequenceNumber"] == "0"
    assert end["Timestamp"].endswith(" +0000")


@pytest.mark.parametrize("reply", [Reply("no", 500), Reply("fine", 200, "text/plain")])
def test_a_status_callback_answered_badly_is_a_warning(line: Canned, reply: Reply) -> None:
    """The caller is gone by then: nothing is broken, but it is said."""
    line.on("/voice/status", reply)
    phone = ring(line, "<Hangup/>")
    assert not phone.broken
    assert [problem.code for problem in phone.warned] == [15003]


def test_words_are_sent_with_their_confidence(line: Canned) -> None:
    """Speech goes to the action as SpeechResult and Confidence."""
    phone = gather(line)
    assert (phone.heard, phone.state) == (["Which?"], "gather")
    assert phone.say("billing", 0.35) == ["Thanks."]
    assert phone.state == "ended"
    (form,) = line.forms("/next")
    assert (form["SpeechResult"], form["Confidence"]) == ("billing", "0.35")
    assert "Digits" not in form


def test_confidence_may_be_missing(line: Canned) -> None:
    """A confidence of None is not sent at all."""
    gather(line).say("billing", None)
    assert "Confidence" not in line.forms("/next")[0]


@pytest.mark.parametrize(
    ("attributes", "keys", "digits"),
    [
        ("", "12#", "12"),
        ("", "12", "12"),
        ('numDigits="1"', "45", "4"),
        ('finishOnKey="*"', "1#2*3", "1#2"),
        ('finishOnKey=""', "1#", "1#"),
    ],
)
def test_keys_end_as_the_attributes_say(
    line: Canned, attributes: str, keys: str, digits: str
) -> None:
    """The finish key and the number of digits decide which keys reach the action."""
    gather(line, attributes).press(keys)
    assert line.forms("/next")[0]["Digits"] == digits


def test_silence_falls_through(line: Canned) -> None:
    """Without actionOnEmptyResult nobody is asked and the next verb is played."""
    phone = gather(line, 'timeout="7"')
    before = phone.clock.now
    assert phone.silent() == ["Bye."]
    assert phone.clock.now >= before + 7
    assert line.forms("/next") == []


def test_silence_is_reported_when_asked_for(line: Canned) -> None:
    """With actionOnEmptyResult the action is asked with neither words nor keys."""
    assert gather(line, 'actionOnEmptyResult="true"').silent() == ["Thanks."]
    assert not {"SpeechResult", "Digits"} & set(line.forms("/next")[0])


def test_words_are_lost_on_a_gather_for_keys(line: Canned) -> None:
    """Who speaks where only keys count is silent to Twilio."""
    phone = ring(line, '<Gather action="/next"><Say>Press.</Say></Gather><Say>Bye.</Say>')
    assert phone.say("one") == ["Bye."]


def test_a_lone_finish_key_is_no_input(line: Canned) -> None:
    """Pressing only the key that ends the input counts as silence."""
    assert gather(line).press("#") == ["Bye."]


@pytest.mark.parametrize(
    ("outcome", "length"),
    [("completed", "42"), ("busy", ""), ("no-answer", ""), ("failed", ""), ("canceled", "")],
)
def test_every_outcome_of_a_dial_reaches_its_action(
    line: Canned, outcome: str, length: str
) -> None:
    """The action learns how the dialled call went, and for how long."""
    line.on("/next", "<Say>Back.</Say>")
    phone = ring(line, '<Dial action="/next" timeLimit="60"><Number>+15550100099</Number></Dial>')
    assert phone.transcript[-1] == "line dials +15550100099"
    assert phone.callee(outcome, 42) == ["Back."]
    (form,) = line.forms("/next")
    assert form["DialCallStatus"] == outcome
    assert form.get("DialCallDuration", "") == length
    assert form["DialBridged"] == ("true" if length else "false")
    assert form["DialCallSid"].startswith("CA")


def test_a_dial_without_action_goes_on(line: Canned) -> None:
    """After a Dial that names no action the next verb is played."""
    phone = ring(line, '<Dial timeLimit="60">+15550100099</Dial><Say>Nobody.</Say>')
    assert phone.callee("busy") == ["Nobody."]


def test_a_caller_who_gives_up_while_it_rings_is_reported(line: Canned) -> None:
    """The action is asked about the cancelled Dial, and its answer is not played."""
    line.on("/next", "<Say>Anybody?</Say>")
    phone = ring(line, '<Dial action="/next" timeLimit="60">+15550100099</Dial>')
    assert phone.hang_up() == []
    (form,) = line.forms("/next")
    assert (form["CallStatus"], form["DialCallStatus"]) == ("completed", "canceled")
    assert phone.state == "ended"


def test_a_message_is_recorded(line: Canned) -> None:
    """The action gets the recording's URL and length, and its answer is played."""
    line.on("/next", "<Say>Got it.</Say>")
    phone = ring(line, '<Record action="/next" maxLength="20"/>')
    assert phone.leave_message(30) == ["Got it."]
    (form,) = line.forms("/next")
    assert form["RecordingDuration"] == "20"
    assert form["RecordingUrl"].startswith("https://api.twilio.com/")


@pytest.mark.parametrize(
    ("attributes", "keys", "ended_by"),
    [
        ('finishOnKey="#"', "1#", "#"),
        ('finishOnKey="#"', "12", None),
        ('finishOnKey="5*"', "#5*", "5"),
        ('finishOnKey=""', "#", None),
        ("", "7", "7"),
    ],
)
def test_only_a_finish_key_ends_a_recording(
    line: Canned, attributes: str, keys: str, ended_by: str | None
) -> None:
    """Other keys are tones on the recording, which goes on; without the attribute any key ends."""
    line.on("/next", "<Say>Got it.</Say>")
    phone = ring(line, f'<Record action="/next" {attributes}/>')
    assert phone.press(keys) == (["Got it."] if ended_by else [])
    assert phone.state == ("ended" if ended_by else "record")
    assert [form["Digits"] for form in line.forms("/next")] == ([ended_by] if ended_by else [])
    if not ended_by:
        assert f"caller presses {keys}" in phone.transcript
        assert phone.leave_message() == ["Got it."]


@pytest.mark.parametrize(
    ("attributes", "keys", "printed"),
    [
        ('numDigits="1"', "12", "1"),
        ('numDigits="2"', "1#2", "1#"),
        ('numDigits="1"', "1#", "1"),
        ('finishOnKey=""', "1#2", "1#2"),
        ("", "12", "12"),
        ("", "#1", "#"),
    ],
)
def test_keys_that_come_too_late_are_not_written_down(
    line: Canned, attributes: str, keys: str, printed: str
) -> None:
    """The transcript has the keys up to the one that ended the input, and plays the same again."""
    phone = gather(line, attributes)
    phone.press(keys)
    assert f"caller presses {printed}" in phone.transcript
    assert run_script(Phone(line.url, token=TOKEN), phone.transcript) == []


def test_hanging_up_after_the_beep_leaves_a_recording(line: Canned) -> None:
    """Twilio reports it with Digits=hangup although nobody hears the answer."""
    line.on("/next", "<Say>Got it.</Say>")
    phone = ring(line, '<Record action="/next"/>')
    assert phone.hang_up_after_beep(3) == []
    assert line.forms("/next")[0]["Digits"] == "hangup"
    assert [asked.target for asked in line.asked][-1] == "/voice/status"


def test_an_empty_recording_is_not_reported(line: Canned) -> None:
    """Silence after the beep leads to the next verb."""
    phone = ring(line, '<Record action="/next"/><Say>Nothing?</Say>')
    assert phone.silent() == ["Nothing?"]


def test_a_redirect_is_followed_and_nothing_after_it_played(line: Canned) -> None:
    """Redirect fetches the next document; the verb behind it is warned about."""
    line.on("/next", "<Say>There.</Say>")
    phone = ring(line, "<Redirect>/next</Redirect><Say>Never.</Say>")
    assert phone.heard == ["There."]
    assert (phone.hops, len(phone.warned)) == (1, 1)


def test_a_pause_is_a_hold_that_costs_no_real_time(line: Canned) -> None:
    """The phone waits in virtual seconds, and only when told to."""
    line.on("/next", "<Say>Done.</Say>")
    phone = ring(line, '<Say>Wait.</Say><Pause length="30"/><Redirect>/next</Redirect>')
    assert (phone.heard, phone.state) == (["Wait."], "hold")
    started = time.monotonic()
    assert phone.wait() == ["Wait.", "Done."]
    assert phone.duration >= 30
    assert time.monotonic() - started < 5


def test_a_rejected_call_never_was_answered(line: Canned) -> None:
    """Reject ends the call, and the report says busy."""
    phone = ring(line, '<Reject reason="busy"/>')
    assert phone.transcript == ["rings", "line rejects"]
    assert line.forms("/voice/status")[0]["CallStatus"] == "busy"


def test_a_played_file_is_no_speech(line: Canned) -> None:
    """Play is in the transcript, not among the words."""
    phone = ring(line, "<Play>https://a.example/a.wav</Play>")
    assert phone.heard == []
    assert "line plays https://a.example/a.wav" in phone.transcript


def test_the_phone_refuses_what_the_call_does_not_wait_for(line: Canned) -> None:
    """A test that talks to a ringing callee is a mistake, not silence."""
    phone = ring(line, '<Dial timeLimit="60">+15550100099</Dial>')
    with pytest.raises(NotNow, match="dial"):
        phone.say("hello")


# --- when webhooks fail ---


def at(line: Canned, fragment: str, **options: str | None) -> Phone:
    """A phone that rings at a voice URL with these overrides, and no other ones."""
    phone = Phone(f"{line.url}/voice/inbound{fragment}", token=TOKEN, **options)  # type: ignore[arg-type]  # only str and None are passed
    phone.ring()
    return phone


@pytest.mark.parametrize(
    ("fragment", "status", "attempts"),
    [
        ("", 502, 1),
        ("#rc=2&rp=5xx", 502, 3),
        ("#rc=2&rp=4xx", 502, 1),
        ("#rc=5&rp=all", 404, 6),
        ("#rc=9&rp=all", 502, 1),
    ],
)
def test_retries_follow_the_overrides(
    line: Canned, fragment: str, status: int, attempts: int
) -> None:
    """By default an error is not repeated; rc and rp change that; invalid ones do nothing."""
    line.on("/voice/inbound", Reply("no", status))
    phone = at(line, fragment, fallback=None)
    assert len(line.forms("/voice/inbound")) == attempts
    assert [problem.code for problem in phone.broken] == [11217]
    assert phone.transcript[-1] == "line plays Twilio's error message"


def test_an_attempt_is_repeated_unchanged(line: Canned) -> None:
    """Retries carry the same body, signature and idempotency token, and save the call."""
    line.on("/voice/inbound", Reply("", cut=True), Reply("<Response><Say>Hi.</Say></Response>"))
    phone = at(line, "#rc=1&rp=rt")
    first, second = line.asked[:2]
    assert first == second
    assert (phone.heard, phone.broken) == (["Hi."], [])


@pytest.mark.parametrize("begun", ["", "<Response><Say>Hi.</Say></Response>"])
def test_half_an_answer_is_none(line: Canned, begun: str) -> None:
    """A line that dies while it answers: what came of it is not played; the fallback is asked."""
    line.on("/voice/inbound", Reply(begun, lost=9))
    line.on("/voice/fallback", Reply("<Response><Say>Sorry.</Say></Response>"))
    phone = at(line, "", fallback="/voice/fallback")
    assert (phone.heard, line.forms("/voice/fallback")[0]["ErrorCode"]) == (["Sorry."], "11205")


def test_a_slow_answer_is_given_up_and_asked_again(line: Canned) -> None:
    """The read timeout is real: the phone does not wait for what Twilio would not wait for."""
    hi = "<Response><Say>Hi.</Say></Response>"
    line.on("/voice/inbound", Reply(hi, delay=6.0), Reply(hi))
    started = time.monotonic()
    phone = at(line, "#rc=1&rp=rt&rt=200")
    assert phone.heard == ["Hi."]
    assert time.monotonic() - started < 5


def test_retries_end_with_the_total_time() -> None:
    """Fifteen seconds are the end, however many attempts are left."""
    tried: list[str] = []

    def hang(url: str, _: Fields, __: Mapping[str, str]) -> Answer:
        tried.append(url)
        raise Failed(11205, "no answer", "rt", 5.0)

    Phone("http://a.example", token=TOKEN, deliver=hang, fallback=None, status=None).ring()
    assert len(tried) == 3


def test_an_answer_after_fifteen_seconds_is_none() -> None:
    """A deliver that reports 16 seconds has failed, whatever it brought."""

    def late(_: str, __: Fields, ___: Mapping[str, str]) -> Answer:
        return Answer(200, {"Content-Type": "text/xml"}, b"<Response/>", 16.0)

    phone = Phone("http://a.example/v", token=TOKEN, deliver=late, fallback=None, status=None)
    phone.ring()
    assert [problem.code for problem in phone.broken] == [11205]


def test_nobody_there_is_repeated_once_by_default(line: Canned) -> None:
    """A refused connection is what Twilio repeats without being told."""
    line.close()
    phone = Phone(f"{line.url}/voice", token=TOKEN, fallback=None, status=None)
    phone.ring()
    assert phone.last_webhook is not None
    assert phone.last_webhook.attempts == 2
    assert [problem.code for problem in phone.broken] == [11205]


FAILURES = [
    (Reply("<Response>", kind="text/xml"), 12100),
    (Reply("<Answer/>", kind="text/xml"), 12100),
    (Reply("", kind="text/xml"), 12100),
    (Reply("{}", kind="application/json"), 12300),
    (Reply("<Response/>", kind=""), 11200),
    (Reply("<Response/>" + " " * 65536), 11750),
    (Reply("<Response/>", status=500), 11217),
]


@pytest.mark.parametrize(("reply", "code"), FAILURES)
def test_the_fallback_takes_over_and_learns_why(line: Canned, reply: Reply, code: int) -> None:
    """Whatever Twilio cannot execute leads to the fallback URL with ErrorCode and ErrorUrl."""
    line.on("/voice/inbound", reply)
    line.on("/voice/fallback", "<Say>Sorry.</Say>")
    phone = at(line, "#rc=0")
    assert phone.heard == ["Sorry."]
    (form,) = line.forms("/voice/fallback")
    assert form["ErrorCode"] == str(code)
    assert form["ErrorUrl"] == f"{line.url}/voice/inbound"
    assert [problem.code for problem in phone.broken] == [code]


def test_a_fallback_that_fails_ends_the_call(line: Canned) -> None:
    """Then the caller hears Twilio's own error message, and both failures are kept."""
    line.on("/voice/inbound", Reply("no", 500))
    phone = at(line, "", fallback="/nowhere")
    assert len(phone.broken) == 2
    assert phone.state == "ended"
    assert line.forms("/voice/status")[0]["CallStatus"] == "completed"


def test_a_caller_who_is_moved_on_is_spared_the_fallback(line: Canned) -> None:
    """A push that arrives while a webhook fails comes before fallback and error message."""
    line.on("/voice/inbound", Reply("no", 500))
    line.on("/voice/fallback", "<Say>Sorry.</Say>")
    line.on("/pushed", "<Say>Pushed.</Say>")

    def deliver(url: str, fields: Fields, headers: Mapping[str, str]) -> Answer:
        if url.endswith("/inbound"):
            phone.redirect(f"{line.url}/pushed")
        return http_deliver(url, fields, headers)

    phone = Phone(line.url, token=TOKEN, deliver=deliver)
    phone.ring()
    assert phone.heard == ["Pushed."]
    assert line.forms("/voice/fallback") == []


def test_plain_words_are_read_aloud(line: Canned) -> None:
    """A text/plain answer that is no TwiML is spoken, and the call ends."""
    line.on("/voice/inbound", Reply("Hello there", kind="text/plain"))
    assert at(line, "").heard == ["Hello there"]


def test_sound_is_played_and_the_call_ends(line: Canned) -> None:
    """An audio answer is played as it is."""
    line.on("/voice/inbound", Reply("RIFF", kind="audio/wav"))
    phone = at(line, "")
    assert phone.transcript[1:] == [f"line plays {line.url}/voice/inbound", "line hangs up"]


def test_endless_redirects_are_cut(line: Canned) -> None:
    """Documents that only send each other on are a loop."""
    line.on("/voice/process", "<Redirect>/voice/inbound</Redirect>")
    phone = ring(line, "<Redirect>/voice/process</Redirect>")
    assert "Redirect loop" in phone.broken[-1].words
    assert phone.state == "ended"


def test_limits_keep_their_defaults_for_bad_overrides() -> None:
    """A fragment that Twilio refuses changes nothing."""
    assert Limits.of("https://a.example/#rc=3&rp=sometimes") == Limits()
    assert Limits.of("https://a.example/#rt=5000&rp=ct,rt").rt == 5.0


# --- things that happen to a call ---


def test_retry_repeats_the_last_webhook_to_the_letter(line: Canned) -> None:
    """The same body and signature arrive again, and the phone compares the answers."""
    phone = gather(line)
    assert phone.retry().same
    line.on("/voice/inbound", "<Say>Something else.</Say>")
    answer, same = phone.retry()
    assert (answer.status, same) == (200, False)
    assert line.asked[0] == line.asked[1] == line.asked[2]
    assert phone.state == "gather"


def test_hanging_up_ends_the_call_at_once(line: Canned) -> None:
    """A Gather that is left is not reported; the end of the call is."""
    phone = gather(line)
    phone.hang_up()
    assert phone.transcript[-1] == "caller hangs up"
    assert [asked.target for asked in line.asked] == ["/voice/inbound", "/voice/status"]


def test_hanging_up_while_the_line_thinks(line: Canned) -> None:
    """The answer to the webhook under way is never played."""
    line.on("/voice/inbound", "<Say>Hello.</Say>")

    def deliver(url: str, fields: Fields, headers: Mapping[str, str]) -> Answer:
        if url.endswith("/inbound"):
            phone.hang_up()
        return http_deliver(url, fields, headers)

    phone = Phone(line.url, token=TOKEN, deliver=deliver)
    phone.ring()
    assert phone.transcript == ["rings", "caller hangs up"]
    assert len(line.forms("/voice/status")) == 1


def test_the_rest_api_moves_a_waiting_call(line: Canned) -> None:
    """A redirect abandons the verb under way and plays the new document."""
    line.on("/pushed", "<Say>The answer is yes.</Say>")
    phone = ring(line, '<Say>Wait.</Say><Pause length="60"/><Say>Still waiting.</Say>')
    assert phone.redirect(f"{line.url}/pushed")
    assert phone.heard == ["Wait.", "The answer is yes."]
    assert not phone.redirect(f"{line.url}/pushed"), "an ended call cannot be moved"


def test_a_push_during_a_webhook_replaces_its_answer(line: Canned) -> None:
    """The document that was on its way is dropped, and the pushed one is played."""
    line.on("/voice/inbound", "<Say>Too late.</Say>")
    line.on("/pushed", "<Say>Pushed.</Say>")

    def deliver(url: str, fields: Fields, headers: Mapping[str, str]) -> Answer:
        answer = http_deliver(url, fields, headers)
        if url.endswith("/inbound"):
            pusher = threading.Thread(target=phone.redirect, args=(f"{line.url}/pushed",))
            pusher.start()
            pusher.join()
        return answer

    phone = Phone(line.url, token=TOKEN, deliver=deliver)
    phone.ring()
    assert phone.heard == ["Pushed."]


def test_a_trial_account_strips_and_counts(line: Canned) -> None:
    """On trial Dial and Record are replaced by words, and ten hops are the end."""
    line.on(
        "/voice/inbound",
        '<Dial timeLimit="9">+15550100099</Dial><Pause/><Redirect>/voice/inbound</Redirect>',
    )
    phone = Phone(line.url, token=TOKEN, trial=True)
    phone.ring()
    assert phone.heard == ["The Dial verb is not available on trial accounts."]
    phone.wait(20)
    assert (phone.state, phone.hops) == ("ended", 11)
    assert "limit of ten requests" in phone.heard[-1]


def test_a_trial_account_waits_five_seconds() -> None:
    """What takes longer has failed on trial."""

    def slow(_: str, __: Fields, ___: Mapping[str, str]) -> Answer:
        return Answer(200, {"Content-Type": "text/xml"}, b"<Response/>", 5.5)

    for trial in (True, False):
        phone = Phone(
            "http://a.example/v", token=TOKEN, deliver=slow, trial=trial, fallback=None, status=None
        )
        phone.ring()
        assert bool(phone.broken) is trial


def test_a_test_that_reads_the_log_begins_in_silence() -> None:
    """Work that an earlier test has left in the background is waited for, until it ends."""
    left = in_background(time.sleep, 0.2)
    await_workers()
    assert left.done()


def test_a_paced_clock_takes_some_real_time(line: Canned) -> None:
    """In the terminal a hold is felt, at a fraction of its length."""
    line.on("/voice/inbound", '<Pause length="10"/>')
    phone = Phone(line.url, token=TOKEN, clock=Clock(pace=0.02))
    phone.ring()
    started = time.monotonic()
    phone.wait()
    assert 0.2 <= time.monotonic() - started < 5
