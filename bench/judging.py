"""Measures what judging costs, and how it grows with the run.

    python -m bench.judging --requests 1000 10000 100000

A history of each size is made (:mod:`bench.made_run`) in a process of its own and judged: every check of the run, and
the part of its one scenario. Printed are CPU seconds and memory, and how much more each size takes than the one before.
``own``: what judging adds to the memory that the history holds.
"""

import argparse
import multiprocessing
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from multiprocessing.connection import Connection
from pathlib import Path

from bench.made_run import Settings, deployment_of, history_of
from harness.checkers import judge, judge_rest, judge_scenario
from harness.facts import Deployment
from harness.history import History
from harness.verdict import Judgement

_MIB = 1 << 20


@dataclass(frozen=True)
class Measured:
    """What judging one run cost."""

    requests: int
    cpu: float
    """Seconds."""
    history: int
    """Bytes held before judging."""
    peak: int
    """Bytes held at most while judging."""
    judgement: Judgement

    @property
    def line(self) -> str:
        """A row of the table."""
        sizes = (self.history, self.peak, self.peak - self.history)
        return f"{self.requests:>10,} {self.cpu:>10.2f}" + "".join(f" {size / _MIB:>11,.0f}" for size in sizes)


def measure(settings: Settings) -> Measured:
    """Make a run and judge it."""
    deployment, history = deployment_of(settings), history_of(settings)
    held = _forget_peak()
    began = time.process_time()
    judgement = judged(deployment, history)
    return Measured(settings.requests, time.process_time() - began, held, _peak(), judgement)


def judged(deployment: Deployment, history: History) -> Judgement:
    """All that a report needs: the run, its scenario, and what is left of the run beside that."""
    judgement = judge(deployment, history)
    part = judge_scenario(deployment, history, judgement, "load")
    judge_rest(deployment, history, judgement, {"load": part})
    return judgement


def _forget_peak() -> int:
    """Let the kernel count the largest size anew, and return the present one; only Linux can."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return _peak()
    return _peak()


def _peak() -> int:
    """The largest size of this process since the count began, bytes."""
    try:
        status = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _in_own_process(settings: Settings) -> Measured:
    receiver, sender = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("spawn").Process(target=_child, args=(settings, sender))
    process.start()
    measured: Measured = receiver.recv()
    process.join()
    return measured


def _child(settings: Settings, sender: Connection) -> None:
    sender.send(measure(settings))


def main(argv: Sequence[str] | None = None) -> None:
    """Measure each size, and print a table."""
    options = _options(argv)
    print("  requests      CPU s history MiB    peak MiB     own MiB")
    before: Measured | None = None
    for requests in options.requests:
        given = {name: getattr(options, name) for name in _OPTIONS}
        one = _in_own_process(Settings(requests, **given))
        ratio = (
            "" if before is None else f"   {one.cpu / before.cpu:.1f} times for {requests / before.requests:g} times"
        )
        print(f"{one.line}{ratio}", flush=True)
        for check in one.judgement.checks if options.checks else ():
            print(f"    {check.name}: {check.verdict}: {check.summary}")
        before = one


_OPTIONS = tuple(item.name for item in fields(Settings) if item.name != "requests")


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.judging", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--requests", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--checks", action="store_true", help="show each check's verdict")
    for item in fields(Settings):
        if item.name != "requests":
            kind = float if item.name == "verified" else int
            parser.add_argument(f"--{item.name}", type=kind, default=item.default, help=f"({item.default})")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
