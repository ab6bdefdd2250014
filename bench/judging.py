"""Measures what recording and judging a run cost, and how that grows with the run.

    python -m bench.judging --requests 1000 10000 100000

For each size, one process makes a run (:mod:`bench.made_run`) and records it as the runner does, with a journal. Its
prompts have 200 tokens on average, its answers 16 with log-probabilities.
Another one does what ``python -m harness check`` does: it reads the run's directory, judges every check and makes the
report. Printed are CPU seconds, how much more each size takes than the one before, and the largest resident set of
both processes, Python and its modules included. With ``--beside``, the counters of runs that are large enough were
predicted before by a process of its own, as while the answers of a run are verified: printed are also its CPU seconds
and its largest resident set. With ``--keep DIRECTORY`` the stored runs stay there, and runs that
are there already are judged without being made again.
"""

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TypeVar

from bench.made_run import Settings, deployment_of, entries_of
from harness.beside import Beside
from harness.checkers import judge, judge_rest, judge_scenario
from harness.facts import Deployment
from harness.history import History
from harness.reports import make_report
from harness.run.recorder import Recorder
from harness.scenario import Phase, Request, Scenario
from harness.store import RunStore, load_run
from harness.store.rundir import HISTORY
from harness.verdict import Judgement

_MIB = 1 << 20
_USUAL = Settings(0, prompt=368)
"""What kind of run is made if no option says otherwise: prompts of 32 to 368 tokens."""
_PATIENCE_S = 3600.0
T = TypeVar("T")


@dataclass(frozen=True)
class Measured:
    """What judging one stored run cost."""

    requests: int
    seconds: dict[str, float]
    """CPU seconds of each step."""
    peak: int
    """Bytes: the process's largest resident set."""
    judgement: Judgement
    beside: tuple[float, int] | None = None
    """CPU seconds and largest resident set of the process that predicted counters."""

    @property
    def cpu(self) -> float:
        """CPU seconds of all steps."""
        return sum(self.seconds.values())


def record(settings: Settings, directory: Path) -> int:
    """Make and store a run; the process's largest resident set, bytes."""
    with RunStore(directory) as store:
        store.save_deployment(deployment_of(settings))
        recorder = Recorder(store.record)
        for entry in entries_of(settings):
            recorder(entry)
            # As an event loop does whenever it asks for what has arrived, this lets the writer's thread run.
            time.sleep(0)
    return _peak()


def measure(settings: Settings, directory: Path, *, beside: bool = False) -> Measured:
    """Read the run in the directory, judge it and make its report."""
    seconds: dict[str, float] = {}
    deployment, history = _timed(seconds, "read", lambda: load_run(directory))
    with Beside(directory / HISTORY, directory / "beside.log", seconds=_PATIENCE_S) as by:
        if beside:
            by.begin(Scenario("load", "", (Phase("load", (Request("r", ()),) * settings.requests),)), deployment)
            by.predictions()
        judgement = _timed(seconds, "judge", lambda: judge(deployment, history, predictions=by.predictions))
    _timed(seconds, "report", lambda: make_report(deployment, history, judgement, directory))
    theirs = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = theirs.ru_utime + theirs.ru_stime, theirs.ru_maxrss * 1024
    return Measured(settings.requests, seconds, _peak(), judgement, used if beside and by.pid is not None else None)


def _timed(seconds: dict[str, float], name: str, step: Callable[[], T]) -> T:
    began = time.process_time()
    result = step()
    seconds[name] = time.process_time() - began
    return result


def judged(deployment: Deployment, history: History) -> Judgement:
    """All that a report of several scenarios needs: the run, its scenario, and what is left of the run beside that."""
    judgement = judge(deployment, history)
    part = judge_scenario(deployment, history, judgement, "load")
    judge_rest(deployment, history, judgement, {"load": part})
    return judgement


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@contextmanager
def _own_process() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool


def _in_own_processes(settings: Settings, directory: Path, *, beside: bool) -> tuple[int, Measured]:
    """The largest resident set while the run was recorded (0: it was stored already), and what judging it cost."""
    recording = 0
    if not directory.exists():
        directory.mkdir(parents=True)
        with _own_process() as pool:
            recording = pool.submit(record, settings, directory).result()
    with _own_process() as pool:
        return recording, pool.submit(measure, settings, directory, beside=beside).result()


def main(argv: Sequence[str] | None = None) -> None:
    """Measure each size, and print a table."""
    options = _options(argv)
    print("            CPU seconds                              peak MiB")
    print("  requests      read     judge    report       all    recording   judging")
    with tempfile.TemporaryDirectory() as temporary:
        before: Measured | None = None
        for requests in options.requests:
            settings = Settings(requests, **{name: getattr(options, name) for name in _OPTIONS})
            directory = (options.keep or Path(temporary)) / str(requests)
            recording, one = _in_own_processes(settings, directory, beside=options.beside)
            print(_row(recording, one, before), flush=True)
            for check in one.judgement.checks if options.checks else ():
                print(f"    {check.name}: {check.verdict}: {check.summary}")
            before = one


def _row(recording: int, one: Measured, before: Measured | None) -> str:
    steps = "".join(f" {value:>9.2f}" for value in (*one.seconds.values(), one.cpu))
    row = f"{one.requests:>10,}{steps}    {recording / _MIB:>9,.0f} {one.peak / _MIB:>9,.0f}"
    if one.beside:
        row += f"   beside: {one.beside[0]:.2f} CPU s, {one.beside[1] / _MIB:,.0f} MiB"
    if before is None:
        return row
    return f"{row}   {one.cpu / before.cpu:.1f} times for {one.requests / before.requests:g} times"


_OPTIONS = tuple(item.name for item in fields(Settings) if item.name != "requests")


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.judging", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--requests", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--checks", action="store_true", help="show each check's verdict")
    parser.add_argument("--beside", action="store_true", help="counters were predicted by a process of its own")
    parser.add_argument("--keep", type=Path, metavar="DIRECTORY", help="keep the stored runs here")
    for item in fields(Settings):
        if item.name != "requests":
            kind = float if item.name == "verified" else int
            parser.add_argument(
                f"--{item.name}", type=kind, default=(usual := getattr(_USUAL, item.name)), help=f"({usual})"
            )
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
