"""The proxy's handlers: a request to P, the handover, a request to D, and D's answer back to the client.

If the client disconnects, the handler is cancelled or finds it gone (client.py). Either closes the connection to the
server, and vLLM aborts the request there. If a server disconnects, the client gets 502, or a stream that breaks off if
the answer had begun.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import count
from time import perf_counter
from types import MappingProxyType

from harness.proxy.answer import Answer
from harness.proxy.body import Body
from harness.proxy.client import ClientConnection, ClientGone
from harness.proxy.contract import Endpoint, RejectedRequest
from harness.proxy.detours import Detours, detoured
from harness.proxy.errors import error_page
from harness.proxy.exchange import Exchange
from harness.proxy.handover import Handover, IncompleteHandover, take_handover
from harness.proxy.headers import PREFILL, request_headers
from harness.proxy.metrics import exposition
from harness.proxy.page import JSON, Page
from harness.proxy.relay import relay
from harness.proxy.request import Request
from harness.proxy.rotation import pair
from harness.proxy.status import Stage, Status, UpstreamCounts
from harness.proxy.upstream import Upstream, UpstreamFailed, ask, read_whole

log = logging.getLogger(__name__)

HEALTH_TIMEOUT_S = 5.0

_Handler = Callable[[Request, ClientConnection], Awaitable[None]]
_PAGES = ("/health", "/proxy/status", "/metrics")
_PASSED_TO_DECODE = (("GET", "/v1/models"), ("GET", "/version"), ("POST", "/tokenize"), ("POST", "/detokenize"))


class Proxy:
    """One proxy's state and handlers."""

    def __init__(
        self, prefill: Sequence[Upstream], decode: Sequence[Upstream], detours: Detours = MappingProxyType({})
    ) -> None:
        self._detours = detours
        self._prefill = prefill
        self._decode = decode
        self.stopping = False
        """Whether the proxy is shutting down: its handlers are then cancelled while their clients are connected."""
        self._routes = self._route()
        self._numbers = count()
        self._other = replace(decode[0], counts=UpstreamCounts(decode[0].name))
        self.status = Status(
            [server.counts for server in prefill], [server.counts for server in decode], self._other.counts
        )

    def _route(self) -> dict[tuple[str, str], _Handler]:
        pages = {"/health": self.health, "/proxy/status": self.show_status, "/metrics": self.metrics}
        shown = {(method, path): partial(_show, page) for path, page in pages.items() for method in ("GET", "HEAD")}
        generating = {("POST", endpoint.value): partial(self.generate, endpoint) for endpoint in Endpoint}
        return {**shown, **generating, **dict.fromkeys(_PASSED_TO_DECODE, self.pass_to_decode)}

    async def handle(self, request: Request, client: ClientConnection) -> None:
        """Answer a request, whatever happens. Raises ClientGone."""
        try:
            await self._handler(request)(request, client)
        except RejectedRequest as error:
            await client.show(request, error_page(error.status, str(error), error.param))
        except (ClientGone, asyncio.CancelledError):
            raise
        except Exception:
            log.exception("%s %s: the proxy itself failed.", request.method, request.path)
            if client.has_begun:
                client.cut()
            else:
                await client.show(request, error_page(500, "The proxy itself failed. Its log has the reason."))

    async def close(self) -> None:
        """Close every connection to a server."""
        await asyncio.gather(*(server.pool.close() for server in (*self._prefill, *self._decode)))

    def _handler(self, request: Request) -> _Handler:
        if request.refusal is not None:
            return _refuse
        return self._routes.get((request.method, request.path), self.unknown)

    async def generate(self, endpoint: Endpoint, request: Request, client: ClientConnection) -> None:
        """Serve a completion or a chat completion by P and then D."""
        self.status.requests += 1
        self.status.in_flight += 1
        exchange = Exchange(request, client, endpoint)
        try:
            await self._answer(exchange)
        except (ClientGone, asyncio.CancelledError) as end:
            if isinstance(end, ClientGone) or not self.stopping:
                self.status.client_gone[exchange.stage] += 1
                log.info("Request %s: the client disconnected at the stage %s.", exchange.request_id, exchange.stage)
            raise
        finally:
            self.status.in_flight -= 1

    async def _answer(self, exchange: Exchange) -> None:
        """Send the answer of ``_serve``, or the error page for the exception it raised."""
        try:
            await self._serve(exchange)
        except RejectedRequest as error:
            self.status.rejected += 1
            await _show_page(exchange, error_page(error.status, str(error), error.param))
        except IncompleteHandover as error:
            await _show_page(exchange, _incomplete_handover(exchange, error))
        except UpstreamFailed as error:
            await _show_page(exchange, self._upstream_failed(exchange, error))

    async def _serve(self, exchange: Exchange) -> None:
        raw, arrived = await exchange.client.read_body(exchange.request), perf_counter()
        body = Body(raw, exchange.endpoint)
        exchange.identify(body)
        to_prefill = body.for_prefill()
        prefill, decode = self._next_servers()
        exchange.stage, asked = Stage.PREFILL, perf_counter()
        with closing(await _ask(exchange, prefill, to_prefill)) as answer:
            if answer.status != 200:
                await _relay(exchange, prefill, answer)
                return
            handed_over, answered = await read_whole(prefill, answer), perf_counter()
            handover = _take_handover(prefill, answer, handed_over)
        exchange.note_first_token(handover.first_token)
        to_decode = body.for_decode(detoured(handover.params, self._detours))
        exchange.note_times(arrived=arrived, asked=asked, answered=answered, handed=perf_counter())
        exchange.stage = Stage.HANDOVER
        with closing(await _ask(exchange, decode, to_decode)) as answer:
            exchange.stage = Stage.DECODE
            await _relay(exchange, decode, answer)

    def _next_servers(self) -> tuple[Upstream, Upstream]:
        prefill, decode = pair(next(self._numbers), len(self._prefill), len(self._decode))
        return self._prefill[prefill], self._decode[decode]

    def _upstream_failed(self, exchange: Exchange, error: UpstreamFailed) -> Page:
        if exchange.stage is Stage.HANDOVER and not error.reached:
            self.status.stranded_prefills += 1
        log.warning("Request %s: %s", exchange.request_id, error)
        return error_page(error.status, str(error))

    async def pass_to_decode(self, request: Request, client: ClientConnection) -> None:
        """Let the first D answer, since P and D serve the same model."""
        headers = request_headers(request.headers)
        body = await client.read_body(request) or None
        try:
            answer = await ask(self._other, method=request.method, path_qs=request.path_qs, headers=headers, body=body)
            with closing(answer):
                await relay(request, client, self._other, answer, {})
        except UpstreamFailed as error:
            await client.show(request, error_page(error.status, str(error)))

    async def health(self) -> Page:
        """200 if every P and D answers its own ``/health`` with 200, else 503 with the unhealthy servers' names."""
        servers = [*self._prefill, *self._decode]
        healthy = await asyncio.gather(*map(_is_healthy, servers))
        unhealthy = [f"{s.role} server {s.name}" for s, well in zip(servers, healthy, strict=True) if not well]
        return error_page(503, f"Not healthy: {', '.join(unhealthy)}.") if unhealthy else Page(200)

    async def show_status(self) -> Page:
        """The counts of status.py as JSON."""
        return Page(200, json.dumps(self.status.as_json()).encode(), JSON)

    async def metrics(self) -> Page:
        """The counts of status.py for Prometheus."""
        text, content_type = exposition(self.status)
        return Page(200, text, content_type.encode())

    async def unknown(self, request: Request, client: ClientConnection) -> None:
        """404 with the list of routes."""
        message = f"The proxy does not serve {request.method} {request.path}. {_list_of_routes()}"
        await client.show(request, error_page(404, message))


