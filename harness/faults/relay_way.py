"""One direction of a relayed connection: pieces of bytes wait in a short queue until they are due."""

import asyncio
from collections.abc import Coroutine, Iterator
from typing import Any, Protocol

from harness.clock import Clock
from harness.faults.relay_manner import How, Manner

_PIECE = 1 << 16
"""Most bytes that are read at a time."""
_PIECES = 16
"""Most pieces that wait in one direction."""
_SLICES_A_SECOND = 16
"""Into how many pieces a throttled link cuts the bytes of one second, so that they come evenly."""
_ROUNDING = 1e-6
"""Seconds."""


class Counting(Protocol):
    """The counts of a relay that a direction adds to; see :class:`harness.faults.relay.Counts`."""

    came: int
    passed: int
    to_server: int
    to_client: int
    held: int
    swallowed: int
    longest_hold: float


class Link(Protocol):
    """What a direction needs of its relay."""

    clock: Clock
    manner: Manner
    changed: asyncio.Event
    free_at: dict[bool, float]

    @property
    def counts(self) -> Counting:
        """Counts since the manner was set."""
        ...


class Connection(Protocol):
    """What a direction needs of its connection."""

    last: float
    lost: bool

    @property
    def relay(self) -> Link:
        """The connection's relay."""
        ...


class Way:
    """Reads from one side and writes to the other; ``writer`` None: to nobody."""

    def __init__(
        self,
        connection: Connection,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter | None,
        *,
        to_server: bool,
    ) -> None:
        self._connection = connection
        self._reader = reader
        self._writer = writer
        self._to_server = to_server
        # Of each piece: when it came, when it is due, under which manner, and its bytes; no bytes: the end.
        self._queue: asyncio.Queue[tuple[float, float, Manner, bytes]] = asyncio.Queue(_PIECES)

    async def run(self) -> None:
        """Pass bytes until the side that sends has ended, and its end as well. Raises OSError if a side breaks."""
        await first_of(self._read(), self._write(), all_of_them=True)

    async def _read(self) -> None:
        relay = self._connection.relay
        data = b"-"
        while data:
            data = await self._reader.read(_PIECE)
            came, manner = relay.clock.now(), relay.manner
            relay.counts.came += len(data)
            if data and not self._connection.lost:
                self._connection.last = came
            for piece in _sliced(data, manner):
                await self._queue.put((came, self._due(came, manner, piece), manner, piece))

    def _due(self, came: float, manner: Manner, piece: bytes) -> float:
        if manner.how is How.DELAY:
            return came + manner.seconds
        if manner.how is How.THROTTLE:
            free_at = self._connection.relay.free_at
            free_at[self._to_server] = max(free_at[self._to_server], came) + len(piece) / manner.rate
            return free_at[self._to_server]
        return came

    async def _write(self) -> None:
        relay = self._connection.relay
        while True:
            came, due, manner, piece = await self._queue.get()
            while manner is relay.manner and (left := due - relay.clock.now()) > 0:
                await first_of(relay.clock.sleep(left), relay.changed.wait())
            if relay.manner.how is How.HALF_OPEN:
                self._connection.lost = True
            if self._writer is None or self._connection.lost:
                relay.counts.swallowed += len(piece)
            elif piece:
                self._count(came, due, len(piece), told=manner is relay.manner)
                self._writer.write(piece)
                await self._writer.drain()
            elif self._writer.can_write_eof():
                self._writer.write_eof()
            if not piece:
                return

    def _count(self, came: float, due: float, size: int, *, told: bool) -> None:
        counts, waited = self._connection.relay.counts, self._connection.relay.clock.now() - came
        counts.passed += size
        if self._to_server:
            counts.to_server += size
        else:
            counts.to_client += size
        # A piece that the end of a fault let go early was not held as long as it had to; one that was held to its end,
        # but under the manner before this one, is no evidence of this one.
        if told and due > came and waited >= due - came - _ROUNDING:
            counts.held += size
        counts.longest_hold = max(counts.longest_hold, waited)


def _sliced(data: bytes, manner: Manner) -> Iterator[bytes]:
    if manner.how is not How.THROTTLE or not data:
        yield data
        return
    size = max(1, int(manner.rate / _SLICES_A_SECOND))
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def first_of(*work: Coroutine[Any, Any, Any], all_of_them: bool = False) -> None:
    """Wait for the first of them, or for all of them unless one raises; cancel the rest. Raises what one raises."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        when = asyncio.FIRST_EXCEPTION if all_of_them else asyncio.FIRST_COMPLETED
        done, _ = await asyncio.wait(tasks, return_when=when)
        for one in done:
            one.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
