"""Everything that can come in over HTTP and should not: the surface of one real process.

Nothing here means anything. It is sent all the same, in hundreds of shapes: as bytes on a socket,
as requests that nobody signed, and as webhooks whose signature fits but whose content is nonsense.
Whatever comes is refused in plain words or answered as a webhook; no answer is an error of the
server's, none shows the inside of the code, and the process neither grows nor stops answering.

All that is drawn is drawn from a fixed seed, so that a failure comes back.
"""

import http.client
import json
import random
import re
import socket
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Final
from urllib.parse import quote, urlencode

import pytest

from standins.backend import until
from standins.examples import as_many
from standins.inside import FORM, ORIGIN, TOKEN, dialled
from standins.instance import Instance
from standins.rows import mostly_long
from standins.twiml import judge
from standins.webhooks import sign

SEED: Final = 20260
REFUSALS: Final = frozenset({400, 401, 403, 404, 405, 408, 411, 413, 414, 415, 417, 431, 501, 505})
GOOD: Final = frozenset({200, 204})
INSIDES: Final = (b"Traceback", b'File "', b"main.py", b"werkzeug", b"Error:", TOKEN.encode())
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
MOST_GROWTH: Final = (
    24 * 1024
)  # kB: each of the 8 threads may keep the buffers of its largest request

# One process meets all of it, and must not have had enough in the end.
pytestmark = pytest.mark.xdist_group("fuzz")


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    env = {
        "TWILIO_AUTH_TOKEN": TOKEN,
        "PUBLIC_URL": ORIGIN,
        "ADMIN_TOKEN": "a-long-enough-one",
        "FORWARD_TO": "+15550100099",
        "DEPARTMENTS": "billing=+15550100001",
        "STATE_FILE": str(tmp_path_factory.mktemp("fuzz") / "calls"),
    }
    with Instance(env) as running:
        yield running


@pytest.fixture
def dice(request: pytest.FixtureRequest) -> random.Random:
    """Chance, the same in every run of a test."""
    return random.Random(f"{SEED} {request.node.name}")


# What is sent.

PATHS: Final = (
    *("/", "/voice", "/voice/inbound", "/voice/process?turn=1&step=reason", "/voice/status"),
    *("/voice/fallback", "/healthz", "/calls/CA" + "0" * 32, "/voice/process", "/nothing"),
)
ODD_PATHS: Final = (
    *(
        "//",
        "/..",
        "/../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/%00",
        "/%zz",
        "/%",
        "/;",
        "*",
    ),
    *("/voice/process?turn=" + "9" * 3000, "/voice/process?" + "turn=1&" * 900, "/?" + "%" * 99),
    *("/calls/CA" + "f" * 33, "/calls/" + "%c3%28" * 9, "/voice/../healthz", "/voice//inbound"),
    *("http://other.example/voice", "/voice\\inbound", "/voice#x", "/\xff\xfe", "/" + "a" * 4000),
)
METHODS: Final = (
    *(
        "POST",
        "POST",
        "POST",
        "GET",
        "HEAD",
        "PUT",
        "DELETE",
        "PATCH",
        "OPTIONS",
        "TRACE",
        "CONNECT",
    ),
    *("post", "PROPFIND", "X" * 20, "BREW"),
)
KINDS: Final = (
    *(FORM, FORM, FORM + "; charset=utf-16", FORM + "; charset=nothing", "multipart/form-data"),
    *("multipart/form-data; boundary=", "multipart/form-data; boundary=x", "application/json"),
    *("text/plain", "", "a/b/c; ;;=", "application/x-www-form-urlencoded;charset=\xff"),
)
HEADERS: Final = (
    *(("Authorization", "Basic !!!"), ("Authorization", "Basic " + "QQ==" * 500)),
    *(
        ("Authorization", "Bearer x"),
        ("X-Forwarded-Host", "a b"),
        ("X-Forwarded-Proto", "javascript"),
    ),
    *(("Accept", "*/*;q=x, ,;"), ("Accept", "a" * 4000), ("Cookie", "=;=;" * 300)),
    *(("Expect", "100-continue"), ("Range", "bytes=-1"), ("Transfer-Encoding", "chunked")),
    *(("Content-Encoding", "gzip"), ("X-Twilio-Signature", "\xe9" * 50), ("Upgrade", "websocket")),
    *(("Host", ""), ("Host", "[::1"), ("X-Twilio-Signature", ""), ("Connection", "x, y")),
    *(("Content-Length", "-1"), ("Content-Length", "1e3"), ("Content-Length", "99999999999999")),
)
NAMES: Final = (
    *("CallSid", "CallSid", "From", "To", "SpeechResult", "Confidence", "Digits", "DialCallStatus"),
    *("RecordingUrl", "CallStatus", "CallDuration", "ErrorUrl", "ErrorCode", "AccountSid"),
    *("", "CallSid[]", "a[b][c][d]", "__proto__", "turn", "x" * 300, "\x00", "é", "ключ", "\n"),
)
VALUES: Final = (
    *("", "0", "-1", "9" * 400, "NaN", "true", "null", "[]", "{}", "\x00", "\r\nX: y", "\x7f" * 9),
    *(
        "<a/>",
        "</Say><Dial>+19005550100</Dial>",
        "]]>",
        "&amp;&#0;",
        "{heard}",
        "%s%n",
        "' OR 1=1 --",
    ),
    *(
        "\u202e",
        "👩🏽‍🚀" * 40,
        "x" * 9000,
        "é" * 500,
        "\ufffe\uffff",
        "٣",
        "$(id)",
        "../../etc/passwd",
    ),
    *("http://[", f"{ORIGIN}/voice/process?turn=1&step=reason", f"{ORIGIN}/voice/process?turn=zz"),
    *("completed", "busy", "billing", "operator", "yes", "1", "#", "*", "https://x/" + "y" * 600),
)


