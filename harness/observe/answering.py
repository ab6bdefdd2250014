"""Whether servers that were known before still answer, and still serve the same model."""

import asyncio
import json
from collections.abc import Iterable, Mapping

import aiohttp

from harness.observe.bodies import get_ok

_SECONDS = 5.0
_TIMEOUT = aiohttp.ClientTimeout(total=_SECONDS)


async def all_serve(urls: Iterable[str], model: str, headers: Mapping[str, str]) -> bool:
    """Whether every server answers and serves the model: another program may use the same port by now."""
    async with aiohttp.ClientSession(headers=headers, timeout=_TIMEOUT) as session:
        return all(await asyncio.gather(*(_serves(session, url, model) for url in urls)))


async def answers(url: str) -> bool:
    """Whether any server answers at this URL; the status does not matter, since some proxies have no /health."""
    try:
        async with aiohttp.ClientSession(timeout=_TIMEOUT) as session, session.get(f"{url}/health"):
            return True
    except (aiohttp.ClientError, TimeoutError, OSError):
        return False


async def _serves(session: aiohttp.ClientSession, url: str, model: str) -> bool:
    try:
        text = await get_ok(session, f"{url}/v1/models", _SECONDS)
        return model in {entry["id"] for entry in json.loads(text)["data"]}
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError, LookupError, TypeError, RecursionError):
        return False
