"""Verdicts, and the evidence that carries them.

Three verdicts; the worst of a run's checks is the run's: invalid before unknown before valid. A check that
had nothing to look at is ``unknown``, never ``valid``.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from harness.facts import Deployment, Role


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


class FindingKind(StrEnum):
    """What a finding is about, for whoever must tell findings apart without reading their words."""

    OTHER = "other"
    WRONG_OUTPUT = "wrong_output"
    """A request's answer is not the one that its prompt has."""
    LEAK = "leak"
    """An answer was made from another request's KV, whose owner is named."""
    CACHE = "cache"
    """A cache holds wrong blocks of a prompt."""
    UNVERIFIED = "unverified"
    """Nobody knows whether an answer is right."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong, or unknown, about one subject."""

    subject: str
    """What it is about, as it is shown: a request's id, a server's name, ``client``, ``deployment``."""
    text: str
    kind: FindingKind = FindingKind.OTHER
    request: str | None = None
    """The request of the load that it is about, by its id; None: none alone."""
    server: str | None = None
    """The server that it is about, by its name; None: not known, or none alone."""
    token: int | None = None
    """Index of the first wrong token in the request's answer, from 0."""
    block: int | None = None
    """The first wrong KV block of the request's prompt, counted from 1, where one alone is known to be."""
    owner: str | None = None
    """The request whose KV the answer was made from."""


@dataclass(frozen=True, slots=True)
class Advice:
    """What is most likely behind a verdict that is not valid, and what to do about it."""

    cause: str
    """One likely cause; a phrase without a full stop."""
    remedy: str
    """What to do, in the imperative."""

    def __str__(self) -> str:
        return f"likely cause: {self.cause}. To do: {self.remedy}."


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
    advice: Advice | None = None
    """Of a check that is not valid: one likely cause, and what to do."""


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
class FaultSign:
    """How a known fault shows in one check. Whatever else is wrong there is not explained by it."""

    check: str
    """The check that is invalid."""
    counters: tuple[str, ...] = ()
    """Counters that grow by too much; all others must be as expected."""
    role: Role | None = None
    """On which servers they do; None: on any."""
    most_per_request: float = 0.0
    """By how much at most, beyond what is expected, for each request whose output was judged."""
    findings: FindingKind | None = None
    """The kind of finding that it makes; None: none at all."""

    def explains(self, check: Check, judgement: Judgement, deployment: Deployment) -> bool:
        """Whether all that is wrong with the check is what the fault does."""
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
    """What an engine is known to get wrong in one case. It excuses that, where it was seen, and nothing else."""

    signs: tuple[FaultSign, ...]
    versions: tuple[str, ...]
    """Releases of the engine in which it was seen; another one is judged as if nothing were known."""
    devices: tuple[str, ...]
    """Devices on which it was seen (``cpu``, ``cuda``)."""
    evidence: str
    """What was seen, in words."""

    @property
    def text(self) -> str:
        """Where it was seen, and what."""
        return f"known fault of vLLM {' and '.join(self.versions)} on {' and '.join(self.devices)}: {self.evidence}"

    def concerns(self, deployment: Deployment) -> bool:
        """Whether all servers run a release in which the fault was seen, on a device on which it was seen.

        A server that does not tell its version, or a deployment of which the device is not known, is not excused.
        """
        # A local build's suffix (0.32.0+cpu) names the build, not the release.
        releases = {server.version.partition("+")[0] if server.version else None for server in deployment.servers}
        return releases <= set(self.versions) and deployment.device in self.devices

    def excuses(self, judgement: Judgement, deployment: Deployment) -> bool:
        """Whether something is wrong, and nothing but what is known of this deployment."""
        bad = [check for check in judgement.checks if check.verdict is not Verdict.VALID]
        return (
            judgement.verdict is Verdict.INVALID
            and self.concerns(deployment)
            and not judgement.outputs.unverified
            and all(any(self._is_sign(sign, check, judgement, deployment) for sign in self.signs) for check in bad)
        )

    @staticmethod
    def _is_sign(sign: FaultSign, check: Check, judgement: Judgement, deployment: Deployment) -> bool:
        return sign.check == check.name and sign.explains(check, judgement, deployment)
