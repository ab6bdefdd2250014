"""Requests sent to one server directly, with or without requests through the proxy beside them."""

from collections.abc import Iterator

from harness.catalogue.builder import Builder, together
from harness.catalogue.needs import Needs
from harness.catalogue.registry import workload
from harness.scenario import Phase, Route


@workload(family="direct", needs=Needs(transfers=False))
def direct_decode(build: Builder) -> Iterator[Phase]:
    """Prompts sent to a decode server directly: it computes every token, and NIXL moves no byte.

    Hunts transfer counters that also grow without a transfer, and so could not show that one is missing.
    """
    lengths = (10, build.block, 3 * build.block + 5)
    yield together("direct", [build.ask(length, route=Route.DECODE) for length in lengths])


@workload(family="direct")
def direct_beside_proxied(build: Builder) -> Iterator[Phase]:
    """Concurrent requests to the prefill server, to the decode server and through the proxy.

    Hunts transfers that write into blocks of another request that has no transfer itself.
    """
    routes = (Route.PROXY, Route.DECODE, Route.PROXY, Route.PREFILL)
    lengths = [k * build.block + offset for k in (1, 2, 4) for offset in (-1, 0, 1, 7)]
    yield together(
        "mixed", [build.ask(length, route=routes[number % 4], max_tokens=16) for number, length in enumerate(lengths)]
    )
