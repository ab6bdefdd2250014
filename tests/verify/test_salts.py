"""The salt test sends one prompt under two salts: its results, and the checks that rely on them."""

import math
from dataclasses import replace

import counted_run
import numpy as np
import pytest
from catalogue_world import run_catalogue
from sim_history import SimRun, load

from harness.catalogue.choice import choose
from harness.checkers import judge
from harness.facts import Deployment
from harness.history import Choice, Ended, Entry, History, Operation, Outcome, Scraped, Sent, Usage
from harness.scenario import Condition, Purpose, Request, Route, Sampling
from harness.sim import Noise, PlantedBug, SimConfig, SimPair
from harness.verdict import Check, Verdict
from harness.verify.asking.salt_test import salt_entries, salt_test
from harness.verify.judging import control_outputs, outputs, wrong_outputs
from harness.verify.judging.compared import Match
from harness.verify.judging.forcing import Forced
from harness.verify.judging.gross_mismatch import gross_mismatch
from harness.verify.judging.limits import GROSS
from harness.verify.judging.salts import read_salts, salts

DEPLOYMENT = replace(
    counted_run.DEPLOYMENT,
    servers=tuple(replace(one, block_size=16, offload_block_size=16) for one in counted_run.DEPLOYMENT.servers),
)
FLIPS = Noise(flip_rate=0.21)
BOTH = pytest.mark.parametrize("by_usage", [True, False], ids=["by usage", "by counters"])


def pair(*bugs: PlantedBug, **fields: object) -> SimRun:
    return SimRun(SimPair(SimConfig(bugs=bugs, seed=2, noise=FLIPS, **fields), lambda: 0.0))  # type: ignore[arg-type]


def ask_under_two_salts(run: SimRun, deployment: Deployment = DEPLOYMENT) -> SimRun:
    for scenario in salt_test(deployment, lambda: run.history, salt="test"):
        run.run(scenario)
    return run


def verified(*bugs: PlantedBug, count: int = 32, **fields: object) -> History:
    run = ask_under_two_salts(pair(*bugs, **fields))
    run.run(load(count, seed=2))
    return run.verify(seed=2)


def has_check(history: History) -> bool:
    """Whether the verdict on a run has a check of salts."""
    return any(check.name == "salts" for check in judge(DEPLOYMENT, history).checks)


def judged(history: History) -> Check:
    assert has_check(history)
    return salts(DEPLOYMENT, history)


@BOTH
def test_servers_that_keep_salts_apart_are_valid(by_usage: bool) -> None:
    check = judged(ask_under_two_salts(pair(prompt_tokens_details=by_usage)).history)
    assert check.verdict is Verdict.VALID
    assert "prefill-0, decode-0" in check.summary


@BOTH
@pytest.mark.parametrize("where", ["prefill", "decode"])
def test_a_server_that_ignores_salts_is_named_and_never_valid(where: str, by_usage: bool) -> None:
    fields = {where: {"ignores_salt": True, "prompt_tokens_details": by_usage}}
    check = judged(ask_under_two_salts(pair(**fields)).history)
    assert check.verdict is Verdict.UNKNOWN
    assert [finding.subject for finding in check.findings] == [f"{where}-0"]
    assert "of 65 tokens sent under a new salt, 64 came out of a cache" in check.findings[0].text


@BOTH
def test_a_tier_that_ignores_salts_is_found_behind_a_prefix_cache_that_does_not(by_usage: bool) -> None:
    check = judged(
        ask_under_two_salts(pair(decode={"tier_ignores_salt": True, "prompt_tokens_details": by_usage})).history
    )
    assert check.verdict is Verdict.UNKNOWN
    assert [finding.subject for finding in check.findings] == ["decode-0"]


def test_outputs_are_not_valid_by_control_requests_that_may_have_read_caches() -> None:
    assert outputs(DEPLOYMENT, verified()).verdict is Verdict.VALID
    history = verified(ignores_salt=True)
    check = outputs(DEPLOYMENT, history)
    assert check.verdict is Verdict.UNKNOWN
    assert "the control requests may have read transferred KV: decode-0 ignored its cache_salt" in check.summary
    assert not control_outputs(history), "untrusted noise is not kept for later runs"


