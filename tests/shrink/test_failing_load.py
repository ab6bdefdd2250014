"""The failing load of a stored run, and the script of a bug report, for histories made by hand."""

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from run_fixtures import DEPLOYMENT, STARTED, ended

from harness.errors import UsageError
from harness.history import Entry, History, PhaseStarted, RunEnded, Sent
from harness.scenario import LOAD_LOGPROBS, Endpoint, Message, Purpose, Request, Route, Sampling
from harness.shrink import Candidate, Piece, ScriptContent, failing_load_of, script
from harness.verdict import Check, Finding, Judgement, Verdict

SALT = "run-1"


def request(number: int, **fields: object) -> Request:
    prompt = tuple(range(number, number + 50))
    return replace(Request(f"load-{number}", prompt, Sampling(min_tokens=4), cache_salt=SALT), **fields)  # type: ignore[arg-type] # the tests name them


def history(*requests: Request, at_once: int = 2, phase: str = "load") -> History:
    entries: list[Entry] = [STARTED, PhaseStarted(0.0, "random_load", phase)]
    for start in range(0, len(requests), at_once):
        batch = requests[start : start + at_once]
        entries += [Sent(float(start), one, "random_load", phase, float(start)) for one in batch]
        entries += [ended(one.request_id, float(start)) for one in batch]
    return History((*entries, RunEnded(99.0)))


def judgement(*findings: Finding, name: str = "outputs", verdict: Verdict = Verdict.INVALID) -> Judgement:
    return Judgement((Check(name, verdict, "", findings=findings),))


SIX = [request(number) for number in range(6)]
LEAK = Finding("load-4", "was answered with load-1's KV: all of its 20 tokens", request="load-4", owner="load-1")


def test_a_failing_load_is_the_load_as_sent() -> None:
    load = failing_load_of(DEPLOYMENT, history(*SIX), judgement(LEAK))
    assert load.checks == ("outputs",)
    assert load.whole == Candidate(tuple(Piece(n, 50, 20) for n in range(6)), 2)
    assert {line.request.cache_salt for line in load.lines} == {None}, "the run's own salt is not used again"
    assert all(line.request.sampling.logprobs == LOAD_LOGPROBS for line in load.lines)


def test_hints_are_the_accused_then_with_the_leaks_owner_then_with_overlapping_requests() -> None:
    load = failing_load_of(DEPLOYMENT, history(*SIX), judgement(LEAK))
    assert [[piece.number for piece in hint.pieces] for hint in load.hints()] == [[4], [1, 4], [1, 4, 5]]
    probed = failing_load_of(DEPLOYMENT, history(*SIX), judgement(Finding("load-2", "is wrong", request="load-2")))
    assert probed.accused == {2}
    assert not list(failing_load_of(DEPLOYMENT, history(*SIX), judgement(name="token_sources")).hints())


def test_another_run_of_the_load_narrows_the_accused() -> None:
    three, none = (Finding(name, "", request=name) for name in ("load-3", "load-0"))
    load = failing_load_of(DEPLOYMENT, history(*SIX), judgement(LEAK, three))
    assert load.seen_again(judgement(three, none)).accused == {3}
    assert load.seen_again(judgement(none)).accused == {0}, "the fault affects other requests each time"


def test_a_candidate_becomes_requests_under_a_fresh_salt() -> None:
    salted = [replace(one, cache_salt=salt) for one, salt in zip(SIX, ["a", "a", "b", "b", None, None], strict=True)]
    load = failing_load_of(DEPLOYMENT, history(*salted), judgement(LEAK))
    scenario = load.load(Candidate((Piece(0, 33, 2), Piece(1, 50, 20), Piece(2, 50, 20), Piece(4, 1, 20)), 2), "try-7")
    requests = scenario.phases[0].requests
    assert [len(one.prompt) for one in requests] == [33, 50, 50, 1]
    assert (requests[0].sampling.max_tokens, requests[0].sampling.min_tokens) == (2, 2)
    salts = [one.cache_salt for one in requests]
    assert salts[0] == salts[1] != salts[2]
    assert len(set(salts)) == 3
    assert all(salt is not None and salt.startswith("try-7") for salt in salts)
    assert scenario.phases[0].concurrency == 2


def test_text_and_messages_stay_whole() -> None:
    text, chat = request(0, prompt="some words"), request(1, prompt=(Message("user", "hi"),), endpoint=Endpoint.CHAT)
    load = failing_load_of(DEPLOYMENT, history(text, chat, *SIX[2:]), judgement(LEAK))
    assert load.prefix_lengths(16).whole == {0, 1}
    (left, _) = load.left(Candidate((Piece(0, 1, 2), Piece(1, 1, 2)), 1))
    assert left.request.prompt == "some words"


def test_requests_that_verify_others_are_not_part_of_the_load() -> None:
    reference = request(7, purpose=Purpose.REFERENCE, about="load-1")
    refused = request(8, expect_status=400)
    retried = request(9, purpose=Purpose.RETRY, about="load-1")
    load = failing_load_of(DEPLOYMENT, history(*SIX, reference, refused, retried), judgement(LEAK))
    assert len(load.lines) == 6
    probes = (replace(one, purpose=Purpose.PROBE, about="load-1") for one in SIX)
    with pytest.raises(UsageError, match="no part of its load"):
        failing_load_of(DEPLOYMENT, history(*probes), judgement(LEAK))


