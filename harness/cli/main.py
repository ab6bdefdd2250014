"""Entry: one command line in, one exit code out; every expected failure is one paragraph on stderr."""

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence

import uvloop

from harness.cli.catalogue import run_catalogue, show_list
from harness.cli.check import check
from harness.cli.doctor import doctor
from harness.cli.options import Options, parse
from harness.cli.run import run
from harness.cli.selftest import selftest
from harness.cli.serve import serve
from harness.cli.shrink import shrink
from harness.errors import ExitCode, HarnessError


async def _run(options: Options) -> ExitCode:
    return await (run_catalogue(options) if options.catalogue.patterns else run(options))


_COMMANDS: Mapping[str, Callable[[Options], Awaitable[ExitCode]]] = {
    "run": _run,
    "serve": serve,
    "check": check,
    "doctor": doctor,
    "shrink": shrink,
    "list": show_list,
    "selftest": selftest,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code (errors.ExitCode)."""
    try:
        options = parse(sys.argv[1:] if argv is None else argv)
        # The runner is not closed: uvloop's close() was seen to wait for ever, on a loaded machine, for a connection
        # that was cut. By now everything is stored and ended, and the process is about to go.
        return asyncio.Runner(loop_factory=uvloop.new_event_loop).run(_until_told(_COMMANDS[options.command](options)))
    except HarnessError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("interrupted: everything that was started has been ended", file=sys.stderr)
        return ExitCode.UNKNOWN


async def _until_told(command: Awaitable[ExitCode]) -> ExitCode:
    """SIGTERM ends a command as Ctrl-C does: by cancelling it, so that everything it started is ended."""
    task = asyncio.ensure_future(command)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await task
