"""The servers' metrics as they were read during the load, and by how much their counters had grown. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

from harness.history import Sampled, Scraped
from harness.observe.counters import read_counters
from harness.reports.charts.measured_run import MeasuredRun

_NUMBERS = tuple(field.name for field in fields(Sampled) if field.name not in {"at", "server", "cause"})


@dataclass(frozen=True, slots=True)
class ServerReadings:
    """One server's readings: those during the load, the last one before and the first one after it."""

    server: str
    role: str
    times: tuple[float, ...]
    """Seconds since the load began; the first one may be negative."""
    readings: tuple[Sampled, ...]

    def values(self, name: str) -> Iterator[tuple[float, float]]:
        """Times and values, without readings that lack the number."""
        for at, reading in zip(self.times, self.readings, strict=True):
            value = getattr(reading, name)
            if value is not None:
                yield at, float(value)

    def grown(self, name: str) -> Iterator[tuple[float, float]]:
        """Times, and by how much a counter had grown since the first reading.

        A counter that falls belongs to a server that was started again, and grew by all that it counts since then.
        """
        total, last = 0.0, None
        for at, value in self.values(name):
            if last is not None:
                total += value - last if value >= last else value
            last = value
            yield at, total


def server_readings(run: MeasuredRun) -> tuple[ServerReadings, ...]:
    """The servers that were read at least twice, in the deployment's order."""
    phases = {(row.scenario, row.phase) for row in run.rows}
    engines = {server.name: server.engines for server in run.report.deployment.servers}
    scraped = [one for one in run.report.history.of(Scraped) if (one.scenario, one.phase) in phases]
    taken = list(run.report.history.of(Sampled))
    taken += [_sampled(one, engines.get(one.server, 1)) for one in scraped]
    taken.sort(key=lambda one: one.at)
    every = (
        _of_server(run, server.name, str(server.role), [one for one in taken if one.server == server.name])
        for server in run.report.deployment.servers
    )
    return tuple(one for one in every if len(one.times) > 1)


def _of_server(run: MeasuredRun, server: str, role: str, taken: Sequence[Sampled]) -> ServerReadings:
    times = [one.at - run.origin for one in taken]
    first = max((place for place, at in enumerate(times) if at <= 0), default=0)
    last = min((place for place, at in enumerate(times) if at >= run.end), default=len(times) - 1)
    return ServerReadings(server, role, tuple(times[first : last + 1]), tuple(taken[first : last + 1]))


def _sampled(one: Scraped, engines: int) -> Sampled:
    counters = read_counters(one)
    found = {name: getattr(counters, name) for name in _NUMBERS}
    # Here the shares of a server's engines are summed, there they are averaged.
    usage = None if counters.kv_usage is None else counters.kv_usage / engines
    return Sampled(one.at, one.server, **{**found, "kv_usage": usage})
