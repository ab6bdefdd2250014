"""Why a comparison does not end as no worse, and what its reader must know besides. No I/O."""

from collections.abc import Iterator, Sequence

from harness.compare.changes import Change
from harness.compare.evidence import Answer, apart, enough_runs
from harness.compare.metrics import LATENCIES, THROUGHPUTS, Family
from harness.compare.outputs import OutputsChange
from harness.compare.stored_run import StoredRun
from harness.compare.thresholds import Kept, Limit
from harness.reports.text import plural
from harness.verdict import Verdict


def of_limits(limits: Sequence[Limit]) -> Iterator[tuple[bool, str]]:
    """Whether it is worse, and the text, for each limit that was not kept."""
    for one in limits:
        if one.kept is Kept.BROKEN:
            yield True, f"{one.threshold.text} is exceeded: {one.why}"
        elif one.kept is Kept.UNKNOWN:
            more = "" if one.more_runs is None else f"; about {one.more_runs} runs on each side would tell"
            yield False, f"{one.threshold.text} can neither be confirmed nor excluded: {one.why}{more}"


def by_default(
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


def notes_of(baseline: Sequence[StoredRun], run: Sequence[StoredRun], changes: Sequence[Change]) -> Iterator[str]:
    """Runs whose latencies are not compared, metrics that some lack, and the order of the runs in time."""
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
