"""One night: its jobs run, its record is kept, its verdict is drawn."""

import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path

from bench.nightly import archive
from bench.nightly.beside import compare_with_last_good
from bench.nightly.deployment import Target, deployment
from bench.nightly.jobs import Job
from bench.nightly.options import Options
from bench.nightly.process import Started
from bench.nightly.record import RESULT_OF, Night, Planned, Result, Run, State
from bench.nightly.results import read_run
from bench.nightly.room import Reserve, too_little
from harness.errors import ExitCode, HarnessError
from harness.redact import redact_text
from harness.reports.text import clean
from harness.run.checkout import own_commit
from harness.run.started import installed_version
from harness.store.redact import redact_argv

_WORST_FIRST = (ExitCode.HARNESS, ExitCode.USAGE, ExitCode.INVALID, ExitCode.UNKNOWN, ExitCode.VALID)
"""Exit codes, the worst first. A failed harness has checked nothing, which is worse than any verdict."""


def begin(options: Options, directory: Path) -> Night:
    """The record of a night that begins."""
    return Night(
        name=directory.name,
        state=State.RUNNING,
        started=_now(),
        pid=archive.own_pid(),
        boot_id=archive.boot_id(),
        seed=options.seed,
        planned=[
            Planned(job.name, job.repeat, job.measured, list(redact_argv(job.flags))) for job in in_order(options.jobs)
        ],
        words=list(redact_argv(options.words)),
        harness_version=installed_version(),
        commit=own_commit() or "",
    )


def in_order(jobs: Sequence[Job]) -> Sequence[Job]:
    """Jobs on the shared deployment first, so that it has ended when others launch their own."""
    return sorted(jobs, key=lambda job: job.own_deployment)


