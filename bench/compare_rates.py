"""Measures how often `compare` calls a change real that is none, and how often it finds one that is. No server.

    python -m bench.compare_rates --repeats 1000

Each repeat draws two sets of runs and compares them as `compare` does: five primary metrics and fourteen others, which
share most of their noise, because a busy machine slows all of them. Kinds of noise between runs:

    normal   independent runs, logarithms normally distributed
    heavy    Student's t with 2 degrees of freedom: a run now and then is far off
    skewed   logarithmically normal logarithms: off to one side
    modes    two runs of five on a machine in a slow mode, 15 % slower
    drift    a straight drift from the first run to the last, by one standard deviation a run
    walk     each run differs from the one before: a random walk
    related  neighbours are correlated by 0.8

Runs are made in turns (A B A B) or all of one side first. Printed for each are repeats in 1,000 with an alarm, alarms
of all metrics in 1,000 repeats, repeats that cannot be told, and for slowdowns of one primary metric the share found.
The probability of more than one alarm in twenty repeats is computed from draws of twenty of the repeats.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import product
from multiprocessing import get_context

import numpy as np
import numpy.typing as npt

from harness.compare.evidence import Answer, Evidence, Sides, judge_family
from harness.compare.metrics import Family

Floats = npt.NDArray[np.float64]
Draw = Callable[[np.random.Generator, int], Floats]
PRIMARY, FURTHER = 5, 14
_SHARED = 0.8
"""Part of the noise that all metrics of a run share; the rest, such that the variance stays 1, is each metric's own."""
TWENTY = 20


def _modes(rng: np.random.Generator, runs: int) -> Floats:
    return np.where(rng.random(runs) < 0.4, 7.5, 0.0) + rng.standard_normal(runs) / 4


def _related(rng: np.random.Generator, runs: int) -> Floats:
    values = rng.standard_normal(runs)
    for place in range(1, runs):
        values[place] = 0.8 * values[place - 1] + 0.6 * values[place]
    return values


KINDS: dict[str, Draw] = {
    "normal": lambda rng, runs: rng.standard_normal(runs),
    "heavy": lambda rng, runs: rng.standard_t(2, runs),
    "skewed": lambda rng, runs: np.exp(rng.standard_normal(runs)),
    "modes": _modes,
    "drift": lambda rng, runs: rng.standard_normal(runs) + np.arange(runs),
    "walk": lambda rng, runs: np.cumsum(rng.standard_normal(runs)),
    "related": _related,
}
"""Noise of runs in the order of time, in units of the scatter; a mode of 7.5 is 15 % at a scatter of 2 %."""
_OF_THE_MACHINE = ("drift", "walk")
"""Kinds in which only what metrics share moves with time; what is each metric's own is normal."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What is drawn."""

    kind: str
    turns: bool
    """Whether the sides take turns; else one is older than the other."""
    scatter: float = 0.02
    """Standard deviation of a run's logarithms."""
    slowdown: float = 0.0
    """By which share one primary metric of the second side is slower."""
    runs: int = 5
    """On each side."""


@dataclass(frozen=True, slots=True)
class Rates:
    """What became of the repeats of one setting."""

    setting: Setting
    alarms: tuple[int, ...]
    """Metrics called real in each repeat, without the one that was slowed."""
    unknown: float
    """Share of repeats in which something cannot be told."""
    found: float
    """Share of repeats in which the slowed metric is called real."""

    @property
    def repeats_with_alarm(self) -> float:
        """Share of repeats."""
        return float(np.mean(np.array(self.alarms) > 0))

    @property
    def more_than_one_in_twenty(self) -> float:
        """Probability that twenty repeats give more than one alarm in total."""
        drawn = np.random.default_rng(0).choice(self.alarms, (20_000, TWENTY))
        return float((drawn.sum(axis=1) > 1).mean())


