"""The commands by name."""

from collections.abc import Awaitable, Callable, Mapping

from harness.cli.catalogue import run_catalogue, show_list
from harness.cli.check import check
from harness.cli.doctor import doctor
from harness.cli.options import Options
from harness.cli.places import require_places
from harness.cli.report import report
from harness.cli.run import run
from harness.cli.selftest import selftest
from harness.cli.serve import serve
from harness.cli.shrink import shrink
from harness.cli.sweep import sweep
from harness.errors import ExitCode

Command = Callable[[Options], Awaitable[ExitCode]]


def _run(options: Options) -> Command:
    if options.catalogue.patterns:
        return run_catalogue
    return run if options.sweep is None else sweep


def _compare(options: Options) -> Awaitable[ExitCode]:
    from harness.cli.compare import compare  # noqa: PLC0415 - scipy takes most of a second to import

    return compare(options)


_COMMANDS: Mapping[str, Command] = {
    "run": lambda options: _run(options)(options),
    "serve": serve,
    "check": check,
    "compare": _compare,
    "report": report,
    "doctor": doctor,
    "shrink": shrink,
    "list": show_list,
    "selftest": selftest,
}


def perform(options: Options) -> Awaitable[ExitCode]:
    """Run the command that the options name; it returns its exit code.

    Raises UsageError before anything is started if a file that a flag names cannot be written, or if Ray or pyarrow is
    needed and not installed.
    """
    require_places(options)
    options.report.files.require()
    options.workers.require()
    return _COMMANDS[options.command](options)
