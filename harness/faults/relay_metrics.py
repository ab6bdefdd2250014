"""A relay before one server's ``/metrics`` that can spoil what the server answers.

What it spoils is evidence against nobody: a harness that reads spoiled counters must say that it does not know.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import aiohttp
from aiohttp import web

from harness.faults.metrics_spoiled import Spoiling, first_half, from_zero, started_at, with_nan

_LARGEST = 1 << 27
"""Bytes of an answer; twice what the harness itself reads."""
_LIMIT = aiohttp.ClientTimeout(total=30)
_NOT_PASSED = frozenset({"host", "connection", "accept-encoding", "content-length", "transfer-encoding"})
_SLOW_S = 1.0
_SLOW_PARTS = 100
"""A slow answer comes in so many parts, one a second."""


@dataclass(slots=True)
class MetricsCounts:
    """What was counted since the relay was told what to do."""

    asked: int = 0
    """Readings."""
    spoiled: int = 0
    """Answers that were spoiled."""
    passed: int = 0
    """Answers that were passed on as they came."""


class MetricsRelay:
    """Listens on a port of the loopback interface; ``server``: the URL of the server whose metrics are read."""

    def __init__(self, port: int, server: str) -> None:
        self.port = port
        self.counts = MetricsCounts()
        self._server = server
        self._spoiling = Spoiling.NOTHING
        self._baseline: str | None = None
        self._changed = asyncio.Event()
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen. Raises OSError if the port is in use."""
        app = web.Application()
        app.router.add_get("/metrics", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Close everything."""
        self._changed.set()
        if self._runner is not None:
            await self._runner.cleanup()

    async def tell(self, order: Mapping[str, Any]) -> dict[str, float]:
        """Spoil answers so from now on; returns what was counted since it was told last. Raises ValueError."""
        spoiling = Spoiling(order.get("how", Spoiling.NOTHING))
        counted = self.counted()
        self.counts = MetricsCounts()
        self._spoiling, self._baseline = spoiling, None
        self._changed.set()
        self._changed = asyncio.Event()
        return counted

    def counted(self) -> dict[str, float]:
        """What was counted since it was told last: the fields of :class:`MetricsCounts`."""
        return asdict(self.counts)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        spoiling = self._spoiling
        self.counts.asked += 1
        if spoiling is Spoiling.ERROR:
            self.counts.spoiled += 1
            return web.Response(status=500, text="the metrics cannot be read")
        try:
            status, text = await self._ask(request)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return web.Response(status=502, text=f"the server's metrics cannot be read: {error}")
        if spoiling is Spoiling.NOTHING or status != 200:
            self.counts.passed += 1
            return web.Response(status=status, text=text)
        if spoiling in (Spoiling.SLOW, Spoiling.CUT):
            self.counts.spoiled += 1
            return await self._part_by_part(request, text.encode(), cut=spoiling is Spoiling.CUT)
        spoiled = first_half(text) if spoiling is Spoiling.SHORT else self._spoiled(text, spoiling)
        # What came out as it went in is no evidence, whatever was meant to be done to it.
        self.counts.spoiled += spoiled != text
        self.counts.passed += spoiled == text
        if spoiling is Spoiling.SHORT:
            return await _until_closed(request, spoiled.encode())
        return web.Response(text=spoiled)

    async def _ask(self, request: web.Request) -> tuple[int, str]:
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _NOT_PASSED}
        async with (
            aiohttp.ClientSession(timeout=_LIMIT) as session,
            session.get(f"{self._server}/metrics", headers=headers) as answer,
        ):
            body = await answer.content.read(_LARGEST)
            while len(body) <= _LARGEST and (more := await answer.content.read(_LARGEST)):
                body += more
            if len(body) > _LARGEST:
                raise ValueError(f"the answer is longer than {_LARGEST:,} bytes")
            return answer.status, body.decode("utf-8", errors="replace")

    def _spoiled(self, text: str, spoiling: Spoiling) -> str:
        if spoiling is Spoiling.NAN:
            return with_nan(text)
        # The process seems to have started when the first reading after it was made.
        if self._baseline is None:
            self._baseline = text
        return from_zero(text, self._baseline, started_at(self._baseline) + 1)

    async def _part_by_part(self, request: web.Request, body: bytes, *, cut: bool) -> web.StreamResponse:
        """Half of the answer and a reset, or all of it, very slowly, until the relay is told something else."""
        response = web.StreamResponse()
        response.content_length = len(body)
        await response.prepare(request)
        changed = self._changed
        if cut:
            await response.write(body[: len(body) // 2])
            if request.transport is not None:
                request.transport.abort()
            return response
        step = max(1, len(body) // _SLOW_PARTS)
        for start in range(0, len(body), step):
            await response.write(body[start : start + step])
            try:
                async with asyncio.timeout(None if changed.is_set() else _SLOW_S):
                    await changed.wait()
            except TimeoutError:
                pass
        return response


async def _until_closed(request: web.Request, body: bytes) -> web.StreamResponse:
    """An answer without a length, as servers of HTTP/1.0 send it: it ends when the connection does."""
    transport = request.transport
    if transport is not None:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nConnection: close\r\n\r\n"
        transport.write(head + body)
        transport.close()
    return web.Response()
