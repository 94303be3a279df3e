"""A link plays a recording, to whoever has it, for seven days; nobody gets anything else by it.

Twilio's media hosts are stood in for by a server that takes their place in the module. No setting
of a line can do that.
"""

import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import pytest

from phone_line import recordings
from phone_line.links import WEEK, link_recording
from phone_line.settings import read_settings
from standins.bounds import changed
from standins.inside import ORIGIN, TOKEN, Inside
from standins.listener import begin, play
from standins.media import ACCOUNT, CIRCLE, RECORDING, SID, Fault, Media, silence
from standins.timing import LATE

SHORT: Final = silence(2)
OTHER: Final = "RE" + "0" * 32


@pytest.fixture
def media() -> Iterator[Media]:
    """Twilio's media hosts, with one recording."""
    with Media() as media:
        media.keep(RECORDING, SHORT)
        with changed(recordings, SOURCE=media.source):
            yield media


@pytest.fixture
def line(tmp_path: Path) -> Inside:
    return Inside({"STATE_FILE": str(tmp_path / "calls")})


def link(at: float = 0, token: str = TOKEN, url: str = RECORDING) -> str:
    """The path of a link to a recording that was taken just now, or at a moment."""
    settings = read_settings({"TWILIO_AUTH_TOKEN": token})
    return link_recording(settings, url, at or time.time())


# What plays.


def test_a_link_plays_without_a_login(line: Inside, media: Media) -> None:
    """The account's login goes to Twilio; who has the link needs none."""
    played = play(line, link())
    assert (played.status, played.body) == (200, SHORT)
    assert played.headers["Content-Type"] == "audio/mpeg"
    assert played.headers["Content-Length"] == str(len(SHORT))
    assert played.headers["X-Content-Type-Options"] == "nosniff"
    [asked] = media.asked
    assert asked.login == f"{ACCOUNT}:{TOKEN}"
    assert asked.path == urlsplit(RECORDING).path + ".mp3"


def test_the_head_of_a_recording_is_told_without_it(line: Inside, media: Media) -> None:
    """HEAD: type and length, no sound, and the place among the streams is free again."""
    for _ in range(recordings.MOST_STREAMS + 1):
        played = play(line, link(), "HEAD")
        assert (played.status, played.body) == (200, b"")
        assert played.headers["Content-Length"] == str(len(SHORT))
    assert len(media.asked) == recordings.MOST_STREAMS + 1


def test_another_method_is_refused(line: Inside, media: Media) -> None:
    """A recording is only read: 405 for a POST, and Twilio is not asked."""
    played = play(line, link(), "POST")
    assert (played.status, played.headers["Allow"]) == (405, "GET, HEAD")
    assert media.asked == []


@pytest.mark.parametrize("ranges", [True, False], ids=["twilio sends ranges", "only the whole"])
@pytest.mark.parametrize(
    ("asked", "begin", "end"), [("0-1", 0, 2), ("1000-", 1000, None), ("-500", -500, None)]
)
def test_a_phone_can_seek(
    line: Inside, media: Media, asked: str, begin: int, end: int | None, ranges: bool
) -> None:
    """A range is answered with 206 and that part, whether or not Twilio sends ranges."""
    media.ranges = ranges
    played = play(line, link(), Range=f"bytes={asked}")
    assert (played.status, played.body) == (206, SHORT[begin:end])
    first = begin % len(SHORT)
    place = f"bytes {first}-{first + len(played.body) - 1}/{len(SHORT)}"
    assert played.headers["Content-Range"] == place
    assert played.headers["Content-Length"] == str(len(played.body))


@pytest.mark.parametrize("ranges", [True, False], ids=["twilio sends ranges", "only the whole"])
def test_a_range_behind_the_end_is_none(line: Inside, media: Media, ranges: bool) -> None:
    """416 for a range that the recording does not have."""
    media.ranges = ranges
    assert play(line, link(), Range="bytes=99999999-").status == 416


@pytest.mark.parametrize("asked", ["bytes=0-1,5-9", "seconds=1-2", "bytes=" + "9" * 99, "\xff"])
def test_a_range_that_makes_no_sense_is_not_passed_on(
    line: Inside, media: Media, asked: str
) -> None:
    """Twilio is asked for one range of bytes, or for all."""
    assert play(line, link(), Range=asked).status in (200, 416)
    assert media.asked[0].range == ""


