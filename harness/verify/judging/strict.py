"""An output beside a reference: the same request decoded again without transfer. Token for token, by ids, not text.

This is the strict comparison, for a run that measures no noise: who measures none is granted none.
"""

from harness.history import Choice, Operation, Outcome
from harness.verify.judging.compared import Compared, Match
from harness.verify.judging.forcing import NO_IDS


def compare_with_reference(operation: Operation, reference: Operation) -> Compared:
    """Whether every choice has the reference's tokens."""
    who = operation.request.request_id
    if reference.outcome is not Outcome.OK:
        return Compared(who, Match.UNVERIFIED, f"its reference did not complete: {reference.ended.cause}")
    served, right = operation.ended.choices, reference.ended.choices
    if not all(choice.token_ids for choice in (*served, *right)) or not served:
        return Compared(who, Match.UNVERIFIED, NO_IDS)
    if len(served) != len(right):
        return Compared(who, Match.MISMATCH, f"it has {len(served)} choices, its reference has {len(right)}")
    for one, other in zip(served, right, strict=True):
        if one.token_ids != other.token_ids:
            return _differing(who, one, other)
    return Compared(who, Match.EXACT)


def first_difference(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    """The first place where they differ; the shorter one's length where it is the beginning of the other."""
    pairs = zip(one, other, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def _differing(who: str, served: Choice, right: Choice) -> Compared:
    at = first_difference(served.token_ids, right.token_ids)
    if at == min(len(served.token_ids), len(right.token_ids)):
        text = f"it has {len(served.token_ids)} tokens where its reference has {len(right.token_ids)}, equal so far"
        return Compared(who, Match.MISMATCH, text, at)
    text = (
        f"first differs from its reference at output token {at}: {served.token_ids[at]} "
        f"instead of {right.token_ids[at]}{_margin(right, at)}"
    )
    return Compared(who, Match.MISMATCH, text, at)


def _margin(right: Choice, at: int) -> str:
    logprob = right.logprobs[at] if at < len(right.logprobs) else None
    if logprob is None or logprob.runner_up is None:
        return ""
    return f" (the reference's margin there was {logprob.logprob - logprob.runner_up:.4f} nats)"
