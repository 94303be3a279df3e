"""Notices for the owner at NOTIFY_URL: messages and missed calls, whatever fails."""

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest

import phone_line.line as line_room
from phone_line.owner import find_faults
from phone_line.records import Message, Record, write_record
from phone_line.sqlite import SQLite
from phone_line.words import languages, read_words
from standins.backend import Backend, Question, Reply, says, until
from standins.bounds import changed
from standins.call import Phone
from standins.inside import ORIGIN, Inside, fill_cell, new_call, no_threads, stored, webhook
from standins.media import RECORDING
from standins.rows import first_quick
from standins.sentences import say
from standins.sink import Notice, Sink
from standins.timing import LATE
from standins.upstash import Upstash

Log = Callable[[], list[dict[str, Any]]]
Ring = Callable[[Phone], object]

VOICEMAIL: Final = "/voice/process?turn=1&step=voicemail"
PERSON: Final = "+15550100099"
CALLER: Final = "+15557654321"
BRISK: Final = {"RESPONSE_DEADLINE": "1"}
FIELDS: Final = [
    *("event", "text", "content", "call_sid", "from", "to", "heard", "seconds"),
    *("recording", "transcript", "at"),
]


@pytest.fixture
def sink() -> Iterator[Sink]:
    """The sink where the owner is told."""
    with Sink() as sink:
        yield sink


@pytest.fixture
def line(sink: Sink, tmp_path: Path) -> Inside:
    """A line with a person behind it, whose owner wants to be told."""
    return owned(sink, tmp_path)


def owned(sink: Sink, tmp_path: Path, **env: str) -> Inside:
    """A line whose owner wants to be told, with further settings."""
    usual = {"FORWARD_TO": PERSON, "STATE_FILE": str(tmp_path / "calls")}
    return Inside({**usual, "NOTIFY_URL": sink.url, **env})


def leave_message(phone: Phone) -> Phone:
    """A caller says what it is about, nobody answers, a message is left."""
    phone.ring()
    phone.say("I was charged twice")
    phone.callee("no-answer")
    phone.leave_message(14)
    return phone


def told(sink: Sink, phone: Phone, count: int = 1) -> list[Notice]:
    """The notices about a call, as soon as there are so many; nothing comes after them."""
    assert until(lambda: len(sink.taken(phone.call_sid)) >= count, 5)
    time.sleep(0.05)
    return sink.taken(phone.call_sid)


def end(line: Inside, call_sid: str, **fields: str) -> int:
    """The status of the answer to the end of a call."""
    over = {"CallStatus": "completed", "CallDuration": "9", **fields}
    return line.post("/voice/status", webhook(CallSid=call_sid, **over)).status


# What is told.


def test_the_owner_is_told_of_a_message(line: Inside, sink: Sink) -> None:
    """Within two seconds of the message: one POST, every field, a link that this line plays."""
    before, began = time.time(), time.monotonic()
    phone = leave_message(line.phone())
    [notice] = told(sink, phone)
    assert notice.at - began < 2 + LATE
    body = notice.body
    assert list(body) == FIELDS
    assert notice.key == f"{phone.call_sid}:voicemail"
    assert (body["event"], body["call_sid"]) == ("voicemail", phone.call_sid)
    assert (body["from"], body["to"]) == (CALLER, "+15550001111")
    assert (body["heard"], body["seconds"], body["transcript"]) == ("I was charged twice", 14, "")
    assert before - 1 <= body["at"] <= time.time() + 1
    link = urlsplit(body["recording"])
    assert f"{link.scheme}://{link.netloc}" == ORIGIN
    assert re.fullmatch(r"/recordings/AC\w{32}/RE\w{32}", link.path)
    sentence = line.line.line.plan.sentence(
        "owner_voicemail", caller=CALLER, seconds="14", link=body["recording"]
    )
    assert body["text"] == body["content"] == sentence


