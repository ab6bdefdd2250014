"""Takes one reading of a server's ``/metrics``."""

from dataclasses import dataclass

import aiohttp

from harness.clock import Clock
from harness.facts import Server
from harness.history import Scraped, ScrapeFailed
from harness.observe.counters import SAMPLE_NAMES
from harness.observe.exposition import Exposition, parse
from harness.redact import redact_text

TIMEOUT = 10.0
"""Seconds for one reading. A server whose cores are all busy with a load answers in one or two."""

_END = "# EOF\n"
"""The last line of an exposition in OpenMetrics."""
LARGEST_BODY = 2**26
"""Largest answer in bytes. A server with eight engines exposes less than 2 MB."""


@dataclass(frozen=True, slots=True)
class Occasion:
    """When a reading is taken; fields as in :class:`harness.history.Scraped`."""

    scenario: str
    phase: str
    label: str


async def scrape(
    session: aiohttp.ClientSession, server: Server, clock: Clock, occasion: Occasion
) -> Scraped | ScrapeFailed:
    """Read the server's counters now. Errors of the network or the server are returned, not raised."""
    where = (server.name, occasion.label, occasion.scenario, occasion.phase)
    try:
        exposition = await _exposition(session, server)
    except (aiohttp.ClientError, OSError, ValueError) as error:
        cause = redact_text(f"GET {server.url}/metrics: {str(error) or type(error).__name__}")
        return ScrapeFailed(clock.now(), *where, cause)
    return Scraped(clock.now(), *where, exposition.samples, declared=exposition.declared)


async def _exposition(session: aiohttp.ClientSession, server: Server) -> Exposition:
    timeout = aiohttp.ClientTimeout(total=TIMEOUT)
    async with session.get(f"{server.url}/metrics", timeout=timeout) as response:
        response.raise_for_status()
        text = await _text(response)
        if not (_has_an_end(response) or text.endswith(_END)):
            raise ValueError("the answer says neither its length nor its end, so nobody knows whether it is whole")
        return parse(text, SAMPLE_NAMES)


def _has_an_end(response: aiohttp.ClientResponse) -> bool:
    """Whether an answer that breaks off differs from a whole one; aiohttp then raises an error."""
    return response.content_length is not None or "chunked" in response.headers.get("Transfer-Encoding", "").lower()


async def _text(response: aiohttp.ClientResponse) -> str:
    """Read the body as UTF-8, regardless of its header, because every exposition is UTF-8."""
    parts, size = list[bytes](), 0
    async for part in response.content.iter_any():
        parts.append(part)
        size += len(part)
        if size > LARGEST_BODY:
            raise ValueError(f"the answer is longer than {LARGEST_BODY:,} bytes, so it is no exposition")
    return b"".join(parts).decode("utf-8", errors="replace")
