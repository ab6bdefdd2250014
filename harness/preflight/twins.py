"""Whether two servers that look alike are one behind two addresses: what one is asked, the other then counts."""

import uuid
from collections.abc import Sequence

import aiohttp

from harness.clock import Clock
from harness.facts import Server
from harness.observe.counters import Delta
from harness.preflight.asking import Watch

_PATIENCE = 5.0
"""Seconds within which a server has counted a prompt that it has answered."""
_PROMPT = tuple(range(20, 49))


async def are_one(session: aiohttp.ClientSession, servers: tuple[Server, Server], model: str, clock: Clock) -> bool:
    """Ask the first for one token; False where it does not answer."""
    watch = Watch(session, servers, clock)
    await watch.begin()
    if not await _ask(session, servers[0].url, model):
        return False
    since = await watch.until(lambda seen: bool(_counted(seen)[0]), _PATIENCE)
    here, there = _counted(since)
    return here is not None and here == there and here >= len(_PROMPT)


def _counted(since: Sequence[Delta | None]) -> list[float | None]:
    return [None if one is None else one.of("prompt_tokens") for one in since]


async def _ask(session: aiohttp.ClientSession, url: str, model: str) -> bool:
    body = {"model": model, "prompt": _PROMPT, "max_tokens": 1, "temperature": 0, "cache_salt": uuid.uuid4().hex}
    try:
        async with session.post(f"{url}/v1/completions", json=body, allow_redirects=False) as response:
            await response.read()
            return response.status == 200
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
        return False