def test_the_link_is_of_the_newest_origin(sink: Sink, tmp_path: Path) -> None:
    """While a domain is moved, links lead to the one that stays."""
    line = owned(sink, tmp_path, PUBLIC_URL=f"{ORIGIN},https://new.example")
    [notice] = told(sink, leave_message(line.phone()))
    assert notice.body["recording"].startswith("https://new.example/recordings/")


def test_a_message_elsewhere_keeps_its_own_address(line: Inside, sink: Sink) -> None:
    """What is not at Twilio this line cannot play: the owner gets the address as it came."""
    phone = line.phone()
    phone.ring()
    fields = {"CallSid": phone.call_sid, "RecordingUrl": "https://example.com/recording"}
    assert line.post(VOICEMAIL, webhook(**fields)).status == 200
    [notice] = told(sink, phone)
    assert notice.body["recording"] == "https://example.com/recording"


def hang_up_at_once(phone: Phone) -> None:
    phone.ring()
    phone.hang_up()


def hang_up_after_words(phone: Phone) -> None:
    phone.ring()
    phone.say("my invoice")
    phone.hang_up()


def hang_up_at_the_tone(phone: Phone) -> None:
    phone.ring()
    phone.say("my invoice")
    phone.callee("no-answer")
    phone.silent()


def reach_a_mailbox(phone: Phone) -> None:
    """The owner's own mailbox picks up, hears the whisper, and takes nothing."""
    phone.ring()
    phone.say("my invoice")
    phone.callee("voicemail")
    phone.silent()


@pytest.mark.parametrize(
    ("ring", "heard"),
    [
        (hang_up_at_once, ""),
        (hang_up_after_words, "my invoice"),
        (hang_up_at_the_tone, "my invoice"),
        (reach_a_mailbox, "my invoice"),
    ],
)
def test_the_owner_is_told_of_a_missed_call(
    line: Inside, sink: Sink, ring: Ring, heard: str
) -> None:
    """Nobody talked to the caller and there is no message: one event, with what was said."""
    phone = line.phone()
    ring(phone)
    assert phone.state == "ended"
    [notice] = told(sink, phone)
    assert (notice.event, notice.key) == ("missed", f"{phone.call_sid}:missed")
    assert (notice.body["heard"], notice.body["recording"]) == (heard, "")
    assert notice.body["seconds"] == phone.duration
    name = "owner_missed" if heard else "owner_missed_silent"
    assert notice.text == line.line.line.plan.sentence(name, caller=CALLER, heard=heard)


def talk(phone: Phone) -> None:
    phone.ring()
    phone.say("my invoice")
    phone.callee("completed")


def be_refused(phone: Phone) -> None:
    phone.caller = "+15550100066"
    phone.ring()


@pytest.mark.parametrize("ring", [talk, be_refused])
def test_a_talk_and_a_refusal_are_no_news(sink: Sink, tmp_path: Path, ring: Ring) -> None:
    """Who talked to somebody is neither missed nor a message; who was refused is not missed."""
    line = owned(sink, tmp_path, BLOCKED="+15550100066")
    phone = line.phone()
    ring(phone)
    assert phone.state == "ended"
    assert end(line, phone.call_sid) == 204
    assert sink.notices == []


def test_one_call_too_many_is_not_missed(sink: Sink, tmp_path: Path) -> None:
    """Whoever calls more often than allowed is turned away, and nobody is told."""
    line = owned(sink, tmp_path, CALLS_PER_HOUR="1")
    first, second = line.phone(), line.phone()
    hang_up_at_once(first)
    second.ring()
    assert told(sink, first)[0].event == "missed"
    assert second.state == "ended"
    assert sink.taken(second.call_sid) == []


def test_a_talk_of_which_twilio_never_tells_is_not_missed(line: Inside, sink: Sink) -> None:
    """A transfer that went on for longer than any phone rings was a talk, if nothing says so."""
    call_sid = new_call()
    rang = Record(turn=2, step="connect", twiml="<Response/>", at=time.time() - 300)
    fill_cell(line, f"call:{call_sid}:2", write_record(rang))
    assert [end(line, call_sid) for _ in range(2)] == [204, 204]
    assert sink.notices == []


