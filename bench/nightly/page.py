"""The page over all nights, ``index.html``, and a page for each night. They need neither a network nor a script."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import ChoiceLoader, Environment, FileSystemLoader
from markupsafe import Markup

from bench.nightly import archive
from bench.nightly.calendar import calendar, kind_of
from bench.nightly.charts import bad_chart, trend_chart
from bench.nightly.findings import findings, first_bad, harness_of, standing
from bench.nightly.record import Night, Run
from bench.nightly.results import WRONG
from bench.nightly.series import all_series, measured_jobs
from harness.reports.html.document import document, environment
from harness.reports.text import duration, figure, plural
from harness.store.atomic import write_atomically

INDEX = "index.html"
_BADGES = {"valid": "valid", "worse": "unknown", "invalid": "invalid", "unknown": "unknown"}
_FIGURES = ("p99_ttft_ms", "p50_itl_ms", "request_throughput", "completed", "failed", WRONG)
_FILES = (("report.html", "report"), ("result.json", "result.json"), ("history.jsonl", "history"))


@dataclass(frozen=True, slots=True)
class Row:
    """One night in the table."""

    night: Night
    kind: str
    badge: str
    link: str
    jobs: str
    seconds: float | None

    @property
    def took(self) -> str:
        """How long the night took."""
        return "" if self.seconds is None else duration(self.seconds)


def write_index(result_dir: Path) -> Path:
    """Rebuild the page over all nights from their records. Raises OSError."""
    path = result_dir / INDEX
    write_atomically(path, index(archive.read_all(result_dir)))
    return path


def write_night(directory: Path, night: Night) -> Path:
    """Write a night's own page. Raises OSError."""
    path = directory / INDEX
    write_atomically(path, night_page(night, directory))
    return path


def index(nights: Sequence[Night]) -> str:
    """The page over all nights, the oldest first in ``nights``."""
    if not nights:
        return document("Nights", _render("empty.html"), subtitle="nightly")
    series = all_series(nights)
    bad = {job: bad_chart(nights, job) for job in measured_jobs(nights)}
    charts = [chart for job in bad for chart in (*_of_job(series, job), *([bad[job]] if bad[job] else []))]
    values = {
        "rows": [_row(night) for night in reversed(nights)],
        "newest": _row(nights[-1]),
        "standing": standing(nights),
        "findings": findings(nights, series),
        "calendar": calendar(nights),
        "tiles": _tiles(nights),
        "by_job": {job: [*_of_job(series, job), *([bad[job]] if bad[job] else [])] for job in bad},
        "kinds": list(dict.fromkeys(kind_of(night) for night in nights)),
    }
    contents = [("now", "Now"), ("changes", "Changes"), ("trends", "Trends"), ("nights", "Nights")]
    return document("Nights", _render("index.html", **values), charts, subtitle="nightly", contents=contents)


def _of_job(series: Sequence[Any], job: str) -> list[Any]:
    return [trend_chart(one) for one in series if one.job == job]


def night_page(night: Night, directory: Path) -> str:
    """One night's page; ``directory``: where it is stored, for links to what exists there."""
    runs = [(run, _BADGES.get(str(run.result), "neutral"), _links(run, directory), _figures(run)) for run in night.runs]
    body = _render("night.html", row=_row(night), runs=runs, harness=harness_of(night), words=" ".join(night.words))
    return document(f"Night {night.name}", body, subtitle="nightly")


def _render(template: str, **values: Any) -> Markup:
    return Markup(_templates().get_template(template).render(**values))  # noqa: S704 - autoescape is on


@cache
def _templates() -> Environment:
    """The report's templates, and the nights' ones beside them."""
    report = environment()
    assert report.loader  # noqa: S101 - it has one
    made = report.overlay(loader=ChoiceLoader([FileSystemLoader(Path(__file__).parent / "templates"), report.loader]))
    made.filters["figure"] = figure
    made.filters["plural"] = plural
    made.filters["badge"] = lambda kind: _BADGES.get(str(kind), "neutral")
    return made


def _row(night: Night) -> Row:
    kind = kind_of(night)
    planned = sum(job.repeat for job in night.planned)
    jobs = f"{len(night.runs)} of {planned} runs: {', '.join(job.name for job in night.planned)}" if planned else ""
    return Row(night, kind, _BADGES.get(kind, "neutral"), f"nights/{quote(night.name)}/{INDEX}", jobs, _seconds(night))


def _seconds(night: Night) -> float | None:
    try:
        seconds = (datetime.fromisoformat(night.ended) - datetime.fromisoformat(night.started)).total_seconds()
    except (ValueError, TypeError):
        # It never ended, or only one of the two has a time zone.
        return None
    # The clock was set back meanwhile: how long the night took is not known.
    return seconds if seconds >= 0 else None


def _tiles(nights: Sequence[Night]) -> list[tuple[str, str]]:
    recent = nights[-30:]
    good = sum(night.good for night in recent)
    last = next((night.name for night in reversed(nights) if night.good), "none")
    engine = next((night.engine_version for night in reversed(nights) if night.engine_version), "unknown")
    harness = next((harness_of(night) for night in reversed(nights) if night.harness_version), "unknown")
    return [
        (f"{len(nights):,}", "night" if len(nights) == 1 else "nights"),
        (f"{good} of {len(recent)}", "valid, of the newest"),
        (last, "last good night"),
        (first_bad(nights) or "none", "first bad night"),
        (engine, "engine"),
        (harness.removeprefix("harness "), "harness"),
    ]


def _links(run: Run, directory: Path) -> list[tuple[str, str]]:
    found = []
    for stored in run.directories:
        for name, text in _FILES:
            if (directory / stored / name).exists():
                found.append((quote(f"{stored}/{name}"), text))
    place = f"{run.job}-{run.repeat}"
    for name, text in (("junit.xml", "JUnit"), ("output.txt", "output")):
        if (directory / place / name).exists():
            found.append((quote(f"{place}/{name}"), text))
    return found


def _figures(run: Run) -> list[str]:
    return [figure(run.metrics.get(key)) if key.endswith(("_ms", "put")) else _whole(run, key) for key in _FIGURES]


def _whole(run: Run, key: str) -> str:
    return f"{run.metrics[key]:,.0f}" if key in run.metrics else "-"
