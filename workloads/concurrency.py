"""Many at once."""

from collections.abc import Iterator

from harness.catalogue.builder import Builder, together
from harness.catalogue.needs import Needs
from harness.catalogue.registry import workload
from harness.scenario import Phase


@workload(family="concurrency")
def two_identical(build: Builder) -> Iterator[Phase]:
    """The same prompt twice at once, for three prompts.

    Hunts blocks of one request that are released or overwritten while its twin reads them.
    """
    prompts = [build.ids(length) for length in (build.block - 1, 2 * build.block, 3 * build.block + 5)]
    yield together("at once", [build.ask(prompt) for prompt in prompts for _ in range(2)])


@workload(family="concurrency", needs=Needs(prefix_caching=True))
def many_identical(build: Builder) -> Iterator[Phase]:
    """The same prompt sixteen times at once, then sixteen times more.

    Hunts the same as two_identical where the first ones' blocks are in the caches before the last ones ask.
    """
    prompt = build.ids(3 * build.block + 5)
    yield together("cold", [build.ask(prompt) for _ in range(16)])
    yield together("again", [build.ask(prompt) for _ in range(16)])


@workload(family="concurrency")
def mixed_lengths(build: Builder) -> Iterator[Phase]:
    """Sixty-four prompts of all lengths up to six blocks, at once, with answers of many lengths.

    Hunts KV that is mixed up between requests: every answer must be that of its own prompt.
    """
    lengths = [1 + number * 6 * build.block // 64 for number in range(64)]
    yield together("at once", [build.ask(length, max_tokens=1 + length % 24) for length in lengths])