def test_a_call_of_which_nothing_is_known_is_not_missed(line: Inside, sink: Sink) -> None:
    """It may have been a talk while the store was away: the owner is told nothing."""
    assert end(line, new_call()) == 204
    assert sink.notices == []


def test_a_call_that_goes_on_is_not_missed(line: Inside, sink: Sink) -> None:
    """A status that is no end tells nobody anything."""
    phone = line.phone()
    phone.ring()
    assert end(line, phone.call_sid, CallStatus="in-progress") == 204
    assert sink.notices == []


# Sentences.


def test_the_owner_reads_the_lines_first_language(sink: Sink, tmp_path: Path) -> None:
    """A German line tells its owner in German, whichever language a caller chooses."""
    line = owned(sink, tmp_path, LANGUAGE="de-DE en-US")
    phone = line.phone()
    phone.ring()
    phone.press("2")
    phone.hang_up()
    [notice] = told(sink, phone)
    assert notice.text == say("owner_missed_silent", "de", caller="+15557654321")


@pytest.mark.parametrize(
    ("caller", "shown"),
    [
        ("anonymous", say("withheld")),
        ("+266696687", say("withheld")),
        ("", say("withheld")),
        ("client:alice", "client:alice"),
        ("sip:<!channel>@everyone", "sip:!channeleveryone"),
        ("sip:@<everyone", "sip:everyone"),
        ("sip:@@here", "sip:here"),
    ],
)
def test_a_caller_without_a_number_has_a_name(
    line: Inside, sink: Sink, caller: str, shown: str
) -> None:
    """A withheld number is called so; another name stands there, without commands to a chat."""
    phone = line.phone(caller)
    hang_up_at_once(phone)
    [notice] = told(sink, phone)
    assert notice.text == say("owner_missed_silent", caller=shown)
    assert notice.body["from"] == caller


def test_words_are_no_commands_to_a_chat(line: Inside, sink: Sink) -> None:
    """What a caller says raises no alarm in Slack or Discord, and turns no text around."""
    phone = line.phone()
    phone.ring()
    phone.say("<!channel> <https://evil.example|click> @everyone @here \u202eme@hereford.uk\x07")
    phone.hang_up()
    [notice] = told(sink, phone)
    assert "!channel https://evil.example|click everyone here me@hereford.uk" in notice.text
    assert not re.search("[<>\u202e\x07]", notice.text)


def test_a_sentence_fits_into_a_chat(line: Inside, sink: Sink) -> None:
    """Discord refuses more than 2000 letters; the words in full stand in their own field."""
    words = "and then they said no " * 100
    phone = line.phone()
    assert line.post(VOICEMAIL, webhook(CallSid=phone.call_sid, RecordingUrl=RECORDING)).status
    transcript = {"TranscriptionText": words, "RecordingUrl": RECORDING}
    fields = webhook(CallSid=phone.call_sid, **transcript)
    assert line.post("/voice/transcript?turn=2", fields).status == 204
    notice = told(sink, phone, 2)[-1]
    assert 1000 < len(notice.text) <= 2000
    assert notice.body["transcript"] == words.strip()


@pytest.mark.parametrize("language", languages())
def test_every_language_has_the_sentences_for_its_owner(language: str) -> None:
    """In each words file that this line brings along, nothing is missing and nothing stays open."""
    assert [*find_faults(read_words(f"{language}-XX"))] == []


def test_a_sentence_that_nobody_can_be_told_is_a_problem() -> None:
    """One that is missing, or has a blank that nothing fills in, is told when the line starts."""
    words = read_words("en-US")
    bent = {**words.sentences, "owner_missed": "{caler} said {heard}", "owner_voicemail": ""}
    missing, blank = find_faults(replace(words, sentences=bent))
    assert "there is no sentence 'owner_voicemail'" in missing
    assert "'owner_missed' has {caler}" in blank


