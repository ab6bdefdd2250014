"""Retries of wrong outputs without a known owner, under load and alone.

Each retry has a salt of its own, so that prefill computes the prompt anew and decode pulls all of it. In the phase
``retry-together`` as many requests are in flight as in the load; in ``retry-alone``, one. The answers are
teacher-forced like the load's, and the checker of outputs reports how many were wrong again.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from harness.history import History, Operation
from harness.scenario import Condition, Phase, Purpose, Request
from harness.verify.asking.options import Phases, Verification
from harness.verify.asking.outputs import asked_about, sent_through_proxy

RETRIED = 3
"""How many wrong outputs are retried (the first ones)."""
ALONE = 4
"""Retries of each wrong output with nothing else in flight."""


def retries(verification: Verification, history: History, wrong: Collection[str]) -> Phases:
    """Retries of the first wrong outputs that were not retried yet; ``wrong``: request ids."""
    new = set(wrong) - asked_about(history, Purpose.RETRY)
    chosen = [o for o in sent_through_proxy(history) if o.request.request_id in new][:RETRIED]
    if not chosen:
        return ()
    in_flight, salt = verification.in_flight(history), verification.how.salt
    turns = max(ALONE, in_flight // len(chosen))
    return (
        Phase("retry-together", tuple(_again(chosen, Condition.UNDER_LOAD, turns, salt)), in_flight, counted=False),
        Phase("retry-alone", tuple(_again(chosen, Condition.ALONE, ALONE, salt)), 1, counted=False),
    )


def _again(wrong: Sequence[Operation], condition: Condition, turns: int, salt: str) -> Iterator[Request]:
    for turn in range(turns):
        for output in wrong:
            who = output.request.request_id
            name = f"{who}-{condition}{turn}"
            yield replace(
                output.request,
                request_id=name,
                # The recorded prompt includes the earlier turns already.
                continues=None,
                cache_salt=f"{salt}-{name}",
                purpose=Purpose.RETRY,
                about=who,
                condition=condition,
            )
