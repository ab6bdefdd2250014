"""Prompts that share a prefix."""

from collections.abc import Iterator

from harness.catalogue.builder import Builder, in_turn, together
from harness.catalogue.needs import Needs
from harness.catalogue.registry import workload
from harness.scenario import Phase

_CACHES = Needs(prefix_caching=True)


@workload(family="prefixes", needs=_CACHES)
def shared_blocks(build: Builder) -> Iterator[Phase]:
    """Six concurrent prompts share two full blocks with an earlier prompt.

    Hunts cache hits whose following blocks are attached to the wrong request.
    """
    prefix = build.ids(2 * build.block)
    yield together("first", [build.ask(prefix + build.more(7))])
    tails = (1, build.block - 1, build.block, build.block + 1, 2 * build.block, 5)
    yield together("others", [build.ask(prefix + build.more(tail)) for tail in tails])


@workload(family="prefixes", needs=_CACHES)
def shared_half_block(build: Builder) -> Iterator[Phase]:
    """Six concurrent prompts share two and a half blocks with an earlier prompt.

    Hunts partial blocks that are shared although they end differently: only full blocks may be cache hits.
    """
    prefix = build.ids(2 * build.block + build.block // 2)
    yield together("first", [build.ask(prefix + build.more(build.block))])
    tails = (1, build.block // 2 - 1, build.block // 2, build.block // 2 + 1, build.block, 2 * build.block)
    yield together("others", [build.ask(prefix + build.more(tail)) for tail in tails])


@workload(family="prefixes", needs=_CACHES)
def growing_prompt(build: Builder) -> Iterator[Phase]:
    """One prompt at six growing lengths, one after another: each finds the full blocks of the previous one.

    Hunts a cache hit that includes the previous prompt's partial block.
    """
    prompt = build.ids(5 * build.block)
    blocks = ((1, -3), (1, 0), (2, 1), (3, -1), (4, 0), (5, 0))
    yield in_turn("growing", [build.ask(prompt[: k * build.block + offset]) for k, offset in blocks])


@workload(family="prefixes", needs=_CACHES)
def branching_prompts(build: Builder) -> Iterator[Phase]:
    """A tree of prompts, level by level: one trunk, two branches of it, and two continuations of each branch.

    Hunts block hashes that ignore the prefix: continuations of different branches have equal blocks at equal places.
    """
    trunk = build.ids(build.block)
    branches = [trunk + build.more(build.block) for _ in range(2)]
    twig = build.more(build.block + 1)
    yield together("trunk", [build.ask(trunk)])
    yield together("branches", [build.ask(branch) for branch in branches])
    yield together("twigs", [build.ask(branch + twig[number:]) for branch in branches for number in range(2)])


@workload(family="prefixes")
def hundred_sharing(build: Builder) -> Iterator[Phase]:
    """A hundred concurrent prompts share two blocks that are in no cache.

    Hunts blocks that are used before they are complete: ninety-nine requests need what one is still computing.
    """
    prefix = build.ids(2 * build.block)
    yield together("at once", [build.ask(prefix + build.more(1 + number % 20), max_tokens=4) for number in range(100)])
