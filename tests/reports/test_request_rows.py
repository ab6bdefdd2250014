"""The load's requests as rows: times, servers, and what is known of each output."""

from dataclasses import replace
from functools import cache

import counted_run
import msgspec
import pytest
from run_fixtures import DEPLOYMENT, HISTORY, VALID, entries
from sim_history import SimRun, load

from harness.facts import Deployment, Role, Server
from harness.history import Ended, Ending, Entry, History, Outcome, Sent
from harness.reports.requests import OutputStatus, RequestRow, request_rows
from harness.scenario import Purpose
from harness.sim import Noise, PlantedBug, SimConfig, SimPair
from harness.verdict import Check, Finding, FindingKind, Judgement, Verdict
from harness.verify.judging import outputs

SIM = replace(
    counted_run.DEPLOYMENT, servers=tuple(replace(one, block_size=16) for one in counted_run.DEPLOYMENT.servers)
)


BLOCK = 16
"""Tokens in a block of the simulated pair."""


def pair(bug: str = "", rate: float = 0.0, *, seed: int = 0, flips: float = 0.15, count: int = 64) -> SimRun:
    """A load of the simulated pair, which knows what it did wrong."""
    bugs = (PlantedBug(bug, rate),) if bug else ()
    run = SimRun(SimPair(SimConfig(bugs=bugs, seed=seed, noise=Noise(flip_rate=flips)), lambda: 0.0))
    run.run(load(count, seed=seed))
    return run


@cache
def clean() -> History:
    """A verified load without a bug."""
    return pair(count=40).verify("all")


def rows_of(history: History) -> dict[str, RequestRow]:
    judgement = Judgement((outputs(SIM, history),))
    return {row.request_id: row for row in request_rows(SIM, history, judgement)}


def tokens_of(run: SimRun) -> dict[str, tuple[int, ...]]:
    served = [op for op in run.history.operations() if op.request.purpose is Purpose.LOAD]
    return {op.request.request_id: op.ended.choices[0].token_ids for op in served}


@cache
def quiet_tokens(seed: int) -> dict[str, tuple[int, ...]]:
    return tokens_of(pair(seed=seed, flips=0.0))


def first_difference(who: str, run: SimRun) -> int:
    """The first token that a pair without the bug, and without noise, answers otherwise."""
    right = quiet_tokens(run.pair.config.seed)[who]
    return next(
        place for place, (one, other) in enumerate(zip(tokens_of(run)[who], right, strict=False)) if one != other
    )


def probed_tokens(who: str, wrong: set[str]) -> list[int]:
    """Lengths of the prompt's prefixes that were read wrong from decode's cache, by the ids of the probes."""
    probes = (one.removeprefix(f"{who}-probe-decode-") for one in wrong if one.startswith(f"{who}-probe-decode-"))
    return [int(length) for length in probes if length.isdigit()]


def moved(history: History, who: str, nats: float) -> History:
    """The history, in which one answer's tokens have lower log-probabilities."""

    def changed(entry: Entry) -> Entry:
        if not isinstance(entry, Ended) or entry.request_id != who:
            return entry
        (choice,) = entry.choices
        lower = tuple(one and msgspec.structs.replace(one, logprob=one.logprob - nats) for one in choice.logprobs)
        return replace(entry, choices=(replace(choice, logprobs=lower),))

    return History(tuple(map(changed, history.entries)))


def simple(
    history: History = HISTORY, judgement: Judgement = VALID, deployment: Deployment = DEPLOYMENT
) -> list[RequestRow]:
    return list(request_rows(deployment, history, judgement))


def found(**fields: object) -> Judgement:
    finding = Finding("load-0", "made from another's KV", request="load-0", **fields)  # type: ignore[arg-type] # as named
    return Judgement((Check("outputs", Verdict.INVALID, "1 is wrong", (), (finding,)),))


def changed(**fields: object) -> History:
    """The run, with the first request's end changed."""
    first = next(one for one in HISTORY.of(Ended) if one.request_id == "load-0")
    return History(tuple(replace(one, **fields) if one is first else one for one in HISTORY.entries))  # type: ignore[type-var,arg-type] # an Ended


# What was measured


def test_a_request_that_completed() -> None:
    """Due at 1 s; tokens at 1.2, 1.3 and 1.5 s."""
    row = simple()[0]
    assert (row.scenario, row.phase, row.due, row.sent) == ("random_load", "load", 1.0, 1.0)
    assert (row.first_token, row.ended) == pytest.approx((1.2, 1.5))
    assert (row.ttft, row.e2e, row.tpot) == pytest.approx((0.2, 0.5, 0.15))
    assert (row.prompt_tokens, row.output_tokens) == (4, 3)
    assert (row.outcome, row.ending, row.status, row.cause) == (Outcome.OK, Ending.COMPLETED, 200, "")


