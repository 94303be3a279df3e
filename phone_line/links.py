"""Links to recordings: `/recordings/{AccountSid}/{RecordingSid}?until={Unix time}&signature=...`.

Twilio gives a recording to whoever logs in to the account, and to nobody else. A link of ours plays
for whoever has it, until seven days after the message (`recordings.py` fetches what it names). It
says all that is needed, so no cell is read. Its signature is made with a key that is derived from
the auth token: of several tokens the last signs, and any is accepted; rotating the token ends old
links. A recording outside of Virginia has `edge=dublin.ie1` as well: the region that has it.
"""

import hmac
import re
import time
from collections.abc import Mapping
from typing import Final, NamedTuple
from urllib.parse import urlencode

from werkzeug.exceptions import Forbidden, Gone, NotFound

from phone_line.settings import Settings

WEEK: Final = 7 * 24 * 3600  # seconds that a link plays
ACCOUNT: Final = "AC[0-9a-fA-F]{32}"
RECORDING: Final = "RE[0-9a-fA-F]{32}"
EDGE: Final = r"(?:\.[a-z0-9-]{1,30}){0,2}"  # ".dublin.ie1", in the host of Twilio's API
RECORDING_URL: Final = (
    rf"https://api({EDGE})\.twilio\.com/2010-04-01/Accounts/({ACCOUNT})/Recordings/({RECORDING})"
)
PURPOSE: Final = b"phone line: links to recordings"  # no other key is derived with it


class Recording(NamedTuple):
    """A recording at Twilio. `edge` is the part of the API's host that names edge and region."""

    account: str
    sid: str
    edge: str = ""


def link_recording(settings: Settings, recording_url: str, taken_at: float) -> str:
    """The path of a link that plays a recording; none for one that is not at Twilio.

    It plays for a week from `taken_at`, in Unix seconds.
    """
    found = re.fullmatch(RECORDING_URL, recording_url)
    if not found or not settings.twilio_auth_token:
        return ""
    edge, account, sid = found.groups()
    until = str(int(taken_at or time.time()) + WEEK)
    signature = sign_link(settings.twilio_auth_token[-1], Recording(account, sid, edge), until)
    query = {"until": until, "signature": signature}
    if edge:
        query["edge"] = edge[1:]
    return f"/recordings/{account}/{sid}?{urlencode(query)}"


def check_link(
    settings: Settings, account: str, sid: str, query: Mapping[str, str]
) -> tuple[Recording, float]:
    """The recording that a link is for, and when it was taken, in Unix seconds.

    Raises NotFound for what is no link, Forbidden for a signature that is not ours, Gone.
    """
    until, edge = query.get("until", ""), query.get("edge", "")
    edge = edge and f".{edge}"
    is_link = re.fullmatch(ACCOUNT, account) and re.fullmatch(RECORDING, sid)
    if not is_link or not re.fullmatch("[0-9]{1,11}", until) or not re.fullmatch(EDGE, edge):
        raise NotFound("There is nothing at this path.")
    recording = Recording(account, sid, edge)
    given = query.get("signature", "").encode()
    expected = [sign_link(token, recording, until) for token in settings.twilio_auth_token]
    fitting = [each for each in expected if hmac.compare_digest(each.encode(), given)]
    if not fitting:
        raise Forbidden("This link is not this line's, or it was changed on its way.")
    if int(until) < time.time():
        raise Gone("This link has expired: it played for seven days. Twilio keeps the recording.")
    return recording, int(until) - WEEK


def sign_link(token: str, recording: Recording, until: str) -> str:
    """The signature of a link: 128 bits of HMAC-SHA256, as hex digits."""
    key = hmac.digest(token.encode(), PURPOSE, "sha256")
    text = "\n".join([*recording, until])
    return hmac.new(key, text.encode(), "sha256").hexdigest()[:32]