def test_outputs_whose_tokens_are_all_the_best_need_no_control_requests() -> None:
    run = ask_under_two_salts(
        SimRun(SimPair(SimConfig(noise=Noise(sigma=0.0, flip_rate=0.0), ignores_salt=True), lambda: 0.0))
    )
    run.run(load(16, seed=2))
    history = run.verify(seed=2)
    assert outputs(DEPLOYMENT, history).verdict is Verdict.VALID
    assert judge(DEPLOYMENT, history).verdict is not Verdict.VALID


@pytest.mark.slow
@pytest.mark.parametrize("bug", ["shifted_rows", "foreign_blocks"])
def test_wholly_wrong_kv_is_invalid_even_if_salts_are_ignored(bug: str) -> None:
    history = verified(PlantedBug(bug), ignores_salt=True)
    check = outputs(DEPLOYMENT, history)
    assert check.verdict is Verdict.INVALID
    assert "beyond any noise" in check.findings[0].text
    names = [check.name for check in judge(DEPLOYMENT, history).checks if check.verdict is not Verdict.VALID]
    assert names.index("salts") < names.index("outputs")


@pytest.mark.slow
def test_only_damaged_requests_are_wrong_if_salts_are_ignored() -> None:
    run = ask_under_two_salts(pair(PlantedBug("shifted_rows", 0.2), ignores_salt=True))
    run.run(load(48, seed=2))
    damaged = {name for name in run.pair.ledger.wrong if name.startswith("load-")}
    history = run.verify(seed=2)
    assert damaged
    assert set(wrong_outputs(history)) <= damaged
    assert wrong_outputs(history)


def forced(regret: float, margin_error: float) -> Forced:
    return Forced(
        regret=np.array([0.0, regret]),
        drift=np.array([0.0, margin_error]),
        margin_error=np.array([0.0, margin_error]),
        margin=np.array([1.0, -regret]),
    )


def served(**sampling: object) -> Operation:
    request = Request("r", (1, 2, 3), Sampling(**sampling))  # type: ignore[arg-type]
    ended = Ended(1.0, "r", Outcome.OK, choices=(Choice((7, 8)),))
    return Operation(Sent(0.0, request, "load", "load", 0.0), ended)


def test_a_token_far_behind_that_was_served_as_the_best_is_wrong() -> None:
    wrong = gross_mismatch(served(), (forced(GROSS + 1, GROSS + 2),))
    assert wrong is not None
    assert (wrong.match, wrong.first) == (Match.MISMATCH, 1)


def test_a_token_that_the_server_itself_reported_far_behind_was_chosen_by_the_sampler() -> None:
    assert gross_mismatch(served(), (forced(GROSS + 1, 0.1),)) is None
    assert gross_mismatch(served(), (forced(GROSS + 1, math.nan),)) is None


def test_a_regret_that_noise_or_sampling_may_explain_is_no_gross_mismatch() -> None:
    assert gross_mismatch(served(), (forced(GROSS - 0.1, GROSS + 9),)) is None
    assert gross_mismatch(served(temperature=1.0), (forced(GROSS + 9, GROSS + 9),)) is None


def test_a_cache_without_any_hit_has_no_check_of_salts() -> None:
    history = verified(prefix_caching=False, connectors=())
    assert not has_check(history)
    assert any("was not tested (nothing was cached" in note for note in outputs(DEPLOYMENT, history).notes)


def test_other_requests_meanwhile_leave_salts_untested() -> None:
    run = ask_under_two_salts(pair(ignores_salt=True))
    disturbed = [
        replace(
            entry,
            samples=tuple(
                replace(one, value=one.value + 7) if one.name.startswith("vllm:") else one for one in entry.samples
            ),
        )
        if isinstance(entry, Scraped) and entry.label == "watched-after"
        else entry
        for entry in run.entries
    ]
    history = History(tuple(disturbed))
    assert not has_check(history)
    assert "prompt tokens meanwhile, and 65 were sent" in str(read_salts(history)[0].again)