def test_latencies_count_from_when_a_request_was_due() -> None:
    late = replace(next(iter(HISTORY.of(Sent))), at=1.15)
    row = simple(History((late, *(one for one in entries() if not (isinstance(one, Sent) and one.at == 1.0)))))[0]
    assert (row.sent, row.due) == (1.15, 1.0)
    assert (row.ttft, row.e2e) == pytest.approx((0.2, 0.5))


def test_a_request_that_failed_has_no_latency_and_no_output() -> None:
    """Sent at 1.1 s, due at 1 s; a 500 at 2 s."""
    row = simple()[1]
    assert (row.sent, row.ended, row.first_token) == (1.1, 2.0, None)
    assert (row.ttft, row.e2e, row.tpot) == (None, None, None)
    assert (row.outcome, row.ending, row.status) == (Outcome.INFO, Ending.REFUSED, 500)
    assert row.cause == "500: engine died"
    assert (row.output, row.why, row.output_tokens) == (OutputStatus.NONE, "", 0)


def test_a_stream_that_broke_has_a_first_token_and_no_latency() -> None:
    broken = changed(outcome=Outcome.INFO, cause="cut", status=200, ending=Ending.CUT, usage=None)
    row = simple(broken)[0]
    assert row.first_token == pytest.approx(1.2)
    assert row.ended == pytest.approx(1.5)
    assert (row.ttft, row.e2e, row.tpot) == (None, None, None)
    assert row.prompt_tokens == 4, "as sent: the server has not said how many it read"


def test_an_answer_in_one_piece_has_only_an_end_to_end_latency() -> None:
    row = simple(changed(token_times=(), tokens_per_chunk=()))[0]
    assert (row.first_token, row.ttft, row.tpot) == (None, None, None)
    assert row.e2e == pytest.approx(0.5)


def test_one_token_has_no_time_per_token() -> None:
    ended = next(iter(HISTORY.of(Ended)))
    one = replace(ended.choices[0], token_ids=(5,))
    assert simple(changed(choices=(one,), token_times=(1.2,)))[0].tpot is None


def test_time_per_token_is_that_of_the_choice_whose_tokens_have_times() -> None:
    """Six tokens of two choices; the three of the first came at 1.2, 1.3 and 1.5 s."""
    ended = next(iter(HISTORY.of(Ended)))
    row = simple(changed(choices=(*ended.choices, replace(ended.choices[0], token_ids=(8, 9, 10)))))[0]
    assert row.output_tokens == 6
    assert row.tpot == pytest.approx(0.15)


def test_only_the_load_has_rows_in_the_order_of_sending() -> None:
    assert [row.request_id for row in simple()] == ["load-0", "load-1"]
    asked = [op for op in clean().operations() if op.request.purpose is not Purpose.LOAD]
    assert asked, "the outputs were verified by further requests"
    assert list(rows_of(clean())) == [f"load-{number:05d}" for number in range(40)]


# Servers


def test_servers_are_named() -> None:
    named = changed(prefill_server="http://127.0.0.1:8100", decode_server="http://127.0.0.1:8200/")
    row = simple(named)[0]
    assert (row.prefill_server, row.decode_server) == ("prefill-0", "decode-0")


def test_of_several_servers_only_the_reported_one_is_named() -> None:
    second = Server("decode-1", Role.DECODE, "http://127.0.0.1:8201")
    two = replace(DEPLOYMENT, servers=(*DEPLOYMENT.servers, second))
    row = simple(
        changed(decode_server="http://127.0.0.1:8201", proxy_seconds=0.01, prefill_seconds=0.1), deployment=two
    )[0]
    assert (row.prefill_server, row.decode_server) == ("prefill-0", "decode-1")
    assert (row.proxy_seconds, row.prefill_seconds) == (0.01, 0.1)
    assert simple(deployment=two)[0].decode_server is None
    assert simple(deployment=two)[0].prefill_server == "prefill-0", "there is only one"


def test_a_server_that_is_not_listed_is_shown_by_its_url() -> None:
    second = Server("decode-1", Role.DECODE, "http://127.0.0.1:8201")
    two = replace(DEPLOYMENT, servers=(*DEPLOYMENT.servers, second))
    assert (
        simple(changed(decode_server="http://10.0.0.9:8200"), deployment=two)[0].decode_server == "http://10.0.0.9:8200"
    )


# Outputs


