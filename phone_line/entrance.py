"""The step at which a new call begins: who is let in, when, and how often."""

import hmac
import time
from contextlib import suppress
from typing import Final

from phone_line.cells import Cells, StoreUnavailable
from phone_line.settings import Settings
from phone_line.webhook import Webhook

HOUR: Final = 3600  # seconds


def find_entrance(settings: Settings, cells: Cells, webhook: Webhook) -> str:
    """The name of the step: "blocked", "too_many", "language", "closed" or "start"."""
    if is_blocked(settings, webhook):
        return "blocked"
    if settings.calls_per_hour and has_called_too_often(settings, cells, webhook):
        return "too_many"
    if len(settings.language) > 1:
        return "language"
    return find_door(settings)


def find_door(settings: Settings) -> str:
    """The name of the step for whoever is let in: "closed" or "start"."""
    if settings.hours and not settings.hours.is_open(time.time()):
        return "closed"
    return "start"


def is_blocked(settings: Settings, webhook: Webhook) -> bool:
    """Tell whether a caller is turned away: by number, or because the number is withheld."""
    if webhook.is_withheld and "anonymous" in settings.blocked:
        return True
    return webhook.caller in settings.blocked


def has_called_too_often(settings: Settings, cells: Cells, webhook: Webhook) -> bool:
    """Tell whether a caller has used up an hour's calls: as many cells, each for one CallSid.

    The key is a keyed hash, so that no number stands in Redis. Who withholds the number is not
    counted, and while the store is away nobody is.
    """
    if not webhook.number:
        return False
    secret = settings.twilio_auth_token[0].encode()
    caller = hmac.new(secret, webhook.number.encode(), "sha256").hexdigest()[:32]
    keys = [f"caller:{caller}:{place}" for place in range(settings.calls_per_hour)]
    with suppress(StoreUnavailable):
        taken = cells.read(*keys)
        if webhook.call_sid in taken:
            return False
        for key, call_sid in zip(keys, taken, strict=True):
            if not call_sid and cells.settle(key, webhook.call_sid, HOUR) == webhook.call_sid:
                return False
        return True
    return False
