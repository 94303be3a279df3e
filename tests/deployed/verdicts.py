"""The line's own notes about a rehearsed call, held against its script.

A script that went well answers questions that documents leave open. The answers are for one call,
over one network, at one hour. Seconds are rough: the beginning is the moment at which the line had
answered, and words are reckoned at a speaker's usual speed.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from deployed.findings import Findings, change, note, ok
from deployed.reach import play_link
from deployed.script import Beat, Timed
from phone_line.settings import Settings

Answers = dict[str, str]  # by question, one of QUESTIONS
NOT_YET: Final = 404  # a recording may take some seconds until it is there
LOOKS: Final = 5
BRIDGED: Final = {
    "completed": "true (DialCallStatus=completed): somebody talked to the caller",
    "answered": "true (DialCallStatus=answered): somebody talked to the caller",
    "not-accepted": "false (DialCallStatus=completed): picked up, and the call was not taken",
    "": "nothing: the call was over before the transfer was",
}
INTERRUPTS: Final = "Does speech cut a prompt short?"
WORDS: Final = "What does recognition make of a word, and how sure is it?"
PAUSE: Final = "How long does it take from the end of speech to an answer?"
KEYS: Final = "How long do keys take?"
SILENCE: Final = "Does a silent caller end at voicemail, without ringing anybody?"
PLAYS: Final = "Does the recording play by its link?"
HOLD: Final = "What does a caller on hold go through?"
DIAL: Final = "What does DialBridged say?"
END: Final = "Does the line hear of the end of a call?"
QUESTIONS: Final = (KEYS, WORDS, PAUSE, INTERRUPTS, SILENCE, PLAYS, HOLD, DIAL, END)


@dataclass(frozen=True)
class Heard:
    """A call that was made: its script, and the line's own account of it."""

    timed: Timed
    call: Mapping[str, Any]
    settings: Settings
    speed: float = 1.0

    @property
    def turns(self) -> Sequence[Mapping[str, Any]]:
        """The turns of the call, in order; the first are the line's first words."""
        found: Sequence[Mapping[str, Any]] = self.call.get("turns", [])
        return found

    @property
    def beat(self) -> Beat:
        """The last move, which the script is about."""
        return self.timed.beats[-1]

    def find_turn(self) -> Mapping[str, Any]:
        """The turn that the last move led to; empty if it led to none."""
        number = len(self.timed.beats)
        return self.turns[number] if len(self.turns) > number else {}

    def since_answer(self, turn: Mapping[str, Any]) -> float:
        """Seconds from the line's first words to a turn."""
        return float(turn["at"] - self.turns[0]["at"]) * self.speed


def judge_script(heard: Heard, answers: Answers) -> Findings:
    """The outcome of a script."""
    name = heard.timed.script.name
    if not heard.turns:
        yield change(f"{name}: the line wrote nothing down", "Is its store the one it should be?")
        return
    if not heard.find_turn() and name != "voicemail":
        yield from judge_nothing(heard, answers)
        return
    yield from JUDGES[name](heard, answers)
    end = heard.call.get("end") or {}
    answers[END] = f"yes: {end.get('status')}, {end.get('seconds')} s" if end else "no"
    if not end:
        yield change(f"{name}: the line was not told of the end", "The number's status callback.")


def judge_nothing(heard: Heard, answers: Answers) -> Findings:
    """The move led to no turn at all."""
    name = heard.timed.script.name
    if name == "interrupt":
        answers[INTERRUPTS] = "no: what is said during a prompt is lost"
        yield note(f"{name}: what was said during the prompt did not reach the line")
    else:
        yield change(f"{name}: nothing of it reached the line", "Is the number's voice URL right?")


def judge_key(heard: Heard, answers: Answers) -> Findings:
    """Keys that ring nobody: the question is repeated."""
    turn, wanted = heard.find_turn(), heard.beat.move.words
    if turn["keys"] != wanted:
        yield change(
            f"key: {wanted!r} was pressed, and the line took {turn['keys'] or turn['heard']!r}",
            "Was it pressed too early? Look at the call's page.",
        )
        return
    seconds = heard.since_answer(turn) - heard.beat.ends
    answers[KEYS] = f"{seconds:.1f} s from the last key to the line's answer"
    yield ok(f"key: {wanted!r} arrived")


