"""The steps that verify the outputs of a load or of a catalogue.

Before the load, ``cache_salt`` is tested (salt_test.py). After the load, or the last workload of a catalogue, come the
steps below. Each step is made from the history so far, and is left out if it has nothing to send.

0. The cached blocks of outputs whose first token differs from the prefill server's are asked again (owner_blocks.py).
1. Prefixes of the load's prompts are probed through the prefix caches that the load filled (probe.py).
2. A few outputs are teacher-forced. If one of them shows any noise, control requests measure how large noise is
   (controls.py). Then all outputs that the policy picks are forced, mixed with the control outputs, and so are probes
   whose answers nothing else can verify (forcing.py). If only such a probe differs from its forcing, control requests
   follow then: a difference cannot be judged without knowing the noise.
3. For outputs that look wrong, the noise of their prompts is measured, in rounds, each followed by forcing. More
   control outputs may raise or lower a limit, so an output counts as wrong only after this second measurement.
4. For outputs that are still wrong, the request whose KV they were made from is searched for, in rounds (owners.py).
5. Wrong outputs without a known owner are retried (retries.py).
6. If allowed, the prefix caches are emptied and the offload tiers probed (tiers.py). This comes last, since the steps
   before rely on the prefix caches. Steps 2 and 3 follow again, for these probes.

A catalogue is verified after its last workload, since salted blocks take room in caches and would change the counters
of a later workload. In a session of pytest each workload is verified by itself: the oracle follows these requests too,
and no request is sent twice. Tiers are not probed there, since that empties caches.
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
from harness.verify.asking.owner_blocks import doubted_blocks
from harness.verify.asking.owners import ROUNDS, next_round
from harness.verify.asking.probe import cache_probes
from harness.verify.asking.retries import retries
from harness.verify.asking.salt_test import salt_test
from harness.verify.asking.tiers import tier_probes, tier_reset
from harness.verify.judging import doubted_probes, noise_matters, owned_outputs, suspects

ROUNDS_OF_CONFIRMATION = 3
_SEARCHES = 2 + 2 * len(ROUNDS)
"""Steps of the search for owners: block questions, their forcings, and a step of owner tests and one of forcings for
each round."""
_PURPOSE = "Whether every answer is the one that its prompt has without KV transfer, and how large noise is."


def verified(
    scenarios: Iterable[Scenario], deployment: Deployment, history: Callable[[], History], how: VerifyOptions
) -> Iterator[Scenario]:
    """A test of cache salts, the scenarios, and then the scenarios that verify their outputs.

    Run each before taking the next: the next one is made from ``history()``.
    """
    yield from salt_test(deployment, history, salt=how.salt, reference=how.reference)
    yield from scenarios
    verification, past = Verification(deployment, how), history()
    for step in _STEPS:
        if phases := step(verification, past):
            yield Scenario(VERIFICATION, _PURPOSE, tuple(_newly_named(phases, past)))
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


def _blocks(verification: Verification, history: History) -> Phases:
    wanted = doubted_blocks(verification, history) if verification.how.investigate else ()
    return verification.phase("owners", wanted, history)


def _retries(verification: Verification, history: History) -> Phases:
    return retries(verification, history, _ownerless(history)) if verification.how.investigate else ()


def _ownerless(history: History) -> set[str]:
    """Ids of wrong outputs whose KV has no known owner."""
    wrong = set(suspects(history))
    return wrong - set(owned_outputs(history)) if wrong else wrong


_STEPS: tuple[Callable[[Verification, History], Phases], ...] = (
    _blocks,
    cache_probes,
    first_forced,
    # Twice, since only the later outputs may show noise.
    *(_controls, forced) * 2,
    # Again, since the outputs may show no noise where probes differ from their forcings.
    *(_doubts, _controls, forced),
    *(_confirmation, forced) * ROUNDS_OF_CONFIRMATION,
    *(_owners,) * _SEARCHES,
    *(_retries, forced),
    *(tier_reset, tier_probes, _doubts, _controls, forced),
    *(_confirmation, forced),
)
