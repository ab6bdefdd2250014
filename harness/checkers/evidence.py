"""The evidence of the checkers of counters: expected and observed growth, for each counted phase and server."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from harness.checkers import elsewhere, leftovers
from harness.checkers.by_phase import by_phase
from harness.checkers.incarnations import restarted, since_restarts
from harness.checkers.others import Growth, Others, earlier, others, own_tokens, surplus
from harness.checkers.predictions import AFTER, BEFORE, Expected, counted_phases, predicted
from harness.checkers.under_faults import Allowance, allowance, faulted_servers
from harness.facts import Deployment, Role, Server
from harness.history import History, Outcome, Scraped, ScrapeFailed
from harness.memo import once
from harness.observe.counters import Counters, Delta, delta, read_counters, since_start, total, unknown_delta
from harness.oracle import PREDICTED, PhaseKey, ServerExpectation
from harness.verdict import Bounds, Check, Comparison, Verdict, worst


@dataclass(frozen=True, slots=True)
class Evidence:
    """One server, or all servers of a role, over one phase."""

    scenario: str
    phase: str
    server: str
    """Name of the server, or of the role if its servers are taken together."""
    role: Role
    expectation: ServerExpectation
    delta: Delta
    before: tuple[Counters, ...] = ()
    """The servers' counters when the phase began, as far as they were read."""
    first: tuple[Counters, ...] = ()
    """The servers' counters when the run's first counted phase began."""
    others: Others | None = None
    """Other people's requests, if the counters show any in this phase or before it."""
    explained: Mapping[str, Bounds] = field(default_factory=dict)
    """Values of each counter that other people's requests, leftovers or unlisted servers may explain."""
    leftover: str = ""
    """Why the servers may have found blocks of an earlier run; empty if they cannot have."""
    elsewhere: str = ""
    """Why servers that are not listed may have served some requests; empty if they cannot have."""
    allowed: Allowance = field(default_factory=Allowance)
    """What faults of the run may have done to the servers in this phase; ``expectation`` allows for it already."""

    def compare(self, counter: str) -> Comparison:
        """Compare the counter's growth with its expectation."""
        why = self.expectation.why(counter) or self.delta.why(counter)
        observed = self.delta.of(counter)
        return self.comparison(counter, self._expected(counter, observed), observed, why, self.explained.get(counter))

    def comparison(
        self,
        counter: str,
        expected: Bounds | None,
        observed: float | None,
        why: str = "",
        explained: Bounds | None = None,
    ) -> Comparison:
        """A comparison for this server and phase. ``explained``: see :class:`~harness.verdict.Comparison`."""
        made = Comparison(self.scenario, self.phase, self.server, counter, expected, observed, why, explained)
        both = expected is not None and observed is not None
        reason = self.others.why if self.others else self.leftover or self.elsewhere
        return replace(made, why_unknown=reason) if both and reason and made.verdict is Verdict.UNKNOWN else made

    def _expected(self, counter: str, observed: float | None) -> Bounds | None:
        bounds = self.expectation.of(counter)
        if bounds is None or observed is None or counter not in self.expectation.at_least:
            return bounds
        return Bounds(bounds.low, max(bounds.high, int(observed)))


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
        evidence = tuple(_with_others(deployment, history, evidence, expected))
    return tuple(_with_elsewhere(deployment, history, tuple(_with_leftovers(deployment, history, evidence))))


def _with_elsewhere(deployment: Deployment, history: History, evidence: tuple[Evidence, ...]) -> Iterator[Evidence]:
    lacking: dict[tuple[str, str, Role], int] = {}
    for one in evidence:
        wanted, seen = one.expectation.of("prompt_tokens"), one.delta.of("prompt_tokens")
        if wanted is not None and seen is not None:
            key = one.scenario, one.phase, one.role
            lacking[key] = lacking.get(key, 0) + wanted.low - int(seen)
    for one in evidence:
        missing = lacking.get((one.scenario, one.phase, one.role), 0)
        operations = by_phase(history).operations((one.scenario, one.phase)) if missing > 0 else ()
        why = elsewhere.served_elsewhere(deployment, one.role, operations, lacking=missing)
        found = elsewhere.explained(one.expectation) if why else {}
        yield replace(one, elsewhere=why, explained=_widened(one.explained, found))


def _with_leftovers(deployment: Deployment, history: History, evidence: tuple[Evidence, ...]) -> Iterator[Evidence]:
    left = leftovers.leftovers(deployment, history)
    for one in evidence:
        servers = deployment.named(one.server)
        why = next((left[server.name] for server in servers if server.name in left), "")
        names = PREDICTED if why else ()
        found = {name: leftovers.explained(name, one.expectation, servers, deployment) for name in names}
        added = {name: bounds for name, bounds in found.items() if bounds is not None}
        yield replace(one, leftover=why, explained=_widened(one.explained, added))


def _widened(explained: Mapping[str, Bounds], added: Mapping[str, Bounds]) -> Mapping[str, Bounds]:
    """``explained`` with each range widened to include the added one."""

    def hull(one: Bounds, other: Bounds) -> Bounds:
        return Bounds(min(one.low, other.low), max(one.high, other.high))

    return {**explained, **{name: hull(bounds, explained.get(name, bounds)) for name, bounds in added.items()}}


