"""Servers are read at even intervals while a load is sent, and whatever they do, the load does not notice."""

import asyncio

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from hand_clock import HandClock
from jumping_clock import JumpingClock
from polling import until
from simulated import simulated

from harness.clock import MonotonicClock
from harness.errors import HarnessError
from harness.facts import Role, Server
from harness.history import Sampled
from harness.observe import monitor
from harness.observe.monitor import at_intervals, monitoring

QUICK, SLOW = Server("prefill-0", Role.PREFILL, "http://p"), Server("decode-0", Role.DECODE, "http://d")


class Servers:
    """A reading takes as many seconds of the clock as the server has; remembers when readings began."""

    def __init__(self, clock: HandClock, **seconds: float) -> None:
        self.clock, self.seconds = clock, seconds
        self.begun: list[tuple[float, str]] = []
        self.under_way = 0
        self.most_under_way = 0

    async def read(self, server: Server) -> Sampled:
        self.begun.append((self.clock.now(), server.name))
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await self.clock.sleep(self.seconds.get(server.name.partition("-")[0], 0.0))
        finally:
            self.under_way -= 1
        return Sampled(self.clock.now(), server.name)


async def test_each_server_is_read_once_an_interval_from_the_first_interval_on() -> None:
    clock, found = HandClock(), list[Sampled]()
    servers = Servers(clock, prefill=0.25)
    async with at_intervals([QUICK, SLOW], servers.read, clock, found.append, 1.0):
        await clock.advance(3.5)
    assert sorted(servers.begun) == [(float(at), name) for at in (1, 2, 3) for name in ("decode-0", "prefill-0")]
    assert [one.at for one in found if one.server == "prefill-0"] == [1.25, 2.25, 3.25]


async def test_a_slow_server_skips_readings_and_delays_no_other() -> None:
    clock, found = HandClock(), list[Sampled]()
    servers = Servers(clock, decode=2.5)
    async with at_intervals([SLOW, QUICK], servers.read, clock, found.append, 1.0):
        await clock.advance(9.9)
    assert [at for at, name in servers.begun if name == "decode-0"] == [1.0, 4.0, 7.0]
    assert [at for at, name in servers.begun if name == "prefill-0"] == [float(at) for at in range(1, 10)]
    assert servers.most_under_way == 2


async def test_readings_end_with_the_load_and_one_under_way_is_not_recorded() -> None:
    clock, found = HandClock(), list[Sampled]()
    servers = Servers(clock, prefill=0.5)
    async with at_intervals([QUICK], servers.read, clock, found.append, 1.0):
        await clock.advance(1.2)
        assert servers.under_way == 1
    assert servers.under_way == 0
    await clock.advance(10.0)
    assert (found, len(servers.begun)) == ([], 1)


async def test_a_cancelled_load_is_cancelled_and_its_readings_end() -> None:
    clock, found = HandClock(), list[Sampled]()
    servers = Servers(clock, prefill=0.5)

    async def load() -> None:
        async with at_intervals([QUICK], servers.read, clock, found.append, 1.0):
            await asyncio.Event().wait()

    sending = asyncio.create_task(load())
    await clock.advance(1.2)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert (servers.under_way, found) == (0, [])


async def test_an_error_of_the_load_is_its_own() -> None:
    clock = HandClock()

    async def load() -> None:
        async with at_intervals([QUICK], Servers(clock).read, clock, _full, 1.0):
            await clock.advance(1.5)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await load()


def _full(_reading: Sampled) -> None:
    raise HarnessError("The history could not be written.")


async def test_a_history_that_cannot_be_written_is_reported_when_the_load_has_ended() -> None:
    clock, reached = HandClock(), list[float]()

    async def load() -> None:
        async with at_intervals([QUICK], Servers(clock).read, clock, _full, 1.0):
            await clock.advance(2.5)
            reached.append(clock.now())

    with pytest.raises(HarnessError, match="could not be written"):
        await load()
    assert reached == [2.5]


async def test_interval_0_reads_nothing() -> None:
    clock, found = JumpingClock(), list[Sampled]()
    async with monitoring([QUICK], {}, clock, found.append, 0):
        await clock.sleep(100)
    assert found == []


async def test_simulated_servers_are_read_over_http() -> None:
    found: list[Sampled] = []
    async with simulated() as sim:
        servers = sim.facts().servers
        async with monitoring(servers, {}, MonotonicClock(), found.append, 0.01):
            await until(lambda: len({one.server for one in found}) == 2)
    assert {one.cause for one in found} == {""}
    assert all((one.running, one.waiting, one.kv_usage, one.preemptions) == (0, 0, 0, 0) for one in found)
    assert all(one.prompt_tokens is not None and one.local_compute is not None for one in found)


@pytest.mark.parametrize("kind", ["absent", "missing", "silent", "redirect"])
async def test_a_server_that_cannot_be_read_is_recorded_with_the_cause(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor, "TIMEOUT", 0.05)

    async def answer(_request: web.Request) -> web.StreamResponse:
        if kind == "silent":
            await asyncio.Event().wait()
        if kind == "redirect":
            raise web.HTTPFound("http://elsewhere.invalid/metrics?api_key=opensesame-1234")
        raise web.HTTPNotFound(text="no metrics here")

    app, found = web.Application(), list[Sampled]()
    app.router.add_get("/metrics", answer)
    async with TestServer(app, shutdown_timeout=0) as server:
        url = "http://127.0.0.1:1" if kind == "absent" else str(server.make_url("")).rstrip("/")
        async with monitoring([Server("decode-0", Role.DECODE, url)], {}, MonotonicClock(), found.append, 0.01):
            await until(lambda: len(found) >= 2)
    causes = {"absent": "Connect", "missing": "404", "silent": "did not answer", "redirect": "redirects"}
    assert all(causes[kind] in one.cause and one.running is None for one in found)
    assert not any("opensesame" in one.cause for one in found)
