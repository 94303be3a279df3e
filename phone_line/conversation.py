"""The next state of a call, and the words for it: `decide`.

Pure and total: no clock, network, environment or log; every input has an answer, silence and
nonsense included. Moments and ids come in as arguments. What a webhook carries is believed before
what the record says, because records get lost.

A call that is not understood is asked again, with more patience and clearer help. One counter of
misses serves all of it; the kind of the third decides: words that were not understood deserve a
person, a silence does not, since whoever is silent may be a machine.
"""

from dataclasses import replace
from typing import Final, Literal, NamedTuple

from phone_line.flow import (
    Ask,
    Consult,
    End,
    Offer,
    Refuse,
    Step,
    Tell,
    Transfer,
    Voicemail,
    name_step,
)
from phone_line.plan import Plan
from phone_line.records import LAST_TURN, Answer, Call, Heard
from phone_line.text import fit_say, fold_words, open_end, shorten, speak_name
from phone_line.understanding import (
    AGAIN,
    OPERATOR,
    command_in_any,
    find_language,
    is_negated,
    is_no,
    is_whole_answer,
    similar_step,
    step_of_key,
    steps_after_guess,
    steps_of_words,
)

LEAVING: Final = LAST_TURN - 3  # from here on: a person, voicemail, goodbye
SURE: Final = 0.5  # a Confidence below it makes us ask "did you say"; Twilio promises no scale
MISSES: Final = 3  # misses in a row that end the questions
OFFERS: Final = 2  # how often the languages are offered
READ_BACK: Final = 120  # characters of what was heard that are read back: a sentence's worth
TALKED: Final = ("completed", "answered", "canceled")  # canceled: the caller has hung up
UNANSWERED: Final = {  # outcome of a Dial: the sentence that says it; any other is "failed"
    "busy": "busy",
    "no-answer": "no-answer",
    "not-accepted": "no-answer",
    "called-off": "no-answer",
}
Miss = Literal["silence", "words", "repeats"]


class Reply(NamedTuple):
    """The sentences that the caller hears, then the step that waits for the caller (or ends)."""

    says: tuple[str, ...]
    step: Step
    patience: int = 0  # extra seconds of silence that we sit through
    guessing: bool = False  # the question is "did you say", to be answered by yes or no


def decide(plan: Plan, call: Call, heard: Heard) -> tuple[Call, Reply]:
    """The next state of a call and what the caller hears. Total: every pair has an answer."""
    call = replace(call, turn=call.turn + 1)
    step = plan.flow.get(call.step)
    if call.turn > LAST_TURN:
        return enter(plan, replace(call, recording=heard.recording or call.recording), "goodbye")
    if heard.dial:
        return follow_transfer(plan, call, heard, step if call.turn <= LEAVING else None)
    if heard.recording:
        taken = step.then if isinstance(step, Voicemail) else "message_taken"
        return enter(plan, replace(call, recording=heard.recording), taken)
    if call.turn > LEAVING and isinstance(step, Ask | Consult):
        return give_up(plan, call, "words")
    return go_on(plan, call, heard, step)


def go_on(plan: Plan, call: Call, heard: Heard, step: Step | None) -> tuple[Call, Reply]:
    """The next state of a call that stands at a step, where words came, keys, or nothing."""
    match step:
        case Ask():
            return take_answer(plan, call, heard, step)
        case Offer():
            return choose_language(plan, call, heard, step)
        case Consult():
            return follow_backend(plan, call, heard, step)
        case Transfer():
            return enter(plan, call, step.unanswered, plan.sentence("interrupted"))
        case Voicemail():
            return enter(plan, call, call.step if heard.again else "goodbye")
        case Tell() | End() | Refuse() | None:
            return enter(plan, call, heard.entrance)


def enter(plan: Plan, call: Call, name: str, *says: str) -> tuple[Call, Reply]:
    """Go to a step and on to the first one that waits, gathering the sentences on the way."""
    step = plan.flow["start"]
    for _ in plan.flow:  # a table that leads in a circle ends here
        name = name if name in plan.flow else "start"  # a deploy in mid-call took the step away
        step = plan.flow[name]
        if isinstance(step, Tell):
            says, name = (*says, plan.sentence(step.say)), step.then
        elif isinstance(step, Transfer) and not plan.numbers.get(step.to):
            name = step.unanswered
        else:
            break
    choices = read_choices(step)
    call = replace(call, step=name, choices=choices, misses=0, repeats=0, guess="", prompt="")
    return call, Reply((*says, *ask_or_announce(plan, call, step)), step)


