"""Forwards a server's answer to the client as it arrives.

Rule 1. Bytes that have arrived are sent at once: no rechunking, no buffer to fill, no compression. The events of a
stream reach the client in the writes in which they reached the proxy.

Rule 2. The client can distinguish an answer that broke off from one that ended. The end of a chunked body, or the last
byte of a counted body, is written only after the server sent it; otherwise the connection is closed before it.
"""

import logging
from collections.abc import Mapping

import aiohttp
from aiohttp import web

from harness.proxy.client import cut, send, to_client
from harness.proxy.headers import response_headers, writable
from harness.proxy.upstream import Upstream, UpstreamFailed, read_available

log = logging.getLogger(__name__)


async def relay(
    request: web.Request, upstream: Upstream, answer: aiohttp.ClientResponse, own: Mapping[str, str]
) -> web.StreamResponse:
    """Forward ``answer`` to the client with the proxy's ``own`` headers, and count it by its status.

    Raises ClientGone if the client disconnects before the end of the answer, and UpstreamFailed if the server
    disconnects before any byte is forwarded; the failure is counted.
    """
    headers = response_headers(answer.headers, own)
    # None gives the status's usual reason.
    reason = answer.reason if answer.reason and writable(answer.reason) else None
    response = web.StreamResponse(status=answer.status, reason=reason, headers=headers)
    # The first bytes are read before the headers are forwarded, while a failure can still be answered with 502.
    chunk = await read_available(upstream, answer)
    await to_client(response.prepare(request))
    try:
        while chunk:
            await to_client(response.write(chunk))
            chunk = await read_available(upstream, answer)
    except UpstreamFailed as failed:
        log.warning("%s. The client's answer is cut.", failed)
        cut(request)
        # aiohttp would write the end of the body now, but finds the connection closed.
        return response
    await send(request, response)
    upstream.count_answer(answer.status)
    return response
