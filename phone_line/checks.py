"""A flow rehearsed before the first call, so that no caller finds its faults.

Every step is entered once, and then gets everything that can happen there: silence and nonsense
three times, every key, a doubtful word, each outcome of a Dial, a backend that fails. What would be
said on the way is looked at: a sentence that the words file lacks, a {placeholder} that nothing
fills in, and steps that lead nowhere or in a circle are problems, told at deploy time.
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import Final

from phone_line.conversation import MISSES, UNANSWERED, decide, enter
from phone_line.flow import (
    ENTRANCES,
    NEEDED,
    Ask,
    Consult,
    End,
    Flow,
    Offer,
    Refuse,
    Step,
    Tell,
    Transfer,
    Voicemail,
    follow_steps,
)
from phone_line.plan import Plan
from phone_line.recognition import find_stranger, knows_language
from phone_line.records import Answer, Call, Heard
from phone_line.settings import Settings
from phone_line.twiml import HOLDS
from phone_line.words import Words

NAME: Final = re.compile(r"[a-z][a-z0-9_-]*")  # of a sentence; anything else is spoken as it is
BLANK: Final = re.compile(r"{\w+}")
ANYBODY: Final = ("+15550100099",)  # who is rung in a rehearsal, so that every step is reached
DOUBT: Final = 0.1  # a Confidence that makes the line ask back
LOST: Final = "nothing that any line understands"
ALIKE: Final = 0.8  # of two names' letters, where one may be the other misspelt


ASIDE: Final = {  # what is said beside the flow, with what is filled in
    **{sentence: () for sentence, _seconds in HOLDS},
    "apology": (),
    "call_again": (),
    "whisper": ("name", "heard"),
    "whisper_silent": ("name",),
    "whisper_you": ("heard",),
    "whisper_you_silent": (),
}


class Script(dict[str, str]):
    """The sentences of a words file; it notes the names that are asked for, and those in vain."""

    def __init__(self, words: Words) -> None:
        super().__init__(words.sentences)
        self.unsaid = {*words.sentences}
        self.lacking: dict[str, None] = {}

    def get(self, name: str, default: str = "") -> str:  # type: ignore[override] # all are text
        """A sentence; the name itself, noted, where there is none."""
        self.unsaid.discard(name)
        if name not in self and NAME.fullmatch(name):
            self.lacking[name] = None
        return super().get(name, default)


def find_flaws(settings: Settings, plan: Plan) -> Iterator[str]:
    """The problems of a flow and its words, each in one plain sentence."""
    yield from find_loose_ends(plan.flow, settings)
    model, language = settings.speech_model, plan.words.tag
    if settings.speech_timeout == "auto":
        model = ""  # it is dropped
    if model and not knows_language(model, language):
        yield f"SPEECH_MODEL {model} does not know {language}: without it, one is chosen that does"
    stranger = find_stranger(language)
    if stranger and model in ("", "default"):
        yield f"LANGUAGE: {stranger}"
    if settings.notify_url and language == settings.language[0]:
        from phone_line.owner import find_faults  # few lines need it

        yield from find_faults(plan.words)
    if any(name not in plan.flow for name in (*NEEDED, *ENTRANCES)):
        return  # there is nothing to rehearse with
    everybody = dict.fromkeys(["FORWARD_TO", *settings.departments], ANYBODY)
    script = Script(plan.words)
    words = replace(plan.words, sentences=script)
    told: dict[str, None] = {}
    for numbers in (everybody, plan.numbers):
        for step, sentence in rehearse(replace(plan, words=words, numbers=numbers)):
            for blank in BLANK.findall(sentence):
                told[f"{step} says {blank}, which nothing fills in: {sentence!r}"] = None
    yield from told
    for name in script.lacking:
        yield tell_lacking(plan.words, name, script.unsaid)


def tell_lacking(words: Words, name: str, unsaid: Collection[str]) -> str:
    """Say that a sentence is missing; one that nobody says and that looks like it may be meant."""
    from difflib import get_close_matches  # few lines need it

    said = f"there is no sentence {name!r}, and this line says it"
    for similar in get_close_matches(name, unsaid, 1, ALIKE):
        return f"{words.place_of(similar)}: {said}; {similar!r} may be meant"
    return f"{words.place_of(name)}: {said}"


def find_loose_ends(flow: Flow, settings: Settings) -> Iterator[str]:
    """Steps that are missing, lead nowhere, or ring a number that is not configured."""
    for name in dict.fromkeys((*NEEDED, *ENTRANCES)):
        if name not in flow:
            yield f"flow: there is no step {name!r}, and every line needs it"
    for name, step in flow.items():
        for following in follow_steps(step):
            if following not in flow:
                yield f"flow: step {name!r} leads to {following!r}, and there is no such step"
        if isinstance(step, Transfer) and step.to not in ("FORWARD_TO", *settings.departments):
            yield f"flow: step {name!r} calls {step.to!r}, which is no department"
        if leads_in_circle(flow, step, settings):
            yield f"flow: step {name!r} leads in a circle before the caller can say a word"


def leads_in_circle(flow: Flow, step: Step, settings: Settings) -> bool:
    """Tell whether a step goes on and on without waiting for the caller."""
    at: Step | None = step
    for _ in flow:
        match at:
            case Tell():
                at = flow.get(at.then)
            case Transfer() if at.to not in settings.numbers:
                at = flow.get(at.unanswered)
            case Ask() | Offer() | Transfer() | Voicemail() | Consult() | End() | Refuse() | None:
                return False
    return True


def rehearse(plan: Plan) -> Iterator[tuple[str, str]]:
    """Everything that a line can say, with who says it."""
    for name, filled in ASIDE.items():
        yield f"sentence {name!r}", plan.sentence(name, **dict.fromkeys(filled, "word"))
    for name, step in plan.flow.items():
        call, reply = enter(plan, Call(turn=1), name)
        said = list(reply.says)
        for heard in happenings(step):
            said += play_out(plan, replace(call, step=name), heard)
        for sentence in said:
            yield f"flow: step {name!r}", sentence


def play_out(plan: Plan, call: Call, heard: Heard) -> Iterator[str]:
    """The sentences when the same thing happens again and again at a step."""
    step = call.step
    for _ in range(MISSES):
        call, reply = decide(plan, call, heard)
        yield from reply.says
        if call.step != step:
            return


def happenings(step: Step) -> Iterator[Heard]:
    """Everything that can happen at a step."""
    match step:
        case Ask():
            yield from (Heard(), Heard(keys="*"), Heard(keys="0"), Heard(keys="#"))
            yield Heard(speech=LOST)
            for name in step.routes:
                yield Heard(speech=name, confidence=DOUBT)
        case Transfer():
            for outcome in (*UNANSWERED, "failed", "completed"):
                yield Heard(dial=outcome)
            yield Heard()
        case Voicemail():
            yield from (Heard(recording="https://example.com/recording"), Heard())
        case Consult():
            yield Heard(answer=Answer(failed=True))
            for then in ("listen", "transfer", "voicemail", "hangup"):
                yield Heard(answer=Answer(then=then, to="FORWARD_TO"))
        case Offer():
            yield from (Heard(), Heard(keys="2"))
        case Tell() | End() | Refuse():
            yield Heard()
