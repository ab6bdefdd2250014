"""What checkers of counters look at: for each counted phase and server, what was expected and what was seen."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from harness.checkers.elsewhere import explained as lower_by_those
from harness.checkers.elsewhere import served_elsewhere
from harness.checkers.leftovers import explained, leftovers
from harness.checkers.others import Growth, Others, earlier, others, own_tokens, surplus
from harness.facts import Deployment, Role, Server
from harness.history import History, Outcome, Scraped, ScrapeFailed
from harness.memo import once
from harness.observe.counters import Counters, Delta, delta, read_counters, total, unknown_delta
from harness.oracle import PREDICTED, PhaseKey, ServerExpectation, predict
from harness.scenario import Purpose
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
    others: Others | None = None
    """Other people's requests, where they show in this phase or before it."""
    explained: Mapping[str, Bounds] = field(default_factory=dict)
    """What they, leftovers, or servers that are not listed may explain, by counter."""
    leftover: str = ""
    """Why the servers may have found what earlier requests left; empty where they cannot have."""
    elsewhere: str = ""
    """Why servers that are not listed may have served some requests; empty where they cannot have."""

    def compare(self, counter: str) -> Comparison:
        """The counter's expectation and growth."""
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
        """A comparison of this server over this phase; ``explained``: by other people's requests, or leftovers."""
        made = Comparison(self.scenario, self.phase, self.server, counter, expected, observed, why, explained)
        both = expected is not None and observed is not None
        explains = both and made.verdict is Verdict.UNKNOWN
        reason = self.others.why if self.others else self.leftover or self.elsewhere
        return replace(made, why_unknown=reason) if explains and reason else made

    def _expected(self, counter: str, observed: float | None) -> Bounds | None:
        bounds = self.expectation.of(counter)
        if bounds is None or observed is None or counter not in self.expectation.at_least:
            return bounds
        return Bounds(bounds.low, max(bounds.high, int(observed)))


@once
def gather(deployment: Deployment, history: History) -> tuple[Evidence, ...]:
    """Everything that was counted, in the order of the phases; phases that nobody read are left out."""
    expected = _predicted(deployment, history)
    counted = _counted(history)
    quiet = tuple(
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
        if (servers := deployment.named(key))
    )
    told = quiet if deployment.launched else tuple(_among_others(deployment, history, quiet, expected))
    return tuple(_with_elsewhere(deployment, history, tuple(_with_leftovers(deployment, history, told))))


def _with_elsewhere(deployment: Deployment, history: History, evidence: tuple[Evidence, ...]) -> Iterator[Evidence]:
    lacking: dict[tuple[str, str, Role], int] = {}
    for one in evidence:
        wanted, seen = one.expectation.of("prompt_tokens"), one.delta.of("prompt_tokens")
        if wanted is not None and seen is not None:
            key = one.scenario, one.phase, one.role
            lacking[key] = lacking.get(key, 0) + wanted.low - int(seen)
    for one in evidence:
        missing = lacking.get((one.scenario, one.phase, one.role), 0)
        operations = history.operations(scenario=one.scenario, phase=one.phase) if missing > 0 else ()
        why = served_elsewhere(deployment, one.role, operations, lacking=missing)
        if not why:
            yield one
            continue
        may = {name: _hull(found, one.explained.get(name)) for name, found in lower_by_those(one.expectation).items()}
        yield replace(one, elsewhere=why, explained={**one.explained, **may})


def _with_leftovers(deployment: Deployment, history: History, evidence: tuple[Evidence, ...]) -> Iterator[Evidence]:
    left = leftovers(deployment, history)
    for one in evidence:
        servers = deployment.named(one.server)
        why = next((left[server.name] for server in servers if server.name in left), "")
        if not why:
            yield one
            continue
        added = {
            name: _hull(found, one.explained.get(name))
            for name in PREDICTED
            if (found := explained(name, one.expectation, servers, deployment))
        }
        yield replace(one, leftover=why, explained={**one.explained, **added})


def _hull(one: Bounds, other: Bounds | None) -> Bounds:
    return one if other is None else Bounds(min(one.low, other.low), max(one.high, other.high))