# At least once, whatever fails.


def test_each_event_is_told_once(line: Inside, sink: Sink) -> None:
    """Twilio repeats the message and the end: each is told under one key, once."""
    phone = leave_message(line.phone())
    recorded = next(hook for hook in phone.webhooks if "RecordingUrl" in hook.form)
    for _ in range(2):
        phone.retry(recorded)
        assert end(line, phone.call_sid) == 204
    assert [notice.event for notice in told(sink, phone)] == ["voicemail"]


def test_a_missed_call_is_told_once(line: Inside, sink: Sink) -> None:
    """The repeats of the end find that it was told."""
    phone = line.phone()
    hang_up_at_once(phone)
    assert [end(line, phone.call_sid) for _ in range(3)] == [204, 204, 204]
    assert [notice.event for notice in told(sink, phone)] == ["missed"]


def test_a_sink_that_is_down_is_told_when_twilio_asks_again(sink: Sink, tmp_path: Path) -> None:
    """While nobody takes the event Twilio gets 503, and brings it again: same key, same text."""
    line = owned(sink, tmp_path, **BRISK)
    phone = line.phone()
    phone.ring()
    sink.fault = 500
    assert end(line, phone.call_sid) == 503
    sink.fault = None
    assert until(lambda: end(line, phone.call_sid) == 204)
    assert [notice.event for notice in told(sink, phone)] == ["missed"]
    assert len({(each.key, each.text, each.body["at"]) for each in sink.notices}) == 1


@pytest.mark.parametrize("fault", first_quick(["hang", 500, 429, "cut", "redirect"]))
def test_no_caller_waits_for_a_sink(sink: Sink, tmp_path: Path, fault: int | str) -> None:
    """Whatever the sink does, who leaves a message hears the thanks at once; then it is retried."""
    line = owned(sink, tmp_path)
    sink.fault = fault
    phone = line.phone()
    phone.status = None
    began = time.monotonic()
    leave_message(phone)
    assert phone.state == "ended"
    assert time.monotonic() - began < 1 + LATE
    assert until(lambda: len(sink.notices) >= 1)
    assert {notice.path for notice in sink.notices} == {"/hook?secret=geheim"}
    if fault != "hang":
        sink.fault = None
        assert [notice.event for notice in told(sink, phone)] == ["voicemail"]


def test_a_sink_that_hangs_keeps_the_end_within_the_deadline(sink: Sink, tmp_path: Path) -> None:
    """The status callback is answered in time, and no second teller starts."""
    line = owned(sink, tmp_path, **BRISK)
    phone = line.phone()
    phone.ring()
    sink.fault = "hang"
    for _ in range(3):
        began = time.monotonic()
        assert end(line, phone.call_sid) == 503
        assert time.monotonic() - began < 1.2 + LATE
    assert len(sink.notices) == 1


def test_a_sink_that_refuses_is_not_asked_again(line: Inside, sink: Sink, log: Log) -> None:
    """A 4xx is final: it stands in the log, without the address, and Twilio is not kept busy."""
    phone = line.phone()
    phone.ring()
    sink.fault = 404
    assert end(line, phone.call_sid) == 204
    assert len(sink.notices) == 1
    [refused] = [entry for entry in log() if entry["message"] == "event refused"]
    assert refused["cause"] == "NOTIFY_URL answered 404"
    assert (refused["event"], refused["level"]) == ("missed", "error")


@pytest.mark.long
def test_the_log_names_who_was_not_told(line: Inside, sink: Sink, log: Log) -> None:
    """Whoever reads it must not look for the fault in a backend that there is none of."""
    phone = line.phone()
    phone.ring()
    sink.fault = 500
    assert end(line, phone.call_sid) == 503
    faults = [each for each in log() if each["level"] == "error"]
    ours = [each for each in faults if each.get("call") == phone.call_sid]
    told = {(each["message"], each["cause"]) for each in ours}
    assert told == {("NOTIFY_URL failed", "NOTIFY_URL answered 500")}


