"""The streaming client: sends a request, reads the answer as it arrives, and returns how the operation ended.

A server's error and a request that cannot be sent raise no exception: they are ways in which an operation ends.

The hot path is one clock reading per read of the socket, one split per event and one ``json.loads`` per chunk.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

import aiohttp

from harness.clock import Clock
from harness.errors import UsageError
from harness.history import Ended, Ending
from harness.load.answer import Answer
from harness.load.body import encode
from harness.load.coding import Decoder, UnknownCoding
from harness.load.extra_body import checked
from harness.load.outcome import Reply, conclude
from harness.load.sse import EventParser
from harness.load.targets import Targets
from harness.redact import redact_secrets, secrets_of
from harness.scenario import Purpose, Request, Route

# The proxy's response headers, as in harness.proxy.headers, which this room may not import.
_REQUEST_ID = "X-Request-Id"
_PREFILL = "X-PD-Prefill"
_DECODE = "X-PD-Decode"
_PREFILL_FIRST = "X-PD-Prefill-First"

# Seconds. vLLM's HTTP server (uvicorn) closes an idle connection after 5 s (VLLM_HTTP_TIMEOUT_KEEP_ALIVE). A request
# sent on a connection at that moment would be cut, and its operation INFO without any fault of the deployment.
_KEEPALIVE_S = 3.0

# Bytes. Gateways add tokens and traces that exceed aiohttp's default of 8 KiB.
_LARGEST_HEADER = 1 << 16


class Client:
    """Sends requests to the servers of ``routes``; an async context manager that keeps connections open.

    ``timeout``: seconds from sending a request to the end of its answer. ``extra_body``: fields added to every body.

    Raises UsageError if ``extra_body`` sets a field that the run sets itself.
    """

    def __init__(  # noqa: PLR0913 - keyword-only settings, all of them independent
        self,
        routes: Mapping[Route, Sequence[str]],
        *,
        model: str,
        clock: Clock,
        timeout: float,
        headers: Mapping[str, str] | None = None,
        extra_body: Mapping[str, Any] | None = None,
    ) -> None:
        self._targets = Targets(routes)
        self._model = model
        self._clock = clock
        self._timeout = timeout
        self._headers = dict(headers or {})
        self._secrets = secrets_of(self._headers, (url for urls in routes.values() for url in urls))
        self._extra_body = checked(extra_body or {})
        self._session: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEPALIVE_S),
            # A compressor between server and client would hold tokens back until its window is full.
            headers={"Content-Type": "application/json", "Accept-Encoding": "identity", **self._headers},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
            cookie_jar=aiohttp.DummyCookieJar(),
            max_line_size=_LARGEST_HEADER,
            max_field_size=_LARGEST_HEADER,
            auto_decompress=False,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._session.close()

    async def send(self, request: Request) -> Ended:
        """Send a request and wait until it ends in any way. Cancellation closes the connection."""
        reply, answer = Reply(), Answer()
        try:
            async with asyncio.timeout(self._timeout) as limit:
                await self._exchange(request, reply, answer)
        except aiohttp.ClientConnectorError as error:
            reply.broken, reply.trouble = Ending.NOT_CONNECTED, f"not sent: {error}"
        except UsageError as error:
            reply.broken, reply.trouble = Ending.NOT_SENT, f"not sent: {error}"
        except UnknownCoding as error:
            reply.broken, reply.trouble = Ending.UNREADABLE, f"not read: {error}"
        except (aiohttp.ClientError, OSError) as error:
            # The kernel's ETIMEDOUT is a TimeoutError too, although the client's own time limit did not expire.
            if isinstance(error, TimeoutError) and limit.expired():
                reply.broken, reply.trouble = Ending.TIMED_OUT, f"no end of the answer within {self._timeout:g} s"
            else:
                reply.broken, reply.trouble = Ending.CUT, f"cut: {type(error).__name__}: {error}"
        ended = conclude(request, reply, answer, self._clock.now())
        cause = redact_secrets(ended.cause, self._secrets) if ended.cause else ""
        return replace(ended, cause=cause) if cause != ended.cause else ended

    async def _exchange(self, request: Request, reply: Reply, answer: Answer) -> None:
        url = self._targets.url(request)
        body = encode(request, model=self._model, extra=self._extra_body)
        headers = {_REQUEST_ID: request.request_id}
        async with self._session.post(url, data=body, headers=headers, allow_redirects=False) as response:
            reply.status = response.status
            reply.prefill_server = response.headers.get(_PREFILL)
            reply.decode_server = response.headers.get(_DECODE)
            reply.prefill_first = response.headers.get(_PREFILL_FIRST)
            await self._receive(request, response, reply, answer)

    async def _receive(self, request: Request, response: aiohttp.ClientResponse, reply: Reply, answer: Answer) -> None:
        decoder = Decoder(response.headers.get("Content-Encoding", ""))
        if response.status != 200 or request.purpose is Purpose.RESET:
            reply.body = decoder.feed(await response.read()).decode("utf-8", "replace")
        elif not request.stream:
            answer.body(decoder.feed(await response.read()), self._clock.now())
        elif response.content_type.endswith("json"):
            await self._read_json(response.content, decoder, answer)
        else:
            await self._read_stream(response.content, decoder, answer)

    async def _read_json(self, content: aiohttp.StreamReader, decoder: Decoder, answer: Answer) -> None:
        """Read a whole answer or an error that came instead of a stream, or a stream with the wrong content type."""
        start = b""
        while not start.strip() and (data := await content.readany()):
            start += decoder.feed(data)
        if start and not start.lstrip().startswith((b"{", b"[")):
            await self._read_stream(content, decoder, answer, start)
        else:
            answer.body(start + decoder.feed(await content.read()), self._clock.now())

    async def _read_stream(
        self, content: aiohttp.StreamReader, decoder: Decoder, answer: Answer, start: bytes = b""
    ) -> None:
        """Read beyond the end marker to the end of the HTTP body: only then can the connection be reused."""
        events = EventParser()
        for payload in events.feed(start):
            answer.event(payload, self._clock.now())
        while data := await content.readany():
            now = self._clock.now()
            for payload in events.feed(decoder.feed(data)):
                answer.event(payload, now)
        if (last := events.unended) is not None:
            answer.last_event(last, self._clock.now())
        if answer.done_at is None and events.stray:
            answer.read_stray(events.stray)