def _predicted(
    deployment: Deployment, history: History, disturbed: Sequence[str] = ()
) -> Mapping[PhaseKey, Mapping[str, ServerExpectation]]:
    """Predictions of the counted phases; what was asked after the last of them changes none, and is left out.

    So is the test of salts: its blocks are older than all that is counted, the first to be evicted, and hit by nobody.
    """
    counted = set(_counted(history))
    asked = (operation for operation in history.operations() if operation.request.purpose is not Purpose.SALT_TEST)
    operations = sorted(asked, key=lambda operation: operation.sent.at)
    ends = [n for n, one in enumerate(operations, 1) if (one.sent.scenario, one.sent.phase) in counted]
    return predict(deployment, operations[: max(ends, default=0)], disturbed)


def _among_others(
    deployment: Deployment,
    history: History,
    evidence: tuple[Evidence, ...],
    expected: Mapping[PhaseKey, Mapping[str, ServerExpectation]],
) -> Iterator[Evidence]:
    """The evidence with what other people's requests may explain of it, from where they first show."""
    shown = _shown(deployment, history, evidence, expected)
    names = sorted({server.name for key in shown.values() for one in key for server in deployment.named(one)})
    disturbed = _predicted(deployment, history, names) if names else {}
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
    expected: Mapping[PhaseKey, Mapping[str, ServerExpectation]],
) -> dict[PhaseKey, dict[str, str]]:
    """Where more was counted than this run's requests come to: by phase and server, in words."""
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
    expected: Mapping[PhaseKey, Mapping[str, ServerExpectation]],
) -> bool:
    """Whether others show between the phase counted before and this one, where this run asks what nobody counts."""
    counted, phase = _counted(history), (evidence.scenario, evidence.phase)
    place = counted.index(phase)
    if not place:
        return False
    servers = deployment.of(evidence.role)
    last = history.scrapes(scenario=counted[place - 1][0], phase=counted[place - 1][1], label=AFTER)
    first = history.scrapes(scenario=phase[0], phase=phase[1], label=BEFORE)
    if not all(server.name in last and server.name in first for server in servers):
        return False
    grown = total(delta(read_counters(last[one.name]), read_counters(first[one.name])) for one in servers)
    tokens = grown.of("prompt_tokens")
    start, end = (min(one.at for one in readings.values()) for readings in (last, first))
    asked = {
        (one.sent.scenario, one.sent.phase) for one in history.operations() if tokens and start <= one.sent.at <= end
    }
    between = [expected[one] for one in asked if one in expected and one not in counted]
    own = own_tokens(between, (str(evidence.role), *(server.name for server in servers)))
    return bool(tokens) and own is not None and (tokens or 0) > own


def _growth(history: History, phase: PhaseKey, servers: Sequence[Server]) -> Growth:
    """What the servers counted from one reading to the other, whether or not they were at rest."""
    readings = [history.scrapes(scenario=phase[0], phase=phase[1], label=label) for label in (BEFORE, AFTER)]
    if not all(server.name in reading for reading in readings for server in servers):
        return Growth(None, None, None, None)
    before, after = readings
    grown = total(delta(read_counters(before[one.name]), read_counters(after[one.name])) for one in servers)
    names = ("prompt_tokens", "prefix_queries", "generation_tokens", "preemptions", "external_queries")
    return Growth(*(grown.of(name) for name in names))


def _readings(history: History) -> Iterator[Scraped | ScrapeFailed]:
    for entry in history.entries:
        if isinstance(entry, Scraped | ScrapeFailed) and entry.label in (BEFORE, AFTER):
            yield entry


def say(comparison: Comparison) -> str:
    """One comparison in words, for a summary line."""
    what = f"{comparison.counter} of {comparison.server} in {comparison.phase}"
    if comparison.expected is None or comparison.observed is None:
        return f"{what} is unknown: {comparison.why_unknown}"
    seen = f"{what} grew by {comparison.observed:,}, expected {comparison.expected}"
    return f"{seen}: {comparison.why_unknown}" if comparison.verdict is Verdict.UNKNOWN else seen


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
