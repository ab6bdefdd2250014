"""What other people's requests, leftovers and unlisted servers may explain of the counters' growth."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from harness.checkers import elsewhere, leftovers
from harness.checkers.by_phase import by_phase
from harness.checkers.evidence import Evidence
from harness.checkers.others import Growth, earlier, others, own_tokens, surplus
from harness.checkers.predictions import AFTER, BEFORE, Expected, counted_phases, predicted
from harness.facts import Deployment, Role, Server
from harness.history import History, Scraped
from harness.observe.counters import read_counters
from harness.observe.growth import Delta, delta, total
from harness.oracle import PREDICTED, PhaseKey
from harness.verdict import Bounds


def with_others(
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


def with_elsewhere(deployment: Deployment, history: History, evidence: tuple[Evidence, ...]) -> Iterator[Evidence]:
    """The evidence with the values that servers which are not listed may explain."""
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


def with_leftovers(deployment: Deployment, history: History, evidence: tuple[Evidence, ...]) -> Iterator[Evidence]:
    """The evidence with the values that blocks of an earlier run may explain."""
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
