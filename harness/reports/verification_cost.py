"""The cost of verifying a run compared with the cost of its load, in tokens and seconds.

Tokens are computed tokens: a request's prompt and answer. A probe counts one token of its prompt, since it tests that a
cache holds the others.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from harness.history import History, Operation
from harness.reports.text import duration
from harness.scenario import Purpose


@dataclass(frozen=True, slots=True)
class VerificationCost:
    """The cost of one run. Seconds are sums over phases, each from its first request to its last answer."""

    load_tokens: int
    load_seconds: float
    tokens: int
    seconds: float

    @property
    def text(self) -> str:
        """One line; empty if nothing was verified."""
        if not self.tokens or not self.load_tokens:
            return ""
        share = self.tokens / self.load_tokens
        return (
            f"verification computed {self.tokens:,} tokens ({share:.0%} of the load's {self.load_tokens:,}) "
            f"in {duration(self.seconds)}; the load took {duration(self.load_seconds)}"
        )


def verification_cost(history: History) -> VerificationCost:
    """Compare requests that verify the load with requests of the load."""
    load = [operation for operation in history.operations() if operation.request.of_load]
    verifying = [operation for operation in history.operations() if not operation.request.of_load]
    return VerificationCost(
        load_tokens=sum(map(_tokens, load)),
        load_seconds=_seconds(load),
        tokens=sum(map(_tokens, verifying)),
        seconds=_seconds(verifying),
    )


def _tokens(operation: Operation) -> int:
    prompt = len(operation.prompt_token_ids or ())
    computed = 1 if operation.request.purpose is Purpose.PROBE else prompt
    return computed + sum(len(choice.token_ids) for choice in operation.ended.choices)


def _seconds(operations: Iterable[Operation]) -> float:
    spans: dict[tuple[str, str], tuple[float, float]] = {}
    for operation in operations:
        key = operation.sent.scenario, operation.sent.phase
        first, last = spans.get(key, (operation.sent.at, operation.ended.at))
        spans[key] = min(first, operation.sent.at), max(last, operation.ended.at)
    return sum(last - first for first, last in spans.values())
