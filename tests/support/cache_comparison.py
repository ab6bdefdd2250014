"""Serves random sequences on a real deployment, and compares every counter with the prediction."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import aiohttp
from cache_sequences import Author

from harness.checkers.gathering import gather
from harness.clock import MonotonicClock
from harness.facts import Deployment, Role
from harness.history import Entry, History, RunEnded
from harness.load.client import Client
from harness.models import read_model
from harness.observe import server_info
from harness.observe.counters import COUNTED
from harness.observe.observer import DeploymentObserver
from harness.oracle import PREDICTED
from harness.run.runner import run_scenario
from harness.scenario import Phase, Route, Scenario
from harness.verdict import Comparison, Verdict

LOADS = (("alone", 0.06, 1), ("few", 0.24, 4), ("many", 0.30, 16), ("crowd", 0.40, 32))
"""Phases: name, share of the requests, concurrency."""


@dataclass(frozen=True)
class Compared:
    """A run and the comparisons of its counters."""

    deployment: Deployment
    history: History
    comparisons: tuple[Comparison, ...]
    excused: Mapping[tuple[str, str], Mapping[str, float]]
    """Preemptions and refused stores by (phase, server); the prediction does not include their effects."""

    @property
    def exact(self) -> int:
        """Comparisons with one right value."""
        return sum(1 for one in self.comparisons if one.expected is not None and one.expected.exact)

    @property
    def wrong(self) -> list[Comparison]:
        """Comparisons that do not hold, or could not be made."""
        return [one for one in self.comparisons if one.verdict is not Verdict.VALID]

    @property
    def unsettled(self) -> int:
        """Operations that did not end OK."""
        return sum(1 for operation in self.history.operations() if operation.outcome != "ok")

    def table(self) -> str:
        """A line of totals, and a line for each wrong comparison."""
        bounded = len(self.comparisons) - self.exact
        lines = [f"{len(self.comparisons)} counters: {self.exact} exact, {bounded} bounds, {len(self.wrong)} wrong"]
        lines += [f"{one.phase} {one.server} {one.counter}: {one.observed} not {one.expected}" for one in self.wrong]
        return "\n".join(lines)


async def learn(facts: Mapping[str, Any]) -> Deployment:
    """The deployment of ``serve``, with the facts that an attaching run learns."""
    async with aiohttp.ClientSession() as session:
        learned = await server_info.learn(
            session, prefill_urls=facts["prefill_urls"], decode_urls=facts["decode_urls"], proxy_url=facts["base_url"]
        )
    deployment = learned.deployment
    model = read_model(str(deployment.model_path), kv_dtype=deployment.servers[0].kv_dtype)
    return replace(deployment, geometry=model.geometry, vocab_size=model.vocab_size)


async def compare(deployment: Deployment, *, seed: int, requests: int) -> Compared:
    """Serve a random sequence, and compare."""
    clock, entries = MonotonicClock(), list[Entry]()
    scenario = Scenario(
        "cache_model", "Every counter, for requests that meet in the caches.", _phases(deployment, seed, requests)
    )
    client = Client(_routes(deployment), model=deployment.model, clock=clock, timeout=120.0)
    async with client, aiohttp.ClientSession() as scraping:
        observer = DeploymentObserver(deployment.servers, scraping, clock, entries.append)
        await run_scenario(scenario, send=client.send, counters=observer, record=entries.append, clock=clock)
    entries.append(RunEnded(clock.now()))
    return judged(deployment, History(tuple(entries)))


def judged(deployment: Deployment, history: History) -> Compared:
    """A history's counters, compared with their predictions."""
    evidence = gather(deployment, history)
    excused = {
        (one.phase, one.server): {name: one.delta.of(name) or 0 for name in ("preemptions", "offload_refused")}
        for one in evidence
    }
    comparisons = tuple(
        one.compare(counter)
        for one in evidence
        for counter in PREDICTED
        if counter in COUNTED and not _excused(counter, excused[one.phase, one.server])
    )
    return Compared(deployment, history, comparisons, excused)


def _excused(counter: str, grown: Mapping[str, float]) -> bool:
    refused = counter.startswith("offload") and grown["offload_refused"]
    return bool(refused or (counter == "offload_load_bytes" and grown["preemptions"]))


def _phases(deployment: Deployment, seed: int, requests: int) -> tuple[Phase, ...]:
    size = max(server.block_size or 1 for server in deployment.servers)
    run = f"{time.time_ns():x}"
    assert deployment.vocab_size is not None
    author = Author(
        seed,
        size,
        range(300, deployment.vocab_size),
        salts=(f"{run}-a", f"{run}-a", f"{run}-a", f"{run}-b"),
        choices=False,
    )
    return tuple(author.phase(name, round(share * requests), concurrency) for name, share, concurrency in LOADS)


def _routes(deployment: Deployment) -> dict[Route, list[str]]:
    return {
        Route.PROXY: [str(deployment.proxy_url)],
        Route.PREFILL: [server.url for server in deployment.of(Role.PREFILL)],
        Route.DECODE: [server.url for server in deployment.of(Role.DECODE)],
    }
