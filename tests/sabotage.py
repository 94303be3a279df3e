"""Whether the tests would notice: main.py is broken on purpose, one line at a time.

    python tests/sabotage.py                  # every sabotage; status 1: one of them survived
    python tests/sabotage.py --only "no TTL"  # one of them
    python tests/sabotage.py --list           # their names

Each takes a promise of the line away, in a copy of the tree that is thrown away afterwards, and
names the quickest tests that have to fail then. The same tests first run on an untouched copy: a
test that fails anyway catches nothing. A sabotage whose text is not found exactly once is an error,
so that a change of main.py brings its sabotages along.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parent.parent
LEFT_OUT: Final = (".git", ".venv", ".*_cache", "__pycache__", ".hypothesis", ".calls*", "*.md")
SECONDS: Final = 240.0  # for the tests of one sabotage: who hangs is caught, but should not
FAILED: Final = 1  # pytest's status when tests ran and failed; anything above is no verdict


class Sabotage(NamedTuple):
    """A line of main.py, what becomes of it, and the tests of which one has to fail."""

    name: str
    old: str
    new: str
    tests: str


class Verdict(NamedTuple):
    """What the tests made of it: pytest's status, its last lines, and how long it took."""

    status: int
    output: str
    seconds: float

    @property
    def caught(self) -> bool:
        return self.status == FAILED

    @property
    def by(self) -> str:
        """The first test that failed."""
        found = re.search(r"^FAILED tests/(\S+)", self.output, re.MULTILINE)
        return found[1] if found else ""


