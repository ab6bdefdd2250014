"""Compares the harness's client with other load generators, side by side on one stub.

    python -m bench.peers --guidellm PATH --aiperf PATH --inference-perf PATH --wrk PATH

Each tool runs by its own command from its own environment, on one core; the stub (``bench.peer_stub``) runs on another.
The tools take turns, round by round, and medians are printed. What is not there is named and left out.

``streams/s`` is wall time as the stub saw it, from the first request to the last write: no tool's start counts, nor
what it does afterwards. ``per CPU s`` is of the tool and all of its processes. Each round runs a tool twice, with few
streams and with many (the quick readers with several times as many), and divides the difference in streams by the
difference in CPU time, so that starting costs nothing and everything else that a stream costs does: making its prompt,
sending, reading, computing metrics, writing the report, and in the harness's command line also the journal and judging.
``whole`` is the streams of the larger run by all its CPU time, start included. The ratios are of streams per CPU
second: of the harness's client by itself, and of its whole command line, to each row. No peer judges what it was sent,
so the first one compares clients, and the second what a user waits for.

The bare reader shows what the stub can serve, and ``stub busy`` the share of its core that the stub used: where it is
near 100 %, streams/s tell of the stub. A stream per CPU second does not depend on that.
"""

import argparse
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.metered import FailedError
from bench.peer_run import Asked, run
from bench.peer_tools import BARE, CLIENT, OURS, PROGRAMS, Tool, ours, peers, reading
from bench.stamps import Shape


@dataclass(frozen=True, slots=True)
class Cost:
    """One run of a tool."""

    streams: int
    """Whole ones, counted by the stub."""
    seconds: float
    """Of the load, by the stub's clock."""
    cpu: float
    """Seconds, of the tool and its processes."""
    stub_cpu: float


@dataclass(frozen=True, slots=True)
class Round:
    """A large run of a tool, and a small one unless the tool's start costs next to nothing."""

    large: Cost
    small: Cost | None

    @property
    def wall(self) -> float:
        """Streams per second."""
        return self.large.streams / self.large.seconds

    @property
    def per_cpu(self) -> float:
        """Streams per CPU second, without what starting costs; NaN if the start alone varied by more."""
        if self.small is None:
            return self.whole
        cpu = self.large.cpu - self.small.cpu
        return (self.large.streams - self.small.streams) / cpu if cpu > 0 else float("nan")

    @property
    def whole(self) -> float:
        """Streams per CPU second of the whole command."""
        return self.large.streams / self.large.cpu

    @property
    def stub_busy(self) -> float:
        """The share of its core that the stub used."""
        return self.large.stub_cpu / self.large.seconds


def main() -> None:
    """Print a table for each shape of stream."""
    options = _options()
    found, missing = peers({name: getattr(options, name) for name in PROGRAMS})
    alone, bare = Tool(CLIENT, reading("harness"), times=3), Tool(BARE, reading("bare"), times=10)
    tools = [Tool(OURS, ours, (0, 3)), alone, *found, bare]
    print("\n".join(missing))
    for pieces in options.pieces:
        shape = Shape(options.tokens, pieces)
        print(
            f"\n{shape.tokens} tokens in {pieces} pieces, {options.streams:,} streams, {options.concurrency} at a time:"
        )
        with tempfile.TemporaryDirectory() as folder:
            measured = _rounds(tools, shape, Path(folder), options)
        print("\n".join(table(measured)))
    print(f"\nLoad average of the machine at the end: {os.getloadavg()[0]:.1f}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in PROGRAMS:
        parser.add_argument(f"--{name.replace('_', '-')}", type=Path, metavar="PATH", help="its program")
    parser.add_argument("--streams", type=int, default=4000, help="streams of the larger run (4000)")
    parser.add_argument("--few", type=int, default=200, help="streams of the smaller run (200)")
    parser.add_argument("--concurrency", type=int, default=32, help="streams at a time (32)")
    parser.add_argument("--tokens", type=int, default=128, help="tokens per stream (128)")
    parser.add_argument("--pieces", type=int, nargs="+", default=[16, 128], help="writes per stream (16 128)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds, of which the median is shown (3)")
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds that one run may take (300)")
    return parser.parse_args()


def _rounds(tools: Sequence[Tool], shape: Shape, folder: Path, options: argparse.Namespace) -> dict[str, list[Round]]:
    measured: dict[str, list[Round]] = {}
    for _ in range(options.rounds):
        for tool in tools:
            try:
                small = _once(tool, shape, options.few, folder, options) if tool.exact else None
                large = _once(tool, shape, options.streams * tool.times, folder, options)
            except FailedError as error:
                print(f"  {tool.name} failed and is not counted in this round. {error}")
            else:
                measured.setdefault(tool.name, []).append(Round(large, small))
    return measured


def _once(tool: Tool, shape: Shape, streams: int, folder: Path, options: argparse.Namespace) -> Cost:
    ran = run(tool, shape, Asked(streams, options.concurrency), folder, options.timeout)
    return Cost(ran.streams, ran.stamps.seconds, ran.cpu, ran.stub_cpu)


def table(measured: dict[str, list[Round]]) -> Iterator[str]:
    """The rows of a shape."""
    per_cpu = {name: median(one.per_cpu for one in rounds) for name, rounds in measured.items()}
    heads = f"{'streams/s':>10} {'stub busy':>10} {'per CPU s':>10} {'whole':>8} {'client:it':>10} {'harness:it':>11}"
    yield f"  {'':32} {heads}"
    for name, rounds in measured.items():
        wall, busy, whole = (median(getattr(one, of) for one in rounds) for of in ("wall", "stub_busy", "whole"))
        ratios = f"{_ratio(per_cpu, CLIENT, name):>10} {_ratio(per_cpu, OURS, name):>11}"
        yield f"  {name:32} {wall:10,.0f} {busy:10.0%} {per_cpu[name]:10,.0f} {whole:8,.0f} {ratios}"


def _ratio(per_cpu: dict[str, float], ours: str, name: str) -> str:
    return f"{per_cpu[ours] / per_cpu[name]:.2f}" if ours in per_cpu and name != ours else ""


if __name__ == "__main__":
    main()
