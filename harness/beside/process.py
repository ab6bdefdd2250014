"""The main process's side: whether a second process is worth starting, its start, its result and its end."""

import os
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from harness.checkers import Predictions
from harness.facts import Deployment
from harness.redact import redact_deployment
from harness.scenario import Scenario

FEWEST = 5000
"""Requests of a load from which on a process is started. Predictions for fewer take less than two seconds, and a
process takes half a second to start."""
MOST = 50_000
"""Requests up to which a process is started. For 100,000, both processes together took 650 MB, and a run is to take
less than 500; the judge alone took 440 (``bench/RESULTS.md``)."""
_LEAST_S, _PER_REQUEST_S = 3.0, 4e-4
"""How long the result is waited for, at least and per request: about as long as the judge takes to predict. So judging
takes no more than twice as long where the process gets no processor at all."""


class Beside:
    """A run's second process, if there is one. Use it as a context manager: at its end, the process has ended.

    ``journal``: the file in which the run is recorded. ``log``: takes what the process reports if it fails.
    ``senders``: processes that send the load. ``seconds``: how long the result is waited for; None: by the load's size.
    """

    def __init__(self, journal: Path, log: Path, *, senders: int = 1, seconds: float | None = None) -> None:
        self._journal, self._log, self._senders, self._seconds = journal, log, senders, seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._result: IO[bytes] | None = None
        self._limit = 0.0

    @property
    def pid(self) -> int | None:
        """The process's id; None if none was started."""
        return None if self._process is None else self._process.pid

    def begin(self, scenario: Scenario, deployment: Deployment) -> str:
        """Start the process if the scenario is large enough and a processor is to spare.

        Returns what was decided, in words; empty for a small scenario.
        """
        requests = sum(len(phase.requests) for phase in scenario.phases)
        if requests < FEWEST or self._process is not None:
            return ""
        if requests > MOST:
            return (
                f"counters will be predicted at the end: for {requests:,} requests, two processes take too much memory"
            )
        if (usable := _usable_cpus()) <= self._senders:
            return (
                f"counters will be predicted at the end: the load needs all of the {usable} processors (CPUs) at hand"
            )
        self._limit = _LEAST_S + _PER_REQUEST_S * requests if self._seconds is None else self._seconds
        try:
            self._start(deployment)
        except OSError as error:
            return f"counters will be predicted at the end: no second process could be started ({error.strerror})"
        return "counters are predicted by a second process, beside the verification of the answers"

    def predictions(self) -> Predictions | None:
        """The predictions, as soon as the process has ended; None if it failed or took too long. Blocks."""
        if self._process is None or self._result is None:
            return None
        try:
            status = self._process.wait(self._limit)
        except subprocess.TimeoutExpired:
            self._end()
            return None
        return None if status else _last(self._result)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
        if self._result is not None:
            self._result.close()

    def _start(self, deployment: Deployment) -> None:
        self._result = tempfile.TemporaryFile()  # noqa: SIM115 - closed with this object
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "harness.beside", str(self._journal)],
                stdin=subprocess.PIPE,
                stdout=self._result,
                stderr=log,
                env={**os.environ, "PYTHONPATH": _path(), **dict.fromkeys(_THREADS, "1")},
                # So Ctrl-C in the terminal reaches only the main process, which ends this one.
                start_new_session=True,
            )
        assert self._process.stdin is not None, "it is a pipe"  # noqa: S101 - for the type checker
        # It stays open until the process is to end.
        pickle.dump(redact_deployment(deployment), self._process.stdin)
        self._process.stdin.flush()

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            # Waits for the process, and closes the pipe.
            self._process.communicate()


_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def _usable_cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _path() -> str:
    """A search path on which the process finds this harness, also where it is not installed."""
    here = str(Path(__file__).parent.parent.parent)
    return os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))


def _last(file: IO[bytes]) -> Predictions | None:
    """The last predictions in the file."""
    file.seek(0)
    last: Predictions | None = None
    try:
        while True:
            last = pickle.load(file)  # noqa: S301 - a process of our own wrote it
    except EOFError:
        return last
