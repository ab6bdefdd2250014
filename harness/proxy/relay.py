"""Passing an answer on, byte by byte as it comes.

Rule 1. What has arrived is sent at once: no rechunking, no buffer to fill, no compression. The events of a stream
reach the client in the writes in which they reached the proxy.

Rule 2. The client can tell an answer that was cut from one that ended. The end of a chunked body, or the last byte
of a counted one, is written only after the server's own; otherwise the connection is closed in front of it.
"""

import asyncio
import logging
import socket
import struct
from collections.abc import Mapping

import aiohttp
from aiohttp import HttpVersion11, web

from harness.proxy.headers import response_headers
from harness.proxy.upstream import Upstream, UpstreamFailed, arrived

log = logging.getLogger(__name__)


async def relay(
    request: web.Request, upstream: Upstream, answer: aiohttp.ClientResponse, own: Mapping[str, str]
) -> web.StreamResponse:
    """Pass ``answer`` to the client with the proxy's ``own`` headers; its status is counted, whatever it is."""
    response = web.StreamResponse(
        status=answer.status, reason=answer.reason, headers=response_headers(answer.headers, own)
    )
    await response.prepare(request)
    try:
        while chunk := await arrived(upstream, answer):
            await response.write(chunk)
    except UpstreamFailed as failed:
        log.warning("%s. The client's answer is cut.", failed)
        _cut(request)
        return response  # aiohttp would now write the end marker, but finds the connection closed
    await response.write_eof()
    upstream.count_answer(answer.status)
    return response


def _cut(request: web.Request) -> None:
    transport = request.transport
    if transport is None:
        return
    if request.version >= HttpVersion11:
        transport.close()  # what the server did send still arrives, but no end marker
    else:
        _reset(transport)


def _reset(transport: asyncio.Transport) -> None:
    """Close with a TCP reset: where a body ends with its connection, nothing else says that it did not end."""
    linger = struct.pack("ii", 1, 0)  # struct linger: on, and for no time
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    transport.abort()
