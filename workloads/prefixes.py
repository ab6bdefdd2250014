"""Prompts that begin alike."""

from collections.abc import Iterator

from harness.catalogue.builder import Case, in_turn, together
from harness.catalogue.needs import Needs
from harness.catalogue.registry import workload
from harness.scenario import Phase

_CACHES = Needs(prefix_caching=True)


@workload(family="prefixes", needs=_CACHES)
def shared_blocks(case: Case) -> Iterator[Phase]:
    """Six prompts that share two whole blocks with one that was asked before them.

    Hunts hits whose following blocks are attached to the wrong request.
    """
    prefix = case.ids(2 * case.block)
    yield together("first", [case.ask(prefix + case.more(7))])
    tails = (1, case.block - 1, case.block, case.block + 1, 2 * case.block, 5)
    yield together("others", [case.ask(prefix + case.more(tail)) for tail in tails])


@workload(family="prefixes", needs=_CACHES)
def shared_half_block(case: Case) -> Iterator[Phase]:
    """Six prompts that share two and a half blocks with one that was asked before them.

    Hunts partial blocks that are shared though they end differently: only whole blocks may hit.
    """
    prefix = case.ids(2 * case.block + case.block // 2)
    yield together("first", [case.ask(prefix + case.more(case.block))])
    tails = (1, case.block // 2 - 1, case.block // 2, case.block // 2 + 1, case.block, 2 * case.block)
    yield together("others", [case.ask(prefix + case.more(tail)) for tail in tails])


@workload(family="prefixes", needs=_CACHES)
def growing_prompt(case: Case) -> Iterator[Phase]:
    """One prompt asked at six growing lengths, one after another: each finds the whole blocks of the one before.

    Hunts a hit that ends where the last prompt's partial block began.
    """
    prompt = case.ids(5 * case.block)
    blocks = ((1, -3), (1, 0), (2, 1), (3, -1), (4, 0), (5, 0))
    yield in_turn("growing", [case.ask(prompt[: k * case.block + offset]) for k, offset in blocks])


@workload(family="prefixes", needs=_CACHES)
def branching_prompts(case: Case) -> Iterator[Phase]:
    """A tree of prompts: a trunk, two branches of it, two twigs of each, level by level.

    Hunts hashes that forget a block's past: twigs of different branches have equal blocks at equal places.
    """
    trunk = case.ids(case.block)
    branches = [trunk + case.more(case.block) for _ in range(2)]
    twig = case.more(case.block + 1)
    yield together("trunk", [case.ask(trunk)])
    yield together("branches", [case.ask(branch) for branch in branches])
    yield together("twigs", [case.ask(branch + twig[number:]) for branch in branches for number in range(2)])


@workload(family="prefixes")
def hundred_sharing(case: Case) -> Iterator[Phase]:
    """A hundred prompts at once that share two blocks nobody has seen before.

    Hunts blocks in flight: what one request is still computing or pulling is taken by ninety-nine others.
    """
    prefix = case.ids(2 * case.block)
    yield together("at once", [case.ask(prefix + case.more(1 + number % 20), max_tokens=4) for number in range(100)])
