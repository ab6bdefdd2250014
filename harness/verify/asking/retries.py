"""Does it happen again? A wrong output that has no owner, asked for once more: under load, and alone.

Each retry has a salt of its own, so that P computes the prompt anew and D pulls all of it. *Together*, as many as the
load had in flight are in flight at once; *alone*, one. Their answers are judged by teacher forcing as the load's are,
and the checker of outputs tells how many were wrong again.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from harness.history import Operation
from harness.scenario import Condition, Phase, Purpose, Request, Scenario

RETRIED = 3
"""Wrong outputs that are retried: the first ones."""
ALONE = 4
"""Retries of each with nothing else in flight."""
_PURPOSE = "Whether a wrong answer comes again, and whether it takes a load to bring it about."


def retries(scenario: str, suspects: Sequence[Operation], *, concurrency: int, salt: str) -> Scenario | None:
    """Retries of the first suspects; None without any."""
    chosen = suspects[:RETRIED]
    if not chosen:
        return None
    turns = max(ALONE, concurrency // len(chosen))
    phases = (
        Phase("retry-together", tuple(_again(chosen, Condition.UNDER_LOAD, turns, salt)), concurrency, counted=False),
        Phase("retry-alone", tuple(_again(chosen, Condition.ALONE, ALONE, salt)), 1, counted=False),
    )
    return Scenario(scenario, _PURPOSE, phases)


def _again(suspects: Sequence[Operation], condition: Condition, turns: int, salt: str) -> Iterator[Request]:
    for turn in range(turns):
        for suspect in suspects:
            who = suspect.request.request_id
            name = f"{who}-{condition}{turn}"
            yield replace(
                suspect.request,
                request_id=name,
                # A conversation's turn was sent with all that came before it.
                continues=None,
                cache_salt=f"{salt}-{name}",
                purpose=Purpose.RETRY,
                about=who,
                condition=condition,
            )
