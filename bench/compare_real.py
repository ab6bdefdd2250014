"""Compares real runs of two simulated pairs that are alike, again and again, and of two with a planted slowdown.

    python -m bench.compare_real --repeats 20 --slowdowns 1

In each repeat two pairs are started, and make runs in turns (A B A B). Both begin 3 % of their prefills 0.2 s late, so
that their slowest TTFTs are like those of a server with a tail. In the last repeats, which have a planted slowdown, the
second pair begins them so much later that the p99 of TTFT rises by 10 %. Then `compare` compares the two sets, as
it does for a user. Printed are, for each repeat, the conclusion, the metrics called real, and p99 TTFT.

Exit code 1 if the repeats without a slowdown give more than one alarm in total, or a planted slowdown is not found.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import harness
from harness.compare import Comparison
from harness.sim.__main__ import SLOW

_LATE = 0.2
"""Seconds."""
_SHARE = 0.03


@contextmanager
def slow_pair(seconds: float) -> Iterator[harness.RunningDeployment]:
    """A simulated pair that begins a share of its prefills so late."""
    before = os.environ.get(SLOW)
    os.environ[SLOW] = f"{_SHARE}:{seconds:g}"
    try:
        opening = harness.simulate()
        with opening as deployment:
            yield deployment
    finally:
        os.environ.pop(SLOW)
        if before is not None:
            os.environ[SLOW] = before


def repeat(directory: Path, flags: argparse.Namespace, late: tuple[float, float]) -> Comparison:
    """Make runs of two pairs in turns, and compare them."""
    load = harness.RandomLoad(num_prompts=flags.requests, concurrency=16)
    sides = directory / "a", directory / "b"
    with slow_pair(late[0]) as first, slow_pair(late[1]) as second:
        for _ in range(flags.runs):
            for pair, side in zip((first, second), sides, strict=True):
                pair.run(load, verify=flags.verify, result_dir=side)
    return harness.compare_runs(*sides)


def line(comparison: Comparison) -> str:
    """What one comparison says."""
    slowest = comparison.change("p99_ttft")
    real = ", ".join(one.metric.name for one in comparison.changes if one.real) or "nothing"
    if slowest is None:
        return f"{comparison.conclusion}; real: {real}"
    old, new = (" ".join(f"{value:.0f}" for value in side) for side in (slowest.sides.baseline, slowest.sides.run))
    return f"{comparison.conclusion}; real: {real}; p99 TTFT {old} ms against {new} ms"


def main(argv: Sequence[str] | None = None) -> int:
    """Make the runs, compare them, and print a line for each comparison."""
    flags = _parser().parse_args(argv)
    alarms, missed = 0, 0
    with tempfile.TemporaryDirectory() as place:
        for number in range(flags.repeats + flags.slowdowns):
            planted = number >= flags.repeats
            # A slow prefill's TTFT is what it waits and some 20 ms of service.
            late = _LATE * (1.11 if planted else 1.0)
            found = repeat((flags.keep or Path(place)) / f"repeat-{number}", flags, (_LATE, late))
            print(f"{'slower' if planted else 'same'}: {line(found)}", flush=True)
            slowest = found.change("p99_ttft")
            if planted:
                missed += slowest is None or not (slowest.real and slowest.worse)
            else:
                alarms += sum(one.real for one in found.changes)
    print(
        f"{alarms} alarms in {flags.repeats} repeats; {flags.slowdowns - missed} of {flags.slowdowns} slowdowns found"
    )
    return int(alarms > 1 or missed > 0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20, help="comparisons of the same build (default: %(default)s)")
    parser.add_argument("--slowdowns", type=int, default=1, help="comparisons with a slowdown (default: %(default)s)")
    parser.add_argument("--runs", type=int, default=5, help="runs on each side (default: %(default)s)")
    parser.add_argument("--requests", type=int, default=400, help="of each run (default: %(default)s)")
    parser.add_argument("--verify", default="budget:1s", help="as for the harness (default: %(default)s)")
    parser.add_argument("--keep", type=Path, help="store the runs here")
    return parser


if __name__ == "__main__":
    sys.exit(main())
