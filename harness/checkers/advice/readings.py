"""What the readings of the servers' counters show by themselves: whose cannot be used, and why."""

from collections.abc import Iterator

from harness.checkers.advice.context import Context
from harness.history import Scraped, ScrapeFailed
from harness.observe.counters import SOURCES, Counters, read_counters
from harness.verdict import Advice

_GAUGES = ("running", "waiting", "kv_usage")
"""What rest is told by."""


def unusable(context: Context) -> Iterator[Advice]:
    """Of servers that could not be read, began again, or do not tell whether they rest."""
    readings = list(context.history.of(Scraped))
    if failures := list(context.history.of(ScrapeFailed)):
        yield Advice(
            f"/metrics of {failures[0].server} could not be read",
            f"make sure that it is up, try curl {_metrics(context, failures[0].server)}, and run again",
        )
    if name := next(_restarted(readings), ""):
        yield Advice(
            f"the process of {name} ended and began again during the run, and its counters with it",
            "look for a crash in its log, and run again",
        )
    if name := next((one.server for one in readings if _without_gauges(read_counters(one))), ""):
        wanted = ", ".join(SOURCES[gauge].sample for gauge in _GAUGES)
        yield Advice(
            f"/metrics of {name} lacks the gauges by which rest is told, or exposes what they cannot mean",
            f"see that a number stands once for each engine at {wanted}: curl {_metrics(context, name)}",
        )


def restless(context: Context) -> Iterator[Advice]:
    """Of servers that were still doing something when they were read."""
    moving = [one for one in context.history.of(Scraped) if not one.settled]
    if moving:
        busy = next((one for one in moving if _busy(read_counters(one))), moving[0])
        yield Advice(
            f"{busy.server} did not come to rest, so that its counters say nothing about this run alone", "see settled"
        )


def _restarted(readings: list[Scraped]) -> Iterator[str]:
    began: dict[str, float] = {}
    for one in readings:
        start = read_counters(one).process_start
        if start is not None and began.setdefault(one.server, start) != start:
            yield one.server


def _without_gauges(counters: Counters) -> bool:
    return any(getattr(counters, gauge) is None for gauge in _GAUGES)


def _busy(counters: Counters) -> bool:
    return bool(counters.running or counters.waiting or counters.kv_usage or counters.offload_usage)


def _metrics(context: Context, name: str) -> str:
    return next((f"{server.url}/metrics" for server in context.deployment.servers if server.name == name), "/metrics")
