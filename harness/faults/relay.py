"""A TCP relay before one server: it passes bytes both ways, counts them, and can be told to pass them badly.

Rule 1. Back-pressure is kept: at most a few pieces of bytes wait in each direction of a connection (relay_way.py), and
        the side that sends is not read from while they do.
Rule 2. Every byte that came is counted once more where it went: passed on, or swallowed. ``held`` are those of the
        passed ones that waited as long as they had to.
Rule 3. Bytes that were swallowed are missing for ever. So a connection that lost any, or would have, is reset when the
        relay passes again, as by a peer that comes back and knows nothing of it.
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from harness.clock import Clock, MonotonicClock
from harness.faults.relay_manner import DROPPING, How, Manner
from harness.faults.relay_way import Way, first_of

_BACKLOG = 1024
_CONNECT_S = 10.0
_LOOKS_A_SILENCE = 4
"""How often silent connections are looked for within the time of silence after which they are forgotten."""


@dataclass(slots=True)
class Counts:
    """What a relay counted since it was told how to pass bytes."""

    accepted: int = 0
    """Connections of clients."""
    reached: int = 0
    """Connections made to the server."""
    open: int = 0
    """Connections that are open now."""
    reset: int = 0
    """Open connections that were reset."""
    refused: int = 0
    """New connections that were reset at once."""
    dropped: int = 0
    """Connections that were forgotten because they were silent."""
    came: int = 0
    """Bytes that came from either side."""
    passed: int = 0
    """Bytes that were passed on: ``to_server`` and ``to_client`` together."""
    to_server: int = 0
    to_client: int = 0
    held: int = 0
    """Bytes that were passed on later than they came, by as much as they were to be."""
    swallowed: int = 0
    """Bytes that were never passed on."""
    longest_hold: float = 0.0
    """Seconds that a byte waited in the relay, at most."""


class Relay:
    """A relay on ``port`` of the loopback interface before the server at ``host`` and ``server_port``."""

    def __init__(self, port: int, host: str, server_port: int, clock: Clock | None = None) -> None:
        self.port = port
        self.clock: Clock = clock or MonotonicClock()
        self.manner = Manner()
        self.counts = Counts()
        self.changed = asyncio.Event()
        """Set, and replaced, when the manner changes."""
        self.free_at = {True: 0.0, False: 0.0}
        """When the link may pass the next byte to the server (True) and to the client, on the relay's clock."""
        self._server = (host, server_port)
        self._reserved: socket.socket | None = None
        self._listener: asyncio.Server | None = None
        self._connections: dict[_Connection, asyncio.Task[None]] = {}
        self._watch: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen. Raises OSError if the port is in use."""
        # A socket that is bound and does not listen keeps the port while the relay refuses connections.
        self._reserved = _bound(self.port)
        self.port = self._reserved.getsockname()[1]
        await self._listen()

    async def stop(self) -> None:
        """Close everything."""
        await self._tell(Manner(How.CUT, refuses=True))
        if self._reserved is not None:
            self._reserved.close()

    async def tell(self, order: Mapping[str, Any]) -> dict[str, float]:
        """Pass bytes so from now on; returns what was counted since it was told last. Raises ValueError."""
        manner = Manner.read(order)
        counted = self.counted()
        self.counts = Counts()
        await self._tell(manner)
        return counted

    def counted(self) -> dict[str, float]:
        """What was counted since it was told last: the fields of :class:`Counts`."""
        self.counts.open = len(self._connections)
        return asdict(self.counts)

    async def _tell(self, manner: Manner) -> None:
        before, self.manner = self.manner, manner
        self.free_at = dict.fromkeys(self.free_at, self.clock.now())
        self.changed.set()
        self.changed = asyncio.Event()
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        if manner.how is How.CUT:
            await self._cut()
        elif manner.how is How.IDLE:
            self._watch = asyncio.create_task(self._forget_silent())
        if before.how in DROPPING:
            await self._reset([one for one in self._connections if one.lost])
        if self._listener is None and not manner.refuses:
            await self._listen()

    async def _listen(self) -> None:
        listening = _bound(self.port)
        self._listener = await asyncio.start_server(self._accept, sock=listening, backlog=_BACKLOG)

    async def _cut(self) -> None:
        if self.manner.refuses and self._listener is not None:
            self._listener.close()
            self._listener = None
        await self._reset(list(self._connections))

    async def _reset(self, connections: "list[_Connection]") -> None:
        tasks = [self._connections[one] for one in connections]
        for one, task in zip(connections, tasks, strict=True):
            self.counts.reset += 1
            one.reset()
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.manner.how is How.CUT:
            self.counts.refused += 1
            _reset(writer)
            return
        self.counts.accepted += 1
        connection = _Connection(self, reader, writer)
        self._connections[connection] = asyncio.create_task(self._carry(connection))

    async def _carry(self, connection: "_Connection") -> None:
        try:
            await connection.carry(*self._server)
        except (OSError, asyncio.CancelledError):
            # The broken side's end is the other side's end, too; a cancelled connection was reset already.
            connection.reset()
        finally:
            connection.close()
            del self._connections[connection]

    async def _forget_silent(self) -> None:
        while True:
            await self.clock.sleep(self.manner.seconds / _LOOKS_A_SILENCE)
            for one in self._connections:
                if not one.lost and self.clock.now() - one.last >= self.manner.seconds:
                    one.lost = True
                    self.counts.dropped += 1


class _Connection:
    """A client's connection, and the one to the server that belongs to it."""

    def __init__(self, relay: Relay, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.relay = relay
        self.last = relay.clock.now()
        """When the last byte came from either side."""
        self.lost = relay.manner.how is How.HALF_OPEN
        """Whether it leads nowhere: whatever comes is swallowed."""
        self._client = reader, writer
        self._writers = [writer]

    async def carry(self, host: str, port: int) -> None:
        """Pass bytes until both sides have ended. Raises OSError if one of them breaks, or cannot be reached."""
        reader, writer = self._client
        if self.lost:
            await Way(self, reader, None, to_server=True).run()
            return
        async with asyncio.timeout(_CONNECT_S):
            server_reader, server_writer = await asyncio.open_connection(host, port)
        self._writers.append(server_writer)
        self.relay.counts.reached += 1
        ways = (
            Way(self, reader, server_writer, to_server=True).run(),
            Way(self, server_reader, writer, to_server=False).run(),
        )
        await first_of(*ways, all_of_them=True)

    def reset(self) -> None:
        """Reset both sides. What was read before is lost: it neither passes nor counts as passed."""
        self.lost = True
        for writer in self._writers:
            _reset(writer)

    def close(self) -> None:
        """Close both sides."""
        for writer in self._writers:
            writer.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    opened = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        # With a lingering time of 0, closing sends a reset.
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def _bound(port: int) -> socket.socket:
    # asyncio lets small pieces go at once (TCP_NODELAY) only on sockets that name the protocol. On others
    # a piece may wait for the acknowledgement of the one before, for 40 ms.
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.bind(("127.0.0.1", port))
    except OSError:
        made.close()
        raise
    return made
