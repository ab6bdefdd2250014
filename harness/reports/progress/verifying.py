"""Progress of a verification: its estimate, and how much of its time has passed."""

from dataclasses import dataclass

from harness.reports.text import duration


def estimate(expected: float, seconds: float | None, tokens: int | None) -> str:
    """``verification: about 12 s (budget 20 s, 46,000 tokens)``."""
    limits = [] if seconds is None else [duration(seconds)]
    limits += [] if tokens is None else [f"{tokens:,} tokens"]
    return f"verification: about {duration(expected)}" + (f" (budget {', '.join(limits)})" if limits else "")


@dataclass(frozen=True, slots=True)
class Verifying:
    """A verification that began at a time on the run's clock."""

    began: float
    seconds: float | None

    def words(self, now: float) -> str:
        """``, verification 3.1 s of 20 s``; empty if its time has no limit."""
        passed = duration(max(now - self.began, 0.0))
        return "" if self.seconds is None else f", verification {passed} of {duration(self.seconds)}"
