"""The stand-in for Upstash is held to the service's manners, through the official client."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache

import httpx
import pytest
from upstash_redis import Redis
from upstash_redis.errors import UpstashError

from standins.instance import ROOT
from standins.redis_server import FakeRedis, RedisServer, server
from standins.rows import long_beside
from standins.upstash import Upstash, once
from standins.upstash_faults import keys_of

pytestmark = pytest.mark.long  # a stand-in's own tests; a run of this file has them all

Client = Callable[..., Redis]
CELL = ["SET", "cell", "mine", "NX", "GET", "EX", "60"]


REAL = pytest.param(RedisServer, id="redis-server", marks=pytest.mark.needs("redis-server"))
FAKE = pytest.param(FakeRedis, id="fakeredis", marks=long_beside("redis-server"))


@pytest.fixture(scope="module", params=[REAL, FAKE])
def redis(request: pytest.FixtureRequest) -> Iterator[RedisServer | FakeRedis]:
    with request.param() as running:
        yield running


@pytest.fixture
def upstash(redis: RedisServer | FakeRedis) -> Iterator[Upstash]:
    with Upstash(redis) as running:
        running.start_afresh()
        yield running


@pytest.fixture
def client(upstash: Upstash) -> Iterator[Client]:
    """The official client, never repeating itself, and giving up after `timeout` seconds."""
    with ExitStack() as opened:

        @cache
        def connect(timeout: float = 5, token: str = "") -> Redis:
            redis = Redis(upstash.url, token or upstash.token, rest_retries=0)
            redis._http._client.timeout = httpx.Timeout(timeout)
            return opened.enter_context(redis)

        yield connect


def post(upstash: Upstash, path: str = "/", body: object = None, **headers: str) -> httpx.Response:
    bearer = {"Authorization": f"Bearer {upstash.token}"}
    url, headers = upstash.url + path, bearer | headers
    # Nothing is encrypted here, and to load the authorities would take most of the time.
    return httpx.post(url, headers=headers, json=body, verify=False)  # noqa: S501


def eventually(condition: Callable[[], object]) -> bool:
    deadline = time.monotonic() + 5
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    return bool(condition())


# The dialect.


@pytest.mark.parametrize("words", ["plain", "", "OK", "naïve ☎ 電話", "a\0b\r\nc", "x" * 300_000])
def test_any_text_comes_back_as_it_was_stored(client: Client, words: str) -> None:
    """Letters of all scripts, NUL, line ends, nothing at all, and the word OK survive the trip."""
    assert client().set("said", words)
    assert client().get("said") == words


@pytest.mark.quick
def test_a_cell_is_written_once_and_tells_what_stands_in_it(client: Client) -> None:
    """SET NX GET EX answers nothing to the winner, and the winner's value to everyone after."""
    assert client().execute(CELL) is None
    assert client().execute(["SET", "cell", "theirs", "NX", "GET", "EX", "60"]) == "mine"
    assert client().get("cell") == "mine"


@pytest.mark.quick
def test_nx_alone_tells_the_winner_from_the_loser(client: Client) -> None:
    """SET NX is true once, and then false as long as the key stands."""
    assert client().set("lease", "a", nx=True, ex=9)
    assert not client().set("lease", "b", nx=True, ex=9)


def test_holes_are_seen_as_holes(client: Client) -> None:
    """MGET has None where a key is missing, also when nothing is there."""
    client().set("b", "2")
    assert client().mget("a", "b", "c") == [None, "2", None]
    assert client().get("a") is None
    assert client().execute(["GETEX", "b"]) == "2"


def test_replies_of_every_shape_are_understood(client: Client) -> None:
    """Hashes, nested lists and numbers come out of the client as Python has them."""
    redis = client()
    assert redis.hset("card", values={"name": "Zoë", "n": "1"}) == 2
    assert redis.hgetall("card") == {"name": "Zoë", "n": "1"}
    assert redis.eval("return {KEYS[1], {ARGV[1], 7}, false}", ["k"], ["é"]) == [
        "k",
        ["é", 7],
        None,
    ]
    assert redis.delete("card", "none") == 1
    assert redis.ping() == "PONG"


def test_a_client_without_base64_is_answered_in_plain_text(upstash: Upstash) -> None:
    """The encoding is the client's choice; without it strings are plain JSON."""
    with Redis(upstash.url, upstash.token, rest_encoding=None, rest_retries=0) as redis:
        assert redis.set("said", "grüß dich")
        assert redis.mget("said", "none") == ["grüß dich", None]


