"""The proxy's handlers: a request to P, the handover, a request to D, and D's answer back to the client.

If the client disconnects, aiohttp cancels the handler (``handler_cancellation``) or a write in the handler fails
(client.py). Either closes the connection to the server, and vLLM aborts the request there. If a server disconnects, the
client gets 502, or a stream that breaks off if the answer had begun.
"""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import count

import aiohttp
from aiohttp import web

from harness.proxy.client import ClientGone, answer_every_error, read_body, send, send_continue
from harness.proxy.contract import Endpoint, Json, RejectedRequest, decode_body, parse_request, prefill_body
from harness.proxy.errors import error_response
from harness.proxy.exchange import Exchange
from harness.proxy.handover import Handover, IncompleteHandover, take_handover
from harness.proxy.headers import PREFILL, request_headers
from harness.proxy.metrics import exposition
from harness.proxy.relay import relay
from harness.proxy.rotation import pair
from harness.proxy.status import Stage, Status, UpstreamCounts
from harness.proxy.upstream import Upstream, UpstreamFailed, ask, read_whole

log = logging.getLogger(__name__)

# A prompt of a million tokens is about 10 MB; images come as base64. The servers have their own limits.
MAX_BODY_BYTES = 1 << 30
HEALTH_TIMEOUT_S = 5.0

_PASSED_TO_DECODE = (("GET", "/v1/models"), ("GET", "/version"), ("POST", "/tokenize"), ("POST", "/detokenize"))


