"""How far a phase has come, and how that is put into words."""

from dataclasses import dataclass, replace

from harness.reports.text import duration, figure


@dataclass(frozen=True, slots=True)
class PhaseCount:
    """Requests of one phase; ``began`` on the run's clock, seconds."""

    scenario: str
    phase: str
    total: int
    began: float
    done: int = 0
    failed: int = 0

    @property
    def name(self) -> str:
        """Scenario and phase."""
        return f"{self.scenario}/{self.phase}"

    @property
    def tenth(self) -> int:
        """Whole tenths of the phase that are done."""
        return 10 * self.done // self.total if self.total else 10

    def advanced(self, done: int, total: int, failed: int) -> "PhaseCount":
        """The same phase, later."""
        return replace(self, done=done, total=total, failed=failed)

    def words(self, now: float) -> str:
        """``96/128 requests, 1 failed, 12.3 requests/s, 7.8 s``."""
        elapsed = max(now - self.began, 0.0)
        rate = figure(self.done / elapsed) if elapsed > 0 else "-"
        return f"{self.done:,}/{self.total:,} requests, {self.failed:,} failed, {rate} requests/s, {duration(elapsed)}"
