"""Scarce resources: small engine steps and small block pools."""

from collections.abc import Iterator

from harness.catalogue.builder import Builder, together
from harness.catalogue.needs import Needs
from harness.catalogue.presets import PRESETS
from harness.catalogue.registry import workload
from harness.scenario import Phase, Route

_STEPS = Needs(batch_tokens=512)
_POOL = Needs(most_blocks=128)
_SHORT_LEASE_S = PRESETS["short_lease"].nixl_config["kv_lease_duration"]


def _pool(build: Builder) -> int:
    """Usable blocks of the smallest pool, without the null block."""
    sizes = (build.setting.prefill_blocks, build.setting.decode_blocks)
    return min(size for size in sizes if size is not None) - 1


@workload(family="pressure", needs=_STEPS, home="small_steps")
def chunked_prefill(build: Builder) -> Iterator[Phase]:
    """Prompts that end around the boundary of an engine step after several steps of prefill, alone and together.

    Hunts incomplete block lists: prefill hands over only the first chunk's blocks, or loses the last partial block.
    """
    step = build.setting.batch_tokens or 1
    lengths = [k * step + offset for k in (2, 3, 5) for offset in (-1, 0, 1)]
    yield together("alone", [build.ask(4 * step + 3)])
    yield together("at once", [build.ask(length) for length in lengths])


@workload(family="pressure", needs=Needs(batch_tokens=512, prefix_caching=True), home="small_steps")
def chunked_hits(build: Builder) -> Iterator[Phase]:
    """Prompts whose beginning is cached and whose rest takes several engine steps to prefill.

    Hunts chunks that are counted from the beginning of the prompt instead of from the end of the cache hit.
    """
    step = build.setting.batch_tokens or 1
    prefix = build.ids(2 * build.block)
    yield together("prime", [build.on_prefill(prefix), build.on_decode(prefix[: build.block])])
    yield together("ask", [build.ask(prefix + build.more(k * step + offset)) for k in (1, 3) for offset in (-1, 0, 1)])


@workload(family="pressure", needs=_POOL, home="small_pool", provokes="preemptions")
def preemption(build: Builder) -> Iterator[Phase]:
    """More concurrent answers than decode's pool can hold: some requests are preempted and resumed.

    Hunts requests that resume after a transfer and a preemption with blocks that are no longer theirs.
    """
    prompt, answer = 2 * build.block - 5, 4 * build.block
    number = 3 * _pool(build) // 12
    yield together("at once", [build.ask(prompt + n % 7, max_tokens=answer, ignore_eos=True) for n in range(number)])


@workload(family="pressure", needs=_POOL, home="small_pool")
def pool_churn(build: Builder) -> Iterator[Phase]:
    """Three times as many concurrent prompts as the pools can hold together.

    Hunts prefill blocks that are given away before decode has read them, and requests that wait forever.
    """
    number = 3 * _pool(build) // 4
    yield together("at once", [build.ask(3 * build.block + n % 40) for n in range(number)])


@workload(
    family="pressure",
    needs=Needs(most_blocks=128, offloads=True, prefix_caching=True),
    home="small_pool",
    provokes="offload_load_bytes",
)
def reload_under_load(build: Builder) -> Iterator[Phase]:
    """Twice as many prompts as the pools can hold, asked twice: the second time the tier loads them under load.

    Hunts loads that corrupt each other or the blocks of requests that run beside them.
    """
    number = 2 * _pool(build) // 4
    prompts = [build.ids(3 * build.block + n % 40) for n in range(number)]
    yield Phase("store", tuple(build.ask(prompt) for prompt in prompts), concurrency=8)
    yield Phase("reload", tuple(build.ask(prompt) for prompt in prompts), concurrency=8)


@workload(family="pressure", needs=_POOL, home="small_pool", provokes="preemptions")
def burst_of_twenty(build: Builder) -> Iterator[Phase]:
    """Four requests in flight, then eighty, then four again, on pools that hold a dozen.

    Hunts what only a crowd provokes: blocks that change hands between requests that are preempted, requests that are
    forgotten in a queue, and a pair that does not find back to its usual state.
    """
    prompt, answer = 2 * build.block - 5, 2 * build.block
    few = [build.ask(prompt + n % 7) for n in range(12)]
    many = [build.ask(prompt + n % 7, max_tokens=answer, ignore_eos=True) for n in range(80)]
    later = [build.ask(prompt + n % 7) for n in range(12)]
    yield Phase("before", tuple(few), concurrency=4)
    yield together("burst", many)
    yield Phase("after", tuple(later), concurrency=4)


@workload(
    family="pressure",
    needs=Needs(offloads=True, prefix_caching=True, most_tier=256),
    home="small_tier",
    provokes="offload_refused",
)
def tier_overflow(build: Builder) -> Iterator[Phase]:
    """A prompt longer than the offload tier, between others that fill the tier three times over, all asked twice.

    Hunts a store that is refused or half done and counted as whole, and loads of chunks that were evicted meanwhile.
    """
    tier = build.setting.tier_blocks or 1
    long = build.ids((tier + 2) * build.block + 5)
    prompts = [build.ids(3 * build.block + n % 40) for n in range(tier)]
    for name in ("store", "again"):
        yield Phase(name, tuple(build.ask(prompt) for prompt in (*prompts, long)), concurrency=8)


@workload(family="pressure", needs=_POOL, home="short_lease", waits=_SHORT_LEASE_S)
def queue_past_lease(build: Builder) -> Iterator[Phase]:
    """Requests that wait for a full decode pool for longer than prefill's short lease, beside prompts on prefill alone.

    Hunts leases that are not renewed while a request waits, and blocks that are given to prompts sent to prefill alone.
    """
    whole = min(_pool(build) // 2, build.setting.max_model_len // build.block)
    grown = whole // 4
    # Two fill the pool, and two more wait for their place, before all others: a server admits in order.
    filling = [
        build.ask(
            (whole - grown) * build.block - 5 + n,
            route=Route.DECODE,
            max_tokens=grown * build.block,
            ignore_eos=True,
        )
        for n in range(4)
    ]
    waiting = [build.ask(2 * build.block - 5 + n % 7) for n in range(_pool(build) // 4)]
    churn = [build.on_prefill(3 * build.block + n % 40) for n in range(2 * _pool(build))]
    yield Phase("at once", (*filling, *waiting, *churn), concurrency=len(filling) + len(waiting) + 2)
