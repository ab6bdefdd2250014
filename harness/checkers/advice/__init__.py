"""Under every verdict that is not valid: one likely cause, and what to do. Pure.

Advice is drawn from what is known in structure (comparisons, kinds of findings, how operations ended, readings, the
deployment's facts), never from the words of a summary. It decides no verdict: where the cause is the user's or
nobody's, it is the checkers that say ``unknown``.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from harness.checkers.advice.answers import SALTS, of_outputs
from harness.checkers.advice.context import Context
from harness.checkers.advice.counters import of_failed_transfers, of_nixl_bytes, of_offload_bytes, of_token_sources
from harness.checkers.advice.requests import CLIENT_HEALTH, of_completion, of_streaming
from harness.checkers.advice.rest import AFTER_A_DEATH, PROCESSES, PROVOKED, of_settled
from harness.facts import Deployment
from harness.history import History
from harness.verdict import Advice, Check, Verdict

_ADVISERS: Mapping[str, Callable[[Context], Advice | None]] = {
    "completion": of_completion,
    "outputs": of_outputs,
    "token_sources": of_token_sources,
    "nixl_bytes": of_nixl_bytes,
    "offload_bytes": of_offload_bytes,
    "failed_transfers": of_failed_transfers,
    "settled": of_settled,
    "streaming": of_streaming,
}
_ALWAYS: Mapping[str, Advice] = {
    "salts": SALTS,
    "client_health": CLIENT_HEALTH,
    "provoked": PROVOKED,
    "processes": PROCESSES,
}
"""Of checks that have one cause to speak of."""

_ANY = {
    Verdict.INVALID: Advice(
        "the deployment did not do what is expected of it",
        "look at the findings above and at the servers' logs of that time",
    ),
    Verdict.UNKNOWN: Advice(
        "a fact or a reading that this check needs is missing",
        "see the reason above, put it right, and run again",
    ),
}


def advised(
    deployment: Deployment, history: History, checks: Sequence[Check], *, asked: Iterable[str] | None = None
) -> tuple[Check, ...]:
    """The checks, each that is not valid with its advice. ``asked``: request ids that are looked at; None: all."""
    context = Context(deployment, history, tuple(checks), None if asked is None else frozenset(asked))
    return tuple(_advised(check, context) for check in checks)


def _advised(check: Check, context: Context) -> Check:
    if check.verdict is Verdict.VALID or check.advice is not None:
        return check
    if context.history.died and check.name in _ADVISERS and check.verdict is Verdict.UNKNOWN:
        return replace(check, advice=AFTER_A_DEATH)
    adviser = _ADVISERS.get(check.name)
    advice = adviser(replace(context, check=check)) if adviser else _ALWAYS.get(check.name)
    return replace(check, advice=advice or _ANY[check.verdict])
