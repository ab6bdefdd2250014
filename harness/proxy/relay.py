"""Passing an answer on, byte by byte as it comes.

Rule 1. What has arrived is sent at once: no rechunking, no buffer to fill, no compression. The events of a stream
reach the client in the writes in which they reached the proxy.

Rule 2. The client can tell an answer that was cut from one that ended. The end of a chunked body, or the last byte
of a counted one, is written only after the server's own; otherwise the connection is closed in front of it.
"""

import logging
from collections.abc import Mapping

import aiohttp
from aiohttp import web

from harness.proxy.client import cut, send, to_client
from harness.proxy.headers import response_headers, writable
from harness.proxy.upstream import Upstream, UpstreamFailed, arrived

log = logging.getLogger(__name__)


async def relay(
    request: web.Request, upstream: Upstream, answer: aiohttp.ClientResponse, own: Mapping[str, str]
) -> web.StreamResponse:
    """Pass ``answer`` to the client with the proxy's ``own`` headers; its status is counted, whatever it is.

    Raises:
        ClientGone: the client did not take all of it.
        UpstreamFailed: the server broke off before a byte of it was passed on; already counted.

    """
    headers = response_headers(answer.headers, own)
    response = web.StreamResponse(status=answer.status, reason=_sayable(answer.reason), headers=headers)
    chunk = await arrived(upstream, answer)  # before its head is passed on: until then an error can be answered
    await to_client(response.prepare(request))
    try:
        while chunk:
            await to_client(response.write(chunk))
            chunk = await arrived(upstream, answer)
    except UpstreamFailed as failed:
        log.warning("%s. The client's answer is cut.", failed)
        cut(request)
        return response  # aiohttp would now write the end marker, but finds the connection closed
    await send(request, response)
    upstream.count_answer(answer.status)
    return response


def _sayable(reason: str | None) -> str | None:
    """None, for the status's usual words, where the server's cannot stand in a status line."""
    return reason if reason and writable(reason) else None
