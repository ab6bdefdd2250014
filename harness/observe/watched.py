"""The growth of counters around phases that a verification step watches; such phases get no verdict of their own."""

from harness.history import History, Scraped
from harness.observe.counters import read_counters
from harness.observe.growth import Delta, delta, unknown_delta


def grown(history: History, scenario: str, phase: str, server: str) -> Delta:
    """Compute the growth of a server's counters around a watched phase."""
    before, after = (
        history.scrapes(scenario=scenario, phase=phase, label=f"watched-{when}").get(server)
        for when in ("before", "after")
    )
    if before is None or after is None:
        return unknown_delta("its counters were not read before and after the phase")
    if not (before.settled and after.settled):
        return unknown_delta(_why_not_settled(before) or _why_not_settled(after))
    return delta(read_counters(before), read_counters(after))


def _why_not_settled(reading: Scraped) -> str:
    return "" if reading.settled else f"the deployment had not settled: {reading.unsettled_because}"
