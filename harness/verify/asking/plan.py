"""The steps that verify the outputs of a load or of a catalogue.

Before the load, ``cache_salt`` is tested (salt_test.py). After the load, or the last workload of a catalogue, come the
steps below. Each step is made from the history so far, and is left out if it has nothing to send.

0. The cached blocks of outputs whose first token differs from the prefill server's are asked again, and the prefill
   server is asked the same (owner_blocks.py).
1. Prefixes of the load's prompts are probed through the prefix caches that the load filled (probe.py): first those of
   prompts whose first output token looks strange, beside the prefill server's own (judging/witness.py).
2. A few outputs are teacher-forced. If one of them shows any noise, control requests measure how large noise is
   (controls.py). Then the outputs are forced that look strange, and others that are drawn at random and show what is
   usual; mixed with the control outputs. So are probes whose answers nothing else can verify (forcing.py). If only such
   a probe differs from its forcing, control requests follow then: a difference cannot be judged without knowing noise.
3. All prefixes of prompts whose outputs look wrong or doubtful are probed. For outputs that look wrong, the noise of
   their prompts is measured, in rounds, each followed by forcing. More control outputs may raise or lower a limit, so
   an output counts as wrong only after this second measurement. Outputs of which only the first token differs, in its
   last bits, are measured first, since nothing but control requests can prove them wrong (judging/unequal.py).
4. For outputs that are still wrong, the request whose KV they were made from is searched for, in rounds (owners.py).
5. Wrong outputs without a known owner are retried (retries.py).
6. If allowed, the prefix caches are emptied and the offload tiers probed (tiers.py). This comes last, since the steps
   before rely on the prefix caches. Steps 2 and 3 follow again, for these probes.

Every step takes its tokens and seconds from one ledger, up to its mark (ledger.py, ``_STEPS``). What is left of the
budget after step 2 is for outputs that look wrong, and for the tiers.

A catalogue is verified after its last workload, since salted blocks take room in caches and would change the counters
of a later workload. In a session of pytest each workload is verified by itself: the oracle follows these requests too,
and no request is sent twice. Tiers are not probed there, since that empties caches.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from harness.facts import Deployment
from harness.history import History, VerificationPlanned
from harness.memo import once
from harness.observer import VerifiedSoFar
from harness.scenario import Phase, Purpose, Scenario
from harness.verify.asking.controls import confirmation, controls
from harness.verify.asking.estimate import plan
from harness.verify.asking.forcing import answers_forced, doubts_forced, first_forced, forced
from harness.verify.asking.ledger import EVERYTHING, Mark
from harness.verify.asking.options import Phases, Verification, VerifyOptions
from harness.verify.asking.outputs import VERIFICATION, sent_through_proxy
from harness.verify.asking.owner_blocks import doubted_blocks
from harness.verify.asking.owners import ROUNDS, next_round
from harness.verify.asking.probe import PROBES, cache_probes, strange_probed, suspects_probed
from harness.verify.asking.retries import retries
from harness.verify.asking.salt_test import salt_test
from harness.verify.asking.tiers import TIERS, tier_probes, tier_reset
from harness.verify.judging import doubted_probes, noise_matters, owned_outputs, suspects, unconfirmed
from harness.verify.judging.load_part import asked_of
from harness.verify.judging.so_far import verified_so_far, witnessed_so_far
from harness.verify.judging.unequal import traces

ROUNDS_OF_CONFIRMATION = 3
_SEARCHES = 4 + 6 * len(ROUNDS)
"""Steps of the search for owners: block questions, their own tests (two steps, since the price of owner tests is not
known at first) and forcings; then for each round owner tests, continuations and forcings, twice, since a budget may
suffice for a part of the wrong outputs at once. Steps without anything to send take no time."""
_EVICTED = 0.5
"""If probes had to compute so large a share of their prompts, the caches have lost most of the blocks of the load, and
further probes at random would show nothing."""
_PURPOSE = "Whether every answer is the one that its prompt has without KV transfer, and how large noise is."


def verified(  # noqa: PLR0913 - the last three are optional and keyword-only
    scenarios: Iterable[Scenario],
    deployment: Deployment,
    history: Callable[[], History],
    how: VerifyOptions,
    *,
    now: Callable[[], float] | None = None,
    tell: Callable[[VerificationPlanned], None] = lambda _planned: None,
    tell_so_far: Callable[[VerifiedSoFar], None] | None = None,
) -> Iterator[Scenario]:
    """A test of cache salts, the scenarios, and then the scenarios that verify their outputs.

    Run each before taking the next: the next one is made from ``history()``. ``now``: the run's clock, by which the
    budget's seconds are counted; None: only the time of requests counts. ``tell`` is called once, after the load, with
    what is planned, and may put it into the history. ``tell_so_far`` is called then, and after each phase that may have
    shown something about outputs.
    """
    yield from salt_test(deployment, history, salt=how.salt, reference=how.reference, on_the_way=how.salt_on_the_way)
    yield from scenarios
    verification, past = Verification(deployment, how, now), history()
    if planned := plan(verification, past):
        tell(planned)
        past = history()
        if tell_so_far:
            tell_so_far(witnessed_so_far(past, planned.outputs))
    for step, mark in _STEPS:
        left = step(verification, past)
        # One phase after another, since any of them may take longer than expected.
        while phases := _affordable(verification, past, left, mark):
            yield Scenario(VERIFICATION, _PURPOSE, tuple(_newly_named(phases[:1], past)))
            past, left = history(), phases[1:]
            if tell_so_far and planned and _shows_outputs(phases[0]):
                tell_so_far(verified_so_far(past, planned.outputs))


def _shows_outputs(phase: Phase) -> bool:
    """Whether the phase may have shown something about outputs. Then the next step looks at all of them anyway."""
    return any(request.purpose in (Purpose.FORCING, Purpose.CONTROL, Purpose.REFERENCE) for request in phase.requests)


def _affordable(verification: Verification, history: History, phases: Phases, mark: Mark) -> Phases:
    return verification.ledger(history).afford(phases, mark) if phases else ()


def _newly_named(phases: Iterable[Phase], history: History) -> Iterator[Phase]:
    """The phases under names that the history does not have: ``teacher``, ``teacher-2``, ``teacher-3``."""
    used = {o.sent.phase for o in asked_of(history) if o.sent.scenario == VERIFICATION}
    for phase in phases:
        turn, name = 1, phase.name
        while name in used:
            turn += 1
            name = f"{phase.name}-{turn}"
        yield replace(phase, name=name)


def _further_probes(verification: Verification, history: History) -> Phases:
    """More probes if a budget limits them: the first few have shown how long one takes, and what caches still hold."""
    ledger = verification.ledger(history)
    if ledger.unlimited:
        return ()
    if (ledger.rates.uncached.get(Purpose.PROBE) or 0.0) > _EVICTED:
        return strange_probed(verification, history)
    return cache_probes(verification, history)


def _controls(verification: Verification, history: History) -> Phases:
    return controls(verification, history) if noise_matters(history) else ()


def _doubts(verification: Verification, history: History) -> Phases:
    return doubts_forced(verification, history, doubted_probes(history))


def _confirmation(verification: Verification, history: History) -> Phases:
    return confirmation(verification, history, unconfirmed(history))


# Once for each history: after the last owner, no step has anything to send.
@once
def _owners(verification: Verification, history: History) -> Phases:
    ownerless = _ownerless(history) if verification.how.investigate else ()
    served = sent_through_proxy(history)
    searched = [o for o in served if o.request.request_id in ownerless]
    ledger = verification.ledger(history)
    # Most of the time is for what shows that a candidate is the owner, and for the steps in between.
    left, most = ledger.affordable_tokens(_OWNED), ledger.probes_left(_OWNED) // 4
    wanted = next_round(verification, history, served, searched, left=left, most=most)
    return verification.phase("owners", wanted, history)


def _blocks(verification: Verification, history: History) -> Phases:
    wanted = doubted_blocks(verification, history) if verification.how.investigate else ()
    return verification.phase("owners", wanted, history)


def _retries(verification: Verification, history: History) -> Phases:
    return retries(verification, history, _ownerless(history)) if verification.how.investigate else ()


def _ownerless(history: History) -> set[str]:
    """Ids of wrong outputs whose KV has no known owner, without those that are right to within the last bits."""
    wrong = set(suspects(history)) - set(traces(history))
    return wrong - set(owned_outputs(history)) if wrong else wrong


# Of 200 requests' tokens, which a load of 2,000 allows at 10 %, 70 % are for probes, forcings and controls. The second
# measurement of suspected outputs and the search for owners each have at least as much as 24 forcings.
_CONTROLLED, _FORCED, _CONFIRMED, _OWNED, _RETRIED = (
    Mark(tokens=0.5, seconds=0.5),
    Mark(tokens=0.7, seconds=0.7),
    Mark(tokens=0.82, seconds=0.76),
    Mark(tokens=0.94, seconds=0.88),
    Mark(tokens=0.97, seconds=0.91),
)
_Step = Callable[[Verification, History], Phases]
_STEPS: tuple[tuple[_Step, Mark], ...] = (
    # Twice: the own tests follow the questions.
    *((_blocks, PROBES),) * 2,
    *((cache_probes, PROBES), (_further_probes, PROBES)),
    (first_forced, _CONTROLLED),
    # Twice, since only the later outputs may show noise.
    *((_controls, _CONTROLLED), (forced, _FORCED)) * 2,
    # Again, since the outputs may show no noise where probes differ from their forcings.
    *((_doubts, _FORCED), (_controls, _FORCED), (forced, _FORCED)),
    (suspects_probed, _CONFIRMED),
    *((_confirmation, _CONFIRMED), (answers_forced, _CONFIRMED)) * ROUNDS_OF_CONFIRMATION,
    *((_owners, _OWNED),) * _SEARCHES,
    *((_retries, _RETRIED), (answers_forced, _RETRIED)),
    *((tier_reset, TIERS), (tier_probes, TIERS)),
    *((step, EVERYTHING) for step in (_doubts, _controls, answers_forced, _confirmation, answers_forced)),
)
"""The steps in their order, each with the part of the budget that may be spent when it ends."""
