"""An engine's counters, and their histograms' bucket bounds; metrics.py exposes them under vLLM's names."""

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field

LATENCY = (0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0)
FIRST_TOKEN = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0)
TOKENS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
XFER_TIME = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 5.0)
XFER_BYTES = tuple(2 ** (10 + i) for i in range(1, 25, 2))
XFER_DESCRIPTORS = (10, 20, 30, 50, 75, 100, 200, 400, 1000, 2000, 4000, 10000, 20000, 50000)
OFFLOAD_BYTES = (1e6, 5e6, 10e6, 20e6, 40e6, 60e6, 80e6, 100e6, 150e6, 200e6)
LOOKUP_TIME = (0.00001, 0.00005, 0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0)
CHUNKS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144)


class Histogram:
    """A histogram of observations, as Prometheus has them."""

    __slots__ = ("bounds", "count", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0
        self.count = 0

    def observe(self, value: float) -> None:
        """Count one observation."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value
        self.count += 1


@dataclass(slots=True)
class ServerStats:
    """Counters since the server started."""

    prefix_queries: int = 0
    prefix_hits: int = 0
    external_queries: int = 0
    external_hits: int = 0
    external_hits_by_tier: Counter[str] = field(default_factory=Counter)
    prompt_tokens: int = 0
    local_compute: int = 0
    local_cache_hit: int = 0
    external_kv_transfer: int = 0
    generation_tokens: int = 0
    preemptions: int = 0
    success: Counter[str] = field(default_factory=Counter)
    failed_transfers: int = 0
    failed_handshakes: int = 0
    failed_notifications: int = 0
    expired_requests: int = 0
    notifications_after_expiry: int = 0
    nixl_bytes: Histogram = field(default_factory=lambda: Histogram(XFER_BYTES))
    nixl_time: Histogram = field(default_factory=lambda: Histogram(XFER_TIME))
    nixl_post: Histogram = field(default_factory=lambda: Histogram((0.001, *XFER_TIME)))
    nixl_descriptors: Histogram = field(default_factory=lambda: Histogram(XFER_DESCRIPTORS))
    load_sizes: Histogram = field(default_factory=lambda: Histogram(OFFLOAD_BYTES))
    store_sizes: Histogram = field(default_factory=lambda: Histogram(OFFLOAD_BYTES))
    lookups: Histogram = field(default_factory=lambda: Histogram(LOOKUP_TIME))
    allocations: Histogram = field(default_factory=lambda: Histogram(CHUNKS))
    allocation_failures: int = 0
    stepped: bool = False
    """Whether the engine has made a step; the tier's gauges are exposed only from then on."""
    time_to_first: Histogram = field(default_factory=lambda: Histogram(FIRST_TOKEN))
    latency: Histogram = field(default_factory=lambda: Histogram(LATENCY))
    prompt_lengths: Histogram = field(default_factory=lambda: Histogram(TOKENS))
    output_lengths: Histogram = field(default_factory=lambda: Histogram(TOKENS))
