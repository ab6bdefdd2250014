"""``python -m harness --sweep``: runs at several rates on one deployment, and the knee.

Each rate is a run of its own, with its own directory and verdict. The exit code is that of the worst of them.
"""

import asyncio
import json
import math
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

from harness.cli.ending import store_report
from harness.cli.load_options import SweepOptions, at_rate
from harness.cli.options import Options
from harness.cli.page import PAGE, write_page
from harness.cli.rejudged import settings_of
from harness.cli.stored import stored_run
from harness.clock import MonotonicClock
from harness.deploy import Surroundings, open_session
from harness.deploy.session import Session
from harness.errors import ExitCode
from harness.loads import Load, ShareGptLoad
from harness.preflight import Item, Level
from harness.reports import Progress, Report, exit_code, make_progress, make_report, reason_lines
from harness.reports.files.result_json import without_arrays
from harness.run import Recorder, carry_out, fresh_salt, run_started_now, with_tokens
from harness.store import RunStore
from harness.sweep import Point, Step, chart_lines, csv_text, headline, knee, point_line, search, svg, table_lines
from harness.verdict import Verdict, worst

SUMMARY = "summary.json"
"""The results of all rates in one list, as ``vllm bench sweep plot`` and ``plot_pareto`` read them."""
_FEWEST = 32
"""Requests at a low rate: fewer say little about the share that keeps the objectives."""


@dataclass(slots=True)
class _Sweep:
    """A sweep that goes on."""

    options: Options
    how: SweepOptions
    session: Session
    store: RunStore
    """The sweep's own directory, in which each rate has one."""
    progress: Progress
    points: list[Point] = field(default_factory=list)
    results: list[dict[str, Any]] = field(default_factory=list)
    """The result of each rate, without arrays."""
    died: bool = False

    async def run(self) -> None:
        """Try all rates."""
        if self.how.rates:
            for rate in self.how.rates:
                await self._try(rate)
                if self.died:
                    break
            return
        rates = search(self.how.start)
        rate = next(rates)
        with _exhausted():
            while True:
                rate = rates.send(await self._try(rate))

    async def _try(self, rate: float) -> Step:
        number = self.how.num_prompts or max(_FEWEST, math.ceil(rate * self.how.duration))
        load = at_rate(self.options.load, rate, number)
        if isinstance(load, ShareGptLoad) and self.how.num_prompts is None:
            load = replace(load, num_prompts=None)
        report = await self._measured(load, ("--request-rate", f"{rate:.15g}", "--num-prompts", str(number)), rate)
        self.died = self.died or bool(report.history.died)
        point = Point.of(rate, report)
        self.points.append(point)
        self.results.append(without_arrays(report.result))
        for line in (point_line(point), *reason_lines(report.overview)):
            # A line printed beside it would damage the live display.
            self.progress.note(line)
        if not point.client_kept_up or self.died:
            return Step.STOP
        return Step.KEEPS if point.keeps(self.how.goal) else Step.FAILS

    async def _measured(self, load: Load, words: Sequence[str], rate: float) -> Report:
        """One run, in a directory of its own."""
        report = replace(self.options.report, result_dir=self.store.path)
        argv = (*_without_sweep(self.options.argv), *words)
        options = replace(self.options, load=load, report=report, argv=argv)
        deployment, clock = self.session.deployment, MonotonicClock()
        with RunStore.create(self.store.path, label=f"rate-{rate:g}", seed=load.seed, latest=False) as store:
            store.save_deployment(deployment)
            record, salt = Recorder(store.record), fresh_salt()
            record(run_started_now(argv, seed=load.seed, names=(load.name,)))
            ready = await with_tokens(load, deployment, options.sending.headers)
            carried = await carry_out(
                [ready.scenario(deployment, salt)],
                deployment,
                sending=options.sending,
                verify=options.verify(deployment, salt),
                record=record,
                clock=clock,
                observer=self.progress,
                died=self.session.died,
                ended=self.session.nursery.ended,
            )
            settings = settings_of(options, carried.history)
            made = make_report(deployment, carried.history, carried.judgement, store.path, settings)
            store_report(made, report, store.path)
            # The table at the end of the sweep says where the pages are.
            write_page(made, report, store.path, quiet=True)
        return made


