"""The flags of ``selftest``."""

import argparse
import os
from pathlib import Path

from harness.errors import UsageError
from harness.selftest import SelftestOptions

_DEFAULT = SelftestOptions()


def add_selftest_flags(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The command, with what it takes."""
    parser = commands.add_parser(
        "selftest", help="plant each known bug in a simulated pair, and see who catches it", allow_abbrev=False
    )
    parser.add_argument("--bug", metavar="NAME", action="append", default=[], help="only this one; repeatable")
    parser.add_argument(
        "--rates",
        metavar="N,N",
        default=",".join(map(str, _DEFAULT.one_in)),
        help="one bad request in so many (default: %(default)s)",
    )
    numbers = {
        "--requests": (_DEFAULT.requests, "of one trial, at most"),
        "--repeats": (_DEFAULT.repeats, "trials of each bug at each rate"),
        "--clean-requests": (_DEFAULT.clean_requests, "of all clean trials together"),
        "--jobs": (os.cpu_count() or 1, "processes at a time"),
    }
    for flag, (default, text) in numbers.items():
        parser.add_argument(flag, metavar="N", type=int, default=default, help=f"{text} (default: {default})")
    parser.add_argument("--flip-rate", metavar="SHARE", type=float, default=_DEFAULT.flip_rate, help=argparse.SUPPRESS)
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="of all trials (default: 0)")
    parser.add_argument("--result-dir", type=Path, default=Path("runs"), help="default: %(default)s")
    parser.add_argument("--plain", "--disable-tqdm", action="store_true", help="plain lines, no live display")


def selftest_options(flags: argparse.Namespace) -> SelftestOptions:
    """Raises UsageError for numbers that make no trial."""
    rates = _rates(flags.rates)
    for flag in ("requests", "repeats", "clean_requests", "jobs"):
        if getattr(flags, flag) < 1:
            raise UsageError(f"--{flag.replace('_', '-')} {getattr(flags, flag)}: give a number of at least 1.")
    return SelftestOptions(
        bugs=tuple(flags.bug),
        one_in=rates,
        requests=flags.requests,
        repeats=flags.repeats,
        clean_requests=flags.clean_requests,
        flip_rate=flags.flip_rate,
        seed=flags.seed,
        jobs=flags.jobs,
    )


def _rates(text: str) -> tuple[int, ...]:
    words = text.split(",")
    if not all(word.isdecimal() and int(word) > 0 for word in words):
        raise UsageError(f"--rates {text}: give whole numbers with commas between; 20,200 is 1 in 20 and 1 in 200.")
    return tuple(sorted({int(word) for word in words}))
