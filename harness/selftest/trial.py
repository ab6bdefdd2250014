"""One trial: a simulated pair, with one planted bug or none, under one load, judged like any other run."""

import asyncio
import time
from dataclasses import asdict, dataclass, replace
from typing import Any

import uvloop

from harness.checkers import judge
from harness.facts import Deployment
from harness.history import ClientHealth, Decoding, Entry, History, Noted, RunEnded
from harness.load.health import worst_send_delay
from harness.observe.observer import SettledObserver
from harness.observe.scrape import Occasion
from harness.observe.settle import Readings
from harness.reports.measured import under_test
from harness.run.runner import run_scenario
from harness.scenario import Scenario
from harness.selftest.loads import Load, Writer
from harness.selftest.readings import read_pair
from harness.selftest.transport import Transport
from harness.selftest.verification import verification
from harness.selftest.world import World
from harness.sim import Ledger, Noise, PlantedBug, SimConfig, SimPair
from harness.verdict import Judgement, Outputs, Verdict

FLIP_RATE = 0.4
"""Share of requests that flip at their first near tie. Not all have one: it gives 15 % of flipped requests in answers
of 40 tokens, and fewer in shorter ones."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What to do."""

    load: Load
    bug: str | None
    """None: the clean twin."""
    rate: float
    """Share of the requests to which the bug can apply."""
    requests: int
    seed: int
    flip_rate: float = FLIP_RATE


@dataclass(frozen=True, slots=True)
class Seen:
    """One checker's result, without its evidence."""

    name: str
    verdict: Verdict
    summary: str


@dataclass(frozen=True, slots=True)
class Result:
    """What came of it."""

    trial: Trial
    verdict: Verdict
    checks: tuple[Seen, ...]
    outputs: Outputs
    asked: int
    """Requests of the load itself, those of its verification apart."""
    struck: int
    """Requests to which the bug was applied."""
    wrong: int
    """Requests that read KV which was not theirs (ground truth)."""
    named: int
    """Those of them that the report names."""
    accused: int
    """Requests that the report names and nothing was done to."""
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """What is kept of it."""
        trial = {name: getattr(self.trial, name) for name in Trial.__slots__} | {"load": self.trial.load.name}
        parts = {name: getattr(self, name) for name in Result.__slots__}
        checks = [asdict(check) for check in self.checks]
        return parts | {"trial": trial, "checks": checks, "outputs": asdict(self.outputs)}


def run_trial(trial: Trial) -> Result:
    """Run it in virtual time, and judge it. Deterministic."""
    began = time.perf_counter()
    recorded: list[Recorded] = []

    async def record() -> None:  # returns nothing: asyncio.Runner writes out what its task returns, at great length
        recorded.append(await record_trial(trial))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(record())
    deployment, history, ledger = recorded[0]
    return _result(trial, history, judge(deployment, history), ledger, time.perf_counter() - began)


Recorded = tuple[Deployment, History, Ledger]


async def record_trial(trial: Trial) -> Recorded:
    """The history of a trial, and what was really done in it."""
    config = _config(trial)
    world = World()
    pair = world.pair = SimPair(config, world.now)
    urls = {server.name: f"sim://{server.name}" for server in pair.servers}
    run = _Run(pair, world, Transport(pair, world, urls))
    async with world:
        phases = trial.load.write(Writer(config, trial.seed), trial.requests)
        await run.load(Scenario("selftest", "Does every checker see what it is there for?", phases), trial.seed)
    return pair.facts(urls, "sim://proxy"), run.history, pair.ledger


def _config(trial: Trial) -> SimConfig:
    bugs = () if trial.bug is None else (PlantedBug(trial.bug, trial.rate),)
    noise = replace(Noise(), flip_rate=trial.flip_rate)
    return SimConfig(seed=trial.seed, noise=noise, bugs=bugs, eos_rate=0.0, **trial.load.fields)


class _Run:
    def __init__(self, pair: SimPair, world: World, transport: Transport) -> None:
        self._world, self._transport = world, transport
        self._block_size = pair.config.block_size
        self._entries: list[Entry] = [
            Noted(world.now(), "a simulated pair, in virtual time"),
            Decoding(world.now(), pair.config.special_token_ids),
        ]

        async def read_all(occasion: Occasion) -> Readings:
            return read_pair(pair, world, occasion)

        self._observer = SettledObserver(read_all, world, self._entries.append)

    async def load(self, scenario: Scenario, seed: int) -> None:
        """The load, and then everything that verifies it."""
        await self._run(scenario)
        for step in verification(scenario, seed, self._block_size):
            if follow_up := step(self.history):
                await self._run(follow_up)
        # Virtual time waits for the client: it has no lag that could be measured.
        sent = (operation.sent for operation in self.history.operations())
        self._entries.append(ClientHealth(self._world.now(), 0.0, worst_send_delay(sent), 0.0, 0.0))
        self._entries.append(RunEnded(self._world.now()))

    async def _run(self, scenario: Scenario) -> None:
        await run_scenario(
            scenario,
            send=self._transport.send,
            observe=self._observer,
            record=self._entries.append,
            clock=self._world,
        )

    @property
    def history(self) -> History:
        return History(tuple(self._entries))


def _result(trial: Trial, history: History, judgement: Judgement, ledger: Ledger, seconds: float) -> Result:
    asked = {o.request.request_id for o in under_test(history)}
    named = {finding.subject for check in judgement.checks for finding in check.findings} & asked
    return Result(
        trial=trial,
        verdict=judgement.verdict,
        checks=tuple(Seen(check.name, check.verdict, check.summary) for check in judgement.checks),
        outputs=judgement.outputs,
        asked=len(asked),
        struck=len(ledger.planted & asked),
        wrong=len(ledger.wrong & asked),
        named=len(named & ledger.wrong),
        accused=len(named - ledger.wrong - ledger.planted - ledger.victims),
        seconds=seconds,
    )
