"""One prompt is asked under two salts before anything rests on them: what that shows, and what rests on it."""

import math
from dataclasses import dataclass, fields, replace

import counted_run
import numpy as np
import pytest
from catalogue_world import run_catalogue
from sim_history import SimRun, load

from harness.catalogue.choice import choose
from harness.checkers import judge
from harness.facts import Deployment, Server
from harness.history import Choice, Ended, Entry, History, Operation, Outcome, Scraped, Sent, Usage
from harness.scenario import Condition, Purpose, Request, Route, Sampling
from harness.sim import Noise, PlantedBug, SimConfig, SimPair
from harness.verdict import Check, Verdict
from harness.verify.asking.salt_test import salt_entries, salt_test
from harness.verify.judging import control_outputs, outputs, wrong_outputs
from harness.verify.judging.compared import Match
from harness.verify.judging.forcing import Forced
from harness.verify.judging.gross import GROSS, grossly_wrong
from harness.verify.judging.salts import read_salts, salts

DEPLOYMENT = replace(
    counted_run.DEPLOYMENT,
    servers=tuple(replace(one, block_size=16, offload_block_size=16) for one in counted_run.DEPLOYMENT.servers),
)
FLIPS = Noise(flip_rate=0.21)


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


def told_of(history: History) -> bool:
    """Whether a run's judgement says anything of salts."""
    return any(check.name == "salts" for check in judge(DEPLOYMENT, history).checks)


def judged(history: History) -> Check:
    assert told_of(history)
    return salts(DEPLOYMENT, history)


@pytest.mark.parametrize("told", [True, False], ids=["by usage", "by counters"])
def test_servers_that_keep_salts_apart_are_found_to(told: bool) -> None:
    check = judged(ask_under_two_salts(pair(prompt_tokens_details=told)).history)
    assert check.verdict is Verdict.VALID
    assert "prefill-0, decode-0" in check.summary


@pytest.mark.parametrize("told", [True, False], ids=["by usage", "by counters"])
@pytest.mark.parametrize("where", ["prefill", "decode"])
def test_a_server_that_ignores_salts_is_named_and_never_valid(where: str, told: bool) -> None:
    fields = {where: {"ignores_salt": True, "prompt_tokens_details": told}}
    check = judged(ask_under_two_salts(pair(**fields)).history)
    assert check.verdict is Verdict.UNKNOWN
    assert [finding.subject for finding in check.findings] == [f"{where}-0"]
    assert "of 65 tokens asked under a new salt 64 came out of a cache" in check.findings[0].text


@pytest.mark.parametrize("told", [True, False], ids=["by usage", "by counters"])
def test_a_tier_that_ignores_salts_is_found_behind_a_prefix_cache_that_does_not(told: bool) -> None:
    check = judged(ask_under_two_salts(pair(decode={"tier_ignores_salt": True, "prompt_tokens_details": told})).history)
    assert check.verdict is Verdict.UNKNOWN
    assert [finding.subject for finding in check.findings] == ["decode-0"]


def test_clean_outputs_are_not_valid_on_the_strength_of_control_requests_that_read_caches() -> None:
    assert outputs(DEPLOYMENT, verified()).verdict is Verdict.VALID
    history = verified(ignores_salt=True)
    check = outputs(DEPLOYMENT, history)
    assert check.verdict is Verdict.UNKNOWN
    assert "the control requests may have read transferred KV: decode-0 ignored its cache_salt" in check.summary
    assert not control_outputs(history), "what is not trusted is not kept for later runs"


def test_outputs_that_are_all_the_best_need_no_control_requests() -> None:
    run = ask_under_two_salts(
        SimRun(SimPair(SimConfig(noise=Noise(sigma=0.0, flip_rate=0.0), ignores_salt=True), lambda: 0.0))
    )
    run.run(load(16, seed=2))
    history = run.verify(seed=2)
    assert outputs(DEPLOYMENT, history).verdict is Verdict.VALID
    assert judge(DEPLOYMENT, history).verdict is not Verdict.VALID


@pytest.mark.parametrize("bug", ["shifted_rows", "foreign_blocks"])
def test_kv_that_is_wholly_wrong_is_invalid_though_salts_are_ignored(bug: str) -> None:
    history = verified(PlantedBug(bug), ignores_salt=True)
    check = outputs(DEPLOYMENT, history)
    assert check.verdict is Verdict.INVALID
    assert "beyond any noise" in check.findings[0].text
    names = [check.name for check in judge(DEPLOYMENT, history).checks if check.verdict is not Verdict.VALID]
    assert names.index("salts") < names.index("outputs")