async def sweep(options: Options) -> ExitCode:
    """Run at each rate; store and show the table, the chart and the knee."""
    how = options.sweep
    assert how is not None, "the command line has --sweep"  # noqa: S101 - for the type checker
    demands = options.load.demands()
    label = "-".join(filter(None, (options.report.label, "sweep")))
    clock = MonotonicClock()
    interrupted = False
    points: list[Point] = []
    results: list[dict[str, Any]] = []
    died = False
    with stored_run(options, label=label, seed=options.load.seed) as store:
        try:
            with make_progress(plain=options.report.plain, clock=clock) as progress:
                around = Surroundings(store.path, clock, progress, demands, partial(_warn, progress))
                async with open_session(options.target, around) as session:
                    running = _Sweep(options, how, session, store, progress, points, results)
                    await running.run()
                    died = running.died
        except asyncio.CancelledError:
            interrupted = True
            print(f"interrupted: the rates tried so far are stored in {store.path}", file=sys.stderr)
        if results:
            store.save_text(SUMMARY, json.dumps(results, indent=2, allow_nan=False) + "\n")
        return _end(points, options, how, store, died=died, interrupted=interrupted)


def _end(  # noqa: PLR0913 - how a sweep ended
    points: Sequence[Point], options: Options, how: SweepOptions, store: RunStore, *, died: bool, interrupted: bool
) -> ExitCode:
    verdict = worst([point.verdict for point in points] + ([Verdict.UNKNOWN] if interrupted else []))
    found = headline(points, options.goodput, how.goal)
    if points:
        _save(points, options, how, store, verdict, found)
        for line in ("", *table_lines(points, how.goal), "", *chart_lines(points, shutil.get_terminal_size().columns)):
            print(line)
        print()
    print(f"{verdict.upper()}: {found}")
    if points:
        files = f"sweep.svg, sweep.csv, sweep.json, {SUMMARY}, and a directory for each rate{_pages(options)}"
        print(f"stored: {store.path} ({files})")
    return exit_code(verdict, died=died)


def _pages(options: Options) -> str:
    return f", each with its {PAGE}" if options.report.html else ""


def _save(  # noqa: PLR0913, PLR0917 - what the files hold
    points: Sequence[Point], options: Options, how: SweepOptions, store: RunStore, verdict: Verdict, found: str
) -> None:
    best = knee(points, how.goal)
    content = {
        "verdict": str(verdict),
        "objectives_ms": dict(options.goodput),
        "goal": how.goal,
        "knee": None if best is None else best.rate,
        "points": [asdict(point) for point in points],
    }
    store.save_text("sweep.json", json.dumps(content, indent=2) + "\n")
    store.save_text("sweep.csv", csv_text(points))
    store.save_text("sweep.svg", svg(points, options.goodput, how.goal, found))


def _warn(progress: Progress, items: Sequence[Item]) -> None:
    for item in items:
        if item.level in (Level.WARNS, Level.UNKNOWN):
            progress.note(f"{item.level}: {item}")


def _without_sweep(argv: Sequence[str]) -> Iterator[str]:
    """The command line of one rate's run: without --sweep, its list, and the rate that the search began with."""
    words = iter(argv)
    for word in words:
        if word == "--sweep":
            after = next(words, None)
            if after is not None and after.startswith("-"):
                yield after
        elif not word.startswith("--sweep="):
            yield word


@contextmanager
def _exhausted() -> Iterator[None]:
    """Ends the block when the search has no further rate."""
    try:
        yield
    except StopIteration:
        return
