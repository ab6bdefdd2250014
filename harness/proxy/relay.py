"""Forwards a server's answer to the client as it arrives.

Rule 1. Bytes that have arrived are sent at once: no buffer to fill, no compression, nothing decoded. The events of a
stream reach the client in the writes in which they reached the proxy; one read of a chunked body is one chunk.

Rule 2. The client can distinguish an answer that broke off from one that ended. The end of a chunked body, or the last
byte of a counted body, is written only after the server sent it; otherwise the connection is closed before it.
"""

import logging
from collections.abc import Mapping

from harness.proxy.answer import Answer
from harness.proxy.client import ClientConnection
from harness.proxy.headers import response_headers, writable
from harness.proxy.request import Request
from harness.proxy.upstream import FAILURES, Upstream, broken

log = logging.getLogger(__name__)


async def relay(
    request: Request, client: ClientConnection, upstream: Upstream, answer: Answer, own: Mapping[bytes, bytes]
) -> None:
    """Forward ``answer`` to the client with the proxy's ``own`` headers, and count it by its status.

    Raises ClientGone if the client disconnects before the end of the answer, and UpstreamFailed if the server
    disconnects before any byte is forwarded; the failure is counted.
    """
    # None gives the status's usual reason.
    reason = answer.reason if answer.reason and writable(answer.reason) else None
    client.begin(request, answer.status, reason, response_headers(answer.headers, own))
    client.follow(answer)
    try:
        # The headers are sent with the first bytes: until then a failure can still be answered with 502.
        await answer.flow(client.send)
    except FAILURES as error:
        failed = broken(upstream, error)
        if not client.has_begun:
            raise failed from error
        log.warning("%s. The client's answer is cut.", failed)
        client.cut()
        return
    await client.drained()
    upstream.count_answer(answer.status)
