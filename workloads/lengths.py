"""Prompt lengths at and around the ends of blocks: where partial, short and exactly full blocks go wrong."""

from collections.abc import Iterator

from harness.catalogue.builder import MAX_TOKENS, Builder, together
from harness.catalogue.needs import Needs
from harness.catalogue.registry import workload
from harness.scenario import Phase

_BOUNDARIES = 8


@workload(family="lengths")
def short_prompt(build: Builder) -> Iterator[Phase]:
    """A prompt shorter than one block.

    Hunts partial blocks: its only block is a partial one, which must move whole, and its KV must be read to the
    prompt's end and no further.
    """
    yield together("cold", [build.ask(min(10, build.block - 1))])


@workload(family="lengths")
def block_boundary(build: Builder) -> Iterator[Phase]:
    """A prompt of exactly one block.

    Hunts exactly full blocks: a block too few or too many on either side, or a block that prefill never releases.
    """
    yield together("cold", [build.ask(build.block)])


@workload(family="lengths")
def above_boundary(build: Builder) -> Iterator[Phase]:
    """A prompt two tokens longer than a block.

    Hunts a tail that is lost: the second block holds two tokens, and the answer depends on both.
    """
    yield together("cold", [build.ask(build.block + 2)])


@workload(family="lengths")
def multi_block(build: Builder) -> Iterator[Phase]:
    """A prompt of exactly four blocks.

    Hunts regions that are truncated, oversized or in the wrong order: the bytes of four blocks, no more and no fewer.
    """
    yield together("cold", [build.ask(4 * build.block)])


@workload(family="lengths")
def single_token(build: Builder) -> Iterator[Phase]:
    """Prompts of one token.

    Hunts the transfer that leaves nothing to compute: the one token that arrives must be computed again, and the
    scheduler begins anew.
    """
    yield together("cold", [build.ask(1) for _ in range(4)])


@workload(family="lengths")
def around_boundaries(build: Builder) -> Iterator[Phase]:
    """Prompts one token below, at and above each of the first eight block boundaries, all at once.

    Hunts off-by-one errors in the number of blocks, whichever length they begin at.
    """
    lengths = [k * build.block + offset for k in range(1, _BOUNDARIES + 1) for offset in (-1, 0, 1)]
    yield together("cold", [build.ask(length) for length in lengths])


@workload(family="lengths", needs=Needs(most_context=8192))
def longest_prompt(build: Builder) -> Iterator[Phase]:
    """A prompt as long as the context allows beside its answer.

    Hunts block tables and transfers that are cut at a limit of their own below the engine's.
    """
    yield together("cold", [build.ask(build.setting.max_model_len - MAX_TOKENS)])
