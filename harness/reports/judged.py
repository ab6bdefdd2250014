"""What a run's page is made from: a Report, of which the page needs these parts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from harness.facts import Deployment
from harness.history import History
from harness.reports.catalogue import Row
from harness.reports.overview import Overview
from harness.verdict import Judgement, Verdict


class Judged(Protocol):
    """A judged run, as :class:`harness.reports.report.Report` is: that file imports this room, and not the reverse."""

    @property
    def deployment(self) -> Deployment:
        """What was run."""

    @property
    def history(self) -> History:
        """What happened."""

    @property
    def judgement(self) -> Judgement:
        """What was concluded."""

    @property
    def verdict(self) -> Verdict:
        """The run's verdict, known faults excused."""

    @property
    def rows(self) -> Sequence[Row]:
        """The catalogue's table; empty for a load."""

    @property
    def overview(self) -> Overview:
        """What the terminal shows."""

    @property
    def result(self) -> Mapping[str, Any]:
        """The content of result.json."""

    @property
    def path(self) -> Path | None:
        """Where the run is stored."""
