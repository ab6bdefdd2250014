"""Prompts that a server has seen before: what its own cache holds must not travel, and the rest must."""

from collections.abc import Iterator

from harness.catalogue.builder import Builder, together
from harness.catalogue.needs import Needs
from harness.catalogue.registry import workload
from harness.scenario import Phase

_CACHES = Needs(prefix_caching=True)


@workload(family="hits")
def cold_decode(build: Builder) -> Iterator[Phase]:
    """A prompt that neither server has seen.

    Hunts silent local compute: every prompt token must come by transfer, none from decode's own work or cache.
    """
    yield together("cold", [build.ask(3 * build.block + 5)])


@workload(family="hits", needs=_CACHES)
def full_decode_hit(build: Builder) -> Iterator[Phase]:
    """A prompt whose whole blocks decode has: only the rest is transferred.

    Hunts hits on decode that are misaligned with the transfer: the counts are right, and the tail lands in the wrong
    block.
    """
    prompt = build.ids(3 * build.block + 5)
    yield together("prime", [build.on_decode(prompt)])
    yield together("ask", [build.ask(prompt)])


@workload(family="hits", needs=_CACHES)
def partial_decode_hit(build: Builder) -> Iterator[Phase]:
    """A prompt whose first two blocks decode has: the other two and the tail are transferred.

    Hunts the same as full_decode_hit, where several blocks follow the hit.
    """
    prefix = build.ids(2 * build.block)
    yield together("prime", [build.on_decode(prefix)])
    yield together("ask", [build.ask(prefix + build.more(2 * build.block + 3))])


@workload(family="hits", needs=_CACHES)
def last_block_pulled(build: Builder) -> Iterator[Phase]:
    """Prompts of whole blocks, one to four, that decode has entirely: the last block is pulled all the same.

    Hunts the full hit: something must be left to compute, and what is left must not be the wrong block.
    """
    prompts = [build.ids(k * build.block) for k in range(1, 5)]
    yield together("prime", [build.on_decode(prompt) for prompt in prompts])
    yield together("ask", [build.ask(prompt) for prompt in prompts])


@workload(family="hits", needs=_CACHES)
def prefill_hit(build: Builder) -> Iterator[Phase]:
    """Prompts that prefill has seen and decode has not.

    Hunts blocks that are handed over from prefill's cache: they are shared, older than the request, and easily missing
    from the list that decode is given.
    """
    prompts = [build.ids(k * build.block + offset) for k in (1, 3) for offset in (-1, 0, 2)]
    yield together("prime", [build.on_prefill(prompt) for prompt in prompts])
    yield together("ask", [build.ask(prompt) for prompt in prompts])


@workload(family="hits", needs=_CACHES)
def hit_on_both(build: Builder) -> Iterator[Phase]:
    """The same prompts three times through the proxy: the second and third are warm on both servers.

    Hunts blocks that were transferred wrongly and cached: the first answer may be right and a later hit is not.
    """
    prompts = [build.ids(k * build.block + offset) for k in (1, 3) for offset in (-1, 0, 2)]
    for name in ("cold", "again", "and again"):
        yield together(name, [build.ask(prompt) for prompt in prompts])


@workload(family="hits", needs=_CACHES)
def unequal_hits(build: Builder) -> Iterator[Phase]:
    """Prompts of which prefill and decode have prefixes of different lengths.

    Hunts a list of remote blocks that is cut at the wrong server's hit.
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