def test_a_refused_salt_makes_no_check_invalid() -> None:
    """A gateway may refuse unknown fields. The load has salts as well, so its checks report that."""
    run = ask_under_two_salts(pair())
    refused = [
        replace(one, outcome=Outcome.FAIL, cause="status 400", status=400, choices=(), usage=None)
        if isinstance(one, Ended)
        else one
        for one in run.entries
    ]
    history = History(tuple(refused))
    assert not has_check(history)
    assert not [one for one in judge(DEPLOYMENT, history).checks if one.verdict is Verdict.INVALID]


def with_forcings_that_read(history: History) -> History:
    """As if the engine read its caches even for prompt_logprobs, as usage reports."""

    asked = (operation.request for operation in history.operations())
    tests = {request.request_id: request.condition for request in asked if request.purpose is Purpose.SALT_TEST}

    def reporting(entry: Entry) -> Entry:
        if isinstance(entry, Ended) and entry.usage is not None and entry.request_id in tests:
            cached = None if tests[entry.request_id] is Condition.SALT_FIRST else 64
            return replace(entry, usage=Usage(65, 1, cached))
        return entry

    return History(tuple(map(reporting, history.entries)))


@pytest.mark.slow
def test_forcings_that_read_caches_are_not_trusted_where_salts_are_ignored() -> None:
    history = with_forcings_that_read(verified(PlantedBug("shifted_rows"), ignores_salt=True))
    check = outputs(DEPLOYMENT, history)
    assert check.verdict is Verdict.UNKNOWN
    assert any("its teacher forcing is not trusted" in finding.text for finding in check.findings)
    assert not wrong_outputs(history)


def test_a_run_tests_salts_once_and_passes_the_result_on() -> None:
    first = ask_under_two_salts(pair(ignores_salt=True))
    second = pair(ignores_salt=True)
    second.entries += salt_entries(first.history)
    assert not list(salt_test(DEPLOYMENT, lambda: second.history, salt="again"))
    assert read_salts(second.history) == read_salts(first.history)
    assert all(operation.request.purpose is Purpose.SALT_TEST for operation in second.history.operations())


def test_the_salt_test_sends_few_requests_to_each_server() -> None:
    by_counters, by_usage = ask_under_two_salts(pair()), ask_under_two_salts(pair(prompt_tokens_details=True))
    asked = {run: run.history.operations(route=Route.DECODE) for run in (by_counters, by_usage)}
    assert (len(asked[by_counters]), len(asked[by_usage])) == (5, 4)


def test_nothing_need_be_transferred_before_the_load() -> None:
    """So that a server's first handshake can be made under a fault."""
    run = pair()
    for scenario in salt_test(DEPLOYMENT, lambda: run.history, salt="test", on_the_way=False):
        run.run(scenario)
    assert all(operation.request.route is not Route.PROXY for operation in run.history.operations())
    assert judged(run.history).verdict is Verdict.VALID


def test_several_engines_behind_one_url_have_no_check_of_salts() -> None:
    """The second request may have gone to another engine, which had nothing cached. A hit still counts."""
    history = ask_under_two_salts(pair()).history
    several = DEPLOYMENT.with_servers(engines=4)
    assert not any(check.name == "salts" for check in judge(several, history).checks)
    assert "several engines share its URL" in " ".join(outputs(several, history).notes)
    ignored = ask_under_two_salts(pair(ignores_salt=True)).history
    assert salts(several, ignored).findings


async def test_the_predictions_of_small_pools_and_tiers_are_not_disturbed() -> None:
    config = SimConfig(num_blocks=512, max_model_len=1024, lease_seconds=2.0)
    run = await run_catalogue(choose(("pressure", "offload", "hits")), config)
    whole, rows = run.judged()
    assert next(check for check in whole.checks if check.name == "salts").verdict is Verdict.VALID
    assert rows
    assert {name for name, row in rows.items() if row.verdict is not Verdict.VALID} == {
        entry.name for entry in run.ran if entry.known_fault
    }
