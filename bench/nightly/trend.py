"""Where a series of nights changed: steps and drifts, with few false alarms. Pure.

1. **Test.** Is the order of the nights chance? Two statistics of ranks (``ranks.py``): the largest difference between
   the nights before and after a place, and between an interval and the rest. Limits come from all orders being equally
   likely (``limits.py``), and hold for any noise, heavy tails and outliers included, if nights are independent.
2. **Nights that resemble their neighbours.** Independent they are not if a machine is slow for some days. The
   correlation of neighbours is estimated, a little too high on purpose, from what is left when the likeliest levels are
   taken away, and is taken out before the test: each night less that share of the night before (Robbins, Gallagher,
   Lund and Aue 2011).
3. **Several changes.** Where the test says that something changed, the series is divided there, and each part is looked
   at in the same way (circular binary segmentation: Olshen, Venkatraman, Lucito and Wigler 2004). Then each change is
   dated again between its neighbours.
4. **Step or drift.** ``ramp.py`` says which explains the nights better.

What it cannot: by ranks, the newest nights differ from chance only when there are enough of them. With 40 nights a step
is called after 6 or 7 at the strictest level of a page, with 200 after 4 or 5. The comparison with the last good night
is what looks at one night. ``python -m bench.trend`` measures all this.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

import numpy as np

from bench.nightly.limits import FEWEST, interval_limit, split_limit
from bench.nightly.ramp import pulled_in, ramp_instead
from bench.nightly.ranks import SHORTEST, Floats, interval_lengths, interval_statistics, scored, split_statistics

PAGE_ALPHA = 0.005
"""The probability that a page over even, independent nights names any change. Shared by all of its series."""
_LIKELY = 3.2
"""A split is taken for real, when levels are taken away to see the noise, from the limit of 1 % of even series on."""
_TOO_HIGH = 0.75
"""By how many standard errors (1 / sqrt(nights)) the correlation of neighbours is taken too high. Chosen by the false
alarms of correlated series, in bench/results/trend.md."""
_HIGHEST = 0.8
_BIAS = 2.0
"""Levels that are taken away from a series before its correlation is estimated: each makes the estimate too low by
(1 + 3 r) / nights (Kendall 1954)."""
_WINSOR = 2.5


class Kind(StrEnum):
    """How a series changed."""

    STEP = "step"
    DRIFT = "drift"


@dataclass(frozen=True, slots=True)
class Change:
    """One change of a series."""

    kind: Kind
    at: int
    """Index of the first night of the new level; of a drift, of the first night that is off the old level."""
    until: int
    """Index of the first night at the full new level; the same as ``at`` for a step."""
    before: float
    """Median of the level before."""
    after: float
    """Median of the level after."""


def changes(values: Sequence[float], alpha: float) -> tuple[Change, ...]:
    """The changes of a series, in order.

    ``values``: finite numbers, one a night, missing nights left out; ``alpha``: the probability that a change is found
    in a series that has none.
    """
    series = np.asarray(values, dtype=float)
    if len(series) < FEWEST or np.ptp(series) == 0:
        return ()
    if series.min() > 0:
        # A change is a ratio: latencies of 10 and 100 ms differ as those of 100 and 1000 ms do.
        series = np.log(series)
    starts = _dated(series, sorted(_starts(series, 0, correlation(series), alpha)))
    return tuple(_described(np.asarray(values, dtype=float), series, starts))


def correlation(series: Floats) -> float:
    """How much of a night's deviation the next night has, taken a little too high; 0 to 0.8."""
    starts = [_best_split(series)[1]]
    starts += [start for start in _likely(series) if start not in starts]
    parts = [part - np.median(part) for part in np.split(series, sorted(starts))]
    left = np.concatenate(parts)
    spread = _WINSOR * 1.4826 * float(np.median(np.abs(left)))
    left = np.clip(left, -spread, spread) if spread else left
    total = float(np.sum(left**2))
    if total == 0:
        return 0.0
    together = left[1:] * left[:-1]
    together[np.array(sorted(starts)) - 1] = 0.0
    size = len(left)
    found = float(np.sum(together)) / total * size / (size - len(parts))
    found += _BIAS * (1 + 3 * found) / size + _TOO_HIGH / np.sqrt(size)
    return float(np.clip(found, 0.0, _HIGHEST))


