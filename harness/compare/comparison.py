"""Two sets of runs compared: what changed, what of it is real, and the conclusion. No I/O.

The conclusion is WORSE if a limit is broken; without limits, if outputs or the verdict are worse, or if a primary
metric or a rate is worse and the change is real. It CANNOT BE TOLD if a limit can neither be confirmed nor excluded;
without limits, if that holds for outputs or such a metric, or if there are too few runs to call any change real: a test
that cannot fail must not pass. Otherwise it is NO WORSE.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from harness.compare.evidence import Answer, Evidence, Sides, apart, enough_runs, judge_family
from harness.compare.metrics import LATENCIES, RATES, THROUGHPUTS, Family, Metric, counter
from harness.compare.outputs import OutputsChange, compare_outputs
from harness.compare.settings import differing
from harness.compare.stored_run import Share, StoredRun
from harness.compare.thresholds import OUTPUTS, Kept, Limit, Threshold, judge_limit, judge_outputs
from harness.errors import ExitCode, UsageError
from harness.reports.text import plural
from harness.verdict import Verdict, worst


class Conclusion(StrEnum):
    """What the comparison says as a whole."""

    NO_WORSE = "no worse"
    WORSE = "worse"
    UNKNOWN = "cannot be told"


_EXIT_CODES = {
    Conclusion.NO_WORSE: ExitCode.VALID,
    Conclusion.WORSE: ExitCode.INVALID,
    Conclusion.UNKNOWN: ExitCode.UNKNOWN,
}


class NotComparableError(UsageError):
    """The runs differ in model, deployment, workload or faults."""

    def __init__(self, differences: Mapping[str, Mapping[str, str]]) -> None:
        self.differences = differences
        """For each setting that differs, its value by run."""
        lines = "; ".join(f"{name}: {beside(values)}" for name, values in differences.items())
        super().__init__(
            f"The runs cannot be compared, because they differ in more than their versions. {lines}. Compare runs of "
            f"the same load on the same deployment, or allow a difference: --allow-different {next(iter(differences))}."
        )


def beside(values: Mapping[str, str]) -> str:
    """The values of one setting side by side, each with a run that has it: ``16 in a and 4 other runs, 32 in b``."""
    by_value: dict[str, list[str]] = {}
    for run, value in values.items():
        by_value.setdefault(value, []).append(run)
    return ", ".join(
        f"{value} in {runs[0]}" + (f" and {plural(len(runs) - 1, 'other run')}" if len(runs) > 1 else "")
        for value, runs in by_value.items()
    )


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


@dataclass(frozen=True, slots=True)
class Comparison:
    """The comparison of two sets of runs."""

    baseline: tuple[StoredRun, ...]
    run: tuple[StoredRun, ...]
    changes: tuple[Change, ...]
    """Metrics that all runs have, family by family."""
    outputs: OutputsChange
    totals: Mapping[str, tuple[Share, Share]]
    """``failed``, ``mismatch`` and ``doubtful`` over all runs of each side."""
    verdicts: tuple[Verdict, Verdict]
    """The worst verdict of each side's runs."""
    limits: tuple[Limit, ...]
    allowed: Mapping[str, Mapping[str, str]]
    """Settings that differ and were allowed to."""
    notes: tuple[str, ...]
    """What a reader must know: runs whose latencies are not compared, the order in time, too few runs."""
    reasons: tuple[str, ...]
    """Why the conclusion is not that the runs are no worse."""
    conclusion: Conclusion

    @property
    def exit_code(self) -> ExitCode:
        """0 no worse, 1 worse, 3 cannot be told."""
        return _EXIT_CODES[self.conclusion]

    def change(self, name: str) -> Change | None:
        """The change of the metric of this name; None if not all runs have it."""
        return next((one for one in self.changes if one.metric.name == name), None)


