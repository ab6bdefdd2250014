"""Runs a command on one core and measures the CPU time of it and of all processes that it starts. Linux only.

    python -m bench.metered --core 1 --timeout 60 -- some command

prints JSON: ``cpu`` and ``wall`` in seconds, ``code``, and ``samples``: pairs of a time (CLOCK_MONOTONIC, seconds) and
the CPU seconds used until then. The command's own output goes to standard error.

A process's CPU time is counted when its parent waits for it. Load generators start processes that outlive their parents
for a moment, which nobody would wait for: this process makes itself their new parent (PR_SET_CHILD_SUBREAPER), so it
must be a process of its own.
"""

import argparse
import contextlib
import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

_SUBREAPER = 36
"""PR_SET_CHILD_SUBREAPER of linux/prctl.h."""
_SAMPLED_S = 0.1
_LEFT_S = 10.0
"""What is left of the command's processes may end by itself for so long."""
_ROOT = Path(__file__).parent.parent


@dataclass(frozen=True, slots=True)
class Metered:
    """What a command cost, in seconds, and what it printed."""

    wall: float
    cpu: float
    output: str
    samples: Sequence[tuple[float, float]] = ()
    """Times of CLOCK_MONOTONIC, and the CPU seconds used until then."""

    def between(self, start: float, end: float) -> float:
        """CPU seconds used between two times of CLOCK_MONOTONIC, to some hundredths of a second."""
        times, used = zip(*self.samples, strict=True)
        first, last = np.interp((start, end), times, used)
        return float(last - first)


class FailedError(Exception):
    """The command did not end well; the message has the end of its output."""


def metered(
    command: Sequence[str],
    core: int,
    environment: Mapping[str, str],
    timeout: float,
    *,
    accepted: Container[int] = (0,),
) -> Metered:
    """Run a command. Raises `FailedError` if its exit code is not accepted, or after ``timeout`` seconds."""
    own = [sys.executable, "-m", "bench.metered", f"--core={core}", f"--timeout={timeout}", "--", *command]
    env = {**os.environ, **environment}
    done = subprocess.run(own, cwd=_ROOT, env=env, capture_output=True, text=True, check=False)
    found = json.loads(done.stdout or '{"code": 1}')
    if found["code"] not in accepted:
        raise FailedError(f"{' '.join(command)} ended with {found['code']}:\n{done.stderr[-3000:]}")
    return Metered(found["wall"], found["cpu"], done.stderr, [(at, used) for at, used in found["samples"]])


def main() -> None:
    """Run the command of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--core", type=int, required=True, help="the core that it and its processes may use")
    parser.add_argument("--timeout", type=float, required=True, help="seconds after which all of them are ended")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    began, samples = time.perf_counter(), [(time.monotonic(), 0.0)]
    code = _run(["taskset", "--cpu-list", str(options.core), *options.command], options.timeout, samples)
    _wait_for_the_rest()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = used.ru_utime + used.ru_stime
    samples.append((time.monotonic(), cpu))
    print(json.dumps({"wall": time.perf_counter() - began, "cpu": cpu, "code": code, "samples": samples}))


def _run(command: Sequence[str], timeout: float, samples: list[tuple[float, float]]) -> int:
    """The command's exit code; 124 if it did not end in time. Adds to ``samples`` until then."""
    end = time.monotonic() + timeout
    # Pinned before it starts, so that libraries make as many threads as there are cores.
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sys.stderr) as process:
        while time.monotonic() < end:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(_SAMPLED_S)
            samples.append((time.monotonic(), _used()))
        _kill_all()
        return 124


def _used() -> float:
    """CPU seconds of all processes below this one, also of those that have ended and were waited for."""
    ticks = 0
    for pid in (*descendants(os.getpid()), os.getpid()):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            # User and system time of the process, unless it is this one, and of its children that were waited for.
            ticks += sum(int(field) for field in fields[13 if pid == os.getpid() else 11 : 15])
    return ticks / os.sysconf("SC_CLK_TCK")


def _wait_for_the_rest() -> None:
    end = time.monotonic() + _LEFT_S
    while _children_left():
        if time.monotonic() > end:
            _kill_all()
        time.sleep(0.02)


def _children_left() -> bool:
    """Whether processes are left, after those that have ended were waited for."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def _kill_all() -> None:
    for pid in tuple(descendants(os.getpid())):
        os.kill(pid, signal.SIGKILL)


def descendants(pid: int) -> Iterator[int]:
    """The processes that a process has started, and those that they have started."""
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in task.read_text().split():
                yield from descendants(int(child))
                yield int(child)


if __name__ == "__main__":
    main()
