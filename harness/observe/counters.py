"""Samples to typed counters, and the difference of two readings. Pure.

Rules:

1. Values are summed over all label sets of a family (engines, ranks); nothing is ever overwritten.
2. ``None`` means that the server has no such family; 0 means that it counted nothing. Only the first is unknown.
3. The offload tier's newer families get their sample with their first event. Until then they stand at 0 when they
   are declared; where they do not exist at all, the older ``kv_offload_total_bytes_total``, which has its samples
   from the start and counts the same bytes, speaks for them.
4. A process that restarted counts from 0 again. Its difference is unknown, not negative.
5. A value that no server can mean is not read at all, and :attr:`Counters.unusable` says why: NaN, infinite, negative,
   too large for a float to count by one, a count that is no whole number, or one label set that stands there twice.
6. Each label set counts by itself: one of several engines that starts again from 0, or is not exposed any more, takes
   from the sum what nobody sees while the others grow. Then the difference is unknown, too. A label set that is new
   counted from 0: some get their sample with their first event.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from harness.history import Sample, Scraped

_LEGACY_LOAD = "offload_load_bytes_legacy"
_LEGACY_STORE = "offload_store_bytes_legacy"


Labels = frozenset[tuple[str, str]]
"""Names and values of one sample's labels."""


@dataclass(frozen=True, slots=True)
class Counters:
    """One server's counters at one moment; tokens, bytes or events, summed over engines and ranks."""

    process_start: float | None = None
    """Seconds since 1970 at which the serving process began."""
    running: float | None = None
    """Requests being computed (gauge)."""
    waiting: float | None = None
    """Requests queued or waiting for their KV (gauge)."""
    kv_usage: float | None = None
    """Share of the block pool held by requests, 0 to 1 per engine (gauge). Cached blocks nobody holds do not count."""
    offload_usage: float | None = None
    """Share of the offload tier pinned by transfers in flight, 0 to 1 per engine (gauge)."""
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
    """Reads that completed: one per request and rank."""
    nixl_descriptors: float | None = None
    nixl_failed_transfers: float | None = None
    """Failed reads, handshakes and notifications together."""
    nixl_failed_notifications: float | None = None
    nixl_expired: float | None = None
    """Requests whose blocks were released because nobody fetched them in time (counted on P)."""
    nixl_after_expiry: float | None = None
    """Notifications for requests already expired: their readers may have read somebody else's blocks."""
    offload_load_bytes: float | None = None
    offload_store_bytes: float | None = None
    offload_load_bytes_legacy: float | None = None
    offload_store_bytes_legacy: float | None = None
    offload_refused: float | None = None
    """Offers of one request in one step that found no room in the tier, so that none of their chunks was stored."""
    recomputed: float | None = None
    """Tokens that were brought or cached, and computed again to sample from; counted by older releases alone."""
    parts: Mapping[str, Mapping[Labels, float]] = field(default_factory=dict)
    """What each field that only grows was summed from, by label set."""
    unusable: Mapping[str, str] = field(default_factory=dict)
    """Fields that are None though the server exposes their family, and what is wrong with its value, in words."""


