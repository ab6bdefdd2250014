"""``python -m harness.faults.relay_process``: all relays of a deployment, in a process of their own.

A relay in the harness's process would cost the load's clients time, and the clients the relay. The environment variable
``PD_RELAYS`` holds what is relayed, as JSON: addresses may hold credentials, and every user can see arguments. The
process listens on loopback alone, and connects to nothing but the addresses given there.

    GET /health             200
    GET /relays/NAME        what the relay counted since it was told last
    POST /relays/NAME       tell it how to pass bytes; answers with what was counted until then
"""

import asyncio
import json
import os
import signal
from collections.abc import Mapping
from typing import Any, Protocol

from aiohttp import web

from harness.faults.relay import Relay
from harness.faults.relay_metrics import MetricsRelay
from harness.open_files import raise_file_limit

VARIABLE = "PD_RELAYS"


class Told(Protocol):
    """A relay, as far as it is controlled."""

    port: int

    async def start(self) -> None:
        """Listen."""
        ...

    async def stop(self) -> None:
        """Close everything."""
        ...

    async def tell(self, order: Mapping[str, Any]) -> dict[str, float]:
        """Do so from now on; returns what was counted until now. Raises ValueError."""
        ...

    def counted(self) -> dict[str, float]:
        """What was counted since it was told last."""
        ...


def made(plan: Mapping[str, Any]) -> dict[str, Told]:
    """The relays of a plan: ``{"links": {NAME: [PORT, HOST, SERVER_PORT]}, "metrics": {NAME: [PORT, URL]}}``."""
    links = {name: Relay(port, host, server_port) for name, (port, host, server_port) in plan["links"].items()}
    return {**links, **{name: MetricsRelay(port, url) for name, (port, url) in plan["metrics"].items()}}


def control(relays: Mapping[str, Told]) -> web.Application:
    """The HTTP interface by which the relays are controlled."""

    async def health(_request: web.Request) -> web.Response:
        return web.Response()

    async def counted(request: web.Request) -> web.Response:
        return web.json_response(_named(relays, request).counted())

    async def tell(request: web.Request) -> web.Response:
        relay = _named(relays, request)
        try:
            order = await request.json()
            return web.json_response(await relay.tell(order))
        except (ValueError, OSError) as error:
            return web.Response(status=400, text=str(error))

    app = web.Application()
    app.add_routes([web.get("/health", health), web.get("/relays/{name}", counted), web.post("/relays/{name}", tell)])
    return app


def _named(relays: Mapping[str, Told], request: web.Request) -> Told:
    name = request.match_info["name"]
    if name not in relays:
        raise web.HTTPNotFound(text=f"there is no relay {name}")
    return relays[name]


async def serve(plan: Mapping[str, Any]) -> None:
    """Relay until SIGINT or SIGTERM. Raises OSError if a port is in use."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    relays = made(plan)
    runner = web.AppRunner(control(relays), access_log=None, shutdown_timeout=0.1)
    try:
        for one in relays.values():
            await one.start()
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", plan["control"]).start()
        await stop.wait()
    finally:
        await runner.cleanup()
        await asyncio.gather(*(one.stop() for one in relays.values()))


if __name__ == "__main__":
    raise_file_limit()
    asyncio.run(serve(json.loads(os.environ[VARIABLE])))
