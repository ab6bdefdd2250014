"""What the requests of a run cost, in engine tokens and seconds.

Tokens are computed tokens: a request's prompt and answer. Probes and owner tests are meant to find their prompts in a
cache, and count what their answers' usage does not report as cached. Without such reports they count as if they had
found what they were meant to find: a probe all tokens of its prompt but one, an owner test the whole blocks of its
owner's prompt.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from harness.history import History, Operation, Outcome, VerificationPlanned
from harness.memo import once
from harness.scenario import Purpose, Route
from harness.verify.judging.load_part import Load, asked_of, load_of

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
    return _cost_of(load_of(history))


@once
def _cost_of(load: Load) -> Cost:
    return Cost(_computed(load, {}), spans(load))


def verification_cost(history: History, now: float | None = None) -> Cost:
    """The cost of all other requests so far.

    Once the load has ended, time counts from the plan of the verification to ``now``, or to the last answer. So the
    time in which servers settle and the harness judges counts too. Requests before the load count by phase.
    """
    verifying = asked_of(history)
    lengths = prompt_lengths(history)
    planned = max((entry.at for entry in history.of(VerificationPlanned)), default=None)
    if planned is None:
        return Cost(_computed(verifying, lengths), spans(verifying))
    last = max((operation.ended.at for operation in verifying), default=planned) if now is None else now
    before = spans(operation for operation in verifying if operation.sent.at < planned)
    return Cost(_computed(verifying, lengths), before + max(last - planned, 0.0))


def computed(operation: Operation, *, reported: bool = False, owner_tokens: int | None = None) -> int:
    """Engine tokens of an operation.

    ``reported``: whether the servers report cached tokens, and leave out a 0. ``owner_tokens``: tokens of the prompt of
    an owner test's owner; None if they are not known.
    """
    usage = operation.ended.usage
    cached = None if usage is None else usage.cached_tokens
    if cached is None and reported and usage is not None:
        cached = 0
    prompt = operation.prompt_tokens
    if cached is None:
        cached = expected_cached(operation.request.purpose, prompt, owner_tokens)
    if operation.request.purpose in CACHED:
        prompt = max(prompt - cached, 1)
    return prompt + operation.ended.output_tokens


def expected_cached(purpose: Purpose, tokens: int, owner_tokens: int | None = None, block: int = _BLOCK) -> int:
    """How many tokens of a prompt of ``tokens`` a cache is expected to have, in blocks of ``block`` tokens."""
    if purpose is Purpose.PROBE:
        return max(tokens - 1, 0)
    if purpose is not Purpose.OWNER_TEST:
        return 0
    shared = tokens - 1 if owner_tokens is None else min(tokens - 1, owner_tokens)
    return max(shared, 0) // block * block


@once
def prompt_lengths(history: History) -> dict[str, int]:
    """Tokens of all prompts, by request id; 0 if a prompt's tokens are not known."""
    return _lengths_of_load(load_of(history)) | _lengths_of(asked_of(history))


@once
def _lengths_of_load(load: Load) -> dict[str, int]:
    return _lengths_of(load)


def _lengths_of(operations: Iterable[Operation]) -> dict[str, int]:
    return {o.request.request_id: o.prompt_tokens for o in operations}


def share_computed(history: History, purpose: Purpose) -> float | None:
    """The share that requests of this purpose computed of what they were meant to find in a cache; None if unknown.

    It is not known before such requests were answered. For probes, what they were meant to find is the whole prompt,
    and the share is not known unless servers report cached tokens; without such reports, owner tests count as having
    found everything. Block questions, owner tests without an owner, do not count: the server that they ask has just
    used these blocks.
    """
    asked = [o for o in asked_of(history) if o.request.purpose is purpose and o.outcome is Outcome.OK]
    if purpose is Purpose.OWNER_TEST:
        return _share_of_owner_tests(history, [o for o in asked if o.request.owner is not None])
    tokens = sum(o.prompt_tokens for o in asked)
    if not tokens or not _reported_in(history):
        return None
    answers = sum(o.ended.output_tokens for o in asked)
    return (sum(computed(o, reported=True) for o in asked) - answers) / tokens


def _share_of_owner_tests(history: History, asked: Collection[Operation]) -> float | None:
    lengths, reported = prompt_lengths(history), _reported_in(history)
    expected = missed = 0
    for one in asked:
        owner, prompt = lengths.get(str(one.request.owner)), one.prompt_tokens
        cached = expected_cached(Purpose.OWNER_TEST, prompt, owner)
        answer = one.ended.output_tokens
        expected += cached
        missed += max(computed(one, reported=reported, owner_tokens=owner) - answer - (prompt - cached), 0)
    return missed / expected if expected else None


def _computed(operations: Collection[Operation], lengths: Mapping[str, int]) -> int:
    """``lengths``: tokens of prompts, by request id."""
    reported = _reported(operations)
    return sum(computed(one, reported=reported, owner_tokens=lengths.get(str(one.request.owner))) for one in operations)


def _reported_in(history: History) -> bool:
    return _reported(asked_of(history)) or _reported_by(load_of(history))


@once
def _reported_by(load: Load) -> bool:
    return _reported(load)


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
