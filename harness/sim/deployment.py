"""A simulated deployment: any number of prefill and decode servers, with or without sockets."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat

from harness.clock import MonotonicClock
from harness.facts import Deployment, Role, Server
from harness.sim.config import SimConfig
from harness.sim.fabric import SharedMemory
from harness.sim.http import HttpServer
from harness.sim.ledger import Ledger
from harness.sim.server import SimServer


@dataclass(slots=True)
class SimPair:
    """Simulated servers without sockets; tests run fastest on these."""

    config: SimConfig
    now: Callable[[], float]
    ledger: Ledger = field(default_factory=Ledger)
    servers: list[SimServer] = field(default_factory=list)

    def __post_init__(self) -> None:
        fabric = SharedMemory()
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

    def facts(self, urls: Mapping[str, str], proxy_url: str | None = None) -> Deployment:
        """Build the facts that the harness would have of a launched deployment; ``urls`` by server name."""
        config = self.config
        return Deployment(
            servers=tuple(_facts_of(server, urls[server.name]) for server in self.servers),
            proxy_url=proxy_url,
            model=config.model,
            vocab_size=config.vocab_size,
            special_token_ids=config.special_token_ids,
            geometry=config.geometry,
            launched=True,
            engine="sim",
            device="sim",
        )


@dataclass(slots=True)
class SimDeployment:
    """Simulated servers that listen on sockets until ``stop`` is called."""

    config: SimConfig
    pair: SimPair
    sites: list[HttpServer]

    @property
    def ledger(self) -> Ledger:
        """Ground truth about the effects of the planted bugs."""
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
        """Build the facts that the harness would have of a launched deployment."""
        return self.pair.facts({site.server.name: site.url for site in self.sites}, proxy_url)

    async def stop(self) -> None:
        """Close every socket and end every task."""
        for site in self.sites:
            await site.stop()


def _facts_of(server: SimServer, url: str) -> Server:
    config = server.config
    return Server(
        server.name,
        server.role,
        url,
        block_size=config.block_size,
        num_blocks=config.num_blocks,
        prefix_caching=config.prefix_caching,
        version=config.version,
        max_model_len=config.max_model_len,
        max_num_batched_tokens=config.max_num_batched_tokens,
        connectors=config.connectors,
        offload_block_size=config.block_size * config.blocks_per_chunk,
        offload_blocks=config.offload_chunks,
        offload_prompt_only=config.offload_prompt_only,
        lease=config.lease_seconds,
    )


async def start_sim(config: SimConfig, *, ports: Sequence[int] = ()) -> SimDeployment:
    """Start all servers of a deployment in this process, on loopback; on free ports unless ``ports`` are given."""
    clock = MonotonicClock()
    pair = SimPair(config, clock.now)
    deployment = SimDeployment(config, pair, [HttpServer(server, clock) for server in pair.servers])
    try:
        for site, port in zip(deployment.sites, ports or repeat(0), strict=False):
            await site.start(port)
    except BaseException:
        await deployment.stop()
        raise
    return deployment
