"""Verdicts and the evidence for them.

A run has the worst verdict of its checks: invalid is worse than unknown, unknown worse than valid. If there is nothing
to check, the verdict is unknown.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from harness.facts import Deployment, Role


class Verdict(StrEnum):
    """The result of a run, or of one check."""

    VALID = "valid"
    INVALID = "invalid"
    UNKNOWN = "unknown"


_BADNESS = {Verdict.VALID: 0, Verdict.UNKNOWN: 1, Verdict.INVALID: 2}


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The worst verdict; ``unknown`` if there is none."""
    return max(verdicts, key=_BADNESS.__getitem__, default=Verdict.UNKNOWN)


@dataclass(frozen=True, slots=True)
class Bounds:
    """The range that a counter must lie in, both ends included."""

    low: int
    high: int

    @classmethod
    def exactly(cls, value: int) -> "Bounds":
        """Bounds that allow one value only."""
        return cls(value, value)

    @property
    def exact(self) -> bool:
        """Whether only one value is allowed."""
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
    """None: the counter could not be predicted, and ``why_unknown`` says why."""
    observed: float | None
    """None: the counter could not be read."""
    why_unknown: str = ""
    explained: Bounds | None = None
    """Values that have an explanation other than a fault of the deployment, such as other people's requests. A value
    outside ``expected`` but within these bounds is unknown, and ``why_unknown`` says why."""

    @property
    def verdict(self) -> Verdict:
        """Valid if the observed value lies within the expected bounds; unknown if either is missing or not finite."""
        if self.expected is None or self.observed is None or not math.isfinite(self.observed):
            return Verdict.UNKNOWN
        if self.observed in self.expected:
            return Verdict.VALID
        return Verdict.UNKNOWN if self.explained and self.observed in self.explained else Verdict.INVALID


class FindingKind(StrEnum):
    """What a finding is about, for code that must distinguish findings."""

    OTHER = "other"
    WRONG_OUTPUT = "wrong_output"
    """The answer to a request is not the answer to its prompt."""
    LEAK = "leak"
    """An answer was made from another request's KV; ``Finding.owner`` names that request."""
    CACHE = "cache"
    """A cache holds wrong blocks of a prompt."""
    UNVERIFIED = "unverified"
    """It is unknown whether an answer is right."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong or unknown."""

    subject: str
    """What the finding is about, as displayed: a request's id, a server's name, ``client``, ``deployment``."""
    text: str
    kind: FindingKind = FindingKind.OTHER
    request: str | None = None
    """Id of the request of the load that the finding is about; None if it is not about a single one."""
    server: str | None = None
    """Name of the server that the finding is about; None if unknown, or if it is not about a single one."""
    token: int | None = None
    """Index of the first wrong token in the request's answer, from 0."""
    block: int | None = None
    """Number of the first wrong KV block of the request's prompt, from 1; None if unknown."""
    owner: str | None = None
    """Id of the request whose KV the answer was made from."""


@dataclass(frozen=True, slots=True)
class Advice:
    """The most likely cause of a verdict that is not valid, and what to do."""

    cause: str
    """A phrase without a full stop."""
    remedy: str
    """In the imperative, without a full stop."""

    def __str__(self) -> str:
        return f"likely cause: {self.cause}. To do: {self.remedy}."


@dataclass(frozen=True, slots=True)
class Check:
    """One checker's result."""

    name: str
    verdict: Verdict
    summary: str
    """What was checked and what was found: one line, without the verdict."""
    comparisons: tuple[Comparison, ...] = ()
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    """How much was checked, a line each, if the summary has no room for it."""
    advice: Advice | None = None
    """None for a valid check."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """How many requests have right outputs."""

    requests: int = 0
    """Completed requests whose outputs were to be verified."""
    exact: int = 0
    """Outputs that equal the reference token for token."""
    tie: int = 0
    """Outputs whose first difference is a near tie of the reference, within the noise."""
    mismatch: int = 0
    unverified: int = 0
    """Outputs that the verification policy left out, or whose verification failed."""
    noise_floor: Mapping[str, float | None] = field(default_factory=dict)
    """The noise limits and the figures that they were derived from; empty if no noise was measured."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """The result of judging a run, or a part of it."""

    checks: tuple[Check, ...]
    outputs: Outputs = field(default_factory=Outputs)

    @property
    def verdict(self) -> Verdict:
        """The worst of the checks."""
        return worst(check.verdict for check in self.checks)

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        """The comparisons of all checks."""
        return tuple(comparison for check in self.checks for comparison in check.comparisons)


@dataclass(frozen=True, slots=True)
class FaultSign:
    """How a known fault shows in one check; the fault excuses nothing else in the check."""

    check: str
    """Name of the check that the fault makes invalid."""
    counters: tuple[str, ...] = ()
    """Counters that grow too much; every other counter must be as expected."""
    role: Role | None = None
    """Role of the servers whose counters grow too much; None: any role."""
    most_per_request: float = 0.0
    """The largest excess of a counter over its bounds, per request whose output was verified."""
    findings: FindingKind | None = None
    """The kind of finding that the fault causes; None: it causes no finding."""

    def explains(self, check: Check, judgement: Judgement, deployment: Deployment) -> bool:
        """Whether the fault explains everything that is wrong in the check."""
        if check.name != self.check:
            return False
        wrong = [one for one in check.comparisons if one.verdict is not Verdict.VALID]
        return (
            check.verdict is Verdict.INVALID
            and all(self._explained(one, judgement.outputs.requests, deployment) for one in wrong)
            and all(finding.kind is self.findings for finding in check.findings)
        )

    def _explained(self, one: Comparison, requests: int, deployment: Deployment) -> bool:
        servers = deployment.named(one.server)
        if not servers or not all(self.role in (None, server.role) for server in servers):
            return False
        if one.counter not in self.counters or one.expected is None or one.observed is None:
            return False
        return one.expected.high < one.observed <= one.expected.high + self.most_per_request * requests


@dataclass(frozen=True, slots=True)
class KnownFault:
    """A fault of the engine that a workload is known to show, excused only where it was seen."""

    signs: tuple[FaultSign, ...]
    versions: tuple[str, ...]
    """Releases of the engine in which the fault was seen."""
    devices: tuple[str, ...]
    """Devices on which the fault was seen (``cpu``, ``cuda``)."""
    evidence: str
    """A description of what was seen."""
    ends_server: bool = False
    """Whether the fault ends a server's process. What is unknown because the server was gone is then excused too."""

    @property
    def text(self) -> str:
        """Where and how the fault was seen."""
        return f"known fault of vLLM {' and '.join(self.versions)} on {' and '.join(self.devices)}: {self.evidence}"

    def concerns(self, deployment: Deployment) -> bool:
        """Whether all servers have a release and device with this fault; False if one is unknown."""
        # A local build's suffix (0.32.0+cpu) names the build, not the release.
        releases = {server.version.partition("+")[0] if server.version else None for server in deployment.servers}
        return releases <= set(self.versions) and deployment.device in self.devices

    def excuses(self, judgement: Judgement, deployment: Deployment) -> bool:
        """Whether the judgement is invalid, and the fault explains every check that is not valid."""
        bad = [check for check in judgement.checks if check.verdict is not Verdict.VALID]
        gone = self.ends_server and any(check.name == "processes" for check in bad)
        if gone:
            bad = [check for check in bad if check.verdict is Verdict.INVALID]
        return (
            judgement.verdict is Verdict.INVALID
            and self.concerns(deployment)
            and (gone or not judgement.outputs.unverified)
            and all(any(sign.explains(check, judgement, deployment) for sign in self.signs) for check in bad)
        )
