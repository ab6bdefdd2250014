"""Starts ``bench.peer_stub`` and reads what it stamped. All times are seconds of CLOCK_MONOTONIC."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from bench.peer_answers import sizes

_ROOT = Path(__file__).parent.parent
Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Shape:
    """The streams of a stub. ``first_ms`` and ``interval_ms`` 0: as fast as they are read."""

    tokens: int
    pieces: int
    prompt: int = 200
    first_ms: float = 0.0
    interval_ms: float = 0.0

    @property
    def flags(self) -> list[str]:
        """The arguments of ``bench.peer_stub``."""
        names = ("tokens", "pieces", "prompt", "first_ms", "interval_ms")
        return [f"--{name.replace('_', '-')}={getattr(self, name)}" for name in names]


@dataclass(frozen=True, slots=True)
class Stamps:
    """The whole streams that a stub served, in the order in which they ended."""

    numbers: npt.NDArray[np.int64]
    """The number in each stream's response id."""
    ids: npt.NDArray[np.str_]
    """X-Request-Id of each request; empty if it had none."""
    arrived: Array
    written: Array
    """Streams x pieces: when each write began."""

    @property
    def seconds(self) -> float:
        """From the arrival of the first request to the last write."""
        return float(self.written.max() - self.arrived.min())

    @property
    def ttft(self) -> Array:
        """Seconds from a request's arrival to its first piece."""
        return np.asarray(self.written[:, 0] - self.arrived, np.float64)

    def token_times(self, tokens: int) -> Array:
        """Streams x tokens: when the write began that has the token."""
        return np.asarray(np.repeat(self.written, sizes(tokens, self.written.shape[1]), axis=1), np.float64)

    @property
    def by_id(self) -> Mapping[str, int]:
        """The row of each request id."""
        return {str(name): row for row, name in enumerate(self.ids)}

    @property
    def by_number(self) -> Mapping[int, int]:
        """The row of each stream's number."""
        return {int(number): row for row, number in enumerate(self.numbers)}


@dataclass(slots=True)
class Stub:
    """A running stub."""

    url: str
    pid: int
    _input: IO[str] = field(repr=False)
    _output: IO[str] = field(repr=False)

    def take(self) -> Stamps:
        """What it stamped since the last call."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "stamps.npz"
            print(path, file=self._input, flush=True)
            self._output.readline()
            with np.load(path) as found:
                return Stamps(found["numbers"], found["ids"], found["arrived"], found["stamps"])


@contextmanager
def stub(shape: Shape, core: int) -> Iterator[Stub]:
    """A stub on a core, which is ended at the end."""
    command = ["taskset", "--cpu-list", str(core), sys.executable, "-m", "bench.peer_stub", *shape.flags]
    with subprocess.Popen(
        command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=dict(os.environ)
    ) as process:
        assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018 - for mypy: they are pipes
        try:
            yield Stub(process.stdout.readline().strip(), process.pid, process.stdin, process.stdout)
        finally:
            process.kill()
