"""Whether two addresses lead to the same server: a request to one of them is then counted at both."""

import uuid
from collections.abc import Sequence

import aiohttp

from harness.clock import Clock
from harness.facts import Server
from harness.observe.bodies import body_of
from harness.observe.growth import Delta
from harness.preflight.counter_watch import CounterWatch

_COUNTED_WITHIN = 5.0
"""Seconds after its answer within which a server has counted a prompt."""
_PROMPT = tuple(range(20, 49))


async def share_counters(
    session: aiohttp.ClientSession, servers: tuple[Server, Server], model: str, clock: Clock
) -> bool:
    """Ask the first server for one token, and compare both servers' counters; False if it does not answer."""
    watch = CounterWatch(session, servers, clock)
    await watch.begin()
    if not await _ask(session, servers[0].url, model):
        return False
    growth = await watch.until(lambda grown: bool(_prompt_tokens(grown)[0]), _COUNTED_WITHIN)
    first, second = _prompt_tokens(growth)
    return first is not None and first == second and first >= len(_PROMPT)


def _prompt_tokens(growth: Sequence[Delta | None]) -> list[float | None]:
    return [None if grown is None else grown.of("prompt_tokens") for grown in growth]


async def _ask(session: aiohttp.ClientSession, url: str, model: str) -> bool:
    body = {"model": model, "prompt": _PROMPT, "max_tokens": 1, "temperature": 0, "cache_salt": uuid.uuid4().hex}
    try:
        async with session.post(f"{url}/v1/completions", json=body, allow_redirects=False) as response:
            await body_of(response)
            return response.status == 200
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
        return False