def test_only_damaged_requests_are_accused_though_salts_are_ignored() -> None:
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
    wrong = grossly_wrong(served(), (forced(GROSS + 1, GROSS + 2),))
    assert wrong is not None
    assert (wrong.match, wrong.first) == (Match.MISMATCH, 1)


def test_a_token_that_the_server_itself_found_far_behind_is_its_samplers_choice() -> None:
    assert grossly_wrong(served(), (forced(GROSS + 1, 0.1),)) is None
    assert grossly_wrong(served(), (forced(GROSS + 1, math.nan),)) is None


def test_what_noise_might_explain_or_a_draw_is_not_gross() -> None:
    assert grossly_wrong(served(), (forced(GROSS - 0.1, GROSS + 9),)) is None
    assert grossly_wrong(served(temperature=1.0), (forced(GROSS + 9, GROSS + 9),)) is None


def test_a_cache_that_hits_nothing_at_all_tests_nothing_and_changes_nothing() -> None:
    history = verified(prefix_caching=False, connectors=())
    assert not told_of(history)
    assert any("was not tested (nothing was cached" in note for note in outputs(DEPLOYMENT, history).notes)


def test_where_somebody_else_is_served_meanwhile_nothing_is_concluded() -> None:
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
    assert not told_of(history)
    assert "prompt tokens where it was asked for 65" in str(read_salts(history)[0].again)


def test_a_refused_salt_makes_nobody_invalid() -> None:
    """A gateway may refuse what it does not know; the load, which carries a salt as well, tells of it."""
    run = ask_under_two_salts(pair())
    refused = [
        replace(one, outcome=Outcome.FAIL, cause="status 400", status=400, choices=(), usage=None)
        if isinstance(one, Ended)
        else one
        for one in run.entries
    ]
    history = History(tuple(refused))
    assert not told_of(history)
    assert not [one for one in judge(DEPLOYMENT, history).checks if one.verdict is Verdict.INVALID]


def with_forcings_that_read(history: History) -> History:
    """As an engine that asks its caches even for prompt_logprobs, and says so in usage."""

    asked = (operation.request for operation in history.operations())
    tests = {request.request_id: request.condition for request in asked if request.purpose is Purpose.SALT_TEST}

    def told(entry: Entry) -> Entry:
        if isinstance(entry, Ended) and entry.usage is not None and entry.request_id in tests:
            cached = None if tests[entry.request_id] is Condition.SALT_FIRST else 64
            return replace(entry, usage=Usage(65, 1, cached))
        return entry

    return History(tuple(map(told, history.entries)))


def test_forcings_that_read_caches_are_not_trusted_where_salts_are_ignored() -> None:
    history = verified(PlantedBug("shifted_rows"), ignores_salt=True)
    check = outputs(DEPLOYMENT, with_forcings_that_read(history))
    assert check.verdict is Verdict.UNKNOWN
    assert any("its teacher forcing is not trusted" in finding.text for finding in check.findings)
    assert not wrong_outputs(with_forcings_that_read(history))


def test_a_run_tests_once_and_hands_on_what_it_found() -> None:
    first = ask_under_two_salts(pair(ignores_salt=True))
    second = pair(ignores_salt=True)
    second.entries += salt_entries(first.history)
    assert not list(salt_test(DEPLOYMENT, lambda: second.history, salt="again"))
    assert read_salts(second.history) == read_salts(first.history)
    assert all(operation.request.purpose is Purpose.SALT_TEST for operation in second.history.operations())


def test_the_test_costs_each_server_few_requests() -> None:
    by_counters, by_usage = ask_under_two_salts(pair()), ask_under_two_salts(pair(prompt_tokens_details=True))
    asked = {run: run.history.operations(route=Route.DECODE) for run in (by_counters, by_usage)}
    assert (len(asked[by_counters]), len(asked[by_usage])) == (5, 4)


@dataclass(frozen=True, slots=True)
class SeveralEngines(Server):
    """Behind one URL."""

    engines: int = 4


def with_engines(deployment: Deployment) -> Deployment:
    told = [{item.name: getattr(one, item.name) for item in fields(Server)} for one in deployment.servers]
    return replace(deployment, servers=tuple(SeveralEngines(**(one | {"engines": 4})) for one in told))


def test_several_engines_behind_one_url_are_not_said_to_keep_salts_apart() -> None:
    """The second request may have gone to another engine, which had nothing cached; a hit is a hit all the same."""
    history = ask_under_two_salts(pair()).history
    several = with_engines(DEPLOYMENT)
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