@pytest.mark.parametrize("verdict", [Verdict.VALID, Verdict.UNKNOWN])
def test_only_an_invalid_run_is_shrunk(verdict: Verdict) -> None:
    with pytest.raises(UsageError, match=f"The run is {verdict}"):
        failing_load_of(DEPLOYMENT, history(*SIX), judgement(LEAK, verdict=verdict))


# The script


def content(*requests: Request, **fields: object) -> ScriptContent:
    whole = ScriptContent((requests,), 1, (), "m", "http://p:1", "http://d:2", "http://proxy:3", ("about it",))
    return replace(whole, **fields)  # type: ignore[arg-type] # the tests name them


def syntax_error(text: str, path: Path) -> str:
    path.write_text(text)
    return subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True, check=False).stderr


def test_a_script_is_bash_whatever_a_prompt_holds(tmp_path: Path) -> None:
    nasty = request(0, prompt="$(touch hacked) `id` \"'\nJSON\n\\ @SALT \u2028", request_id="it's; rm -rf $HOME")
    text = script(content(nasty, request(1), concurrency=2, header_names=("X-Api-Key",), counters=True))
    assert syntax_error(text, tmp_path / "script.sh") == ""
    assert "'it'\"'\"'s; rm -rf $HOME'" in text
    assert "\nJSON\n" in text
    assert "${HEADER_X_API_KEY:?" in text, "a script contains no credentials"
    assert not (tmp_path / "hacked").exists()


def test_requests_keep_their_routes_and_concurrency() -> None:
    direct = request(5, route=Route.DECODE)
    text = script(content(*SIX[:4], direct, concurrency=3, probes=(request(9, route=Route.PREFILL),)))
    served = text.partition("# --- the requests as served, 3 at a time ---\n")[2].partition("\n# --- the comparison")[0]
    assert served.splitlines() == [
        "transferred 0 load-0 /v1/completions &",
        "transferred 1 load-1 /v1/completions &",
        "transferred 2 load-2 /v1/completions &",
        "wait -n || true",
        "transferred 3 load-3 /v1/completions &",
        "wait -n || true",
        'alone 4 load-5 /v1/completions "$D" &',
        "wait",
        "",
        "# --- prefixes of the prompts, sent to the server that has them in a cache ---",
        'alone 5 load-9 /v1/completions "$P"',
    ]


def scheduled() -> History:
    """Requests 0 to 3, due at 10, 11, 12.5 and 14 s; the third is sent before the second."""
    due = {0: 10.0, 2: 12.5, 1: 11.0, 3: 14.0}
    entries: list[Entry] = [STARTED, PhaseStarted(9.0, "random_load", "load")]
    for at, (number, intended) in enumerate(due.items()):
        one = request(number)
        entries += [Sent(15.0 + at, one, "random_load", "load", intended), ended(one.request_id, 15.0 + at)]
    return History((*entries, RunEnded(99.0)))


def test_requests_at_fixed_times_keep_their_distances() -> None:
    load = failing_load_of(DEPLOYMENT, scheduled(), judgement(LEAK), scheduled=True)
    assert (load.whole.timed, str(load.whole)) == (
        True,
        "4 requests, at their original times, prompts of 50 and outputs of 20 tokens",
    )
    assert [(line.request.request_id, line.at) for line in load.left(load.whole)] == [
        ("load-0", 0.0),
        ("load-1", 1.0),
        ("load-2", 2.5),
        ("load-3", 4.0),
    ]
    phase = load.load(load.whole.only([1, 3]), "try-1").phases[0]
    assert ([one.request_id for one in phase.requests], phase.due) == (["load-1", "load-3"], (0.0, 3.0))
    assert phase.concurrency == 2, "nothing waits for an answer"


def test_as_a_closed_loop_they_have_no_times() -> None:
    load = failing_load_of(DEPLOYMENT, scheduled(), judgement(LEAK), scheduled=True)
    closed = load.load(replace(load.whole, timed=False), "try-1").phases[0]
    assert (closed.due, closed.concurrency) == ((), 1)
    assert not failing_load_of(DEPLOYMENT, scheduled(), judgement(LEAK)).whole.timed


def test_a_script_sends_at_the_same_distances_in_time(tmp_path: Path) -> None:
    times = {"load-0": 0.0, "load-1": 0.25, "load-2": 0.25, "load-3": 2.0}
    text = script(content(*(request(number) for number in range(4)), times=times, concurrency=4))
    assert syntax_error(text, tmp_path / "script.sh") == ""
    sent = text.split("# --- the requests as served, each at its time ---")[1].split("# ---")[0].split("\n")
    steps = [line.split()[1 if line.startswith("sleep") else 2] for line in sent if line.startswith(("sleep", "trans"))]
    assert steps == ["load-0", "0.250", "load-1", "load-2", "1.750", "load-3"]
    assert [line for line in sent if line][-1] == "wait"
