"""Reads every server's ``/metrics`` at even intervals while a load is sent, and records a few numbers of each reading.

Rule 1: the servers are asked themselves. A relay that spoils metrics counts what it spoiled, as evidence of a fault:
these readings are no part of it.
Rule 2: of each server at most one reading is under way. One that takes longer than the interval skips the readings
that are due meanwhile, and one that takes longer than ``TIMEOUT`` is given up.
Rule 3: a server that cannot be read is recorded with the cause. Nothing is judged by it, and nothing waits for it.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

import aiohttp

from harness.clock import Clock
from harness.facts import Server
from harness.history import Sampled
from harness.observe.bodies import get_ok, why
from harness.observe.sampled import read_sampled
from harness.redact import redact_text

TIMEOUT = 5.0
"""Seconds for one reading. A server whose cores are all busy with a load answers in one or two."""

Read = Callable[[Server], Awaitable[Sampled]]


@asynccontextmanager
async def monitoring(
    servers: Sequence[Server],
    headers: Mapping[str, str],
    clock: Clock,
    record: Callable[[Sampled], None],
    interval: float,
) -> AsyncIterator[None]:
    """Read the servers while the context is entered, first after ``interval`` seconds; 0: read nothing."""
    if not interval:
        yield
        return
    # Compressing a thousand lines would cost the server more than sending them.
    plain = {**headers, "Accept-Encoding": "identity"}
    async with aiohttp.ClientSession(headers=plain) as session:

        async def read(server: Server) -> Sampled:
            return await _sampled(session, server, clock)

        async with at_intervals(servers, read, clock, record, interval):
            yield


@asynccontextmanager
async def at_intervals(
    servers: Sequence[Server], read: Read, clock: Clock, record: Callable[[Sampled], None], interval: float
) -> AsyncIterator[None]:
    """Read the servers with ``read``. At the end, readings under way are given up and not recorded.

    If ``record`` or ``read`` raises, that server is read no more, and the exception is raised at the end.
    """

    async def follow(server: Server) -> None:
        due = clock.now() + interval
        while True:
            await clock.sleep(max(0.0, due - clock.now()))
            record(await read(server))
            due += interval * max(1, math.ceil((clock.now() - due) / interval))

    tasks = [asyncio.create_task(follow(server)) for server in servers]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    for one in ended:
        if not isinstance(one, asyncio.CancelledError) and isinstance(one, BaseException):
            raise one


async def _sampled(session: aiohttp.ClientSession, server: Server, clock: Clock) -> Sampled:
    try:
        text = await get_ok(session, f"{server.url}/metrics", TIMEOUT)
    except TimeoutError:
        return Sampled(clock.now(), server.name, cause=f"it did not answer within {TIMEOUT:.0f} s")
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return Sampled(clock.now(), server.name, cause=redact_text(why(error)))
    return read_sampled(text, clock.now(), server.name)
