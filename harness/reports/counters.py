"""Comparisons for display: each as a line, and sums over phases per server and counter.

A sum has the worst verdict of its parts: 10 too many in one phase and 10 too few in the next are two errors, although
the totals agree.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from harness.reports.text import clean, count, signed
from harness.verdict import Bounds, Comparison, Verdict, worst


@dataclass(frozen=True, slots=True)
class CounterRow:
    """One counter of one server over all judged phases."""

    server: str
    counter: str
    parts: tuple[Comparison, ...]

    @property
    def verdict(self) -> Verdict:
        """The worst verdict of the phases."""
        return worst(part.verdict for part in self.parts)

    @property
    def expected(self) -> Bounds | None:
        """The sum; None if a part could not be predicted."""
        return total_expected(self.parts)

    @property
    def observed(self) -> float | None:
        """The sum; None if a part could not be read."""
        return total_observed(self.parts)

    @property
    def difference(self) -> float | None:
        """How far the sum lies outside its bounds, signed; 0 inside, None if unknown."""
        if self.expected is None or self.observed is None:
            return None
        return _outside(self.observed, self.expected)

    @property
    def note(self) -> str:
        """Why the counter is not valid, if the sums do not show it: the reason, or the phases."""
        wrong = [part for part in self.parts if part.verdict is self.verdict]
        if self.verdict is Verdict.VALID:
            return ""
        if self.verdict is Verdict.UNKNOWN:
            return wrong[0].why_unknown
        return "" if len(self.parts) == 1 else "in " + _phases(wrong)


def comparison_line(one: Comparison) -> str:
    """One comparison: ``load: decode-0 local_compute: expected 0, observed 64 (+64)``, and why it is unknown."""
    seen = [f"expected {one.expected}"] if one.expected is not None else []
    seen += [f"observed {count(one.observed)}"] if one.observed is not None or one.expected is None else []
    if one.expected is not None and one.observed is not None and (difference := _outside(one.observed, one.expected)):
        seen[-1] += f" ({signed(difference)})"
    why = f"; {one.why_unknown}" if one.why_unknown else ""
    return clean(f"{one.phase}: {one.server} {one.counter}: {', '.join(seen)}{why}", None)


def _outside(observed: float, expected: Bounds) -> float:
    return max(observed - expected.high, 0) + min(observed - expected.low, 0)


def _phases(parts: list[Comparison], shown: int = 2) -> str:
    names = [f"{part.scenario}/{part.phase}" for part in parts]
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")


def rows(comparisons: Iterable[Comparison]) -> tuple[CounterRow, ...]:
    """A row per server and counter, in the order of their first appearance, the rows of a server together."""
    grouped: dict[str, dict[str, list[Comparison]]] = {}
    for part in comparisons:
        grouped.setdefault(part.server, {}).setdefault(part.counter, []).append(part)
    return tuple(
        CounterRow(server, counter, tuple(parts))
        for server, counters in grouped.items()
        for counter, parts in counters.items()
    )


def total_expected(parts: Iterable[Comparison]) -> Bounds | None:
    """The sum of the expected bounds; None if there is no part, or one without a prediction."""
    bounds = [part.expected for part in parts]
    known = [bound for bound in bounds if bound is not None]
    return sum(known, Bounds.exactly(0)) if known and len(known) == len(bounds) else None


def total_observed(parts: Iterable[Comparison]) -> float | None:
    """The sum of the observed values; None if there is no part, or one without a value."""
    values = [part.observed for part in parts]
    known = [value for value in values if value is not None]
    return sum(known) if known and len(known) == len(values) else None
