"""The progress of a phase, and its text."""

from dataclasses import dataclass, replace

from harness.reports.text import duration, figure


@dataclass(frozen=True, slots=True)
class PhaseCount:
    """Counts of a phase's requests; ``began``: seconds on the run's clock."""

    scenario: str
    phase: str
    total: int
    began: float
    done: int = 0
    failed: int = 0

    @property
    def name(self) -> str:
        """``scenario/phase``."""
        return f"{self.scenario}/{self.phase}"

    @property
    def tenth(self) -> int:
        """How many tenths of the phase are done."""
        return 10 * self.done // self.total if self.total else 10

    def advanced(self, done: int, total: int, failed: int) -> "PhaseCount":
        """The same phase with new counts."""
        return replace(self, done=done, total=total, failed=failed)

    def words(self, now: float) -> str:
        """``96/128 requests, 1 failed, 12.3 requests/s, 7.8 s``."""
        elapsed = max(now - self.began, 0.0)
        rate = figure(self.done / elapsed) if elapsed > 0 else "-"
        return f"{self.done:,}/{self.total:,} requests, {self.failed:,} failed, {rate} requests/s, {duration(elapsed)}"
