"""Gathers the evidence of every counted phase: predictions beside readings of the counters."""

from collections.abc import Iterator

from harness.checkers.by_phase import by_phase
from harness.checkers.evidence import Evidence
from harness.checkers.explanations import with_elsewhere, with_leftovers, with_others
from harness.checkers.incarnations import restarted, since_restarts
from harness.checkers.predictions import AFTER, BEFORE, counted_phases, predicted
from harness.checkers.under_faults import allowance, faulted_servers
from harness.facts import Deployment, Server
from harness.history import History, Scraped, ScrapeFailed
from harness.memo import once
from harness.observe.counters import Counters, read_counters
from harness.observe.growth import Delta, delta, since_start, total, unknown_delta
from harness.oracle import PhaseKey, ServerExpectation


@once
def gather(deployment: Deployment, history: History) -> tuple[Evidence, ...]:
    """The evidence of every counted phase, in order. Phases without readings are left out."""
    disturbed = faulted_servers(deployment, history)
    expected = since_restarts(
        predicted(deployment, history, disturbed),
        history,
        lambda since: predicted(deployment, history, disturbed, since),
    )
    counted = counted_phases(history)
    idle = {server.name: ServerExpectation() for server in deployment.servers}
    evidence = tuple(
        Evidence(
            *phase,
            key,
            servers[0].role,
            (allowed := allowance(deployment, history, phase, key)).widen(expectation, servers[0].role),
            total(_grown_on(history, phase, server.name) for server in servers),
            tuple(_before(history, phase, servers)),
            tuple(_before(history, counted[0], servers)),
            allowed=allowed,
        )
        for phase in counted
        for key, expectation in expected.get(phase, idle).items()
        if (servers := deployment.named(key))
    )
    if not deployment.launched:
        evidence = tuple(with_others(deployment, history, evidence, expected))
    return tuple(with_elsewhere(deployment, history, tuple(with_leftovers(deployment, history, evidence))))


def _before(history: History, phase: PhaseKey, servers: tuple[Server, ...]) -> Iterator[Counters]:
    readings = by_phase(history).readings(phase, BEFORE)
    return (read_counters(readings[server.name]) for server in servers if server.name in readings)


def _grown_on(history: History, phase: PhaseKey, server: str) -> Delta:
    readings = [_reading(history, phase, server, label) for label in (BEFORE, AFTER)]
    for reason in readings:
        if isinstance(reason, str):
            return unknown_delta(reason)
    before, after = (read_counters(reading) for reading in readings if isinstance(reading, Scraped))
    if restarted(history, phase, server) and before.process_start != after.process_start:
        return since_start(after)
    return delta(before, after)


def _reading(history: History, phase: PhaseKey, server: str, label: str) -> Scraped | str:
    """The reading, or the reason why it cannot be used."""
    reading = by_phase(history).readings(phase, label).get(server)
    if reading is None:
        wanted = (*phase, server, label)
        failed = history.of(ScrapeFailed)
        causes = (one.cause for one in failed if (one.scenario, one.phase, one.server, one.label) == wanted)
        return f"there is no reading {label} the phase: {next(causes, 'none was recorded')}"
    if not reading.settled:
        return f"the deployment had not settled {label} the phase: {reading.unsettled_because}"
    return reading
