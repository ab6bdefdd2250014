"""The cost of verifying a run compared with the cost of its load and with its budget, in tokens and seconds."""

from dataclasses import dataclass

from harness.history import History, Outcome, VerificationPlanned
from harness.reports.text import duration
from harness.scenario import Purpose
from harness.verify.judging import cost


@dataclass(frozen=True, slots=True)
class VerificationCost:
    """The cost of one run (harness/verify/judging/cost.py)."""

    load_tokens: int
    load_seconds: float
    tokens: int
    seconds: float
    budget_tokens: int | None = None
    """Engine tokens that verification might compute; None: there was no limit."""
    budget_seconds: float | None = None
    planned: int | None = None
    """Outputs that were to be verified; None: verification had not begun."""
    looked_at: int = 0
    """Outputs of the load that a teacher forcing or a reference was answered for."""
    interrupted: bool = False
    """Whether the run ended before its verification was complete."""

    @property
    def kept(self) -> bool:
        """Whether the budget was kept; true if there was none."""
        tokens = self.budget_tokens is None or self.tokens <= self.budget_tokens
        return tokens and (self.budget_seconds is None or self.seconds <= self.budget_seconds)

    @property
    def text(self) -> str:
        """One line; empty if nothing was verified."""
        return "; ".join(filter(None, (self._spent, self._budget, self._ended)))

    @property
    def _spent(self) -> str:
        if not self.tokens or not self.load_tokens:
            return ""
        share = self.tokens / self.load_tokens
        return (
            f"verification computed {self.tokens:,} tokens ({share:.0%} of the load's {self.load_tokens:,}) "
            f"in {duration(self.seconds)}; the load took {duration(self.load_seconds)}"
        )

    @property
    def _budget(self) -> str:
        limits = [] if self.budget_tokens is None else [f"{self.budget_tokens:,} tokens"]
        limits += [] if self.budget_seconds is None else [duration(self.budget_seconds)]
        return f"its budget of {' and '.join(limits)} was {'kept' if self.kept else 'exceeded'}" if limits else ""

    @property
    def _ended(self) -> str:
        if not self.interrupted or self.planned is None:
            return ""
        return (
            f"verification was interrupted after {min(self.looked_at, self.planned):,} of {self.planned:,} outputs: "
            "the others are unverified"
        )


def verification_cost(history: History) -> VerificationCost:
    """Compare requests that verify the load with requests of the load."""
    load, verification = cost.load_cost(history), cost.verification_cost(history)
    planned = next(iter(history.of(VerificationPlanned)), None)
    return VerificationCost(
        load_tokens=load.tokens,
        load_seconds=load.seconds,
        tokens=verification.tokens,
        seconds=verification.seconds,
        budget_tokens=None if planned is None else planned.tokens,
        budget_seconds=None if planned is None else planned.seconds,
        planned=None if planned is None else planned.outputs,
        looked_at=0 if planned is None else _looked_at(history),
        interrupted=planned is not None and history.ended_early,
    )


def _looked_at(history: History) -> int:
    """How many outputs of the load were forced or compared with a reference."""
    load = {o.request.request_id for o in history.operations() if o.request.of_load}
    asked = {
        o.request.about
        for o in history.operations()
        if o.request.purpose in (Purpose.FORCING, Purpose.REFERENCE) and o.outcome is Outcome.OK
    }
    return len(load & asked)
