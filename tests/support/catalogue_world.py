"""Runs the whole catalogue on a simulated pair in virtual time: deterministic, without sockets, in seconds."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from harness.catalogue.background import beside_load
from harness.catalogue.needs import unmet
from harness.catalogue.registry import Workload
from harness.catalogue.setting import Setting
from harness.checkers import judge, judge_scenario
from harness.facts import Deployment
from harness.history import ClientHealth, Decoding, Entry, History, RunEnded, RunStarted
from harness.observe.observer import SettledObserver
from harness.observe.scrape import Occasion
from harness.observe.settle import Readings
from harness.run.runner import run_scenario
from harness.scenario import Scenario
from harness.selftest.readings import read_pair
from harness.selftest.transport import SimTransport
from harness.selftest.world import World
from harness.sim import Ledger, SimConfig, SimPair
from harness.verdict import Judgement, Outputs
from harness.verify.asking import VerifyOptions, VerifyPolicy, verified
from harness.verify.judging import look_at_outputs


@dataclass(slots=True)
class CatalogueRun:
    """The workloads that ran, their history, and the ledger of the faults that really happened."""

    deployment: Deployment
    ledger: Ledger
    entries: list[Entry] = field(default_factory=list)
    ran: list[Workload] = field(default_factory=list)

    @property
    def history(self) -> History:
        return History(tuple(self.entries))

    def judged(self) -> tuple[Judgement, dict[str, Judgement]]:
        """The whole run's judgement, and each workload's."""
        history = self.history
        whole, compared = judge(self.deployment, history), look_at_outputs(history)
        rows = {
            entry.name: judge_scenario(
                self.deployment, history, whole, entry.name, provokes=entry.provokes, compared=compared
            )
            for entry in self.ran
        }
        return whole, rows

    def outputs(self) -> Outputs:
        """The counts of right and wrong outputs."""
        return judge(self.deployment, self.history).outputs


async def run_catalogue(
    entries: Iterable[Workload], config: SimConfig, *, seed: int = 0, background: int = 0, one_by_one: bool = False
) -> CatalogueRun:
    """Run the workloads that the pair can run, and verify all of them.

    ``one_by_one``: each workload is verified before the next one runs, as in a session of pytest.
    """
    world = World()
    pair = world.pair = SimPair(config, world.now)
    urls = {server.name: f"sim://{server.name}" for server in pair.servers}
    run = CatalogueRun(pair.facts(urls, "sim://proxy"), pair.ledger)
    run.ran = [entry for entry in entries if not entry.alone and unmet(entry.needs, run.deployment) is None]
    setting = Setting.of(run.deployment, seed=seed, salt="salt")
    scenarios = [entry(setting) for entry in run.ran]
    run.entries.append(RunStarted(0.0, (), seed, "test", None, tuple(entry.name for entry in run.ran)))
    run.entries.append(Decoding(0.0, run.deployment.special_token_ids))
    how = VerifyOptions(
        policy=VerifyPolicy.parse("all"), salt="salt-verification", seed=seed, probe_tiers=not one_by_one
    )
    if background:
        scenarios = [beside_load(scenario, setting, background) for scenario in scenarios]
    transport = SimTransport(pair, world, urls)

    async def read_all(occasion: Occasion) -> Readings:
        return read_pair(pair, world, occasion)

    observer = SettledObserver(read_all, world, run.entries.append)

    async def fire(scenario: Scenario) -> None:
        await run_scenario(scenario, send=transport.send, counters=observer, record=run.entries.append, clock=world)

    async with world:
        for part in [[scenario] for scenario in scenarios] if one_by_one else [scenarios]:
            for scenario in verified(part, run.deployment, lambda: run.history, how):
                await fire(scenario)
        run.entries += [ClientHealth(world.now(), 0.0, 0.0, 0.0, 0.0), RunEnded(world.now())]
    return run
