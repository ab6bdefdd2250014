"""The client's side of a request: reading its body and writing the answer, to a client that may leave at any moment.

Rule 1. A client that leaves is not an error: nothing is logged above INFO. aiohttp reports a lost client by a
cancelled handler, by an exception from a read, or by another one from a write. This module turns the exceptions into
``ClientGone``.

Rule 2. Every request that arrived is answered. An unexpected exception becomes a 500 in OpenAI's error format, or
closes the connection if the answer had begun.
"""

import asyncio
import contextlib
import logging
import socket
import struct
from collections.abc import Awaitable, Callable

from aiohttp import HttpVersion11, web
from aiohttp.hdrs import EXPECT
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import PayloadAccessError

from harness.proxy.contract import RejectedRequest
from harness.proxy.errors import error_response, one_line

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_UNREADABLE = (web.RequestPayloadError, HttpProcessingError, PayloadAccessError)
"""The exceptions of aiohttp for a body that contradicts its headers, and for bytes that are not HTTP."""


class ClientGone(Exception):  # noqa: N818 - reads as what happened
    """The client closed its connection, or its sending half: it no longer waits for an answer."""


async def read_body(request: web.Request) -> bytes:
    """The body. Raises ClientGone if it arrives only in part, RejectedRequest if it contradicts its headers."""
    try:
        return await request.read()
    except ConnectionError as error:
        raise ClientGone from error
    except _UNREADABLE as error:
        raise RejectedRequest(f"The request body cannot be read as its headers say: {one_line(error)}.") from error


async def to_client(writing: Awaitable[object]) -> None:
    """Await one write of an answer. Raises ClientGone."""
    try:
        await writing
    except ConnectionError as error:
        raise ClientGone from error


async def send(request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    """Send all of an answer that has not been sent yet, including its end. Raises ClientGone."""
    await to_client(response.prepare(request))
    await to_client(response.write_eof())
    return response


async def send_continue(request: web.Request) -> None:
    """Send ``100 Continue`` to a client that waits for it. Any other ``Expect`` header is ignored, not refused."""
    if request.version >= HttpVersion11 and request.headers[EXPECT].lower() == "100-continue":
        # If the client is gone, reading its body will show it.
        with contextlib.suppress(ConnectionError):
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        # These bytes are not part of the answer.
        request.writer.output_size = 0


@web.middleware
async def answer_every_error(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Apply rules 1 and 2 around every handler."""
    try:
        return await handler(request)
    except ClientGone:
        # aiohttp finds the connection closed, and writes nothing of this response.
        return web.Response()
    except web.HTTPException as error:
        return error_response(error.status, error.text or error.reason)
    except RejectedRequest as error:
        return error_response(400, str(error), error.param)
    except Exception:
        log.exception("%s %s: the proxy itself failed.", request.method, request.path)
        if request.writer.output_size:
            cut(request)
        return error_response(500, "The proxy itself failed. Its log has the reason.")


def cut(request: web.Request) -> None:
    """Close the connection before the end of the answer, so that the client does not take it for a complete one."""
    transport = request.transport
    if transport is None or transport.is_closing():
        return
    if request.version >= HttpVersion11:
        # The server's bytes still arrive at the client, but no end of the body.
        transport.close()
    else:
        _reset(transport)


def _reset(transport: asyncio.Transport) -> None:
    """Close with a TCP reset: in HTTP/1.0 an orderly close would mean that the body is complete."""
    # struct linger: on, for zero seconds.
    linger = struct.pack("ii", 1, 0)
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    transport.abort()


class ClientErrorFilter(logging.Filter):
    """For aiohttp's own log: a client's error becomes one line without a traceback, and a lost client no line.

    aiohttp logs errors that occur before a handler is called: bytes that are not HTTP, ``100 Continue`` to a client
    that left.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is logged."""
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, _UNREADABLE):
            record.msg, record.args = "A client sent bytes that are not HTTP: %s", (one_line(error),)
            record.exc_info = record.exc_text = None
            record.levelno, record.levelname = logging.WARNING, "WARNING"
        return not isinstance(error, ConnectionError)
