"""The requests of a load, and whether they fit the servers' context and the model's vocabulary. Pure."""

from collections.abc import Iterator, Sequence

from harness.facts import Deployment
from harness.loads.demand import Demand
from harness.preflight.item import Item, Level

_MOST_ITEMS = 5
"""The most findings shown: thousands of lines of a file may be too long."""


def check_demands(deployment: Deployment, demands: Sequence[Demand], vocabulary: int | None) -> Iterator[Item]:
    """Whether every demand fits every server; ``vocabulary``: number of tokens, None if unknown."""
    found = [item for demand in demands for item in _findings(deployment, demand, vocabulary)]
    yield from found[:_MOST_ITEMS] if found else [_all_fit(deployment, demands)]


def _findings(deployment: Deployment, demand: Demand, vocabulary: int | None) -> Iterator[Item]:
    limits = {server.name: server.max_model_len for server in deployment.servers if server.max_model_len is not None}
    if limits:
        name, limit = min(limits.items(), key=lambda one: one[1])
        wanted = (demand.prompt_tokens or 1) + demand.output_tokens
        if wanted > limit:
            prompt = f"a prompt of {demand.prompt_tokens:,} tokens and " if demand.prompt_tokens else ""
            yield Item(
                "load",
                Level.STOPS,
                f"{demand.source} asks for {prompt}an answer of {demand.output_tokens:,} tokens, but the context of "
                f"{name} holds {limit:,} tokens",
                "Ask for fewer tokens, or launch the servers with a larger --max-model-len",
            )
    if vocabulary is not None and demand.largest_token is not None and demand.largest_token >= vocabulary:
        yield Item(
            "load",
            Level.STOPS,
            f"{demand.source} has the token id {demand.largest_token:,}, but the largest id in the model's vocabulary "
            f"is {vocabulary - 1:,}",
            "Check that the file was written for this model's tokenizer",
        )


def _all_fit(deployment: Deployment, demands: Sequence[Demand]) -> Item:
    limits = [server.max_model_len for server in deployment.servers if server.max_model_len is not None]
    known = [demand for demand in demands if demand.prompt_tokens is not None]
    if not limits:
        return Item("load", Level.UNREPORTED, "The servers do not report the length of their context")
    longest = max((demand.prompt_tokens or 1) + demand.output_tokens for demand in known) if known else 0
    load = f"Requests have up to {longest:,} tokens" if known else "The length of the requests is not known in advance"
    return Item("load", Level.OK, f"{load}; the servers' context holds {min(limits):,}")
