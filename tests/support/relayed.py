"""A relay before a server that a test controls, and the clock of the relay in the test's hand."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from hand_clock import HandClock
from polling import until

from harness.faults.relay import Relay

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass
class Wire:
    """The relay, with a server behind it that keeps its connections."""

    clock: HandClock
    relay: Relay
    servers: list[Streams] = field(default_factory=list)
    clients: list[Streams] = field(default_factory=list)

    async def connect(self) -> Streams:
        """A connection of a client."""
        streams = await asyncio.open_connection("127.0.0.1", self.relay.port)
        self.clients.append(streams)
        return streams

    async def pair(self) -> tuple[Streams, Streams]:
        """A connection of a client, and the one that the server got for it."""
        known, reached = len(self.servers), self.relay.counts.reached
        client = await self.connect()
        connected = lambda: len(self.servers) > known and self.relay.counts.reached > reached  # noqa: E731
        await until(connected, "the relay did not connect to the server")
        return client, self.servers[known]

    async def counted(self, name: str, value: float) -> None:
        """Wait until the relay has counted so many."""
        await until(lambda: self.relay.counted()[name] == value, f"{name} is never {value}")


@asynccontextmanager
async def wired(kind: type[Relay] = Relay) -> AsyncIterator[Wire]:
    """A relay of this kind before a server; all is closed at the end."""
    clock = HandClock()
    held: list[Streams] = []
    server = await asyncio.start_server(lambda reader, writer: held.append((reader, writer)), "127.0.0.1", 0)
    relay = kind(0, "127.0.0.1", server.sockets[0].getsockname()[1], clock)
    await relay.start()
    wire = Wire(clock, relay, held)
    try:
        yield wire
    finally:
        await relay.stop()
        server.close()
        for _, writer in (*wire.clients, *wire.servers):
            writer.transport.abort()
        await asyncio.gather(*(one.wait_closed() for _, one in (*wire.clients, *wire.servers)), return_exceptions=True)
        await server.wait_closed()


class Near:
    """Relays of the test's own process, controlled like those of another one."""

    def __init__(self, relays: Mapping[str, Relay]) -> None:
        self.relays = relays

    @property
    def urls(self) -> Mapping[str, str]:
        return {name: f"http://127.0.0.1:{relay.port}" for name, relay in self.relays.items()}

    async def tell(self, name: str, **order: object) -> Mapping[str, float]:
        return await self.relays[name].tell(order)

    async def counted(self, name: str) -> Mapping[str, float]:
        return self.relays[name].counted()

    async def reads_metrics(self, name: str) -> bool:
        raise NotImplementedError


class Inert(Relay):
    """A relay that relays, whatever it is told."""

    async def tell(self, order: Mapping[str, object]) -> dict[str, float]:  # noqa: ARG002 - that is its fault
        return self.counted()