def _with_others(
    deployment: Deployment,
    history: History,
    evidence: tuple[Evidence, ...],
    expected: Expected,
) -> Iterator[Evidence]:
    """The evidence with the values that other people's requests may explain, from the first phase that shows any."""
    shown = _shown(deployment, history, evidence, expected)
    names = sorted({server.name for key in shown.values() for one in key for server in deployment.named(one)})
    disturbed = predicted(deployment, history, names) if names else {}
    since: dict[str, str] = {}
    for one in evidence:
        phase, servers = (one.scenario, one.phase), deployment.named(one.server)
        why = shown.get(phase, {}).get(one.server, "")
        since |= {server.name: earlier(server.name) for server in servers if why}
        why = why or next((since[server.name] for server in servers if server.name in since), "")
        if not why:
            yield one
            continue
        growth = _growth(history, phase, servers)
        theirs = others(growth, one.expectation, disturbed.get(phase, {}).get(one.server, one.expectation), why)
        explained = {name: theirs.explained(name, servers, deployment) for name in PREDICTED}
        yield replace(one, others=theirs, explained={name: each for name, each in explained.items() if each})


def _shown(
    deployment: Deployment,
    history: History,
    evidence: tuple[Evidence, ...],
    expected: Expected,
) -> dict[PhaseKey, dict[str, str]]:
    """How the counters show other people's requests, by phase and server."""
    found: dict[PhaseKey, dict[str, str]] = {}
    for one in evidence:
        phase, servers = (one.scenario, one.phase), deployment.named(one.server)
        why = surplus(one.server, _growth(history, phase, servers), one.expectation)
        why = why or (earlier(one.server) if _asked_before(deployment, history, one, expected) else "")
        if why:
            found.setdefault(phase, {})[one.server] = why
    return found


def _asked_before(
    deployment: Deployment,
    history: History,
    evidence: Evidence,
    expected: Expected,
) -> bool:
    """Whether the counters show other people's requests between the last counted phase and this one.

    This run's own requests in between, in phases that are not counted, are subtracted.
    """
    counted, phase = counted_phases(history), (evidence.scenario, evidence.phase)
    place = counted.index(phase)
    if not place:
        return False
    servers = deployment.of(evidence.role)
    last, first = by_phase(history).readings(counted[place - 1], AFTER), by_phase(history).readings(phase, BEFORE)
    if not all(server.name in last and server.name in first for server in servers):
        return False
    tokens = _total_growth(last, first, servers).of("prompt_tokens")
    start, end = (min(one.at for one in readings.values()) for readings in (last, first))
    asked = by_phase(history).sent_between(start, end) if tokens else set()
    between = [expected[one] for one in asked if one in expected and one not in counted]
    own = own_tokens(between, (str(evidence.role), *(server.name for server in servers)))
    return bool(tokens) and own is not None and (tokens or 0) > own


def _growth(history: History, phase: PhaseKey, servers: Sequence[Server]) -> Growth:
    """The growth of the servers' counters over the phase, whether or not the servers had settled."""
    before, after = (by_phase(history).readings(phase, label) for label in (BEFORE, AFTER))
    if not all(server.name in before and server.name in after for server in servers):
        return Growth(None, None, None, None)
    grown = _total_growth(before, after, servers)
    names = ("prompt_tokens", "prefix_queries", "generation_tokens", "preemptions", "external_queries")
    return Growth(*(grown.of(name) for name in names))


def _total_growth(before: Mapping[str, Scraped], after: Mapping[str, Scraped], servers: Sequence[Server]) -> Delta:
    return total(delta(read_counters(before[one.name]), read_counters(after[one.name])) for one in servers)


def counter_check(name: str, evidence: Sequence[Evidence], comparisons: tuple[Comparison, ...], right: str) -> Check:
    """The check with the worst verdict of the comparisons; ``right``: its summary if all values are as expected."""
    summary = (first_problem(comparisons) or right) if evidence else NOT_COUNTED
    return Check(name, worst(comparison.verdict for comparison in comparisons), summary, comparisons)


def _in_words(comparison: Comparison) -> str:
    what = f"{comparison.counter} of {comparison.server} in {comparison.phase}"
    if comparison.expected is None or comparison.observed is None:
        return f"{what} is unknown: {comparison.why_unknown}"
    seen = f"{what} grew by {comparison.observed:,}, expected {comparison.expected}"
    return f"{seen}: {comparison.why_unknown}" if comparison.verdict is Verdict.UNKNOWN else seen


def nothing_moved(check: Check, history: History, text: str) -> Check:
    """The check if no bytes were expected and none were moved: valid, or unknown if no request was served at all."""
    if any(operation.outcome is Outcome.OK for operation in history.operations()):
        return replace(check, verdict=Verdict.VALID, summary=text)
    return replace(check, verdict=Verdict.UNKNOWN, summary="no request was served, so there was nothing to move")


NOT_COUNTED = "no phase was counted: there is no reading of the servers' counters"
"""The summary of a check of counters without any evidence."""


def first_problem(comparisons: tuple[Comparison, ...]) -> str:
    """The first invalid comparison in words, otherwise the first unknown one; empty if all are valid."""
    for verdict in (Verdict.INVALID, Verdict.UNKNOWN):
        for comparison in comparisons:
            if comparison.verdict is verdict:
                return _in_words(comparison)
    return ""


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
