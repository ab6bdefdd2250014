"""Entry: one command line in, one exit code out. Whatever goes wrong is one paragraph on stderr, never a traceback.

The commands are imported inside the guard, so that a broken installation is told like any other failure.
"""

import asyncio
import signal
import sys
from collections.abc import Awaitable, Sequence
from typing import Any

from harness.cli.output import unfailing_output
from harness.errors import ExitCode, HarnessError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code (errors.ExitCode).

    Raises:
        SystemExit: as argparse does, for ``--help`` (0) and for what it cannot read (2).

    """
    with unfailing_output():
        try:
            return _command(sys.argv[1:] if argv is None else argv)
        except (KeyboardInterrupt, asyncio.CancelledError):
            print("interrupted: everything that was started has been ended", file=sys.stderr)
            return ExitCode.UNKNOWN
        except Exception as error:  # noqa: BLE001 - nothing unforeseen may look like a verdict
            told = _told(error)
            print(f"error: {told}", file=sys.stderr)
            return told.exit_code if isinstance(told, HarnessError) else ExitCode.HARNESS


def _command(argv: Sequence[str]) -> int:
    from harness.cli.commands import perform  # noqa: PLC0415 - see above
    from harness.cli.crash import ungrouped  # noqa: PLC0415 - see above
    from harness.cli.options import parse  # noqa: PLC0415 - see above

    options = parse(argv)
    with ungrouped():
        return _run(perform(options))


def _run(command: Awaitable[ExitCode]) -> ExitCode:
    import uvloop  # noqa: PLC0415 - see above

    # The runner is not closed: uvloop's close() was seen to wait for ever, on a loaded machine, for a connection
    # that was cut. By now everything is stored and ended, and the process is about to go.
    return asyncio.Runner(loop_factory=uvloop.new_event_loop).run(_until_told(command))


async def _until_told(command: Awaitable[ExitCode]) -> ExitCode:
    """SIGTERM ends a command as Ctrl-C does: by cancelling it, so that everything it started is ended."""
    ended: list[ExitCode] = []
    task = asyncio.ensure_future(_kept(command, ended))
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, task.cancel)
    loop.set_exception_handler(_mention)
    try:
        return await task
    except asyncio.CancelledError:
        # A signal that came while the command was judging and printing found nothing left to end: asyncio then calls
        # the task cancelled though it has come to its end. What it has shown and stored is what it exits with.
        if ended:
            return ended[0]
        raise


async def _kept(command: Awaitable[ExitCode], ended: list[ExitCode]) -> ExitCode:
    """The command's exit code, put into ``ended`` as well, where a cancellation does not reach it."""
    ended.append(await command)
    return ended[0]


def _mention(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What went wrong in a task that nobody waits for: a line, no traceback."""
    error = context.get("exception")
    cause = f": {type(error).__name__}: {error}" if error is not None else ""
    text = " ".join(f"{context.get('message', 'something failed')}{cause}".split())
    print(f"warning: inside the harness: {text}", file=sys.stderr)


def _told(error: Exception) -> Exception:
    """The error as it is told; an unforeseen one in a paragraph."""
    if isinstance(error, HarnessError):
        return error
    try:
        from harness.cli.crash import crashed  # noqa: PLC0415 - the installation may be what is broken

        return crashed(error)
    except Exception:  # noqa: BLE001 - then as much as can be told without it
        text = " ".join(f"{type(error).__name__}: {error}".split())
        return HarnessError(
            f"the harness itself failed: {text}. This says nothing about the deployment. Is the harness completely "
            "installed?"
        )
