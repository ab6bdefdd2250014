"""What checkers of counters look at: for each counted phase and server, what was expected and what was seen."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from harness.checkers.memo import once
from harness.facts import Deployment, Role, Server
from harness.history import History, Outcome, Scraped, ScrapeFailed
from harness.observe.counters import Counters, Delta, delta, read_counters, total, unknown_delta
from harness.oracle import PhaseKey, ServerExpectation, predict
from harness.verdict import Bounds, Comparison, Verdict

BEFORE, AFTER = "before", "after"


@dataclass(frozen=True, slots=True)
class Evidence:
    """One server, or all servers of a role, over one phase."""

    scenario: str
    phase: str
    server: str
    """Name of the server, or of the role whose servers are taken together."""
    role: Role
    expectation: ServerExpectation
    delta: Delta
    before: tuple[Counters, ...] = ()
    """What the servers had counted when the phase began, as far as it was read."""
    first: tuple[Counters, ...] = ()
    """The same when the run's first phase began."""

    def compare(self, counter: str) -> Comparison:
        """The counter's expectation and growth."""
        why = self.expectation.why(counter) or self.delta.why(counter)
        return self.comparison(counter, self.expectation.of(counter), self.delta.of(counter), why)

    def comparison(self, counter: str, expected: Bounds | None, observed: float | None, why: str = "") -> Comparison:
        """A comparison of this server over this phase."""
        return Comparison(self.scenario, self.phase, self.server, counter, expected, observed, why)


@once
def gather(deployment: Deployment, history: History) -> tuple[Evidence, ...]:
    """Everything that was counted, in the order of the phases; phases that nobody read are left out."""
    expected = _predicted(deployment, history)
    counted = _counted(history)
    return tuple(
        Evidence(
            *phase,
            key,
            servers[0].role,
            expectation,
            total(_grown_on(history, phase, server.name) for server in servers),
            tuple(_before(history, phase, servers)),
            tuple(_before(history, counted[0], servers)),
        )
        for phase in counted
        for key, expectation in expected.get(phase, _idle(deployment)).items()
        if (servers := _servers(deployment, key))
    )


def _predicted(deployment: Deployment, history: History) -> Mapping[PhaseKey, Mapping[str, ServerExpectation]]:
    """Predictions of the counted phases; what was asked after the last of them changes none, and is left out."""
    counted = set(_counted(history))
    operations = sorted(history.operations(), key=lambda operation: operation.sent.at)
    ends = [n for n, one in enumerate(operations, 1) if (one.sent.scenario, one.sent.phase) in counted]
    return predict(deployment, operations[: max(ends, default=0)])


def _readings(history: History) -> Iterator[Scraped | ScrapeFailed]:
    for entry in history.entries:
        if isinstance(entry, Scraped | ScrapeFailed) and entry.label in (BEFORE, AFTER):
            yield entry


def say(comparison: Comparison) -> str:
    """One comparison in words, for a summary line."""
    what = f"{comparison.counter} of {comparison.server} in {comparison.phase}"
    if comparison.verdict is Verdict.UNKNOWN:
        return f"{what} is unknown: {comparison.why_unknown}"
    return f"{what} grew by {comparison.observed:,}, expected {comparison.expected}"


def nothing_moved(history: History, text: str) -> tuple[Verdict, str]:
    """What is said where no byte was to be moved, and none was: a run that was not served shows nothing by it."""
    if any(operation.outcome is Outcome.OK for operation in history.operations()):
        return Verdict.VALID, text
    return Verdict.UNKNOWN, "no request was served, so there was nothing to move"


def first_problem(comparisons: tuple[Comparison, ...]) -> str:
    """The first comparison that is invalid, else the first that is unknown, in words; empty when all are valid."""
    for verdict in (Verdict.INVALID, Verdict.UNKNOWN):
        for comparison in comparisons:
            if comparison.verdict is verdict:
                return say(comparison)
    return ""


def _counted(history: History) -> tuple[PhaseKey, ...]:
    return tuple(dict.fromkeys((reading.scenario, reading.phase) for reading in _readings(history)))


def _idle(deployment: Deployment) -> Mapping[str, ServerExpectation]:
    return {server.name: ServerExpectation() for server in deployment.servers}


def _servers(deployment: Deployment, key: str) -> tuple[Server, ...]:
    return tuple(server for server in deployment.servers if key in (server.name, str(server.role)))


def _before(history: History, phase: PhaseKey, servers: tuple[Server, ...]) -> Iterator[Counters]:
    readings = history.scrapes(scenario=phase[0], phase=phase[1], label=BEFORE)
    return (read_counters(readings[server.name]) for server in servers if server.name in readings)


def _grown_on(history: History, phase: PhaseKey, server: str) -> Delta:
    readings = [_reading(history, phase, server, label) for label in (BEFORE, AFTER)]
    for reason in readings:
        if isinstance(reason, str):
            return unknown_delta(reason)
    before, after = (read_counters(reading) for reading in readings if isinstance(reading, Scraped))
    return delta(before, after)


def _reading(history: History, phase: PhaseKey, server: str, label: str) -> Scraped | str:
    """The reading, or why there is none to rely on."""
    reading = history.scrapes(scenario=phase[0], phase=phase[1], label=label).get(server)
    if reading is None:
        causes = _failures(history, phase, server, label)
        return f"there is no reading {label} the phase: {next(causes, 'none was recorded')}"
    if not reading.settled:
        return f"the deployment was not at rest {label} the phase: {reading.unsettled_because}"
    return reading


def _failures(history: History, phase: PhaseKey, server: str, label: str) -> Iterator[str]:
    return (
        entry.cause
        for entry in history.of(ScrapeFailed)
        if (entry.scenario, entry.phase, entry.server, entry.label) == (*phase, server, label)
    )
