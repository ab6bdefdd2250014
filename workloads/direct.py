"""Requests that go to one server alone, beside or without the proxy."""

from collections.abc import Iterator

from harness.catalogue.builder import Builder, together
from harness.catalogue.needs import Needs
from harness.catalogue.registry import workload
from harness.scenario import Phase, Route


@workload(family="direct", needs=Needs(transfers=False))
def direct_decode(build: Builder) -> Iterator[Phase]:
    """Prompts sent to a decode server itself: it computes every token, and no byte moves.

    Hunts counters that count a transfer where there was none: what says "transferred" here says it always.
    """
    lengths = (10, build.block, 3 * build.block + 5)
    yield together("direct", [build.ask(length, route=Route.DECODE) for length in lengths])


@workload(family="direct")
def direct_beside_proxied(build: Builder) -> Iterator[Phase]:
    """Requests to prefill, to decode and through the proxy, all at once.

    Hunts writes into a bystander's blocks: a transfer that lands wrongly spoils a request that has none of its own.
    """
    routes = (Route.PROXY, Route.DECODE, Route.PROXY, Route.PREFILL)
    lengths = [k * build.block + offset for k in (1, 2, 4) for offset in (-1, 0, 1, 7)]
    yield together(
        "mixed", [build.ask(length, route=routes[number % 4], max_tokens=16) for number, length in enumerate(lengths)]
    )
