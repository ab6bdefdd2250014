"""Lets other tasks run, for tests that set the clock themselves or say in which pieces bytes are sent."""

import asyncio


async def turn() -> None:
    """One turn of the event loop: everything that is ready now runs first. No time is waited for."""
    loop = asyncio.get_running_loop()
    reached = loop.create_future()
    loop.call_soon(reached.set_result, None)
    await reached
