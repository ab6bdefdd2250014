"""Tries of a load on a running deployment. Each is sent under its own salt, verified, and judged in memory.

Quick tries reuse the noise of the whole load. Their own control requests would be 32 or more, nearly all of a try of
two requests. The whole load's control requests, a minute earlier at a higher concurrency, show no less noise. The final
result does not depend on this: it is confirmed by tries with their own control requests, as in ``run``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from harness.clock import Clock
from harness.errors import DeployError
from harness.facts import Deployment
from harness.history import DeadProcess, Entry, History, NoiseMeasured, Outcome
from harness.observer import RunObserver
from harness.reports.text import duration
from harness.run import Recorder, Sending, carry_out, fresh_salt
from harness.scenario import Scenario
from harness.shrink.candidate import Candidate
from harness.shrink.failing_load import FailingLoad, invalid
from harness.verdict import Judgement, Verdict
from harness.verify.asking import VerifyOptions, VerifyPolicy
from harness.verify.asking.salt_test import salt_entries
from harness.verify.judging import control_outputs, tier_suspected

_ALL = VerifyPolicy.parse("all")


@dataclass(frozen=True, slots=True)
class Tried:
    """One try, with all its evidence."""

    candidate: Candidate
    seed: int
    """Determines the probed prefixes and the order in which outputs are verified."""
    history: History
    judgement: Judgement
    failed: bool
    unsure: tuple[str, ...]
    """Checks that were invalid in the stored run and are unknown in this try."""
    completed: int
    """Number of the load's requests that ended OK."""
    seconds: float

    def __str__(self) -> str:
        if self.failed:
            outcome = f"fails ({', '.join(invalid(self.judgement))})"
        else:
            others = invalid(self.judgement)
            words = [f"only {', '.join(others)} invalid"] if others else []
            words += [f"{', '.join(self.unsure)} unknown"] if self.unsure else []
            outcome = f"does not fail ({'; '.join(words)})" if words else "does not fail"
        return f"{self.candidate}: {outcome} ({duration(self.seconds)})"

    @property
    def as_json(self) -> dict[str, Any]:
        """The try as ``tries.jsonl`` has it."""
        pieces = self.candidate.pieces
        return {
            "requests": [piece.number for piece in pieces],
            "prompt_tokens": [piece.prompt for piece in pieces],
            "output_tokens": [piece.output for piece in pieces],
            "concurrency": self.candidate.concurrency,
            "timed": self.candidate.timed,
            "seed": self.seed,
            "failed": self.failed,
            "invalid": list(invalid(self.judgement)),
            "seconds": round(self.seconds, 3),
        }


@dataclass(slots=True, kw_only=True)
class Attempts:
    """Tries one candidate after another."""

    case: FailingLoad
    deployment: Deployment
    sending: Sending
    verify: VerifyOptions
    """Options of the command line. Each try has its own salt, seed and concurrency, and verifies everything."""
    clock: Clock
    observer: RunObserver
    keep: Callable[[Mapping[str, Any]], None]
    """Stores each try."""
    died: Callable[[], tuple[DeadProcess, ...]]
    """Returns the processes that the harness started and that ended by themselves."""
    noise: tuple[NoiseMeasured, ...] = ()
    """The noise of the whole load's control requests. Empty: each try makes its own control requests."""
    tiers: bool = True
    """Whether quick tries probe the offload tiers."""
    salts: tuple[Entry, ...] = ()
    """The first try's test of cache salts, which holds for later tries on the same deployment."""
    number: int = 0

    async def whole(self, candidate: Candidate, seed: int | None = None) -> Tried:
        """One try with the full verification of ``run --verify all``."""
        return await self._try(candidate, seed, Recorder(), self.verify)

    async def quick(self, candidate: Candidate) -> Tried:
        """One try that reuses the whole load's noise and does not search for the owners of leaked KV."""
        quick = replace(self.verify, investigate=False, probe_tiers=self.verify.probe_tiers and self.tiers)
        return await self._try(candidate, None, Recorder(entries=self.noise), quick)

    def learn(self, whole: Tried) -> None:
        """Keep the results of a failed try of the whole load that quick tries reuse."""
        outputs = control_outputs(whole.history)
        self.noise = (NoiseMeasured(self.clock.now(), "the whole load's control requests", outputs),) if outputs else ()
        self.tiers = tier_suspected(whole.history)

    async def _try(self, candidate: Candidate, seed: int | None, record: Recorder, verify: VerifyOptions) -> Tried:
        """One try; without a ``seed``, each try probes other prefixes."""
        self.number += 1
        for entry in self.salts:
            record(entry)
        seed = self.number if seed is None else seed
        began, salt = self.clock.now(), fresh_salt()
        scenario = self.case.load(candidate, salt)
        carried = await carry_out(
            [scenario],
            self.deployment,
            sending=self.sending,
            verify=replace(verify, policy=_ALL, salt=salt, seed=seed, concurrency=candidate.concurrency),
            record=record,
            clock=self.clock,
        )
        if dead := self.died():
            raise DeployError("; ".join(one.text for one in dead))
        history, judgement = carried.history, carried.judgement
        self.salts = self.salts or salt_entries(history)
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
        self.observer.note(f"try {self.number}: {tried}")
        self.keep({"try": self.number, **tried.as_json})
        return tried


def _unknown(judgement: Judgement) -> set[str]:
    return {check.name for check in judgement.checks if check.verdict is Verdict.UNKNOWN}


def _completed(scenario: Scenario, history: History) -> int:
    load = {request.request_id for phase in scenario.phases for request in phase.requests}
    return sum(o.outcome is Outcome.OK for o in history.operations() if o.request.request_id in load)