@dataclass(frozen=True, slots=True)
class _Source:
    sample: str
    labels: tuple[tuple[str, str], ...] = ()

    def read(self, samples: Iterable[Sample], declared: Iterable[str]) -> float | None:
        values = [sample.value for sample in self.of(samples)]
        if values:
            return _integral(sum(values))
        return 0 if self.sample in declared else None

    def of(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        return (sample for sample in samples if sample.name == self.sample and self._matches(sample))

    def _matches(self, sample: Sample) -> bool:
        return all(sample.labels.get(label) == value for label, value in self.labels)


def _by_source(source: str) -> _Source:
    return _Source("vllm:prompt_tokens_by_source_total", (("source", source),))


def _by_direction(direction: str) -> _Source:
    return _Source("vllm:kv_offload_total_bytes_total", (("transfer_type", direction),))


SOURCES: Mapping[str, _Source] = {
    "process_start": _Source("process_start_time_seconds"),
    "running": _Source("vllm:num_requests_running"),
    "waiting": _Source("vllm:num_requests_waiting"),
    "kv_usage": _Source("vllm:kv_cache_usage_perc"),
    "offload_usage": _Source("vllm:kv_offload_cpu_cache_usage_perc"),
    "prompt_tokens": _Source("vllm:prompt_tokens_total"),
    "local_compute": _by_source("local_compute"),
    "local_cache_hit": _by_source("local_cache_hit"),
    "external_kv_transfer": _by_source("external_kv_transfer"),
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
    _LEGACY_LOAD: _by_direction("CPU_to_GPU"),
    _LEGACY_STORE: _by_direction("GPU_to_CPU"),
    "offload_refused": _Source("vllm:kv_offload_allocation_failure_total"),
    "recomputed": _Source("vllm:prompt_tokens_recomputed_total"),
}
SAMPLE_NAMES = frozenset(source.sample for source in SOURCES.values())
"""What a scrape keeps: everything that somebody judges or waits for, and no more."""

GAUGES = frozenset({"process_start", "running", "waiting", "kv_usage", "offload_usage"})
_OLDER = frozenset({"recomputed"})
COUNTED = tuple(name for name in SOURCES if name not in GAUGES | _OLDER)
"""Fields that only ever grow while the process lives, and that vLLM 0.32 exposes."""
_GROWING = (*COUNTED, *sorted(_OLDER))
LARGEST = 2**53
"""Up to here a float, which is what an exposition holds, counts by one."""


def read_counters(scraped: Scraped) -> Counters:
    """The typed counters of one reading."""
    samples = _by_field(scraped.samples)
    unusable = {name: why for name, source in SOURCES.items() if (why := _nonsense(name, source, samples[name]))}
    values = {
        name: None if name in unusable else source.read(samples[name], scraped.declared)
        for name, source in SOURCES.items()
    }
    parts = {name: _parts(SOURCES[name], samples[name]) for name in _GROWING if values[name] is not None}
    for name, legacy in (("offload_load_bytes", _LEGACY_LOAD), ("offload_store_bytes", _LEGACY_STORE)):
        if values[name] is None and name not in unusable:
            values[name] = values[legacy]
            unusable |= {name: unusable[legacy]} if legacy in unusable else {}
    return Counters(**values, parts=parts, unusable=unusable)


def _by_field(samples: Iterable[Sample]) -> Mapping[str, Sequence[Sample]]:
    """For each field the samples of its family, in order: a reading is looked through once, not once a field."""
    families: dict[str, list[Sample]] = {}
    for sample in samples:
        families.setdefault(sample.name, []).append(sample)
    return {name: families.get(source.sample, ()) for name, source in SOURCES.items()}


def _parts(source: _Source, samples: Iterable[Sample]) -> Mapping[Labels, float]:
    return {frozenset(sample.labels.items()): sample.value for sample in source.of(samples)}


def _nonsense(name: str, source: _Source, samples: Iterable[Sample]) -> str:
    """What is wrong with a family's value, in words; empty where it can be used."""
    total, seen = 0.0, list[Mapping[str, str]]()
    for sample in source.of(samples):
        if not math.isfinite(sample.value):
            return f"the server exposes {_spelled(sample.value)} for {source.sample}"
        if sample.value < 0:
            return f"the server exposes a negative value for {source.sample}: {sample.value:,}"
        if name in _GROWING and not float(sample.value).is_integer():
            return f"the server exposes {sample.value:,} for {source.sample}, which counts whole things"
        if sample.labels in seen:
            return f"the server exposes {source.sample} twice with the same labels"
        seen.append(sample.labels)
        total += sample.value
    if total > LARGEST:
        return f"the server exposes {total:.3g} for {source.sample}, too large a number to count by one"
    return ""


def _spelled(value: float) -> str:
    return "NaN" if math.isnan(value) else "an infinite value"


@dataclass(frozen=True, slots=True)
class Delta:
    """By how much each counter grew; every field that only grows is in exactly one of the first two."""

    grown: Mapping[str, float]
    reasons: Mapping[str, str]
    """Why a counter's growth is not known."""
    absent: frozenset[str] = frozenset()
    """Counters of which a server has no family at all."""

    def of(self, name: str) -> float | None:
        """Growth of the counter named, or None: :meth:`why` says why."""
        return self.grown.get(name)

    def why(self, name: str) -> str:
        """Why the growth is not known; empty when it is."""
        return self.reasons.get(name, "")


def unknown_delta(reason: str) -> Delta:
    """Nothing is known, for one reason."""
    return Delta({}, dict.fromkeys(_GROWING, reason))


def delta(before: Counters, after: Counters) -> Delta:
    """What was counted between two readings of one server."""
    if (before.process_start is None) != (after.process_start is None):
        return unknown_delta("when the server's process began was read only once, so it may have restarted in between")
    if before.process_start != after.process_start:
        return unknown_delta("the server's process restarted between the readings, and its counters with it")
    reasons = {name: reason for name in _GROWING if (reason := _why_not(name, before, after))}
    grown = {name: _integral(getattr(after, name) - getattr(before, name)) for name in _GROWING if name not in reasons}
    return Delta(grown, reasons, frozenset(name for name in reasons if _absent(name, after)))


def total(deltas: Iterable[Delta]) -> Delta:
    """The sum over several servers; a counter that one of them does not know is unknown."""
    deltas = tuple(deltas)
    reasons = {name: reason for one in reversed(deltas) for name, reason in one.reasons.items()}
    grown = {name: _integral(sum(one.grown[name] for one in deltas)) for name in _GROWING if name not in reasons}
    return Delta(grown, reasons, frozenset().union(*(one.absent for one in deltas)))


def _absent(name: str, counters: Counters) -> bool:
    return getattr(counters, name) is None and name not in counters.unusable


def _why_not(name: str, before: Counters, after: Counters) -> str:
    family = SOURCES[name].sample
    first, last = getattr(before, name), getattr(after, name)
    nonsense = after.unusable.get(name) or before.unusable.get(name)
    if nonsense:
        return nonsense
    if last is None:
        return f"the server exposes no {family}"
    if first is None:
        return f"{family} was not exposed in the reading before, so where it started is not known"
    if last < first:
        return f"{family} went backwards, from {first:,} to {last:,}"
    return _why_not_parts(family, before.parts.get(name, {}), after.parts.get(name, {}))


def _why_not_parts(family: str, before: Mapping[Labels, float], after: Mapping[Labels, float]) -> str:
    """What hides in a sum that grew (rule 6). What is summed from no samples has no parts."""
    for labels, first in before.items():
        # 0 of a label set that is not there any more is 0 less.
        last = after.get(labels, 0.0)
        if last < first:
            which = ", ".join(f'{name}="{value}"' for name, value in sorted(labels)) or "no label"
            gone = "is not exposed any more" if labels not in after else f"went backwards, from {first:,} to {last:,}"
            return f"{family} of the sample with {which} {gone}"
    return ""


def _integral(value: float) -> float:
    # Tokens and bytes are integers that the exposition writes as floats; exact below 2**53.
    return int(value) if float(value).is_integer() else value
