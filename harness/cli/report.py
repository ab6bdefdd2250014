"""``python -m harness report RUN_DIR``: writes the page of a stored run again, with this version's checkers.

The page is no gate: the exit code is 0 if it was written, whatever the verdict. The page of a killed run is made from
what was recorded.
"""

from harness.cli.options import Options
from harness.cli.page import PAGE
from harness.cli.rejudged import rejudge
from harness.errors import ExitCode, UsageError
from harness.store import save_text


async def report(options: Options) -> ExitCode:
    """Load and judge the run, write the page, and print where it is."""
    if options.run_dir is None:
        raise UsageError("report needs the directory of a run: python -m harness report runs/latest.")
    judged = rejudge(options.run_dir)
    where = options.output or options.run_dir / PAGE
    print(save_text(where, judged.html()))
    return ExitCode.VALID
