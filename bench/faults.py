"""Causes each fault of a list, on the deployment that it needs, and makes a table of what happened.

    python -m bench.faults                                     every case; launches pairs, and ends them
    python -m bench.faults --list                              shows the groups of cases
    python -m bench.faults --group leases --group parameters
    python -m bench.faults --resume                            keeps the rows that are in OUT, and makes the others
    python -m bench.faults --fault pause:server=decode-0 --fault kill:server=prefill-0,for=5
    python -m bench.faults --engine sim

Each case has a run of its own: its load or workload, its reads of every prompt afterwards, its verdict. Runs are stored
in OUT, and ``python -m harness check OUT/RUN`` judges one again. After each run the table is written to OUT/faults.md.
A run that the engine is known to get wrong is marked, and the table's end says how to see it; it does not count.
Exit code 0 if every other run is valid, 1 if one is invalid, 3 if one is unknown, 4 if a case could not be run.
"""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.fault_cases import GROUPS, Case, Group, Pair, chosen, pairs
from bench.fault_pair import run_on_pair
from bench.fault_table import Table
from harness.errors import ExitCode, HarnessError
from harness.verdict import Verdict, worst

_EXITS = {Verdict.VALID: ExitCode.VALID, Verdict.INVALID: ExitCode.INVALID, Verdict.UNKNOWN: ExitCode.UNKNOWN}


def main(argv: Sequence[str] | None = None) -> int:
    """Make all runs; returns the exit code."""
    options = _options(argv)
    groups = _given(options.fault) if options.fault else chosen(options.group)
    if options.list:
        print("\n".join(line for group in groups for line in _lines(group)))
        return ExitCode.VALID
    options.out.mkdir(parents=True, exist_ok=True)
    table = Table.open(options.out, resume=options.resume)
    wanted = [(group.name, case) for group in groups for case in group.cases]
    failures = [why for pair in pairs(groups) for why in asyncio.run(_on(pair, options, table))]
    print(*failures, sep="\n", file=sys.stderr)
    if failures:
        return ExitCode.HARNESS
    return _EXITS[worst(table.rows[key].counts for key in map(table.key, wanted))]


async def _on(pair: Pair, options: argparse.Namespace, table: Table) -> list[str]:
    """Run what is left of a pair's cases. After one that could not be run, the others get a new pair; returns why."""
    left = [one for one in pair.cases if table.key(one) not in table.rows]
    failures: list[str] = []
    while left:
        try:
            failures += await run_on_pair(pair, left, options, table.add)
        except HarnessError as error:
            return [*failures, *(f"{case.text}: {error}" for _, case in left)]
    return failures


def _given(faults: Sequence[str]) -> list[Group]:
    return [Group(name="given", summary="as given", cases=tuple(Case(faults=(one,)) for one in faults))]


def _lines(group: Group) -> list[str]:
    return [f"{group.name}: {group.summary} [{group.preset.name}]", *(f"    {case.text}" for case in group.cases)]


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="show the groups and their cases, and do nothing")
    parser.add_argument("--group", action="append", default=[], choices=GROUPS, metavar="NAME", help="repeatable (all)")
    parser.add_argument("--fault", action="append", help="as for `python -m harness`, in place of groups; repeatable")
    parser.add_argument("--resume", action="store_true", help="keep the rows of an earlier run that are in OUT")
    parser.add_argument("--engine", choices=("vllm", "sim"), default="vllm")
    parser.add_argument("--requests", type=int, default=160, help="requests of each load (160)")
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--verify", default="sample:40", help="which outputs, as for the harness (sample:40)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("fault-runs"))
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