def some_bytes(dice: random.Random, most: int) -> bytes:
    return dice.randbytes(dice.randrange(most))


def call_sid(dice: random.Random) -> str:
    """A CallSid from a small world, so that calls meet; sometimes none."""
    return f"CA{dice.randrange(40):032x}" if dice.random() < 0.9 else dice.choice(VALUES)


def nonsense(dice: random.Random) -> list[tuple[str, str]]:
    """A form with odd and repeated fields; usually it names a call."""
    odd = [(dice.choice(NAMES), dice.choice(VALUES)) for _ in range(dice.randrange(8))]
    form = [*odd, ("CallSid", call_sid(dice))]
    dice.shuffle(form)
    return form


def target(dice: random.Random) -> str:
    """A target for a webhook of any turn, with whatever stands in its query."""
    value = quote(dice.choice(VALUES)[:200])
    step = dice.choice(("reason", "menu", "connect", "voicemail"))
    choices = (
        f"/voice/process?turn={dice.randrange(104)}&step={step}",
        f"/voice/process?turn={dice.randrange(5)}&step={value}&hold={value}&pushed={value}",
        f"/voice/process?turn={value}&turn=1&step[a]=b&step=x",
        f"/voice/process?{value}",
        f"/voice/accept?turn={dice.randrange(104)}&step={step}",
        dice.choice(PATHS),
    )
    return dice.choice(choices)


# How it is sent.


def exchange(instance: Instance, sent: bytes) -> bytes:
    """The bytes that come back for these until the connection ends, or nothing more comes."""
    with socket.create_connection(("127.0.0.1", instance.port), timeout=5) as wire:
        came = b""
        with suppress(OSError):
            wire.sendall(sent)
            wire.shutdown(socket.SHUT_WR)
            while some := wire.recv(65536):
                came += some
        return came


def request(method: str, path: str, headers: Sequence[tuple[str, str]], body: bytes = b"") -> bytes:
    """A request as bytes, whatever is wrong with it."""
    known = [("Host", "line.example"), ("Connection", "close"), ("Content-Length", str(len(body)))]
    given = {name for name, _ in headers}
    given |= {"Content-Length"} if ("Transfer-Encoding", "chunked") in headers else set()
    lines = [*(pair for pair in known if pair[0] not in given), *headers]
    head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{name}: {v}\r\n" for name, v in lines)
    return head.encode("latin-1", "replace") + b"\r\n" + body


def signed(path: str, form: list[tuple[str, str]]) -> bytes:
    """A webhook that Twilio might have signed."""
    headers = [("Content-Type", FORM), ("X-Twilio-Signature", sign(TOKEN, ORIGIN + path, form))]
    return request("POST", path, headers, urlencode(form).encode())


