"""Replaces client, proxy and network, without sockets.

The code that encodes bodies (:mod:`harness.load.body`), parses answers (:mod:`harness.load.answers.answer`) and
determines outcomes (:mod:`harness.load.answers.outcome`) is also used in real runs. HTTP and the code of the proxy are
not used; prefill's body, and what the client gets of prefill's answer, are made by :mod:`harness.sim.transit`.
"""

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Self

from harness.facts import Role
from harness.history import Ended, Ending
from harness.load.answers.answer import Answer
from harness.load.answers.outcome import Reply, conclude
from harness.load.body import encode
from harness.scenario import Purpose, Request, Route
from harness.selftest.world import World
from harness.sim import SimPair, SimServer
from harness.sim.answers import Job
from harness.sim.intake import Refused
from harness.sim.stream import Stream
from harness.sim.transit import prefill_body, prefill_first

Json = dict[str, Any]

TIMEOUT = 60.0
"""Virtual seconds. An answer takes less than one."""
_ROLES = {Route.PREFILL: Role.PREFILL, Route.DECODE: Role.DECODE}


class SimTransport:
    """``send`` is a :data:`harness.run.runner.Sender` to the servers of a pair. ``urls`` has server names as keys."""

    def __init__(self, pair: SimPair, world: World, urls: Mapping[str, str]) -> None:
        self._pair, self._world, self._urls = pair, world, urls

    async def send(self, request: Request) -> Ended:
        """Send the request, and wait until it has ended in virtual time."""
        reply, answer = Reply(), Answer()
        exchange = _Exchange(self._world, request, reply, answer)
        body = json.loads(encode(request, model=self._pair.config.model))
        try:
            if request.purpose is Purpose.RESET:
                done = self._server(_ROLES[request.route], request.server or 0).engine.reset_prefix_cache()
                reply.status, reply.body = 200, json.dumps({"success": done})
            elif request.route is Route.PROXY:
                await self._through_proxy(exchange, body)
            else:
                await exchange.with_client(self._server(_ROLES[request.route], request.server or 0), body)
        except TimeoutError:
            reply.broken, reply.trouble = Ending.TIMED_OUT, f"no end of the answer within {TIMEOUT:g} s"
        except Refused as refused:
            exchange.refuse(refused.status, refused.body())
        return conclude(request, reply, answer, self._world.now())

    async def _through_proxy(self, exchange: "_Exchange", body: Json) -> None:
        prefill, decode = self._server(Role.PREFILL, 0), self._server(Role.DECODE, 0)
        exchange.reply.prefill_server = self._urls[prefill.name]
        status, answer = await exchange.whole(prefill, prefill_body(body, exchange.request.endpoint))
        params = answer.get("kv_transfer_params")
        if status != 200:
            exchange.refuse(status, answer)
        elif not params:
            exchange.refuse(502, {"error": {"message": "prefill answered without kv_transfer_params", "code": 502}})
        else:
            exchange.reply.decode_server = self._urls[decode.name]
            exchange.reply.prefill_first = prefill_first(answer)
            await exchange.with_client(decode, {**body, "kv_transfer_params": params})

    def _server(self, role: Role, index: int) -> SimServer:
        return self._pair.of(role)[index]


class _Exchange:
    """One request and its answer."""

    def __init__(self, world: World, request: Request, reply: Reply, answer: Answer) -> None:
        self.request, self.reply, self._answer, self._world = request, reply, answer, world
        self._changed = asyncio.Event()
        self._timeout = TIMEOUT if request.deadline is None else request.deadline

    def refuse(self, status: int, body: Json) -> None:
        """Answer with an error."""
        self.reply.status, self.reply.body = status, json.dumps(body)

    async def with_client(self, server: SimServer, body: Json) -> None:
        """Send to the server, and pass the answer on to the client as it is generated."""
        if not self.request.stream:
            status, answer = await self.whole(server, body)
            if status != 200:
                self.refuse(status, answer)
                return
            self.reply.status = status
            self._answer.body(json.dumps(answer).encode(), self._world.now())
            return
        job = self._submit(server, body)
        self.reply.status = 200
        stream = Stream(server, job)
        async with _Watch(self._world, server, job, self._changed, self._timeout) as watch:
            while not job.finished:
                await watch.next()
                self._pass_on(stream.ready())
        self._pass_on(stream.end())

    async def whole(self, server: SimServer, body: Json) -> tuple[int, Json]:
        """Send to the server, and wait for the whole answer."""
        job = self._submit(server, body)
        async with _Watch(self._world, server, job, self._changed, self._timeout) as watch:
            while not job.finished:
                await watch.next()
        return server.reply(job)

    def _submit(self, server: SimServer, body: Json) -> Job:
        return server.submit(self.request.endpoint, body, self.request.request_id, self._changed.set)

    def _pass_on(self, payloads: list[bytes]) -> None:
        now = self._world.now()
        for payload in payloads:
            self._answer.event(payload, now)


class _Watch:
    """Waits for a job's steps; aborts the job after the timeout."""

    def __init__(self, world: World, server: SimServer, job: Job, changed: asyncio.Event, timeout: float) -> None:
        self._world, self._server, self._job, self._changed = world, server, job, changed
        self._deadline = world.now() + timeout
        self._alarm = world.at(self._deadline, changed.set)

    async def next(self) -> None:
        """Return after the next step that changed something. Raises TimeoutError at the deadline."""
        await self._changed.wait()
        self._changed.clear()
        if self._world.now() >= self._deadline and not self._job.finished:
            raise TimeoutError

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._alarm.cancel()
        if not self._job.finished:
            self._server.abort(self._job)
