"""Waiting in tests: until there is evidence, never for a time."""

import asyncio
from collections.abc import Callable


async def until(condition: Callable[[], object], what: str = "it did not come to that", *, within: float = 20) -> None:
    """Let the event loop run until the condition holds; an assertion fails with ``what`` after ``within`` seconds."""
    try:
        async with asyncio.timeout(within):
            while not condition():
                await asyncio.sleep(0)  # gives the other tasks their turn, and waits for nothing else
    except TimeoutError:
        raise AssertionError(what) from None
