"""The client's side of a request: its body, the answer to it, and that it may be gone at any moment.

Rule 1. A client that leaves is no error of anybody's: nothing is logged above INFO. aiohttp tells it in several ways
(a cancelled handler, an exception of a read, another of a write), and in each of them only ``ClientGone`` or the
cancellation goes on from here.

Rule 2. Every request that arrived is answered: what no handler foresaw is 500 in the form that clients expect, or the
end of the connection where the answer had begun.
"""

import asyncio
import contextlib
import logging
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import TypeVar

from aiohttp import HttpVersion11, web
from aiohttp.hdrs import EXPECT
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import PayloadAccessError

from harness.proxy.contract import RejectedRequest
from harness.proxy.errors import error_response

log = logging.getLogger(__name__)

T = TypeVar("T")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


_UNREADABLE = (web.RequestPayloadError, HttpProcessingError, PayloadAccessError)
"""What aiohttp raises for a request that is not what its head says, or is no HTTP."""


class ClientGone(Exception):  # noqa: N818 - reads as what happened
    """The client closed its connection, or its half of it: nobody waits for an answer."""


async def body_of(request: web.Request) -> bytes:
    """The whole body.

    Raises:
        ClientGone: it did not come whole.
        RejectedRequest: it cannot be decoded as its headers say.

    """
    try:
        return await request.read()
    except ConnectionError as error:
        raise ClientGone from error
    except _UNREADABLE as error:
        raise RejectedRequest(f"The request body cannot be read as its headers say: {_words(error)}.") from error


async def to_client(writing: Awaitable[T]) -> T:
    """One step of an answer. Raises ClientGone."""
    try:
        return await writing
    except ConnectionError as error:
        raise ClientGone from error


async def send(request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    """Send the rest of an answer up to its end; where nothing of it was sent, all. Raises ClientGone."""
    await to_client(response.prepare(request))
    await to_client(response.write_eof())
    return response


async def welcome(request: web.Request) -> None:
    """Ask for a body that waits for ``100 Continue``. What else is expected is not refused: the answer will show."""
    if request.version >= HttpVersion11 and request.headers[EXPECT].lower() == "100-continue":
        with contextlib.suppress(ConnectionError):  # whoever reads the body finds out
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the answer itself has not begun


@web.middleware
async def answered(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Rules 1 and 2, around every handler."""
    try:
        return await handler(request)
    except ClientGone:
        return web.Response()  # aiohttp finds the connection closed, and writes none of it
    except web.HTTPException as error:
        return error_response(error.status, error.text or error.reason)
    except RejectedRequest as error:
        return error_response(400, str(error), error.param)
    except Exception:
        log.exception("%s %s: the proxy itself failed.", request.method, request.path)
        if request.writer.output_size:
            cut(request)
        return error_response(500, "The proxy itself failed; its log has the reason.")


def cut(request: web.Request) -> None:
    """Close the connection so that the client can tell its answer from one that ended."""
    transport = request.transport
    if transport is None or transport.is_closing():
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


class OneLine(logging.Filter):
    """For aiohttp's own log: what a client did wrong is one line without a traceback, that it left is none.

    For what happens before a handler is called (a request that is not HTTP, ``100 Continue`` to a client that left).
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is logged."""
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, _UNREADABLE):
            record.msg, record.args = "A client sent what is not HTTP: %s", (_words(error),)
            record.exc_info = record.exc_text = None
            record.levelno, record.levelname = logging.WARNING, "WARNING"
        return not isinstance(error, ConnectionError)


def _words(error: Exception) -> str:
    """On one line, and not the whole of what was sent."""
    return " ".join(str(error).split())[:200] or type(error).__name__
