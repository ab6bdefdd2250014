"""The nightly job's command line."""

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from itertools import pairwise
from pathlib import Path

from bench.nightly.jobs import READY, Job, need_a_launch, usual
from bench.nightly.plan import read_plan
from harness.compare import Threshold, parse_thresholds
from harness.compare.metrics import LATENCIES, RATES, THROUGHPUTS
from harness.compare.thresholds import OUTPUTS
from harness.errors import UsageError

_ATTACHING = {"--base-url", "--prefill-url", "--decode-url"}
_COUNTER = re.compile(r"(prefill|decode)\.\w+|\w+_bytes")
"""Names of counters, which depend on the deployment (harness/compare/stored_run.py)."""
_OURS = {"--result-dir", "--label", "--seed", "--junit"}
"""Flags that the nightly job gives to the harness itself: after ``--`` they would take the place of its own."""


@dataclass(frozen=True, slots=True)
class Options:
    """A night as it was asked for."""

    result_dir: Path
    jobs: tuple[Job, ...]
    words: tuple[str, ...]
    """Flags of the harness that launch a deployment, or attach to one."""
    date: date
    seed: int
    job_timeout: float
    """Seconds."""
    min_free: int
    """Bytes that must be free on the disk before a job begins."""
    keep: int | None
    """How many nights are kept; None: all."""
    fail_on: tuple[Threshold, ...]
    index_only: bool

    @property
    def attached(self) -> bool:
        """Whether the words name servers that are running already."""
        return attaches(self.words)


def attaches(words: Sequence[str]) -> bool:
    """Whether flags of the harness attach to a running deployment."""
    return any(word.partition("=")[0] in _ATTACHING for word in words)


def simulates(words: Sequence[str]) -> bool:
    """Whether flags of the harness launch simulated servers."""
    return "--engine=sim" in words or ("--engine", "sim") in pairwise(words)


def parse(argv: Sequence[str]) -> Options:
    """Read the command line; words after ``--`` go to the harness.

    Raises:
        UsageError: the jobs do not fit together.
        SystemExit: by argparse, with code 2.

    """
    at = list(argv).index("--") if "--" in argv else len(argv)
    words = tuple(argv[at + 1 :])
    given = make_parser().parse_args(list(argv[:at]))
    if ours := [word for word in words if word.partition("=")[0] in _OURS]:
        raise UsageError(f"{ours[0]} after -- is given by the nightly job: leave it out there.")
    jobs = _jobs(given, words)
    day = given.date or datetime.now(UTC).date()
    return Options(
        result_dir=given.result_dir,
        jobs=jobs,
        words=words,
        date=day,
        # A new seed each night meets new prompts; the seed is in the record, so that a night can be repeated.
        seed=day.toordinal() if given.seed is None else given.seed,
        job_timeout=given.job_timeout,
        min_free=given.min_free_mb * 1_000_000,
        keep=given.keep,
        fail_on=_limits(given.fail_on),
        index_only=given.index_only,
    )


def _limits(texts: Sequence[str]) -> tuple[Threshold, ...]:
    """The limits. A mistake in one must not show only in the morning, as a comparison that could not be made."""
    units = {metric.name: metric.unit for metric in (*LATENCIES, *THROUGHPUTS, *RATES)} | {OUTPUTS: ""}
    found = parse_thresholds(texts)
    for one in found:
        if one.metric in units:
            one.require_unit(units[one.metric])
        elif not _COUNTER.fullmatch(one.metric):
            raise UsageError(
                f"--fail-on {one.text}: there is no metric {one.metric!r}. There are {', '.join(sorted(units))}, and "
                "counters such as decode.local_compute and nixl_bytes."
            )
    return found


def make_parser() -> argparse.ArgumentParser:
    """The parser of what stands before ``--``."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.nightly",
        description="Run chosen loads, workloads and faults against a deployment, compare the night with the last good "
        "one, and rebuild the page over all nights, RESULT_DIR/index.html.",
        epilog="Words after -- go to the harness: flags that launch a deployment (the default: a pair), or flags that "
        "attach to one (--base-url, --prefill-url, --decode-url). Exit codes: 0 valid, 1 invalid, or worse than a "
        "--fail-on, 2 usage error, 3 unknown, 4 the harness or the night itself failed; the worst of all jobs.",
    )
    parser.add_argument("--result-dir", type=Path, required=True, metavar="DIR", help="where all nights are stored")
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--jobs",
        type=_ready,
        metavar="NAME,...",
        help=f"some of {', '.join(READY)} (default: all that the deployment allows)",
    )
    which.add_argument(
        "--plan", type=Path, metavar="FILE", help="a TOML file of jobs of your own (bench/nightly/plan.py)"
    )
    parser.add_argument(
        "--repeat", type=_positive, metavar="N", help="run each measured load N times (default: steady 5 times)"
    )
    parser.add_argument(
        "--own-deployments",
        action="store_true",
        help="launch a deployment for each run instead of one for the night: slower, and more can be checked (always "
        "so with --engine sim)",
    )
    parser.add_argument("--seed", type=int, metavar="N", help="seed of the prompts (default: the day's number)")
    parser.add_argument(
        "--job-timeout",
        type=_seconds,
        default=3600.0,
        metavar="S",
        help="end a run after so many seconds (default: 3600)",
    )
    parser.add_argument(
        "--fail-on",
        action="append",
        default=[],
        metavar="METRIC:CHANGE",
        help="fail the night if a job is worse than in the last good night by more, as in p99_ttft:+10%%; it needs "
        "3 runs of each measured job a night, better 5 (--repeat); repeatable (default: the comparison only informs)",
    )
    parser.add_argument(
        "--keep", type=_positive, metavar="N", help="remove the oldest nights beyond N (default: keep all)"
    )
    parser.add_argument(
        "--min-free-mb",
        type=_count,
        default=200,
        metavar="MB",
        help="begin no job with less room on the disk (default: 200)",
    )
    parser.add_argument("--date", type=_date, metavar="YYYY-MM-DD", help="the night's date (default: today, in UTC)")
    parser.add_argument(
        "--index-only", action="store_true", help="run nothing: rebuild the page from the stored nights"
    )
    return parser


def _jobs(given: argparse.Namespace, words: Sequence[str]) -> tuple[Job, ...]:
    attached = attaches(words)
    named = read_plan(given.plan) if given.plan else given.jobs
    jobs: tuple[Job, ...] = named or usual(attached=attached)
    # Simulated servers start at once, and have no model files from which a run that attaches could predict bytes.
    if given.own_deployments or simulates(words):
        jobs = tuple(replace(job, own_deployment=True) for job in jobs)
    if attached and (names := need_a_launch(jobs)):
        raise UsageError(
            f"{', '.join(names)}: such a job launches deployments of its own, and the words after -- attach to one. "
            "Leave the job out, or the words."
        )
    return tuple(_repeated(job, given.repeat) for job in jobs)


def _repeated(job: Job, times: int | None) -> Job:
    if times is None or not job.measured:
        return job
    return replace(job, repeat=times)


def _ready(text: str) -> tuple[Job, ...]:
    names = tuple(dict.fromkeys(text.split(",")))
    if unknown := [name for name in names if name not in READY]:
        raise argparse.ArgumentTypeError(f"no job is called {', '.join(unknown)}; there are {', '.join(READY)}")
    return tuple(READY[name] for name in names)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no number of at least 1")
    return int(text)


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text} is no number of at least 0")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no number of seconds above 0")
    return value


def _date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is no date such as 2026-03-04") from None
