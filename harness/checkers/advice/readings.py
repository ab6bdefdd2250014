"""Advice on readings of the servers' counters that cannot be used."""

from collections.abc import Iterator

from harness.checkers.advice.context import Context
from harness.checkers.windows import windows
from harness.history import Scraped, ScrapeFailed, Tolerated
from harness.observe.counters import SOURCES, Counters, read_counters
from harness.verdict import Advice

_GAUGES = ("running", "waiting", "kv_usage")
"""Gauges that show whether a server has settled."""


def unusable(context: Context) -> Iterator[Advice]:
    """Advice on servers that could not be read, were restarted, or do not show whether they have settled."""
    readings = list(context.history.of(Scraped))
    if failures := list(context.history.of(ScrapeFailed)):
        yield Advice(
            f"/metrics of {failures[0].server} could not be read",
            f"make sure that the server is up, try curl {_metrics(context, failures[0].server)}, and run again",
        )
    meant = {one.planned.target for one in windows(context.history) if one.tolerates(Tolerated.RESTART)}
    if name := next((one for one in _restarted(readings) if one not in meant), ""):
        yield Advice(
            f"{name} was restarted during the run, and its counters began at 0 again",
            "look for a crash in its log, and run again",
        )
    if name := next((one.server for one in readings if _without_gauges(read_counters(one))), ""):
        wanted = ", ".join(SOURCES[gauge].sample for gauge in _GAUGES)
        yield Advice(
            f"/metrics of {name} lacks the gauges that show whether it has settled, or has impossible values for them",
            f"make sure that there is one number per engine for each of {wanted}: curl {_metrics(context, name)}",
        )


def unsettled(context: Context) -> Iterator[Advice]:
    """Advice on servers that had not settled when they were read."""
    moving = [one for one in context.history.of(Scraped) if not one.settled]
    if moving:
        busy = next((one for one in moving if _busy(read_counters(one))), moving[0])
        yield Advice(
            f"{busy.server} did not settle, so that its counters may include requests outside the phase", "see settled"
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
