"""Turns samples into typed counters. Does no I/O.

Rules:

1. The values of all label sets of a family (engines, ranks) are summed.
2. ``None`` means that the server has no such family: the value is unknown. 0 means that the server counted nothing.
3. The offload tier's newer families get a sample with their first event. Until then they count as 0 if they are
   declared. If they do not exist at all, the older ``kv_offload_total_bytes_total`` is read instead, which counts the
   same bytes and has samples from the start.
4. An impossible value is not read, and :attr:`Counters.unusable` says why. Impossible are NaN, infinity, a negative
   value, a value too large for a float to count by one, a count that is not whole, and a label set that occurs twice.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from harness.history import Sample, Scraped

_LEGACY_LOAD = "offload_load_bytes_legacy"
_LEGACY_STORE = "offload_store_bytes_legacy"

Labels = frozenset[tuple[str, str]]
"""Names and values of a sample's labels."""


@dataclass(frozen=True, slots=True)
class Counters:
    """One server's counters at one moment; tokens, bytes or events, summed over engines and ranks."""

    process_start: float | None = None
    """When the serving process started, in seconds since 1970."""
    running: float | None = None
    """Requests being computed (gauge)."""
    waiting: float | None = None
    """Requests queued or waiting for their KV (gauge)."""
    kv_usage: float | None = None
    """Share of the block pool that requests hold, 0 to 1 per engine (gauge); merely cached blocks do not count."""
    offload_usage: float | None = None
    """Share of the offload tier that transfers in flight pin, 0 to 1 per engine (gauge)."""
    prompt_tokens: float | None = None
    local_compute: float | None = None
    local_cache_hit: float | None = None
    external_kv_transfer: float | None = None
    generation_tokens: float | None = None
    prefix_queries: float | None = None
    prefix_hits: float | None = None
    external_queries: float | None = None
    external_hits: float | None = None
    preemptions: float | None = None
    nixl_bytes: float | None = None
    nixl_transfers: float | None = None
    """Completed reads, one per request and rank."""
    nixl_descriptors: float | None = None
    nixl_failed_transfers: float | None = None
    """Failed reads, handshakes and notifications together."""
    nixl_failed_notifications: float | None = None
    nixl_expired: float | None = None
    """Requests whose blocks P released because no decode server read them in time (counted on P)."""
    nixl_after_expiry: float | None = None
    """Notifications for expired requests; their decode servers may have read other requests' blocks."""
    offload_load_bytes: float | None = None
    offload_store_bytes: float | None = None
    offload_load_bytes_legacy: float | None = None
    offload_store_bytes_legacy: float | None = None
    offload_refused: float | None = None
    """Offers (of one request in one step) that were not stored because the tier had no room for them."""
    recomputed: float | None = None
    """Tokens that were transferred or cached and computed again for sampling; only older releases count them."""
    parts: Mapping[str, Mapping[Labels, float]] = field(default_factory=dict)
    """For each field that only grows, the summed values by label set."""
    unusable: Mapping[str, str] = field(default_factory=dict)
    """Why a field is None although the server exposes its family."""


