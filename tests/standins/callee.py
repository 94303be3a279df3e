"""A phone that a Dial rings: what is heard there before it is joined with the caller.

`<Number url>` is TwiML for the callee's own leg, run after the pick-up and before the bridge
(https://www.twilio.com/docs/voice/twiml/number, "url"). Its webhook has the CallSid of that leg,
and the caller's as ParentCallSid. A document that ends joins the legs; Hangup ends this one.

Where Twilio's documentation is silent: the other phones ring on while one is screened; a document
that cannot be had ends the leg, and no fallback is asked; if a phone was picked up and none took
the call, the Dial is completed and not bridged.
"""

import uuid
from collections import deque
from typing import TYPE_CHECKING, Final
from urllib.parse import urldefrag, urljoin
from xml.etree.ElementTree import Element

from standins.twiml import Problem, words
from standins.webhooks import Ask, Failed

if TYPE_CHECKING:
    from standins.playing import Player

ORDINALS: Final = (  # of the phones of a Dial, as transcripts name them
    *("first", "second", "third", "fourth", "fifth"),
    *("sixth", "seventh", "eighth", "ninth", "tenth"),
)


class Callee:
    """One phone of a Dial. `state` says how it stands: rings, playing, asked, joined, gone."""

    def __init__(self, phone: "Player", target: Element, here: str, shown: str) -> None:
        """`target` is the <Number> or <Sip> of a document from `here`; `shown` the callerId."""
        self.phone, self.number, self.shown = phone, words(target), shown
        self.url = urljoin(here, target.get("url", "")) if target.get("url") else ""
        self.call_sid = "CA" + uuid.uuid4().hex
        self.state = "rings"
        self.heard: list[str] = []
        self._here = self.url
        self._gather = Element("Gather")
        self._rest: deque[Element] = deque()

    @property
    def fields(self) -> dict[str, str]:
        """The fields in which a webhook of this leg differs from one of the caller's."""
        return {
            "CallSid": self.call_sid,
            "ParentCallSid": self.phone.call_sid,
            "Direction": "outbound-dial",
            "From": self.shown,
            "To": self.number,
        }

    def pick_up(self) -> None:
        """Somebody, or something, answers: joined at once where no document is to be heard."""
        self.phone.clock.tick(4)
        self._run(Ask(self.url) if self.url else None)

    def press(self, keys: str) -> None:
        """Keys at the question; what exceeds numDigits or follows finishOnKey is lost."""
        digits = self._gather.get("finishOnKey", "#")
        taken = keys.partition(digits)[0] if digits else keys
        most = self._gather.get("numDigits", "")
        taken = taken[: int(most)] if most.isdigit() else taken
        if not taken or "dtmf" not in self._gather.get("input", "dtmf").split():
            self.wait()
            return
        self._run(Ask(urljoin(self._here, self._gather.get("action", "")), [("Digits", taken)]))

    def wait(self) -> None:
        """Nothing is keyed: the next verb, or the action if it asks for that."""
        timeout = self._gather.get("timeout", "")
        self.phone.clock.tick(int(timeout) if timeout.isdigit() else 5)
        empty = self._gather.get("actionOnEmptyResult") == "true"
        action = urljoin(self._here, self._gather.get("action", ""))
        self._run(Ask(action) if empty else None)

    def hang_up(self) -> None:
        """This phone is put down, or the caller is gone."""
        self.state = "gone"

    def _run(self, ask: Ask | None) -> None:
        """Fetch what is asked, then play until a key is asked for, or the leg is joined or gone."""
        self.state = "playing"
        if ask:
            self._open(ask)
        while self.state == "playing":
            if self._rest:
                self._play(self._rest.popleft())
            else:
                self.state = "joined"

    def _open(self, ask: Ask) -> None:
        bare = urldefrag(ask.url).url
        try:
            self._rest = deque(self.phone.screen(ask, self.fields))
            self._here = bare
        except Failed as failed:
            self.phone.find(Problem(failed.code, f"{failed.words} (from {bare})"))
            self.state = "gone"

    def _play(self, verb: Element) -> None:
        """One verb; what may not stand here is skipped, since the judge has said it already."""
        match verb.tag:
            case "Say" | "Play":
                self._hear(words(verb))
            case "Pause":
                length = verb.get("length", "1")
                self.phone.clock.tick(int(length) if length.isdigit() else 1)
            case "Gather":
                for prompt in verb:
                    self._play(prompt)
                self._gather, self.state = verb, "asked"
            case "Hangup":
                self.state = "gone"
            case _:
                pass

    def _hear(self, text: str) -> None:
        self.heard.append(text)
        self.phone.clock.tick(0.5 + len(text.split()) / 2.5)
        self.phone.tell(f"callee hears: {text}")