def test_in_base64_every_string_is_encoded_save_ok(upstash: Upstash) -> None:
    """The client decodes whatever it gets, so the encoding itself is looked at on the wire."""
    batch = [["SET", "a", "é"], ["MGET", "a", "b"], ["PING"], ["STRLEN", "a"]]
    answer = post(upstash, "/pipeline", batch, **{"Upstash-Encoding": "base64"})
    assert [box["result"] for box in answer.json()] == ["OK", ["w6k=", None], "UE9ORw==", 2]


def test_a_pipeline_is_one_round_trip_and_several_commands(
    upstash: Upstash, client: Client
) -> None:
    """Commands in a pipeline are answered in order, and counted one by one."""
    pipeline = client().pipeline()
    pipeline.set("a", "1").incr("a").get("a")
    assert pipeline.exec() == [True, 2, "2"]
    assert upstash.commands == [("SET", "a", "1"), ("INCR", "a"), ("GET", "a")]
    assert upstash.round_trips == 1


def test_an_error_in_a_pipeline_spoils_only_its_own_place(upstash: Upstash) -> None:
    """The others in a pipeline take effect; the answer as a whole is a 200."""
    answer = post(
        upstash, "/pipeline", [["SET", "a", "x"], ["INCR", "a"], ["WAIT", 1], ["GET", "a"]]
    )
    stored, wrong, refused, got = answer.json()
    assert (answer.status_code, stored, got) == (200, {"result": "OK"}, {"result": "x"})
    assert wrong == {"error": "ERR value is not an integer or out of range"}
    assert refused["error"].startswith("ERR Command is not available: 'WAIT'")


def test_the_client_raises_for_an_error_in_a_pipeline(client: Client) -> None:
    """The official client makes one bad item the failure of the batch."""
    pipeline = client().pipeline()
    pipeline.set("a", "x").incr("a")
    with pytest.raises(UpstashError, match="ERR value is not an integer"):
        pipeline.exec()


def test_a_transaction_is_answered_like_a_pipeline(upstash: Upstash, client: Client) -> None:
    """MULTI and EXEC stay behind the scenes, in the replies and in the log."""
    transaction = client().multi()
    transaction.set("a", "1").incr("a")
    assert transaction.exec() == [True, 2]
    assert [command[0] for command in upstash.commands] == ["SET", "INCR"]


def test_a_transaction_with_a_malformed_command_is_discarded_whole(upstash: Upstash) -> None:
    """One error object answers it instead of a list, and nothing of it is stored."""
    answer = post(upstash, "/multi-exec", [["SET", "a", "1"], ["SET", "b"]])
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("EXECABORT Transaction discarded")
    assert upstash.keys() == {}


@pytest.mark.quick
@pytest.mark.parametrize("path", ["/", "/pipeline", "/multi-exec"])
def test_a_wrong_token_opens_nothing(upstash: Upstash, client: Client, path: str) -> None:
    """Every path wants the token, and says so as Upstash does."""
    answer = post(upstash, path, [["SET", "a", "1"]], Authorization="Bearer wrong")
    assert answer.status_code == 401
    assert answer.json() == {"error": "WRONGPASS invalid or missing auth token"}
    with pytest.raises(UpstashError, match="WRONGPASS"):
        client(token="wrong").set("a", "1")
    assert upstash.commands == []


@pytest.mark.parametrize(
    ("command", "error"),
    [
        (["NOPE"], "ERR unknown command"),
        (["SET", "a"], "ERR wrong number of arguments"),
        (["EVALSHA", "f" * 40, "0"], "NOSCRIPT No matching script"),
        (["SUBSCRIBE", "a"], "ERR Command is not available: 'SUBSCRIBE'"),
        (["INCR", "text"], "ERR value is not an integer"),
    ],
)
def test_the_words_of_redis_reach_the_client(
    upstash: Upstash, client: Client, command: list[str], error: str
) -> None:
    """An error keeps the prefix that Redis gave it, and travels with a 400."""
    client().set("text", "x")
    with pytest.raises(UpstashError, match=f"^{error}"):
        client().execute(command)
    assert post(upstash, "/", command).status_code == 400


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/", {"not": "a list"}),
        ("/", "GET a"),
        ("/", []),
        ("/", ["GET", None]),
        ("/pipeline", []),
        ("/pipeline", ["GET", "a"]),
        ("/_control", []),
        ("/_control", {"fault": "flood"}),
        ("/_control", {"latency": None}),
    ],
)
def test_a_malformed_body_is_a_400(upstash: Upstash, path: str, body: object) -> None:
    """What is no command is refused with an error object, and the connection lives on."""
    answer = post(upstash, path, body)
    assert answer.status_code == 400
    assert answer.json()["error"]


