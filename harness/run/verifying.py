"""How the answers of a run are verified."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

from harness.facts import Connector, Deployment, Role, Server
from harness.history import History
from harness.scenario import Route, Scenario
from harness.verify.asking.catalogue_plan import VERIFICATION, CatalogueJudges, CatalogueVerification, steps_after
from harness.verify.asking.plan import Judges, Verification, follow_ups, followed
from harness.verify.asking.policy import VerifyPolicy
from harness.verify.asking.probe import Places
from harness.verify.asking.salt_test import salt_test
from harness.verify.judging import doubted_probes, noise_matters, owned_outputs, suspects, wrong_outputs

JUDGES = Judges(suspects, owned_outputs, doubted_probes)
CATALOGUE_JUDGES = CatalogueJudges(wrong_outputs, owned_outputs, noise_matters)


_QUICK = Judges(suspects, suspects, doubted_probes)


@dataclass(frozen=True, slots=True)
class VerifyOptions:
    """Provisional, until one plan verifies loads and catalogues."""

    policy: VerifyPolicy
    salt: str
    seed: int = 0
    concurrency: int | None = None
    reference: bool = False
    probe_caches: bool = True
    probe_tiers: bool = False
    investigate: bool = True


def verified(
    scenarios: Iterable[Scenario], deployment: Deployment, history: Callable[[], History], how: VerifyOptions
) -> Iterator[Scenario]:
    """Salt test, scenarios, verification."""
    limits = [server.max_model_len for server in deployment.servers if server.max_model_len is not None]
    forcing_route = Route.REFERENCE if how.reference else Route.PREFILL
    if how.concurrency is None:
        whole = CatalogueVerification(
            salt=how.salt,
            seed=how.seed,
            forcing_route=forcing_route,
            max_model_len=min(limits, default=None),
            block_size=max((server.block_size or 0 for server in deployment.servers), default=0) or None,
        )
        yield from salt_test(deployment, history, scenario=VERIFICATION, salt=how.salt, reference=how.reference)
        yield from scenarios
        yield from steps_after(history, whole.steps(CATALOGUE_JUDGES))
        return
    for scenario in scenarios:
        verification = Verification(
            policy=how.policy,
            scenario=scenario.name,
            concurrency=how.concurrency,
            salt=how.salt,
            seed=how.seed,
            forcing_route=forcing_route,
            max_model_len=min(limits, default=None),
            block_size=max(_block_sizes(deployment)),
            tiers=_tiers(deployment) if how.probe_tiers else {},
            places=Places(deployment.servers),
        )
        tested = salt_test(deployment, history, scenario=scenario.name, salt=how.salt, reference=how.reference)
        yield from chain(
            tested, followed(scenario, history, follow_ups(verification, JUDGES if how.investigate else _QUICK))
        )


def _tiers(deployment: Deployment) -> dict[Route, tuple[int, ...]]:
    roles = {Route.DECODE: Role.DECODE, Route.PREFILL: Role.PREFILL}
    with_tier = {
        route: tuple(index for index, server in enumerate(deployment.of(role)) if _has_tier(server))
        for route, role in roles.items()
    }
    return {route: indices for route, indices in with_tier.items() if indices}


def _has_tier(server: Server) -> bool:
    return server.has(Connector.OFFLOADING) is True or bool(server.unknown_connectors)


def _block_sizes(deployment: Deployment) -> list[int]:
    return [server.block_size for server in deployment.servers if server.block_size is not None] or [16]
