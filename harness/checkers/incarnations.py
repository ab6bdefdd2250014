"""What a server that was restarted may have counted since: its counters begin at zero, and its caches are empty.

A restart divides a phase's requests in three, by the moments at which the old processes had ended and at which the new
ones answered:

- ended before the old processes had: counted by these, and lost with them,
- sent after the new processes answered: counted in full,
- all others: between nothing and all of it. The old processes may have served them, or the new ones, or none.

So the growth since the start is predicted from the requests of the third kind, as if nobody knew how they ended, and
those of the second kind, on a server without any cached block. Later phases find only what these requests left.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from harness.checkers.predictions import Expected
from harness.checkers.windows import Window, windows
from harness.facts import Deployment, Role, serving
from harness.history import History, Operation, Outcome, Tolerated
from harness.memo import once
from harness.oracle import PhaseKey, ServerExpectation


@dataclass(frozen=True, slots=True)
class Restart:
    """One restart of one server."""

    server: str
    phase: PhaseKey
    gone: float
    """When the old processes had certainly ended."""
    answered: float
    """When the new ones certainly answered; infinite if they never did."""

    def since(self, operations: Sequence[Operation]) -> Iterator[Operation]:
        """The operations that the new processes may have served, as far as that is certain."""
        for one in operations:
            if one.sent.at >= self.answered:
                yield one
            elif one.ended.at >= self.gone:
                yield replace(one, ended=replace(one.ended, outcome=Outcome.INFO))


@once
def restarts(history: History) -> tuple[Restart, ...]:
    """The run's restarts, in order."""
    found = [
        _restart(one) for one in windows(history) if one.tolerates(Tolerated.RESTART) and one.proved_at is not None
    ]
    return tuple(sorted(found, key=lambda one: one.gone))


def _restart(window: Window) -> Restart:
    planned = window.planned
    answered = window.healed_at if window.healed and window.healed_at is not None else float("inf")
    return Restart(planned.target, (planned.scenario, planned.phase), window.proved_at or 0.0, answered)


def restarted(history: History, phase: PhaseKey, server: str) -> bool:
    """Whether the server was restarted during the phase."""
    return any(one.server == server and one.phase == phase for one in restarts(history))


def since_restarts(
    expected: Expected,
    history: History,
    again: Callable[[Callable[[Sequence[Operation]], Iterator[Operation]]], Expected],
) -> Expected:
    """The expectations, with those of restarted servers from the phase of their restart on.

    ``again``: predicts from the run's operations after they went through a function. What is summed over the servers of
    a role stays as it is.
    """
    phases = list(expected)
    found = {phase: dict(servers) for phase, servers in expected.items()}
    for one in restarts(history):
        if one.phase not in found:
            continue
        predicted = again(one.since)
        for phase in phases[phases.index(one.phase) :]:
            if one.server in found[phase]:
                since = predicted.get(phase, {}).get(one.server, ServerExpectation())
                found[phase][one.server] = since
    return found


def counted(deployment: Deployment, history: History, role: Role, operation: Operation) -> bool:
    """Whether a server of this role still counts what it did for an operation: no restart may have lost it."""
    servers = deployment.of(role)
    url = operation.ended.prefill_server if role is Role.PREFILL else operation.ended.decode_server
    index = serving(servers, url)
    names = [one.name for one in (servers if index is None else (servers[index],))]
    phase = operation.sent.scenario, operation.sent.phase
    mine = (one for one in restarts(history) if one.phase == phase and one.server in names)
    return all(operation.sent.at >= one.answered for one in mine)
