"""The trials of a selftest. Pure: the same options give the same trials."""

from collections.abc import Sequence
from dataclasses import dataclass

from harness.errors import UsageError
from harness.selftest.loads import LOADS, load_for
from harness.selftest.trial import FLIP_RATE, Trial
from harness.sim import BUGS

STRIKES = 10
"""Bad requests expected in a trial. They determine the size of its load, up to ``requests``."""


@dataclass(frozen=True, slots=True)
class SelftestOptions:
    """The options of a selftest."""

    bugs: tuple[str, ...] = ()
    """Names of planted bugs. Empty: all of them."""
    one_in: tuple[int, ...] = (20, 200)
    """Rates of bad requests: 20 means one bad request in 20."""
    requests: int = 2000
    """The most requests of one trial."""
    repeats: int = 1
    """Trials of each bug at each rate, each with its own seed."""
    clean_requests: int = 20_000
    """Requests of all trials without a bug, together."""
    flip_rate: float = FLIP_RATE
    seed: int = 0
    jobs: int = 1


def plan_trials(options: SelftestOptions) -> list[Trial]:
    """All trials: first the trials with planted bugs, then the trials without.

    Raises:
        UsageError: no bug has this name.

    """
    bugs = options.bugs or tuple(BUGS)
    if unknown := [bug for bug in bugs if bug not in BUGS]:
        raise UsageError(f"No such bug: {', '.join(unknown)}. The bugs are {', '.join(BUGS)}.")
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
    """Trials without a bug, at least one under each load of the trials with bugs."""
    needed = {load_for(bug).name for bug in bugs}
    loads = [load for load in LOADS if load.name in needed]
    count = max(-(-options.clean_requests // options.requests), len(loads))
    return [
        Trial(loads[index % len(loads)], None, 0.0, options.requests, options.seed + index, options.flip_rate)
        for index in range(count)
    ]
