"""Python objects over a stream: each is pickled, behind its length in 8 bytes. Both ends are our own processes."""

import asyncio
import pickle
from typing import Any

_LENGTH_BYTES = 8


async def read_frame(reader: asyncio.StreamReader) -> Any:
    """The next object. Raises EOFError if the other end is gone."""
    try:
        length = int.from_bytes(await reader.readexactly(_LENGTH_BYTES), "big")
        return pickle.loads(await reader.readexactly(length))  # noqa: S301 - see the module's first line
    except (asyncio.IncompleteReadError, ConnectionError) as gone:
        raise EOFError from gone


async def write_frame(writer: asyncio.StreamWriter, content: Any) -> None:
    """Write an object, and wait while the other end is far behind. Raises EOFError if the other end is gone."""
    packed = pickle.dumps(content, pickle.HIGHEST_PROTOCOL)
    try:
        writer.write(len(packed).to_bytes(_LENGTH_BYTES, "big") + packed)
        await writer.drain()
    except ConnectionError as gone:
        raise EOFError from gone
