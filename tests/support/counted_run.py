"""A run of two prompts through a pair, with counters written by hand; tests change details of it.

Blocks of 64 tokens, 64,000 bytes each: 5 layers x 64 tokens x 5 heads x (10 + 10) elements x 2 bytes. Prompts of
100 and 128 tokens, 5 output tokens each:

P computes 228 tokens. D receives 228 in 2 + 2 blocks. Both store 1 + 2 chunks of 64 tokens.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from harness.facts import Connector, Deployment, KVGeometry, Role, Server
from harness.history import (
    Choice,
    ClientHealth,
    Ended,
    Entry,
    History,
    Outcome,
    RunEnded,
    Scraped,
    Sent,
    TokenLogprob,
    Usage,
)
from harness.observe.counters import SAMPLE_NAMES
from harness.observe.exposition import parse
from harness.scenario import Purpose, Request, Route, Sampling

BLOCK = 64_000
GEOMETRY = KVGeometry(layers=5, kv_heads=5, head_size=10, head_size_v=10, dtype_bytes=2)
DEPLOYMENT = Deployment(
    servers=(
        Server("prefill-0", Role.PREFILL, "http://p", 64, 100, prefix_caching=True, version="0.32.0"),
        Server("decode-0", Role.DECODE, "http://d", 64, 100, prefix_caching=True, version="0.32.0"),
    ),
    proxy_url="http://proxy",
    model="canary",
    geometry=GEOMETRY,
    launched=True,
).with_servers(
    connectors=(Connector.NIXL, Connector.OFFLOADING), offload_block_size=64, offload_prompt_only=True, lease=30.0
)
ENGINE = 'engine="0",model_name="canary"'
NAMES = {
    "running": f"vllm:num_requests_running{{{ENGINE}}}",
    "waiting": f"vllm:num_requests_waiting{{{ENGINE}}}",
    "kv_usage": f"vllm:kv_cache_usage_perc{{{ENGINE}}}",
    "pinned": f"vllm:kv_offload_cpu_cache_usage_perc{{{ENGINE}}}",
    "prompt": f"vllm:prompt_tokens_total{{{ENGINE}}}",
    "compute": f'vllm:prompt_tokens_by_source_total{{{ENGINE},source="local_compute"}}',
    "hit": f'vllm:prompt_tokens_by_source_total{{{ENGINE},source="local_cache_hit"}}',
    "external": f'vllm:prompt_tokens_by_source_total{{{ENGINE},source="external_kv_transfer"}}',
    "generated": f"vllm:generation_tokens_total{{{ENGINE}}}",
    "prefix_queries": f"vllm:prefix_cache_queries_total{{{ENGINE}}}",
    "prefix_hits": f"vllm:prefix_cache_hits_total{{{ENGINE}}}",
    "external_queries": f"vllm:external_prefix_cache_queries_total{{{ENGINE}}}",
    "external_hits": f"vllm:external_prefix_cache_hits_total{{{ENGINE}}}",
    "preemptions": f"vllm:num_preemptions_total{{{ENGINE}}}",
    "nixl": f"vllm:nixl_bytes_transferred_sum{{{ENGINE}}}",
    "reads": f"vllm:nixl_bytes_transferred_count{{{ENGINE}}}",
    "failed": f"vllm:nixl_num_failed_transfers_total{{{ENGINE}}}",
    "expired": f"vllm:nixl_num_kv_expired_reqs_total{{{ENGINE}}}",
    "late": f"vllm:nixl_num_notifications_after_expiry_total{{{ENGINE}}}",
    "load": f"vllm:kv_offload_load_bytes_total{{{ENGINE}}}",
    "store": f"vllm:kv_offload_store_bytes_total{{{ENGINE}}}",
    "load_legacy": f'vllm:kv_offload_total_bytes_total{{{ENGINE},transfer_type="CPU_to_GPU"}}',
    "store_legacy": f'vllm:kv_offload_total_bytes_total{{{ENGINE},transfer_type="GPU_to_CPU"}}',
    "refused": f"vllm:kv_offload_allocation_failure_total{{{ENGINE}}}",
    "started": "process_start_time_seconds",
}
ZERO: dict[str, float] = dict.fromkeys(NAMES, 0.0) | {"started": 1.7e9}
PREFILL = ZERO | {
    "prompt": 228,
    "compute": 228,
    "generated": 2,
    "prefix_queries": 228,
    "external_queries": 228,
    "store": 3 * BLOCK,
    "store_legacy": 3 * BLOCK,
}
DECODE = ZERO | {
    "prompt": 228,
    "external": 228,
    "generated": 10,
    "prefix_queries": 228,
    "external_queries": 228,
    "external_hits": 228,
    "nixl": 4 * BLOCK,
    "reads": 2,
    "store": 3 * BLOCK,
    "store_legacy": 3 * BLOCK,
}
PROMPTS = (tuple(range(1000, 1100)), tuple(range(2000, 2128)))
OUTPUT = (7, 8, 9, 10, 11)
AFTER = 100.0
"""When the readings after the phase were taken, in seconds: later than any lease of the run's blocks."""