@dataclass
class Nightly:
    """A night in progress."""

    options: Options
    directory: Path
    night: Night
    reserve: Reserve
    problems: list[str] = field(default_factory=list)
    """What failed that is no run: the deployment, the disk, the night itself."""
    codes: list[ExitCode] = field(default_factory=list)
    """The exit codes that the problems lead to."""

    def run(self) -> None:
        """Run all jobs. Whatever happens is a reason in the record."""
        try:
            self._jobs()
            self._compare()
        except KeyboardInterrupt as interrupt:
            # Nothing failed: what was not found out is unknown.
            self.problem(f"it was interrupted by {interrupt or 'Ctrl-C'}", ExitCode.UNKNOWN)
        except HarnessError as error:
            self.problem(str(error), error.exit_code)
        except Exception as error:  # noqa: BLE001 - no unforeseen error may look like a verdict, or be lost
            traceback.print_exc()
            self.problem(f"the nightly job itself failed: {type(error).__name__}: {error}. This is no verdict")
        left = sum(job.repeat for job in self.night.planned) - len(self.night.runs)
        if left:
            self.problems.append(f"{left} of {left + len(self.night.runs)} runs were not begun or did not end")

    def _jobs(self) -> None:
        for own, jobs in groupby(in_order(self.options.jobs), key=lambda job: job.own_deployment):
            if own:
                self._all_of(jobs, Target(self.options.words))
                continue
            try:
                with deployment(self.options.words, self.directory / "deployment") as target:
                    self._all_of(jobs, target)
            except HarnessError as error:
                # Jobs that launch their own deployment are still worth running.
                self.problem(str(error), error.exit_code)

    def _all_of(self, jobs: Iterator[Job], target: Target) -> None:
        for job in jobs:
            for repeat in range(1, job.repeat + 1):
                if why := too_little(self.directory, self.options.min_free):
                    raise HarnessError(why)
                self._once(job, repeat, target)
                if target.died():
                    why = target.held.error() if target.held else ""
                    self.problem(f"the deployment died, at {job.name} at the latest{f': {why}' if why else ''}")
                    return

    def _once(self, job: Job, repeat: int, target: Target) -> None:
        print(f"== {job.name}, {repeat} of {job.repeat}", flush=True)
        place = self.directory / f"{job.name}-{repeat}"
        place.mkdir()
        begun, clock = _now(), time.monotonic()
        started = Started.start(*self._flags(job, repeat, place, target), output=place / "output.txt")
        try:
            status = started.wait(job.timeout or self.options.job_timeout)
        finally:
            # A run that is interrupted stores and reports its results so far.
            started.end()
        run = Run(job.name, repeat, begun, round(time.monotonic() - clock, 3), status, 0, Result.UNKNOWN)
        read_run(run, started, place, self.directory)
        if run.exit_code and target.died(soon=True):
            run.exit_code, run.result = int(ExitCode.HARNESS), Result.FAILED
            run.reasons = ["the deployment that was launched for the loads died: nothing was found out", *run.reasons]
        self.night.runs.append(run)
        self._save_between()

    def _flags(self, job: Job, repeat: int, place: Path, target: Target) -> list[str]:
        # Repeats have prompts of their own, so that their differences contain what other prompts do, as nights' do.
        seed = str(self.options.seed * 100 + repeat - 1)
        own = ["--seed", seed, "--label", job.name, "--result-dir", str(place), "--junit", str(place / "junit.xml")]
        return ["run", *job.flags, *own, *target.flags]

    def _save_between(self) -> None:
        """Write the record after a run. On a full disk, no further run is begun.

        The reserve is kept for the end: further runs would fill the room that it makes.
        """
        try:
            archive.save(self.directory, self.night)
        except OSError as error:
            why = f"the night's record could not be written after run {len(self.night.runs)}: {error.strerror}"
            raise HarnessError(why) from error

    def save(self) -> None:
        """Write the record; a failure becomes a reason."""
        if error := self.reserve.write(lambda: archive.save(self.directory, self.night)):
            self.problem(f"the night's record could not be written: {error.strerror}")

    def _compare(self) -> None:
        """Compare the night with the last good one."""

        def compare() -> None:
            self.night.comparisons = compare_with_last_good(self.night, self.options.result_dir, self.options.fail_on)

        if error := self.reserve.write(compare):
            self.problem(f"it could not be compared with the last good night: {error}")

    def conclude(self) -> None:
        """Draw the verdict, and close the record.

        A comparison counts if ``--fail-on`` asked for it: without limits, it informs. Runs of one night differ less
        than runs of two nights do, on a machine that others use, so that a change may be real and yet not the build's.
        """
        night, gates = self.night, bool(self.options.fail_on)
        codes = [ExitCode(run.exit_code) for run in night.runs] or ([] if self.codes else [ExitCode.HARNESS])
        codes += self.codes
        found = worst(codes)
        if gates and night.comparisons:
            codes += [
                ExitCode.INVALID if one.worse else ExitCode.UNKNOWN
                for one in night.comparisons
                if one.worse or one.unknown
            ]
        night.exit_code = int(worst(codes))
        night.result = RESULT_OF[ExitCode(night.exit_code)]
        if found is ExitCode.VALID and night.exit_code == ExitCode.INVALID:
            night.result = Result.WORSE
        compared = [
            f"{one.job}: {one.lines[min(1, len(one.lines) - 1)]}"
            for one in night.comparisons
            if one.worse or one.unknown
        ]
        night.reasons = [*self.problems, *_of_runs(night), *(compared if gates else [])]
        night.state, night.ended = State.ENDED, _now()

    def problem(self, why: str, code: ExitCode = ExitCode.HARNESS) -> None:
        """Remember, and say, what failed that is no run."""
        text = clean(redact_text(why), 500).rstrip(".")
        if text not in self.problems:
            print(f"error: {text}.", file=sys.stderr)
            self.problems.append(text)
            self.codes.append(code)


def worst(codes: Sequence[ExitCode]) -> ExitCode:
    """The worst of these exit codes."""
    return next(code for code in _WORST_FIRST if code in codes)


def _of_runs(night: Night) -> list[str]:
    return list(dict.fromkeys(f"{run.job}: {reason}" for run in night.runs for reason in run.reasons))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
