"""Workloads with the verification of their outputs behind them, and the judgement of each."""

from collections.abc import Callable, Iterable, Iterator

from harness.catalogue.registry import Workload
from harness.checkers import judge_scenario
from harness.cli.options import LoadOptions
from harness.facts import Deployment
from harness.history import History
from harness.scenario import Route, Scenario
from harness.verdict import Judgement
from harness.verify.asking.catalogue_plan import VERIFICATION, CatalogueJudges, CatalogueVerification, steps_after
from harness.verify.asking.salt_test import salt_test
from harness.verify.judging import look_at_outputs, noise_matters, owned_outputs, wrong_outputs

JUDGES = CatalogueJudges(wrong_outputs, owned_outputs, noise_matters)


def verified(
    scenarios: Iterable[Scenario],
    deployment: Deployment,
    history: Callable[[], History],
    load: LoadOptions,
    *,
    salt: str,
) -> Iterator[Scenario]:
    """A test of cache salts, the scenarios, and then whatever is to be asked to verify their outputs."""
    limits = [server.max_model_len for server in deployment.servers if server.max_model_len is not None]
    verification = CatalogueVerification(
        salt=salt,
        seed=load.seed,
        forcing_route=Route.REFERENCE if load.reference_url else Route.PREFILL,
        max_model_len=min(limits, default=None),
        block_size=max((server.block_size or 0 for server in deployment.servers), default=0) or None,
    )
    yield from salt_test(
        deployment, history, scenario=VERIFICATION, salt=salt, reference=load.reference_url is not None
    )
    yield from scenarios
    yield from steps_after(history, verification.steps(JUDGES))


def judged_workloads(
    ran: Iterable[Workload], deployment: Deployment, history: History, whole: Judgement
) -> Iterator[tuple[Workload, Judgement]]:
    """Each with the checks of its own part of the run."""
    compared = look_at_outputs(history)
    for entry in ran:
        yield (
            entry,
            judge_scenario(deployment, history, whole, entry.name, provokes=entry.provokes, compared=compared),
        )
