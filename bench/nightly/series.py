"""Series over the nights: a figure of a job, night by night, where it changed, and since when outputs are wrong."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from bench.nightly.record import Night, Result, Run
from bench.nightly.results import WRONG
from bench.nightly.trend import PAGE_ALPHA, Change, changes


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of result.json that is followed over the nights."""

    key: str
    name: str
    unit: str
    higher_is_better: bool = False


FIGURES = (
    Figure("p99_ttft_ms", "p99 TTFT", "ms"),
    Figure("p50_itl_ms", "p50 ITL", "ms"),
    Figure("request_throughput", "throughput", "requests/s", higher_is_better=True),
)


@dataclass(frozen=True, slots=True)
class Point:
    """A figure in one night."""

    night: Night
    value: float
    """Median of the repeats."""
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Series:
    """A figure of a job over the nights that can be compared with the newest one."""

    job: str
    figure: Figure
    points: tuple[Point, ...]
    changes: tuple[Change, ...] = ()
    left_out: int = 0
    """Nights of this job on another deployment, or with other flags."""

    @property
    def title(self) -> str:
        """What it shows."""
        return f"{self.figure.name} of {self.job}"

    def worse(self, change: Change) -> bool:
        """Whether a change is one for the worse."""
        return (change.after > change.before) != self.figure.higher_is_better


@dataclass(frozen=True, slots=True)
class Bad:
    """Nights in which a job had wrong outputs, or failed requests."""

    job: str
    key: str
    first: Night
    nights: int
    """How many nights were bad since then,"""
    of: int
    """of how many that ran the job."""
    clean_before: int
    """How many nights in a row were clean before."""
    last_good: Night | None


_CLEAN = 5
"""Clean nights in a row after which what was bad before is over."""


def all_series(nights: Sequence[Night]) -> tuple[Series, ...]:
    """Every measured job's series, with its changes. The probability of a false alarm is shared by all of them."""
    found = [series for job in measured_jobs(nights) for series in _of_job(nights, job)]
    alpha = PAGE_ALPHA / max(len(found), 1)
    return tuple(
        Series(one.job, one.figure, one.points, changes([point.value for point in one.points], alpha), one.left_out)
        for one in found
    )


def measured_jobs(nights: Sequence[Night]) -> list[str]:
    """Names of jobs whose latencies can be compared, in the newest night's order first."""
    return list(dict.fromkeys(job.name for night in reversed(nights) for job in night.planned if job.measured))


def _of_job(nights: Sequence[Night], job: str) -> Iterator[Series]:
    having = [(night, runs) for night in nights if (runs := _measured(night, job))]
    if not having:
        return
    wanted = _conditions(having[-1][0], having[-1][1][0])
    alike = [(night, runs) for night, runs in having if _conditions(night, runs[0]) == wanted]
    for figure in FIGURES:
        if points := tuple(_points(alike, figure)):
            yield Series(job, figure, points, left_out=len(having) - len(alike))


def _measured(night: Night, job: str) -> list[Run]:
    """Runs of a job that ended with a verdict and measured something."""
    return [run for run in night.runs if run.job == job and run.result is not Result.FAILED and run.metrics]


def _conditions(night: Night, run: Run) -> tuple[Mapping[str, str], list[str]]:
    flags = next((planned.flags for planned in night.planned if planned.name == run.job), [])
    return run.deployment, flags


def _points(having: Sequence[tuple[Night, Sequence[Run]]], figure: Figure) -> Iterator[Point]:
    for night, runs in having:
        # A load of which nothing completed has zero latencies.
        values = [run.metrics[figure.key] for run in runs if run.metrics.get(figure.key, 0) > 0]
        if values:
            yield Point(night, median(values), min(values), max(values))


def bad_since(nights: Sequence[Night], job: str, key: str) -> Bad | None:
    """Since which night the job has wrong outputs (``WRONG``) or failed requests (``failed``); None: they are clean.

    Nights need not be bad one after another: a fault that shows in every other night counts from its first.
    """
    ran = [
        (night, sum(run.metrics.get(key, 0.0) for run in runs)) for night in nights if (runs := _measured(night, job))
    ]
    places = [place for place, (_, amount) in enumerate(ran) if amount > 0]
    if not places or len(ran) - places[-1] > _CLEAN:
        return None
    first = places[-1]
    for place in reversed(places[:-1]):
        if first - place > _CLEAN:
            break
        first = place
    bad = [place for place in places if place >= first]
    before = first - 1 - max((place for place in places if place < first), default=-1)
    return Bad(job, key, ran[first][0], len(bad), len(ran) - first, before, ran[first - 1][0] if first else None)


def every_bad(nights: Sequence[Night]) -> list[Bad]:
    """All jobs' wrong outputs and failures, of jobs without faults: faults make requests fail."""
    found = (bad_since(nights, job, key) for key in (WRONG, "failed") for job in measured_jobs(nights))
    return [one for one in found if one is not None]
