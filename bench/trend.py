"""How often the trends of the nightly page are wrong, and what they find.

    python -m bench.trend               the rates, on even, stepped and drifting series with several kinds of noise
    python -m bench.trend --limits      the table in bench/nightly/limits.py, from a million orders of each length

An even page has ``--series`` even series; it is wrong if any change is named on it. A step is found if exactly one
change is named, a step that is dated to the night or to one beside it.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np

from bench.nightly.ranks import Floats, interval_lengths, interval_statistics, normal_scores, split_statistics
from bench.nightly.trend import PAGE_ALPHA, Change, Kind, changes

Noise = Callable[[np.random.Generator, int], Floats]
LENGTHS = (12, 14, 17, 20, 25, 30, 40, 50, 70, 100, 140, 200, 280, 400)
ALPHAS = (1e-2, 1e-3, 1e-4, 2e-5)


def _correlated(share: float) -> Noise:
    def noise(rng: np.random.Generator, nights: int) -> Floats:
        found = np.empty(nights)
        last = rng.standard_normal() / np.sqrt(1 - share**2)
        for night in range(nights):
            last = share * last + rng.standard_normal()
            found[night] = last
        return found * np.sqrt(1 - share**2)

    return noise


def _outliers(rng: np.random.Generator, nights: int) -> Floats:
    """One night in twenty is 5 to 20 standard deviations too slow."""
    return rng.standard_normal(nights) + (rng.random(nights) < 0.05) * rng.uniform(5, 20, nights)


def _weekends(rng: np.random.Generator, nights: int) -> Floats:
    """Two nights of seven are quicker, as on a machine that others use on weekdays."""
    return rng.standard_normal(nights) - 1.5 * (np.arange(nights) % 7 >= 5)


def _two_machines(rng: np.random.Generator, nights: int) -> Floats:
    """Each night runs on one of two machines, by chance, which differ by four standard deviations."""
    return rng.standard_normal(nights) + 4 * (rng.random(nights) < 0.4)


def _growing(rng: np.random.Generator, nights: int) -> Floats:
    """Later nights vary more: up to three times as much."""
    return rng.standard_normal(nights) * np.linspace(1, 3, nights) / 2


NOISE: Mapping[str, Noise] = {
    "normal": lambda rng, nights: rng.standard_normal(nights),
    "student, 3 degrees": lambda rng, nights: rng.standard_t(3, nights),
    "student, 1.5 degrees": lambda rng, nights: rng.standard_t(1.5, nights),
    "lognormal": lambda rng, nights: np.exp(rng.standard_normal(nights)) - 1,
    "outliers": _outliers,
    "rounded to 1 deviation": lambda rng, nights: np.round(rng.standard_normal(nights)),
    "two machines": _two_machines,
    "varies more and more": _growing,
    "weekends": _weekends,
    "neighbours 0.2": _correlated(0.2),
    "neighbours 0.3": _correlated(0.3),
    "neighbours 0.5": _correlated(0.5),
    "neighbours 0.7": _correlated(0.7),
}


@dataclass(frozen=True, slots=True)
class Case:
    """Series of one kind."""

    noise: str
    nights: int
    deviation: float
    """Standard deviation of a night, as a share of the level."""
    effect: float = 0.0
    """The change, as a share of the level."""
    at: int = 0
    """The first changed night."""
    drift: bool = False
    """Whether the change is a line from the first night to the last."""

    def series(self, seed: int) -> Floats:
        """One series; another seed draws another one."""
        # Seeds of a case do not depend on the order of the cases.
        rng = np.random.default_rng([seed, self.nights, *self.noise.encode()])
        level = 1 + self.effect * np.where(np.arange(self.nights) >= self.at, 1.0, 0.0)
        if self.drift:
            level = 1 + self.effect * np.linspace(0, 1, self.nights)
        return np.asarray(50 * level * np.maximum(1 + self.deviation * NOISE[self.noise](rng, self.nights), 0.05))


def even_pages(case: Case, pages: int, series: int) -> float:
    """The share of pages of even series on which a change is named."""
    alpha = PAGE_ALPHA / series
    wrong = sum(
        any(changes(case.series(page * series + n).tolist(), alpha) for n in range(series)) for page in range(pages)
    )
    return wrong / pages


def found(case: Case, seeds: int, series: int) -> tuple[float, float, float]:
    """Shares of series on which any change is named; exactly one step, dated to a night or the next; a drift."""
    every = [changes(case.series(10**6 + seed).tolist(), PAGE_ALPHA / series) for seed in range(seeds)]
    exact = [len(one) == 1 and _step_at(one[0], case.at) for one in every]
    drifts = [any(change.kind is Kind.DRIFT for change in one) for one in every]
    return float(np.mean([bool(one) for one in every])), float(np.mean(exact)), float(np.mean(drifts))


def _step_at(change: Change, night: int) -> bool:
    return change.kind is Kind.STEP and abs(change.at - night) <= 1


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables as Markdown."""
    parser = argparse.ArgumentParser(prog="python -m bench.trend", description=__doc__.partition("\n")[0])
    parser.add_argument("--limits", action="store_true", help="compute the table of limits instead")
    parser.add_argument("--series", type=int, default=30, help="series on a page (default: 30)")
    parser.add_argument("--pages", type=int, default=200, help="even pages of each kind (default: 200)")
    parser.add_argument("--seeds", type=int, default=300, help="changed series of each kind (default: 300)")
    given = parser.parse_args(argv)
    for line in _limits() if given.limits else _rates(given.pages, given.seeds, given.series):
        print(line, flush=True)
    return 0


