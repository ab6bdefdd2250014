"""Measures whole runs on the simulated pair: what each part costs, and the harness's memory meanwhile. Linux only.

    python -m bench.whole_run --requests 1000 10000 100000 -- --random-input-len 20:300 --random-output-len 4

For each size, ``python -m harness run --engine sim`` starts servers and proxy, sends the load, verifies outputs,
judges, and makes its report. Printed are, for each part, seconds, CPU seconds of the harness's process and of the
servers and the proxy together, and the largest resident set of the harness's process, sampled ten times a second; then
the verdict.
What follows ``--`` are further arguments of ``python -m harness run``, such as ``--request-rate 300``.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from bench.metered import descendants

_ROOT = Path(__file__).parent.parent
_SAMPLED_S = 0.1
_MB = 1_000_000
_PARTS = ("starting", "load", "verification", "judging, report", "ending")
_VERDICTS = ("VALID", "INVALID", "UNKNOWN")


@dataclass(frozen=True)
class Sample:
    """The processes at one time."""

    at: float
    """Seconds."""
    own: float
    """CPU seconds of the harness's process so far."""
    others: float
    """CPU seconds of the processes that it started, so far."""
    memory: int
    """Bytes: the resident set of the harness's process."""


@dataclass
class Run:
    """A run that is looked at while it goes on."""

    pid: int
    samples: list[Sample] = field(default_factory=lambda: [Sample(time.perf_counter(), 0.0, 0.0, 0)])
    ends: dict[str, Sample] = field(default_factory=dict)
    """The last sample of each part."""
    verdict: str = "no verdict"

    def sample(self) -> Sample:
        """Look at the processes. What has ended keeps its last values."""
        last = self.samples[-1]
        try:
            memory = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
            others = max(last.others, sum(map(_cpu, descendants(self.pid))))
            self.samples.append(Sample(time.perf_counter(), _cpu(self.pid), others, memory))
        except (OSError, IndexError):
            self.samples.append(Sample(time.perf_counter(), last.own, last.others, 0))
        return self.samples[-1]

    def read(self, line: str) -> None:
        """Follow the run by what it prints."""
        where, _, rest = line.partition(": ")
        scenario = where.partition("/")[0]
        if scenario == "random_load" and rest.endswith(" requests\n"):
            self.ends["starting"] = self.sample()
        elif scenario == "random_load" and rest.startswith("ended"):
            self.ends["load"] = self.ends["verification"] = self.sample()
        elif scenario == "verification" and rest.startswith("ended") and "load" in self.ends:
            self.ends["verification"] = self.sample()
        elif where in _VERDICTS:
            self.ends["judging, report"], self.verdict = self.sample(), line.strip()

    def rows(self) -> Iterator[tuple[str, float, float, float, int]]:
        """Each part: its name, seconds, CPU seconds of the harness and of the others, and largest memory in bytes."""
        self.ends["ending"] = self.samples[-1]
        known = [(name, self.ends[name]) for name in _PARTS if name in self.ends]
        for (_, before), (name, end) in pairwise([("", self.samples[0]), *known]):
            peak = max(one.memory for one in self.samples if before.at <= one.at <= end.at)
            yield name, end.at - before.at, end.own - before.own, end.others - before.others, peak


def _cpu(pid: int) -> float:
    """CPU seconds of one process. Raises OSError if it has ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def measure(requests: int, concurrency: int, further: Sequence[str]) -> Run:
    """Make one run, in a directory that is removed at its end."""
    with tempfile.TemporaryDirectory() as directory:
        words = ["--engine", "sim", "--plain", "--num-prompts", str(requests), "--concurrency", str(concurrency)]
        command = [sys.executable, "-m", "harness", "run", *words, "--result-dir", directory, *further]
        environment = os.environ | {"PYTHONUNBUFFERED": "1"}
        with subprocess.Popen(
            command, cwd=_ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            run, ended = Run(process.pid), threading.Event()
            sampling = threading.Thread(target=_keep_sampling, args=(run, ended))
            sampling.start()
            for line in process.stdout or ():
                run.read(line)
            ended.set()
            sampling.join()
    return run


def _keep_sampling(run: Run, ended: threading.Event) -> None:
    while not ended.wait(_SAMPLED_S):
        run.sample()


def main(argv: Sequence[str] | None = None) -> None:
    """Measure each size, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.whole_run", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--requests", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--concurrency", type=int, default=256)
    parser.add_argument("further", nargs="*", metavar="-- ARGS", help="further arguments of python -m harness run")
    options = parser.parse_args(argv)
    print(f"{'requests':>10}  {'part':<16}{'seconds':>9}{'harness, CPU s':>16}{'servers, CPU s':>16}{'peak MB':>9}")
    for requests in options.requests:
        run = measure(requests, options.concurrency, options.further)
        for name, wall, own, others, peak in run.rows():
            print(f"{requests:>10,}  {name:<16}{wall:>9.1f}{own:>16.1f}{others:>16.1f}{peak / _MB:>9,.0f}", flush=True)
        print(f"{'':>10}  {run.verdict}", flush=True)


if __name__ == "__main__":
    main()
