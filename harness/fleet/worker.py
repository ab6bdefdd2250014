"""The process of a worker on this machine: ``python -m harness.fleet.worker FD``, with one end of a socket pair.

However the main process ends, kill -9 included, its end of the pair closes, and the worker ends.
"""

import asyncio
import contextlib
import socket
import sys
from typing import Any

import uvloop

from harness.fleet.frames import read_frame, write_frame
from harness.fleet.remote import failure
from harness.fleet.station import Station

_ENDS_WITHIN_S = 3.0


async def serve(connection: socket.socket) -> None:
    """Call the station's methods as the other end asks, until the other end is gone."""
    reader, writer = await asyncio.open_connection(sock=connection)
    station = Station()
    calls: set[asyncio.Task[None]] = set()
    with contextlib.suppress(EOFError):
        while True:
            number, method, arguments = await read_frame(reader)
            call = asyncio.create_task(_answer(station, writer, number, method, arguments))
            calls.add(call)
            call.add_done_callback(calls.discard)
    # Whatever is still in flight must not keep the process.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_ENDS_WITHIN_S):
            await station.close()


async def _answer(
    station: Station, writer: asyncio.StreamWriter, number: int, method: str, arguments: tuple[Any, ...]
) -> None:
    error, result = None, None
    try:
        result = await getattr(station, method)(*arguments)
    except Exception as failed:  # noqa: BLE001 - reported to the main process
        error = failure(method, failed)
    with contextlib.suppress(EOFError):
        await write_frame(writer, (number, error, result))


if __name__ == "__main__":
    # The runner is not closed, as in harness.cli.main: closing it may wait forever, and the process is about to exit.
    asyncio.Runner(loop_factory=uvloop.new_event_loop).run(serve(socket.socket(fileno=int(sys.argv[1]))))