CHECKED: Final = "if hmac.compare_digest(signature(token, spelling + target, form), given):"
REFUSED: Final = """\
    raise Rejected(403, "This is not a request that Twilio signed with this line's token.")
"""
SABOTAGES: Final = (
    # One turn, one answer.
    Sabotage(
        "no replay check",
        "        if settled:\n",
        "        if settled and self.away:\n",
        "line/test_security.py::test_a_recorded_webhook_is_worth_one_answer",
    ),
    Sabotage(
        "settle overwrites",
        'self.ask("SET", key, value, "NX", "GET", "EX", str(ttl), until=until)',
        'self.ask("SET", key, value, "GET", "EX", str(ttl), until=until)',
        "line/test_redis_is_ill.py::test_the_first_webhook_costs_one_command_and_later_ones_two"
        " line/test_turns.py::test_two_instances_answer_one_turn_alike"
        " line/test_turns.py::test_the_second_of_two_different_webhooks_of_a_turn_hears_the_first",
    ),
    Sabotage(
        "the loser of a race says its own words",
        "            return standing.twiml if standing else said\n",
        "            return said\n",
        "line/test_turns.py::test_two_instances_answer_one_turn_alike",
    ),
    Sabotage(
        "no TTL",
        'value, "NX", "GET", "EX", str(ttl), until=until)',
        'value, "NX", "GET", until=until)',
        "line/test_calls.py::test_call_on_two_instances[greeting]",
    ),
    Sabotage(
        "a TTL of a week",
        "DAY: Final = 24 * 3600",
        "DAY: Final = 7 * 24 * 3600",
        "line/test_calls.py::test_call_on_two_instances[greeting]",
    ),
    Sabotage(
        "no turn in the URL",
        "    back = way_back(settings, turn=call.turn, step=call.step)\n",
        "    back = way_back(settings, step=call.step)\n",
        "line/test_turns.py::test_every_repeat_gets_the_first_answer",
    ),
    Sabotage(
        "no step in the URL",
        "    back = way_back(settings, turn=call.turn, step=call.step)\n",
        "    back = way_back(settings, turn=call.turn)\n",
        "line/test_redis_is_ill.py::test_a_caller_is_answered_while_redis_is_ill[502-read]",
    ),
    Sabotage(
        "a turn too far",
        "    if call.turn > LAST_TURN:\n",
        "    if call.turn > LAST_TURN + 1:\n",
        "line/test_turns.py::test_the_last_turn_hands_out_no_other",
    ),
    Sabotage(
        "no second look at a missing cell",
        "            if not now and not then:\n",
        "            if now and not then and hook.hold:\n",
        "line/test_redis_is_ill.py::test_a_missing_record_is_asked_of_the_primary",
    ),
    Sabotage(
        "one attempt at the store",
        "        for moment in (began + (last - began) / 2, last):\n",
        "        for moment in (last,):\n",
        "line/test_promises.py::test_a_single_fault_costs_nothing",
    ),
    Sabotage(
        "a replica that lags loses the question",
        "if hook.hold and not then and not rest[0]:",
        "if not keys:",
        "line/test_hold.py::test_a_replica_without_the_question_costs_no_answer",
    ),
    Sabotage(
        "a log that cannot be written costs a call",
        "    with suppress(OSError, ValueError):\n        sys.stdout.write",
        "    with suppress(KeyError):\n        sys.stdout.write",
        "line/test_log.py::test_a_log_that_cannot_be_written_costs_no_caller_anything",
    ),
    Sabotage(
        "a withheld number is a number",
        " and self.caller not in WITHHELD",
        "",
        "line/test_callers.py::test_a_withheld_number_is_known_by_its_letters_on_the_keypad",
    ),
    Sabotage(
        "a message after the end is told once or never",
        '{"voicemail": message}, moment) and gone:',
        '{"voicemail": message}, moment) and not gone:',
        "line/test_events.py::test_a_message_that_comes_after_the_end_outlives_the_instance",
    ),
    Sabotage(
        "what was settled is asked beside the worker",
        "if kept and hook.hold < len(HOLDS):",
        "if hook.hold and hook.hold < len(HOLDS):",
        "line/test_hold.py::test_a_second_instance_that_loses_sight_of_the_work_holds",
    ),
    Sabotage(
        "an answer is dropped when nobody may claim it",
        "        return known  # at worst it is said twice",
        '        return "hold"',
        "line/test_hold.py::test_a_known_answer_is_said_though_nobody_may_claim_it",
    ),
    Sabotage(
        "any kind of result is believed",
        "    if not known or len(found) != (len(command) - 1 if many else 1):\n",
        "    if not known:\n",
        "line/test_cells.py::test_an_answer_of_another_kind_is_none",
    ),
    Sabotage(
        "the deadline is ignored",
        "        self.sock.settimeout(left(self.until))\n",
        "        self.sock.settimeout(2)\n",
        "line/test_redis_is_ill.py::test_a_call_begins_while_redis_is_ill[hang]",
    ),
    Sabotage(
        "connections are kept for five seconds",
        "    KEPT: Final = 240",
        "    KEPT: Final = 5",
        "line/test_promises.py::test_a_connection_outlives_the_silence_between_two_turns",
    ),
    # Who is believed.
    Sabotage(
        "the signature is not looked at",
        REFUSED,
        "    return base\n",
        "line/test_signatures.py::test_a_wrong_signature_is_refused",
    ),
    Sabotage(
        "a part of a signature is enough",
        CHECKED,
        "if hmac.compare_digest(signature(token, spelling + target, form)[:9], given[:9]):",
        "line/test_any_signature.py::test_a_signature_counts_whole",
    ),
    Sabotage(
        "the comparison takes its time",
        CHECKED,
        "if signature(token, spelling + target, form) == given:",
        "line/test_security.py::test_secrets_are_compared_in_constant_time",
    ),
    Sabotage(
        "the query is not signed",
        CHECKED,
        CHECKED.replace("target, form", "target, [] if request.args else form"),
        "line/test_signatures.py::test_an_altered_field_is_refused",
    ),
    Sabotage(
        "no token opens the door",
        "    for token in settings.tokens:\n",
        '    for token in settings.tokens or ("",):\n',
        "line/test_signatures.py::test_without_a_token_every_call_is_refused",
    ),
    Sabotage(
        "only one token counts",
        "    for token in settings.tokens:\n",
        "    for token in settings.tokens[:1]:\n",
        "line/test_signatures.py::test_two_tokens_are_good_while_one_is_replaced",
    ),
    Sabotage(
        "the URL is decoded before it is verified",
        'headers, target = request.headers, request.environ["RAW_URI"]',
        "headers, target = request.headers, request.full_path",
        "line/test_signatures.py::test_the_url_is_taken_as_it_came",
    ),
    Sabotage(
        "other accounts are served",
        'if settings.account_sid and form.get("AccountSid") != settings.account_sid:',
        'if settings.account_sid and "AccountSid" not in form:',
        "line/test_security.py::test_the_calls_of_another_account_are_nobodys",
    ),
    Sabotage(
        "a body of any size",
        "        request.max_content_length = LARGEST_BODY\n",
        "        request.max_content_length = None\n",
        "line/test_paths.py::test_a_large_body_is_refused",
    ),
    Sabotage(
        "a large body is read once more",
        "            request.stream = io.BytesIO()",
        "            pass",
        "line/test_fuzz.py::test_absurd_sizes_are_refused",
    ),
    Sabotage(
        "the page is open when no token is set",
        "        if not self.settings.admin_token:\n",
        "        if not self.settings.tokens:\n",
        "line/test_security.py::test_the_page_of_a_call_is_shut_without_its_token",
    ),
    Sabotage(
        "certificates are not looked at",
        "    return httpx.create_ssl_context()\n",
        "    return httpx.create_ssl_context(verify=False)\n",
        "line/test_security.py::test_a_token_is_told_only_to_whom_it_is_meant_for",
    ),
    # What is told.
    Sabotage(
        "problems show secrets",
        'shown = "not usable" if private else repr(phones)',
        "shown = repr(value[:60])",
        "line/test_settings.py::test_a_secret_is_never_shown",
    ),
    Sabotage(
        "the log names callers",
        'if open_ else {"caller": masked(hook.caller)}',
        'if open_ else {"caller": hook.caller}',
        "line/test_security.py::test_a_log_names_no_caller_and_no_words",
    ),
    Sabotage(
        "the log has words",
        'if open_ else {"caller": masked(hook.caller)}',
        'if open_ else {"caller": masked(hook.caller), **words}',
        "line/test_security.py::test_a_log_names_no_caller_and_no_words",
    ),
    Sabotage(
        "the log has the message of an error",
        '    return f"{type(error).__name__} at line',
        '    return f"{error!r} at line',
        "line/test_security.py::test_a_bug_is_told_to_nobody_but_the_log",
    ),
    # What a caller hears.
    Sabotage(
        "a backend names any number",
        '    if then == "transfer" and to not in [*numbers]:\n',
        '    if then == "transfer" and not to:\n',
        "line/test_security.py::test_an_answer_that_names_a_stranger_is_not_used",
    ),
    Sabotage(
        "a bug is a 500",
        "            return twiml(render_apology(self.settings, self.plan))\n",
        '            return plain(500, "Something went wrong on our side.")\n',
        "line/test_bugs.py::test_a_bug_of_ours_is_apologised_for",
    ),
    Sabotage(
        "an apology without words",
        '    response.say(plan.sentence("apology"), **voice)\n',
        "",
        "line/test_bugs.py::test_a_bug_of_ours_is_apologised_for",
    ),
    Sabotage(
        "an apology without a person",
        "    for number in list(plan.numbers.values())[:1]:\n",
        "    for number in list(plan.numbers.values())[:0]:\n",
        "line/test_bugs.py::test_a_bug_of_ours_is_apologised_for",
    ),
    Sabotage(
        "an apology that hangs up silently",
        '    response.say(plan.sentence("call_again"), **voice)\n',
        "",
        "line/test_bugs.py::test_a_bug_without_a_person_is_apologised_for",
    ),
    Sabotage(
        "speech is echoed raw",
        "words[: 4 * limit].translate(UNFIT)",
        "words[: 4 * limit]",
        "line/test_webhooks.py::test_any_speech_is_answered",
    ),
    Sabotage(
        "speechTimeout=auto with a model",
        'speech_model=None if pause == "auto" else settings.speech_model',
        "speech_model=settings.speech_model",
        "line/test_calls.py::test_call_on_one_instance[speech_timeout_auto]",
    ),
    Sabotage(
        "silence ends the call",
        "        action_on_empty_result=True,\n",
        "",
        "line/test_calls.py::test_call_on_one_instance[silence]",
    ),
    Sabotage(
        "silence at the beep ends the call",
        "            response.redirect(back)  # nothing said",
        "            # nothing said",
        "line/test_calls.py::test_call_on_one_instance[silent_at_beep]",
    ),
    Sabotage(
        "misses are not counted",
        "call = replace(call, misses=call.misses + 1)",
        "call = replace(call, misses=1)",
        "line/test_conversation.py::test_what_is_heard_decides_what_is_said",
    ),
    Sabotage(
        "no Confidence is none at all",
        "heard.confidence is None or heard.confidence >= SURE",
        "(heard.confidence or 0) >= SURE",
        "line/test_conversation.py::test_what_is_heard_decides_what_is_said",
    ),
    Sabotage(
        "the fallback blames the caller",
        "hook = hook._replace(heard=replace(hook.heard, again=True))",
        "hook = hook._replace(heard=replace(hook.heard, again=False))",
        "line/test_fallback.py::test_the_fallback_asks_again_what_was_not_answered",
    ),
    Sabotage(
        "Twilio gives up at once",
        "#rc=5&rp=all&ct=2000&rt=",
        "#rc=0&rp=all&ct=2000&rt=",
        "line/test_settings.py::test_twilio_waits_a_little_longer_than_we_promise",
    ),
    # What is kept.
    Sabotage(
        "records are read without a look at their types",
        "if k in blanks and fits(v, blanks[k])",
        "if k in blanks",
        "line/test_any_record.py::test_a_field_of_another_type_counts_as_missing",
    ),
    Sabotage(
        "a field of a newer release spoils a record",
        "if k in blanks and fits(v, blanks[k])",
        "if k not in blanks or fits(v, blanks[k])",
        "line/test_any_record.py::test_a_cell_says_what_was_written_into_it"
        " line/test_records.py::test_a_call_of_an_older_release_goes_on",
    ),
    Sabotage(
        "an expired cell is no empty cell",
        'GET: Final = "SELECT value FROM cells WHERE key = ? AND ends > ?"',
        'GET: Final = "SELECT value FROM cells WHERE key = ? AND ? > 0"',
        "line/test_cells.py",
    ),
    Sabotage(
        "the end is told once more",
        "        if stood == mine:\n",
        "        if stood:\n",
        "line/test_turns.py::test_the_end_of_a_call_is_settled_once",
    ),
    # Slow work.
    Sabotage(
        "what was said is not settled first",
        'stood = self.cells.settle(hook.slow("asked"), written(asked), DAY, until_asked)',
        "stood = written(asked)",
        "line/test_promises.py::test_a_held_caller_is_answered_by_any_instance",
    ),
    Sabotage(
        "the answer is not settled",
        'stood = (cells or self.cells()).settle(job.hook.slow("result"), stood)',
        "pass",
        "line/test_promises.py::test_a_held_caller_is_answered_by_any_instance",
    ),
    Sabotage(
        "the claim is ignored",
        "full or cells.settle(job.lease, job.owner, LEASE, moment) != job.owner:",
        "full or not cells.settle(job.lease, job.owner, LEASE, moment):",
        "line/test_promises.py::test_a_question_is_asked_by_one_instance",
    ),
    Sabotage(
        "a lease that never expires",
        "LEASE: Final = 8",
        "LEASE: Final = DAY",
        "line/test_promises.py::test_a_held_caller_is_answered_by_any_instance",
    ),
    Sabotage(
        "another key for each attempt",
        'key = f"{hook.call_sid}:{hook.turn}"',
        'key = f"{hook.call_sid}:{until}"',
        "line/test_slow_work.py::test_a_backend_that_takes_a_second_is_not_noticed",
    ),
    Sabotage(
        "the backend is asked for callers who are gone",
        "            if known or ended:\n",
        "            if known:\n",
        "line/test_slow_work.py::test_nothing_more_is_asked_for_a_caller_who_has_gone",
    ),
    Sabotage(
        "a push without a look at the next turn",
        "if said or ended or self.cells().settle(",
        "if ended or self.cells().settle(",
        "line/test_promises.py::test_a_caller_who_has_gone_on_is_not_pushed_back",
    ),
)


