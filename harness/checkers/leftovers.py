"""KV of an earlier run that this run's requests found in a cache although their salts are new.

Predictions of counters rely on salts: under a new salt, a cache holds nothing. If a server does not keep salts apart
(the check ``salts``), or something between the client and the servers drops them, prompts of an earlier run with the
same seed are found again. Cached tokens are not computed, transferred or stored again. This is no fault of the
deployment, so the differences that leftover KV can explain are unknown:

- any number of tokens may have been found in a cache instead of computed or transferred;
- fewer bytes may have been moved and stored, and up to all bytes of the prompts loaded.

Leftover KV does not change the number of prompt tokens or of lookups, and no token is computed twice.
"""

from collections.abc import Mapping, Sequence

from harness.facts import Deployment, Server
from harness.history import History
from harness.oracle import ServerExpectation
from harness.oracle.formulas import Formulas
from harness.verdict import Bounds
from harness.verify.judging.salted_path import dropped_on_the_way
from harness.verify.judging.salts import read_salts

_MAY_HAVE_FOUND = "may have found cached blocks of an earlier run with the same prompts (one with the same --seed)"
_FEWER = ("nixl_bytes", "nixl_transfers", "offload_store_bytes", "external_queries")
_ANY_SOURCE = ("local_cache_hit", "external_kv_transfer", "prefix_hits", "external_hits")


def leftovers(deployment: Deployment, history: History) -> Mapping[str, str]:
    """By server name: why the server may have found blocks of an earlier run. Other servers are left out."""
    ignoring = {read.server for read in read_salts(history) if read.ignored}
    why = {name: f"something on the way to {name} drops" for name in dropped_on_the_way(deployment, history)}
    why |= {name: f"{name} ignores" for name in ignoring}
    return {name: f"{cause} cache_salt, so that {name} {_MAY_HAVE_FOUND}" for name, cause in why.items()}


def explained(
    counter: str, expectation: ServerExpectation, servers: Sequence[Server], deployment: Deployment
) -> Bounds | None:
    """The possible growth of the counter if any blocks were found; None if the counter does not depend on them."""
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
