"""What charts are made from: the requests of the load as columns, and the moments that many charts mark. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from harness.checkers.windows import windows
from harness.history import Ending, Operation, Outcome, PhaseStarted, Sampled, Scraped, ScrapeFailed
from harness.load.latency.arrivals import Arrivals, arrivals_of
from harness.reports.charts.grid import Floats, Grid
from harness.reports.judged import Judged
from harness.reports.measured import under_test
from harness.reports.requests import OutputStatus, RequestRow, request_rows
from harness.reports.text import clean

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Band:
    """A fault, from when it began to when the deployment had recovered; seconds since the load began."""

    name: str
    begin: float
    end: float


@dataclass(frozen=True, slots=True)
class Moment:
    """Something that happened at one time; seconds since the load began."""

    name: str
    at: float


@dataclass(frozen=True)
class MeasuredRun:
    """The run, with one item per request in each column. Times are seconds since the load's first request was due."""

    report: Judged
    rows: tuple[RequestRow, ...]
    """In the order of sending."""
    origin: float
    """When the first request was due, on the run's clock."""

    @cached_property
    def due(self) -> Floats:
        """When each request was due."""
        return self._since([row.due for row in self.rows])

    @cached_property
    def sent(self) -> Floats:
        """When each request was sent."""
        return self._since([row.sent for row in self.rows])

    @cached_property
    def first(self) -> Floats:
        """When each first token arrived; NaN if nothing was streamed."""
        return self._since([math.nan if row.first_token is None else row.first_token for row in self.rows])

    @cached_property
    def ended(self) -> Floats:
        """When each answer was complete, or failed."""
        return self._since([row.ended for row in self.rows])

    @cached_property
    def completed(self) -> Mask:
        """Whether the whole answer arrived."""
        return np.array([row.outcome is Outcome.OK for row in self.rows], np.bool_)

    @cached_property
    def failed(self) -> Mask:
        """Whether the request did not complete, though its client did not leave as planned."""
        left = np.array([row.ending is Ending.LEFT for row in self.rows], np.bool_)
        return ~self.completed & ~left

    @cached_property
    def end(self) -> float:
        """When the last request ended; a little more than 0 at least, so that there is an axis."""
        return max(float(self.ended.max()), 1e-3) if self.rows else 1e-3

    @cached_property
    def grid(self) -> Grid:
        """Equal slices of the load's time."""
        return Grid.over(self.end)

    @cached_property
    def operations(self) -> tuple[Operation, ...]:
        """The requests as the history has them, in the order of sending."""
        return under_test(self.report.history)

    @cached_property
    def arrivals(self) -> Arrivals:
        """The token arrivals of the completed requests, on the run's clock."""
        return arrivals_of(self.operations)

    @cached_property
    def bands(self) -> tuple[Band, ...]:
        """The faults that began, clipped to the load."""
        began = [(one, one.began - self.origin) for one in windows(self.report.history) if one.began is not None]
        return tuple(
            Band(clean(one.name, 40), max(at, 0.0), min(one.end - self.origin, self.end))
            for one, at in began
            if at < self.end and one.end > self.origin
        )

    @cached_property
    def phases(self) -> tuple[Moment, ...]:
        """When the phases of the load began."""
        wanted = {(row.scenario, row.phase) for row in self.rows}
        scenarios = {scenario for scenario, _ in wanted}
        return tuple(
            Moment(clean(one.phase if len(scenarios) == 1 else f"{one.scenario}: {one.phase}", 40), max(at, 0.0))
            for one in self.report.history.of(PhaseStarted)
            if (one.scenario, one.phase) in wanted and (at := one.at - self.origin) < self.end
        )

    @cached_property
    def readings(self) -> tuple[Moment, ...]:
        """When servers' metrics were read during the load; the name is empty, or says why a reading failed."""
        history = self.report.history
        found = [(one.at, "") for one in history.of(Scraped)]
        found += [(one.at, one.cause and f"{one.server}: {one.cause}") for one in history.of(Sampled)]
        found += [(one.at, f"{one.server}: {one.cause}") for one in history.of(ScrapeFailed)]
        return tuple(
            Moment(clean(why, 120), at - self.origin) for at, why in sorted(found) if 0 <= at - self.origin <= self.end
        )

    def with_output(self, *wanted: OutputStatus) -> Mask:
        """Which requests have an output of one of these kinds."""
        return np.array([row.output in wanted for row in self.rows], np.bool_)

    def _since(self, times: Sequence[float]) -> Floats:
        return np.array(times, np.float64) - self.origin


def measured_run(report: Judged, rows: Sequence[RequestRow] | None = None) -> MeasuredRun:
    """The run of a report. ``rows``: its requests, if they were already made."""
    if rows is None:
        rows = request_rows(report.deployment, report.history, report.judgement)
    return MeasuredRun(report, tuple(rows), min((row.due for row in rows), default=0.0))
