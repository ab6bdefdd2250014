"""KV that earlier requests left in a cache, and that this run's requests found although their salts are new.

Predictions of counters rest on salts: under a salt that nobody used before a cache holds nothing. Where a server does
not keep salts apart (salts.py), or something between the clients and the servers drops them, the same prompts asked
earlier, by a run with the same seed, are found again. Whatever is cached is not computed, transferred or stored once
more. That is nobody's fault, so what it can explain is unknown:

- tokens may be computed less, and have another source, up to all of them;
- fewer bytes may be moved and stored, down to none, and as many loaded as the prompts have.

How many tokens there were, and how many lookups, it changes not; nor that no token is computed twice.
"""

from collections.abc import Mapping, Sequence

from harness.facts import Deployment, Server
from harness.history import History
from harness.oracle import ServerExpectation
from harness.oracle.formulas import Formulas
from harness.verdict import Bounds
from harness.verify.judging.salted_path import dropped_on_the_way
from harness.verify.judging.salts import read_salts

_MAY_HAVE_FOUND = "may have found what an earlier run with the same prompts left (one with the same --seed)"
_FEWER = ("nixl_bytes", "nixl_transfers", "offload_store_bytes", "external_queries")
_ANY_SOURCE = ("local_cache_hit", "external_kv_transfer", "prefix_hits", "external_hits")


def leftovers(deployment: Deployment, history: History) -> Mapping[str, str]:
    """Why a server may have found what earlier requests left, by its name; none of a server that cannot have."""
    on_the_way = dropped_on_the_way(deployment, history)
    ignoring = {read.server for read in read_salts(history) if read.ignored}
    why = {name: f"something on the way to {name} drops" for name in on_the_way}
    why |= {name: f"{name} does not heed" for name in ignoring}
    return {name: f"{who} cache_salt, so that {name} {_MAY_HAVE_FOUND}" for name, who in why.items()}


def explained(
    counter: str, expectation: ServerExpectation, servers: Sequence[Server], deployment: Deployment
) -> Bounds | None:
    """What the counter may have grown by where anything at all was found; None where that changes nothing."""
    own, tokens = expectation.of(counter), expectation.of("prompt_tokens")
    if own is None or tokens is None:
        return None
    if counter == "local_compute" or counter in _FEWER:
        return Bounds(0, own.high)
    if counter in _ANY_SOURCE:
        return Bounds(0, max(own.high, tokens.high))
    if counter == "offload_load_bytes":
        formulas = [Formulas(deployment, server) for server in servers]
        block = max((one.block_bytes for one in formulas), default=0)
        size = min((one.block_size for one in formulas), default=1)
        return Bounds(0, own.high + tokens.high // size * block)
    return None
