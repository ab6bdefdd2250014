"""An output compared with its teacher forcing and with its reference.

Teacher forcing shows for every token whether it is the right one and how far its log-probability is off. The reference,
decoded by a server that received no KV, also shows whether the server received the prompt that was sent, and whether
the answer ended at the right place. The first case that applies decides:

    another prompt than that of the reference               mismatch
    forcing finds a wrong token or log-probability          mismatch, even if all tokens equal those of the reference
    every token equals that of the reference                the result of forcing
    one ended earlier, and all tokens so far are equal      mismatch
    at the first difference the margin of the reference
    is within the noise                                     tie: all later tokens follow from it, and were forced
    any other first difference                              mismatch

Without a noise floor no margin is within the noise, and a difference is unverified if forcing leaves it unverified.
Where tokens are sampled (a temperature above 0), only the prompt is compared.
"""

import math
from dataclasses import replace

from harness.history import Operation, Outcome
from harness.verify.judging.compare_forced import Bounds
from harness.verify.judging.compare_reference import compare_with_reference, first_difference, margin_at
from harness.verify.judging.compared import RIGHT, Compared, Match
from harness.verify.judging.limits import RESOLUTION


def compare_with_both(
    operation: Operation, reference: Operation, forced: Compared, floor: Bounds | str | None
) -> Compared:
    """The result by both. ``forced``: the result by teacher forcing."""
    if wrong_prompt := _wrong_prompt(operation, reference):
        return Compared(operation.request.request_id, Match.MISMATCH, wrong_prompt)
    if forced.match is Match.MISMATCH or operation.request.sampling.temperature > 0:
        return forced
    strict = compare_with_reference(operation, reference)
    if strict.match is not Match.MISMATCH:
        return _without_difference(operation, reference, forced, strict)
    within = floor.far.regret if isinstance(floor, Bounds) else RESOLUTION
    if (margin := _largest_margin(operation, reference)) is None:
        return replace(strict, text=f"{strict.text}: it ended elsewhere")
    if margin <= within and forced.match in RIGHT:
        return replace(forced, match=Match.TIE)
    return forced if forced.match is Match.UNVERIFIED else strict


def compare_unforced(operation: Operation, reference: Operation, floor: Bounds | str | None, failed: str) -> Compared:
    """The result by the reference alone.

    ``floor``: the limits of noise, or why there are none; None if the run has none. ``failed``: why its forcing failed;
    empty if it was not forced, as where a budget ends. In a run that forces outputs, a difference is left out, or
    unverified, where the reference's margin is within the noise or noise is not known: only forcing shows the rest.
    """
    strict = compare_with_reference(operation, reference)
    if floor is None or strict.match is not Match.MISMATCH or _wrong_prompt(operation, reference):
        return strict
    margin = _largest_margin(operation, reference)
    if isinstance(floor, Bounds) and margin is not None and floor.far.regret < margin < math.inf:
        return strict
    if failed:
        return replace(strict, match=Match.UNVERIFIED, text=f"{strict.text}; {failed}")
    return replace(strict, match=Match.LEFT_OUT, text=f"{strict.text}; it was not teacher-forced")


def _without_difference(operation: Operation, reference: Operation, forced: Compared, strict: Compared) -> Compared:
    """The result if the tokens are equal or the reference failed, which leaves prompt, end and echo unverified."""
    if strict.match is Match.UNVERIFIED:
        return strict if forced.match in RIGHT else forced
    pairs = zip(operation.ended.choices, reference.ended.choices, strict=True)
    if operation.request.sampling.echo and any(one.text != other.text for one, other in pairs):
        return replace(
            strict, match=Match.MISMATCH, text="its text is not the text of its reference, though the tokens are equal"
        )
    return strict if forced.match is Match.UNVERIFIED else forced


def _wrong_prompt(operation: Operation, reference: Operation) -> str:
    served, right = operation.prompt_token_ids, reference.ended.prompt_token_ids
    if reference.outcome is not Outcome.OK or served is None or right is None or served == right:
        return ""
    at = first_difference(served, right)
    return (
        f"the server received another prompt than was sent: {len(served)} tokens, and {len(right)} in its reference, "
        f"which differ from token {at} on"
    )


def _largest_margin(operation: Operation, reference: Operation) -> float | None:
    """The largest margin of the reference at the first difference of a choice, nats; infinite if one is not reported.

    None if a choice ended elsewhere, with equal tokens so far.
    """
    margins = []
    for one, other in zip(operation.ended.choices, reference.ended.choices, strict=False):
        at = first_difference(one.token_ids, other.token_ids)
        if at < min(len(one.token_ids), len(other.token_ids)):
            margin = margin_at(other, at)
            margins.append(math.inf if margin is None else margin)
        elif one.token_ids != other.token_ids:
            return None
    return max(margins, default=None)
