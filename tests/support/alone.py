"""Simulated servers that reach each other over sockets, as those with a process each do; here they share the test's."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp

from harness.clock import MonotonicClock
from harness.deploy.ports import free_ports
from harness.sim import QUIET, AloneServer, SimConfig, start_alone
from harness.sim.engine import Engine
from harness.sim.transit import prefill_body

Json = dict[str, Any]


@dataclass
class AlonePair:
    """One server of each role, which can be stopped and started again at the same ports."""

    config: SimConfig
    ports: dict[str, tuple[int, int]]
    servers: dict[str, AloneServer]
    client: aiohttp.ClientSession

    def engine(self, name: str) -> Engine:
        return self.servers[name].site.server.engine

    async def stop(self, name: str) -> None:
        await self.servers.pop(name).stop()

    async def start(self, name: str) -> None:
        port, channel = self.ports[name]
        self.servers[name] = await start_alone(self.config, name, MonotonicClock(), port=port, side_channel=channel)

    async def post(self, name: str, body: Json, request_id: str) -> tuple[int, Json]:
        url, headers = f"http://127.0.0.1:{self.ports[name][0]}/v1/completions", {"X-Request-Id": request_id}
        async with self.client.post(url, json=body, headers=headers) as response:
            return response.status, await response.json()

    async def prefill(self, body: Json, request_id: str) -> Json:
        """The body for decode after prefill's part."""
        status, answer = await self.post("prefill-0", prefill_body(body), request_id)
        assert status == 200
        return body | {"kv_transfer_params": answer["kv_transfer_params"]}

    async def through(self, body: Json, request_id: str) -> tuple[int, Json]:
        return await self.post("decode-0", await self.prefill(body, request_id), request_id)


@asynccontextmanager
async def alone_pair(**fields: Any) -> AsyncIterator[AlonePair]:
    """A pair without noise whose servers are stopped at the end."""
    config = SimConfig(**{"noise": QUIET, "eos_rate": 0.0, "step_seconds": 0.0, **fields})
    numbers = free_ports(4)
    ports = {"prefill-0": (numbers[0], numbers[1]), "decode-0": (numbers[2], numbers[3])}
    async with aiohttp.ClientSession() as client:
        pair = AlonePair(config, ports, {}, client)
        try:
            for name in ports:
                await pair.start(name)
            yield pair
        finally:
            for name in list(pair.servers):
                await pair.stop(name)
