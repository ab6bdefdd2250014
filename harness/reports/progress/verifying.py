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
    """Seconds that it may take; None: no limit."""
    expected: float = 0.0
    """Seconds that it will take by the estimate made when it began."""

    def time_words(self, now: float) -> str:
        """``3.1 s, about 8.9 s left, at most 17 s``."""
        passed = max(now - self.began, 0.0)
        left = self.expected - passed
        about = f"about {duration(left)} left" if left > 0 else "longer than expected"
        most = "" if self.seconds is None else f", at most {duration(max(self.seconds - passed, 0.0))}"
        return f"{duration(passed)}, {about}{most}"

    def words(self, now: float) -> str:
        """``, verification 3.1 s of 20 s``; empty if its time has no limit."""
        passed = duration(max(now - self.began, 0.0))
        return "" if self.seconds is None else f", verification {passed} of {duration(self.seconds)}"
