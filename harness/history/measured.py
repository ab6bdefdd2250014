"""What was measured beside the operations: counters, the client, clocks and noise."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sample:
    """One line of a Prometheus exposition: a family's sample name, its labels and its value."""

    name: str
    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class Scraped:
    """One reading of a server's ``/metrics``, restricted to the engine's own families."""

    at: float
    server: str
    """The server's name: ``prefill-0``, ``decode-0``, …"""
    label: str
    """``before`` or ``after`` the phase."""
    scenario: str
    phase: str
    samples: tuple[Sample, ...]
    settled: bool = True
    """Whether the deployment had settled. Otherwise, counters of this reading are not compared."""
    unsettled_because: str = ""
    declared: tuple[str, ...] = ()
    """Sample names that are declared without a sample: there was no event yet, so their value is 0."""


@dataclass(frozen=True, slots=True)
class ScrapeFailed:
    """A reading that failed. Every check that needs it is ``unknown``."""

    at: float
    server: str
    label: str
    scenario: str
    phase: str
    cause: str


@dataclass(frozen=True, slots=True)
class Sampled:
    """One reading of a server's ``/metrics`` while a load is sent, for reports. Checkers ignore it.

    Counts are those since the server started, summed over its engines. None: the server exposes no such number, or an
    impossible one, or did not answer.
    """

    at: float
    """When the answer had been read, or was given up."""
    server: str
    running: float | None = None
    """Requests being computed."""
    waiting: float | None = None
    """Requests queued or waiting for their KV."""
    kv_usage: float | None = None
    """Share of the block pool that requests hold, 0 to 1; the mean of the server's engines."""
    prompt_tokens: float | None = None
    local_compute: float | None = None
    """Prompt tokens by their source: this and the next two."""
    local_cache_hit: float | None = None
    external_kv_transfer: float | None = None
    generation_tokens: float | None = None
    preemptions: float | None = None
    nixl_bytes: float | None = None
    nixl_transfers: float | None = None
    """Completed reads of KV, one per request and rank."""
    cause: str = ""
    """Why the server could not be read; empty: it answered."""


@dataclass(frozen=True, slots=True)
class ClientHealth:
    """How well the client kept up while it sent the load: a slow client must not be taken for slow servers."""

    at: float
    worst_loop_lag: float
    """Longest delay of the event loop, seconds."""
    worst_send_delay: float
    """Largest ``Sent.at - Sent.intended_at`` that the concurrency limit does not explain, seconds."""
    mean_loop_lag: float | None
    """Mean delay of the event loop, seconds: the average delay with which a token's arrival is recorded. None: not
    measured, as by the first version of the harness."""
    cpu_share: float | None
    """CPU seconds of the harness's process per second; near 1, the client limits the load. None: not
    measured, as by the first version of the harness."""
    worker: str = ""
    """The worker that sent a part of the load; empty: the harness's main process."""
    open_files: int | None = None
    """Most files and sockets that the process had open at a time; None: not known."""
    file_limit: int | None = None
    """Most files and sockets that it may have open; None: no limit."""


@dataclass(frozen=True, slots=True)
class ClockCompared:
    """The clock of a worker that sent a part of a phase, compared with the run's clock by timed round trips.

    The worker's clock was corrected before the phase began. So its times are those of the run's clock, but for
    ``uncertainty`` and ``drift``; its latencies are differences of its own times, and exact.
    """

    at: float
    worker: str
    ahead: float
    """Seconds by which the worker's own clock is ahead of the run's clock; removed from all its times. 0: no difference
    could be measured, as between processes of one machine."""
    uncertainty: float
    """Seconds by which ``ahead`` may be wrong: half of the shortest round trip."""
    drift: float = 0.0
    """Seconds by which the corrected clock was ahead at the end of the phase."""


@dataclass(frozen=True, slots=True)
class NoisyOutput:
    """One control output of an earlier run compared with its teacher forcing; nats, one number per token."""

    regret: tuple[float, ...]
    drift: tuple[float, ...]
    margin_error: tuple[float, ...]
    margin: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class NoiseMeasured:
    """Noise that earlier runs measured with control requests on the same deployment."""

    at: float
    origin: str
    """File, number of outputs and age, for display."""
    outputs: tuple[NoisyOutput, ...]
