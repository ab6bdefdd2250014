"""What the requests of a run cost, in engine tokens and seconds.

Tokens are computed tokens: a request's prompt and answer. A probe counts one token of its prompt, since it tests that a
cache holds the others. An owner test counts what its answer's usage does not report as cached; without such a report it
counts a block, since the server that it asks has computed all but the last block before.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from harness.history import History, Operation, VerificationPlanned
from harness.scenario import Purpose

_BLOCK = 16
"""vLLM's usual block size."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Engine tokens, and seconds from the first request to the last answer."""

    tokens: int
    seconds: float


def load_cost(history: History) -> Cost:
    """The cost of the load. The time between two phases, in which the servers settle, does not count."""
    load = [operation for operation in history.operations() if operation.request.of_load]
    return Cost(sum(map(computed, load)), spans(load))


def verification_cost(history: History, now: float | None = None) -> Cost:
    """The cost of all other requests so far.

    Once the load has ended, time counts from the plan of the verification to ``now``, or to the last answer. So the
    time in which servers settle and the harness judges counts too. Requests before the load count by phase.
    """
    verifying = [operation for operation in history.operations() if not operation.request.of_load]
    planned = max((entry.at for entry in history.of(VerificationPlanned)), default=None)
    if planned is None:
        return Cost(sum(map(computed, verifying)), spans(verifying))
    last = max((operation.ended.at for operation in verifying), default=planned) if now is None else now
    before = spans(operation for operation in verifying if operation.sent.at < planned)
    return Cost(sum(map(computed, verifying)), before + max(last - planned, 0.0))


def computed(operation: Operation) -> int:
    """Engine tokens of an operation."""
    usage = operation.ended.usage
    cached = None if usage is None else usage.cached_tokens
    prompt = prompt_computed(operation.request.purpose, len(operation.prompt_token_ids or ()), cached)
    return prompt + sum(len(choice.token_ids) for choice in operation.ended.choices)


def prompt_computed(purpose: Purpose, tokens: int, cached: int | None = None) -> int:
    """How many tokens of a prompt of ``tokens`` the engine computes; ``cached``: those that usage reports as cached."""
    if purpose is Purpose.PROBE:
        return 1
    if purpose is Purpose.OWNER_TEST:
        return min(tokens, _BLOCK) if cached is None else tokens - cached
    return tokens


def spans(operations: Iterable[Operation]) -> float:
    """Seconds of all phases together, each from its first request to its last answer."""
    found: dict[tuple[str, str], tuple[float, float]] = {}
    for operation in operations:
        key = operation.sent.scenario, operation.sent.phase
        first, last = found.get(key, (operation.sent.at, operation.ended.at))
        found[key] = min(first, operation.sent.at), max(last, operation.ended.at)
    return sum(last - first for first, last in found.values())
