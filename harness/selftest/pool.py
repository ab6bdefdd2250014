"""Runs trials in other processes, ``jobs`` at a time."""

import asyncio
import multiprocessing
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor

from harness.selftest.trial import Result, Trial, run_trial

OnResult = Callable[[Result], None]


async def run_trials(trials: Sequence[Trial], jobs: int, on_result: OnResult = lambda _result: None) -> list[Result]:
    """All results in the order of the trials; ``on_result`` is called with each result as soon as a trial ends.

    Processes are spawned, not forked, since this process has threads and an event loop.
    """
    pool = ProcessPoolExecutor(
        max_workers=jobs, mp_context=multiprocessing.get_context("spawn"), initializer=_leave_signals_to_parent
    )
    loop = asyncio.get_running_loop()

    async def one(trial: Trial) -> Result:
        result = await loop.run_in_executor(pool, run_trial, trial)
        on_result(result)
        return result

    try:
        return await asyncio.gather(*map(one, trials))
    except BaseException:
        # The remaining results are not needed, and a trial may take a minute.
        for process in list(pool._processes.values()):  # noqa: SLF001 - terminate_workers() comes with Python 3.14
            process.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _leave_signals_to_parent() -> None:
    """Ignore Ctrl-C, which reaches the whole process group: the parent ends its children itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
