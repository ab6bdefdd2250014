"""Advice for every check that is not valid: one likely cause, and what to do.

Advice is derived from structured evidence (comparisons, kinds of findings, endings of operations, readings, facts of
the deployment), never from the text of a summary. It does not change the verdict. Pure.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from harness.checkers.advice.answers import SALTS, of_outputs
from harness.checkers.advice.context import Context
from harness.checkers.advice.counters import of_failed_transfers, of_nixl_bytes, of_offload_bytes, of_token_sources
from harness.checkers.advice.faults import of_faults
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
    "faults": of_faults,
}
_ALWAYS: Mapping[str, Advice] = {
    "salts": SALTS,
    "client_health": CLIENT_HEALTH,
    "provoked": PROVOKED,
    "processes": PROCESSES,
}
"""Advice of checks that have a single likely cause."""
_DEFAULT = {
    Verdict.INVALID: Advice(
        "the deployment did not do what is expected of it",
        "look at the findings above and at the servers' logs of that time",
    ),
    Verdict.UNKNOWN: Advice(
        "a fact or a reading that this check needs is missing", "provide what the reason above names, and run again"
    ),
}


def advised(
    deployment: Deployment, history: History, checks: Sequence[Check], *, asked: Iterable[str] | None = None
) -> tuple[Check, ...]:
    """The checks, with advice where one is not valid. ``asked``: ids of the requests that were judged; None: all."""
    context = Context(deployment, history, tuple(checks), None if asked is None else frozenset(asked))
    return tuple(_advised(check, context) for check in checks)


def _advised(check: Check, context: Context) -> Check:
    if check.verdict is Verdict.VALID or check.advice is not None:
        return check
    if context.history.died and check.name in _ADVISERS and check.verdict is Verdict.UNKNOWN:
        return replace(check, advice=AFTER_A_DEATH)
    adviser = _ADVISERS.get(check.name)
    advice = adviser(replace(context, check=check)) if adviser else _ALWAYS.get(check.name)
    return replace(check, advice=advice or _DEFAULT[check.verdict])
