"""Serves a simulated server over HTTP on loopback, with aiohttp.

The engine runs in its own task, which steps whenever there is work, including when a lease ends. Every handler gets a
turn between two steps.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from harness.cancelled import cancelled
from harness.clock import Clock
from harness.scenario import Endpoint
from harness.sim.answers import Job
from harness.sim.intake import Refused
from harness.sim.server import SimServer
from harness.sim.slow import is_slow
from harness.sim.stream import Stream

_IDLE_STEP = 0.001
"""Seconds between steps that generate nothing, for example while every block is leased."""
_LARGEST_BODY = 64 << 20


class HttpServer:
    """The HTTP routes, and the task that steps the engine."""

    def __init__(self, server: SimServer, clock: Clock) -> None:
        self.server, self.clock = server, clock
        self.url = ""
        self._work = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self._stepper: asyncio.Task[None] | None = None
        self._draining = False

    async def start(self, port: int) -> None:
        """Listen on loopback, at a free port if ``port`` is 0, and start stepping the engine."""
        # vLLM too ends what it does for a client that has gone, streamed or not.
        self._runner = web.AppRunner(self._app(), access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port)
        await site.start()
        self.url = "http://{}:{}".format(*self._runner.addresses[0][:2])
        if nixl := self.server.engine.nixl:
            nixl.wake = self._work.set
        self._stepper = asyncio.create_task(self._step_forever())

    async def drain(self, seconds: float) -> None:
        """Refuse new requests, and return when all others have ended, at the latest after this time."""
        self._draining = True
        deadline = self.clock.now() + seconds
        while self.server.busy and self.clock.now() < deadline:
            await self.clock.sleep(_IDLE_STEP)

    async def stop(self) -> None:
        """Stop stepping and close the sockets."""
        if self._stepper:
            await cancelled(self._stepper)
        if self._runner:
            await self._runner.cleanup()

    def _app(self) -> web.Application:
        app = web.Application(client_max_size=_LARGEST_BODY)
        app.router.add_post(Endpoint.COMPLETIONS, self._generate)
        app.router.add_post(Endpoint.CHAT, self._generate)
        app.router.add_get("/v1/models", _always(self.server.models))
        app.router.add_get("/health", self._health)
        app.router.add_get("/version", _always(lambda: {"version": self.server.config.version}))
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/server_info", _always(self.server.server_info))
        app.router.add_post("/tokenize", self._tokenize)
        app.router.add_post("/reset_prefix_cache", self._reset)
        return app

    # --- the engine's task ---

    async def _step_forever(self) -> None:
        engine = self.server.engine
        while True:
            if not engine.has_work:
                await self._wait_for_work()
                continue
            produced = self.server.step()
            await self.clock.sleep(self.server.config.step_seconds if produced else self._pause())

    def _pause(self) -> float:
        """Seconds until the next step after one that generated nothing: none while a request can go on."""
        scheduler = self.server.engine.scheduler
        loaded = any(sequence.received for sequence in scheduler.loading)
        return 0.0 if scheduler.running or loaded else _IDLE_STEP

    async def _wait_for_work(self) -> None:
        self._work.clear()
        deadline = self.server.engine.next_deadline
        patience = None if deadline in (None, float("inf")) else max(deadline - self.clock.now(), 0.0)
        # Not ``asyncio.wait_for``: in Python 3.11 it loses a cancellation that comes together with the work.
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self._work.wait()

    # --- completions ---

    async def _generate(self, request: web.Request) -> web.StreamResponse:
        endpoint = Endpoint(request.path)
        changed = asyncio.Event()
        if self._draining:
            return _json(Refused("The server is shutting down.", 503).body(), 503)
        try:
            body = _object(await request.read())
            if is_slow(body, self.server.config.slow_share):
                await self.clock.sleep(self.server.config.slow_seconds)
            job = self.server.submit(endpoint, body, request.headers.get("X-Request-Id"), changed.set)
        except ValueError as error:
            return _json(Refused(f"JSON decode error: {error}").body(), 400)
        except Refused as refused:
            return _json(refused.body(), refused.status)
        self._work.set()
        async with self._aborting(job):
            if job.request.stream:
                return await self._stream(request, job, changed)
            while not job.finished:
                await _wait(changed)
            status, answer = self.server.reply(job)
            return _json(answer, status)

    @asynccontextmanager
    async def _aborting(self, job: Job) -> AsyncIterator[None]:
        """Abort the request if its handler ends early, for example because the client has gone."""
        try:
            yield
        finally:
            if not job.finished:
                self.server.abort(job)
                self._work.set()

    async def _stream(self, request: web.Request, job: Job, changed: asyncio.Event) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        stream = Stream(self.server, job)
        while not job.finished:
            await _wait(changed)
            await self._pass_on(response, stream.ready())
        await self._pass_on(response, stream.end())
        if not stream.cut:
            await response.write_eof()
        return response

    @staticmethod
    async def _pass_on(response: web.StreamResponse, payloads: list[bytes]) -> None:
        if payloads:
            await response.write(b"".join(b"data: " + payload + b"\n\n" for payload in payloads))

    # --- other endpoints ---

    async def _health(self, _request: web.Request) -> web.Response:
        return web.Response(status=503 if self.server.engine.dead else 200)

    async def _metrics(self, _request: web.Request) -> web.Response:
        return web.Response(
            body=self.server.metrics(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        )

    async def _tokenize(self, request: web.Request) -> web.Response:
        return _json(self.server.tokenize(await request.json()))

    async def _reset(self, request: web.Request) -> web.Response:
        external = request.query.get("reset_external", "").lower() == "true"
        return _json({"success": self.server.engine.reset_prefix_cache(external=external)})


def _object(raw: bytes) -> dict[str, Any]:
    body = json.loads(raw)
    if not isinstance(body, dict):
        raise Refused("The request body must be a JSON object.")
    return body


async def _wait(changed: asyncio.Event) -> None:
    await changed.wait()
    changed.clear()


def _json(data: Any, status: int = 200) -> web.Response:
    return web.Response(body=json.dumps(data).encode(), status=status, content_type="application/json")


def _always(answer: Callable[[], Any]) -> Handler:
    """Make a handler of requests without parameters."""

    async def handle(_request: web.Request) -> web.StreamResponse:
        return _json(answer())

    return handle
