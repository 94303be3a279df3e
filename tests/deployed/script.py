"""A script for the second number in a call, and the TwiML that tells it so.

Nobody listens there, so a script is a list of moves with pauses between them. How long the pauses
have to be is found by playing the same moves to the line before, with the phone of the tests: its
clock knows about how long each sentence takes. The last move is left out of that, because it may
ring somebody, or leave a message.
"""

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple
from xml.sax.saxutils import escape, quoteattr

from standins.asking import seconds_to_say
from standins.call import Phone

MARGIN: Final = 1.5  # seconds after a sentence, as we reckon it, before we answer
EARLY: Final = 2.0  # seconds after the line has begun, for one who interrupts
MOST_SILENCES: Final = 5  # until there is voicemail; a line takes three
LISTENED: Final = 2.0  # seconds after the beep at which a message should have begun


class Move(NamedTuple):
    """Something that the second number does: says words, presses keys, leaves a message.

    One that interrupts speaks while the line does. A message waits, silent, for the beep.
    """

    kind: Literal["say", "press", "interrupt", "message"]
    words: str


class Script(NamedTuple):
    """The moves of a call, and for how many seconds it goes on after the last of them."""

    name: str
    moves: tuple[Move, ...]
    after: float


class Beat(NamedTuple):
    """A move with its time: seconds of pause before it, and since the call was answered."""

    move: Move
    pause: float
    at: float

    @property
    def ends(self) -> float:
        """Seconds from the answer of the call to the end of this move."""
        return self.at + reckon_length(self.move)


class Timed(NamedTuple):
    """A script with its beats, and the seconds that the line's first words take."""

    script: Script
    beats: tuple[Beat, ...]
    prompt: float

    @property
    def seconds(self) -> float:
        """The length of the call."""
        return self.beats[-1].ends + self.script.after


def reckon_length(move: Move) -> float:
    """The seconds that a move takes."""
    if move.kind == "press":
        return 0.5 * len(move.words)
    return seconds_to_say(move.words)


def time_script(script: Script, phone: Phone, patience: float) -> Timed:
    """Play a script's moves, but for the last, to the line, and find out when each is due.

    `patience` are the seconds for which the line waits after speech. Raises ValueError if the line
    does not listen at some move.
    """
    phone.ring()
    prompt = phone.clock.now
    beats: list[Beat] = []
    for number, move in enumerate(script.moves, 1):
        at = find_moment(move, phone)
        before = beats[-1].ends if beats else 0.0
        beats.append(Beat(move, max(at - before, 0.0), max(at, before)))
        if number < len(script.moves):
            make_move(move, phone, patience)
    return Timed(script, tuple(beats), prompt)


def find_moment(move: Move, phone: Phone) -> float:
    """The seconds since the answer at which a move is due. Raises ValueError if it never is."""
    if move.kind == "message":
        for _ in range(MOST_SILENCES):
            if phone.state == "gather":
                phone.silent()
        if phone.state != "record":
            raise ValueError("silence leads to no voicemail")
        return phone.clock.now - LISTENED
    if phone.state != "gather":
        raise ValueError(f"the line does not listen: {phone.state}")
    return EARLY if move.kind == "interrupt" else phone.clock.now + MARGIN


def make_move(move: Move, phone: Phone, patience: float) -> None:
    """Play a move to the line."""
    if move.kind == "press":
        phone.press(move.words)
        return
    phone.clock.tick(patience)
    phone.say(move.words)


def write_twiml(timed: Timed, language: str, voice: str) -> str:
    """A script as TwiML. The pauses are whole seconds, so each is reckoned from the beginning."""
    verbs = []
    told = 0.0  # seconds of the verbs so far
    for beat in timed.beats:
        pause = max(round(beat.at - told), 0)
        if pause:
            verbs.append(f'<Pause length="{pause}"/>')
        verbs.append(write_verb(beat.move, language, voice))
        told += pause + reckon_length(beat.move)
    verbs.append(f'<Pause length="{max(round(timed.script.after), 1)}"/><Hangup/>')
    return f"<Response>{''.join(verbs)}</Response>"


def write_verb(move: Move, language: str, voice: str) -> str:
    """A move as a verb: https://www.twilio.com/docs/voice/twiml/play, "digits"."""
    if move.kind == "press":
        return f"<Play digits={quoteattr(move.words)}/>"
    attributes = f"voice={quoteattr(voice)}"
    if "." not in voice:
        attributes += f" language={quoteattr(language)}"
    return f"<Say {attributes}>{escape(move.words)}</Say>"


def count_minutes(scripts: Sequence[Timed]) -> int:
    """The minutes that are billed: every call that has begun one pays for it."""
    return sum(int(timed.seconds // 60) + 1 for timed in scripts)
