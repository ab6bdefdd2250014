"""How each metric changed between two sets of runs, and whether that is real. No I/O."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.compare.evidence import Answer, Evidence, Sides, judge_family
from harness.compare.metrics import LATENCIES, RATES, THROUGHPUTS, Family, Metric, counter
from harness.compare.stored_run import Share, StoredRun


@dataclass(frozen=True, slots=True)
class Change:
    """One metric on both sides."""

    metric: Metric
    sides: Sides
    evidence: Evidence

    @property
    def worse(self) -> bool:
        """Whether it changed for the worse, real or not."""
        sign = self.metric.higher_is_worse
        return sign is not None and self.evidence.difference != 0 and (self.evidence.difference > 0) == sign

    @property
    def gates(self) -> bool:
        """Whether a comparison without limits depends on it, and it is more than noise."""
        gating = self.metric.family in (Family.PRIMARY, Family.RATES)
        return gating and self.evidence.answer in (Answer.REAL, Answer.UNKNOWN)

    @property
    def real(self) -> bool:
        """Whether the change is real."""
        return self.evidence.answer is Answer.REAL


def changes_of(baseline: Sequence[StoredRun], run: Sequence[StoredRun]) -> Iterator[Change]:
    """The changes of all metrics that every run has, family by family; latencies of runs that have comparable ones."""
    timed = [one for one in baseline if not one.why_no_latencies], [one for one in run if not one.why_no_latencies]
    for family in Family:
        metrics = list(metrics_of(family, (*baseline, *run)))
        found = [(metric, _sides(metric, *(timed if metric.of_latency else (baseline, run)))) for metric in metrics]
        known = [(metric, sides) for metric, sides in found if sides is not None]
        for (metric, sides), evidence in zip(
            known, judge_family([sides for _, sides in known], family.level), strict=True
        ):
            yield Change(metric, sides, evidence)


def metrics_of(family: Family, runs: Sequence[StoredRun]) -> Iterator[Metric]:
    """The metrics of a family that these runs may have."""
    if family is Family.COUNTERS:
        yield from map(counter, dict.fromkeys(name for one in runs for name in one.counters))
    yield from (metric for metric in (*LATENCIES, *THROUGHPUTS, *RATES) if metric.family is family)


def _sides(metric: Metric, baseline: Sequence[StoredRun], run: Sequence[StoredRun]) -> Sides | None:
    """The metric's values; None if there is a run without it."""
    old, new = ([value for one in side if (value := _value(metric, one)) is not None] for side in (baseline, run))
    if not old or not new or len(old) < len(baseline) or len(new) < len(run):
        return None
    within = _scatter_within(metric, baseline, run)
    times = tuple(one.began for one in baseline), tuple(one.began for one in run)
    plain = metric.family is Family.RATES
    if plain:
        within = _scatter_of_share(total(baseline, metric), total(run, metric))
    return Sides(tuple(old), tuple(new), within, times, plain=plain)


def _scatter_within(metric: Metric, *sides: Sequence[StoredRun]) -> float | None:
    """The standard error within runs of the difference of the sides' means; None if a run does not know its own."""
    errors = [(one.within.get(metric.name), len(side)) for side in sides for one in side]
    known = [(error / runs) ** 2 for error, runs in errors if error is not None]
    return math.sqrt(sum(known)) if len(known) == len(errors) else None


def _scatter_of_share(baseline: Share, run: Share) -> float | None:
    """The standard error of the difference of two shares that are the same in truth."""
    both = (baseline.number + run.number) / (baseline.of + run.of)
    return math.sqrt(both * (1 - both) * (1 / baseline.of + 1 / run.of)) or None


def _value(metric: Metric, run: StoredRun) -> float | None:
    if metric.family is Family.COUNTERS:
        return run.counters.get(metric.name)
    if metric.family is Family.RATES:
        return run.shares[metric.name].value
    return run.values.get(metric.name)


def total(runs: Sequence[StoredRun], metric: Metric) -> Share:
    """A share over all these runs together."""
    shares = [one.shares[metric.name] for one in runs]
    return Share(sum(one.number for one in shares), sum(one.of for one in shares))


def numbers(metric: Metric, baseline: Sequence[StoredRun], run: Sequence[StoredRun]) -> Sides:
    """The numbers behind a share (failed requests, wrong outputs), for a limit that is a number."""
    old, new = (tuple(float(one.shares[metric.name].number) for one in side) for side in (baseline, run))
    return Sides(old, new)
