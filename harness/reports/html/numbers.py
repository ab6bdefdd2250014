"""Numbers as the page shows them."""

import math

from harness.reports.text import figure


def ms(seconds: float | None) -> str:
    """Milliseconds, without the unit; empty if there is none."""
    return "" if seconds is None else figure(seconds * 1000)


def nats(value: float | None) -> str:
    """A log-probability or a difference of two, to three digits; empty if there is none."""
    if value is None:
        return ""
    if math.isnan(value):
        return "NaN"
    return f"{value:.3g}" if math.isfinite(value) else str(value)