def sabotaged(text: str, sabotage: Sabotage) -> str:
    """The text with one line broken; a ValueError if there is not exactly one such line."""
    found = text.count(sabotage.old)
    if found != 1:
        raise ValueError(f"{sabotage.name!r}: its text stands in main.py {found} times, not once")
    return text.replace(sabotage.old, sabotage.new)


def copied(root: Path, copy: Path) -> Path:
    """A copy of what the tests need of a tree."""
    shutil.copytree(root, copy, ignore=shutil.ignore_patterns(*LEFT_OUT))
    return copy


def verdict(sabotage: Sabotage | None, tests: Iterable[str], root: Path = ROOT) -> Verdict:
    """What the tests say about a copy of the tree; without a sabotage, about an untouched one."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="sabotage-") as folder:
        copy = Path(folder, "tree")
        copied(root, copy)
        if sabotage:
            source = copy / "main.py"
            text = source.read_text(encoding="utf-8")
            source.write_text(sabotaged(text, sabotage), encoding="utf-8")
        status, output = run(copy, [f"tests/{test}" for test in tests])
    return Verdict(status, output, time.monotonic() - began)


def run(tree: Path, tests: Sequence[str]) -> tuple[int, str]:
    """Pytest's status and output in a tree. Tests that hang count as failed."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-n0", "-p", "no:cacheprovider", *tests]
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("COV", "PYT"))
    }
    process = subprocess.Popen(
        command,
        cwd=tree,
        env=kept | {"PYTHONDONTWRITEBYTECODE": "1", "SABOTAGED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=SECONDS)
        return process.returncode, output
    except subprocess.TimeoutExpired:
        return FAILED, "FAILED tests/(it hangs)"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def untouched(sabotages: Sequence[Sabotage], root: Path = ROOT) -> bool:
    """Whether all tests pass that are to fail."""
    tests = dict.fromkeys(test for each in sabotages for test in each.tests.split())
    found = verdict(None, tests, root)
    if found.status:
        print(found.output[-3000:], "\nthese tests fail or are missing without a sabotage", sep="")
        return False
    print(f"{'nothing is wrong':48} passes   {found.seconds:5.1f} s", flush=True)
    return True


def tell(sabotage: Sabotage, found: Verdict) -> None:
    """One line of the report; what pytest said where the tests noticed nothing."""
    word = "caught  " if found.caught else "SURVIVED"
    print(f"{sabotage.name:48} {word} {found.seconds:5.1f} s  {found.by}", flush=True)
    if not found.caught:
        print(found.output[-1500:], flush=True)


def chosen(only: Sequence[str]) -> list[Sabotage]:
    """The sabotages with these names; all when none is named. A ValueError for unknown names."""
    unknown = {*only} - {each.name for each in SABOTAGES}
    if unknown:
        raise ValueError(f"no such sabotage: {', '.join(sorted(unknown))}")
    return [each for each in SABOTAGES if not only or each.name in only]


def committed(sabotages: Sequence[Sabotage], root: Path, at_once: int) -> int:
    """How many sabotages of this tree are caught; none, if its tests fail without any."""
    if not untouched(sabotages, root):
        return 0
    caught = 0
    with ThreadPoolExecutor(at_once) as pool:
        founds = pool.map(lambda each: verdict(each, each.tests.split(), root), sabotages)
        for each, found in zip(sabotages, founds, strict=True):
            tell(each, found)
            caught += found.caught
    return caught


def main(given: Sequence[str] | None = None) -> int:
    """The command. Exit status: 0 all caught, 1 one survived, 2 usage."""
    parser = argparse.ArgumentParser(
        "sabotage.py", description="Breaks main.py on purpose: do the tests notice?"
    )
    parser.add_argument("--only", action="append", default=[], metavar="NAME")
    parser.add_argument("--list", action="store_true", help="the names, and no more")
    parser.add_argument("--at-once", type=int, default=2, metavar="N", help="default: 2")
    wanted = parser.parse_args(given)
    text = (ROOT / "main.py").read_text(encoding="utf-8")
    try:
        sabotages = chosen(wanted.only)
        for each in sabotages:
            sabotaged(text, each)
    except ValueError as error:
        parser.error(str(error))
    if wanted.list:
        print(*(each.name for each in sabotages), sep="\n")
        return 0
    with tempfile.TemporaryDirectory(prefix="sabotage-") as folder:
        caught = committed(sabotages, copied(ROOT, Path(folder, "tree")), wanted.at_once)
    print(f"{caught} of {len(sabotages)} sabotages caught")
    return 0 if caught == len(sabotages) else 1


if __name__ == "__main__":
    sys.exit(main())
