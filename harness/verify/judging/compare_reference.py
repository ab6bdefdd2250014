"""An output compared with its reference: the same request decoded again without KV transfer.

Token ids must be equal: a run that measures no noise cannot allow for any.
"""

from harness.history import Choice, Operation, Outcome
from harness.verify.judging.compared import Compared, Match
from harness.verify.judging.forcing import NO_IDS


def compare_with_reference(operation: Operation, reference: Operation) -> Compared:
    """Whether every choice has the tokens of the reference."""
    who = operation.request.request_id
    if reference.outcome is not Outcome.OK:
        return Compared(who, Match.UNVERIFIED, f"its reference did not complete: {reference.ended.cause}")
    served, right = operation.ended.choices, reference.ended.choices
    if not all(choice.token_ids for choice in (*served, *right)) or not served:
        return Compared(who, Match.UNVERIFIED, NO_IDS)
    if len(served) != len(right):
        return Compared(who, Match.MISMATCH, f"it has {len(served)} choices, and its reference has {len(right)}")
    for one, other in zip(served, right, strict=True):
        if one.token_ids != other.token_ids:
            return _mismatch(who, one, other)
    return Compared(who, Match.EXACT)


def first_difference(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    """The first index at which they differ; the length of the shorter one if the longer one begins with it."""
    pairs = zip(one, other, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def margin_at(reference: Choice, index: int) -> float | None:
    """How far the token of the reference led over the second-best one there, nats; None if that was not reported."""
    logprob = reference.logprobs[index] if index < len(reference.logprobs) else None
    return None if logprob is None or logprob.runner_up is None else logprob.logprob - logprob.runner_up


def _mismatch(who: str, served: Choice, right: Choice) -> Compared:
    at = first_difference(served.token_ids, right.token_ids)
    if at == min(len(served.token_ids), len(right.token_ids)):
        text = f"it has {len(served.token_ids)} tokens where its reference has {len(right.token_ids)}, equal so far"
        return Compared(who, Match.MISMATCH, text, at)
    margin = margin_at(right, at)
    text = (
        f"first differs from its reference at output token {at}: {served.token_ids[at]} instead of "
        f"{right.token_ids[at]}{'' if margin is None else f' (the margin of the reference there is {margin:.4f} nats)'}"
    )
    return Compared(who, Match.MISMATCH, text, at)
