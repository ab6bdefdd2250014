"""Other people's requests: how much other users of a server may have added to its counters.

A server counts all requests together. If it counted more than this run's requests explain, somebody else uses it too,
or it counts twice: from outside, both look the same. Other people's requests can explain a limited amount, and a
counter within that amount is unknown:

Rule 1. Other people's requests have at most as many prompt tokens as were counted above this run's lower bound. Each
of these tokens has one source, and each of their blocks holds at least one token. A lookup counts each token once, or
twice if a single token is transferred. A request that is cancelled before its first output is looked up, and possibly
transferred, without its prompt tokens being counted.

Rule 2. Other people's requests can only make a counter larger. A counter below this run's lower bound is wrong, except
for rule 3.

Rule 3. From the first phase in which the counters show other people's requests, these may have evicted blocks that this
run's requests would have found.

Rule 4. Every prompt that is looked up in a prefix cache has at least one token that is not found there, and on a server
with a connector that token is looked up in the connector too. So if external lookups do not exceed this run's own,
only this run's prompts were looked up, and additional lookups in the prefix cache are a fault.

Only the harness knows the addresses of a deployment that it launched: there, a higher count is a fault.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from harness.facts import Deployment, Server
from harness.oracle import ServerExpectation
from harness.oracle.formulas import Formulas
from harness.verdict import Bounds

_BY_TOKEN = ("prompt_tokens", "local_compute", "local_cache_hit", "external_kv_transfer")
_SHOWN_BY = (
    ("prompt_tokens", "counted"),
    ("prefix_queries", "looked up"),
    ("external_queries", "looked up in its connectors"),
)
"""Counters that show other people's requests if they exceed this run's own, each with a verb for the message."""
_BY_LOOKUP = ("prefix_queries", "prefix_hits", "external_queries", "external_hits")


@dataclass(frozen=True, slots=True)
class Others:
    """Upper limits for other people's requests on one server, or on the servers of a role, in one phase."""

    tokens: int
    """Prompt tokens counted for other people's requests."""
    looked_up: int
    """Tokens looked up for other people's requests."""
    generated: int
    """Tokens generated for other people's requests."""
    preemptions: int
    expectation: ServerExpectation
    """The expectation of this run's own requests if any block may have been evicted."""
    why: str

    def explained(self, counter: str, servers: Sequence[Server], deployment: Deployment) -> Bounds | None:
        """The possible growth of the counter; None if this run's own part cannot be predicted."""
        own = self.expectation.of(counter)
        if own is None:
            return None
        return Bounds(own.low, own.high + self._added(counter, servers, deployment))

    def _added(self, counter: str, servers: Sequence[Server], deployment: Deployment) -> int:
        formulas = [Formulas(deployment, server) for server in servers]
        block = max((one.block_bytes for one in formulas), default=0)
        size = min((one.block_size for one in formulas), default=1)
        added = {
            "generation_tokens": self.generated,
            **dict.fromkeys(_BY_TOKEN, self.tokens),
            **dict.fromkeys(_BY_LOOKUP, self.looked_up),
            "nixl_bytes": self.looked_up * block,
            "nixl_transfers": self.looked_up * max((one.most_reads for one in formulas), default=1),
            "offload_store_bytes": (self.looked_up + self.generated) // size * block,
            "offload_load_bytes": self.looked_up * (1 + self.preemptions) // size * block,
        }
        return added.get(counter, 0)


@dataclass(frozen=True, slots=True)
class Growth:
    """The growth of some counters of a server, or of a role's servers together; None if unknown."""

    prompt_tokens: float | None
    prefix_queries: float | None
    generation_tokens: float | None
    preemptions: float | None
    external_queries: float | None = None


def surplus(name: str, growth: Growth, expectation: ServerExpectation) -> str:
    """How the counters show other people's requests, in words; empty if they show none."""
    for counter, verb in _SHOWN_BY:
        seen, own = getattr(growth, counter), expectation.of(counter)
        if seen is None or own is None or seen <= own.high or counter in expectation.at_least:
            continue
        if not _can_show_others(counter, growth, expectation):
            continue
        what = "prompt tokens" if counter == "prompt_tokens" else "tokens"
        return (
            f"{name} {verb} {seen - own.high:,} {what} more than this run's requests have: somebody else uses this "
            "server (or it counts twice, which looks the same from outside)"
        )
    return ""


def _can_show_others(counter: str, growth: Growth, expectation: ServerExpectation) -> bool:
    """Whether a higher count must come from other people's requests, and not from this run's own cache misses."""
    external, prefix = expectation.of("external_queries"), expectation.of("prefix_queries")
    if counter == "prefix_queries":
        # Rule 4. A server without a connector counts no external lookups at all.
        seen = growth.external_queries
        return external is None or seen is None or not 0 < seen <= external.low
    # This run's own misses in a prefix cache are looked up in the connectors.
    return counter != "external_queries" or (prefix is not None and prefix.high == 0)


def earlier(name: str) -> str:
    """The reason for a phase without other people's requests that comes after a phase with such requests."""
    return f"somebody else used {name} earlier in this run, and may have evicted blocks that this run's requests need"


def others(growth: Growth, own: ServerExpectation, disturbed: ServerExpectation, why: str) -> Others:
    """Limits of other people's part in a phase's growth (rule 1)."""
    tokens = _above(growth.prompt_tokens, own.of("prompt_tokens"))
    looked_up = _above(growth.prefix_queries, own.of("prefix_queries"))
    if _can_show_others("external_queries", growth, own):
        looked_up = max(looked_up, _above(growth.external_queries, own.of("external_queries")))
    return Others(
        tokens=tokens,
        looked_up=max(2 * tokens, looked_up),
        generated=_above(growth.generation_tokens, own.of("generation_tokens")),
        preemptions=int(growth.preemptions or 0),
        expectation=disturbed,
        why=why,
    )


def _above(seen: float | None, own: Bounds | None) -> int:
    return max(int(seen) - own.low, 0) if seen is not None and own is not None else 0


def own_tokens(expectations: Iterable[Mapping[str, ServerExpectation]], names: Iterable[str]) -> int | None:
    """The most prompt tokens of this run's requests, over phases and servers; None if a part is not predicted."""
    wanted = set(names)
    bounds = [each.of("prompt_tokens") for one in expectations for name, each in one.items() if name in wanted]
    known = [bound.high for bound in bounds if bound is not None]
    return sum(known) if len(known) == len(bounds) else None
