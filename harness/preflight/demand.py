"""What a load asks of the servers, and whether they can give it: context and vocabulary. Pure."""

from collections.abc import Iterator, Sequence

from harness.facts import Deployment
from harness.loads.demand import Demand
from harness.preflight.item import Item, Level


def fits(deployment: Deployment, demands: Sequence[Demand], vocabulary: int | None) -> Iterator[Item]:
    """Whether every demand fits every server; ``vocabulary``: tokens, None where it is not known."""
    found = [item for demand in demands for item in _lacking(deployment, demand, vocabulary)]
    yield from found[:_MOST] if found else [_all_fit(deployment, demands)]


_MOST = 5
"""Findings of this kind that are told: a file may have thousands of lines that are too long."""


def _lacking(deployment: Deployment, demand: Demand, vocabulary: int | None) -> Iterator[Item]:
    limits = {server.name: server.max_model_len for server in deployment.servers if server.max_model_len is not None}
    if limits:
        name, limit = min(limits.items(), key=lambda one: one[1])
        wanted = (demand.prompt_tokens or 1) + demand.output_tokens
        if wanted > limit:
            prompt = f"a prompt of {demand.prompt_tokens:,} tokens and " if demand.prompt_tokens else ""
            yield Item(
                "load",
                Level.STOPS,
                f"{demand.source} asks for {prompt}an answer of {demand.output_tokens:,}, and {name} takes {limit:,} "
                "in all (its context)",
                "Ask for less, or launch the servers with a larger --max-model-len",
            )
    if vocabulary is not None and demand.largest_token is not None and demand.largest_token >= vocabulary:
        yield Item(
            "load",
            Level.STOPS,
            f"{demand.source} has the token id {demand.largest_token:,}, and the model's vocabulary ends at "
            f"{vocabulary - 1:,}",
            "Check that the file was written for this model's tokenizer",
        )


def _all_fit(deployment: Deployment, demands: Sequence[Demand]) -> Item:
    limits = [server.max_model_len for server in deployment.servers if server.max_model_len is not None]
    known = [one for one in demands if one.prompt_tokens is not None]
    if not limits:
        return Item("load", Level.UNTOLD, "The servers do not tell the length of their context")
    longest = max((one.prompt_tokens or 1) + one.output_tokens for one in known) if known else 0
    told = f"requests of up to {longest:,} tokens" if known else "requests whose length is not known beforehand"
    return Item("load", Level.OK, f"{told}; the servers take {min(limits):,}")