def status_of(answer: bytes) -> int:
    """The status of an answer; 0 when the connection was closed without one."""
    found = re.match(rb"HTTP/1\.[01] (\d{3}) ", answer.removeprefix(CONTINUE))
    return int(found[1]) if found else 0


def held_to_the_rules(answer: bytes, sent: bytes) -> int:
    """The status of an answer that is no error of the server's and shows no insides."""
    status = status_of(answer)
    assert status in REFUSALS | GOOD | {0}, (sent[:300], answer[:300])
    shown = answer.removeprefix(CONTINUE).partition(b"\r\n\r\n")[2]
    assert [word for word in INSIDES if word in shown] == [], (sent[:300], answer[:600])
    return status


def still_well(instance: Instance) -> bool:
    """Tells if the process answers as on its first day."""
    connection = http.client.HTTPConnection("127.0.0.1", instance.port, timeout=10)
    connection.request("GET", "/healthz")
    response = connection.getresponse()
    report = json.loads(response.read())
    connection.close()
    return (response.status, report["ok"]) == (200, True)


def memory(instance: Instance) -> int:
    """The memory of all processes of the instance, in kilobytes."""
    command = ["ps", "-A", "-o", "pgid=", "-o", "rss="]
    rows = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    sizes = [int(size) for group, size in map(str.split, rows) if int(group) == instance.pid]
    assert sizes
    return sum(sizes)


# The tests.


def test_bytes_that_are_no_request_are_refused(instance: Instance, dice: random.Random) -> None:
    """Whatever is written to the port, in whole or in part, the process closes and goes on."""
    whole = signed("/voice", [("CallSid", "CA" + "1" * 32)])
    for n in range(as_many(600)):
        cut = whole[: dice.randrange(len(whole))]
        hurt = bytearray(whole)
        hurt[dice.randrange(len(hurt))] = dice.randrange(256)
        sent = (some_bytes(dice, 400), cut, bytes(hurt), cut + some_bytes(dice, 99))[n % 4]
        held_to_the_rules(exchange(instance, sent), sent)
    assert still_well(instance)


def test_requests_that_nobody_signed_are_refused(instance: Instance, dice: random.Random) -> None:
    """Any method, path, header and body: refused with the caller's fault, and in one piece."""
    seen: Counter[int] = Counter()
    for _ in range(as_many(1200)):
        odd = [("Content-Type", dice.choice(KINDS)), *dice.sample(HEADERS, dice.randrange(4))]
        path = dice.choice((*PATHS, *ODD_PATHS))
        bodies = (b"", some_bytes(dice, 3000), urlencode(nonsense(dice)).encode("utf-8"), b"{" * 99)
        sent = request(dice.choice(METHODS), path, odd, dice.choice(bodies))
        seen[held_to_the_rules(exchange(instance, sent), sent)] += 1
    assert seen[403] > as_many(20)
    assert seen[404] > as_many(20)
    assert seen[405] > as_many(20)
    assert still_well(instance)


def test_nonsense_that_is_signed_is_answered_in_words(
    instance: Instance, dice: random.Random
) -> None:
    """With a signature that fits, nonsense is a webhook in words, or is refused in plain text."""
    answered = 0
    for _ in range(as_many(1500)):
        path, form = target(dice), nonsense(dice)
        sent = signed(path, form)
        answer = exchange(instance, sent)
        status = held_to_the_rules(answer, sent)
        said = answer.partition(b"\r\n\r\n")[2].decode()
        if status == 200 and b"text/xml" in answer:
            assert [problem for problem in judge(said, ORIGIN + path) if problem.broken] == []
            assert set(dialled(said)) <= {"+15550100099", "+15550100001"}
            answered += 1
        else:
            assert b"text/plain" in answer or status in (200, 204), (sent[:300], answer[:300])
    assert answered > as_many(150)
    assert still_well(instance)


