"""The entry point of the command line. Every failure is one paragraph on stderr, never a traceback.

The commands are imported inside ``try``, so that a broken installation is reported like any other failure.
"""

import asyncio
import signal
import sys
from collections.abc import Awaitable, Sequence
from typing import Any

from harness.cli.output import unfailing_output
from harness.errors import ExitCode, HarnessError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command, and return its exit code (errors.ExitCode).

    Raises SystemExit, as argparse does, for ``--help`` (0) and for a command line that cannot be read (2).
    """
    with unfailing_output():
        try:
            return _command(sys.argv[1:] if argv is None else argv)
        except (KeyboardInterrupt, asyncio.CancelledError):
            print("interrupted: everything that was started has been ended", file=sys.stderr)
            return ExitCode.UNKNOWN
        except Exception as error:  # noqa: BLE001 - the exit code of an unforeseen error must not be that of a verdict
            known = _known(error)
            print(f"error: {known}", file=sys.stderr)
            return known.exit_code


def _command(argv: Sequence[str]) -> int:
    from harness.cli.commands import perform  # noqa: PLC0415 - see above
    from harness.cli.crash import ungrouped  # noqa: PLC0415 - see above
    from harness.cli.options import parse  # noqa: PLC0415 - see above

    options = parse(argv)
    with ungrouped():
        return _run(perform(options))


def _run(command: Awaitable[ExitCode]) -> ExitCode:
    import uvloop  # noqa: PLC0415 - see above

    # The runner is not closed: on a loaded machine, uvloop's close() sometimes waited forever for a broken connection.
    # By now everything is stored and ended, and the process is about to exit.
    return asyncio.Runner(loop_factory=uvloop.new_event_loop).run(_until_signalled(command))


async def _until_signalled(command: Awaitable[ExitCode]) -> ExitCode:
    """Run the command. SIGTERM cancels it, like Ctrl-C, so that everything that it started is ended."""
    ended: list[ExitCode] = []
    task = asyncio.ensure_future(_kept(command, ended))
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, task.cancel)
    loop.set_exception_handler(_warn)
    try:
        return await task
    except asyncio.CancelledError:
        # If the signal came while the command was judging and printing, the command has finished, although its task is
        # cancelled. The exit code must match the verdict that was shown and stored.
        if ended:
            return ended[0]
        raise


async def _kept(command: Awaitable[ExitCode], ended: list[ExitCode]) -> ExitCode:
    """The command's exit code, which is also put into ``ended`` because a cancellation replaces the result."""
    ended.append(await command)
    return ended[0]


def _warn(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Report an error in a task that is not awaited, as one line without a traceback."""
    error = context.get("exception")
    cause = f": {type(error).__name__}: {error}" if error is not None else ""
    text = " ".join(f"{context.get('message', 'something failed')}{cause}".split())
    print(f"warning: inside the harness: {text}", file=sys.stderr)


def _known(error: Exception) -> HarnessError:
    """The error itself if it is a HarnessError, else a HarnessError that describes it."""
    if isinstance(error, HarnessError):
        return error
    try:
        from harness.cli.crash import crashed  # noqa: PLC0415 - the installation may be broken

        return crashed(error)
    except Exception:  # noqa: BLE001 - described without the crash module
        text = " ".join(f"{type(error).__name__}: {error}".split())
        return HarnessError(
            f"the harness itself failed: {text}. This says nothing about the deployment. Is the harness completely "
            "installed?"
        )
