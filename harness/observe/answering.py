"""Whether servers that were known before still answer, and still serve the same model."""

import asyncio
from collections.abc import Iterable, Mapping

import aiohttp

_TIMEOUT = aiohttp.ClientTimeout(total=5)


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
        async with session.get(f"{url}/v1/models") as response:
            return model in {entry["id"] for entry in (await response.json())["data"]}
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError, LookupError, TypeError):
        return False
