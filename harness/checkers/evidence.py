"""The evidence of the checkers of counters: expected and observed growth, for each counted phase and server."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from harness.checkers.others import Others
from harness.checkers.under_faults import Allowance
from harness.facts import Role
from harness.history import History, Outcome
from harness.observe.counters import Counters
from harness.observe.growth import Delta
from harness.oracle import ServerExpectation
from harness.verdict import Bounds, Check, Comparison, Verdict, worst


@dataclass(frozen=True, slots=True)
class Evidence:
    """One server, or all servers of a role, over one phase."""

    scenario: str
    phase: str
    server: str
    """Name of the server, or of the role if its servers are taken together."""
    role: Role
    expectation: ServerExpectation
    delta: Delta
    before: tuple[Counters, ...] = ()
    """The servers' counters when the phase began, as far as they were read."""
    first: tuple[Counters, ...] = ()
    """The servers' counters when the run's first counted phase began."""
    others: Others | None = None
    """Other people's requests, if the counters show any in this phase or before it."""
    explained: Mapping[str, Bounds] = field(default_factory=dict)
    """Values of each counter that other people's requests, leftovers or unlisted servers may explain."""
    leftover: str = ""
    """Why the servers may have found blocks of an earlier run; empty if they cannot have."""
    elsewhere: str = ""
    """Why servers that are not listed may have served some requests; empty if they cannot have."""
    allowed: Allowance = field(default_factory=Allowance)
    """What faults of the run may have done to the servers in this phase; ``expectation`` allows for it already."""

    def compare(self, counter: str) -> Comparison:
        """Compare the counter's growth with its expectation."""
        why = self.expectation.why(counter) or self.delta.why(counter)
        observed = self.delta.of(counter)
        return self.comparison(counter, self._expected(counter, observed), observed, why, self.explained.get(counter))

    def comparison(
        self,
        counter: str,
        expected: Bounds | None,
        observed: float | None,
        why: str = "",
        explained: Bounds | None = None,
    ) -> Comparison:
        """A comparison for this server and phase. ``explained``: see :class:`~harness.verdict.Comparison`."""
        made = Comparison(self.scenario, self.phase, self.server, counter, expected, observed, why, explained)
        both = expected is not None and observed is not None
        reason = self.others.why if self.others else self.leftover or self.elsewhere
        return replace(made, why_unknown=reason) if both and reason and made.verdict is Verdict.UNKNOWN else made

    def _expected(self, counter: str, observed: float | None) -> Bounds | None:
        bounds = self.expectation.of(counter)
        if bounds is None or observed is None or counter not in self.expectation.at_least:
            return bounds
        return Bounds(bounds.low, max(bounds.high, int(observed)))


def counter_check(name: str, evidence: Sequence[Evidence], comparisons: tuple[Comparison, ...], right: str) -> Check:
    """The check with the worst verdict of the comparisons; ``right``: its summary if all values are as expected."""
    summary = (first_problem(comparisons) or right) if evidence else NOT_COUNTED
    return Check(name, worst(comparison.verdict for comparison in comparisons), summary, comparisons)


def _in_words(comparison: Comparison) -> str:
    what = f"{comparison.counter} of {comparison.server} in {comparison.phase}"
    if comparison.expected is None or comparison.observed is None:
        return f"{what} is unknown: {comparison.why_unknown}"
    seen = f"{what} grew by {comparison.observed:,}, expected {comparison.expected}"
    return f"{seen}: {comparison.why_unknown}" if comparison.verdict is Verdict.UNKNOWN else seen


def nothing_moved(check: Check, history: History, text: str) -> Check:
    """The check if no bytes were expected and none were moved: valid, or unknown if no request was served at all."""
    if was_served(history):
        return replace(check, verdict=Verdict.VALID, summary=text)
    return replace(check, verdict=Verdict.UNKNOWN, summary="no request was served, so there was nothing to move")


def was_served(history: History) -> bool:
    """Whether any request completed: counters that did not grow are no evidence otherwise."""
    return any(operation.outcome is Outcome.OK for operation in history.operations())


NOT_COUNTED = "no phase was counted: there is no reading of the servers' counters"
"""The summary of a check of counters without any evidence."""


def first_problem(comparisons: tuple[Comparison, ...]) -> str:
    """The first invalid comparison in words, otherwise the first unknown one; empty if all are valid."""
    for verdict in (Verdict.INVALID, Verdict.UNKNOWN):
        for comparison in comparisons:
            if comparison.verdict is verdict:
                return _in_words(comparison)
    return ""
