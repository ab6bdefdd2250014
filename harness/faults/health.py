"""Whether a server answers at all: a request to ``/health`` over a connection of its own.

Signals may hit the wrong process, and a relay may stand beside the way that requests take. What a server answers, or
does not, tells that a fault hit what it was aimed at.
"""

import asyncio
import contextlib
from urllib.parse import urlsplit

from harness.faults.site import POLL_S, Site

ANSWERS_WITHIN_S = 0.5
"""Seconds. An idle or busy server of vLLM answers ``/health`` within a few milliseconds, from a process of its own."""


def url_of(site: Site, name: str) -> str:
    """The address of a server or of the proxy, by name; empty if there is none."""
    if name == "proxy":
        return site.deployment.proxy_url or ""
    return next((server.url for server in site.deployment.servers if server.name == name), "")


async def answers(url: str, within: float = ANSWERS_WITHIN_S) -> bool:
    """Whether the server answers ``/health`` with status 200 in time."""
    try:
        async with asyncio.timeout(within):
            return await _status(url) == b"200"
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        return False


async def accepts(url: str, within: float = ANSWERS_WITHIN_S) -> bool:
    """Whether a connection to the address can be made in time.

    When nobody listens, the kernel refuses at once; a server that is merely busy, or stopped, still has its connections
    accepted by the kernel.
    """
    parts = urlsplit(url)
    try:
        async with asyncio.timeout(within):
            _, writer = await asyncio.open_connection(parts.hostname, parts.port or 80)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


async def until_refuses(site: Site, url: str, patience: float) -> bool:
    """Whether nobody listens at the address within the patience, in seconds.

    A kernel may close a process's sockets some time after it has said that the process has ended.
    """
    deadline = site.clock.now() + patience
    while await accepts(url):
        if site.clock.now() >= deadline:
            return False
        await site.clock.sleep(POLL_S)
    return True


async def until_answers(site: Site, url: str, patience: float) -> bool:
    """Whether the server answers within the patience, in seconds."""
    deadline = site.clock.now() + patience
    while not await answers(url):
        if site.clock.now() >= deadline:
            return False
        await site.clock.sleep(POLL_S)
    return True


async def _status(url: str) -> bytes:
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port or 80)
    try:
        path = f"{parts.path.rstrip('/')}/health"
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {parts.hostname}\r\nConnection: close\r\n\r\n".encode())
        words = (await reader.readuntil(b"\r\n")).split()
        return words[1] if len(words) > 1 else b""
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