def text(values: Mapping[str, float], prefix: str = "") -> str:
    """An exposition with these samples."""
    return "".join(f"{prefix if name != 'started' else ''}{NAMES[name]} {value}\n" for name, value in values.items())


def reading(server: str, label: str, values: Mapping[str, float], **fields: Any) -> Scraped:
    """One server's reading around the phase ``load``."""
    exposition = parse(text(values), SAMPLE_NAMES)
    at = 0.0 if label == "before" else AFTER
    return Scraped(at, server, label, "cold", "load", exposition.samples, **fields)


def operation(request: Request, phase: str = "load", **ended: Any) -> tuple[Sent, Ended]:
    """A completed request, with ``ended`` as changed fields of its end; other phases come after the load."""
    at = 1.0 if phase == "load" else 3.0
    tokens = len(request.prompt)
    margins = tuple(TokenLogprob(token, -0.1, -0.9) for token in OUTPUT)
    answer: dict[str, Any] = {
        "outcome": Outcome.OK,
        "status": 200,
        "choices": (Choice(OUTPUT, logprobs=margins),),
        "usage": Usage(tokens, len(OUTPUT)),
        "token_times": tuple(at + 0.1 * place for place in range(1, len(OUTPUT) + 1)) if request.stream else (),
        "tokens_per_chunk": (1,) * len(OUTPUT) if request.stream else (),
    } | ended
    return Sent(at, request, "cold", phase, at), Ended(at + 1.0, request.request_id, **answer)


def request(index: int, **fields: Any) -> Request:
    """A request for the run's prompt of this index, through the proxy."""
    return Request(f"r{index}", PROMPTS[index], Sampling(max_tokens=5), **fields)


def reference(index: int, **ended: Any) -> tuple[Sent, Ended]:
    """The same prompt on P without transfer, in a phase of its own."""
    asked = replace(
        request(index), request_id=f"ref{index}", route=Route.PREFILL, purpose=Purpose.REFERENCE, about=f"r{index}"
    )
    return operation(asked, "reference", **ended)


def readings(prefill: Mapping[str, float] = PREFILL, decode: Mapping[str, float] = DECODE) -> list[Scraped]:
    """The readings of both servers before and after the phase."""
    return [
        reading("prefill-0", "before", ZERO),
        reading("decode-0", "before", ZERO),
        reading("prefill-0", "after", prefill),
        reading("decode-0", "after", decode),
    ]


def history(scraped: Iterable[Entry] | None = None, operations: Iterable[Entry] | None = None, *more: Entry) -> History:
    """The clean run, or one with other readings or operations."""
    if operations is None:
        operations = (*operation(request(0)), *operation(request(1)))
    references = (*reference(0), *reference(1))
    before, after = _halves(readings() if scraped is None else scraped)
    end = (ClientHealth(9.0, 0.01, 0.01, 0.001, 0.2), RunEnded(9.0))
    return History((*before, *operations, *after, *references, *more, *end))


def _halves(scraped: Iterable[Entry]) -> tuple[list[Entry], list[Entry]]:
    everything = list(scraped)
    before = [entry for entry in everything if getattr(entry, "label", "") == "before"]
    return before, [entry for entry in everything if entry not in before]