def read_choices(step: Step) -> tuple[str, ...]:
    """The choices that a step reads out, in order."""
    if isinstance(step, Offer):
        return step.languages
    return tuple(step.routes) if isinstance(step, Ask) else ()


def ask_or_announce(plan: Plan, call: Call, step: Step) -> tuple[str, ...]:
    """The sentence of a step itself; the backend's own question, if it asked one."""
    match step:
        case Ask():
            return (fit_say(call.prompt) or plan.sentence(step.say, menu=plan.menu(step)),)
        case Transfer():
            heard = open_end(call.quote)
            return (plan.sentence(step.say, heard=heard, name=speak_name(step.to)),)
        case Voicemail() | End():
            return (plan.sentence(step.say),)
        case Offer() | Tell() | Consult() | Refuse():
            return ()


def choose_language(plan: Plan, call: Call, heard: Heard, offer: Offer) -> tuple[Call, Reply]:
    """By key, or by the name of the language in itself. Silence twice: the first language.

    A person is asked for by 0 or by a word of any language, and rung while the line is open.
    """
    said = fold_words(heard.speech)
    command = command_in_any(plan.others, heard.keys, said)
    if command == OPERATOR:
        return enter(plan, call, OPERATOR if heard.entrance == "start" else heard.entrance)
    tag = find_language(plan.others, call.choices or offer.languages, heard.keys, said)
    repeats = call.repeats + (command == AGAIN)
    is_free = heard.again or (command == AGAIN and repeats == 1)
    if tag not in offer.languages and (is_free or call.misses + 1 < OFFERS):
        misses = call.misses if is_free else call.misses + 1
        call = replace(call, misses=misses, repeats=repeats, choices=offer.languages)
        return call, Reply((), offer, patience=3 * misses)
    tag = tag if tag in offer.languages else offer.languages[0]
    return enter(plan.in_language(tag), replace(call, language=tag), heard.entrance)


def take_answer(plan: Plan, call: Call, heard: Heard, ask: Ask) -> tuple[Call, Reply]:
    """The caller answers a question: by keys, by words, or not at all."""
    if heard.again:
        return ask_again(plan, call, ask)
    if heard.keys:
        return take_keys(plan, call, heard.keys, ask)
    if heard.speech:
        return take_words(plan, call, heard, ask)
    return miss(plan, call, ask, "silence", plan.sentence("not_heard"))


def take_keys(plan: Plan, call: Call, keys: str, ask: Ask) -> tuple[Call, Reply]:
    """Keys are sure: they connect without asking back."""
    step = step_of_key(ask, call.choices, keys)
    if step == AGAIN:
        return repeat_question(plan, call, ask)
    if step:
        return enter(plan, call, step)
    if ask.then and is_whole_answer(ask, keys):
        return enter(plan, replace(call, quote=keys), ask.then)
    return miss(plan, call, ask, "words", plan.sentence("not_understood"))


def take_words(plan: Plan, call: Call, heard: Heard, ask: Ask) -> tuple[Call, Reply]:
    """Words lead on if they are heard well and mean one thing; else the line asks back."""
    said = fold_words(heard.speech)
    steps = steps_of_words(plan.words, ask, call.choices, said)
    sure = heard.confidence is None or heard.confidence >= SURE
    if call.guess:
        steps, sure = steps_after_guess(plan.words, ask, call.choices, said, call.guess), True
        if not steps and is_no(plan.words, said):
            return miss(plan, call, ask, "words")
    if not steps:
        return take_other_words(plan, call, heard, ask)
    step = steps[0]
    if step == AGAIN:
        return repeat_question(plan, call, ask)
    if step not in ask.routes.values():
        return enter(plan, call, step)
    if sure and len(steps) == 1 and not is_negated(plan.words, said):
        return enter(plan, call, step)
    if step == call.guess:  # "billing or sales", again
        return miss(plan, call, ask, "words", plan.sentence("not_understood"))
    return ask_back(plan, call, ask, step)


