"""The offload tier: blocks that were evicted from a server's pool and are loaded again."""

from collections.abc import Iterator

from harness.catalogue.builder import Builder, together
from harness.catalogue.needs import Needs
from harness.catalogue.registry import workload
from harness.scenario import Phase, Route

_TIER = Needs(offloads=True, prefix_caching=True, most_blocks=4096)
_FLOOD_BLOCKS = 12
"""Blocks per request: long enough to need few requests, short enough for attention to stay cheap."""
_FLOOD_CONCURRENCY = 8


def flood(build: Builder, route: Route) -> Phase:
    """As many new blocks as the pools of a route's servers hold, so that everything cached before is evicted."""
    on_prefill = route is Route.PREFILL
    pool = build.setting.prefill_blocks if on_prefill else build.setting.decode_blocks
    block = build.setting.prefill_block_size if on_prefill else build.setting.decode_block_size
    per_request = min(_FLOOD_BLOCKS, (build.setting.max_model_len - 1) // block, (pool or 2) // 2)
    number = -(-(pool or 0) // per_request)
    servers = build.setting.prefill if on_prefill else build.setting.decode
    requests = (
        build.ask(per_request * block, route=route, server=server, max_tokens=1, logprobs=None)
        for server in range(servers)
        for _ in range(number)
    )
    return Phase(f"flood {route}", tuple(requests), concurrency=_FLOOD_CONCURRENCY)


@workload(family="offload", needs=_TIER, provokes="offload_load_bytes")
def offload_recovery(build: Builder) -> Iterator[Phase]:
    """A prompt is asked again after eviction from prefill's pool: prefill loads it from its offload tier.

    Hunts loads of the wrong blocks: byte counts are right, but the answer differs from the first one.
    """
    prompt = build.ids(4 * build.block + 5)
    yield together("cold", [build.ask(prompt)])
    yield flood(build, Route.PREFILL)
    yield together("again", [build.ask(prompt)])


@workload(family="offload", needs=_TIER, provokes="offload_load_bytes")
def restored_then_transferred(build: Builder) -> Iterator[Phase]:
    """Prefill loads prompts from its offload tier, and decode, which has never seen them, pulls them from prefill.

    Hunts a transfer that begins before the load has ended, and a MultiConnector of which only one connector works.
    """
    prompts = [build.ids(k * build.block + offset) for k in (1, 2, 4) for offset in (-1, 0, 5)]
    yield together("prime", [build.on_prefill(prompt) for prompt in prompts])
    yield flood(build, Route.PREFILL)
    yield together("ask", [build.ask(prompt) for prompt in prompts])


@workload(family="offload", needs=_TIER)
def decode_evicted(build: Builder) -> Iterator[Phase]:
    """Prompts are asked again after eviction from decode's pool, while decode's offload tier still holds them.

    Hunts KV from the wrong source: the connector that is asked first must bring all of it, and the second one nothing.
    """
    prompts = [build.ids(k * build.block + 5) for k in (1, 3)]
    yield together("cold", [build.ask(prompt) for prompt in prompts])
    yield flood(build, Route.DECODE)
    yield together("again", [build.ask(prompt) for prompt in prompts])


@workload(family="offload", needs=_TIER, provokes="offload_load_bytes")
def restored_beside_new(build: Builder) -> Iterator[Phase]:
    """Prefill loads prompts from its tier beside new prompts and prompts that share their prefix.

    Hunts errors in loads under concurrency: a block that is being loaded must not be given to another request.
    """
    prompts = [build.ids(3 * build.block + offset) for offset in (0, 1, 5, 9)]
    yield together("prime", [build.on_prefill(prompt) for prompt in prompts])
    yield flood(build, Route.PREFILL)
    extended = [prompt[: 2 * build.block] + build.more(build.block + 2) for prompt in prompts]
    new = [build.ids(2 * build.block + 3) for _ in prompts]
    yield together("ask", [build.ask(prompt) for trio in zip(prompts, extended, new, strict=True) for prompt in trio])
