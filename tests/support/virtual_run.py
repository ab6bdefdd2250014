"""A whole run on the simulated pair in virtual time: no sockets, no waiting, many requests in seconds."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

from harness.history import ClientHealth, RunStarted, Sent
from harness.load.health import worst_send_delay
from harness.loads import RandomLoad
from harness.observe.observer import SettledObserver
from harness.observe.scrape import Occasion
from harness.observe.settle import Readings
from harness.reports import LoadSettings, Report, make_report
from harness.run import Carried, Recorder, Sending, Transport, carry_out
from harness.selftest.readings import read_pair
from harness.selftest.transport import SimTransport
from harness.selftest.world import World
from harness.sim import PlantedBug, SimConfig, SimPair
from harness.verify.asking import VerifyOptions, VerifyPolicy

_SMALL: dict[str, Any] = {"input_len": (20, 40), "output_len": 6}

START = 1_767_225_600.0
"""Calendar time of all such runs: the first of January 2026."""


def virtual_report(
    requests: int, *, bugs: Sequence[PlantedBug] = (), policy: str = "sample:100", concurrency: int = 32, **load: Any
) -> Report:
    """The report of a run of short random prompts, with bugs planted in the pair. Deterministic."""
    recorded: list[Carried] = []

    async def record() -> None:
        recorded.append(await _carried(requests, bugs, policy, concurrency, load))

    asyncio.run(record())
    carried = recorded[0]
    settings = LoadSettings(requests, max_concurrency=concurrency)
    return make_report(carried.deployment, carried.history, carried.judgement, None, settings)


async def _carried(
    requests: int, bugs: Sequence[PlantedBug], policy: str, concurrency: int, load: dict[str, Any]
) -> Carried:
    config = SimConfig(bugs=tuple(bugs), eos_rate=0.0)
    world = World()
    pair = world.pair = SimPair(config, world.now)
    urls = {server.name: f"sim://{server.name}" for server in pair.servers}
    deployment = pair.facts(urls, "sim://proxy")
    record = Recorder()
    record(RunStarted(START, ("--num-prompts", str(requests)), 0, "test", None, ("random_load",)))
    async with world:
        made = RandomLoad(num_prompts=requests, concurrency=concurrency, **_SMALL | load)
        return await carry_out(
            [made.scenario(deployment, "run")],
            deployment,
            sending=Sending(),
            verify=VerifyOptions(policy=VerifyPolicy.parse(policy), salt="verify", seed=0, concurrency=concurrency),
            record=record,
            clock=world,
            transport=_transport(pair, world, urls, record),
        )


def _transport(pair: SimPair, world: World, urls: dict[str, str], record: Recorder) -> Transport:
    async def read_all(occasion: Occasion) -> Readings:
        return read_pair(pair, world, occasion)

    def health(sent: Iterable[Sent]) -> ClientHealth:
        return ClientHealth(world.now(), 0.0, worst_send_delay(sent), 0.0, 0.0)

    return Transport(SimTransport(pair, world, urls).send, SettledObserver(read_all, world, record), health)
