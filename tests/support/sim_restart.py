"""A run on the simulated pair in the middle of which one server is killed and started again."""

from collections.abc import Sequence
from dataclasses import replace

from sim_history import SimRun, load

from harness.facts import Connector, Deployment
from harness.faults import under_faults
from harness.faults.restarting import RESTARTING
from harness.history import Ended, Ending, FaultBegan, FaultHealed, FaultPlanned, FaultProved, History, Outcome, Sent
from harness.observe.scrape import Occasion
from harness.scenario import Phase, Request
from harness.selftest.readings import read_pair
from harness.selftest.world import World
from harness.sim import SimConfig, SimPair, SimServer
from harness.sim.config import PlantedBug
from harness.sim.fabric import SharedMemory
from harness.sim.ledger import Ledger

_TICK = 1e-3
CONNECTORS = (Connector.NIXL, Connector.OFFLOADING)


class RestartedRun:
    """Requests before the restart, while the server is down, and after it; then the final reads.

    ``bugs``: names of bugs that the server has after its restart.
    """

    def __init__(self, killed: str, *bugs: str, seed: int = 0, blocks: int = 400) -> None:
        self._killed, self._time = killed, 1.0
        config = SimConfig(connectors=CONNECTORS, num_blocks=blocks, offload_chunks=1000)
        self._fabric = SharedMemory()
        pair = SimPair(config, lambda: self._time)
        pair.servers[:] = [self._server(config, one, 1) for one in pair.servers]
        self._run = SimRun(pair, tick=_TICK)
        self.facts = pair.facts({one.name: f"sim://{one.name}" for one in pair.servers}, "sim://proxy")
        scenario = under_faults(load(60, seed=seed, at_once=8), self.facts)
        self._scenario = scenario.name
        loaded, *final = scenario.phases
        self._load(loaded, tuple(PlantedBug(name) for name in bugs))
        for phase in final:
            self._final(phase)

    @property
    def history(self) -> History:
        return self._run.history

    def _server(self, config: SimConfig, like: SimServer, start: int) -> SimServer:
        return SimServer(
            like.name,
            like.role,
            config,
            lambda: self._time,
            fabric=self._fabric,
            ledger=Ledger(),
            engine_id=f"{like.name}-engine-{start}",
        )

    def _load(self, phase: Phase, bugs: Sequence[PlantedBug]) -> None:
        early, down, late = (phase.requests[start::3] for start in range(3))
        self._read(phase, "before")
        self._send(phase, early)
        self._kill(phase)
        self._refuse(phase, down)
        self._restart(bugs)
        # What was sent early is asked again: its blocks are gone.
        self._send(phase, (*late, *(replace(one, request_id=f"{one.request_id}-again") for one in early)))
        self._read(phase, "after")

    def _kill(self, phase: Phase) -> None:
        what = f"kill {self._killed}"
        planned = FaultPlanned(0.0, "kill-1", "kill", self._killed, what, RESTARTING, self._scenario, phase.name)
        self._run.entries += [planned, FaultBegan(self._now, "kill-1"), FaultProved(self._now, "kill-1", "it ended")]

    def _restart(self, bugs: Sequence[PlantedBug]) -> None:
        self._time = 2.0
        servers = self._run.pair.servers
        [index] = [index for index, one in enumerate(servers) if one.name == self._killed]
        servers[index] = self._server(replace(self._run.pair.config, bugs=tuple(bugs)), servers[index], 2)
        self._run.entries.append(FaultHealed(self._now, "kill-1", healed=True, text="it answers"))

    def _refuse(self, phase: Phase, requests: Sequence[Request]) -> None:
        for one in requests:
            cause = f"HTTP 502: the server {self._killed} cannot be reached"
            self._run.entries += [
                Sent(self._now, one, self._scenario, phase.name, self._now),
                Ended(self._now, one.request_id, Outcome.INFO, cause, status=502, ending=Ending.REFUSED),
            ]

    def _final(self, phase: Phase) -> None:
        if phase.counted:
            self._read(phase, "before")
        self._send(phase, phase.requests)
        if phase.counted:
            self._read(phase, "after")

    def _send(self, phase: Phase, requests: Sequence[Request]) -> None:
        for start in range(0, len(requests), phase.concurrency):
            self._run._batch(self._scenario, phase.name, tuple(requests[start : start + phase.concurrency]))

    def _read(self, phase: Phase, label: str) -> None:
        world = World(self._run.pair, time=self._now)
        occasion = Occasion(self._scenario, phase.name, label)
        self._run.entries += read_pair(self._run.pair, world, occasion).values()

    @property
    def _now(self) -> float:
        return len(self._run.entries) * _TICK


def deployment_of(run: RestartedRun) -> Deployment:
    """The facts, as the harness has them of servers and a proxy that it launched."""
    return replace(run.facts, own_proxy=True)
