"""How a trial's outputs are verified: as a real run's are, all of them (:mod:`harness.verify.asking.plan`)."""

from collections.abc import Callable

from harness.history import History
from harness.scenario import Route, Scenario
from harness.verify.asking.plan import Judges, Verification, follow_ups
from harness.verify.asking.policy import VerifyPolicy
from harness.verify.judging import doubted_probes, owned_outputs, suspects

Step = Callable[[History], Scenario | None]
"""What to ask next, given all that was answered; None: nothing."""


def verification(scenario: Scenario, seed: int, block_size: int) -> tuple[Step, ...]:
    """The steps that verify a scenario, in order."""
    how = Verification(
        policy=VerifyPolicy.parse("all"),
        scenario=scenario.name,
        concurrency=scenario.phases[0].concurrency,
        salt="verification",
        seed=seed,
        block_size=block_size,
        tiers={Route.DECODE: (0,), Route.PREFILL: (0,)},
    )
    return follow_ups(how, Judges(suspects, owned_outputs, doubted_probes))
