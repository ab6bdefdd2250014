"""Waits in tests until a condition holds, never for a fixed time."""

import asyncio
from collections.abc import Callable

from turns import turn


async def until(condition: Callable[[], object], what: str = "the condition never held", *, within: float = 20) -> None:
    """Let the event loop run until the condition holds; an assertion fails with ``what`` after ``within`` seconds."""
    try:
        async with asyncio.timeout(within):
            while not condition():
                await turn()
    except TimeoutError:
        raise AssertionError(what) from None