async def _show(page: Callable[[], Awaitable[Page]], request: Request, client: ClientConnection) -> None:
    await client.show(request, await page())


async def _ask(exchange: Exchange, server: Upstream, body: bytes) -> Answer:
    exchange.note_server(server)
    headers = exchange.upstream_headers
    return await ask(server, method="POST", path_qs=exchange.path_qs, headers=headers, body=body)


async def _show_page(exchange: Exchange, page: Page) -> None:
    await exchange.client.show(exchange.request, page, exchange.own_headers.items())


async def _relay(exchange: Exchange, server: Upstream, answer: Answer) -> None:
    await relay(exchange.request, exchange.client, server, answer, exchange.own_headers)


def _take_handover(prefill: Upstream, answer: Answer, raw: bytes) -> Handover:
    prefill.count_answer(answer.status)
    try:
        return take_handover(raw)
    except IncompleteHandover:
        prefill.counts.incomplete_handovers += 1
        raise


async def _is_healthy(server: Upstream) -> bool:
    """Whether the server's ``/health`` is 200; such questions are not counted."""
    uncounted = replace(server, counts=UpstreamCounts(server.name))
    try:
        async with asyncio.timeout(HEALTH_TIMEOUT_S):
            with closing(await ask(uncounted, method="GET", path_qs=b"/health", headers=[], body=None)) as answer:
                return answer.status == 200
    except (UpstreamFailed, TimeoutError):
        return False


async def _refuse(request: Request, client: ClientConnection) -> None:
    status, message = request.refusal or (400, "")
    log.warning("A client's request was refused: %s", message)
    await client.show(request, error_page(status, message))


def _list_of_routes() -> str:
    own = [*(("GET", path) for path in _PAGES), *(("POST", path) for path in Endpoint)]
    return "It serves " + ", ".join(f"{method} {path}" for method, path in [*own, *_PASSED_TO_DECODE]) + "."


def _incomplete_handover(exchange: Exchange, error: IncompleteHandover) -> Page:
    message = f"The prefill server {exchange.own_headers[PREFILL].decode()} did not hand its KV over: {error}."
    log.warning("Request %s: %s", exchange.request_id, message)
    return error_page(502, message)
