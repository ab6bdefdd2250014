"""What the requests of a run cost, in engine tokens and seconds.

Tokens are computed tokens: a request's prompt and answer. Probes and owner tests are meant to find their prompts in a
cache, and count what their answers' usage does not report as cached. Without such reports, a probe counts one token of
its prompt and an owner test a block, as if they had found the rest.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from harness.history import History, Operation, Outcome, VerificationPlanned
from harness.scenario import Purpose, Route

CACHED = (Purpose.PROBE, Purpose.OWNER_TEST)
"""Purposes whose requests are meant to find their prompts in a cache."""
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
    return Cost(_computed(load), spans(load))


def verification_cost(history: History, now: float | None = None) -> Cost:
    """The cost of all other requests so far.

    Once the load has ended, time counts from the plan of the verification to ``now``, or to the last answer. So the
    time in which servers settle and the harness judges counts too. Requests before the load count by phase.
    """
    verifying = [operation for operation in history.operations() if not operation.request.of_load]
    planned = max((entry.at for entry in history.of(VerificationPlanned)), default=None)
    if planned is None:
        return Cost(_computed(verifying), spans(verifying))
    last = max((operation.ended.at for operation in verifying), default=planned) if now is None else now
    before = spans(operation for operation in verifying if operation.sent.at < planned)
    return Cost(_computed(verifying), before + max(last - planned, 0.0))


def computed(operation: Operation, *, reported: bool = False) -> int:
    """Engine tokens of an operation. ``reported``: whether the servers report cached tokens, and leave out a 0."""
    usage = operation.ended.usage
    cached = None if usage is None else usage.cached_tokens
    if cached is None and reported and usage is not None:
        cached = 0
    prompt = prompt_computed(operation.request.purpose, len(operation.prompt_token_ids or ()), cached)
    return prompt + sum(len(choice.token_ids) for choice in operation.ended.choices)


def prompt_computed(purpose: Purpose, tokens: int, cached: int | None = None) -> int:
    """How many tokens of a prompt of ``tokens`` the engine computes; ``cached``: those that usage reports as cached."""
    if purpose not in CACHED:
        return tokens
    if cached is None:
        return min(tokens, 1 if purpose is Purpose.PROBE else _BLOCK)
    return max(tokens - cached, 1)


def share_computed(history: History, purpose: Purpose) -> float | None:
    """The share of their prompts that requests of this purpose computed; None if there were none, or none reported.

    Block questions, owner tests without an owner, do not count: the server that they ask has just used these blocks.
    """
    asked = [o for o in history.operations() if o.request.purpose is purpose and o.outcome is Outcome.OK]
    if purpose is Purpose.OWNER_TEST:
        asked = [o for o in asked if o.request.owner is not None]
    tokens = sum(len(o.prompt_token_ids or ()) for o in asked)
    if not tokens or not _reported(history.operations()):
        return None
    answers = sum(len(choice.token_ids) for o in asked for choice in o.ended.choices)
    return (sum(computed(o, reported=True) for o in asked) - answers) / tokens


def _computed(operations: Collection[Operation]) -> int:
    reported = _reported(operations)
    return sum(computed(one, reported=reported) for one in operations)


def _reported(operations: Iterable[Operation]) -> bool:
    """Whether any answer reports cached tokens. Answers through a proxy report those of its prefill server, at best."""
    direct = (o for o in operations if o.request.route is not Route.PROXY)
    return any(o.ended.usage is not None and o.ended.usage.cached_tokens is not None for o in direct)


def spans(operations: Iterable[Operation]) -> float:
    """Seconds of all phases together, each from its first request to its last answer."""
    found: dict[tuple[str, str], tuple[float, float]] = {}
    for operation in operations:
        key = operation.sent.scenario, operation.sent.phase
        first, last = found.get(key, (operation.sent.at, operation.ended.at))
        found[key] = min(first, operation.sent.at), max(last, operation.ended.at)
    return sum(last - first for first, last in found.values())