def draw_family(rng: np.random.Generator, setting: Setting, shared: Floats, members: int) -> Iterator[Sides]:
    """The sides of some metrics; ``shared``: noise that they have in common, shape (2 * runs,), in order of time."""
    number = 2 * setting.runs
    second = np.arange(number) % 2 == 1 if setting.turns else np.arange(number) >= setting.runs
    own_kind = "normal" if setting.kind in _OF_THE_MACHINE else setting.kind
    times = np.arange(number, dtype=np.float64)
    for member in range(members):
        own = KINDS[own_kind](rng, number)
        noise = setting.scatter * (_SHARED * shared + np.sqrt(1 - _SHARED**2) * own)
        values = np.exp(noise) * np.where(second & (member == 0), 1 + setting.slowdown, 1.0)
        yield Sides(tuple(values[~second]), tuple(values[second]), times=(tuple(times[~second]), tuple(times[second])))


def one_repeat(seed: Sequence[int], setting: Setting) -> tuple[list[Evidence], list[Evidence]]:
    """The evidence of the primary metrics, the first of which is slowed, and of the others."""
    rng = np.random.default_rng(seed)
    shared = KINDS[setting.kind](rng, 2 * setting.runs)
    primary = judge_family(list(draw_family(rng, setting, shared, PRIMARY)), Family.PRIMARY.level)
    if setting.slowdown:
        # Another family's metrics change nothing in what is found in this one.
        return primary, []
    return primary, judge_family(list(draw_family(rng, setting, shared, FURTHER)), Family.FURTHER.level)


def measure(setting: Setting, repeats: int, seed: int) -> Rates:
    """Draw and compare so many times."""
    alarms, unknown, found = [], 0, 0
    for number in range(repeats):
        primary, further = one_repeat((seed, number), setting)
        every = [one.answer for one in (*primary, *further)]
        slowed = bool(setting.slowdown) and every[0] is Answer.REAL
        alarms.append(sum(answer is Answer.REAL for answer in every) - slowed)
        unknown += Answer.UNKNOWN in every
        found += slowed
    return Rates(setting, tuple(alarms), unknown / repeats, found / repeats)


def _row(rates: Rates) -> str:
    setting = rates.setting
    order = "in turns" if setting.turns else "one side first"
    if setting.slowdown:
        return f"| {setting.scatter:.0%} | {setting.slowdown:.0%} | {order} | {rates.found:.1%} |"
    return (
        f"| {setting.kind} | {order} | {rates.repeats_with_alarm * 1000:.1f} | {np.mean(rates.alarms) * 1000:.1f} | "
        f"{rates.more_than_one_in_twenty:.2%} | {rates.unknown:.1%} |"
    )


_HEADERS = {
    False: "| noise between runs | order | repeats with an alarm, of 1,000 | alarms in 1,000 repeats | more than one "
    "alarm in twenty repeats | cannot be told |\n|---|---|---|---|---|---|",
    True: "| scatter of runs | slowdown | order | found |\n|---|---|---|---|",
}
"""Of the tables without and with a slowdown."""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print two Markdown tables. Exit code 1 if twenty repeats give more than one alarm too often."""
    flags = _parser().parse_args(argv)
    still = [Setting(kind, turns) for turns, kind in product((True, False), KINDS)]
    slowed = [
        Setting("normal", turns, scatter, slowdown)
        for scatter, slowdown, turns in product((0.01, 0.02, 0.03), (0.03, 0.05, 0.1, 0.2), (True, False))
    ]
    settings = [*still, *slowed]
    print(_HEADERS[False])
    with ProcessPoolExecutor(flags.jobs, mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(measure, setting, flags.repeats, flags.seed) for setting in settings]
        done = []
        for setting, job in zip(settings, jobs, strict=True):
            if setting == slowed[0]:
                print(f"\n{_HEADERS[True]}")
            done.append(job.result())
            print(_row(done[-1]), flush=True)
    return int(any(one.more_than_one_in_twenty > flags.allowed for one in done[: len(still)]))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=1000, help="of each setting (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="processes (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    text = "largest probability of more than one alarm in twenty repeats (default: %(default)s)"
    parser.add_argument("--allowed", type=float, default=0.05, help=text)
    return parser


if __name__ == "__main__":
    sys.exit(main())