@dataclass(frozen=True, slots=True)
class _Source:
    sample: str
    labels: tuple[tuple[str, str], ...] = ()

    def read(self, samples: Iterable[Sample], declared: Iterable[str]) -> float | None:
        values = [sample.value for sample in self.of(samples)]
        if values:
            return integral(sum(values))
        return 0 if self.sample in declared else None

    def of(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        return (sample for sample in samples if sample.name == self.sample and self._matches(sample))

    def _matches(self, sample: Sample) -> bool:
        return all(sample.labels.get(label) == value for label, value in self.labels)


_BY_SOURCE, _BY_DIRECTION = "vllm:prompt_tokens_by_source_total", "vllm:kv_offload_total_bytes_total"
SOURCES: Mapping[str, _Source] = {
    "process_start": _Source("process_start_time_seconds"),
    "running": _Source("vllm:num_requests_running"),
    "waiting": _Source("vllm:num_requests_waiting"),
    "kv_usage": _Source("vllm:kv_cache_usage_perc"),
    "offload_usage": _Source("vllm:kv_offload_cpu_cache_usage_perc"),
    "prompt_tokens": _Source("vllm:prompt_tokens_total"),
    "local_compute": _Source(_BY_SOURCE, (("source", "local_compute"),)),
    "local_cache_hit": _Source(_BY_SOURCE, (("source", "local_cache_hit"),)),
    "external_kv_transfer": _Source(_BY_SOURCE, (("source", "external_kv_transfer"),)),
    "generation_tokens": _Source("vllm:generation_tokens_total"),
    "prefix_queries": _Source("vllm:prefix_cache_queries_total"),
    "prefix_hits": _Source("vllm:prefix_cache_hits_total"),
    "external_queries": _Source("vllm:external_prefix_cache_queries_total"),
    "external_hits": _Source("vllm:external_prefix_cache_hits_total"),
    "preemptions": _Source("vllm:num_preemptions_total"),
    "nixl_bytes": _Source("vllm:nixl_bytes_transferred_sum"),
    "nixl_transfers": _Source("vllm:nixl_bytes_transferred_count"),
    "nixl_descriptors": _Source("vllm:nixl_num_descriptors_sum"),
    "nixl_failed_transfers": _Source("vllm:nixl_num_failed_transfers_total"),
    "nixl_failed_notifications": _Source("vllm:nixl_num_failed_notifications_total"),
    "nixl_expired": _Source("vllm:nixl_num_kv_expired_reqs_total"),
    "nixl_after_expiry": _Source("vllm:nixl_num_notifications_after_expiry_total"),
    "offload_load_bytes": _Source("vllm:kv_offload_load_bytes_total"),
    "offload_store_bytes": _Source("vllm:kv_offload_store_bytes_total"),
    _LEGACY_LOAD: _Source(_BY_DIRECTION, (("transfer_type", "CPU_to_GPU"),)),
    _LEGACY_STORE: _Source(_BY_DIRECTION, (("transfer_type", "GPU_to_CPU"),)),
    "offload_refused": _Source("vllm:kv_offload_allocation_failure_total"),
    "recomputed": _Source("vllm:prompt_tokens_recomputed_total"),
}
TRANSFER_SECONDS = "vllm:nixl_xfer_time_seconds_sum"
"""How long NIXL's transfers took. Not judged: ``bench.nixl_ceiling`` reads it from stored runs."""
SAMPLE_NAMES = frozenset(source.sample for source in SOURCES.values()) | {TRANSFER_SECONDS}
"""Names of the samples that a scrape keeps: all that the harness uses."""

GAUGES = frozenset({"process_start", "running", "waiting", "kv_usage", "offload_usage"})
_OLDER = frozenset({"recomputed"})
COUNTED = tuple(name for name in SOURCES if name not in GAUGES | _OLDER)
"""Fields that only grow while the process lives, and that vLLM 0.32 exposes."""
GROWING = (*COUNTED, *sorted(_OLDER))
LARGEST = 2**53
"""Up to this value, a float can count by one; expositions hold floats."""


def read_counters(scraped: Scraped) -> Counters:
    """Turn one reading into typed counters."""
    samples = _by_field(scraped.samples)
    unusable = {name: why for name, source in SOURCES.items() if (why := _why_unusable(name, source, samples[name]))}
    values = {
        name: None if name in unusable else source.read(samples[name], scraped.declared)
        for name, source in SOURCES.items()
    }
    parts = {name: _parts(SOURCES[name], samples[name]) for name in GROWING if values[name] is not None}
    for name, legacy in (("offload_load_bytes", _LEGACY_LOAD), ("offload_store_bytes", _LEGACY_STORE)):
        if values[name] is None and name not in unusable:
            values[name] = values[legacy]
            unusable |= {name: unusable[legacy]} if legacy in unusable else {}
    return Counters(**values, parts=parts, unusable=unusable)


def _by_field(samples: Iterable[Sample]) -> Mapping[str, Sequence[Sample]]:
    """Group the samples by field, in their order; one pass over a reading is faster than one per field."""
    families: dict[str, list[Sample]] = {}
    for sample in samples:
        families.setdefault(sample.name, []).append(sample)
    return {name: families.get(source.sample, ()) for name, source in SOURCES.items()}


def _parts(source: _Source, samples: Iterable[Sample]) -> Mapping[Labels, float]:
    return {frozenset(sample.labels.items()): sample.value for sample in source.of(samples)}


def _why_unusable(name: str, source: _Source, samples: Iterable[Sample]) -> str:
    """Say what is wrong with a family's value; empty if the value can be used."""
    total, seen = 0.0, set[Labels]()
    for sample in source.of(samples):
        if not math.isfinite(sample.value):
            value = "NaN" if math.isnan(sample.value) else "an infinite value"
            return f"the server exposes {value} for {source.sample}"
        if sample.value < 0:
            return f"the server exposes a negative value for {source.sample}: {sample.value:,}"
        if name in GROWING and not float(sample.value).is_integer():
            return f"the server exposes {sample.value:,} for {source.sample}, which must be a whole number"
        labels = frozenset(sample.labels.items())
        if labels in seen:
            return f"the server exposes {source.sample} twice with the same labels"
        seen.add(labels)
        total += sample.value
    if total > LARGEST:
        return f"the server exposes {total:.3g} for {source.sample}, which is too large for an exact count"
    return ""


def integral(value: float) -> float:
    """The value, as an integer if it is whole."""
    # An exposition writes whole tokens and bytes as floats, which are exact below 2**53.
    return int(value) if float(value).is_integer() else value
