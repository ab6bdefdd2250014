"""Whether a worker reaches the servers: an address that the main process reaches may be another machine's own."""

import asyncio
from collections.abc import Iterable
from urllib.parse import urlsplit

from harness.errors import UsageError

_WITHIN_S = 5.0
_PORTS = {"http": 80, "https": 443}


async def require_reachable(urls: Iterable[str]) -> None:
    """Raise UsageError if one of the servers accepts no connection from this machine."""
    for url in dict.fromkeys(urls):
        parts = urlsplit(url)
        try:
            async with asyncio.timeout(_WITHIN_S):
                _, writer = await asyncio.open_connection(parts.hostname, parts.port or _PORTS[parts.scheme])
            writer.close()
        except (OSError, TimeoutError) as error:
            raise UsageError(
                f"A worker does not reach {url} ({type(error).__name__}). Give the servers' addresses as every machine "
                "of the workers reaches them: 127.0.0.1 is each machine itself."
            ) from error
