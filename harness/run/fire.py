"""Sends scenarios to a deployment over HTTP, and watches its counters and the client meanwhile."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from harness.clock import Clock
from harness.facts import Deployment, Role
from harness.history import Decoding
from harness.load.client import Client
from harness.load.extra_body import shifts
from harness.load.health import LoopLag
from harness.observe.observer import DeploymentObserver
from harness.run.recorder import Recorder
from harness.run.runner import run_scenario
from harness.scenario import Phase, Route, Scenario

OnProgress = Callable[[Scenario, int, int, Phase], None]
"""Called with (scenario, ended, all, phase)."""


@dataclass(frozen=True, slots=True)
class Firing:
    """How requests are sent and counters read."""

    headers: Mapping[str, str] = field(default_factory=dict)
    request_timeout: float = 300.0
    """Seconds."""
    settle_timeout: float = 60.0
    """Seconds."""
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    reference_url: str | None = None


@dataclass(frozen=True, slots=True)
class Watch:
    """Who is told what happens, and by which clock."""

    record: Recorder
    clock: Clock
    on_progress: OnProgress = lambda _scenario, _ended, _all, _phase: None


async def fire(scenarios: Iterable[Scenario], deployment: Deployment, how: Firing, watch: Watch) -> None:
    """Run the scenarios one after another; the history ends with how the client kept up."""
    record, clock = watch.record, watch.clock
    complete = deployment.end_tokens_complete
    record(Decoding(clock.now(), deployment.end_token_ids, shifts(how.extra_body), ends_complete=complete))
    client = Client(
        routes(deployment, how.reference_url),
        model=deployment.model,
        clock=clock,
        timeout=how.request_timeout,
        headers=how.headers,
        extra_body=how.extra_body,
    )
    async with client, aiohttp.ClientSession(headers=how.headers) as scraping, LoopLag(clock) as lag:
        observe = DeploymentObserver(deployment.servers, scraping, clock, record, deadline=how.settle_timeout)
        try:
            for scenario in scenarios:
                await run_scenario(
                    scenario,
                    send=client.send,
                    observe=observe,
                    record=record,
                    clock=clock,
                    on_progress=_bound(watch.on_progress, scenario),
                )
        finally:
            # Also of a run that is interrupted: what it has measured is judged as far as it went.
            record(lag.health(operation.sent for operation in record.history.operations()))


def routes(deployment: Deployment, reference_url: str | None = None) -> dict[Route, list[str]]:
    """The URLs behind each route."""
    decode = [server.url for server in deployment.of(Role.DECODE)]
    return {
        # Where no connector transfers there is no proxy: the decode servers alone are under test.
        Route.PROXY: decode if deployment.proxy_url is None else [deployment.proxy_url],
        Route.PREFILL: [server.url for server in deployment.of(Role.PREFILL)],
        Route.DECODE: decode,
        Route.REFERENCE: [] if reference_url is None else [reference_url],
    }


def _bound(on_progress: OnProgress, scenario: Scenario) -> Callable[[int, int, Phase], None]:
    return lambda ended, total, phase: on_progress(scenario, ended, total, phase)
