"""One try of a load on a deployment that is up: sent under a salt of its own, verified, judged, in memory.

The search's tries borrow their noise. A control arm costs 32 requests and more, which would be nearly all of a try of
two requests; the arm of the whole load, run a minute earlier at a higher concurrency, shows no less noise. What is
claimed in the end does not rest on this: results are confirmed by runs that bring an arm of their own, as ``run`` does.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from harness.checkers import judge
from harness.checkers.outputs import wrong_outputs
from harness.cli.fire import Firing, Watch, fire
from harness.cli.loads import probing, verification_of, verified
from harness.cli.measure import fresh_salt
from harness.cli.options import LoadOptions
from harness.cli.recorder import Recorder
from harness.clock import Clock
from harness.deploy import Session
from harness.errors import DeployError
from harness.facts import Deployment
from harness.history import Ended, Entry, History, Outcome, RunEnded, Sent
from harness.scenario import Scenario
from harness.shrink import Candidate, Case
from harness.verdict import Judgement, Verdict
from workloads.verification import followed


@dataclass(frozen=True, slots=True)
class Tried:
    """One try, with everything that it is judged by."""

    candidate: Candidate
    seed: int
    """Of what is drawn: where the probe cuts, in which order outputs are verified."""
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

    case: Case
    session: Session
    deployment: Deployment
    load: LoadOptions
    how: Firing
    clock: Clock
    told: Callable[[Tried], None]
    noise: tuple[Entry, ...] = ()
    """Entries of the control arm that tries borrow; none: each brings its own."""
    number: int = 0

    async def whole(self, candidate: Candidate, seed: int | None = None) -> Tried:
        """One try as ``run --verify all`` would make it."""

        def steps(
            scenario: Scenario, load: LoadOptions, history: Callable[[], History], salt: str
        ) -> Iterable[Scenario]:
            return verified(scenario, load, self.deployment, history, salt=salt)

        return await self._try(candidate, seed, (), steps)

    async def quick(self, candidate: Candidate) -> Tried:
        """One try that borrows its noise and looks for no owners."""

        def steps(
            scenario: Scenario, load: LoadOptions, history: Callable[[], History], salt: str
        ) -> Iterable[Scenario]:
            verification = verification_of(scenario, load, self.deployment, salt=salt)
            return followed(
                scenario,
                history,
                [
                    probing(scenario, load, self.deployment),
                    verification.forced,
                    lambda so_far: verification.confirmation(so_far, wrong_outputs(so_far)),
                    lambda so_far: verification.forced(so_far, "teacher-again"),
                ],
            )

        return await self._try(candidate, None, self.noise, steps)

    async def _try(
        self,
        candidate: Candidate,
        seed: int | None,
        borrowed: tuple[Entry, ...],
        steps: Callable[[Scenario, LoadOptions, Callable[[], History], str], Iterable[Scenario]],
    ) -> Tried:
        """The probe draws its cuts from the seed: another for each try, unless one is given."""
        self.number += 1
        seed = self.number if seed is None else seed
        began, salt = self.clock.now(), fresh_salt()
        load = replace(self.load, verify="all", concurrency=candidate.concurrency, seed=seed)
        record = Recorder()

        def history() -> History:
            return History((*borrowed, *record.history.entries))

        scenario = self.case.load(candidate, salt)
        scenarios = steps(scenario, load, history, salt)
        await fire(scenarios, self.deployment, self.how, Watch(record, self.clock))
        record(RunEnded(self.clock.now()))
        self._refuse_the_dead()
        judgement = judge(self.deployment, history())
        tried = Tried(
            candidate=candidate,
            seed=seed,
            history=history(),
            judgement=judgement,
            failed=self.case.fails(judgement),
            unsure=tuple(name for name in self.case.checks if name in _unknown(judgement)),
            completed=_completed(scenario, record.history),
            seconds=self.clock.now() - began,
        )
        self.told(tried)
        return tried

    def _refuse_the_dead(self) -> None:
        if dead := self.session.nursery.dead():
            raise DeployError("; ".join(dead.values()))


def control_arm(history: History) -> tuple[Entry, ...]:
    """The control outputs of a run and their teacher forcings: all that its noise is known from."""
    return tuple(_control_arm(history))


def _control_arm(history: History) -> Iterator[Entry]:
    operations = history.operations()
    controls = {o.request.request_id for o in operations if o.sent.phase == "control"}
    wanted = controls | {o.request.request_id for o in operations if o.request.reference_for in controls}
    for entry in history.entries:
        sent = isinstance(entry, Sent) and entry.request.request_id in wanted
        if sent or (isinstance(entry, Ended) and entry.request_id in wanted):
            yield entry


def _unknown(judgement: Judgement) -> set[str]:
    return {check.name for check in judgement.checks if check.verdict is Verdict.UNKNOWN}


def _completed(scenario: Scenario, history: History) -> int:
    load = {request.request_id for phase in scenario.phases for request in phase.requests}
    return sum(o.outcome is Outcome.OK for o in history.operations() if o.request.request_id in load)
