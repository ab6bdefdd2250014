"""Sends one long load in parts to one deployment, and measures whether anything grows with it.

    python -m bench.soak --transfers 10000
    python -m bench.soak --transfers 100000 --engine sim --pairs 5
    python -m bench.soak --transfers 10000 --engine sim --plant leaked_block=0.001

Before the first part and after each, when the servers have settled, it reads of each server, of the proxy and of the
harness itself: memory (RSS), open file descriptors, and KV blocks that requests hold. Printed is the growth of each in
1,000 requests with an interval of 99.9 % (``bench.slopes``). Memory and descriptors grow at first, when caches and
connection pools fill: the first quarter of the requests is not judged. KV blocks are judged from the beginning.
Something grows if its whole interval lies above its bound: 1 MiB of memory, 0.1 descriptors or 0.01 KV blocks in 1,000
requests, unless flags say otherwise.

Every part is verified as a run is. By default each output is compared with teacher forcing, and 1,024 prefixes of each
part are read again through the caches. A transfer is verified if the decode server counted it as predicted and its
output was judged. ``--pairs`` loads several deployments at once, each from a process of its own; the growth is then
that of all of them together.

Exit code 0: nothing grows, all parts are valid, all transfers verified. 1: something surely grows, or a part is
invalid. 3: a part is unknown, fewer transfers were verified than asked, or there are too few parts for an interval.
Linux only.
"""

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path

from bench.soak_growth import Growth, exit_code, growths, missing, verified
from bench.soak_parts import Plan, Soaked, soaked
from bench.soak_sample import BLOCKS, DESCRIPTORS, MEMORY, Sample

_PLANT = "PD_HARNESS_SIM_PLANT"
"""The variable in which simulated servers read bugs to plant."""
_UNITS = {MEMORY: "KiB", DESCRIPTORS: "descriptors", BLOCKS: "blocks"}
_APART = 1_000_000
"""Between the seeds of two pairs, so that none sends another's prompts."""


def main(argv: Sequence[str] | None = None) -> int:
    """Send all parts, print the growth of each measurement; returns the exit code."""
    options = _options(argv)
    if options.plant:
        os.environ[_PLANT] = " ".join(options.plant)
    options.out.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    runs = _all_soaked(list(_plans(options)))
    bounds = {MEMORY: options.most_kib, DESCRIPTORS: options.most_descriptors, BLOCKS: options.most_blocks}
    found = list(growths(runs, bounds))
    for line in _summary(runs, found, options.transfers, time.monotonic() - begun):
        print(line)
    _save(options.out / "soak.json", runs, found)
    return exit_code(runs, found, asked=options.transfers)


def _plans(options: argparse.Namespace) -> Iterator[Plan]:
    size = -(-options.transfers // (options.parts * options.pairs))
    for number in range(options.pairs):
        yield Plan(
            engine=options.engine,
            size=size,
            parts=options.parts,
            concurrency=options.concurrency,
            verify=options.verify or f"sample:{size}",
            seed=options.seed + number * _APART,
            out=options.out / f"pair-{number}",
            settle_seconds=options.settle_timeout_sec,
            name=f"pair {number}: " if options.pairs > 1 else "",
        )


def _all_soaked(plans: Sequence[Plan]) -> list[Soaked]:
    if len(plans) == 1:
        return [soaked(plans[0])]
    with ProcessPoolExecutor(len(plans), multiprocessing.get_context("spawn")) as processes:
        return list(processes.map(soaked, plans))


def _summary(runs: Sequence[Soaked], found: Sequence[Growth], asked: int, seconds: float) -> Iterator[str]:
    parts = [part for run in runs for part in run.parts]
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in Counter(part.verdict for part in parts).items())
    yield f"parts: {verdicts}; {seconds:,.0f} s"
    tokens = sum(part.external_tokens for part in parts)
    enough = "" if verified(runs) >= asked else "TOO FEW: "
    yield f"{enough}{verified(runs):,} verified transfers of {asked:,}, {tokens:,} external tokens"
    yield from map(_line, found)
    if without := missing(found):
        yield f"not measured, or too seldom for an interval (give --parts more): {', '.join(without)}"


def _line(one: Growth) -> str:
    found, unit = one.slope, f"{_UNITS[one.measure]} in 1,000 requests"
    interval = f"{found.estimate:+.3f} ({found.low:+.3f} to {found.high:+.3f}) {unit}"
    return f"{'GROWS' if one.surely else 'ok':5} {one.part} {one.measure}: {interval}; bound {one.bound:g}"


def _save(path: Path, runs: Sequence[Soaked], found: Sequence[Growth]) -> None:
    samples = [[{"requests": one.requests} | _flat(one) for one in run.samples] for run in runs]
    parts = [[asdict(part) for part in run.parts] for run in runs]
    content = {"growth": [asdict(one) for one in found], "parts": parts, "samples": samples}
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")


def _flat(one: Sample) -> dict[str, float]:
    return {f"{part} {measure}": value for (part, measure), value in one.values.items()}


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transfers", type=int, default=10_000, help="requests in all, each with a transfer (10000)")
    parser.add_argument(
        "--parts",
        type=int,
        default=20,
        help="parts of each pair, with a measurement after each; one pair needs about 30 for an interval (40)",
    )
    parser.add_argument("--pairs", type=int, default=1, help="deployments loaded at once (1)")
    parser.add_argument("--engine", choices=("vllm", "sim"), default="vllm")
    parser.add_argument("--concurrency", type=int, default=32, help="requests in flight at each pair (32)")
    parser.add_argument("--verify", help="as for the harness; default: sample:N with all outputs of a part")
    parser.add_argument("--settle-timeout-sec", type=float, help="longest wait after each part (60; simulated: 10)")
    parser.add_argument("--plant", action="append", default=[], metavar="BUG=RATE", help="a bug of the simulated pair")
    parser.add_argument("--most-kib", type=float, default=1024.0, help="KiB of memory in 1,000 requests (1024)")
    parser.add_argument("--most-descriptors", type=float, default=0.1, help="descriptors in 1,000 requests (0.1)")
    parser.add_argument("--most-blocks", type=float, default=0.01, help="KV blocks in 1,000 requests (0.01)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("soak-run"))
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
