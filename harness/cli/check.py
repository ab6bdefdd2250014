"""``python -m harness check RUN_DIR``: a stored run judged again, offline, by this version's checkers.

The whole evidence is the run's history and its deployment's facts; nothing is asked and nothing is overwritten, unless
``--save`` says so. A run that was killed is judged as far as it went: it cannot be valid.
"""

from harness.cli.options import Options
from harness.cli.outcome import show, store_junit
from harness.cli.rejudged import Rejudged, rejudge, run_started
from harness.errors import ExitCode, UsageError
from harness.store import save_result

__all__ = ["Rejudged", "check", "rejudge", "run_started"]


async def check(options: Options) -> ExitCode:
    """Load, judge, show."""
    if options.run_dir is None:
        raise UsageError("check needs the directory of a run: python -m harness check runs/latest.")
    run = rejudge(options.run_dir)
    if options.save:
        save_result(options.run_dir, run.report.result)
    store_junit(run.report, options.report)
    return show(run.report, plain=options.report.plain)
