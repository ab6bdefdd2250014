"""Goodput in a sentence."""

from harness.load.goodput import Goodput
from harness.reports.text import figure, plural

_NAMES = {"ttft": "TTFT", "tpot": "TPOT", "e2el": "E2E"}


def goodput_line(good: Goodput) -> str:
    """How many requests kept the objectives, and how many of them do not count."""
    limits = ", ".join(f"{_NAMES[name]} {ms:g} ms" for name, ms in good.objectives.items())
    wrong = f"; {plural(good.wrong, 'request')} in time had wrong outputs and do not count" if good.wrong else ""
    others = "" if good.good_from_send == good.good else f" ({good.good_from_send:,} counted from their sending)"
    return (
        f"{figure(good.per_second)} requests/s: {good.good:,} of {plural(good.requests, 'request')}{others} ended "
        f"within {limits}{wrong}"
    )
