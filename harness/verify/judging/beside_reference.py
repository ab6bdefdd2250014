"""An output that has a reference, and is teacher-forced as well: what each of the two shows.

Teacher forcing tells of every token whether it is the right one, and how far its log-probability is off. The reference,
which a server that had no KV from anywhere decoded by itself, tells what forcing cannot: that the prompt was the one
that was asked, and that the answer ended where it had to. So, in this order:

    another prompt than the reference's                    mismatch
    a token or a log-probability that forcing finds wrong  mismatch: also where all tokens equal the reference's
    every token the reference's                            right, as forcing says
    tokens equal as far as the shorter one goes            mismatch: it ended elsewhere
    a first difference where the reference was undecided,
    its margin within the noise                            a tie: everything after it follows from it, and was forced
    any other first difference                             mismatch

Without a noise floor nothing is within the noise, and a difference is left unverified where forcing leaves it so.
Where tokens are drawn (a temperature above 0) only the prompt is compared.
"""

from dataclasses import replace

from harness.history import Choice, Operation, Outcome
from harness.verify.judging.compared import Compared, Match
from harness.verify.judging.floor import RESOLUTION, NoiseFloor
from harness.verify.judging.strict import compare_with_reference, first_difference

_RIGHT = (Match.EXACT, Match.TIE)


def judge_with_reference(
    operation: Operation, reference: Operation, forced: Compared, floor: NoiseFloor | str | None
) -> Compared:
    """``forced``: what teacher forcing says of it."""
    if told := _another_prompt(operation, reference):
        return Compared(operation.request.request_id, Match.MISMATCH, told)
    if forced.match is Match.MISMATCH or operation.request.sampling.temperature > 0:
        return forced
    strict = compare_with_reference(operation, reference)
    if strict.match is not Match.MISMATCH:
        return _agreed(operation, reference, forced, strict)
    within = floor.far.regret if isinstance(floor, NoiseFloor) else RESOLUTION
    if (undecided := _margin_at(operation, reference)) is None:
        return replace(strict, text=f"{strict.text}: it ended elsewhere")
    if undecided <= within and forced.match in _RIGHT:
        return replace(forced, match=Match.TIE)
    return forced if forced.match is Match.UNVERIFIED else strict


def _agreed(operation: Operation, reference: Operation, forced: Compared, strict: Compared) -> Compared:
    """The same tokens, or a reference that is of no use: then nothing shows the prompt, the end or the echo right."""
    if strict.match is Match.UNVERIFIED:
        return strict if forced.match in _RIGHT else forced
    pairs = zip(operation.ended.choices, reference.ended.choices, strict=True)
    if operation.request.sampling.echo and any(one.text != other.text for one, other in pairs):
        return replace(strict, match=Match.MISMATCH, text="its text is not its reference's, though its tokens are")
    return strict if forced.match is Match.UNVERIFIED else forced


def _another_prompt(operation: Operation, reference: Operation) -> str:
    served, right = operation.prompt_token_ids, reference.ended.prompt_token_ids
    if reference.outcome is not Outcome.OK or served is None or right is None or served == right:
        return ""
    at = first_difference(served, right)
    return (
        f"it was given another prompt than was asked: {len(served)} tokens beside {len(right)} of its reference, which "
        f"differ from token {at} on"
    )


def _margin_at(operation: Operation, reference: Operation) -> float | None:
    """The reference's margin where a choice first differs, nats; the largest. None where one ended before the other."""
    margins = []
    for one, other in zip(operation.ended.choices, reference.ended.choices, strict=False):
        at = first_difference(one.token_ids, other.token_ids)
        if at < min(len(one.token_ids), len(other.token_ids)):
            margins.append(_margin(other, at))
        elif one.token_ids != other.token_ids:
            return None
    return max(margins, default=None)


def _margin(choice: Choice, at: int) -> float:
    """How far the reference's token led there, nats; infinite where it does not say."""
    told = choice.logprobs[at] if at < len(choice.logprobs) else None
    return float("inf") if told is None or told.runner_up is None else told.logprob - told.runner_up
