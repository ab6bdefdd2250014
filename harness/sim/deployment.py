"""A simulated deployment: any number of P and D, found by each other, on the network or without it."""

from collections.abc import Callable
from dataclasses import dataclass, field

from harness.clock import Clock, MonotonicClock
from harness.facts import Deployment, Role, Server
from harness.sim.config import SimConfig
from harness.sim.http import HttpServer
from harness.sim.ledger import Ledger
from harness.sim.server import SimServer
from harness.sim.transfer import Nixl
from harness.sim.words import EOS


@dataclass(slots=True)
class SimPair:
    """Servers without sockets: the fast way in."""

    config: SimConfig
    now: Callable[[], float]
    ledger: Ledger = field(default_factory=Ledger)
    servers: list[SimServer] = field(default_factory=list)

    def __post_init__(self) -> None:
        fabric: dict[str, Nixl] = {}
        for role, count in ((Role.PREFILL, self.config.prefills), (Role.DECODE, self.config.decodes)):
            for index in range(count):
                name = f"{role}-{index}"
                self.servers.append(SimServer(name, role, self.config, self.now, fabric=fabric, ledger=self.ledger))

    def of(self, role: Role) -> list[SimServer]:
        """The servers of one role."""
        return [server for server in self.servers if server.role is role]

    @property
    def prefill(self) -> SimServer:
        """The first prefill server."""
        return self.of(Role.PREFILL)[0]

    @property
    def decode(self) -> SimServer:
        """The first decode server."""
        return self.of(Role.DECODE)[0]

    def settle(self) -> None:
        """Step until no server has anything to do."""
        while any(server.engine.has_work for server in self.servers):
            for server in self.servers:
                server.settle()


@dataclass(slots=True)
class SimDeployment:
    """Servers that listen. ``stop`` closes them."""

    config: SimConfig
    pair: SimPair
    sites: list[HttpServer]

    @property
    def ledger(self) -> Ledger:
        """Ground truth of planted bugs."""
        return self.pair.ledger

    @property
    def prefill_urls(self) -> list[str]:
        """Base URLs of the prefill servers."""
        return self._urls(Role.PREFILL)

    @property
    def decode_urls(self) -> list[str]:
        """Base URLs of the decode servers."""
        return self._urls(Role.DECODE)

    def _urls(self, role: Role) -> list[str]:
        return [site.url for site in self.sites if site.server.role is role]

    def facts(self, proxy_url: str | None = None) -> Deployment:
        """What a launched deployment would know of itself."""
        config = self.config
        return Deployment(
            servers=tuple(_facts_of(site) for site in self.sites),
            proxy_url=proxy_url,
            model=config.model,
            vocab_size=config.vocab_size,
            special_token_ids=tuple(sorted({*range(8), EOS})),
            geometry=config.geometry,
            connectors=config.connectors,
            offload_block_size=config.block_size * config.blocks_per_chunk,
            offload_blocks=config.offload_chunks,
            launched=True,
            engine="sim",
            device="sim",
        )

    async def stop(self) -> None:
        """Close every socket and end every task."""
        for site in self.sites:
            await site.stop()


def _facts_of(site: HttpServer) -> Server:
    server = site.server
    config = server.config
    return Server(
        server.name,
        server.role,
        site.url,
        block_size=config.block_size,
        num_blocks=config.num_blocks,
        prefix_caching=config.prefix_caching,
        version=config.version,
        max_model_len=config.max_model_len,
    )


async def start_sim(config: SimConfig, clock: Clock | None = None) -> SimDeployment:
    """Start all servers of a deployment in this process, on loopback."""
    clock = MonotonicClock() if clock is None else clock
    pair = SimPair(config, clock.now)
    deployment = SimDeployment(config, pair, [HttpServer(server, clock) for server in pair.servers])
    try:
        for site in deployment.sites:
            await site.start()
    except BaseException:
        await deployment.stop()
        raise
    return deployment
