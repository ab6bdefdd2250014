"""P's side channel on a socket: the handshake, the pages that D reads, notifications and renewals of leases.

D's process reads the pages when this process answers, as a read of host memory by UCX does that needs both sides: a
stopped P answers when it goes on. Reading does not check the lease (rule 1 of ``transfer.py``).
"""

import asyncio
from contextlib import suppress
from typing import Any

from harness.sim.transfer import Nixl
from harness.sim.wire import Header, message, packed, receive, unpacked

BROKEN = (OSError, EOFError, ValueError, TypeError, KeyError)
"""How a connection ends: it breaks, or the other side sends what is no message."""


class SideChannel:
    """Serves a connector's memory to the processes of other servers."""

    def __init__(self, nixl: Nixl, version: str) -> None:
        self._nixl, self._version = nixl, version
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        """Listen where the connector's ``kv_transfer_params`` say. Raises OSError if the port is in use."""
        address = self._nixl.address
        self._server = await asyncio.start_server(self._serve, address.host, address.port)

    async def stop(self) -> None:
        """Stop listening, and close every connection."""
        if self._server is not None:
            self._server.close()
        for writer in self._writers:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            with suppress(*BROKEN):
                while True:
                    if answer := self._answer(*await receive(reader)):
                        writer.write(answer)
                        await writer.drain()
        finally:
            self._writers.discard(writer)
            writer.close()

    def _answer(self, header: Header, body: bytes) -> bytes | None:
        match header["kind"]:
            case "hello":
                return message(self._introduction())
            case "read":
                return self._pages(header)
            case "notify":
                self._nixl.notify(str(header["request"]))
            case "renew":
                self._nixl.renew(str(header["request"]))
            case "lapse":
                self._nixl.lapse(str(header["request"]), unpacked(header, body))
        return None

    def _introduction(self) -> Header:
        layout = self._nixl.layout
        return {
            "engine": self._nixl.engine_id,
            "version": self._version,
            "layout": [layout.block_size, layout.num_blocks, layout.block_bytes],
        }

    def _pages(self, header: Header) -> bytes:
        held = self._nixl.leases.held.get(str(header["request"]))
        pages = {block: self._nixl.page(block) for block in header["blocks"] if self._has(block)}
        fields, body = packed(pages)
        facts = {
            "id": header["id"],
            "held": held.blocks if held else None,
            "leased": str(header["request"]) in self._nixl.leases.ends,
        }
        return message(fields | facts, body)

    def _has(self, block: Any) -> bool:
        return isinstance(block, int) and 0 <= block < self._nixl.layout.num_blocks
