"""The offload tier: blocks that were evicted from a server's pool and are read back."""

from collections.abc import Iterator

from harness.catalogue.builder import Builder, together
from harness.catalogue.needs import Needs
from harness.catalogue.registry import workload
from harness.scenario import Phase, Route

_TIER = Needs(offloads=True, prefix_caching=True, most_blocks=4096)
_FLOOD_BLOCKS = 12
"""Per request: long enough to be few, short enough for attention to stay cheap."""
_FLOOD_CONCURRENCY = 8


def flood(build: Builder, route: Route) -> Phase:
    """As many new blocks on the servers of a route as its pool has: whatever it held before is evicted."""
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
    """A prompt whose blocks were evicted from prefill's pool is asked again: prefill reads them back.

    Hunts restores of the wrong blocks: byte counts are healthy, and the answer is not the one of the first time.
    """
    prompt = build.ids(4 * build.block + 5)
    yield together("cold", [build.ask(prompt)])
    yield flood(build, Route.PREFILL)
    yield together("again", [build.ask(prompt)])


@workload(family="offload", needs=_TIER, provokes="offload_load_bytes")
def restored_then_transferred(build: Builder) -> Iterator[Phase]:
    """Prefill reads prompts back from its tier, and decode, which never saw them, pulls what was read back.

    Hunts a transfer that begins before the restore has ended, and a MultiConnector that lets only one of the two do
    its work.
    """
    prompts = [build.ids(k * build.block + offset) for k in (1, 2, 4) for offset in (-1, 0, 5)]
    yield together("prime", [build.on_prefill(prompt) for prompt in prompts])
    yield flood(build, Route.PREFILL)
    yield together("ask", [build.ask(prompt) for prompt in prompts])


@workload(family="offload", needs=_TIER)
def decode_evicted(build: Builder) -> Iterator[Phase]:
    """A prompt evicted from decode's pool, and held by its tier, is asked again.

    Hunts the wrong one of two sources: the connector that is asked first must bring all of it, the other nothing.
    """
    prompts = [build.ids(k * build.block + 5) for k in (1, 3)]
    yield together("cold", [build.ask(prompt) for prompt in prompts])
    yield flood(build, Route.DECODE)
    yield together("again", [build.ask(prompt) for prompt in prompts])


@workload(family="offload", needs=_TIER, provokes="offload_load_bytes")
def restored_beside_new(build: Builder) -> Iterator[Phase]:
    """Prompts that are read back from the tier, together with new ones and with ones that share their prefix.

    Hunts restores under load: a block that is being read back given to somebody else.
    """
    prompts = [build.ids(3 * build.block + offset) for offset in (0, 1, 5, 9)]
    yield together("prime", [build.on_prefill(prompt) for prompt in prompts])
    yield flood(build, Route.PREFILL)
    extended = [prompt[: 2 * build.block] + build.more(build.block + 2) for prompt in prompts]
    new = [build.ids(2 * build.block + 3) for _ in prompts]
    yield together("ask", [build.ask(prompt) for trio in zip(prompts, extended, new, strict=True) for prompt in trio])
