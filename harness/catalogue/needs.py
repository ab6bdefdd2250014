"""What a case needs of a deployment, and what a deployment lacks of it.

A fact that the deployment does not tell excludes nothing, unless the scenario cannot be written without it: the case is
run, and judged as far as can be.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from harness.facts import Connector, Deployment, Role, Server, alike


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """All of it must be so; None and 0 ask for nothing."""

    own_proxy: bool = False
    """The harness's own proxy: what another one asks of prefill servers for these requests, or makes of their refusals,
    is not known."""
    transfers: bool = True
    """A connector that carries KV from prefill to decode servers."""
    offloads: bool = False
    """A connector with an offload tier."""
    connectors: tuple[Connector, ...] | None = None
    """These and no others, in this order."""
    prefix_caching: bool | None = None
    same_block_sizes: bool | None = None
    """On prefill and decode servers; False: they must differ."""
    same_versions: bool | None = None
    prefill: int = 1
    """Prefill servers, at least."""
    decode: int = 1
    """Decode servers, at least."""
    context: int = 0
    """Tokens of prompt and answer that every server must take."""
    most_context: int = 0
    """Tokens that a server may take at most: the case fills it."""
    most_blocks: int = 0
    """Blocks in the largest pool at most: the case fills a pool, or overflows it."""
    least_blocks: int = 0
    """Blocks in the smallest pool at least: the case must not fill it."""
    batch_tokens: int = 0
    """Tokens of an engine step at most: the case's prompts must take several steps."""


def unmet(needs: Needs, deployment: Deployment) -> str | None:
    """What the deployment lacks, in words, from its own facts; None when it lacks nothing."""
    return next((why for lack in _LACKS for why in lack(needs, deployment)), None)


def _connectors(needs: Needs, deployment: Deployment) -> Iterator[str]:
    named = alike(map(_named, deployment.servers))
    if needs.connectors is not None and any(_others(needs.connectors, server) for server in deployment.servers):
        yield f"it needs the connectors [{', '.join(needs.connectors)}], and the deployment has {named}"
    if needs.transfers and deployment.has(Connector.NIXL) is False:
        yield f"it needs KV transfer, and the deployment has {named}"
    if needs.offloads and deployment.has(Connector.OFFLOADING) is False:
        yield f"it needs an offload tier, and the deployment has {named}"


def _others(wanted: tuple[Connector, ...], server: Server) -> bool:
    return server.connectors is not None and server.connector_names != tuple(map(str, wanted))


def _named(server: Server) -> str:
    names = server.connector_names
    return "[connectors that are not known]" if names is None else f"[{', '.join(names) or 'no connector'}]"


def _proxy(needs: Needs, deployment: Deployment) -> Iterator[str]:
    if needs.own_proxy and deployment.own_proxy is False:
        yield (
            "it predicts what the harness's own proxy asks of prefill servers and passes back, and the proxy of this "
            "deployment is another"
        )


def _counts(needs: Needs, deployment: Deployment) -> Iterator[str]:
    for role, wanted in ((Role.PREFILL, needs.prefill), (Role.DECODE, needs.decode)):
        there = len(deployment.of(role))
        if there < wanted:
            yield f"it needs {wanted} {role} servers, and there are {there}"


def _caching(needs: Needs, deployment: Deployment) -> Iterator[str]:
    for server in deployment.servers:
        there, wanted = server.prefix_caching, needs.prefix_caching
        if None not in (there, wanted) and there != wanted:
            yield f"it needs prefix caching {_on(wanted)}, and {server.name} has it {_on(there)}"


def _on(value: bool | None) -> str:
    return "on" if value else "off"


def _likeness(needs: Needs, deployment: Deployment) -> Iterator[str]:
    for wanted, name, told in (
        (needs.same_block_sizes, "block sizes", [server.block_size for server in deployment.servers]),
        (needs.same_versions, "engine versions", [server.version for server in deployment.servers]),
    ):
        if wanted is not None and None not in told and (len(set(told)) == 1) != wanted:
            values = ", ".join(map(str, dict.fromkeys(told)))
            yield f"it needs {'equal' if wanted else 'different'} {name}, and the servers have {values}"


def _sizes(needs: Needs, deployment: Deployment) -> Iterator[str]:
    for server in deployment.servers:
        blocks, context, step = server.num_blocks, server.max_model_len, server.max_num_batched_tokens
        if needs.most_blocks and (blocks is None or blocks > needs.most_blocks):
            yield f"it fills a pool of up to {needs.most_blocks:,} blocks, and {server.name} has {_number(blocks)}"
        if needs.least_blocks and blocks is not None and blocks < needs.least_blocks:
            yield f"it needs a pool of {needs.least_blocks:,} blocks, and {server.name} has {blocks:,}"
        if needs.context and context is not None and context < needs.context:
            yield f"it needs a context of {needs.context:,} tokens, and {server.name} takes {context:,}"
        if needs.most_context and (context is None or context > needs.most_context):
            yield f"it fills a context of up to {needs.most_context:,} tokens, and {server.name} has {_number(context)}"
        if needs.batch_tokens and (step is None or step > needs.batch_tokens):
            yield (
                f"it needs engine steps of up to {needs.batch_tokens:,} tokens, so that prompts are prefilled in "
                f"chunks, and {server.name} has {_number(step)}"
            )


def _number(value: int | None) -> str:
    return "a number that it does not tell" if value is None else f"{value:,}"


_LACKS: tuple[Callable[[Needs, Deployment], Iterator[str]], ...] = (
    _connectors,
    _proxy,
    _counts,
    _caching,
    _likeness,
    _sizes,
)