def compare(
    baseline: Sequence[StoredRun],
    run: Sequence[StoredRun],
    thresholds: Sequence[Threshold] = (),
    *,
    allow_different: Sequence[str] = (),
) -> Comparison:
    """Compare the runs of two builds.

    Raises:
        NotComparableError: they differ in a setting that ``allow_different`` does not name.
        UsageError: a side has no run, or a threshold names no metric of these runs.

    """
    if not (baseline and run):
        raise UsageError("A comparison needs at least one run on each side: the baseline's and the other's.")
    different = differing({one.name: one.settings for one in (*baseline, *run)})
    if refused := {name: values for name, values in different.items() if name not in allow_different}:
        raise NotComparableError(refused)
    changes = tuple(_changes(baseline, run))
    outputs = compare_outputs([one.outputs for one in baseline], [one.outputs for one in run])
    limits = tuple(_limits(thresholds, changes, outputs, baseline, run))
    verdicts = worst(one.verdict for one in baseline), worst(one.verdict for one in run)
    totals = {metric.name: (_total(baseline, metric), _total(run, metric)) for metric in RATES}
    findings = list(_of_limits(limits) if limits else _by_default(changes, outputs, verdicts, baseline, run))
    worse = [text for bad, text in findings if bad]
    unknown = [text for bad, text in findings if not bad]
    return Comparison(
        tuple(baseline),
        tuple(run),
        changes,
        outputs,
        totals,
        verdicts,
        limits,
        different,
        tuple(_notes(baseline, run, changes)),
        (*worse, *unknown),
        Conclusion.WORSE if worse else Conclusion.UNKNOWN if unknown else Conclusion.NO_WORSE,
    )


def _changes(baseline: Sequence[StoredRun], run: Sequence[StoredRun]) -> Iterator[Change]:
    timed = [one for one in baseline if not one.why_no_latencies], [one for one in run if not one.why_no_latencies]
    for family in Family:
        metrics = list(_metrics(family, (*baseline, *run)))
        found = [(metric, _sides(metric, *(timed if metric.of_latency else (baseline, run)))) for metric in metrics]
        known = [(metric, sides) for metric, sides in found if sides is not None]
        for (metric, sides), evidence in zip(
            known, judge_family([sides for _, sides in known], family.level), strict=True
        ):
            yield Change(metric, sides, evidence)


def _metrics(family: Family, runs: Sequence[StoredRun]) -> Iterator[Metric]:
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
        within = _scatter_of_share(_total(baseline, metric), _total(run, metric))
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


def _total(runs: Sequence[StoredRun], metric: Metric) -> Share:
    shares = [one.shares[metric.name] for one in runs]
    return Share(sum(one.number for one in shares), sum(one.of for one in shares))


def _limits(
    thresholds: Sequence[Threshold],
    changes: Sequence[Change],
    outputs: OutputsChange,
    baseline: Sequence[StoredRun],
    run: Sequence[StoredRun],
) -> Iterator[Limit]:
    known = {one.metric.name: one for one in changes}
    every = {metric.name: metric for family in Family for metric in _metrics(family, (*baseline, *run))}
    names = {*every, OUTPUTS}
    for threshold in thresholds:
        if threshold.metric not in names:
            raise UsageError(
                f"--fail-on {threshold.text}: there is no metric {threshold.metric!r}. The metrics of these runs are "
                f"{', '.join(sorted(names))}."
            )
        if threshold.metric == OUTPUTS:
            yield judge_outputs(threshold, outputs)
            continue
        threshold.require_unit(every[threshold.metric].unit)
        change = known.get(threshold.metric)
        if change is None:
            why = "some runs have not measured it, or their latencies are not compared"
            yield Limit(threshold, Kept.UNKNOWN, why)
        elif change.metric.family is Family.RATES and not threshold.relative:
            yield judge_limit(threshold, _numbers(change.metric, baseline, run), Family.RATES)
        else:
            yield judge_limit(threshold, change.sides, change.metric.family, len(thresholds))


def _numbers(metric: Metric, baseline: Sequence[StoredRun], run: Sequence[StoredRun]) -> Sides:
    old, new = (tuple(float(one.shares[metric.name].number) for one in side) for side in (baseline, run))
    return Sides(old, new)


def _of_limits(limits: Sequence[Limit]) -> Iterator[tuple[bool, str]]:
    """Whether it is worse, and the text, for each limit that was not kept."""
    for one in limits:
        if one.kept is Kept.BROKEN:
            yield True, f"{one.threshold.text} is exceeded: {one.why}"
        elif one.kept is Kept.UNKNOWN:
            more = "" if one.more_runs is None else f"; about {one.more_runs} runs on each side would tell"
            yield False, f"{one.threshold.text} can neither be confirmed nor excluded: {one.why}{more}"