def _likely(series: Floats, offset: int = 0) -> Iterator[int]:
    """Where levels likely begin, by a test that is not strict."""
    if len(series) < 2 * SHORTEST + 2:
        return
    statistic, place = _best_split(series)
    if statistic > _LIKELY:
        yield offset + place
        yield from _likely(series[:place], offset)
        yield from _likely(series[place:], offset + place)


def _best_split(series: Floats) -> tuple[float, int]:
    found = split_statistics(scored(series))
    return float(found.max()), SHORTEST + int(np.argmax(found))


def _starts(series: Floats, offset: int, shared: float, alpha: float) -> Iterator[int]:
    """Where new levels begin, in this part of a series and within its parts."""
    if len(series) < FEWEST:
        return
    inner = _found(_whitened(series, shared), alpha)
    for begin, end in zip((0, *inner), (*inner, len(series)), strict=True):
        if begin:
            yield offset + begin
        if inner:
            yield from _starts(series[begin:end], offset + begin, shared, alpha)


def _whitened(series: Floats, shared: float) -> Floats:
    """Each night less a share of the night before; the first as if the night before had been like it."""
    before = np.concatenate([series[:1], series[:-1]])
    return np.asarray(series - shared * before)


def _found(series: Floats, alpha: float) -> tuple[int, ...]:
    """Where the series is divided: at one place, at the two ends of an interval, or (if its order is chance) nowhere.

    Half of the probability of a false alarm is spent on each of the two tests.
    """
    scores = scored(series)
    splits = split_statistics(scores)
    by_length = {length: interval_statistics(scores, length) for length in interval_lengths(len(series))}
    longest = max(by_length, key=lambda length: float(by_length[length].max()))
    of_split = float(splits.max()) / split_limit(len(series), alpha / 2)
    of_interval = float(by_length[longest].max()) / interval_limit(len(series), alpha / 2)
    if max(of_split, of_interval) <= 1:
        return ()
    begin = int(np.argmax(by_length[longest]))
    inside = begin >= SHORTEST and begin + longest <= len(series) - SHORTEST
    # An interval at an end of the series is a split.
    if inside and float(by_length[longest].max()) > float(splits.max()):
        return begin, begin + longest
    return (SHORTEST + int(np.argmax(splits)),)


def _dated(series: Floats, starts: Sequence[int]) -> list[int]:
    """Date each change again, between the changes before and after it.

    By values, because ranks cannot tell whether the largest of the low nights belongs to the low or to the high ones.
    """
    dated, series = list(starts), pulled_in(series)
    for number in range(len(dated)):
        begin = dated[number - 1] if number else 0
        end = dated[number + 1] if number + 1 < len(dated) else len(series)
        if end - begin >= 2 * SHORTEST:
            part = series[begin:end]
            dated[number] = begin + SHORTEST + int(np.argmax(split_statistics(part - part.mean())))
    return dated


def _described(values: Floats, series: Floats, starts: Sequence[int]) -> Iterator[Change]:
    edges = [0, *starts, len(values)]
    levels = [float(np.median(values[a:b])) for a, b in pairwise(edges)]
    for group in _same_way(levels):
        first, last = group[0], group[-1]
        begin, end = edges[first], edges[last + 2]
        ramp = ramp_instead(series[begin:end], [edges[number + 1] - begin for number in group])
        if ramp is None:
            for n in group:
                yield Change(Kind.STEP, edges[n + 1], edges[n + 1], levels[n], levels[n + 1])
        else:
            yield _drift(values[begin:end], ramp.begin, ramp.end, begin)


def _drift(values: Floats, begin: int, end: int, offset: int) -> Change:
    """A drift with its levels: where it reaches an end of the nights, those of the nights next to that end."""
    before, after = values[: max(begin + 1, SHORTEST)], values[min(end, len(values) - SHORTEST) :]
    return Change(Kind.DRIFT, offset + begin + 1, offset + end, float(np.median(before)), float(np.median(after)))


def _same_way(levels: Sequence[float]) -> Iterator[list[int]]:
    """Groups of changes that follow each other in the same direction; change n leads from level n to level n + 1."""
    group: list[int] = []
    for number in range(len(levels) - 1):
        rises = levels[number + 1] > levels[number]
        if group and rises != (levels[group[-1] + 1] > levels[group[-1]]):
            yield group
            group = []
        group.append(number)
    if group:
        yield group
