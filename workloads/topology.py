"""One tour of the main cases, on deployments of other shapes."""

from collections.abc import Iterator

from harness.catalogue.builder import Builder, together
from harness.catalogue.needs import Needs
from harness.catalogue.presets import NIXL, OFFLOADING
from harness.catalogue.registry import workload
from harness.scenario import Phase, Route
from harness.verdict import FaultSign, FindingKind, KnownFault


def tour(build: Builder, route: Route = Route.PROXY) -> Iterator[Phase]:
    """Lengths around the boundaries, cold and again; prompts that decode has, whole and in part; a burst."""
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
    """The tour where the offload tier is asked before the peer.

    Hunts a MultiConnector that takes from one and never tells the other: prefill then keeps its blocks.
    """
    yield from tour(build)


@workload(family="topology", needs=Needs(connectors=(NIXL,)), home="nixl")
def tour_nixl_alone(build: Builder) -> Iterator[Phase]:
    """The tour with NIXL and no MultiConnector around it.

    Hunts what MultiConnector hides: it changes which calls a connector gets, and when.
    """
    yield from tour(build)


@workload(family="topology", needs=Needs(transfers=False, connectors=(OFFLOADING,)), home="offloading")
def tour_offloading_alone(build: Builder) -> Iterator[Phase]:
    """The tour on a decode server with an offload tier and nothing else: no token may be transferred.

    Hunts lookups and stores of the tier that only another connector's presence makes right.
    """
    yield from tour(build, Route.DECODE)


@workload(family="topology", needs=Needs(prefix_caching=False), home="no_prefix_caching")
def tour_without_prefix_caching(build: Builder) -> Iterator[Phase]:
    """The tour with prefix caching off: every prompt is computed by prefill and transferred whole, every time.

    Hunts transfers that take the prefix cache for granted.
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
        "(kv_postprocess_blksize_on_receive) takes them for tokens by head size",
    ),
)
def tour_unlike_blocks(build: Builder) -> Iterator[Phase]:
    """The tour where prefill's blocks and decode's differ in size.

    Hunts block lists that are read in the other server's unit.
    """
    yield from tour(build)


@workload(family="topology", needs=Needs(same_versions=False), home="unlike_versions")
def tour_unlike_versions(build: Builder) -> Iterator[Phase]:
    """The tour where prefill and decode are different engine versions.

    Hunts handshakes and parameters that changed between them.
    """
    yield from tour(build)


@workload(family="topology", needs=Needs(prefill=2, decode=2), home="two_by_two")
def two_by_two(build: Builder) -> Iterator[Phase]:
    """The same prompts from two prefill to two decode servers, four times over.

    Hunts handshakes and block lists that are kept per peer and used for the other one.
    """
    prompts = [build.ids(length) for length in (build.block - 1, 2 * build.block, 3 * build.block + 5)]
    for name in ("cold", "again", "a third time", "a fourth time"):
        yield together(name, [build.ask(prompt) for prompt in prompts for _ in range(2)])
    yield together("burst", [build.ask(1 + 7 * number) for number in range(32)])
