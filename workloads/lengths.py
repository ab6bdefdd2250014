"""Prompt lengths at and around block boundaries: single, partial and exactly full blocks."""

from collections.abc import Iterator

from harness.catalogue.builder import MAX_TOKENS, Builder, together
from harness.catalogue.needs import Needs
from harness.catalogue.registry import workload
from harness.scenario import Phase

_BOUNDARIES = 8


@workload(family="lengths")
def short_prompt(build: Builder) -> Iterator[Phase]:
    """A prompt shorter than one block.

    Hunts wrong partial blocks: the only block is a partial one, which must be transferred whole, while its KV must be
    read up to the end of the prompt and no further.
    """
    yield together("cold", [build.ask(min(10, build.block - 1))])


@workload(family="lengths")
def block_boundary(build: Builder) -> Iterator[Phase]:
    """A prompt of exactly one block.

    Hunts off-by-one errors with full blocks: a block too few or too many on a server, or one that prefill never frees.
    """
    yield together("cold", [build.ask(build.block)])


@workload(family="lengths")
def above_boundary(build: Builder) -> Iterator[Phase]:
    """A prompt two tokens longer than one block.

    Hunts a lost partial block: the second block holds two tokens, and the answer depends on both.
    """
    yield together("cold", [build.ask(build.block + 2)])


@workload(family="lengths")
def multi_block(build: Builder) -> Iterator[Phase]:
    """A prompt of exactly four blocks.

    Hunts memory regions that are truncated, too large or in the wrong order: exactly four blocks must be transferred.
    """
    yield together("cold", [build.ask(4 * build.block)])


@workload(family="lengths")
def single_token(build: Builder) -> Iterator[Phase]:
    """Prompts of one token.

    Hunts errors when a transfer leaves nothing to compute: the only token must be computed again, to sample from, and
    the scheduler starts the request over.
    """
    yield together("cold", [build.ask(1) for _ in range(4)])


@workload(family="lengths")
def around_boundaries(build: Builder) -> Iterator[Phase]:
    """Prompts one token below, at and above each of the first eight block boundaries, all at once.

    Hunts off-by-one errors in the number of blocks that show only at some lengths.
    """
    lengths = [k * build.block + offset for k in range(1, _BOUNDARIES + 1) for offset in (-1, 0, 1)]
    yield together("cold", [build.ask(length) for length in lengths])


@workload(family="lengths", needs=Needs(most_context=8192))
def longest_prompt(build: Builder) -> Iterator[Phase]:
    """The longest prompt that fits into the context together with its answer.

    Hunts block tables and transfers that are cut off at a limit below the engine's own.
    """
    yield together("cold", [build.ask(build.setting.max_model_len - MAX_TOKENS)])
