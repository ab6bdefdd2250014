"""Sends requests to a deployment and reads its counters: over HTTP, unless a caller passes another transport."""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

from harness.clock import Clock
from harness.facts import Deployment, Role
from harness.history import ClientHealth, Entry, Sent
from harness.load.client import Client
from harness.load.health import LoopLag
from harness.observe.monitor import monitoring
from harness.observe.observer import observing
from harness.open_files import raise_file_limit
from harness.run.runner import CounterReader, Sender
from harness.scenario import Route

REQUEST_TIMEOUT = 300.0
"""Seconds from sending a request to the end of its answer, unless the user says otherwise."""
SETTLE_TIMEOUT = 60.0
"""Seconds that the servers may take to settle, unless the user says otherwise."""

METRICS_INTERVAL = 1.0
"""Seconds between two readings of a server's metrics during the load, unless the user says otherwise."""


@dataclass(frozen=True, slots=True)
class Sending:
    """How requests are sent and counters read."""

    headers: Mapping[str, str] = field(default_factory=dict)
    """HTTP headers of every request, also of requests that read counters."""
    request_timeout: float = REQUEST_TIMEOUT
    settle_timeout: float = SETTLE_TIMEOUT
    """Seconds that the servers may take to settle before and after a phase."""
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    """Fields added to every request's body."""
    reference_url: str | None = None
    """Another server for teacher forcing; None: the prefill servers."""
    metrics_interval: float = METRICS_INTERVAL
    """Seconds between two readings of a server's metrics while a load is sent; 0: they are not read then."""
    metrics_urls: Mapping[str, str] = field(default_factory=dict)
    """Where the metrics of a server are read, by its name; those of all others at their own URLs."""


@dataclass(frozen=True, slots=True)
class Transport:
    """Sends requests, reads counters, and measures whether the client kept up."""

    send: Sender
    counters: CounterReader
    health: Callable[[Iterable[Sent]], ClientHealth]
    """Called at the end, with every request of the load that was sent."""
    watching: Callable[[], AbstractAsyncContextManager[object]] = nullcontext
    """What to enter while a load is sent, so that the client's health is measured then."""


@asynccontextmanager
async def over_http(
    deployment: Deployment, sending: Sending, record: Callable[[Entry], None], clock: Clock
) -> AsyncIterator[Transport]:
    """Connections to the deployment's proxy and servers, closed at the end."""
    client = client_of(deployment, sending, clock)
    servers = [replace(one, url=sending.metrics_urls.get(one.name, one.url)) for one in deployment.servers]
    reading = observing(servers, sending.headers, clock, record, deadline=sending.settle_timeout)
    lag = LoopLag(clock)

    @asynccontextmanager
    async def watching() -> AsyncIterator[None]:
        async with lag, monitoring(deployment.servers, sending.headers, clock, record, sending.metrics_interval):
            yield

    async with client, reading as counters:
        yield Transport(client.send, counters, lag.health, watching)


def client_of(deployment: Deployment, sending: Sending, clock: Clock) -> Client:
    """The client that sends to a deployment. The process may have as many connections open as the system lets it."""
    raise_file_limit()
    return Client(
        routes(deployment, sending.reference_url),
        model=deployment.model,
        clock=clock,
        timeout=sending.request_timeout,
        headers=sending.headers,
        extra_body=sending.extra_body,
    )


def routes(deployment: Deployment, reference_url: str | None = None) -> dict[Route, list[str]]:
    """The URLs behind each route."""
    decode = [server.url for server in deployment.of(Role.DECODE)]
    return {
        # Without a connector that transfers KV there is no proxy: requests go to the decode servers.
        Route.PROXY: decode if deployment.proxy_url is None else [deployment.proxy_url],
        Route.PREFILL: [server.url for server in deployment.of(Role.PREFILL)],
        Route.DECODE: decode,
        Route.REFERENCE: [] if reference_url is None else [reference_url],
    }
