"""Readings of simulated servers: their /metrics text through the parser that reads real servers'."""

from functools import lru_cache

from harness.history import Scraped
from harness.observe.counters import SAMPLE_NAMES
from harness.observe.exposition import Exposition, parse
from harness.observe.scrape import Occasion
from harness.observe.settle import Readings
from harness.selftest.world import World
from harness.sim import SimPair, SimServer


def read_pair(pair: SimPair, world: World, occasion: Occasion) -> Readings:
    """One reading of every server, now."""
    return {server.name: _read(server, world.now(), occasion) for server in pair.servers}


@lru_cache(maxsize=16)  # who waits for rest reads the same text several times
def _parsed(text: bytes) -> Exposition:
    return parse(text.decode(), SAMPLE_NAMES)


def _read(server: SimServer, at: float, occasion: Occasion) -> Scraped:
    exposition = _parsed(server.metrics())
    return Scraped(
        at=at,
        server=server.name,
        label=occasion.label,
        scenario=occasion.scenario,
        phase=occasion.phase,
        samples=exposition.samples,
        declared=exposition.declared,
    )