def take_other_words(plan: Plan, call: Call, heard: Heard, ask: Ask) -> tuple[Call, Reply]:
    """Words that name no choice: an open question takes them, a menu looks for a similar choice."""
    said = fold_words(heard.speech)
    if ask.then and said:
        return enter(plan, replace(call, quote=shorten(heard.speech, READ_BACK)), ask.then)
    similar = similar_step(ask, said)
    if similar and similar != call.guess:
        return ask_back(plan, call, ask, similar)
    return miss(plan, call, ask, "words", plan.sentence("not_understood"))


def ask_back(plan: Plan, call: Call, ask: Ask, step: str) -> tuple[Call, Reply]:
    """Ask "Did you say billing?", because speech recognition is unsure.

    After another such question it is a miss: nobody is asked back for ever.
    """
    if call.guess:
        call = replace(call, misses=call.misses + 1)
        if call.misses >= MISSES:
            return give_up(plan, call, "words")
    name = next(name for name, route in ask.routes.items() if route == step)
    question = plan.sentence("did_you_say", name=speak_name(name))
    return replace(call, guess=step), Reply((question,), ask, guessing=True)


def ask_again(plan: Plan, call: Call, ask: Ask, *says: str) -> tuple[Call, Reply]:
    """The same question once more; the more was missed, the longer we listen."""
    call = replace(call, guess="", choices=read_choices(ask))
    says = (*says, *ask_or_announce(plan, call, ask))
    return call, Reply(says, ask, patience=3 * call.misses)


def repeat_question(plan: Plan, call: Call, ask: Ask) -> tuple[Call, Reply]:
    """The caller wants to hear the question again: once for nothing, then it is a miss."""
    call = replace(call, repeats=call.repeats + 1)
    if call.repeats == 1:
        return ask_again(plan, call, ask)
    return miss(plan, call, ask, "repeats")


def miss(plan: Plan, call: Call, ask: Ask, kind: Miss, *says: str) -> tuple[Call, Reply]:
    """Ask again, more clearly and with more patience; at the third miss, stop asking."""
    call = replace(call, misses=call.misses + 1)
    if call.misses >= MISSES:
        return give_up(plan, call, kind, *says)
    if call.misses > 1:
        says = (*says, plan.sentence("help" if plan.person else "help_alone"))
    return ask_again(plan, call, ask, *says)


def give_up(plan: Plan, call: Call, kind: Miss, *says: str) -> tuple[Call, Reply]:
    """Stop asking: a person for whoever speaks, voicemail for silence or where nobody is."""
    if kind == "silence" or not plan.person:
        return enter(plan, call, "voicemail", *says)
    return enter(plan, call, OPERATOR, plan.sentence("giving_up"))


def follow_transfer(plan: Plan, call: Call, heard: Heard, step: Step | None) -> tuple[Call, Reply]:
    """After a Dial: whatever is neither a talk nor the caller's hanging up is no answer."""
    if heard.dial in TALKED:
        return enter(plan, call, "goodbye")
    unanswered = step.unanswered if isinstance(step, Transfer) else "voicemail"
    return enter(plan, call, unanswered, plan.sentence(UNANSWERED.get(heard.dial, "failed")))


def follow_backend(plan: Plan, call: Call, heard: Heard, step: Consult) -> tuple[Call, Reply]:
    """The backend has decided, has failed, or (no answer at all) is yet to be asked."""
    answer = heard.answer
    if answer is None:
        return enter(plan, call, step.listen) if heard.again else (call, Reply((), step))
    name = step_of_answer(answer, step)
    if answer.failed or name not in plan.flow:  # a deploy took the department away
        return enter(plan, call, step.failed, plan.sentence("no_result"))
    call, reply = enter(plan, call, name)
    if not answer.say:
        return call, reply
    if answer.then == "listen":
        call = replace(call, prompt=answer.say)
    if isinstance(reply.step, Voicemail):  # what has to be said before the tone is said as well
        return call, reply._replace(says=(answer.say, *reply.says))
    return call, reply._replace(says=(answer.say,))


def step_of_answer(answer: Answer, step: Consult) -> str:
    """The step that the backend's answer leads to."""
    match answer.then:
        case "listen":
            return step.listen
        case "transfer":
            return OPERATOR if answer.to == "FORWARD_TO" else name_step(answer.to)
        case "voicemail":
            return "voicemail"
        case _:  # "hangup", and what an older release may have let through
            return "goodbye"
