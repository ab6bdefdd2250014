"""A night beside the last good one: each measured job's runs against that night's, with ``harness.compare``."""

import json
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.nightly import archive
from bench.nightly.record import Compared, Night, Result
from harness.api.compared_runs import read_run
from harness.compare import Comparison, Conclusion, Family, Threshold, compare
from harness.compare.text import around_lines, as_json, cells, headline, shown
from harness.errors import UsageError
from harness.reports.text import clean
from harness.store.atomic import write_atomically

_FILE = "compare-{job}.json"
_MOST_LINES = 12


def compare_with_last_good(night: Night, result_dir: Path, thresholds: Sequence[Threshold]) -> list[Compared]:
    """Compare every measured job. Whatever cannot be compared is said.

    Raises OSError if a comparison cannot be written.
    """
    good = last_good(archive.read_all(result_dir), night)
    if good is None:
        return [_alone(job) for job in _measured(night)] if thresholds else []
    night.compared_with = good.name
    return [_compared(job, good, night, result_dir, thresholds) for job in _measured(night)]


def last_good(nights: Sequence[Night], night: Night) -> Night | None:
    """The newest night before this one that is a baseline, on the same deployment; None: there is none."""
    wanted = _deployments(night)
    others = (one for one in reversed(nights) if one.name != night.name)
    return next((one for one in others if one.baseline and wanted <= _deployments(one)), None)


def _deployments(night: Night) -> set[tuple[str, tuple[tuple[str, str], ...]]]:
    """Each measured job with the deployment that it ran on."""
    names = {job.name for job in night.planned if job.measured}
    return {
        (run.job, tuple(sorted(run.deployment.items()))) for run in night.runs if run.job in names and run.deployment
    }


def _measured(night: Night) -> list[str]:
    return [job.name for job in night.planned if job.measured]


def _alone(job: str) -> Compared:
    why = "there is no good night before it that ran the same jobs on the same deployment"
    return Compared(job, worse=False, unknown=True, lines=[why])


def _compared(job: str, good: Night, night: Night, result_dir: Path, thresholds: Sequence[Threshold]) -> Compared:
    places = archive.nights_dir(result_dir)
    try:
        sides = [[read_run(path) for path in _stored(places, one, job)] for one in (good, night)]
        comparison = compare(sides[0], sides[1], thresholds)
    except UsageError as error:
        return Compared(job, worse=False, unknown=True, lines=[clean(f"it cannot be compared: {error}", 400)])
    except OSError:
        raise
    except Exception as error:  # noqa: BLE001 - a comparison that crashes must not cost the night its verdict
        traceback.print_exc()
        text = clean(f"the comparison itself failed: {type(error).__name__}: {error}", 400)
        return Compared(job, worse=False, unknown=True, lines=[text])
    file = _FILE.format(job=job)
    write_atomically(places / night.name / file, json.dumps(as_json(comparison), indent=2, allow_nan=False) + "\n")
    return Compared(
        job,
        worse=comparison.conclusion is Conclusion.WORSE,
        unknown=comparison.conclusion is Conclusion.UNKNOWN,
        lines=list(_lines(comparison)),
        file=file,
    )


def _stored(places: Path, night: Night, job: str) -> Iterator[Path]:
    for run in night.runs:
        if run.job == job and run.result is not Result.FAILED:
            yield from (places / night.name / name for name in run.directories)


def _lines(comparison: Comparison) -> Iterator[str]:
    """The conclusion with its reasons, then the metrics, shortly."""
    yield clean(headline(comparison))
    yield from (clean(reason, 300) for reason in comparison.reasons[:_MOST_LINES])
    told = [one for one in shown(comparison) if one.metric.family is Family.PRIMARY or one.real]
    for change in told[:_MOST_LINES]:
        name, before, after, amount, interval, word = map(clean, cells(change))
        yield f"{name}: {before} → {after} ({amount}; 95 %: {interval or 'not known'}): {word}"
    yield from (clean(line, 300) for line in list(around_lines(comparison))[:4])
