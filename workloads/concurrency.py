"""Many requests at once."""

from collections.abc import Iterator

from harness.catalogue.builder import Builder, together
from harness.catalogue.needs import Needs
from harness.catalogue.registry import workload
from harness.scenario import Phase


@workload(family="concurrency")
def two_identical(build: Builder) -> Iterator[Phase]:
    """Three prompts, each sent twice at the same time.

    Hunts blocks that are freed or overwritten by one request while its twin still reads them.
    """
    prompts = [build.ids(length) for length in (build.block - 1, 2 * build.block, 3 * build.block + 5)]
    yield together("at once", [build.ask(prompt) for prompt in prompts for _ in range(2)])


@workload(family="concurrency", needs=Needs(prefix_caching=True))
def many_identical(build: Builder) -> Iterator[Phase]:
    """One prompt sent sixteen times at once, and then sixteen times again.

    Hunts the bug of two_identical when the first requests' blocks are cached before the last requests look for them.
    """
    prompt = build.ids(3 * build.block + 5)
    yield together("cold", [build.ask(prompt) for _ in range(16)])
    yield together("again", [build.ask(prompt) for _ in range(16)])


@workload(family="concurrency")
def mixed_lengths(build: Builder) -> Iterator[Phase]:
    """Sixty-four concurrent prompts of up to six blocks, with answers of 1 to 24 tokens.

    Hunts KV that is mixed up between requests: every answer must belong to its own prompt.
    """
    lengths = [1 + number * 6 * build.block // 64 for number in range(64)]
    yield together("at once", [build.ask(length, max_tokens=1 + length % 24) for length in lengths])
