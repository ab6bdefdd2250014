"""How counters grew around phases that are watched to learn something, and not judged."""

from harness.history import History, Scraped
from harness.observe.counters import Delta, delta, read_counters, unknown_delta


def grown(history: History, scenario: str, phase: str, server: str) -> Delta:
    """How a server's counters grew around a phase that was watched, and not judged."""
    before, after = (
        history.scrapes(scenario=scenario, phase=phase, label=f"watched-{when}").get(server)
        for when in ("before", "after")
    )
    if before is None or after is None:
        return unknown_delta("its counters were not read around them")
    if not (before.settled and after.settled):
        return unknown_delta(_restless(before) or _restless(after))
    return delta(read_counters(before), read_counters(after))


def _restless(reading: Scraped) -> str:
    return "" if reading.settled else f"the deployment was not at rest: {reading.unsettled_because}"
