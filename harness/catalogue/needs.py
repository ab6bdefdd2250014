"""The needs of a workload, and which of them a deployment does not meet.

A need that depends on an unknown fact counts as met, unless the workload cannot be written without the fact: the
workload then runs, and is judged as far as possible.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from harness.catalogue.setting import tier_blocks
from harness.facts import Connector, Deployment, Role, Server, alike


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """Conditions that must all hold; None and 0 mean no condition."""

    own_proxy: bool = False
    """The harness's own proxy: how another proxy forwards these requests, or answers refusals, is not known."""
    transfers: bool = True
    """A connector that transfers KV from prefill to decode servers."""
    offloads: bool = False
    """A connector with an offload tier."""
    connectors: tuple[Connector, ...] | None = None
    """Exactly these connectors, in this order."""
    prefix_caching: bool | None = None
    same_block_sizes: bool | None = None
    """Whether prefill and decode servers must have equal block sizes (True) or different ones (False)."""
    same_versions: bool | None = None
    prefill: int = 1
    """Least number of prefill servers."""
    decode: int = 1
    """Least number of decode servers."""
    most_context: int = 0
    """Upper limit of the context length in tokens, because the workload fills the context."""
    most_blocks: int = 0
    """Upper limit of the pool size in blocks, because the workload fills or overflows a pool."""
    most_tier: int = 0
    """Upper limit of the offload tier's size in blocks, because a prompt of the workload is longer than the tier."""
    batch_tokens: int = 0
    """Upper limit of the tokens per engine step, because the workload's prompts must take several steps."""


def unmet(needs: Needs, deployment: Deployment) -> str | None:
    """A message about the first need that the deployment does not meet; None if it meets all."""
    return next((why for check in _CHECKS for why in check(needs, deployment)), None)


def _connectors(needs: Needs, deployment: Deployment) -> Iterator[str]:
    named = alike(map(_connector_names, deployment.servers))
    if needs.connectors is not None and any(_has_others(needs.connectors, server) for server in deployment.servers):
        yield f"it needs the connectors [{', '.join(needs.connectors)}], and the deployment has {named}"
    if needs.transfers and deployment.has(Connector.NIXL) is False:
        yield f"it needs KV transfer, and the deployment has {named}"
    if needs.offloads and deployment.has(Connector.OFFLOADING) is False:
        yield f"it needs an offload tier, and the deployment has {named}"


def _has_others(wanted: tuple[Connector, ...], server: Server) -> bool:
    return server.connectors is not None and server.connector_names != tuple(map(str, wanted))


def _connector_names(server: Server) -> str:
    names = server.connector_names
    return "[unknown connectors]" if names is None else f"[{', '.join(names) or 'no connector'}]"


def _proxy(needs: Needs, deployment: Deployment) -> Iterator[str]:
    if needs.own_proxy and deployment.own_proxy is False:
        yield (
            "it needs the harness's own proxy, whose requests to the servers it can predict, and the deployment has "
            "another proxy"
        )


def _server_counts(needs: Needs, deployment: Deployment) -> Iterator[str]:
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


def _equality(needs: Needs, deployment: Deployment) -> Iterator[str]:
    for wanted, name, values in (
        (needs.same_block_sizes, "block sizes", [server.block_size for server in deployment.servers]),
        (needs.same_versions, "engine versions", [server.version for server in deployment.servers]),
    ):
        if wanted is not None and None not in values and (len(set(values)) == 1) != wanted:
            listed = ", ".join(map(str, dict.fromkeys(values)))
            yield f"it needs {'equal' if wanted else 'different'} {name}, and the servers have {listed}"


def _sizes(needs: Needs, deployment: Deployment) -> Iterator[str]:
    for server in deployment.servers:
        blocks, context, step = server.num_blocks, server.max_model_len, server.max_num_batched_tokens
        if needs.most_blocks and (blocks is None or blocks > needs.most_blocks):
            yield f"it fills a pool of up to {needs.most_blocks:,} blocks, and {server.name} has {_number(blocks)}"
        tier = tier_blocks(deployment, server)
        if needs.most_tier and (tier is None or tier > needs.most_tier):
            yield (
                f"it overflows an offload tier of up to {needs.most_tier:,} blocks, and {server.name} has "
                f"{_number(tier)}"
            )
        if needs.most_context and (context is None or context > needs.most_context):
            yield f"it fills a context of up to {needs.most_context:,} tokens, and {server.name} has {_number(context)}"
        if needs.batch_tokens and (step is None or step > needs.batch_tokens):
            yield (
                f"it needs engine steps of up to {needs.batch_tokens:,} tokens, so that prompts are prefilled in "
                f"chunks, and {server.name} has {_number(step)}"
            )


def _number(value: int | None) -> str:
    return "a number that the server does not report" if value is None else f"{value:,}"


_CHECKS = (_connectors, _proxy, _server_counts, _caching, _equality, _sizes)
