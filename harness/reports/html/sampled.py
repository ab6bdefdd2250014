"""The requests that the page's table shows: with many requests a sample, in which whatever is wrong comes first."""

from collections.abc import Sequence
from dataclasses import dataclass

from harness.history import Outcome
from harness.reports.requests import OutputStatus, RequestRow

MOST_NOTABLE = 2000
"""Requests with something wrong, doubtful or failed; a row takes about 250 bytes of the page."""
MOST_OTHERS = 1000
KINDS = ("wrong", "doubtful", "failed", "unverified", "tie", "right", "not sampled")
_OF_STATUS = {
    OutputStatus.WRONG: "wrong",
    OutputStatus.DOUBTFUL: "doubtful",
    OutputStatus.UNVERIFIED: "unverified",
    OutputStatus.TIE: "tie",
    OutputStatus.RIGHT: "right",
    OutputStatus.NOT_SAMPLED: "not sampled",
    OutputStatus.NONE: "no output",
}
_NOTABLE = ("wrong", "doubtful", "failed", "unverified")


@dataclass(frozen=True, slots=True)
class SampledRequests:
    """The rows of the table, in its order."""

    rows: Sequence[tuple[str, RequestRow]]
    """What the reader should think of each request, in a word or two, and the request."""
    total: int
    notable: int
    """Requests that are wrong, doubtful, failed or unverified."""
    notable_shown: int

    @property
    def kinds(self) -> list[str]:
        """The words that occur, the gravest first."""
        found = {kind for kind, _ in self.rows}
        return [kind for kind in (*KINDS, "no output") if kind in found]


def kind_of(row: RequestRow) -> str:
    """What the reader should think of the request: its output, or that it failed."""
    if row.output not in (OutputStatus.WRONG, OutputStatus.DOUBTFUL) and row.outcome is not Outcome.OK:
        return "failed"
    return _OF_STATUS[row.output]


def sampled(rows: Sequence[RequestRow], share: float = 1.0) -> SampledRequests:
    """Notable requests first, the gravest in front; then others, evenly chosen in the order in which they were sent.

    ``share``: of the usual most, so many are shown.
    """
    named = [(kind_of(row), row) for row in rows]
    notable = sorted((one for one in named if one[0] in _NOTABLE), key=lambda one: _NOTABLE.index(one[0]))
    others = [one for one in named if one[0] not in _NOTABLE]
    step = max(1, -(-len(others) // int(MOST_OTHERS * share)))
    shown = notable[: int(MOST_NOTABLE * share)]
    return SampledRequests([*shown, *others[::step]], len(rows), len(notable), len(shown))
