"""Two sets of runs compared: what changed, what of it is real, and the conclusion. No I/O.

The conclusion is WORSE if a limit is broken; without limits, if outputs or the verdict are worse, or if a primary
metric or a rate is worse and the change is real. It CANNOT BE TOLD if a limit can neither be confirmed nor excluded;
without limits, if that holds for outputs or such a metric, or if there are too few runs to call any change real: a test
that cannot fail must not pass. Otherwise it is NO WORSE.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from harness.compare.changes import Change, changes_of, metrics_of, numbers, total
from harness.compare.metrics import RATES, Family
from harness.compare.outputs import OutputsChange, compare_outputs
from harness.compare.reasons import by_default, notes_of, of_limits
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
    changes = tuple(changes_of(baseline, run))
    outputs = compare_outputs([one.outputs for one in baseline], [one.outputs for one in run])
    limits = tuple(_limits(thresholds, changes, outputs, baseline, run))
    verdicts = worst(one.verdict for one in baseline), worst(one.verdict for one in run)
    totals = {metric.name: (total(baseline, metric), total(run, metric)) for metric in RATES}
    findings = list(of_limits(limits) if limits else by_default(changes, outputs, verdicts, baseline, run))
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
        tuple(notes_of(baseline, run, changes)),
        (*worse, *unknown),
        Conclusion.WORSE if worse else Conclusion.UNKNOWN if unknown else Conclusion.NO_WORSE,
    )


def _limits(
    thresholds: Sequence[Threshold],
    changes: Sequence[Change],
    outputs: OutputsChange,
    baseline: Sequence[StoredRun],
    run: Sequence[StoredRun],
) -> Iterator[Limit]:
    known = {one.metric.name: one for one in changes}
    every = {metric.name: metric for family in Family for metric in metrics_of(family, (*baseline, *run))}
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
            yield judge_limit(threshold, numbers(change.metric, baseline, run), Family.RATES)
        else:
            yield judge_limit(threshold, change.sides, change.metric.family, len(thresholds))
