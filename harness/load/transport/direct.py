"""The transport for plain HTTP to a server: most of a load, and the fastest way to send it.

Rule 1: only what needs nothing of aiohttp goes this way: ``http://``, no credentials in the URL, no header that is
        about the connection, the body's length or cookies.
Rule 2: the bytes before a request's id and length are the same for all requests to a URL, and are written once.
"""

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

from yarl import URL

from harness.load.transport.connection import Receiver
from harness.load.transport.pool import Pool, Server

REQUEST_ID = "X-Request-Id"

_LEFT_TO_AIOHTTP = frozenset(
    ("connection", "content-length", "cookie", "expect", "host", "keep-alive", "te", "trailer", "transfer-encoding")
) | {"upgrade", "proxy-authorization", "proxy-connection"}


class Direct:
    """Sends requests over connections of its own; an async context manager.

    ``now``: the run's clock, in seconds. ``timeout``: seconds that an exchange may take.
    """

    def __init__(self, headers: Mapping[str, str], now: Callable[[], float], timeout: float) -> None:
        self._timeout = timeout
        self._headers = {"Accept": "*/*", "User-Agent": "pd-harness", **headers}
        self._now = now
        self._sends = all(map(_is_ordinary, self._headers.items()))
        self._targets: dict[URL, tuple[Server, bytes] | None] = {}
        self._pool: Pool

    async def __aenter__(self) -> Self:
        self._pool = Pool(self._now, self._timeout)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._pool.close()

    def takes(self, url: URL, request_id: str) -> bool:
        """Whether a request can be sent this way."""
        if url not in self._targets:
            self._targets[url] = self._target(url)
        return self._targets[url] is not None and request_id.isascii() and request_id.isprintable()

    async def exchange(self, url: URL, request_id: str, body: bytes, receiver: Receiver) -> None:
        """Send a request that ``takes`` allows, and wait for the whole answer.

        Raises NotConnected, TimedOut, OSError if the connection breaks, and what the receiver raises.
        """
        if (target := self._targets[url]) is None:
            raise ValueError(f"a request that {type(self).__name__} does not take")
        server, start = target
        rest = f"{request_id}\r\nContent-Length: {len(body)}\r\n\r\n"
        await self._pool.exchange(server, b"%b%b%b" % (start, rest.encode(), body), receiver)

    def _target(self, url: URL) -> tuple[Server, bytes] | None:
        """The server of a URL, and the beginning of every request to it; None if aiohttp is needed."""
        if not (self._sends and url.scheme == "http" and url.raw_host and url.port) or url.raw_user or url.raw_password:
            return None
        lines = [f"POST {url.raw_path_qs} HTTP/1.1", f"Host: {url.host_port_subcomponent}"]
        given = {name.lower(): f"{name}: {value}" for name, value in self._headers.items()}
        given.pop(REQUEST_ID.lower(), None)
        start = "\r\n".join([*lines, *given.values(), f"{REQUEST_ID}: "])
        return self._pool.server(url.raw_host, url.port), start.encode()


def _is_ordinary(header: tuple[str, str]) -> bool:
    """Whether a header can be sent as it is."""
    name, value = header
    plain = name.isascii() and name.isprintable() and value.isprintable() and not set(name) & set(" :")
    return plain and name.lower() not in _LEFT_TO_AIOHTTP
