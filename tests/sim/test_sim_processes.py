"""Simulated servers with a process each: one is killed under load, and started again."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import aiohttp
import pytest

from harness.clock import MonotonicClock
from harness.deploy import Session, Surroundings, open_session
from harness.deploy.target import Target
from harness.faults import FaultPlan, Nemesis, NoEvidence, Site, under_faults
from harness.faults.health import answers, url_of
from harness.faults.proc import STOPPED
from harness.faults.targets import running_pids
from harness.history import Ended, Outcome, Tolerated
from harness.loads import RandomLoad, Steady
from harness.observe.exposition import parse
from harness.reports.assertion import explain
from harness.run import Carried, Recorder, Sending, carry_out, run_started_now
from harness.run.runner import PhaseRun, load_here
from harness.scenario import Request
from harness.verdict import Verdict
from harness.verify.asking import VerifyOptions, VerifyPolicy

pytestmark = pytest.mark.slow
START = "process_start_time_seconds"


@asynccontextmanager
async def opened(directory: Path) -> AsyncIterator[Session]:
    # The pair has settled when the leases of killed requests have ended, 30 s later by default.
    target = Target(engine="sim", separate_processes=True, nixl_config={"kv_lease_duration": 6})
    async with open_session(target, Surroundings(directory, MonotonicClock())) as session:
        yield session


async def started(session: Session, name: str) -> float:
    url = next(server.url for server in session.deployment.servers if server.name == name)
    async with aiohttp.ClientSession() as client, client.get(f"{url}/metrics") as response:
        (sample,) = parse(await response.text(), {START}).samples
    return sample.value


async def test_each_server_is_a_process_that_shows_when_it_began(tmp_path: Path) -> None:
    async with opened(tmp_path) as session:
        nursery = session.nursery
        assert nursery.names() == ("prefill-0", "decode-0", "proxy")
        before = {name: nursery.pids(name) for name in nursery.names()}
        assert all(len(pids) == 1 for pids in before.values())
        times = [await started(session, name) for name in ("prefill-0", "decode-0")]
        await nursery.restart("prefill-0")
        after = {name: nursery.pids(name) for name in nursery.names()}
        assert [name for name in before if before[name] != after[name]] == ["prefill-0"]
        assert await started(session, "prefill-0") > times[0]
        assert await started(session, "decode-0") == times[1]


@dataclass
class KilledByHand:
    """SIGKILL to a server's process while requests are in flight, and a restart. Clients send nothing in between."""

    server: str
    kind: ClassVar[str] = "killed-by-hand"
    text: str = "kill it"
    tolerates: tuple[Tolerated, ...] = (
        *(Tolerated.ERRORS, Tolerated.RESTART, Tolerated.FAILED_TRANSFERS, Tolerated.UNREAD_METRICS),
    )
    killed: list[int] = field(default_factory=list)
    sent: int = 0
    """Requests of the phase that were sent."""
    sent_before: int = 0
    """Those that were sent before the server was killed."""
    runs: asyncio.Event = field(default_factory=asyncio.Event)

    def __copy__(self) -> "KilledByHand":
        """Itself: the test reads what it counted. It is struck once."""
        return self

    @property
    def target(self) -> str:
        return self.server

    async def strike(self, site: Site) -> str:
        assert await site.until(lambda: self.sent >= 20)
        self.killed += running_pids(site, self.server)
        self._signal(signal.SIGSTOP)
        assert await site.until(lambda: all(site.table.state(pid) == STOPPED for pid in self.killed))
        # A request that is sent now needs the stopped server: one at least is in flight when it is killed.
        sent = self.sent
        assert await site.until(lambda: self.sent > sent)
        self.runs.clear()
        self.sent_before = self.sent
        self._signal(signal.SIGKILL)
        if not await site.until(lambda: not running_pids(site, self.server)):
            raise NoEvidence("it still runs")
        if await answers(url_of(site, self.server)):
            raise NoEvidence("it still answers")
        return "it has ended"

    def _signal(self, number: signal.Signals) -> None:
        for pid in self.killed:
            os.kill(pid, number)

    async def heal(self, site: Site) -> str:
        assert site.processes is not None
        await site.processes.restart(self.server)
        self.runs.set()
        return "it answers"

    async def load(self, run: PhaseRun) -> None:
        """Send the phase's requests; those that are due while the server is down wait."""

        async def send(request: Request) -> Ended:
            await self.runs.wait()
            self.sent += 1
            return await whole(request)

        whole, run.send, self.sent = run.send, send, 0
        self.runs.set()
        await load_here(run)


async def under(fault: KilledByHand, session: Session) -> Carried:
    clock, record = MonotonicClock(), Recorder()
    record(run_started_now((), seed=0, names=("random_load",)))
    load = RandomLoad(num_prompts=60, concurrency=None, arrival=Steady(20.0), input_len=(20, 120), ignore_eos=True)
    nemesis = Nemesis([FaultPlan(fault, 0.0, 0.0)], Site(session.deployment, clock, session.nursery), record)
    return await carry_out(
        [under_faults(load.scenario(session.deployment, "salt"), session.deployment)],
        session.deployment,
        sending=Sending(),
        verify=VerifyOptions(policy=VerifyPolicy.parse("all"), salt="verification", probe_tiers=True),
        record=record,
        clock=clock,
        load=nemesis.beside(fault.load),
    )


@pytest.mark.parametrize("server", ["prefill-0", "decode-0"])
async def test_a_server_that_is_killed_fails_requests_clearly_and_the_pair_recovers(
    tmp_path: Path, server: str
) -> None:
    async with opened(tmp_path) as session:
        fault = KilledByHand(server)
        carried = await under(fault, session)
        assert len(fault.killed) == 1
    operations = carried.history.operations(phase="load")
    failed = [one for one in operations if one.outcome is not Outcome.OK]
    assert 0 < len(failed) <= fault.sent_before
    assert len(operations) == 60
    judgement = carried.judgement
    assert judgement.verdict is Verdict.VALID, explain("a killed server", judgement)
    assert judgement.outputs.exact + judgement.outputs.tie == judgement.outputs.requests > 240
