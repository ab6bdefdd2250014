"""Measures by how much the latencies that load generators report are off, at 80 % of what each of them can do.

    python -m bench.paced --guidellm PATH --aiperf PATH

A stub (``bench.peer_stub``, a process and a core of its own) writes the pieces of every stream by an absolute schedule
and stamps each write with CLOCK_MONOTONIC. A tool's ceiling is the rate at which sending and reading such streams would
take a whole core. It first sends at a low rate; its CPU time between the first request and the last piece, divided by
the streams, tells the ceiling. (As many streams as it takes if they are not paced would tell more than that: a client
that is behind finds several pieces in one read.) A second run at 80 % of it corrects the ceiling, since a stream costs
less when many arrive together. In the third run, at 80 % of the corrected one, what the tool's result files say of each
request is compared with what the stub stamped for the same request:

``TTFT``: from the sending to the first token, less the stub's time from the request's arrival to its first write. What
is left is the way there and back, and how late the client stamps.
``ITL``: the gap before each piece, as far as the tool reports single gaps. Tokens of one piece are written at once; the
gaps within it are 0 by definition and are left out, since they would hide the others.
``mean ITL``: of a stream, for tools that report nothing finer.

Errors are absolute; median, 99th percentile and worst, in milliseconds. The exit code is 1 if the *median* error of the
harness's TTFT or ITL is above 1 ms. Its 99th percentile is shown too, and says as much about the machine: processes on
cores that are shared with others wait for each other. ``stub late`` is the 99th percentile of how late the stub itself
began a write; its stamps say when it really did, so that this is no error of any tool, but it shows how quiet the
machine is. ``busy`` is the share of its core that the tool used in the third run, and should be near 80 %; ``sent``
is the rate at which its requests arrived. A tool that sends more slowly than it was asked to did not keep up.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from statistics import median

import numpy as np

from bench.metered import FailedError
from bench.peer_answers import sizes
from bench.peer_results import READERS, Reported
from bench.peer_run import Asked, Ran, run
from bench.peer_tools import OURS, PROGRAMS, Tool, ours, peers
from bench.stamps import Array, Shape, Stamps

_LIMIT_MS = 1.0
_SHARE = 0.8
_CORRECTIONS = 2
_ANY = 1
"""A concurrency, which no tool reads that sends at a rate."""


@dataclass(frozen=True, slots=True)
class Errors:
    """Absolute differences in milliseconds; empty if the tool does not report such a latency."""

    median: float
    p99: float
    worst: float

    @classmethod
    def of(cls, seconds: Array) -> "Errors | None":
        """None if there is nothing to compare."""
        if not seconds.size:
            return None
        off = 1000 * np.abs(seconds)
        return cls(float(np.median(off)), float(np.percentile(off, 99)), float(off.max()))


@dataclass(frozen=True, slots=True)
class Measured:
    """One paced run of a tool."""

    ceiling: float
    """Streams per CPU second."""
    rate: float
    """Streams per second, as sent."""
    busy: float
    """The share of its core that the tool used meanwhile."""
    matched: int
    """Requests that the tool reports and the stub knows."""
    stub_late: float
    """Milliseconds, 99th percentile."""
    ttft: Errors | None
    itl: Errors | None
    mean_itl: Errors | None


def main() -> None:
    """Print the table. Exit 1 if the harness is off by more than the limit, or could not be measured."""
    options = _options()
    found, missing = peers({name: getattr(options, name) for name in PROGRAMS})
    tools = [Tool(OURS, ours, (0, 3)), *(tool for tool in found if tool.name in READERS)]
    unread = (f"{tool.name} is left out: it reports no single requests." for tool in found if tool.name not in READERS)
    print("\n".join([*missing, *unread]))
    shape = Shape(options.tokens, options.pieces, first_ms=options.first_ms, interval_ms=options.interval_ms)
    measured = {tool.name: list(_rounds(tool, shape, options)) for tool in tools}
    print("\n".join(table({name: rounds for name, rounds in measured.items() if rounds})))
    print(f"Load average of the machine at the end: {os.getloadavg()[0]:.1f}")
    sys.exit(not is_within(measured[OURS]))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in PROGRAMS:
        parser.add_argument(f"--{name.replace('_', '-')}", type=Path, metavar="PATH", help="its program")
    parser.add_argument("--first-rate", type=float, default=100.0, help="streams per second of the first run (100)")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each run's load (8)")
    parser.add_argument("--share", type=float, default=_SHARE, help="of the ceiling (0.8)")
    parser.add_argument("--tokens", type=int, default=128, help="tokens per stream (128)")
    parser.add_argument("--pieces", type=int, default=16, help="writes per stream (16)")
    parser.add_argument("--first-ms", type=float, default=50.0, help="from a request to its first piece (50)")
    parser.add_argument("--interval-ms", type=float, default=10.0, help="between two pieces of a stream (10)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds, of which the median is shown (3)")
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds that one run may take (300)")
    return parser.parse_args()


def _rounds(tool: Tool, shape: Shape, options: argparse.Namespace) -> Iterator[Measured]:
    for _ in range(options.rounds):
        try:
            yield _once(tool, shape, options)
        except FailedError as error:
            print(f"  {tool.name} failed and is not counted in this round. {error}")


def _once(tool: Tool, shape: Shape, options: argparse.Namespace) -> Measured:
    ceiling = options.first_rate / options.share
    for _ in range(_CORRECTIONS):
        ran, _ = _paced(tool, shape, ceiling, options)
        ceiling = ran.streams / ran.loading_cpu
    ran, reported = _paced(tool, shape, ceiling, options)
    return compare(ceiling, ran, reported, shape)


def _paced(tool: Tool, shape: Shape, ceiling: float, options: argparse.Namespace) -> tuple[Ran, list[Reported]]:
    """One run at so many streams per second, times the share."""
    rate = options.share * ceiling
    with tempfile.TemporaryDirectory() as folder:
        asked = Asked(round(rate * options.seconds), _ANY, rate)
        ran = run(tool, shape, asked, Path(folder), options.timeout)
        return ran, list(READERS[tool.name](Path(folder), ran.stamps))


def compare(ceiling: float, ran: Ran, reported: Sequence[Reported], shape: Shape) -> Measured:
    """What a tool reports beside what the stub stamped. ``ceiling``: streams per CPU second."""
    stamps, arrived = ran.stamps, ran.stamps.arrived
    rate = (len(arrived) - 1) / float(arrived.max() - arrived.min())
    busy = ran.loading_cpu / stamps.seconds
    due = shape.first_ms + shape.interval_ms * np.arange(shape.pieces)
    late = float(np.percentile(1000 * (stamps.written - arrived[:, None]) - due, 99))
    return Measured(ceiling, rate, busy, len(reported), late, *errors(stamps, reported, shape.tokens))


def errors(stamps: Stamps, reported: Sequence[Reported], tokens: int) -> tuple[Errors | None, ...]:
    """Of TTFT, of the gap before each piece, and of the mean gap of a stream."""
    rows = [one.row for one in reported]
    gaps = np.diff(stamps.token_times(tokens), axis=1)
    single = [(one.gaps, one.row) for one in reported if one.gaps is not None and len(one.gaps) == tokens - 1]
    before = [start - 1 for start in accumulate(sizes(tokens, stamps.written.shape[1])[:-1])]
    off = [(theirs - gaps[row])[before] for theirs, row in single]
    return (
        Errors.of(np.array([one.ttft for one in reported]) - stamps.ttft[rows]),
        Errors.of(np.concatenate(off) if off else np.zeros(0)),
        Errors.of(np.array([one.mean_gap for one in reported]) - gaps[rows].mean(axis=1)),
    )


def is_within(rounds: Sequence[Measured]) -> bool:
    """Whether the median errors of TTFT and ITL are at most 1 ms. False if there are none."""
    found = [(one.ttft.median, one.itl.median) for one in rounds if one.ttft and one.itl]
    return bool(found) and all(median(values) <= _LIMIT_MS for values in zip(*found, strict=True))


def table(measured: dict[str, list[Measured]]) -> Iterator[str]:
    """Two lines for each tool: medians over the rounds, and the worst of all."""
    for name, rounds in measured.items():
        ceiling, rate, busy, matched, late = (
            median(getattr(one, of) for one in rounds) for of in ("ceiling", "rate", "busy", "matched", "stub_late")
        )
        yield f"\n  {name}: ceiling {ceiling:,.0f} streams per CPU second, sent {rate:,.0f}/s, {busy:.0%} busy,"
        yield f"  {matched:,.0f} requests matched, stub late {late:.2f} ms. Errors in ms, median / p99 / worst:"
        if late > _LIMIT_MS:
            yield "  The stub itself was late: its core was not free, or it is the limit. Milliseconds mean little."
        yield "    " + "   ".join(
            f"{label} {_of_rounds([getattr(one, of) for one in rounds])}" for of, label in _LATENCIES.items()
        )


_LATENCIES = {"ttft": "TTFT", "itl": "ITL", "mean_itl": "mean ITL"}


def _of_rounds(found: Sequence[Errors | None]) -> str:
    there = [one for one in found if one]
    if not there:
        return "not reported"
    middle, p99 = median(one.median for one in there), median(one.p99 for one in there)
    return f"{middle:.2f} / {p99:.2f} / {max(one.worst for one in there):.2f}"


if __name__ == "__main__":
    main()
