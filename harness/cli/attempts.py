"""One try of a load on a deployment that is up: sent under a salt of its own, verified, judged, in memory.

The search's tries borrow their noise. A control arm costs 32 requests and more, which would be nearly all of a try of
two requests; the arm of the whole load, run a minute earlier at a higher concurrency, shows no less noise. What is
claimed in the end does not rest on this: results are confirmed by runs that bring an arm of their own, as ``run`` does.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from harness.checkers import judge
from harness.cli.loads import JUDGES, verified
from harness.cli.measure import fresh_salt
from harness.cli.options import LoadOptions
from harness.clock import Clock
from harness.deploy import Session
from harness.errors import DeployError
from harness.facts import Deployment
from harness.history import Entry, History, NoiseMeasured, Outcome, RunEnded
from harness.run.fire import Firing, Watch, fire
from harness.run.recorder import Recorder
from harness.scenario import Scenario
from harness.shrink import Candidate, FailingLoad
from harness.verdict import Judgement, Verdict
from harness.verify.asking.plan import Judges
from harness.verify.asking.salt_test import salt_entries
from harness.verify.judging import control_outputs, doubted_probes, suspects, tier_suspected

_QUICK = Judges(suspects, suspects, doubted_probes)
"""Whatever is wrong counts as owned: then nobody looks for its owner, nor whether it comes again."""


@dataclass(frozen=True, slots=True)
class Tried:
    """One try, with everything that it is judged by."""

    candidate: Candidate
    seed: int
    """Of what is drawn: which prefixes are probed, in which order outputs are verified."""
    history: History
    judgement: Judgement
    failed: bool
    unsure: tuple[str, ...]
    """Checks that were invalid in the stored run and could not be judged in this."""
    completed: int
    """Requests of the load that were answered."""
    seconds: float


@dataclass(slots=True)
class Attempts:
    """Tries one candidate after another. ``told`` hears of each."""

    case: FailingLoad
    session: Session
    deployment: Deployment
    load: LoadOptions
    how: Firing
    clock: Clock
    told: Callable[[Tried], None]
    noise: tuple[NoiseMeasured, ...] = ()
    """What the whole load's control requests showed; none: each try makes its own."""
    tiers: bool = True
    """Whether quick tries probe the offload tiers."""
    salts: tuple[Entry, ...] = ()
    """What the first try's test of cache salts showed: the others, on the same deployment, make none."""
    number: int = 0

    async def whole(self, candidate: Candidate, seed: int | None = None) -> Tried:
        """One try as ``run --verify all`` would make it."""
        return await self._try(candidate, seed, Recorder(), JUDGES, tiers=True)

    async def quick(self, candidate: Candidate) -> Tried:
        """One try that borrows its noise and looks for no owners."""
        record = Recorder()
        for entry in self.noise:
            record(entry)
        return await self._try(candidate, None, record, _QUICK, tiers=self.tiers)

    def learn(self, whole: Tried) -> None:
        """What the quick tries take over from a run of the whole load that failed."""
        outputs = control_outputs(whole.history)
        self.noise = (NoiseMeasured(self.clock.now(), "the whole load's control requests", outputs),) if outputs else ()
        self.tiers = tier_suspected(whole.history)

    async def _try(
        self, candidate: Candidate, seed: int | None, record: Recorder, judges: Judges, *, tiers: bool
    ) -> Tried:
        """The probe draws its prefixes from the seed: another for each try, unless one is given."""
        self.number += 1
        for entry in self.salts:
            record(entry)
        seed = self.number if seed is None else seed
        began, salt = self.clock.now(), fresh_salt()
        load = replace(self.load, verify="all", concurrency=candidate.concurrency, seed=seed)
        scenario = self.case.load(candidate, salt)
        scenarios = verified(
            scenario, load, self.deployment, lambda: record.history, salt=salt, judges=judges, tiers=tiers
        )
        await fire(scenarios, self.deployment, self.how, Watch(record, self.clock))
        record(RunEnded(self.clock.now()))
        self._refuse_the_dead()
        history = record.history
        self.salts = self.salts or salt_entries(history)
        judgement = judge(self.deployment, history)
        tried = Tried(
            candidate=candidate,
            seed=seed,
            history=history,
            judgement=judgement,
            failed=self.case.fails(judgement),
            unsure=tuple(name for name in self.case.checks if name in _unknown(judgement)),
            completed=_completed(scenario, history),
            seconds=self.clock.now() - began,
        )
        self.told(tried)
        return tried

    def _refuse_the_dead(self) -> None:
        if dead := self.session.nursery.dead():
            raise DeployError("; ".join(dead.values()))


def _unknown(judgement: Judgement) -> set[str]:
    return {check.name for check in judgement.checks if check.verdict is Verdict.UNKNOWN}


def _completed(scenario: Scenario, history: History) -> int:
    load = {request.request_id for phase in scenario.phases for request in phase.requests}
    return sum(o.outcome is Outcome.OK for o in history.operations() if o.request.request_id in load)
