"""One simulated server in a process of its own, with its side channel on a socket."""

import time
from dataclasses import dataclass
from uuid import uuid4

from harness.clock import Clock
from harness.facts import Role
from harness.sim.config import SimConfig
from harness.sim.http import HttpServer
from harness.sim.ledger import Ledger
from harness.sim.server import SimServer
from harness.sim.side_channel import SideChannel
from harness.sim.sockets import Sockets

_HOST = "127.0.0.1"


@dataclass(slots=True)
class AloneServer:
    """A server that listens until ``stop`` is called."""

    site: HttpServer
    fabric: Sockets
    channel: SideChannel | None
    """None if the server has no NIXL connector."""

    async def stop(self) -> None:
        """End as vLLM does after SIGTERM: with ``shutdown_timeout`` 0 requests in flight are cut at once."""
        await self.site.drain(self.site.server.config.shutdown_timeout)
        await self.site.stop()
        if self.channel is not None:
            await self.channel.stop()
        await self.fabric.close()


async def start_alone(config: SimConfig, name: str, clock: Clock, *, port: int, side_channel: int) -> AloneServer:
    """Start the server of this name (``prefill-0``). Raises OSError if a port is in use.

    Its engine id is new at every start, as vLLM's is.
    """
    role = Role(name.partition("-")[0])
    own = config.of(role)
    fabric = Sockets(_HOST, side_channel, own.version, own.pull_seconds)
    server = SimServer(
        name, role, config, clock.now, fabric=fabric, ledger=Ledger(), engine_id=f"{name}-engine-{uuid4().hex}"
    )
    # The clock begins with the process; a process that was restarted must show another time.
    server.engine.started = time.time()
    nixl = server.engine.nixl
    channel = SideChannel(nixl, own.version) if nixl else None
    alone = AloneServer(HttpServer(server, clock), fabric, channel)
    try:
        if channel is not None:
            await channel.start()
        await alone.site.start(port)
    except BaseException:
        await alone.stop()
        raise
    return alone