def test_an_event_outlives_the_instance(sink: Sink, tmp_path: Path) -> None:
    """The instance dies before the sink takes the message: another one tells of it at the end."""
    first, second = (owned(sink, tmp_path) for _ in range(2))
    phone = first.phone()
    phone.ring()
    with no_threads():  # nobody can begin to tell, as if the instance were killed here
        recorded = webhook(CallSid=phone.call_sid, RecordingUrl=RECORDING, RecordingDuration="7")
        assert first.post(VOICEMAIL, recorded).status == 200
    assert sink.notices == []
    assert end(second, phone.call_sid) == 204
    [notice] = told(sink, phone)
    assert (notice.event, notice.body["seconds"]) == ("voicemail", 7)


def test_the_end_overtakes_the_message(line: Inside, sink: Sink) -> None:
    """The call ends while it records: 503 once; the message comes, and is all that is told."""
    phone = line.phone()
    phone.ring()
    phone.say("my invoice")
    phone.callee("no-answer")
    assert phone.state == "record"
    assert end(line, phone.call_sid) == 503
    place = phone.webhooks[-1].url.partition("/voice")
    assert place
    recorded = {"CallStatus": "completed", "RecordingUrl": RECORDING, "RecordingDuration": "3"}
    fields = webhook(CallSid=phone.call_sid, **recorded)
    assert line.post("/voice/process?turn=3&step=voicemail", fields).status == 200
    assert end(line, phone.call_sid) == 204
    assert [notice.event for notice in told(sink, phone)] == ["voicemail"]


def test_a_message_whose_cell_is_missing_is_told_at_the_end(line: Inside, sink: Sink) -> None:
    """Redis refused that cell and the instance died: the record of the call has the recording."""
    call = new_call()
    record = Record(
        turn=4, step="message_taken", twiml="<Response/>", recording=RECORDING, lasted=9
    )
    fill_cell(line, f"call:{call}:1", write_record(record))
    assert end(line, call) == 204
    assert until(lambda: len(sink.notices) == 1)
    [notice] = sink.notices
    assert (notice.key, notice.body["seconds"]) == (f"{call}:voicemail", 9)
    assert end(line, call) == 204
    assert len(sink.notices) == 1


@pytest.mark.parametrize("talked", [True, False])
def test_a_call_that_outlasts_its_records_is_judged_at_the_second_look(
    line: Inside, sink: Sink, talked: bool
) -> None:
    """Redis was away when the caller was connected: what the transfer came to may be on its way."""
    call, ago = new_call(), round(time.time() - 610, 3)
    asked = Record(turn=1, step="reason", twiml="<Response/>", at=ago)
    fill_cell(line, f"call:{call}:1", write_record(asked))
    assert end(line, call) == 503
    if talked:
        fields = webhook(CallSid=call, DialCallStatus="completed", CallStatus="completed")
        line.post("/voice/process?turn=2&step=connect", fields)
    assert end(line, call) == 204
    assert [notice.event for notice in sink.notices] == ([] if talked else ["missed"])


def test_a_call_that_the_line_has_ended_is_judged_at_once(line: Inside, sink: Sink) -> None:
    """Nothing can be missing after the last words, however late Twilio tells of the end."""
    call, ago = new_call(), round(time.time() - 610, 3)
    ended = Record(turn=1, step="goodbye", twiml="<Response/>", at=ago)
    fill_cell(line, f"call:{call}:1", write_record(ended))
    assert end(line, call) == 204
    assert [notice.event for notice in sink.notices] == ["missed"]