def test_a_redirect_is_followed_without_the_login(line: Inside, media: Media) -> None:
    """Where Twilio sends us to its storage, the login stays behind; the range comes along."""
    media.leads_to = media.storage
    played = play(line, link(), Range="bytes=0-9")
    assert (played.status, played.body) == (206, SHORT[:10])
    assert [asked.login for asked in media.asked] == [f"{ACCOUNT}:{TOKEN}", ""]


def test_an_api_key_is_the_login_where_there_is_one(tmp_path: Path, media: Media) -> None:
    """With TWILIO_API_KEY the auth token is not sent anywhere."""
    key = "SK" + "0" * 32
    api = {"TWILIO_ACCOUNT_SID": ACCOUNT, "TWILIO_API_KEY": key, "TWILIO_API_SECRET": "geheim"}
    line = Inside({**api, "STATE_FILE": str(tmp_path / "calls")})
    media.login = f"{key}:geheim"
    assert play(line, link()).status == 200
    assert [asked.login for asked in media.asked] == [f"{key}:geheim"]


def test_links_play_on_while_the_token_is_rotated(tmp_path: Path, media: Media) -> None:
    """Old and new links play; Twilio is asked with whichever token it accepts."""
    line = Inside({"TWILIO_AUTH_TOKEN": "secret,newer", "STATE_FILE": str(tmp_path / "calls")})
    for token in ("secret", "newer"):
        assert play(line, link(token=token)).status == 200
    assert {asked.login for asked in media.asked} == {f"{ACCOUNT}:newer", f"{ACCOUNT}:secret"}


def test_a_rotated_token_ends_old_links(tmp_path: Path, media: Media) -> None:
    """Once the old token is gone, links that it signed are refused."""
    line = Inside({"TWILIO_AUTH_TOKEN": "newer", "STATE_FILE": str(tmp_path / "calls")})
    assert play(line, link(token="secret")).status == 403
    assert media.asked == []


def test_of_several_tokens_the_last_signs() -> None:
    """The token that will stay is the one whose links live on."""
    at = time.time()
    assert link(at, token="secret,newer") == link(at, token="newer")


def test_a_recording_of_another_region_is_fetched_there(line: Inside, media: Media) -> None:
    """Recordings of Ireland are asked for in Ireland, because they are nowhere else."""
    url = RECORDING.replace("api.", "api.dublin.ie1.")
    path = link(url=url)
    assert parse_qs(urlsplit(path).query)["edge"] == ["dublin.ie1"]
    place = recordings.Source(media.url + "/{edge}", media.is_here, None)
    with changed(recordings, SOURCE=place):
        assert play(line, path).status == 404
        assert media.asked[0].path.startswith("/.dublin.ie1/2010-04-01/")
        assert (
            recordings.Source().api.format(edge=".dublin.ie1")
            == "https://api.dublin.ie1.twilio.com"
        )


@pytest.mark.parametrize(
    "url",
    [
        "",
        "https://example.com/recording",
        "https://api.twilio.com/recordings/RE1",
        RECORDING.replace("https", "http"),
        RECORDING.replace("api.", "api.evil.com/"),
        RECORDING.replace("twilio.com", "twilio.com.evil.com"),
        RECORDING.replace("api.", "api.a.b.c."),
        RECORDING + "/../../../Calls",
        RECORDING + "\n",
    ],
)
def test_only_a_recording_at_twilio_gets_a_link(url: str) -> None:
    """Where the message is not at Twilio's API, there is nothing that this line could play."""
    settings = read_settings({"TWILIO_AUTH_TOKEN": TOKEN})
    assert link_recording(settings, url, time.time()) == ""


# What does not.


def bent(path: str, **changes: str) -> str:
    """A link in which something is changed."""
    for name, value in changes.items():
        path = re.sub(f"{name}=[^&]*", f"{name}={value}", path)
    return path


LATER: Final = str(int(time.time()) + 52 * WEEK)


