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


async def serve(connection: socket.socket) -> None:
    """Call the station's methods as the other end asks, until the other end is gone."""
    reader, writer = await asyncio.open_connection(sock=connection)
    station = Station()
    async with asyncio.TaskGroup() as calls:
        with contextlib.suppress(EOFError):
            while True:
                number, method, arguments = await read_frame(reader)
                calls.create_task(_answer(station, writer, number, method, arguments))
        await station.close()
    writer.close()


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
    uvloop.run(serve(socket.socket(fileno=int(sys.argv[1]))))
