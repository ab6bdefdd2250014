"""Causes each fault of a list during a load, on one deployment, and makes a table of what happened.

    python -m bench.faults                                     launches a pair, ends it; every usual fault
    python -m bench.faults --fault pause:server=decode-0 --fault kill:server=prefill-0,for=5
    python -m bench.faults --engine sim --requests 400

Each fault has a run of its own: its load, its reads of every prompt afterwards, its verdict. Runs are stored in OUT,
and ``python -m harness check OUT/RUN`` judges one again. After each run the table is written to OUT/faults.md.
Exit code 0 if every run is valid, 1 if one is invalid, 3 if one is unknown.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import harness
from bench.fault_row import COLUMNS, Row, row
from harness.errors import ExitCode
from harness.faults import USUAL, parse_fault, relays_for
from harness.verdict import Verdict, worst

_EXITS = {Verdict.VALID: ExitCode.VALID, Verdict.INVALID: ExitCode.INVALID, Verdict.UNKNOWN: ExitCode.UNKNOWN}


def main(argv: Sequence[str] | None = None) -> int:
    """Make all runs; returns the exit code."""
    options = _options(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    relays = relays_for(map(parse_fault, options.fault or USUAL))
    opening = (
        harness.simulate(relays=relays)
        if options.engine == "sim"
        else harness.launch(relays=relays, log_dir=options.out / "servers")
    )
    with opening as deployment:
        for number, fault in enumerate(options.fault or USUAL):
            load = harness.RandomLoad(
                num_prompts=options.requests, concurrency=options.concurrency, seed=options.seed + number
            )
            report = deployment.run(
                load, faults=[fault], verify=options.verify, result_dir=options.out, label=fault.partition(":")[0]
            )
            rows.append(row(fault, report.history, report.judgement))
            print(" | ".join(rows[-1].cells()), flush=True)
            print(f"    {rows[-1].evidence}", *(f"\n    {text}" for text in rows[-1].remarks), flush=True)
            (options.out / "faults.md").write_text("\n".join(table(rows)) + "\n", encoding="utf-8")
    return _EXITS[worst(one.verdict for one in rows)]


def table(rows: Sequence[Row]) -> Iterator[str]:
    """The rows as a table in Markdown."""
    yield _line(COLUMNS)
    yield _line(["---"] * 2 + ["---:"] * (len(COLUMNS) - 2))
    for one in rows:
        yield _line(one.cells())


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fault", action="append", help="as for `python -m harness`; repeatable (all usual ones)")
    parser.add_argument("--engine", choices=("vllm", "sim"), default="vllm")
    parser.add_argument("--requests", type=int, default=300, help="requests of each load (300)")
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--verify", default="all", help="which outputs are verified, as for the harness (all)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("fault-runs"))
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
