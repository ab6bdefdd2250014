"""The transport for everything but plain HTTP to a server: TLS, credentials in URLs, headers about the connection."""

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

import aiohttp
from yarl import URL

from harness.load.transport.connection import LARGEST_HEADER, Receiver
from harness.load.transport.limits import time_limit
from harness.load.transport.pool import KEEPALIVE_S


class OverAiohttp:
    """Sends requests through aiohttp; an async context manager.

    ``now``: the run's clock, in seconds. ``timeout``: seconds that an exchange may take.
    """

    def __init__(self, headers: Mapping[str, str], now: Callable[[], float], timeout: float) -> None:
        self._timeout = timeout
        self._headers = dict(headers)
        self._now = now
        self._session: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_S),
            headers=self._headers,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
            cookie_jar=aiohttp.DummyCookieJar(),
            max_line_size=LARGEST_HEADER,
            max_field_size=LARGEST_HEADER,
            auto_decompress=False,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._session.close()

    async def exchange(self, url: URL, headers: Mapping[str, str], body: bytes, receiver: Receiver) -> None:
        """Send a request and read beyond the end marker to the end of the HTTP body: then the connection is reused.

        Raises TimedOut, aiohttp.ClientError, OSError and what the receiver raises.
        """
        sending = self._session.post(url, data=body, headers=headers, allow_redirects=False)
        async with time_limit(self._timeout), sending as response:
            feed = receiver.head(response.status, _first_of_each(response))
            while data := await response.content.readany():
                feed([data], self._now())


def _first_of_each(response: aiohttp.ClientResponse) -> dict[str, str]:
    """The headers by name in lower case; of equal ones, the first."""
    found: dict[str, str] = {}
    for name, value in response.headers.items():
        found.setdefault(name.lower(), value)
    return found