def _rates(pages: int, seeds: int, series: int) -> Iterator[str]:
    with ProcessPoolExecutor() as pool:
        yield f"Even pages of {series} series on which a change is named (of {pages} pages):\n"
        yield "| noise | 40 nights | 120 nights |"
        yield "|---|--:|--:|"
        for noise in NOISE:
            cases = [Case(noise, nights, 0.04) for nights in (40, 120)]
            shares = pool.map(even_pages, cases, [pages] * 2, [series] * 2)
            yield f"| {noise} | {' | '.join(f'{share:.1%}' for share in shares)} |"
        yield f"\nSteps, as named on a page of {series} series (of {seeds} series each):"
        yield "any change / exactly one step, dated to its night or one beside it:\n"
        yield from _steps(pool, seeds, series)
        yield "\nDrifts over all nights: any change / said to be a drift:\n"
        yield from _drifts(pool, seeds, series)


_AT = ((40, 20), (40, 30), (40, 34), (40, 10), (120, 60), (120, 112), (120, 115))


def _steps(pool: ProcessPoolExecutor, seeds: int, series: int) -> Iterator[str]:
    yield "| noise, deviation of a night, step | " + " | ".join(f"night {at} of {nights}" for nights, at in _AT) + " |"
    yield "|---|" + "--:|" * len(_AT)
    for noise in ("normal", "student, 3 degrees", "lognormal", "outliers", "weekends", "neighbours 0.3"):
        for deviation, effect in ((0.02, 0.05), (0.02, 0.1), (0.04, 0.1), (0.04, 0.2), (0.04, 0.5)):
            cases = [Case(noise, nights, deviation, effect, at) for nights, at in _AT]
            rates = pool.map(found, cases, [seeds] * len(cases), [series] * len(cases))
            cells = (f"{any_:.0%} / {exact:.0%}" for any_, exact, _ in rates)
            yield f"| {noise}, {deviation:.0%}, +{effect:.0%} | " + " | ".join(cells) + " |"


def _drifts(pool: ProcessPoolExecutor, seeds: int, series: int) -> Iterator[str]:
    yield "| noise, deviation of a night, drift | 40 nights | 120 nights |"
    yield "|---|--:|--:|"
    for noise in ("normal", "student, 3 degrees", "neighbours 0.3"):
        for deviation, effect in ((0.02, 0.1), (0.02, 0.2), (0.04, 0.5)):
            cases = [Case(noise, nights, deviation, effect, drift=True) for nights in (40, 120)]
            rates = pool.map(found, cases, [seeds] * 2, [series] * 2)
            cells = (f"{any_:.0%} / {drifts:.0%}" for any_, _, drifts in rates)
            yield f"| {noise}, {deviation:.0%}, +{effect:.0%} | " + " | ".join(cells) + " |"


def _limits(orders: int = 1_000_000, at_once: int = 10_000) -> Iterator[str]:
    rng = np.random.default_rng(1)
    for nights in LENGTHS:
        scores = normal_scores(nights).astype(np.float32)
        splits, intervals = [], []
        for _ in range(orders // at_once):
            shuffled = rng.permuted(np.broadcast_to(scores, (at_once, nights)), axis=1)
            splits.append(split_statistics(shuffled).max(-1))
            every = [interval_statistics(shuffled, length).max(-1) for length in interval_lengths(nights)]
            intervals.append(np.max(every, axis=0))
        yield f"    {nights}: ({_quantiles(splits)}, {_quantiles(intervals)}),"


def _quantiles(parts: Sequence[Floats]) -> str:
    found = np.quantile(np.concatenate(parts), [1 - alpha for alpha in ALPHAS])
    # Not rounded down: the strictest limits of few nights are the greatest possible value, which must not exceed them.
    return f"({', '.join(f'{round(float(value), 3) + 0.001:.3f}' for value in found)})"


if __name__ == "__main__":
    sys.exit(main())
