"""Other people's requests: what somebody else may have added to a server's counters.

Counters only grow, and a server counts everybody's requests together. So where it counted more than this run's
requests can come to, somebody else asks it, too, or it counts twice: from outside the two look alike. What such
requests may have added has bounds, and what lies within them is unknown:

Rule 1. They had, at most, the prompt tokens counted above the lower bound of this run's. Each of their tokens has one
source, and each of their blocks holds a token at least; a lookup counts each token once, or twice where one token
alone is pulled. A request that is given up before its first output is looked up, and may be pulled, uncounted.

Rule 2. They only add. Less than this run's lower bound stays wrong, unless caches come into it:

Rule 3. From the first phase in which they show, they may have evicted what this run's requests would have found.

Rule 4. Whatever is looked up in a prefix cache holds a token at least that is not there, and on a server with any
connector that one is looked up there, too. So where the external lookups are no more than this run's own, nobody
else's prompt was looked up, and more lookups in the prefix cache are a fault.

A deployment that was launched for the run has addresses that nobody else knows: there, more counted is a fault.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from harness.facts import Deployment, Server
from harness.oracle import ServerExpectation
from harness.oracle.formulas import Formulas
from harness.verdict import Bounds

_BY_TOKEN = ("prompt_tokens", "local_compute", "local_cache_hit", "external_kv_transfer")
_TOLD_BY = (
    ("prompt_tokens", "counted"),
    ("prefix_queries", "looked up"),
    ("external_queries", "looked up in its connectors"),
)
"""Counters of which more than this run's own shows other people's requests, and how that is said."""
_BY_LOOKUP = ("prefix_queries", "prefix_hits", "external_queries", "external_hits")


@dataclass(frozen=True, slots=True)
class Others:
    """What somebody else may have done to one server, or to the servers of a role, in one phase."""

    tokens: int
    """Prompt tokens of theirs that were counted, at most."""
    looked_up: int
    """Tokens of theirs that were looked up, at most."""
    generated: int
    """Tokens generated for them, at most."""
    preemptions: int
    expectation: ServerExpectation
    """What this run's own requests come to, whatever was evicted."""
    why: str

    def explained(self, counter: str, servers: Sequence[Server], deployment: Deployment) -> Bounds | None:
        """What the counter may have grown by; None where not even this run's own part can be predicted."""
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
    """By how much some counters of a server, or of a role's servers together, grew; None where not known."""

    prompt_tokens: float | None
    prefix_queries: float | None
    generation_tokens: float | None
    preemptions: float | None
    external_queries: float | None = None


def surplus(name: str, growth: Growth, expectation: ServerExpectation) -> str:
    """How the servers counted more than this run's requests come to, in words; empty where they did not."""
    for counter, did in _TOLD_BY:
        seen, own = getattr(growth, counter), expectation.of(counter)
        if seen is None or own is None or seen <= own.high or counter in expectation.at_least:
            continue
        if not _tells_of_others(counter, growth, expectation):
            continue
        what = "prompt tokens" if counter == "prompt_tokens" else "tokens"
        return (
            f"{name} {did} {seen - own.high:,} {what} more than this run's requests have: somebody else asks this "
            "server (or it counts twice, which looks the same from outside)"
        )
    return ""


def _tells_of_others(counter: str, growth: Growth, expectation: ServerExpectation) -> bool:
    """Whether more of this counter can come from other people's requests, and not from what this run's found."""
    external, prefix = expectation.of("external_queries"), expectation.of("prefix_queries")
    if counter == "prefix_queries":
        # Rule 4; a server without a connector counts no external lookups at all.
        seen = growth.external_queries
        return external is None or seen is None or not 0 < seen <= external.low
    # What a prefix cache fails to find is looked up in the connectors instead: that is nobody else's request.
    return counter != "external_queries" or (prefix is not None and prefix.high == 0)


def earlier(name: str) -> str:
    """What to say of a phase in which nothing of others shows any more."""
    return f"somebody else asked {name} earlier in this run, and may have evicted what this run's requests would find"


def others(growth: Growth, own: ServerExpectation, disturbed: ServerExpectation, why: str) -> Others:
    """Bounds on other people's part of a phase's growth (rule 1)."""
    tokens = _above(growth.prompt_tokens, own.of("prompt_tokens"))
    looked_up = _above(growth.prefix_queries, own.of("prefix_queries"))
    if _tells_of_others("external_queries", growth, own):
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
    """Prompt tokens that this run's requests come to at most, over phases and servers; None where not predicted."""
    wanted = set(names)
    bounds = [each.of("prompt_tokens") for one in expectations for name, each in one.items() if name in wanted]
    known = [bound.high for bound in bounds if bound is not None]
    return sum(known) if len(known) == len(bounds) else None