class Proxy:
    """One proxy's state and handlers. The caller closes ``session``."""

    def __init__(self, session: aiohttp.ClientSession, prefill: Sequence[Upstream], decode: Sequence[Upstream]) -> None:
        self._session = session
        self._prefill = prefill
        self._decode = decode
        self.stopping = False
        """Whether the proxy is shutting down: its handlers are then cancelled while their clients are connected."""
        self._numbers = count()
        self._other = replace(decode[0], counts=UpstreamCounts(decode[0].name))
        self.status = Status(
            [server.counts for server in prefill], [server.counts for server in decode], self._other.counts
        )

    def application(self) -> web.Application:
        """The routes; any other path gets 404 and the list of routes."""
        app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[answer_every_error])
        add_route = partial(app.router.add_route, expect_handler=send_continue)
        for path, page in (("/health", self.health), ("/proxy/status", self.show_status), ("/metrics", self.metrics)):
            app.router.add_get(path, page, expect_handler=send_continue)
        for endpoint in Endpoint:
            add_route("POST", endpoint.value, partial(self.generate, endpoint))
        for method, path in _PASSED_TO_DECODE:
            add_route(method, path, self.pass_to_decode)
        add_route("*", "/{path:.*}", self.unknown)
        return app

    async def generate(self, endpoint: Endpoint, request: web.Request) -> web.StreamResponse:
        """Serve a completion or a chat completion by P and then D."""
        self.status.requests += 1
        self.status.in_flight += 1
        exchange = Exchange(request, endpoint)
        try:
            return await self._answer(exchange)
        except (ClientGone, asyncio.CancelledError) as end:
            if isinstance(end, ClientGone) or not self.stopping:
                self.status.client_gone[exchange.stage] += 1
                log.info("Request %s: the client disconnected at the stage %s.", exchange.request_id, exchange.stage)
            raise
        finally:
            self.status.in_flight -= 1

    async def _answer(self, exchange: Exchange) -> web.StreamResponse:
        """Send the answer of ``_serve``, or the error response for the exception it raised."""
        try:
            return await self._serve(exchange)
        except RejectedRequest as error:
            self.status.rejected += 1
            response = error_response(400, str(error), error.param)
        except IncompleteHandover as error:
            response = _incomplete_handover(exchange, error)
        except UpstreamFailed as error:
            response = self._upstream_failed(exchange, error)
        response.headers.update(exchange.own_headers)
        return await send(exchange.request, response)

    async def _serve(self, exchange: Exchange) -> web.StreamResponse:
        exchange.raw = await read_body(exchange.request)
        body = parse_request(exchange.raw, exchange.endpoint)
        exchange.identify(body)
        to_prefill = prefill_body(body, exchange.endpoint)
        prefill, decode = self._next_servers()
        exchange.stage = Stage.PREFILL
        answer = await self._ask(exchange, prefill, to_prefill)
        with closing(answer):
            if answer.status != 200:
                return await relay(exchange.request, prefill, answer, exchange.own_headers)
            handover = await self._take_handover(prefill, answer)
        exchange.note_first_token(handover.first_token)
        return await self._decode_from(exchange, decode, body, handover.params)

    async def _take_handover(self, prefill: Upstream, answer: aiohttp.ClientResponse) -> Handover:
        raw = await read_whole(prefill, answer)
        prefill.count_answer(answer.status)
        try:
            return take_handover(raw)
        except IncompleteHandover:
            prefill.counts.incomplete_handovers += 1
            raise

    async def _decode_from(self, exchange: Exchange, decode: Upstream, body: Json, params: Json) -> web.StreamResponse:
        to_decode = decode_body(exchange.raw, body, params)
        exchange.stage = Stage.HANDOVER
        answer = await self._ask(exchange, decode, to_decode)
        exchange.stage = Stage.DECODE
        with closing(answer):
            return await relay(exchange.request, decode, answer, exchange.own_headers)

    async def _ask(self, exchange: Exchange, server: Upstream, body: bytes) -> aiohttp.ClientResponse:
        exchange.note_server(server)
        path = exchange.request.rel_url.raw_path_qs
        headers = exchange.upstream_headers
        return await ask(self._session, server, method="POST", path_qs=path, headers=headers, body=body)

    def _next_servers(self) -> tuple[Upstream, Upstream]:
        prefill, decode = pair(next(self._numbers), len(self._prefill), len(self._decode))
        return self._prefill[prefill], self._decode[decode]

    def _upstream_failed(self, exchange: Exchange, error: UpstreamFailed) -> web.Response:
        if exchange.stage is Stage.HANDOVER and not error.reached:
            self.status.stranded_prefills += 1
        log.warning("Request %s: %s", exchange.request_id, error)
        return error_response(502, str(error))

    async def pass_to_decode(self, request: web.Request) -> web.StreamResponse:
        """Let the first D answer, since P and D serve the same model."""
        path, headers = request.rel_url.raw_path_qs, request_headers(request.headers)
        body = await read_body(request) or None
        try:
            answer = await ask(
                self._session, self._other, method=request.method, path_qs=path, headers=headers, body=body
            )
            with closing(answer):
                return await relay(request, self._other, answer, {})
        except UpstreamFailed as error:
            return error_response(502, str(error))

    async def health(self, _request: web.Request) -> web.Response:
        """200 if every P and D answers its own ``/health`` with 200, else 503 with the unhealthy servers' names."""
        servers = [*self._prefill, *self._decode]
        healthy = await asyncio.gather(*map(self._is_healthy, servers))
        unhealthy = [f"{s.role} server {s.name}" for s, well in zip(servers, healthy, strict=True) if not well]
        return error_response(503, f"Not healthy: {', '.join(unhealthy)}.") if unhealthy else web.Response()

    async def _is_healthy(self, server: Upstream) -> bool:
        timeout = aiohttp.ClientTimeout(total=HEALTH_TIMEOUT_S)
        try:
            headers = server.headers({})
            async with self._session.get(server.url("/health"), headers=headers, timeout=timeout) as answer:
                return answer.status == 200
        except (aiohttp.ClientError, OSError):
            return False

    async def show_status(self, _request: web.Request) -> web.Response:
        """The counts of status.py as JSON."""
        return web.json_response(self.status.as_json())

    async def metrics(self, _request: web.Request) -> web.Response:
        """The counts of status.py for Prometheus."""
        text, content_type = exposition(self.status)
        return web.Response(body=text, headers={"Content-Type": content_type})

    async def unknown(self, request: web.Request) -> web.Response:
        """404 with the list of routes."""
        return error_response(404, f"The proxy does not serve {request.method} {request.path}. {_list_of_routes()}")


def _list_of_routes() -> str:
    own = [("GET", "/health"), ("GET", "/proxy/status"), ("GET", "/metrics"), *(("POST", path) for path in Endpoint)]
    return "It serves " + ", ".join(f"{method} {path}" for method, path in [*own, *_PASSED_TO_DECODE]) + "."


def _incomplete_handover(exchange: Exchange, error: IncompleteHandover) -> web.Response:
    message = f"The prefill server {exchange.own_headers[PREFILL]} did not hand its KV over: {error}."
    log.warning("Request %s: %s", exchange.request_id, message)
    return error_response(502, message)
