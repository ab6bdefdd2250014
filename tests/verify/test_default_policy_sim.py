"""The default policy on the simulated pair, from the load to the verdict, with first tokens compared.

A run keeps to its budget: an output that is not teacher-forced is not named.
"""

import pytest
from counted_run import DEPLOYMENT
from sim_history import SimRun, load

from harness.history import History
from harness.scenario import Condition, Purpose, Scenario
from harness.sim import PlantedBug, SimConfig, SimPair
from harness.verdict import Verdict
from harness.verify.asking import VerifyPolicy
from harness.verify.asking.policy import DEFAULT
from harness.verify.judging import outputs, owned_outputs, wrong_outputs
from harness.verify.judging.cost import load_cost, verification_cost
from harness.verify.judging.witness import witnessed


def struck(scenario: Scenario, rate: float, noise: str, *, seed: int, blocks: int) -> tuple[SimRun, dict[str, str]]:
    """A load some of whose requests are answered from another's blocks, and the owners of these, by request id."""
    bugs = (PlantedBug("foreign_blocks", rate),)
    pair = SimPair(SimConfig(bugs=bugs, seed=seed, sim_noise=noise, num_blocks=blocks), lambda: 0.0)
    run = SimRun(pair, hands_on=True, tick=1e-3)
    run.run(scenario)
    # The pair goes on to damage requests that verify outputs.
    owners = dict(pair.ledger.owners)
    assert owners, "the bug damaged no request: the test shows nothing"
    return run, owners


def verified(count: int, noise: str, *, seed: int) -> tuple[History, set[str]]:
    """The history, and the requests of the load that are damaged: one in twenty."""
    run, owners = struck(load(count, seed=seed, logprobs=5), 0.05, noise, seed=seed, blocks=4096)
    return run.verify(DEFAULT, seed=seed), set(owners)


def within_budget(history: History) -> bool:
    load, count = load_cost(history), sum(o.request.of_load for o in history.operations())
    budget, spent = VerifyPolicy.parse(DEFAULT).budget(count, load.tokens, load.seconds), verification_cost(history)
    return spent.tokens <= budget.tokens and spent.seconds <= budget.seconds


def forced(history: History, *conditions: Condition | None) -> set[str]:
    """Ids of the requests of the load that were forced under these conditions."""
    forcings = [o.request for o in history.operations() if o.request.purpose is Purpose.FORCING]
    ids = {o.request.request_id for o in history.operations() if o.request.of_load}
    return {str(one.about) for one in forcings if one.condition in conditions and one.owner is None} & ids


@pytest.mark.parametrize(
    ("count", "seed"), [(100, 2), *(pytest.param(400, seed, marks=pytest.mark.slow) for seed in (0, 3))]
)
def test_without_noise_every_damaged_request_is_strange_forced_and_named_and_nobody_else_is(
    count: int, seed: int
) -> None:
    history, damaged = verified(count, "none", seed=seed)
    assert set(witnessed(history).strangest) == damaged
    assert set(wrong_outputs(history)) == damaged <= forced(history, Condition.SUSPECT, None)
    assert outputs(DEPLOYMENT, history).verdict is Verdict.INVALID
    assert within_budget(history)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 3])
def test_with_noise_in_steps_every_damaged_request_is_named_and_nobody_else_is(seed: int) -> None:
    """The prompts of the damaged requests have nothing in common, so that their first tokens are far from prefill's."""
    history, damaged = verified(400, "quantised", seed=seed)
    assert set(witnessed(history).strangest) == damaged
    assert set(wrong_outputs(history)) == damaged
    assert outputs(DEPLOYMENT, history).verdict is Verdict.INVALID
    assert within_budget(history)


@pytest.mark.slow
@pytest.mark.parametrize("noise", ["usual", "quantised"])
def test_a_tenth_of_the_tokens_names_the_owners_of_most_damaged_requests_and_no_other(noise: str) -> None:
    """As many tokens as 200 of the 2,000 requests have: probes, forcings and controls need most of them."""
    wanted = load(2000, seed=5, least=100, most=300, at_once=64, logprobs=5)
    run, owners = struck(wanted, 0.007, noise, seed=5, blocks=1 << 16)
    history = run.verify(DEFAULT, seed=5)
    named = owned_outputs(history)
    assert named.items() <= owners.items()
    assert len(named) >= 0.75 * len(owners) >= 6
    assert within_budget(history)
