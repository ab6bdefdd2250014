"""Messages between the side channels of simulated servers: a header in JSON and, after it, pages of KV.

A message is two lengths (big-endian, four bytes each), the header, and the pages: each token slot as eight bytes.
"""

import asyncio
import json
import struct
from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from harness.sim.blocks import Page

Header = dict[str, Any]
_LENGTHS = struct.Struct("!II")
_LARGEST_HEADER = 4 << 20
_LARGEST_BODY = 256 << 20


def message(header: Mapping[str, Any], body: bytes = b"") -> bytes:
    """The message's bytes."""
    text = json.dumps(header, separators=(",", ":")).encode()
    return _LENGTHS.pack(len(text), len(body)) + text + body


async def receive(reader: asyncio.StreamReader) -> tuple[Header, bytes]:
    """The next message. Raises EOFError at the end of the stream, OSError, and ValueError if it is no message."""
    header_size, body_size = _LENGTHS.unpack(await reader.readexactly(_LENGTHS.size))
    if header_size > _LARGEST_HEADER or body_size > _LARGEST_BODY:
        raise ValueError(f"a message of {header_size} and {body_size} bytes")
    header = json.loads(await reader.readexactly(header_size))
    if not isinstance(header, dict):
        raise TypeError("a header that is no object")
    return header, await reader.readexactly(body_size)


def packed(pages: Mapping[int, Page]) -> tuple[Header, bytes]:
    """The header's fields and the body for pages, by block."""
    fields = {
        "blocks": list(pages),
        "tainted": [block for block, page in pages.items() if page.tainted],
        "drift": [(block, page.drift) for block, page in pages.items() if page.drift],
    }
    return fields, array("Q", (row for page in pages.values() for row in page.rows)).tobytes()


def unpacked(header: Mapping[str, Any], body: bytes) -> dict[int, Page]:
    """The pages of a message, by block. Raises ValueError or another error if the fields do not fit the body."""
    rows = array("Q", body)
    blocks, tainted, drift = header["blocks"], set(header["tainted"]), dict(header["drift"])
    parts = _parts(rows, len(blocks))
    return {
        block: Page(tuple(part), block in tainted, float(drift.get(block, 0.0)))
        for block, part in zip(blocks, parts, strict=True)
    }


def _parts(rows: Sequence[int], count: int) -> Iterable[Sequence[int]]:
    size = len(rows) // count if count else 0
    return (rows[start * size : (start + 1) * size] for start in range(count))
