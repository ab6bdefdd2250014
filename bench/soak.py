"""Sends one long load in parts to one deployment, and measures whether anything grows with it.

    python -m bench.soak --transfers 100000 --engine sim
    python -m bench.soak --transfers 10000
    python -m bench.soak --transfers 10000 --engine sim --plant leaked_blocks=0.001

After each part, when the servers have settled, it reads of each server, of the proxy and of the harness itself: memory
(RSS), open file descriptors, and KV blocks in use. Printed are slopes per 1,000 requests with intervals of 99.9 %
(``bench.slopes``); the first quarter of the parts, in which caches fill, is left out. A slope fails if its whole
interval lies above its bound: 1 MiB of memory, 1 descriptor or 0.1 KV blocks per 1,000 requests, unless flags say
otherwise. All parts are verified as runs are.

Exit code 0: nothing grows and all parts are valid. 1: something surely grows, or a part is invalid. 3: a part is
unknown, or there are too few parts for an interval. Linux only.
"""

import argparse
import gc
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import harness
from bench.slopes import FEWEST, Slope, slope
from bench.soak_sample import Sample, sample
from harness.api.opening import Opening
from harness.errors import ExitCode
from harness.verdict import Verdict, worst

_UNITS = {"memory": "KiB", "descriptors": "descriptors", "KV blocks": "blocks"}
_PLANT = "PD_HARNESS_SIM_PLANT"
"""The variable in which simulated servers read bugs to plant."""
_WARMUP = 0.25
"""The share of the parts that is left out."""


def main(argv: Sequence[str] | None = None) -> int:
    """Send all parts, print the slopes; returns the exit code."""
    options = _options(argv)
    if options.plant:
        os.environ[_PLANT] = " ".join(options.plant)
    samples, verdicts = _soaked(options)
    bounds = {"memory": options.most_kib, "descriptors": options.most_descriptors, "KV blocks": options.most_blocks}
    grows = False
    for (part, measure), found in slopes(samples):
        above = found.surely_above(bounds[measure])
        grows |= above
        print(_line(part, measure, found, bounds[measure], above=above))
    kept = len(samples) - _left_out(samples)
    if kept < FEWEST:
        print(f"{kept} parts after the warm-up, and an interval needs {FEWEST}: give --parts more")
    return _exit_code(verdicts, grows=grows, enough=kept >= FEWEST)


def slopes(samples: Sequence[Sample]) -> Iterator[tuple[tuple[str, str], Slope]]:
    """The slope of each measurement per 1,000 requests, by part of the deployment and measure."""
    kept = samples[_left_out(samples) :]
    for key in kept[0].values if kept else ():
        rows = [(one.requests / 1000, one.values[key]) for one in kept if key in one.values]
        yield key, slope(*zip(*rows, strict=True))


def _left_out(samples: Sequence[Sample]) -> int:
    return int(_WARMUP * len(samples))


def _line(part: str, measure: str, found: Slope, bound: float, *, above: bool) -> str:
    interval = f"{found.estimate:+.3f} ({found.low:+.3f} to {found.high:+.3f}) {_UNITS[measure]} per 1,000 requests"
    return f"{'GROWS' if above else 'ok':5} {part} {measure}: {interval}; bound {bound:g}"


def _exit_code(verdicts: Sequence[Verdict], *, grows: bool, enough: bool) -> int:
    verdict = worst(verdicts)
    if grows or verdict is Verdict.INVALID:
        return ExitCode.INVALID
    return ExitCode.VALID if enough and verdict is Verdict.VALID else ExitCode.UNKNOWN


def _soaked(options: argparse.Namespace) -> tuple[list[Sample], list[Verdict]]:
    samples: list[Sample] = []
    verdicts: list[Verdict] = []
    size = -(-options.transfers // options.parts)
    with _opening(options) as deployment:
        for number in range(options.parts):
            load = harness.RandomLoad(
                num_prompts=size,
                concurrency=options.concurrency,
                seed=options.seed + number,
                input_len=(20, 200),
                output_len=8,
            )
            report = deployment.run(load, verify=options.verify, settle_timeout=options.settle_timeout_sec)
            verdicts.append(report.verdict)
            bad = "; ".join(f"{one.name}: {one.summary}" for one in report.checks if one.verdict is not Verdict.VALID)
            del report
            gc.collect()
            samples.append(sample(deployment, (number + 1) * size))
            print(f"{samples[-1].requests:,} requests: {verdicts[-1]} {samples[-1].text} {bad}".rstrip(), flush=True)
    return samples, verdicts


def _opening(options: argparse.Namespace) -> Opening:
    if options.engine == "sim":
        return harness.simulate(separate_processes=True)
    return harness.launch(log_dir=options.out / "servers")


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transfers", type=int, default=10_000, help="requests in all, each with a transfer (10000)")
    parser.add_argument("--parts", type=int, default=20, help="parts, with a measurement after each (20)")
    parser.add_argument("--engine", choices=("vllm", "sim"), default="vllm")
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--verify", default="budget:10%", help="as for the harness (budget:10%%: every first token)")
    parser.add_argument("--settle-timeout-sec", type=float, default=60.0, help="longest wait after each part (60)")
    parser.add_argument("--plant", action="append", default=[], metavar="BUG=RATE", help="a bug of the simulated pair")
    parser.add_argument("--most-kib", type=float, default=1024.0, help="KiB of memory per 1,000 requests (1024)")
    parser.add_argument("--most-descriptors", type=float, default=1.0, help="descriptors per 1,000 requests (1)")
    parser.add_argument("--most-blocks", type=float, default=0.1, help="KV blocks per 1,000 requests (0.1)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("soak-run"))
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
