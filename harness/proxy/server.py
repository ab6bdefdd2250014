"""Starts and stops the proxy."""

import errno
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp import web

from harness.errors import UsageError
from harness.facts import Role
from harness.proxy.app import Proxy
from harness.proxy.client import ClientErrorFilter
from harness.proxy.upstream import Upstream, open_session, parse_upstream

# How long requests in flight may continue after stop(). Then they are cancelled, on P and D as well.
GRACE_S = 5.0
# A thousand clients may connect at the same instant; the kernel caps this at net.core.somaxconn.
_BACKLOG = 4096
# aiohttp logs here the errors that occur before a handler is called.
_http_log = logging.getLogger("harness.proxy.http")
_http_log.addFilter(ClientErrorFilter())


@dataclass(frozen=True, slots=True)
class ProxyHandle:
    """A running proxy."""

    url: str
    """Base URL, without a trailing slash."""
    _proxy: Proxy
    _runner: web.AppRunner
    _session: aiohttp.ClientSession

    def status(self) -> dict[str, Any]:
        """The same counts as ``GET /proxy/status``."""
        return self._proxy.status.as_json()

    async def stop(self) -> None:
        """Accept no new connection, give requests in flight ``GRACE_S`` seconds to end, then close everything."""
        self._proxy.stopping = True
        await _close(self._runner, self._session)


async def start_proxy(
    prefill: Sequence[str], decode: Sequence[str], *, host: str = "127.0.0.1", port: int = 0
) -> ProxyHandle:
    """Start a proxy in this event loop; port 0 chooses a free port.

    Raises UsageError if a URL is invalid, a role has no server, or the proxy cannot listen on the address.
    """
    prefills, decodes = _parse(Role.PREFILL, prefill), _parse(Role.DECODE, decode)
    session = open_session()
    proxy = Proxy(session, prefills, decodes)
    runner = web.AppRunner(
        proxy.application(), handler_cancellation=True, access_log=None, logger=_http_log, shutdown_timeout=GRACE_S
    )
    try:
        url = await _listen(runner, host, port)
    except BaseException:
        await _close(runner, session)
        raise
    return ProxyHandle(url, proxy, runner, session)


def _parse(role: Role, urls: Sequence[str]) -> list[Upstream]:
    if not urls:
        raise UsageError(f"The proxy needs at least one {role} server: give --{role} URL.")
    return [parse_upstream(role, url) for url in urls]


async def _listen(runner: web.AppRunner, host: str, port: int) -> str:
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, backlog=_BACKLOG).start()
    except OSError as error:
        raise UsageError(_cannot_listen(host, port, error)) from error
    return _url(*runner.addresses[0][:2])


def _cannot_listen(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"Port {port} on {host} is in use. Stop the process that uses it, or choose another port with --port."
    return (
        f"Cannot listen on {host}, port {port}: {error.strerror or error}. Choose another address with --host and "
        "--port."
    )


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def _close(runner: web.AppRunner, session: aiohttp.ClientSession) -> None:
    try:
        await runner.cleanup()
    finally:
        await session.close()
