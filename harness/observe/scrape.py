"""Takes one reading of a server's ``/metrics``."""

from dataclasses import dataclass

import aiohttp

from harness.clock import Clock
from harness.facts import Server
from harness.history import Scraped, ScrapeFailed
from harness.observe.bodies import get_ok, why
from harness.observe.counters import SAMPLE_NAMES
from harness.observe.exposition import parse
from harness.redact import redact_text

TIMEOUT = 10.0
"""Seconds for one reading. A server whose cores are all busy with a load answers in one or two."""

_END = "# EOF\n"
"""The last line of an exposition in OpenMetrics."""


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
        exposition = parse(await get_ok(session, f"{server.url}/metrics", TIMEOUT, end=_END), SAMPLE_NAMES)
    except (aiohttp.ClientError, OSError, ValueError) as error:
        cause = redact_text(f"GET {server.url}/metrics: {why(error)}")
        return ScrapeFailed(clock.now(), *where, cause)
    return Scraped(clock.now(), *where, exposition.samples, declared=exposition.declared)
