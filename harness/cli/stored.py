"""A run's directory for as long as a command works on it; nothing unforeseen gets out without leaving a trace there."""

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
    """The directory to write to.

    Raises:
        UsageError: there can be none.
        CrashError: something unforeseen happened meanwhile; its traceback is in the directory.

    """
    with RunStore.create(options.report.result_dir, label=label, seed=seed, latest=latest) as store:
        try:
            with ungrouped():
                yield store
        except HarnessError:
            raise
        except (asyncio.CancelledError, KeyboardInterrupt):
            print(f"interrupted: what was recorded is stored in {store.path}", file=sys.stderr)
            raise
        except Exception as error:
            raise crashed(error, store.path) from error
