"""One reading of one server's ``/metrics``."""

from dataclasses import dataclass

import aiohttp

from harness.clock import Clock
from harness.facts import Server
from harness.history import Scraped, ScrapeFailed
from harness.observe.counters import SAMPLE_NAMES
from harness.observe.exposition import Exposition, parse
from harness.redact import redact_text

TIMEOUT = 10.0
"""Seconds for one reading: a server whose cores are all taken by a load answers in one or two."""

LARGEST_BODY = 2**26
"""Bytes read of one answer. A server with eight engines exposes less than 2 MB."""


@dataclass(frozen=True, slots=True)
class Occasion:
    """Which reading of a run it is; fields as in :class:`harness.history.Scraped`."""

    scenario: str
    phase: str
    label: str


async def scrape(
    session: aiohttp.ClientSession, server: Server, clock: Clock, occasion: Occasion
) -> Scraped | ScrapeFailed:
    """Read the server's counters now; never raises for what the network or the server does."""
    scenario, phase, label = occasion.scenario, occasion.phase, occasion.label
    try:
        exposition = await _exposition(session, server)
    except (aiohttp.ClientError, OSError, ValueError) as error:
        cause = redact_text(f"GET {server.url}/metrics: {error or type(error).__name__}")
        return ScrapeFailed(clock.now(), server.name, label, scenario, phase, cause)
    return Scraped(
        at=clock.now(),
        server=server.name,
        label=label,
        scenario=scenario,
        phase=phase,
        samples=exposition.samples,
        declared=exposition.declared,
    )


async def _exposition(session: aiohttp.ClientSession, server: Server) -> Exposition:
    timeout = aiohttp.ClientTimeout(total=TIMEOUT)
    async with session.get(f"{server.url}/metrics", timeout=timeout) as response:
        response.raise_for_status()
        return parse(await _text(response), SAMPLE_NAMES)


async def _text(response: aiohttp.ClientResponse) -> str:
    """The body. Expositions are UTF-8 by definition, whatever the header says."""
    parts, size = list[bytes](), 0
    async for part in response.content.iter_any():
        parts.append(part)
        size += len(part)
        if size > LARGEST_BODY:
            raise ValueError(f"the answer is longer than {LARGEST_BODY:,} bytes, which no exposition is")
    return b"".join(parts).decode("utf-8", errors="replace")
