"""Which trials a selftest runs. Pure; the same options give the same trials."""

from collections.abc import Sequence
from dataclasses import dataclass

from harness.errors import UsageError
from harness.selftest.loads import LOADS, load_for
from harness.selftest.trial import FLIP_RATE, Trial
from harness.sim import BUGS

STRIKES = 10
"""Bad requests expected in a trial; its load is as long as that takes, as far as ``requests`` goes."""


@dataclass(frozen=True, slots=True)
class SelftestOptions:
    """What the user asked for."""

    bugs: tuple[str, ...] = ()
    """Empty: all of them."""
    one_in: tuple[int, ...] = (20, 200)
    """Rates: one bad request in so many."""
    requests: int = 2000
    """Of a trial, at most."""
    repeats: int = 1
    """Trials of each bug at each rate, with seeds of their own."""
    clean_requests: int = 20_000
    """Of all clean trials together."""
    flip_rate: float = FLIP_RATE
    seed: int = 0
    jobs: int = 1


def plan_trials(options: SelftestOptions) -> list[Trial]:
    """All trials: planted bugs first, clean twins after them.

    Raises:
        UsageError: a bug that is not in the table.

    """
    bugs = options.bugs or tuple(BUGS)
    if unknown := [bug for bug in bugs if bug not in BUGS]:
        raise UsageError(f"No such bug: {', '.join(unknown)}. There are: {', '.join(BUGS)}.")
    return [*_planted(bugs, options), *_clean(bugs, options)]


def _planted(bugs: Sequence[str], options: SelftestOptions) -> list[Trial]:
    return [
        Trial(
            load_for(bug),
            bug,
            1 / one_in,
            min(options.requests, round(STRIKES * one_in / load_for(bug).susceptible)),
            options.seed + repeat,
            options.flip_rate,
        )
        for bug in bugs
        for one_in in options.one_in
        for repeat in range(options.repeats)
    ]


def _clean(bugs: Sequence[str], options: SelftestOptions) -> list[Trial]:
    """Every load that is needed in turn, at least once."""
    needed = {load_for(bug).name for bug in bugs}
    loads = [load for load in LOADS if load.name in needed]
    count = max(-(-options.clean_requests // options.requests), len(loads))
    return [
        Trial(loads[index % len(loads)], None, 0.0, options.requests, options.seed + index, options.flip_rate)
        for index in range(count)
    ]
