"""Limits that a user sets to a change: ``p99_ttft:+10%``, ``output_throughput:-5%``, ``p99_itl:+2ms``, ``mismatch:+0``.

A limit is BROKEN only if the whole interval of the change lies beyond it, and KEPT only if the whole interval lies
within it. Anything else cannot be told. The intervals of several limits hold together with 95 %. They rest on the runs'
values being roughly normally distributed, and need three runs on a side, or two on both. A single run is taken to
scatter as the runs of the other side do.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
import numpy.typing as npt
from scipy import stats

from harness.compare.evidence import Sides, as_share, interval
from harness.compare.metrics import Family
from harness.compare.outputs import OutputsChange
from harness.errors import UsageError

CONFIDENCE = 0.95
_MOST_RUNS = 200
OUTPUTS = "outputs"
"""The name under which outputs that differ between the sides are limited."""
_FORM = re.compile(r"(?P<metric>[\w.]+):(?P<sign>[+-])(?P<amount>\d+(?:\.\d+)?)(?P<unit>%|ms|s|/s|us)?")
_FACTOR = {"us": 1e-3, "ms": 1.0, "s": 1e3}
"""Times are compared in milliseconds."""
_FITTING = {"ms": tuple(_FACTOR), "/s": ("/s",)}
"""By a metric's unit, in which units it can be limited; all can without one, and in percent."""


class Kept(StrEnum):
    """Whether a limit was kept."""

    KEPT = "kept"
    BROKEN = "broken"
    UNKNOWN = "cannot be told"


@dataclass(frozen=True, slots=True)
class Threshold:
    """One limit."""

    metric: str
    up: bool
    """Whether the change must not be larger than ``amount``; else not smaller than ``-amount``."""
    amount: float
    """A share if ``relative``, else in the metric's unit."""
    relative: bool
    text: str
    """As the user wrote it."""
    unit: str = ""
    """As the user wrote it; empty: the metric's own."""

    @classmethod
    def parse(cls, text: str) -> "Threshold":
        """Raises UsageError."""
        found = _FORM.fullmatch(text.strip())
        if found is None:
            raise UsageError(
                f"--fail-on {text!r} cannot be read. Give a metric, a sign and an amount, as in p99_ttft:+10%, "
                "p99_itl:+2ms, output_throughput:-5% or mismatch:+0."
            )
        unit, amount = found["unit"] or "", float(found["amount"])
        if unit == "%" and found["sign"] == "-" and amount >= 100:
            raise UsageError(f"--fail-on {text!r} can never be exceeded: nothing falls by more than 100 %.")
        factor = 0.01 if unit == "%" else _FACTOR.get(unit, 1.0)
        return cls(found["metric"], found["sign"] == "+", amount * factor, unit == "%", text, unit)

    def require_unit(self, unit: str) -> None:
        """Raises UsageError if the limit is in another unit than the metric's: it would limit something else."""
        if self.unit in ("", "%", *_FITTING.get(unit, ())):
            return
        what = f"is in {unit}" if unit else "is a number"
        raise UsageError(f"--fail-on {self.text}: {self.metric} {what}, and cannot be limited in {self.unit}.")


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit beside the evidence."""

    threshold: Threshold
    kept: Kept
    why: str
    more_runs: int | None = None
    """How many runs each side needs, if the scatter and the change stay as they are; None: not known, or more than
    200."""


def judge_limit(threshold: Threshold, sides: Sides, family: Family, limits: int = 1) -> Limit:
    """Whether the limit was kept; ``limits``: how many there are, whose intervals are to hold together."""
    if family is Family.RATES and not threshold.relative:
        return _counted(threshold, sides)
    if not sides.several:
        if len({*sides.baseline, *sides.run}) == 1:
            return Limit(threshold, Kept.KEPT, "it is the same in all runs")
        why = "the noise between runs is not known from one run on each side: give at least 3 runs of each"
        return Limit(threshold, Kept.UNKNOWN, why, 3)
    scaled = _scaled(threshold, sides)
    if scaled is None:
        return Limit(threshold, Kept.UNKNOWN, "a value of 0 has no change in percent: give an amount")
    ends = interval(scaled, 1 - (1 - CONFIDENCE) / limits)
    assert ends is not None, "several runs have a scatter"  # noqa: S101 - for the type checker
    low, high = (as_share(end) for end in ends) if threshold.relative else ends
    kept = _kept(threshold, low, high)
    shown = f"{low:+.1%} to {high:+.1%}" if threshold.relative else f"{low:+.3g} to {high:+.3g}"
    needed = _needed(threshold, scaled, limits) if kept is Kept.UNKNOWN else None
    return Limit(threshold, kept, f"the change is {shown}", needed)


def judge_outputs(threshold: Threshold, outputs: OutputsChange) -> Limit:
    """A limit on outputs that differ between the sides and are no near ties."""
    threshold.require_unit("")
    if threshold.relative or not threshold.up:
        raise UsageError(f"--fail-on {threshold.text}: outputs can only be limited by a number, as in outputs:+0.")
    if not outputs.shared:
        return Limit(threshold, Kept.UNKNOWN, "the runs have no request in common")
    wrong, unexplained = outputs.wrong_in_run, outputs.unexplained
    why = f"{wrong} are wrong in the run only, and {unexplained} differ and were not verified on both sides"
    kept = Kept.BROKEN if wrong > threshold.amount else Kept.UNKNOWN
    return Limit(threshold, Kept.KEPT if wrong + unexplained <= threshold.amount else kept, why)


def _counted(threshold: Threshold, sides: Sides) -> Limit:
    """A limit on a count: a wrong output is evidence by itself."""
    difference = float(np.mean(sides.run) - np.mean(sides.baseline))
    beyond = difference > threshold.amount if threshold.up else difference < -threshold.amount
    return Limit(threshold, Kept.BROKEN if beyond else Kept.KEPT, f"{difference:+.3g} for each run")


def _scaled(threshold: Threshold, sides: Sides) -> Sides | None:
    """The values on the limit's scale: their logarithms for a limit in percent; None: a value has none."""
    scaled = replace(sides, plain=not threshold.relative)
    return scaled if scaled.relative == threshold.relative else None


def _kept(threshold: Threshold, low: float, high: float) -> Kept:
    if not threshold.up:
        low, high = -high, -low
    if low > threshold.amount:
        return Kept.BROKEN
    return Kept.KEPT if high <= threshold.amount else Kept.UNKNOWN


def _needed(threshold: Threshold, sides: Sides, limits: int) -> int | None:
    """The fewest runs on each side whose interval would not contain the limit."""
    baseline, run = sides.scaled
    spread = math.sqrt((_variance(baseline) + _variance(run)) or 0.0)
    signed = threshold.amount if threshold.up else -threshold.amount
    limit = math.log1p(signed) if threshold.relative else signed
    room = abs(sides.difference - limit)
    tail = (1 - CONFIDENCE) / limits / 2
    for runs in range(2, _MOST_RUNS + 1):
        if stats.t.isf(tail, 2 * runs - 2) * spread / math.sqrt(runs) < room:
            return max(runs, len(baseline) + 1, len(run) + 1)
    return None


def _variance(values: npt.NDArray[np.float64]) -> float:
    return float(values.var(ddof=1)) if len(values) > 1 else 0.0


def parse_thresholds(texts: Sequence[str]) -> tuple[Threshold, ...]:
    """Raises UsageError."""
    return tuple(map(Threshold.parse, texts))
