"""Prompts that a server has cached: cached blocks must not be transferred, and all others must be."""

from collections.abc import Iterator

from harness.catalogue.builder import Builder, together
from harness.catalogue.needs import Needs
from harness.catalogue.registry import workload
from harness.scenario import Phase

_CACHES = Needs(prefix_caching=True)


@workload(family="hits")
def cold_decode(build: Builder) -> Iterator[Phase]:
    """A prompt that is in no cache: decode must get the KV of every prompt token by transfer.

    Hunts silent recomputation: decode computes the prompt itself, or takes it from a cache, and still answers right.
    """
    yield together("cold", [build.ask(3 * build.block + 5)])


@workload(family="hits", needs=_CACHES)
def full_decode_hit(build: Builder) -> Iterator[Phase]:
    """A prompt whose full blocks are all in decode's cache: only the partial last block is transferred.

    Hunts a transfer that is misaligned with decode's cache hit: counters are right, but a block is misplaced.
    """
    prompt = build.ids(3 * build.block + 5)
    yield together("prime", [build.on_decode(prompt)])
    yield together("ask", [build.ask(prompt)])


@workload(family="hits", needs=_CACHES)
def partial_decode_hit(build: Builder) -> Iterator[Phase]:
    """A prompt whose first two blocks are in decode's cache: two more and the partial last one are transferred.

    Hunts the bug of full_decode_hit when several blocks follow the hit.
    """
    prefix = build.ids(2 * build.block)
    yield together("prime", [build.on_decode(prefix)])
    yield together("ask", [build.ask(prefix + build.more(2 * build.block + 3))])


@workload(family="hits", needs=_CACHES)
def last_block_pulled(build: Builder) -> Iterator[Phase]:
    """Prompts of one to four full blocks, all in decode's cache: the last block is transferred all the same.

    Hunts wrong handling of a full cache hit: the engine never takes a prompt's last token from the cache, so exactly
    the last block must be transferred.
    """
    prompts = [build.ids(k * build.block) for k in range(1, 5)]
    yield together("prime", [build.on_decode(prompt) for prompt in prompts])
    yield together("ask", [build.ask(prompt) for prompt in prompts])


@workload(family="hits", needs=_CACHES)
def prefill_hit(build: Builder) -> Iterator[Phase]:
    """Prompts that are in prefill's cache and not in decode's.

    Hunts wrong hand-over of cached blocks: they are shared and older than the request, and are easily missing from the
    list of blocks that decode is given.
    """
    prompts = [build.ids(k * build.block + offset) for k in (1, 3) for offset in (-1, 0, 2)]
    yield together("prime", [build.on_prefill(prompt) for prompt in prompts])
    yield together("ask", [build.ask(prompt) for prompt in prompts])


@workload(family="hits", needs=_CACHES)
def hit_on_both(build: Builder) -> Iterator[Phase]:
    """The same prompts three times through the proxy: both servers have them cached from the second time on.

    Hunts blocks that were cached after a wrong transfer: the first answer may be right when a later hit is wrong.
    """
    prompts = [build.ids(k * build.block + offset) for k in (1, 3) for offset in (-1, 0, 2)]
    for name in ("cold", "again", "and again"):
        yield together(name, [build.ask(prompt) for prompt in prompts])


@workload(family="hits", needs=_CACHES)
def unequal_hits(build: Builder) -> Iterator[Phase]:
    """Prompts of which prefill and decode have prefixes of different lengths in their caches.

    Hunts a list of remote blocks that starts after the cache hit of the wrong server.
    """
    prompts = [build.ids(4 * build.block + 3) for _ in range(4)]
    held = ((1, 3), (3, 1), (2, 2), (4, 0))
    pairs = list(zip(prompts, held, strict=True))
    yield together(
        "prime",
        [
            *(build.on_prefill(prompt[: on_prefill * build.block]) for prompt, (on_prefill, _) in pairs),
            *(build.on_decode(prompt[: on_decode * build.block]) for prompt, (_, on_decode) in pairs if on_decode),
        ],
    )
    yield together("ask", [build.ask(prompt) for prompt in prompts])
