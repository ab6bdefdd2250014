"""A decode server's connection to the side channel of a prefill server in another process."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from harness.cancelled import cancelled
from harness.sim.blocks import Page
from harness.sim.fabric import Address, Layout
from harness.sim.pull import remote_blocks
from harness.sim.sequence import Sequence
from harness.sim.side_channel import BROKEN
from harness.sim.wire import Header, message, packed, receive, unpacked

HANDSHAKE_SECONDS = 5.0
"""vLLM 0.32.0's limit for an answer to its handshake (``zmq.RCVTIMEO`` in ``nixl/base_worker.py``)."""


class HandshakeFailed(Exception):  # noqa: N818 - reads as what happened
    """Nobody answered, or an engine of another id or version."""


class Lost(Exception):  # noqa: N818 - reads as what happened
    """The connection ended before the answer came."""


class Connection:
    """One connection after its handshake; reads may overlap."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, layout: Layout) -> None:
        self.layout = layout
        self._writer = writer
        self._reads: dict[int, asyncio.Future[tuple[Header, bytes]]] = {}
        self._serial = 0
        self._receiver = asyncio.create_task(self._receive(reader))

    @classmethod
    async def open(cls, address: Address, version: str) -> "Connection":
        """Connect and shake hands. Raises HandshakeFailed."""
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                reader, writer = await asyncio.open_connection(address.host, address.port)
                try:
                    layout = await _shake_hands(reader, writer, address, version)
                except BaseException:
                    writer.close()
                    raise
        except (*BROKEN, TimeoutError, OverflowError) as error:
            raise HandshakeFailed(str(error) or type(error).__name__) from error
        return cls(reader, writer, layout)

    @property
    def closed(self) -> bool:
        """Whether it has ended."""
        return self._receiver.done() or self._writer.is_closing()

    async def close(self) -> None:
        """End it; reads under way fail."""
        await cancelled(self._receiver)

    def tell(self, kind: str, request_id: str, fields: Mapping[str, Any] | None = None, body: bytes = b"") -> bool:
        """Send a message that has no answer; False if the connection has ended."""
        if self.closed:
            return False
        self._writer.write(message({"kind": kind, "request": request_id, **(fields or {})}, body))
        return True

    async def read(self, request_id: str, blocks: list[int]) -> "RemoteMemory":
        """Copy the contents of blocks that P holds for a request. Raises Lost."""
        self._serial += 1
        answer = self._reads[self._serial] = asyncio.get_running_loop().create_future()
        if not self.tell("read", request_id, {"id": self._serial, "blocks": blocks}):
            raise Lost
        header, body = await answer
        try:
            return RemoteMemory(self, unpacked(header, body), header["held"], bool(header["leased"]))
        except BROKEN as error:
            raise Lost from error

    async def _receive(self, reader: asyncio.StreamReader) -> None:
        try:
            with suppress(*BROKEN):
                while True:
                    header, body = await receive(reader)
                    answer = self._reads.pop(header["id"], None)
                    if answer is not None and not answer.done():
                        answer.set_result((header, body))
        finally:
            self._writer.close()
            for answer in self._reads.values():
                if not answer.done():
                    answer.set_exception(Lost())
            self._reads.clear()


async def _shake_hands(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, address: Address, version: str
) -> Layout:
    """The layout of the engine. Raises ValueError if it is another one, or of another version."""
    writer.write(message({"kind": "hello"}))
    answer, _ = await receive(reader)
    if (answer["engine"], answer["version"]) != (address.engine_id, version):
        raise ValueError(f"engine {answer['engine']} of version {answer['version']} answered")
    return Layout(*map(int, answer["layout"]))


@dataclass(slots=True)
class RemoteMemory:
    """What one read brought: the pages, and what P said of the request then."""

    connection: Connection
    pages: Mapping[int, Page] = field(default_factory=dict)
    held: list[int] | None = None
    """The blocks that P held for the request; None: P held none."""
    leased: bool = False

    @property
    def layout(self) -> Layout:
        """The form of P's memory."""
        return self.connection.layout

    def page(self, block: int) -> Page:
        """The contents of a block that was read."""
        return self.pages[block]

    def still_holds(self, sequence: Sequence) -> bool:
        """Whether P held the blocks that the parameters name, as many as the prompt needs; P's prompt is not known."""
        blocks = remote_blocks(sequence)
        return self.held == blocks and len(blocks) == -(-len(sequence.prompt) // self.layout.block_size)

    def notify(self, request_id: str) -> bool:
        """Tell P that the blocks were read; False if the connection has ended."""
        return self.connection.tell("notify", request_id)

    def lapse(self, request_id: str, pages: Mapping[int, Page]) -> bool:
        """End the lease and overwrite blocks, for a planted bug."""
        fields, body = packed(pages)
        return self.leased and self.connection.tell("lapse", request_id, fields, body)
