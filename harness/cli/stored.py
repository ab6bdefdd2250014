"""The directory that a command writes to. The traceback of an unforeseen error is stored there."""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from harness.cli.crash import crashed, ungrouped
from harness.cli.options import Options
from harness.errors import HarnessError
from harness.store import RunStore


@contextmanager
def stored_run(options: Options, *, label: str, seed: int | None = None, latest: bool = True) -> Iterator[RunStore]:
    """Make the directory to write to.

    Raises:
        UsageError: the directory cannot be made.
        CrashError: an unforeseen error was raised inside the context; its traceback is in the directory.

    """
    with RunStore.create(options.report.result_dir, label=label, seed=seed, latest=latest) as store:
        try:
            with ungrouped():
                yield store
        except HarnessError:
            raise
        except (asyncio.CancelledError, KeyboardInterrupt):
            print(f"interrupted: everything recorded so far is stored in {store.path}", file=sys.stderr)
            raise
        except Exception as error:
            raise crashed(error, store.path) from error