def test_a_transaction_with_a_command_that_is_not_offered_is_refused_whole(
    upstash: Upstash,
) -> None:
    """Nothing of a transaction reaches Redis when one of its commands may not."""
    answer = post(upstash, "/multi-exec", [["SET", "a", "1"], ["WATCH", "a"]])
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("ERR Command is not available: 'WATCH'")
    assert upstash.commands == []


def test_a_method_unheard_of_is_a_405(upstash: Upstash) -> None:
    """Upstash takes HEAD, GET, POST and PUT."""
    assert httpx.delete(upstash.url).status_code == 405


def test_commands_may_be_spelled_as_paths(upstash: Upstash) -> None:
    """The path holds the words, the body one more, the query the options, or even the token."""
    bearer = {"Authorization": f"Bearer {upstash.token}"}
    stored = httpx.post(f"{upstash.url}/set/a%20b?EX=60&NX", headers=bearer, content="x/y é")
    assert stored.json() == {"result": "OK"}
    assert upstash.commands == [("set", "a b", "x/y é", "EX", "60", "NX")]
    got = httpx.get(f"{upstash.url}/get/a%20b?_token={upstash.token}")
    assert got.json() == {"result": "x/y é"}


def test_each_answer_carries_a_later_sync_token(upstash: Upstash) -> None:
    """The token that lets a client read its own writes moves on with each request."""
    first, second = (post(upstash, "/", ["GET", "a"]).headers["upstash-sync-token"] for _ in "12")
    assert int(first) < int(second)