@pytest.mark.parametrize(
    ("change", "status"),
    [
        pytest.param({"signature": "0" * 32}, 403, id="signature"),
        pytest.param({"signature": ""}, 403, id="no signature"),
        pytest.param({"signature": "%C3%A9"}, 403, id="signature that is no ASCII"),
        pytest.param({"signature": "%00"}, 403, id="signature that is a control character"),
        pytest.param({"until": LATER}, 403, id="longer life"),
        pytest.param({"until": "9" * 11}, 403, id="a life of three thousand years"),
        pytest.param({"until": "9" * 5000}, 404, id="a life that is no number of seconds"),
        pytest.param({"until": "-1"}, 404, id="a life before 1970"),
        pytest.param({"until": "1e9"}, 404, id="a life in other words"),
        pytest.param({"until": "%D9%A1"}, 404, id="an Arabic digit"),
        pytest.param({SID: OTHER}, 403, id="another recording"),
        pytest.param({ACCOUNT: "AC" + "0" * 32}, 403, id="another account"),
        pytest.param({"AC": "AD"}, 404, id="no account"),
        pytest.param({SID: ".."}, 404, id="one level up"),
        pytest.param({SID: "%2e%2e"}, 404, id="one level up, encoded"),
        pytest.param({SID: f"..%2F{SID}"}, 404, id="a path in the path"),
        pytest.param({SID: SID + "%0d%0aX: y"}, 404, id="a line end"),
        pytest.param({SID: SID + "@evil.com"}, 404, id="another host"),
        pytest.param({"until=": "edge=evil.com/x&until="}, 404, id="another host as edge"),
        pytest.param({"until=": "edge=dublin.ie1&until="}, 403, id="another region"),
    ],
)
def test_a_bent_link_plays_nothing(
    line: Inside, media: Media, change: dict[str, str], status: int
) -> None:
    """Whatever is changed in a link, it is refused in plain words, and Twilio is not asked."""
    path = link()
    for name, value in change.items():
        path = path.replace(name, value) if name not in path.split("?")[1] else bent(path, **change)
    if "until=" in change:
        path = link().replace("until=", change["until="])
    played = play(line, path)
    assert played.status == status
    assert played.headers["Content-Type"].startswith("text/plain")
    assert media.asked == []


def test_a_link_expires_after_seven_days(line: Inside, media: Media) -> None:
    """410 and a sentence once its time is over; until then it plays."""
    now = time.time()
    assert play(line, link(now - WEEK + 60)).status == 200
    expired = play(line, link(now - WEEK - 1))
    assert expired.status == 410
    assert "seven days" in expired.words
    assert len(media.asked) == 1


def test_a_line_without_a_token_plays_nothing(tmp_path: Path, media: Media) -> None:
    """What cannot be verified is refused."""
    line = Inside({"TWILIO_AUTH_TOKEN": "", "STATE_FILE": str(tmp_path / "calls")})
    assert play(line, link()).status == 403
    assert media.asked == []


