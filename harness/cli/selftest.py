"""``python -m harness selftest``: plants known bugs in simulated servers, and shows which checkers catch them."""

import json
from pathlib import Path

from harness.cli.options import Options
from harness.cli.stored import stored_run
from harness.clock import MonotonicClock
from harness.errors import ExitCode, UsageError
from harness.reports import Progress, make_progress
from harness.selftest import LEGEND, Result, make_report, plan_trials, run_trials, table_lines
from harness.selftest.report import is_caught
from harness.verdict import Verdict


async def selftest(options: Options) -> ExitCode:
    """Run every trial and show the table. VALID if the report says that it passed, else INVALID."""
    if options.selftest is None:
        raise UsageError("selftest has other flags: see python -m harness selftest --help.")
    trials = plan_trials(options.selftest)
    with stored_run(options, label="selftest", seed=options.selftest.seed) as store:
        with make_progress(plain=options.report.plain, clock=MonotonicClock()) as progress:
            shown = _Shown(progress, store.path / "trials.jsonl", sum(trial.requests for trial in trials))
            results = await run_trials(trials, options.selftest.jobs, shown)
        report = make_report(results)
        path = store.save_result({**report.as_json(), "argv": list(options.argv), "seed": options.selftest.seed})
    for line in (*table_lines(report), "", LEGEND, "", f"stored in {path}"):
        print(line)
    return ExitCode.VALID if report.passed else ExitCode.INVALID


class _Shown:
    """Shows the number of ended requests, missed bugs, false alarms and false names, and stores each result at once."""

    def __init__(self, progress: Progress, kept: Path, total: int) -> None:
        self._progress, self._kept, self._total = progress, kept, total
        self._ended = 0
        progress.phase("selftest", "trials", total)

    def __call__(self, result: Result) -> None:
        self._ended += result.trial.requests
        with self._kept.open("a") as kept:
            kept.write(json.dumps(result.as_json()) + "\n")
        if result.trial.bug is None and result.verdict is not Verdict.VALID:
            self._progress.note(f"false alarm under the load {result.trial.load.name!r}, noise {result.trial.noise!r}")
        elif result.struck and not is_caught(result):
            self._progress.note(f"{result.trial.bug} was missed under noise {result.trial.noise!r}: {result.verdict}")
        if result.accused:
            self._progress.note(f"{result.accused:,} unaffected requests named, bug {result.trial.bug or 'none'}")
        self._progress.advance(self._ended, self._total, 0)