def test_many_clients_at_once_never_get_each_others_answers(client: Client) -> None:
    """Eight clients counting side by side each see their own numbers."""
    seen: list[list[object]] = []

    def count(name: str) -> None:
        redis = client()
        seen.append([redis.incr(name) for _ in range(40)])

    threads = [threading.Thread(target=count, args=(f"n{i}",)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [list(range(1, 41))] * 8


# Faults.


@pytest.mark.parametrize("applied", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    ("fault", "seen"),
    [
        ("hang", httpx.ReadTimeout),
        ("late", httpx.ReadTimeout),
        ("drop", httpx.RemoteProtocolError),
        ("502", json.JSONDecodeError),
        ("empty", json.JSONDecodeError),
        ("garbage", json.JSONDecodeError),
        ("no-result", KeyError),
        ("quota", UpstashError),
    ],
)
def test_a_fault_strikes_before_or_after_the_command_takes_effect(
    upstash: Upstash, client: Client, fault: str, seen: type[Exception], applied: bool
) -> None:
    """The client sees the same failure; only `apply-then-` lets the write land before it."""
    name = f"apply-then-{fault}" if applied else fault
    upstash.fault = lambda command: name if command[0] == "SET" else None
    patience = 0.2 if seen is httpx.ReadTimeout else 5
    with pytest.raises(seen):
        client(timeout=patience).execute(CELL)
    assert client().get("cell") == ("mine" if applied else None)
    assert upstash.faults == {name: 1}


def test_a_drip_outlives_the_clients_patience_with_each_byte(
    upstash: Upstash, client: Client
) -> None:
    """An answer in drops passes a time-out per read, and takes as long as it has bytes."""
    upstash.drip_seconds = 0.002
    upstash.fault = lambda _: "drip"
    started = time.monotonic()
    assert client(timeout=0.1).execute(CELL) is None
    assert time.monotonic() - started > 0.15


def test_a_late_answer_is_a_right_answer(upstash: Upstash, client: Client) -> None:
    """A client that waits long enough gets what it asked for."""
    upstash.late_seconds = 0.1
    upstash.fault = lambda _: "late"
    started = time.monotonic()
    assert client().execute(CELL) is None
    assert time.monotonic() - started >= 0.1
    assert upstash.keys() == {"cell": 60}


def test_a_write_given_up_by_its_client_may_still_land(upstash: Upstash, client: Client) -> None:
    """A late command takes effect although nobody waits for it any more."""
    upstash.late_seconds = 0.2
    upstash.fault = lambda _: "late"
    with pytest.raises(httpx.ReadTimeout):
        client(timeout=0.05).execute(CELL)
    assert upstash.keys() == {}
    assert eventually(upstash.keys)


@pytest.mark.quick
@pytest.mark.parametrize("sent", ["struck by a fault", "on a slow way"])
def test_nothing_under_way_outlives_a_fresh_start(
    upstash: Upstash, client: Client, sent: str
) -> None:
    """A command that came too late for one test takes no effect in the next, and is not counted."""
    if sent == "struck by a fault":
        upstash.fault, upstash.late_seconds = (lambda _: "late"), 0.2
    else:
        upstash.latency = 0.4
    with pytest.raises(httpx.ReadTimeout):
        client(timeout=0.05).execute(CELL)
    upstash.start_afresh()
    assert (upstash.fault, upstash.latency) == (None, 0)
    time.sleep(0.3)
    assert (upstash.keys(), upstash.commands, upstash.round_trips) == ({}, [], 0)
    assert client().execute(CELL) is None


def test_a_hanging_client_is_let_go_on_request(upstash: Upstash, client: Client) -> None:
    """Releasing closes the connections that hang, without an answer."""
    upstash.fault = lambda _: "hang"

    def let_go() -> None:
        assert eventually(lambda: upstash.hanging)
        upstash.release()

    release = threading.Thread(target=let_go)
    release.start()
    with pytest.raises(httpx.RemoteProtocolError):
        client().get("a")
    release.join()
    assert eventually(lambda: not upstash.hanging)


@pytest.mark.parametrize(("fault", "left"), [("forget", "new"), ("apply-then-forget", None)])
def test_amnesia_strikes_the_keys_of_the_command(
    upstash: Upstash, client: Client, fault: str, left: str | None
) -> None:
    """A forgotten cell can be written again; or a write is acknowledged and then lost."""
    client().execute(CELL)
    client().set("other", "kept")
    if left is None:
        client().delete("cell")
    upstash.fault = lambda command: fault if command[0] == "SET" else None
    assert client().execute(["SET", "cell", "new", "NX", "GET", "EX", "60"]) is None
    assert client().mget("cell", "other") == [left, "kept"]


@pytest.mark.parametrize(
    ("command", "keys"),
    [
        ("MGET a b", ["a", "b"]),
        ("del a", ["a"]),
        ("SET a v EX 60", ["a"]),
        ("EVAL script 2 a b v", ["a", "b"]),
        ("EVALSHA sha 1 a v", ["a"]),
        ("PING", []),
    ],
)
def test_the_keys_of_a_command_are_known(command: str, keys: list[str]) -> None:
    """Amnesia forgets the keys that a command names, and nothing that is no key."""
    assert keys_of(command.split()) == keys


def test_latency_is_added_to_every_answer(upstash: Upstash, client: Client) -> None:
    """A slow line delays good answers and refusals alike."""
    upstash.latency = 0.1
    for token in ("", "wrong"):
        started = time.monotonic()
        if token:
            with pytest.raises(UpstashError):
                client(token=token).get("a")
        else:
            assert client().get("a") is None
        assert time.monotonic() - started >= 0.1


# Hooks and counters.


def test_a_rival_can_win_just_before_the_command_is_applied(
    upstash: Upstash, client: Client
) -> None:
    """What a `before` hook sends through the same server is served while the first waits."""
    upstash.before = once("SET", lambda: client().execute(["SET", "cell", "rival", "NX", "GET"]))
    assert client().execute(CELL) == "rival"
    assert [command[2] for command in upstash.commands] == ["rival", "mine"]


def test_a_rival_can_look_just_after_the_command_is_applied(
    upstash: Upstash, client: Client
) -> None:
    """An `after` hook runs when the write has landed and its client does not know yet."""
    seen: list[str | None] = []
    upstash.after = once("SET", lambda: seen.append(client().get("cell")))
    transaction = client().multi()
    transaction.set("cell", "mine")
    assert transaction.exec() == [True]
    assert seen == ["mine"]


def test_a_hook_that_fails_is_heard_of(redis: RedisServer | FakeRedis) -> None:
    """An exception in a hook does not reach the client, and is raised when the stand-in closes."""

    def hook(_: list[str]) -> None:
        raise LookupError("in the hook")

    with pytest.raises(LookupError, match="in the hook"), Upstash(redis) as upstash:
        upstash.before = hook
        assert post(upstash, "/", ["PING"]).json() == {"result": "PONG"}


def test_what_is_free_is_counted_apart(upstash: Upstash, client: Client) -> None:
    """PING is no command and no round trip; forgetting the counts keeps the data."""
    client().ping()
    client().set("a", "1")
    assert (upstash.commands, upstash.round_trips, upstash.pings) == ([("SET", "a", "1")], 1, 1)
    upstash.forget()
    assert (upstash.commands, upstash.round_trips, upstash.pings) == ([], 0, 0)
    assert client().get("a") == "1"


def test_a_key_without_an_end_is_found_out(upstash: Upstash, client: Client) -> None:
    """The keys are listed with the seconds that they have left."""
    client().set("for ever", "1")
    client().set("for a while", "1", ex=60)
    client().set("for a moment", "1", px=300)
    assert upstash.keys() == {"for ever": -1, "for a while": 60, "for a moment": 1}
    assert post(upstash, "/_control", {}).json()["without_ttl"] == ["for ever"]


def test_a_client_reconnects_when_the_stand_in_is_back(redis: RedisServer | FakeRedis) -> None:
    """Closing cuts every connection; on the same port, the same client goes on."""
    with ExitStack() as opened:
        with Upstash(redis) as first:
            one = opened.enter_context(Redis(first.url, first.token, rest_retries=0))
            assert one.set("kept", "1")
        assert eventually(lambda: not first.connections)
        with pytest.raises(httpx.HTTPError):
            one.get("kept")
        port = int(first.url.rpartition(":")[2])
        opened.enter_context(Upstash(redis, port=port, token=first.token))
        assert one.get("kept") == "1"


# From other processes.


def test_faults_can_be_drawn_by_lot_from_outside(upstash: Upstash, client: Client) -> None:
    """Equal seeds strike the same share of the same commands, until the fault is lifted."""

    def struck() -> list[int]:
        wish = {"fault": "quota", "share": 0.5, "seed": 7, "match": "SET"}
        assert post(upstash, "/_control", wish).status_code == 200
        redis = client()
        failures = []
        for attempt in range(30):
            assert redis.get("a") is None
            try:
                redis.set("b", "1", ex=60)
            except UpstashError:
                failures.append(attempt)
        return failures

    first = struck()
    assert 5 < len(first) < 25
    assert struck() == first
    post(upstash, "/_control", {"fault": None})
    assert client().set("b", "1", ex=60)


def test_the_counts_can_be_read_from_outside(upstash: Upstash, client: Client) -> None:
    """The report tells commands by name, round trips and faults, and costs nothing itself."""
    client().set("a", "1", ex=60)
    pipeline = client().pipeline()
    pipeline.get("a").get("b")
    pipeline.exec()
    post(upstash, "/_control", {"fault": "apply-then-502", "latency": 0.001})
    with pytest.raises(json.JSONDecodeError):
        client().get("a")
    bearer = {"Authorization": f"Bearer {upstash.token}"}
    report = httpx.get(f"{upstash.url}/_control", headers=bearer).json()
    assert report == {
        "commands": 4,
        "by_name": {"SET": 1, "GET": 3},
        "round_trips": 3,
        "pings": 0,
        "faults": {"apply-then-502": 1},
        "without_ttl": [],
    }
    assert upstash.latency == 0.001
    emptied = post(upstash, "/_control", {"fault": None, "forget": True, "flush": True}).json()
    assert (emptied["commands"], emptied["faults"], upstash.keys()) == (0, {}, {})


def test_the_controls_want_the_token_too(upstash: Upstash) -> None:
    """Nobody breaks the stand-in without its token."""
    assert httpx.get(f"{upstash.url}/_control").status_code == 401


def test_it_runs_from_the_command_line() -> None:
    """It prints the two variables that a client needs, serves, and ends cleanly when told to."""
    program = [sys.executable, "-m", "standins.upstash", "--token", "t0ken"]
    with subprocess.Popen(
        program, cwd=ROOT / "tests", stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        lines = [process.stdout.readline().removeprefix("export ").strip() for _ in range(2)]
        settings = dict(line.split("=", 1) for line in lines)
        with Redis(settings["UPSTASH_REDIS_REST_URL"], "t0ken", rest_retries=0) as redis:
            assert redis.set("a", "1")
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    assert settings["UPSTASH_REDIS_REST_TOKEN"] == "t0ken"


def test_a_missing_redis_is_an_error_where_the_real_one_is_required(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In CI nothing takes the place of redis-server; elsewhere fakeredis does."""
    monkeypatch.setenv("PATH", os.devnull)
    monkeypatch.setenv("CI", "1")
    with pytest.raises(RuntimeError, match="apt-get install redis-server"):
        server()
    monkeypatch.delenv("CI")
    assert isinstance(server(), FakeRedis)
