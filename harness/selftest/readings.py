"""Counter readings of simulated servers, parsed from their /metrics text like readings of real servers."""

from functools import lru_cache

from harness.history import Scraped
from harness.observe.counters import SAMPLE_NAMES
from harness.observe.exposition import Exposition, parse
from harness.observe.scrape import Occasion
from harness.observe.settle import Readings
from harness.selftest.world import World
from harness.sim import SimPair, SimServer


def read_pair(pair: SimPair, world: World, occasion: Occasion) -> Readings:
    """A reading of every server at the present virtual time."""
    return {server.name: _read(server, world.now(), occasion) for server in pair.servers}


# While the servers settle, the same text is read several times.
@lru_cache(maxsize=16)
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