def test_the_signature_is_in_no_log(
    line: Inside, media: Media, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever becomes of a link, neither its signature nor a login is logged."""
    path = link()
    signature = parse_qs(urlsplit(path).query)["signature"][0]
    faults: tuple[Fault, ...] = (None, 500, "cut", "web page")
    for fault in faults:
        media.fault = fault
        play(line, path)
    media.login = "somebody else"
    play(line, path)
    media.leads_to = f"http://10.0.0.1/?signed={signature}"
    media.login = f"{ACCOUNT}:{TOKEN}"
    play(line, path)
    logged = capsys.readouterr()
    assert "recording" in logged.out
    for secret in (signature, TOKEN, "signed="):
        assert secret not in logged.out + logged.err


# The first seconds, and when Twilio is ill.


def test_a_recording_that_is_not_ready_is_waited_for(line: Inside, media: Media) -> None:
    """In the first seconds Twilio has none: a page that tries again by itself, then it plays."""
    media.recordings.clear()
    waiting = play(line, link())
    assert waiting.status == 404
    assert waiting.headers["Content-Type"].startswith("text/html")
    assert '<meta http-equiv="refresh"' in waiting.words
    media.keep(RECORDING, SHORT)
    assert play(line, link()).status == 200


def test_a_recording_that_was_deleted_is_not_waited_for(line: Inside, media: Media) -> None:
    """After ten minutes a page that tries again would try for ever: a sentence instead."""
    media.recordings.clear()
    gone = play(line, link(time.time() - 700))
    assert gone.status == 404
    assert "deleted" in gone.words


def test_a_login_that_twilio_refuses_is_told_to_the_operator(
    line: Inside, media: Media, capsys: pytest.CaptureFixture[str]
) -> None:
    """502 for the browser, and in the log what to change."""
    media.login = f"{ACCOUNT}:another"
    assert play(line, link()).status == 502
    assert "TWILIO_API_KEY" in capsys.readouterr().out


@pytest.mark.parametrize("status", [400, 403, 429, 500, 503])
def test_what_twilio_answers_otherwise_is_said(line: Inside, media: Media, status: int) -> None:
    """Any other answer of Twilio's is a 502 in plain words."""
    media.fault = status
    played = play(line, link())
    assert played.status == 502
    assert played.headers["Content-Type"].startswith("text/plain")


def test_twilio_is_away(line: Inside) -> None:
    """Nobody listens at Twilio's address: 503 in plain words."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with changed(recordings, SOURCE=recordings.Source(f"http://127.0.0.1:{port}")):
        played = play(line, link())
        assert played.status == 503
        assert "does not answer" in played.words


def test_twilio_hangs(line: Inside, media: Media) -> None:
    """Who gets no answer is told so after some seconds."""
    with changed(recordings, OPENING=0.3):
        media.fault = "hang"
        began = time.monotonic()
        assert play(line, link()).status == 503
        assert time.monotonic() - began < 2 + LATE


def test_a_page_in_place_of_a_recording_cannot_run(line: Inside, media: Media) -> None:
    """Whatever Twilio's hosts send is sound to the browser, and is nothing else."""
    media.fault = "web page"
    played = play(line, link())
    assert played.headers["Content-Type"] == "audio/mpeg"
    assert played.headers["X-Content-Type-Options"] == "nosniff"


# Media hosts that misbehave.


@pytest.mark.parametrize(
    "place",
    [
        "http://api.twilio.com/x",
        "http://127.0.0.1/x",
        "https://127.0.0.1/x",
        "https://10.0.0.1/x",
        "https://[::1]/x",
        "https://169.254.169.254/latest/meta-data",
        "https://localhost/x",
        "https://example.com/x",
        "https://api.twilio.com.evil.com/x",
        "https://eviltwilio.com/x",
        "https://evil.com/api.twilio.com",
        "https://api.twilio.com@evil.com/x",
        "https://api.twilio.com:8443/x",
        "https://evil.com#.twilio.com",
        "https://evil.com\\.twilio.com/x",
        "https://s3.amazonaws.com.evil.com/x",
        "https://ec2-1-2-3-4.compute.amazonaws.com/x",
        "https://twilio.com:99999999/x",
        "https://[twilio.com/x",
        "ftp://api.twilio.com/x",
        "file:///etc/passwd",
        "//evil.com/x",
        "",
    ],
)
def test_a_redirect_elsewhere_is_not_followed(line: Inside, media: Media, place: str) -> None:
    """Only https, and only Twilio's hosts and its storage: any other redirect is a 502."""
    with changed(recordings, SOURCE=media.strict):
        media.leads_to = place or "?"
        played = play(line, link())
        assert played.status == 502
        assert len(media.asked) == 1


@pytest.mark.parametrize(
    "host",
    [
        "api.twilio.com",
        "api.dublin.ie1.twilio.com",
        "media.twiliocdn.com",
        "mms.twiliocdn.com",
        "s3.amazonaws.com",
        "s3-external-1.amazonaws.com",
        "s3.us-east-1.amazonaws.com",
        "some-bucket.s3.amazonaws.com",
        "com.some.bucket.s3.dualstack.eu-west-1.amazonaws.com",
    ],
)
def test_twilios_hosts_and_its_storage_are_followed(host: str) -> None:
    """These are the hosts at which Twilio keeps, or kept, what belongs to an account."""
    assert recordings.leads_to_twilio(f"https://{host}/x?signed=1")


def test_a_name_that_leads_to_a_private_address_is_not_followed(line: Inside, media: Media) -> None:
    """A host may be Twilio's by name and private by address: nobody connects to it."""
    place = recordings.Source(media.url, lambda _: True)
    with changed(recordings, SOURCE=place):
        media.leads_to = media.storage.replace("127.0.0.1", "localhost")
        assert play(line, link()).status == 503
        assert len(media.asked) == 1


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1"),
        *("255.255.255.255", "224.0.0.1", "::1", "::", "fe80::1%eth0", "fc00::1"),
        *("ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254"),
    ],
)
def test_no_private_address_is_reached(address: str) -> None:
    """An address that is not public is refused, however it is written."""
    with pytest.raises(OSError, match="private"):
        recordings.refuse_private(address)