def test_the_end_overtakes_a_talk(line: Inside, sink: Sink) -> None:
    """The call ends while it rings: 503 once; then Twilio tells of a talk, and nothing is told."""
    phone = line.phone()
    phone.ring()
    phone.say("my invoice")
    assert phone.state == "dial"
    assert end(line, phone.call_sid) == 503
    talked = {"CallStatus": "completed", "DialCallStatus": "completed", "DialBridged": "true"}
    fields = webhook(CallSid=phone.call_sid, **talked)
    assert line.post("/voice/process?turn=2&step=connect", fields).status == 200
    assert end(line, phone.call_sid) == 204
    assert sink.notices == []


@pytest.mark.parametrize("outcome", [None, "no-answer"], ids=["while it rings", "at the tone"])
def test_the_repeat_decides_if_nothing_comes(line: Inside, sink: Sink, outcome: str | None) -> None:
    """No message and no outcome by the time Twilio asks again: the call is missed."""
    phone = line.phone()
    phone.ring()
    phone.say("my invoice")
    if outcome:
        phone.callee(outcome)
    assert [end(line, phone.call_sid) for _ in range(3)] == [503, 204, 204]
    assert [notice.event for notice in told(sink, phone)] == ["missed"]


def test_the_message_comes_after_all(line: Inside, sink: Sink) -> None:
    """A recording that is later than the repeat is told, too: no message is lost."""
    phone = line.phone()
    phone.ring()
    phone.say("my invoice")
    phone.callee("no-answer")
    assert [end(line, phone.call_sid) for _ in range(2)] == [503, 204]
    fields = webhook(CallSid=phone.call_sid, CallStatus="completed", RecordingUrl=RECORDING)
    assert line.post("/voice/process?turn=3&step=voicemail", fields).status == 200
    assert [notice.event for notice in told(sink, phone, 2)] == ["missed", "voicemail"]


def test_a_message_whose_turn_was_not_settled_is_no_missed_call(line: Inside, sink: Sink) -> None:
    """The cell of the message is there and the answer's is not: there is a message all the same."""
    phone = line.phone()
    phone.ring()
    message = Message(RECORDING, seconds=5)
    fill_cell(line, f"call:{phone.call_sid}:voicemail", write_record(message))
    assert end(line, phone.call_sid) == 204
    assert [notice.event for notice in told(sink, phone)] == ["voicemail"]


class Lagging(SQLite):
    """A store whose replica has not got the third turn of any call yet; the primary has."""

    def execute(self, command: list[str], until: float) -> Any:  # noqa: ANN401 # as SQLite
        result = super().execute(command, until)
        if command[0] != "MGET":
            return result
        keys = zip(command[1:], result, strict=True)
        return [None if key.endswith(":3") else value for key, value in keys]


def test_a_lagging_replica_makes_no_talk_a_missed_call(sink: Sink, tmp_path: Path) -> None:
    """The outcome of the transfer stands at the primary alone, which is asked."""
    with changed(line_room, open_store=lambda settings: Lagging(settings.state_file)):
        line = owned(sink, tmp_path)
        phone = line.phone()
        phone.status = None
        talk(phone)
        assert phone.state == "ended"
        assert end(line, phone.call_sid) == 204
        assert sink.notices == []


def test_while_the_store_is_away_twilio_is_asked_to_come_again(
    sink: Sink, upstash: Upstash
) -> None:
    """Nothing can be known of the call: 503, and the repeat finds out."""
    line = Inside({**upstash.settings, **BRISK, "NOTIFY_URL": sink.url, "FORWARD_TO": PERSON})
    phone = line.phone()
    phone.ring()
    upstash.fault = lambda _: "502"
    assert end(line, phone.call_sid) == 503
    upstash.fault = None
    assert until(lambda: end(line, phone.call_sid) == 204)
    assert [notice.event for notice in told(sink, phone)] == ["missed"]


# With a backend.


def test_a_call_that_the_backend_ends_is_not_missed(sink: Sink, tmp_path: Path) -> None:
    """The backend said what there was to say: its end of a call is no missed call."""
    with Backend(lambda _: says("Booked. Goodbye.", then="hangup")) as backend:
        line = owned(sink, tmp_path, BACKEND_URL=backend.url)
        phone = line.phone()
        phone.ring()
        phone.say("a ticket")
        assert phone.state == "ended"
        assert sink.notices == []
        assert [question.body.get("event") for question in backend.questions] == [None, "ended"]


