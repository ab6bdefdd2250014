"""What is asked to verify the outputs of a load or of a catalogue: the same steps for both.

Before the load, ``cache_salt`` is tested (salt_test.py). After the load, or the last workload of a catalogue, come the
steps below. Each is made from the history that the steps before have left, and is left out where it has nothing to ask.

1. Prefixes of the load's prompts are probed through the prefix caches that the load filled (probe.py).
2. A few outputs are teacher-forced. Where one of them shows any noise, control requests measure how large noise is
   (controls.py). Then all outputs that the policy picks are forced, mixed with the control outputs, and so are probes
   whose answers nothing else can judge (forcing.py).
3. For outputs that look wrong, the noise of just these prompts is measured, in rounds, each followed by forcing. More
   control outputs may raise a limit as well as lower it, so an output counts as wrong only after a second look.
4. For outputs that are still wrong, the request whose KV they were made from is searched for, in rounds (owners.py).
5. Wrong outputs without such an owner are asked for again (retries.py).
6. The prefix caches are emptied, where that is allowed, and the offload tiers are probed (tiers.py). This comes last:
   the steps before rely on the prefix caches. Steps 2 and 3 follow again, for these probes.

All of this comes after the last workload, for salted blocks take room in caches, which would change what a later
workload's counters must say. Steps may be taken again after further workloads of the same history: what was asked
before is not asked again.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from harness.facts import Deployment
from harness.history import History
from harness.scenario import Phase, Scenario
from harness.verify.asking.controls import confirmation, controls
from harness.verify.asking.forcing import doubts_forced, first_forced, forced
from harness.verify.asking.options import Phases, Verification, VerifyOptions
from harness.verify.asking.outputs import VERIFICATION, through_proxy
from harness.verify.asking.owners import ROUNDS, next_round
from harness.verify.asking.probe import cache_probes
from harness.verify.asking.retries import retries
from harness.verify.asking.salt_test import salt_test
from harness.verify.asking.tiers import tier_probes, tier_reset
from harness.verify.judging import doubted_probes, noise_matters, owned_outputs, suspects

ROUNDS_OF_CONFIRMATION = 3
_SEARCHES = 2 * len(ROUNDS)
"""Steps of the search for owners: each round is a step of owner tests and one of forcings."""
_WHY = "Whether every answer is the one that its prompt has without KV transfer, and how much of a difference is noise."


def verified(
    scenarios: Iterable[Scenario], deployment: Deployment, history: Callable[[], History], how: VerifyOptions
) -> Iterator[Scenario]:
    """A test of cache salts, the scenarios, and then whatever verifies their outputs.

    To be run one by one, as they come: ``history`` is called for the next one when the one before has been run.
    """
    yield from salt_test(deployment, history, salt=how.salt, reference=how.reference)
    yield from scenarios
    verification, past = Verification(deployment, how), history()
    for step in _STEPS:
        if phases := step(verification, past):
            yield Scenario(VERIFICATION, _WHY, tuple(_newly_named(phases, past)))
            past = history()


def _newly_named(phases: Iterable[Phase], history: History) -> Iterator[Phase]:
    """The phases under names that the history does not have: ``teacher``, ``teacher-2``, ``teacher-3``."""
    used = {o.sent.phase for o in history.operations(scenario=VERIFICATION)}
    for phase in phases:
        turn, name = 1, phase.name
        while name in used:
            turn += 1
            name = f"{phase.name}-{turn}"
        yield replace(phase, name=name)


def _controls(verification: Verification, history: History) -> Phases:
    return controls(verification, history) if noise_matters(history) else ()


def _doubts(verification: Verification, history: History) -> Phases:
    return doubts_forced(verification, history, doubted_probes(history))


def _confirmation(verification: Verification, history: History) -> Phases:
    return confirmation(verification, history, suspects(history))


def _owners(verification: Verification, history: History) -> Phases:
    ownerless = _ownerless(history) if verification.how.investigate else ()
    served = through_proxy(history)
    searched = [o for o in served if o.request.request_id in ownerless]
    return verification.phase("owners", next_round(verification, history, served, searched), history)


def _retries(verification: Verification, history: History) -> Phases:
    return retries(verification, history, _ownerless(history)) if verification.how.investigate else ()


def _ownerless(history: History) -> set[str]:
    """Ids of wrong outputs whose KV has no known owner."""
    wrong = set(suspects(history))
    return wrong - set(owned_outputs(history)) if wrong else wrong


_STEPS: tuple[Callable[[Verification, History], Phases], ...] = (
    cache_probes,
    first_forced,
    *(_controls, forced) * 2,  # once more where only the later outputs showed noise
    _doubts,
    *(_confirmation, forced) * ROUNDS_OF_CONFIRMATION,
    *(_owners,) * _SEARCHES,
    *(_retries, forced),
    *(tier_reset, tier_probes, _doubts),
    *(_confirmation, forced),
)
