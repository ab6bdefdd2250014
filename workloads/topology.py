"""The main cases on deployments of other shapes."""

from collections.abc import Iterator

from harness.catalogue.builder import Builder, together
from harness.catalogue.needs import Needs
from harness.catalogue.presets import NIXL, OFFLOADING
from harness.catalogue.registry import workload
from harness.scenario import Phase, Route
from harness.verdict import FaultSign, FindingKind, KnownFault


def tour(build: Builder, route: Route = Route.PROXY) -> Iterator[Phase]:
    """Lengths around block boundaries, cold and again; prompts that decode has cached, wholly and partly; a burst."""
    block = build.block
    prompts = [build.ids(length) for length in (1, block - 1, block, block + 1, 3 * block, 3 * block + 5)]
    yield together("cold", [build.ask(prompt, route=route) for prompt in prompts])
    yield together("again", [build.ask(prompt, route=route) for prompt in prompts])
    held = [build.ids(3 * block + 5), build.ids(4 * block)]
    yield together("prime", [build.on_decode(held[0]), build.on_decode(held[1][: 2 * block])])
    yield together("primed", [build.ask(prompt, route=route) for prompt in held])
    yield together("burst", [build.ask(1 + 11 * number, route=route) for number in range(24)])


@workload(family="topology", needs=Needs(connectors=(OFFLOADING, NIXL)), home="offloading_first")
def tour_offloading_first(build: Builder) -> Iterator[Phase]:
    """The main cases (lengths, cache hits, a burst) with the offload tier asked before NIXL.

    Hunts a MultiConnector that loads from one connector and never informs the other, so that prefill keeps its blocks.
    """
    yield from tour(build)


@workload(family="topology", needs=Needs(connectors=(NIXL,)), home="nixl")
def tour_nixl_alone(build: Builder) -> Iterator[Phase]:
    """The main cases (lengths, cache hits, a burst) with NIXL and no MultiConnector around it.

    Hunts bugs that MultiConnector hides, because it changes which calls a connector gets, and when.
    """
    yield from tour(build)


@workload(family="topology", needs=Needs(transfers=False, connectors=(OFFLOADING,)), home="offloading")
def tour_offloading_alone(build: Builder) -> Iterator[Phase]:
    """The main cases (lengths, cache hits, a burst) on decode servers with an offload tier and no KV transfer.

    Hunts lookups and stores of the offload tier that are right only beside another connector.
    """
    yield from tour(build, Route.DECODE)


@workload(family="topology", needs=Needs(prefix_caching=False), home="no_prefix_caching")
def tour_without_prefix_caching(build: Builder) -> Iterator[Phase]:
    """The main cases (lengths, cache hits, a burst) without prefix caching: every prompt is transferred whole.

    Hunts transfers that rely on the prefix cache.
    """
    yield from tour(build)


@workload(
    family="topology",
    needs=Needs(same_block_sizes=False),
    home="unlike_blocks",
    known_fault=KnownFault(
        signs=(FaultSign("outputs", findings=FindingKind.WRONG_OUTPUT),),
        versions=("0.32.0",),
        devices=("cpu",),
        evidence="blocks of 32 on prefill and 64 on decode: 35 of 38 answers were wrong with HTTP 200 and every "
        "counter right; the other 3 had prompts of one token, for which decode reads no transferred KV. The CPU "
        "backend keeps a block's keys as head size by tokens, and NIXL's conversion of small blocks into a large one "
        "(kv_postprocess_blksize_on_receive) reads them as tokens by head size",
    ),
)
def tour_unlike_blocks(build: Builder) -> Iterator[Phase]:
    """The main cases (lengths, cache hits, a burst) with different block sizes on prefill and decode.

    Hunts block lists that are read in the other server's block size.
    """
    yield from tour(build)


@workload(family="topology", needs=Needs(same_versions=False), home="unlike_versions")
def tour_unlike_versions(build: Builder) -> Iterator[Phase]:
    """The main cases (lengths, cache hits, a burst) with different engine versions on prefill and decode.

    Hunts handshakes and transfer parameters that changed between the versions.
    """
    yield from tour(build)


@workload(family="topology", needs=Needs(prefill=2, decode=2), home="two_by_two")
def two_by_two(build: Builder) -> Iterator[Phase]:
    """The same prompts four times over, on two prefill and two decode servers.

    Hunts handshakes and block lists that are kept for one peer and used for another.
    """
    prompts = [build.ids(length) for length in (build.block - 1, 2 * build.block, 3 * build.block + 5)]
    for name in ("cold", "again", "a third time", "a fourth time"):
        yield together(name, [build.ask(prompt) for prompt in prompts for _ in range(2)])
    yield together("burst", [build.ask(1 + 7 * number) for number in range(32)])