@pytest.mark.parametrize("address", ["3.5.7.9", "2600:1f18::1", "::ffff:3.5.7.9"])
def test_a_public_address_is_reached(address: str) -> None:
    """Amazon's own addresses are allowed."""
    recordings.refuse_private(address)


def test_redirects_in_a_circle_end(line: Inside, media: Media) -> None:
    """After the third redirect nobody goes on."""
    media.leads_to = media.url + CIRCLE
    assert play(line, link()).status == 502
    assert len(media.asked) == 1 + recordings.MOST_REDIRECTS


def test_a_recording_of_five_gigabytes_is_refused(line: Inside, media: Media) -> None:
    """One that says how large it is, is not even begun."""
    media.fault = "huge"
    assert play(line, link()).status == 502


def test_a_recording_without_end_is_cut_off(line: Inside, media: Media) -> None:
    """One that does not say how large it is, breaks off at the bound."""
    with changed(recordings, LARGEST=1_000_000):
        media.fault = "endless"
        played = play(line, link())
        assert (played.status, played.is_whole) == (200, False)
        assert len(played.body) <= 1_000_000


def test_a_recording_that_drips_is_cut_off(line: Inside, media: Media) -> None:
    """A media host that sends a byte now and then keeps a thread for a bounded time."""
    with changed(recordings, PLAYING=0.5):
        media.fault = "drip"
        began = time.monotonic()
        played = play(line, link())
        assert (played.status, played.is_whole) == (200, False)
        assert time.monotonic() - began < 2 + LATE


def test_half_a_recording_is_not_taken_for_the_whole(line: Inside, media: Media) -> None:
    """If Twilio hangs up in the middle, the browser sees that it broke off."""
    media.fault = "cut"
    played = play(line, link())
    assert (played.status, played.is_whole) == (200, False)


# Places.


@pytest.mark.usefixtures("media")
def test_four_recordings_play_at_once(line: Inside) -> None:
    """The fifth is asked to come later; a place is free when a recording ends, or is given up."""
    with ExitStack() as listening:
        for _ in range(recordings.MOST_STREAMS):
            answer, _ = begin(line, link())
            next(iter(answer))
            listening.callback(answer.close)
        fifth = play(line, link())
        assert (fifth.status, fifth.headers["Retry-After"]) == (503, "5")
    assert play(line, link()).status == 200


@pytest.mark.usefixtures("media")
def test_a_small_server_keeps_threads_for_callers(tmp_path: Path) -> None:
    """With four threads one recording plays at a time."""
    line = Inside({"THREADS": "4", "STATE_FILE": str(tmp_path / "calls")})
    answer, _ = begin(line, link())
    next(iter(answer))
    assert play(line, link()).status == 503
    answer.close()
    assert play(line, link()).status == 200


def test_every_end_gives_the_place_back(line: Inside, media: Media) -> None:
    """However a recording ends, its place is free: nothing leaks in twenty faults."""
    faults: tuple[Fault, ...] = (404, 416, 500, "cut", "web page")
    for fault in faults * 4:
        media.fault = fault
        play(line, link())
    media.fault = None
    assert play(line, link()).status == 200
    assert recordings.STREAMS.taken == 0


def test_many_at_once_get_no_more_places(line: Inside, media: Media) -> None:
    """Twenty robots that open a link together: never more than four ask Twilio at a time."""
    media.fault = "drip"
    answers: list[Any] = []

    def open_link() -> None:
        answers.append(begin(line, link()))

    threads = [threading.Thread(target=open_link) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    try:
        assert recordings.STREAMS.taken == recordings.MOST_STREAMS
        assert len(media.asked) == recordings.MOST_STREAMS
    finally:
        for answer, _ in answers:
            answer.close()
    assert recordings.STREAMS.taken == 0


def test_a_redirect_that_is_not_followed_names_its_host(
    line: Inside, media: Media, capsys: pytest.CaptureFixture[str]
) -> None:
    """If Twilio moves its storage, the log says where to; it says no more of the address."""
    media.leads_to = "https://storage.example/x?signed=geheim"
    assert play(line, link()).status == 502
    logged = capsys.readouterr().out
    assert "storage.example" in logged
    assert "geheim" not in logged


def test_links_are_of_this_lines_origin_only_by_their_path() -> None:
    """A link names no host, so it plays under each of the line's names."""
    assert link().startswith(f"/recordings/{ACCOUNT}/{SID}?until=")
    assert ORIGIN not in link()