def _by_default(
    changes: Sequence[Change],
    outputs: OutputsChange,
    verdicts: tuple[Verdict, Verdict],
    baseline: Sequence[StoredRun],
    run: Sequence[StoredRun],
) -> Iterator[tuple[bool, str]]:
    """Whether it is worse, and the text, for everything that makes a comparison without limits fail or unknown."""
    yield from _of_verdicts(*verdicts)
    yield from _of_outputs(outputs)
    measured = [one for one in changes if one.metric.of_latency]
    for side, word in ((baseline, "baseline"), (run, "other side")):
        if all(one.why_no_latencies for one in side):
            yield False, f"no run of the {word} has latencies that can be compared"
    yield from (_of_change(one) for one in changes if one.worse and one.gates)
    # A test that cannot fail must not pass.
    if not measured and not any(all(one.why_no_latencies for one in side) for side in (baseline, run)):
        yield False, "no latency and no throughput was measured in all runs"
    if few_runs := next((one.sides for one in measured if not enough_runs(one.sides)), None):
        sizes = len(few_runs.baseline), len(few_runs.run)
        which = "" if sizes == (len(baseline), len(run)) else " whose latencies can be compared"
        few = f"{sizes[0]} and {sizes[1]} runs{which} are too few"
        yield False, f"{few} to call a change of latencies or rates real: give 5 of each, in turns (A B A B)"


def _of_verdicts(baseline: Verdict, run: Verdict) -> Iterator[tuple[bool, str]]:
    if run is Verdict.INVALID and baseline is not Verdict.INVALID:
        yield True, f"the verdict is invalid, and that of the baseline is {baseline}"
    elif run is Verdict.UNKNOWN and baseline is Verdict.VALID:
        yield False, "the verdict is unknown, and that of the baseline is valid"


def _of_outputs(outputs: OutputsChange) -> Iterator[tuple[bool, str]]:
    if outputs.answer is Answer.REAL:
        yield True, f"{plural(outputs.wrong_in_run, 'output')} wrong that the baseline has not wrong"
    elif outputs.answer is Answer.UNKNOWN and outputs.shared:
        yield (
            False,
            f"{plural(outputs.unexplained, 'output')} differ from the baseline and were not verified on both sides",
        )


def _of_change(change: Change) -> tuple[bool, str]:
    if change.real:
        return True, f"{change.metric.name} is worse, and the change is real"
    return False, f"{change.metric.name} may be worse: {change.evidence.why}"


def _notes(baseline: Sequence[StoredRun], run: Sequence[StoredRun], changes: Sequence[Change]) -> Iterator[str]:
    for one in (*baseline, *run):
        if one.verdict is not Verdict.VALID:
            yield f"{one.name} is {one.verdict}"
        if one.why_no_latencies:
            yield f"{one.name} {one.why_no_latencies}: its latencies and rates are not compared"
    if missing := _missing(baseline, run, changes):
        yield f"not compared, because some runs have not measured it: {', '.join(missing)}"
    timed = next((one.sides for one in changes if one.metric.of_latency), None)
    if timed is None:
        return
    if not timed.several:
        yield "so few runs do not show how much runs differ: the intervals are those of the noise within each run"
    if apart(timed):
        yield (
            "all runs of one side are older than those of the other: a drift of the machine in that time looks like a "
            "change of the build. Runs in turns (A B A B) tell the two apart"
        )


def _missing(baseline: Sequence[StoredRun], run: Sequence[StoredRun], changes: Sequence[Change]) -> list[str]:
    """Primary metrics that some of the runs have, and that are not compared because others lack them."""
    having = {name for one in (*baseline, *run) if not one.why_no_latencies for name in one.values}
    compared = {one.metric.name for one in changes}
    primary = (metric.name for metric in (*LATENCIES, *THROUGHPUTS) if metric.family is Family.PRIMARY)
    return [name for name in primary if name in having and name not in compared]
