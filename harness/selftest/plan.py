"""The trials of a selftest. Pure: the same options give the same trials."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from harness.errors import UsageError
from harness.selftest.loads import LOADS, load_for
from harness.selftest.trial import FLIP_RATE, Trial
from harness.sim import BUGS, KINDS, USUAL, check_kind

STRIKES = 10
"""Bad requests expected in a trial. They determine the size of its load, up to ``requests``."""
_LIGHT = USUAL, "none"
"""Kinds of noise without heavy tails. A bug that only moves log-probabilities is planted under these: with the others,
some outputs that are served right are off by as much."""


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
    noises: tuple[str, ...] = KINDS
    """Kinds of noise: the trials have each in turn."""
    flip_rate: float = FLIP_RATE
    """Of the kind ``usual``; other kinds have a fixed scale."""
    seed: int = 0
    jobs: int = 1


def plan_trials(options: SelftestOptions) -> list[Trial]:
    """All trials: first the trials with planted bugs, then the trials without.

    Raises:
        UsageError: no bug or kind of noise has this name.

    """
    bugs = options.bugs or tuple(BUGS)
    if unknown := [bug for bug in bugs if bug not in BUGS]:
        raise UsageError(f"No such bug: {', '.join(unknown)}. The bugs are {', '.join(BUGS)}.")
    noises = tuple(map(check_kind, options.noises))
    return [*_planted(bugs, noises, options), *_clean(bugs, noises, options)]


def _planted(bugs: Sequence[str], noises: Sequence[str], options: SelftestOptions) -> list[Trial]:
    """Trials with a bug. With as many repeats as kinds of noise, each bug is planted at each rate under every kind."""
    planned = product(bugs, options.one_in, range(options.repeats))
    return [
        Trial(
            load_for(bug),
            bug,
            1 / one_in,
            min(options.requests, round(STRIKES * one_in / load_for(bug).susceptible)),
            options.seed + repeat,
            options.flip_rate,
            _in_turn(_showing(bug, noises), number),
        )
        for number, (bug, one_in, repeat) in enumerate(planned)
    ]


def _showing(bug: str, noises: Sequence[str]) -> Sequence[str]:
    """The kinds of noise under which the bug can be told from noise; all of them if no other kind is wanted."""
    light = [noise for noise in noises if noise in _LIGHT]
    return light if light and BUGS[bug].signs == {"drift"} else noises


def _in_turn(noises: Sequence[str], number: int) -> str:
    return noises[number % len(noises)]


def _clean(bugs: Sequence[str], noises: Sequence[str], options: SelftestOptions) -> list[Trial]:
    """Trials without a bug, at least one under each load of the trials with bugs, and one under each kind of noise."""
    needed = {load_for(bug).name for bug in bugs}
    loads = [load for load in LOADS if load.name in needed]
    count = max(-(-options.clean_requests // options.requests), len(loads), len(noises))
    return [
        Trial(
            loads[index % len(loads)],
            None,
            0.0,
            options.requests,
            options.seed + index,
            options.flip_rate,
            # One further after each round of loads: else, of as many loads as kinds, each would meet one kind only.
            noises[(index + index // len(loads)) % len(noises)],
        )
        for index in range(count)
    ]
