"""Verdicts, and the evidence that carries them.

Three verdicts; the worst of a run's checks is the run's: invalid before unknown before valid. A check that
had nothing to look at is ``unknown``, never ``valid``.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Verdict(StrEnum):
    """What is known about a run, or about one aspect of it."""

    VALID = "valid"
    INVALID = "invalid"
    UNKNOWN = "unknown"


_BADNESS = {Verdict.VALID: 0, Verdict.UNKNOWN: 1, Verdict.INVALID: 2}


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The worst of them; no verdict at all is ``unknown``: nothing was looked at."""
    return max(verdicts, key=_BADNESS.__getitem__, default=Verdict.UNKNOWN)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a counter must lie in, both ends included; exact when they are equal."""

    low: int
    high: int

    @classmethod
    def exactly(cls, value: int) -> "Bounds":
        """Bounds that admit one value."""
        return cls(value, value)

    @property
    def exact(self) -> bool:
        """Whether one value alone is right."""
        return self.low == self.high

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    def __add__(self, other: "Bounds") -> "Bounds":
        return Bounds(self.low + other.low, self.high + other.high)

    def __str__(self) -> str:
        return f"{self.low:,}" if self.exact else f"{self.low:,} to {self.high:,}"


@dataclass(frozen=True, slots=True)
class Comparison:
    """One counter of one server (or of all servers of a role) over one phase."""

    scenario: str
    phase: str
    server: str
    counter: str
    expected: Bounds | None
    """None: it could not be predicted, and ``why_unknown`` says why."""
    observed: float | None
    """None: it could not be read."""
    why_unknown: str = ""
    explained: Bounds | None = None
    """Where it may lie for a reason that is no fault of the deployment's, such as other people's requests: outside
    ``expected`` but in here it is unknown, and ``why_unknown`` says why."""

    @property
    def verdict(self) -> Verdict:
        """Whether what was observed lies in what was expected; a number that is none is not known."""
        if self.expected is None or self.observed is None or not math.isfinite(self.observed):
            return Verdict.UNKNOWN
        if self.observed in self.expected:
            return Verdict.VALID
        return Verdict.UNKNOWN if self.explained and self.observed in self.explained else Verdict.INVALID


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong, or unknown, about one subject: a request, a server."""

    subject: str
    text: str


@dataclass(frozen=True, slots=True)
class Check:
    """One checker's result."""

    name: str
    verdict: Verdict
    summary: str
    """One line, verdict apart: what was looked at and what was seen."""
    comparisons: tuple[Comparison, ...] = ()
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    """How much was looked at, beyond what the summary has room for; a line each."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """How many requests' outputs were right."""

    requests: int
    """Completed requests whose outputs were to be verified."""
    exact: int
    """Token for token equal to the reference."""
    tie: int
    """Differ first where the reference itself was undecided, within the noise."""
    mismatch: int
    unverified: int
    """Not verified: left out by the policy of verification, or its verification failed."""
    noise_floor: Mapping[str, float | None] = field(default_factory=dict)
    """Limits and what they rest on, as result.json has them; empty where no noise was measured."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """The whole run judged."""

    checks: tuple[Check, ...]
    outputs: Outputs

    @property
    def verdict(self) -> Verdict:
        """The worst of the checks."""
        return worst(check.verdict for check in self.checks)

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        """Every counter compared, over all checks."""
        return tuple(comparison for check in self.checks for comparison in check.comparisons)


@dataclass(frozen=True, slots=True)
class KnownFault:
    """What an engine is known to get wrong in one case. It excuses what it names, and nothing else."""

    checks: tuple[str, ...]
    """Names of the checks that are invalid where the fault shows."""
    evidence: str
    """Which version, and what was seen."""

    def excuses(self, judgement: Judgement) -> bool:
        """Whether something is wrong, and nothing but what is known."""
        bad = {check.name for check in judgement.checks if check.verdict is not Verdict.VALID}
        return judgement.verdict is Verdict.INVALID and bad <= set(self.checks)
