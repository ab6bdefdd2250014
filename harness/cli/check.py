"""``python -m harness check RUN_DIR``: judges a stored run again, offline, with this version's checkers.

All evidence is in the run's history and its deployment's facts. Nothing is sent, and nothing is overwritten without
``--save``. The recorded part of a killed run is judged too; the verdict cannot be valid.
"""

from harness.cli.ending import show
from harness.cli.options import Options
from harness.cli.rejudged import rejudge
from harness.cli.report_files import publish, store_files
from harness.errors import ExitCode, UsageError
from harness.store import save_result


async def check(options: Options) -> ExitCode:
    """Load the run, judge it, and show the report."""
    if options.run_dir is None:
        raise UsageError("check needs the directory of a run: python -m harness check runs/latest.")
    report = rejudge(options.run_dir)
    if options.save:
        save_result(options.run_dir, report.result)
    store_files(report, options.report)
    show(report, plain=options.report.plain)
    publish(report, options.report)
    return report.exit_code