def test_without_a_bug_outputs_are_right_or_ties() -> None:
    """A pair without noise says which outputs the noise has changed."""
    noisy, quiet = pair(flips=0.3, count=32), pair(flips=0.0, count=32)
    rows = rows_of(noisy.verify("all"))
    changed_by_noise = {who for who, tokens in tokens_of(noisy).items() if tokens != tokens_of(quiet)[who]}
    assert changed_by_noise, "no output was changed: the test shows nothing"
    assert {who for who, row in rows.items() if row.output is OutputStatus.TIE} == changed_by_noise
    assert {who for who, row in rows.items() if row.output is OutputStatus.RIGHT} == rows.keys() - changed_by_noise
    assert {(row.why, row.token, row.block, row.owner) for row in rows.values()} == {("", None, None, None)}


@pytest.mark.slow
def test_wrong_outputs_have_token_block_and_owner() -> None:
    """The simulated pair keeps a record of whom it gave whose KV, and of the prefixes that are wrong in its cache."""
    run = pair("foreign_blocks", 0.1, seed=2)
    rows = rows_of(run.verify("all", seed=2))
    wrong = {who: row for who, row in rows.items() if row.output is OutputStatus.WRONG}
    ledger = run.pair.ledger
    assert wrong.keys() == ledger.wrong & rows.keys()
    assert len(wrong) >= 2
    for who, row in wrong.items():
        assert row.owner == ledger.owners[who]
        assert row.block == min(probed_tokens(who, ledger.wrong)) // BLOCK
        assert row.token == first_difference(who, run)
        assert f"{row.owner}'s KV" in row.why


@pytest.mark.slow
def test_a_wrong_output_without_an_owner() -> None:
    run = pair("zeroed_last_block", 0.1, seed=2)
    rows = rows_of(run.verify("all", seed=2))
    wrong = {who: row for who, row in rows.items() if row.output is OutputStatus.WRONG}
    assert wrong.keys() == run.pair.ledger.wrong & rows.keys() != set()
    assert {row.owner for row in wrong.values()} == {None}
    assert all("nats behind the best token" in row.why for row in wrong.values())


@pytest.mark.parametrize(
    ("nats", "status"), [(0.0, OutputStatus.RIGHT), (0.014, OutputStatus.DOUBTFUL), (0.05, OutputStatus.WRONG)]
)
def test_the_further_log_probabilities_are_off_the_worse_is_the_output(nats: float, status: OutputStatus) -> None:
    """Usual noise is 0.007 nats; the tokens stay the same."""
    rows = rows_of(moved(clean(), "load-00003", nats))
    assert rows["load-00003"].output is status
    assert (rows["load-00003"].why == "") == (status is OutputStatus.RIGHT)
    assert rows["load-00003"].token is None, "no single token is wrong"
    others = {row.output for who, row in rows.items() if who != "load-00003"}
    assert others <= {OutputStatus.RIGHT, OutputStatus.TIE}


def test_an_output_whose_verification_failed_is_unverified() -> None:
    history = clean()
    forcing = next(
        op for op in history.operations() if op.request.purpose is Purpose.FORCING and op.request.about == "load-00003"
    )
    failed = Ended(forcing.ended.at, forcing.request.request_id, Outcome.INFO, "500: no memory", 500)
    row = rows_of(History(tuple(failed if one is forcing.ended else one for one in history.entries)))["load-00003"]
    assert row.output is OutputStatus.UNVERIFIED
    assert "500: no memory" in row.why
    assert row.outcome is Outcome.OK, "the request itself completed"


def test_outputs_that_were_not_to_be_verified_are_not_called_right() -> None:
    history = pair(count=24).verify("sample:12")
    forced = {op.request.about for op in history.operations() if op.request.purpose is Purpose.FORCING}
    rows = rows_of(history)
    assert {who for who, row in rows.items() if row.output is OutputStatus.NOT_SAMPLED} == rows.keys() - forced
    assert len(rows.keys() - forced) == 12


def test_a_finding_makes_an_output_wrong_that_no_comparison_shows_to_be_wrong() -> None:
    """The first request's reference has the same tokens."""
    assert [row.output for row in simple()] == [OutputStatus.RIGHT, OutputStatus.NONE]
    row = simple(judgement=found(kind=FindingKind.LEAK, owner="load-1", block=2))[0]
    assert (row.output, row.why) == (OutputStatus.WRONG, "made from another's KV")
    assert (row.owner, row.block) == ("load-1", 2)


def test_a_finding_of_another_kind_makes_no_output_wrong() -> None:
    assert simple(judgement=found(owner="load-1"))[0].output is OutputStatus.RIGHT
    assert simple(judgement=found(owner="load-1"))[0].owner is None
    assert simple(judgement=found(kind=FindingKind.CACHE, block=3))[0].block == 3