def judge_word(heard: Heard, answers: Answers) -> Findings:
    """A word that rings nobody, said when the line listens."""
    turn, wanted = heard.find_turn(), heard.beat.move.words
    if not turn["heard"]:
        yield change("word: what was said was not recognised", "LANGUAGE, or SPEECH_MODEL?")
        return
    seconds = heard.since_answer(turn) - heard.beat.ends
    answers[WORDS] = f"{wanted!r} became {turn['heard']!r}, {write_confidence(turn)}"
    answers[PAUSE] = f"about {seconds:.1f} s, SPEECH_TIMEOUT={heard.settings.speech_timeout}"
    yield ok(f"word: {wanted!r} was heard as {turn['heard']!r}")


def write_confidence(turn: Mapping[str, Any]) -> str:
    """The Confidence of a turn: Twilio does not promise one."""
    if turn.get("confidence") is None:
        return "without a Confidence"
    return f"Confidence {turn['confidence']}"


def judge_interruption(heard: Heard, answers: Answers) -> Findings:
    """A word that is said while the line speaks."""
    turn = heard.find_turn()
    if not turn["heard"]:
        yield from judge_nothing(heard, answers)
        return
    came, lasts = heard.since_answer(turn), heard.timed.prompt
    if came < lasts:
        answers[INTERRUPTS] = f"yes: it was answered {came:.1f} s into words of {lasts:.0f} s"
    else:
        answers[INTERRUPTS] = f"no: it was answered after {came:.1f} s, the words take {lasts:.0f}"
    yield ok(f"interrupt: {turn['heard']!r} was heard")


def judge_voicemail(heard: Heard, answers: Answers) -> Findings:
    """Silence until there is voicemail, and a message."""
    rung = [turn["dial"] for turn in heard.turns if turn["dial"]]
    silences = [turn for turn in heard.turns[1:] if not turn["heard"] and not turn["keys"]]
    link = heard.call.get("recording") or ""
    if rung:
        answers[SILENCE] = f"no: somebody was rung ({rung[0]})"
    elif link:
        answers[SILENCE] = f"yes, after {len(silences) - 1} silences"
    if not link:
        said = [turn["heard"] for turn in heard.turns if turn["heard"]]
        seen = f"the message came too early, as {said[0]!r}" if said else "there is no message"
        yield change(
            f"voicemail: {seen}", "Our guess of how long the line speaks was wrong: again."
        )
        return
    yield ok("voicemail: the message is there")
    finding = play_link(link)
    for _ in range(LOOKS):
        if f"answered {NOT_YET} " not in finding.seen:
            break
        time.sleep(2 / heard.speed)
        finding = play_link(link)
    answers[PLAYS] = f"{'yes' if finding.level == 'ok' else 'no'}: {finding.seen}"
    yield finding


def judge_hold(heard: Heard, answers: Answers) -> Findings:
    """A question that the backend answers."""
    turn = heard.find_turn()
    seconds = heard.since_answer(turn) - heard.beat.ends
    answers[HOLD] = (
        f"the backend took {turn['seconds']:.1f} s, the caller was put on hold {turn['hold']} "
        f"times, and the answer was there {seconds:.1f} s after the question"
    )
    if not turn["heard"]:
        yield change("hold: the question was not recognised", "LANGUAGE, or SPEECH_MODEL?")
    else:
        yield ok(f"hold: {turn['heard'][:40]!r} was answered {str(turn['said'])[:60]!r}")


def judge_transfer(heard: Heard, answers: Answers) -> Findings:
    """Somebody is rung."""
    turn, name = heard.find_turn(), heard.timed.script.name
    wanted = heard.beat.move.words
    dials = [each["dial"] for each in heard.turns if each["dial"]]
    outcome = dials[0] if dials else ""
    answers[DIAL] = BRIDGED.get(outcome, f"false or nothing (DialCallStatus={outcome})")
    if name == "connected" or turn["step"].startswith("to_"):
        yield ok(f"{name}: {wanted!r} led to {turn['step']}: {outcome or 'the call ended first'}")
    else:
        yield change(
            f"{name}: {wanted!r} led to {turn['step']}, heard as {turn['heard'] or turn['keys']!r}",
            "Is the department's name easy to say? Look at the call's page.",
        )


JUDGES: Final[Mapping[str, Callable[[Heard, Answers], Findings]]] = {
    "key": judge_key,
    "word": judge_word,
    "interrupt": judge_interruption,
    "voicemail": judge_voicemail,
    "hold": judge_hold,
    "menu by key": judge_transfer,
    "menu by word": judge_transfer,
    "connected": judge_transfer,
}
