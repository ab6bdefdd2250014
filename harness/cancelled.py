"""Ends a task of one's own without losing a cancellation of oneself."""

import asyncio
from typing import Any


async def cancelled(task: "asyncio.Task[Any]") -> None:
    """Cancel the task, and wait until it has ended. Raises what it raised, if that was no cancellation.

    ``await task`` would raise CancelledError for the task's end and for a cancellation of the caller, such as Ctrl-C,
    that comes at the same time; whoever suppresses the one loses the other.
    """
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()
