"""Whether the outputs are right: token ids through the proxy against the same prompt without transfer.

Token ids and not text: two token sequences can read the same. A reference is a request of its own that names the
request it is for. What has no completed reference, or brought no token ids, is unverified, and a run with anything
unverified is not valid.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto

from harness.facts import Deployment
from harness.history import Choice, History, Operation, Outcome
from harness.scenario import Route
from harness.verdict import Check, Finding, Outputs, Verdict

_LISTED = 50
"""Findings kept: see :mod:`harness.checkers.completion`."""


class Match(Enum):
    """How an output compares with its reference."""

    EXACT = auto()
    MISMATCH = auto()
    UNVERIFIED = auto()


@dataclass(frozen=True, slots=True)
class Compared:
    """One request's output beside its reference's."""

    request_id: str
    match: Match
    text: str = ""
    """What is wrong, or why it could not be verified."""


def outputs(deployment: Deployment, history: History) -> Check:  # noqa: ARG001 - checkers share one signature
    """Every output equal to its reference, token for token."""
    compared = tuple(compare_outputs(history))
    counts = count_outputs(compared)
    wrong = sorted(
        (one for one in compared if one.match is not Match.EXACT), key=lambda one: one.match is not Match.MISMATCH
    )
    findings = tuple(Finding(one.request_id, one.text) for one in wrong[:_LISTED])
    return Check("outputs", _verdict(counts), _summary(counts, findings), findings=findings)


def compare_outputs(history: History) -> Iterator[Compared]:
    """Each completed request of the path under test, and any other that has a reference, in the order sent."""
    operations = history.operations()
    references = {o.request.reference_for: o for o in operations if o.request.reference_for is not None}
    for operation in operations:
        request = operation.request
        to_verify = request.route is Route.PROXY and request.reference_for is None
        if (to_verify or request.request_id in references) and operation.outcome is Outcome.OK:
            yield _compare(operation, references.get(request.request_id))


def count_outputs(compared: tuple[Compared, ...]) -> Outputs:
    """How many are right."""
    matches = [one.match for one in compared]
    return Outputs(
        requests=len(matches),
        exact=matches.count(Match.EXACT),
        tie=0,
        mismatch=matches.count(Match.MISMATCH),
        unverified=matches.count(Match.UNVERIFIED),
    )


def _compare(operation: Operation, reference: Operation | None) -> Compared:
    who = operation.request.request_id
    if reference is None:
        return Compared(who, Match.UNVERIFIED, "it has no reference")
    if reference.outcome is not Outcome.OK:
        return Compared(who, Match.UNVERIFIED, f"its reference did not complete: {reference.ended.cause}")
    served, right = operation.ended.choices, reference.ended.choices
    if not all(choice.token_ids for choice in (*served, *right)) or not served:
        return Compared(who, Match.UNVERIFIED, "its answer or its reference's carries no token ids")
    if len(served) != len(right):
        text = f"it has {len(served)} choices, its reference has {len(right)}"
        return Compared(who, Match.MISMATCH, text)
    differences = (_difference(one, other) for one, other in zip(served, right, strict=True))
    text = next(filter(None, differences), "")
    return Compared(who, Match.MISMATCH if text else Match.EXACT, text)


def _difference(served: Choice, right: Choice) -> str:
    """The first divergence in words; empty when there is none."""
    if served.token_ids == right.token_ids:
        return ""
    pairs = zip(served.token_ids, right.token_ids, strict=False)
    at = next((i for i, (one, other) in enumerate(pairs) if one != other), None)
    if at is None:
        return f"it has {len(served.token_ids)} tokens where its reference has {len(right.token_ids)}, equal so far"
    return (
        f"first differs from its reference at output token {at}: {served.token_ids[at]} "
        f"instead of {right.token_ids[at]}{_margin(right, at)}"
    )


def _margin(right: Choice, at: int) -> str:
    logprob = right.logprobs[at] if at < len(right.logprobs) else None
    if logprob is None or logprob.runner_up is None:
        return ""
    return f" (the reference's margin there was {logprob.logprob - logprob.runner_up:.4f} nats)"


def _verdict(counts: Outputs) -> Verdict:
    if counts.mismatch:
        return Verdict.INVALID
    return Verdict.VALID if counts.exact and not counts.unverified else Verdict.UNKNOWN


def _summary(counts: Outputs, findings: tuple[Finding, ...]) -> str:
    line = f"{counts.exact:,} of {counts.requests:,} outputs equal their reference token for token"
    if counts.mismatch:
        line += f", {counts.mismatch:,} differ"
    if counts.unverified:
        line += f", {counts.unverified:,} unverified"
    return f"{line}; {findings[0].subject} {findings[0].text}" if findings else line
