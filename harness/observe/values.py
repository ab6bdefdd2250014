"""A server's counters and gauges at this moment, outside the readings around phases."""

from collections.abc import Mapping
from dataclasses import fields

import aiohttp

from harness.clock import Clock
from harness.facts import Deployment
from harness.history import Scraped
from harness.observe.counters import Counters, read_counters
from harness.observe.scrape import Occasion, scrape

_NOW = Occasion("", "", "now")


async def values_now(
    deployment: Deployment, server: str, *, clock: Clock, headers: Mapping[str, str]
) -> Mapping[str, float]:
    """The server's values by their names in ``Counters``; those that it does not expose are left out.

    Empty if there is no such server or it does not answer.
    """
    found = next((one for one in deployment.servers if one.name == server), None)
    if found is None:
        return {}
    async with aiohttp.ClientSession(headers=headers) as session:
        read = await scrape(session, found, clock, _NOW)
    if not isinstance(read, Scraped):
        return {}
    counters = read_counters(read)
    values = {item.name: getattr(counters, item.name) for item in fields(Counters)}
    return {name: value for name, value in values.items() if isinstance(value, int | float)}