NESTED: Final = {
    "one field a thousand times": [("CallSid", "CA" + "2" * 32), *[("Digits", "1")] * 1000],
    "names in brackets": [("CallSid" + "[a]" * 900, "x"), ("CallSid", "CA" + "2" * 32)],
    "a thousand names": [*((f"n{n}", "") for n in range(1200)), ("CallSid", "CA" + "2" * 32)],
    "two calls": [("CallSid", "CA" + "2" * 32), ("CallSid", "CA" + "3" * 32)],
    "no names": [("", "x")] * 1200,
}


@pytest.mark.parametrize("form", mostly_long(NESTED, "a thousand names", "two calls"))
def test_repeated_and_nested_fields_do_no_harm(
    instance: Instance, form: list[tuple[str, str]]
) -> None:
    """A form may be as odd as it fits into 64 kB: it is answered or refused like any other."""
    # Names that no field of Twilio's has make it nobody's, though the signature fits.
    good = (200, 400) if all(name.isalnum() for name, _ in form) else (403,)
    for path in ("/voice", "/voice/process?turn=1&step=reason", "/voice/fallback"):
        assert held_to_the_rules(exchange(instance, signed(path, form)), b"") in good
    unsigned = request("POST", "/voice", [("Content-Type", FORM)], urlencode(form).encode())
    assert held_to_the_rules(exchange(instance, unsigned), b"") == 403


PART: Final = b'--x\r\nContent-Disposition: form-data; name="a%d"; filename="../x"\r\n\r\n\x00\r\n'
CHUNKED: Final = [("Transfer-Encoding", "chunked"), ("Content-Type", FORM), ("Content-Length", "9")]
ABSURD: Final = {
    "a megabyte": request("POST", "/voice", [("Content-Type", FORM)], b"a=" + b"x" * (1 << 20)),
    "a megabyte of signs": request("POST", "/voice", [("Content-Type", FORM)], b"&=" * (1 << 19)),
    "more than is sent": request("POST", "/voice", [("Content-Length", "65536")], b"a"),
    "a thousand parts": request(
        "POST",
        "/voice",
        [("Content-Type", "multipart/form-data; boundary=x")],
        b"".join(PART % n for n in range(900)) + b"--x--\r\n",
    ),
    "a long path": request("GET", "/" + "a" * 100_000, []),
    "a long header": request("GET", "/healthz", [("X-Long", "a" * 100_000)]),
    "many headers": request("GET", "/healthz", [(f"X-{n}", "a") for n in range(2000)]),
    "chunks without end": request("POST", "/voice", CHUNKED[:2], b"ffffffff\r\n" + b"x" * 200_000),
    "chunks that add up": request(
        "POST", "/voice", CHUNKED[:2], b"4000\r\n%b\r\n" % (b"x" * 0x4000) * 20 + b"0\r\n\r\n"
    ),
    "chunks and a length": request("POST", "/voice", CHUNKED, b"0\r\n\r\nGET /x"),
    "two requests": request("GET", "/healthz", [("Connection", "keep-alive")]) * 2,
}


@pytest.mark.parametrize(
    "sent", mostly_long(ABSURD, "a megabyte", "chunks without end", "a long path")
)
def test_absurd_sizes_are_refused(instance: Instance, sent: bytes) -> None:
    """What is too long, or lies about its length, is refused or dropped; the next one is served."""
    for _ in range(3):
        held_to_the_rules(exchange(instance, sent), sent)
    assert still_well(instance)


@pytest.mark.long
@pytest.mark.needs("ps")
def test_the_process_does_not_grow(instance: Instance, dice: random.Random) -> None:
    """After everything has come once, more of the same takes no more memory."""

    def storm() -> None:
        for _ in range(200):
            exchange(instance, signed(target(dice), nonsense(dice)))
            exchange(instance, request("POST", "/voice", [], some_bytes(dice, 60_000)))
        for sent in (*ABSURD.values(), *[ABSURD["a megabyte"]] * 20):
            exchange(instance, sent)

    storm()
    before = memory(instance)
    storm()
    assert until(lambda: memory(instance) - before < MOST_GROWTH, 3)
    assert still_well(instance)


def test_nothing_was_a_bug(instance: Instance) -> None:
    """In all of this no code of ours failed, and the log stayed one JSON object a line."""
    bugs = [entry for entry in instance.log() if "a bug" in str(entry.get("message"))]
    assert bugs == []
    assert "Traceback" not in instance.output()
