"""The Prometheus exposition of one server, with the families, labels and buckets of vLLM 0.32.0.

Samples appear when vLLM's do. NIXL's families and the deprecated offload families have samples from the start, the
newer offload families from their first event, and the offload tier's gauges from the first step. Until then a family is
declared (HELP and TYPE) but empty. With several engine labels, a counter's value is spread over them.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import cache

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.utils import floatToGoString

from harness.facts import Connector
from harness.sim.engine import Engine
from harness.sim.stats import Histogram

Labels = Mapping[str, str]
_TIERS = ("device", "host", "p2p", "disk", "external_unspecified")
_REASONS = ("stop", "length", "abort", "error", "repetition")


class Exposition:
    """A Prometheus collector for one engine."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def render(self) -> bytes:
        """Render all families in Prometheus' text format, exactly as ``generate_latest`` would."""
        return "".join(line for family in self.collect() for line in _lines(family)).encode()

    def collect(self) -> Iterator[Metric]:
        """Yield all families."""
        yield self._gauge("process_start_time_seconds", {}, self.engine.started, plain=True)
        yield self._cache_config()
        yield from self._scheduler()
        yield from self._caches()
        yield from self._tokens()
        if Connector.NIXL in self.engine.config.connectors:
            yield from self._nixl()
        if self.engine.offload:
            yield from self._offload_legacy()
            yield from self._offload()

    # --- families ---

    def _cache_config(self) -> Metric:
        config = self.engine.config
        labels = {
            "block_size": str(config.block_size),
            "num_gpu_blocks": str(config.num_blocks),
            "enable_prefix_caching": str(config.prefix_caching),
            "cache_dtype": "auto",
            "gpu_memory_utilization": "0.9",
            "engine": "0",
        }
        return self._gauge("cache_config_info", labels, 1, bare=True)

    def _scheduler(self) -> Iterator[Metric]:
        scheduler = self.engine.scheduler
        loading, waiting = len(scheduler.loading), len(scheduler.waiting)
        yield self._gauge("num_requests_running", {}, len(scheduler.running))
        yield self._gauge("num_requests_waiting", {}, loading + waiting)
        yield self._labelled(
            "num_requests_waiting_by_reason", "reason", {"capacity": waiting, "deferred": loading}, gauge=True
        )
        yield self._gauge("kv_cache_usage_perc", {}, self.engine.pool.usage)
        yield self._counter("num_preemptions", self.engine.stats.preemptions)

    def _caches(self) -> Iterator[Metric]:
        stats = self.engine.stats
        yield self._counter("prefix_cache_queries", stats.prefix_queries)
        yield self._counter("prefix_cache_hits", stats.prefix_hits)
        yield self._counter("external_prefix_cache_queries", stats.external_queries)
        yield self._counter("external_prefix_cache_hits", stats.external_hits)
        tiers = dict.fromkeys(_TIERS, 0) | {"device": stats.prefix_hits} | stats.external_hits_by_tier
        yield self._labelled("prompt_tokens_cached_by_source", "source", tiers)

    def _tokens(self) -> Iterator[Metric]:
        stats = self.engine.stats
        yield self._counter("prompt_tokens", stats.prompt_tokens)
        sources = {
            "local_compute": stats.local_compute,
            "local_cache_hit": stats.local_cache_hit,
            "external_kv_transfer": stats.external_kv_transfer,
        }
        yield self._labelled("prompt_tokens_by_source", "source", sources)
        yield self._counter("prompt_tokens_cached", stats.local_cache_hit + stats.external_kv_transfer)
        yield self._counter("generation_tokens", stats.generation_tokens)
        success = dict.fromkeys(_REASONS, 0) | {str(reason): n for reason, n in stats.success.items()}
        yield self._labelled("request_success", "finished_reason", success)
        yield self._histogram("time_to_first_token_seconds", stats.time_to_first)
        yield self._histogram("e2e_request_latency_seconds", stats.latency)
        yield self._histogram("request_prompt_tokens", stats.prompt_lengths)
        yield self._histogram("request_generation_tokens", stats.output_lengths)

    def _nixl(self) -> Iterator[Metric]:
        stats = self.engine.stats
        yield self._histogram("nixl_xfer_time_seconds", stats.nixl_time)
        yield self._histogram("nixl_post_time_seconds", stats.nixl_post)
        yield self._histogram("nixl_bytes_transferred", stats.nixl_bytes)
        yield self._histogram("nixl_num_descriptors", stats.nixl_descriptors)
        failed = stats.failed_transfers + stats.failed_handshakes + stats.failed_notifications
        yield self._counter("nixl_num_failed_transfers", failed)
        yield self._counter("nixl_num_failed_notifications", stats.failed_notifications)
        yield self._counter("nixl_num_kv_expired_reqs", stats.expired_requests)
        yield self._counter("nixl_num_notifications_after_expiry", stats.notifications_after_expiry)

    def _offload_legacy(self) -> Iterator[Metric]:
        loads, stores = self.engine.stats.load_sizes, self.engine.stats.store_sizes
        off = self.engine.bugs.legacy_offset
        by_type = {"CPU_to_GPU": int(loads.total), "GPU_to_CPU": int(stores.total) + off}
        yield self._labelled("kv_offload_total_bytes", "transfer_type", by_type)
        times = {"CPU_to_GPU": loads.total / 1e10, "GPU_to_CPU": stores.total / 1e10}
        yield self._labelled("kv_offload_total_time", "transfer_type", times)
        sizes = [({"transfer_type": "CPU_to_GPU"}, loads), ({"transfer_type": "GPU_to_CPU"}, stores)]
        yield self._histograms("kv_offload_size", sizes)

    def _offload(self) -> Iterator[Metric]:
        stats, tier = self.engine.stats, self.engine.offload
        for kind, sizes in (("load", stats.load_sizes), ("store", stats.store_sizes)):
            seen = sizes.count > 0
            yield _when(seen, self._counter(f"kv_offload_{kind}_bytes", sizes.total))
            yield _when(seen, self._counter(f"kv_offload_{kind}_time", sizes.total / 1e10))
            yield _when(seen, self._histogram(f"kv_offload_{kind}_size", sizes))
        yield _when(stats.lookups.count > 0, self._histogram("kv_offload_lookup_sync_delay_seconds", stats.lookups))
        yield _when(stats.allocations.count > 0, self._histogram("kv_offload_cpu_allocation_size", stats.allocations))
        failures = stats.allocation_failures
        yield _when(failures > 0, self._counter("kv_offload_allocation_failure", failures))
        storing, loading = tier.usage if tier else (0.0, 0.0)
        yield _when(stats.stepped, self._gauge("kv_offload_cpu_cache_usage_perc", {}, storing + loading))
        yield _when(stats.stepped, self._gauge("kv_offload_cpu_cache_write_usage_perc", {}, storing))
        yield _when(stats.stepped, self._gauge("kv_offload_cpu_cache_read_usage_perc", {}, loading))

    # --- building blocks ---

    def _name(self, name: str) -> str:
        return self.engine.config.metric_prefix + name

    def _engines(self) -> list[dict[str, str]]:
        config = self.engine.config
        return [{"model_name": config.model, "engine": str(index)} for index in range(config.engine_labels)]

    def _gauge(self, name: str, labels: Labels, value: float, *, plain: bool = False, bare: bool = False) -> Metric:
        full = labels if plain or bare else self._engines()[0] | dict(labels)
        family = GaugeMetricFamily(name if plain else self._name(name), name, labels=list(full))
        family.add_metric(list(full.values()), value)
        return family

    def _counter(self, name: str, value: float) -> Metric:
        return self._labelled(name, None, {"": value})

    def _labelled(self, name: str, label: str | None, values: Mapping[str, float], *, gauge: bool = False) -> Metric:
        kind = GaugeMetricFamily if gauge else CounterMetricFamily
        extra = [label] if label else []
        family = kind(self._name(name), name, labels=["model_name", "engine", *extra])
        engines = self._engines()
        for value_label, value in values.items():
            for engine, part in zip(engines, _spread(value, len(engines)), strict=True):
                family.add_metric([*engine.values(), *([value_label] if label else [])], part)
        return family

    def _histogram(self, name: str, histogram: Histogram) -> Metric:
        return self._histograms(name, [({}, histogram)])

    def _histograms(self, name: str, parts: Iterable[tuple[Labels, Histogram]]) -> Metric:
        parts = list(parts)
        engine = self._engines()[0]
        names = [*engine, *parts[0][0]]
        family = HistogramMetricFamily(self._name(name), name, labels=names)
        for labels, histogram in parts:
            family.add_metric([*engine.values(), *labels.values()], _buckets(histogram), histogram.total)
        return family


