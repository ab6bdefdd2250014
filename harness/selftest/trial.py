"""One trial: a simulated pair with at most one planted bug, under one load, judged like any other run."""

import asyncio
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import uvloop

from harness.history import ClientHealth, Noted, Sent
from harness.load.health import worst_send_delay
from harness.observe.observer import SettledObserver
from harness.observe.scrape import Occasion
from harness.observe.settle import Readings
from harness.reports.measured import under_test
from harness.run import Carried, Recorder, Sending, Transport, carry_out
from harness.scenario import Scenario
from harness.selftest.accused import naming, unaffected
from harness.selftest.loads import Load, Writer
from harness.selftest.readings import read_pair
from harness.selftest.transport import SimTransport
from harness.selftest.world import World
from harness.sim import USUAL, Ledger, Noise, PlantedBug, SimConfig, SimPair
from harness.verdict import Outputs, Verdict
from harness.verify.asking import VerifyOptions, VerifyPolicy

FLIP_RATE = 0.4
"""Share of requests that flip at their first near tie, if they have one. If answers have 40 tokens, 15 % of all
requests flip; if answers are shorter, fewer."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One trial to run."""

    load: Load
    bug: str | None
    """The planted bug's name; None: a trial without a bug."""
    rate: float
    """Share of the requests that the bug strikes, among the requests that it can strike."""
    requests: int
    seed: int
    flip_rate: float = FLIP_RATE
    noise: str = USUAL
    """The kind of noise that the simulated pair has."""


@dataclass(frozen=True, slots=True)
class Seen:
    """The result of one check, without its evidence."""

    name: str
    verdict: Verdict
    summary: str


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a trial."""

    trial: Trial
    verdict: Verdict
    checks: tuple[Seen, ...]
    outputs: Outputs
    asked: int
    """Requests of the load; requests of the verification are not counted."""
    struck: int
    """Requests that the bug struck."""
    wrong: int
    """Requests that read wrong KV, according to the simulator."""
    named: int
    """Requests that read wrong KV and are named in the report."""
    accused: int
    """Requests that are named in the report although the bug did not affect them (accused.py)."""
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """The result as trials.jsonl has it."""
        trial = {name: getattr(self.trial, name) for name in Trial.__slots__} | {"load": self.trial.load.name}
        parts = {name: getattr(self, name) for name in Result.__slots__}
        checks = [asdict(check) for check in self.checks]
        return parts | {"trial": trial, "checks": checks, "outputs": asdict(self.outputs)}


def run_trial(trial: Trial) -> Result:
    """Run the trial in virtual time, and judge it. Deterministic."""
    began = time.perf_counter()
    recorded: list[tuple[Carried, Ledger]] = []

    async def record() -> None:
        # Returns nothing, since asyncio.Runner would format the whole result for its debug output.
        recorded.append(await record_trial(trial))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(record())
    return _result(trial, *recorded[0], began)


async def record_trial(trial: Trial) -> tuple[Carried, Ledger]:
    """The trial's run, and the simulator's record of the bug's effects."""
    config = _config(trial)
    world = World()
    pair = world.pair = SimPair(config, world.now)
    urls = {server.name: f"sim://{server.name}" for server in pair.servers}
    deployment = pair.facts(urls, "sim://proxy")
    record = Recorder()
    record(Noted(world.now(), "a simulated pair, in virtual time"))
    async with world:
        phases = trial.load.write(Writer(config, trial.seed), trial.requests)
        scenario = Scenario("selftest", "tests the checkers", phases)
        carried = await carry_out(
            [scenario],
            deployment,
            sending=Sending(),
            verify=VerifyOptions(
                policy=VerifyPolicy.parse("all"),
                salt="verification",
                seed=trial.seed,
                concurrency=scenario.phases[0].concurrency,
                probe_tiers=True,
            ),
            record=record,
            clock=world,
            transport=_transport(pair, world, urls, record),
        )
    return carried, pair.ledger


def _transport(pair: SimPair, world: World, urls: Mapping[str, str], record: Recorder) -> Transport:
    async def read_all(occasion: Occasion) -> Readings:
        return read_pair(pair, world, occasion)

    def health(sent: Iterable[Sent]) -> ClientHealth:
        # The client has no lag, since virtual time waits for it.
        return ClientHealth(world.now(), 0.0, worst_send_delay(sent), 0.0, 0.0)

    return Transport(SimTransport(pair, world, urls).send, SettledObserver(read_all, world, record), health)


def _config(trial: Trial) -> SimConfig:
    bugs = () if trial.bug is None else (PlantedBug(trial.bug, trial.rate),)
    noise = replace(Noise(), flip_rate=trial.flip_rate)
    return SimConfig(seed=trial.seed, noise=noise, sim_noise=trial.noise, bugs=bugs, eos_rate=0.0, **trial.load.fields)


def _result(trial: Trial, carried: Carried, ledger: Ledger, began: float) -> Result:
    judgement = carried.judgement
    sent = {operation.request.request_id for operation in under_test(carried.history)}
    findings = naming((finding for check in judgement.checks for finding in check.findings), sent)
    named = {finding.subject for finding in findings}
    return Result(
        trial=trial,
        verdict=judgement.verdict,
        checks=tuple(Seen(check.name, check.verdict, check.summary) for check in judgement.checks),
        outputs=judgement.outputs,
        asked=len(sent),
        struck=len(ledger.planted & sent),
        wrong=len(ledger.wrong & sent),
        named=len(named & ledger.wrong),
        accused=len(unaffected(findings, carried.history, ledger)),
        seconds=time.perf_counter() - began,
    )
