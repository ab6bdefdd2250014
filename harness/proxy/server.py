"""Starts and stops the proxy."""

import errno
from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from harness.errors import UsageError
from harness.facts import Role
from harness.proxy.app import Proxy
from harness.proxy.detours import Detours
from harness.proxy.listener import Listener
from harness.proxy.upstream import Upstream, parse_upstream

# How long requests in flight may continue after stop(). Then they are cancelled, on P and D as well.
GRACE_S = 5.0


@dataclass(frozen=True, slots=True)
class ProxyHandle:
    """A running proxy."""

    url: str
    """Base URL, without a trailing slash."""
    _proxy: Proxy
    _listener: Listener

    def status(self) -> dict[str, Any]:
        """The same counts as ``GET /proxy/status``."""
        return self._proxy.status.as_json()

    async def stop(self) -> None:
        """Accept no new connection, give requests in flight ``GRACE_S`` seconds to end, then close everything."""
        self._proxy.stopping = True
        try:
            await self._listener.stop(GRACE_S)
        finally:
            await self._proxy.close()


async def start_proxy(
    prefill: Sequence[str],
    decode: Sequence[str],
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    detours: Detours = MappingProxyType({}),
) -> ProxyHandle:
    """Start a proxy in this event loop; port 0 chooses a free port; ``detours``: see detours.py.

    Raises UsageError if a URL is invalid, a role has no server, or the proxy cannot listen on the address.
    """
    prefills, decodes = _parse(Role.PREFILL, prefill, detours), _parse(Role.DECODE, decode, detours)
    proxy = Proxy(prefills, decodes, detours)
    listener = Listener(proxy.handle)
    try:
        address = await listener.start(host, port)
    except OSError as error:
        raise UsageError(_cannot_listen(host, port, error)) from error
    return ProxyHandle(_url(*address), proxy, listener)


def _parse(role: Role, urls: Sequence[str], detours: Detours) -> list[Upstream]:
    if not urls:
        raise UsageError(f"The proxy needs at least one {role} server: give --{role} URL.")
    return [parse_upstream(role, url, detours) for url in urls]


def _cannot_listen(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"Port {port} on {host} is in use. Stop the process that uses it, or choose another port with --port."
    return (
        f"Cannot listen on {host}, port {port}: {error.strerror or error}. Choose another address with --host and "
        "--port."
    )


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