def _lines(family: Metric) -> Iterator[str]:
    # A simulated server is read several times around every phase. generate_latest checks and escapes names, which are
    # always the same here; both would cost more than the rest of a reading.
    name = f"{family.name}_total" if family.type == "counter" else family.name
    yield f"# HELP {name} {family.documentation}\n# TYPE {name} {family.type}\n"
    for sample in family.samples:
        value = floatToGoString(sample.value)  # type: ignore[no-untyped-call]  # prometheus_client has no types here
        yield f"{sample.name}{_braced(tuple(sorted(sample.labels.items())))} {value}\n"


@cache
def _braced(labels: tuple[tuple[str, str], ...]) -> str:
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels) + "}" if labels else ""


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _when(seen: bool, family: Metric) -> Metric:
    """Return the family, without its samples unless ``seen``."""
    if not seen:
        family.samples.clear()
    return family


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    running, buckets = 0, []
    for bound, count in zip((*histogram.bounds, float("inf")), histogram.counts, strict=True):
        running += count
        buckets.append(("+Inf" if bound == float("inf") else str(float(bound)), float(running)))
    return buckets


def _spread(value: float, parts: int) -> list[float]:
    """Split a value into nearly equal whole shares that add up to it."""
    if parts == 1:
        return [value]
    share = value // parts
    return [share] * (parts - 1) + [value - share * (parts - 1)]