def test_a_caller_who_leaves_the_backend_is_missed(sink: Sink, tmp_path: Path) -> None:
    """Who hangs up on the backend talked to nobody."""
    with Backend(lambda _: says("Which day?")) as backend:
        line = owned(sink, tmp_path, BACKEND_URL=backend.url)
        phone = line.phone()
        phone.ring()
        phone.say("a ticket")
        phone.hang_up()
        [notice] = told(sink, phone)
        assert (notice.event, notice.body["heard"]) == ("missed", "a ticket")


def test_owner_and_backend_are_told_each_its_own(sink: Sink, tmp_path: Path) -> None:
    """A backend gets voicemail and ended, as ever; the owner gets the message."""
    with Backend(lambda _: says("", then="voicemail")) as backend:
        line = owned(sink, tmp_path, BACKEND_URL=backend.url)
        phone = line.phone()
        phone.ring()
        phone.say("a ticket")
        phone.leave_message(5)
        assert [notice.event for notice in told(sink, phone)] == ["voicemail"]
        events = [question.body for question in backend.questions if "event" in question.body]
        assert [event["event"] for event in events] == ["voicemail", "ended"]
        assert set(events[0]) == {"event", "call_sid", "from", "to", "recording_url"}


def test_a_backend_that_hangs_does_not_delay_the_owner(sink: Sink, tmp_path: Path) -> None:
    """Both are told at the same time: who is ill keeps nobody waiting."""

    def hang(question: Question) -> Reply:
        time.sleep(3 if "event" in question.body else 0)
        return says("Which day?")

    with Backend(hang) as backend:
        line = owned(sink, tmp_path, BACKEND_URL=backend.url, **BRISK)
        phone = line.phone()
        phone.ring()
        began = time.monotonic()
        assert end(line, phone.call_sid) == 503
        assert time.monotonic() - began < 1.2 + LATE
        [notice] = told(sink, phone)
        assert notice.at - began < 1 + LATE


# A secret.


def test_the_address_is_a_secret(sink: Sink, tmp_path: Path, log: Log) -> None:
    """NOTIFY_URL holds a key to the owner's chat: it is in no log, on no page, in no problem."""
    line = owned(sink, tmp_path, **BRISK)
    for fault in (500, "cut", "redirect", 404):
        sink.fault = fault
        phone = line.phone()
        phone.ring()
        end(line, phone.call_sid)
    health = line.send("GET", "/healthz").body.decode()
    wrong = Inside({**line.env, "NOTIFY_URL": "geheim://chat.example/geheim"})
    health += wrong.send("GET", "/healthz").body.decode()
    assert "NOTIFY_URL" in health
    for text in (health, str(log())):
        assert "geheim" not in text
        assert str(urlsplit(sink.url).port) not in text
    assert "geheim" not in str(stored(tmp_path / "calls"))


@pytest.mark.parametrize("value", ["chat.example/hook", "ftp://chat.example", "https://", "x y"])
def test_an_address_that_is_none_is_a_problem(tmp_path: Path, value: str) -> None:
    """NOTIFY_URL is http or https, with a host."""
    line = Inside({"STATE_FILE": str(tmp_path / "calls"), "NOTIFY_URL": value})
    assert line.send("GET", "/healthz").status == 503


# In a transcript.


def test_a_transcript_says_what_the_owner_is_told(line: Inside, sink: Sink) -> None:
    """The stand-in of a sink writes the sentence into the call that it is about."""
    phone = sink.follow(line.phone())
    hang_up_at_once(phone)
    told_so = f"owner is told: {say('owner_missed_silent', caller='+15557654321')}"
    assert until(lambda: told_so in phone.transcript)
