"""Cache probes: prefixes of served prompts, sent again to read the caches that the load has filled.

A block with wrong KV need not make its own request wrong. (If two whole blocks changed places, attention gives the same
result: keys are rotated before they are cached.) But every later prompt that begins alike hits the block by its hash.
Probes are such prompts. Each is a *prefix* of a served prompt, whole blocks and the token after them, and hits exactly
these blocks. If blocks i and j changed places, every prefix that ends between them is answered wrong. For neighbouring
blocks that is a single prefix, so only a probe of every prefix is sure to find them.

1. A probe computes one token and generates one: it costs two engine tokens at any length.
2. If the prompt is teacher-forced anyway, its forcing shows the best token after every prefix at no further cost.
   Prefixes of other prompts are sent to the prefill server too, whose cache no transfer has filled; if the two servers
   disagree, the probe itself is forced.
3. Prefixes of prompts whose outputs look strange (judging/witness.py) or wrong come first. The others are drawn from
   all prompts, and the checker of outputs reports how many there were.
4. Prompts that begin alike share blocks; their common prefix is sent once to each server that may hold it.
5. A probe goes to the server that served the prompt, since no other server has the blocks. If the proxy does not report
   which server that was, the probe goes to every server of the role.
6. A probe that hit nothing was computed anew and shows nothing about a cache. Counters read around the probes show how
   many hit (harness/verify/judging/hits.py). If the deployment had not settled after the load, counters would show
   nothing and are not read; the usage in the answers may still show hits.

A probe reads the server's prefix cache. To read the offload tier, the prefix cache must be emptied first (tiers.py).
The counters of probes are not judged: which blocks are still cached depends on evictions that are not predicted.
"""

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import accumulate, islice

from harness.facts import Deployment, Role
from harness.history import History, Scraped
from harness.scenario import Condition, Endpoint, Purpose, Request, Route, Sampling
from harness.verify.asking.ledger import Mark
from harness.verify.asking.options import Phases, Verification
from harness.verify.asking.outputs import through_proxy, tokens_of
from harness.verify.asking.policy import Extent
from harness.verify.asking.prefixes import Prefix, drawn, holders, once_each, prefixes_of
from harness.verify.judging import doubtful, suspects
from harness.verify.judging.load_part import asked_of
from harness.verify.judging.witness import witnessed

_ON_PREFILL = 64
"""Prefixes of teacher-forced prompts sent to prefill: blocks that it restored from a tier may be wrong too."""
_SAMPLED = 1024
"""Prefixes that ``sample:N`` probes."""
_TIMED = 16
"""Prefixes that are probed first if time is limited."""
PROBES = Mark(tokens=0.15, seconds=0.3)
"""What may be spent when the prefix caches have been probed."""


_SUSPECTED = 512
"""Prefixes of wrong and doubtful outputs' prompts, at most."""
_PREFIX_CACHE = {route: f"probe-{route}" for route in (Route.DECODE, Route.PREFILL)}
"""Names of probes of prefix caches."""


def cache_probes(verification: Verification, history: History) -> Phases:
    """Probes of the decode servers' prefix caches, and some of prefill's, that were not sent yet.

    Prefixes of prompts whose outputs look strange or wrong come first.
    """
    first = {*witnessed(history).strangest, *suspects(history)}
    new = _unsent(history, drawn(verification, history, Route.DECODE, first))
    return _probes(verification, history, list(islice(new, _most_probed(verification, history))))


def strange_probed(verification: Verification, history: History) -> Phases:
    """Probes of all prefixes of prompts whose outputs look strange, if decode may still have their blocks."""
    recent = _may_be_cached(verification, history)
    return _probed_whole(verification, history, [name for name in witnessed(history).strangest if name in recent])


def _may_be_cached(verification: Verification, history: History) -> set[str]:
    """Ids of the requests after which no more tokens were served than the smallest decode server's cache holds."""
    pools = [server.num_blocks for server in verification.deployment.of(Role.DECODE)]
    capacity = min((blocks for blocks in pools if blocks is not None), default=math.inf) * verification.block_size
    served = sorted(through_proxy(history), key=lambda o: o.ended.at, reverse=True)
    after = accumulate((tokens_of(o) for o in served), initial=0)
    return {o.request.request_id for o, later in zip(served, after, strict=False) if later <= capacity}


def suspects_probed(verification: Verification, history: History) -> Phases:
    """Probes of all prefixes of prompts whose outputs look wrong or doubtful."""
    return _probed_whole(verification, history, {*suspects(history), *doubtful(history)})


def _probed_whole(verification: Verification, history: History, doubted: Collection[str]) -> Phases:
    """``doubted``: ids of the requests that have the prompts."""
    names = set(doubted)
    theirs = [o for o in through_proxy(history) if o.request.request_id in names] if names else []
    new = _unsent(history, once_each(prefixes_of(verification, theirs, Route.DECODE)))
    chosen = list(islice(new, _SUSPECTED))
    return _probes(verification, history, chosen) if chosen else ()


def _unsent(history: History, prefixes: Iterable[Prefix]) -> Iterator[Prefix]:
    sent = {o.request.request_id for o in asked_of(history) if o.request.purpose is Purpose.PROBE}
    return (one for one in prefixes if one.name(_PREFIX_CACHE[Route.DECODE]) not in sent)


def _probes(verification: Verification, history: History, chosen: Sequence[Prefix]) -> Phases:
    forced = {o.request.request_id for o in verification.picked(history)}
    with_truth = [prefix for prefix in chosen if prefix.source.request.request_id in forced]
    without = [prefix for prefix in chosen if prefix.source.request.request_id not in forced]
    on_prefill = _on_prefill([*without, *with_truth[:_ON_PREFILL]], verification.deployment)
    # Shorter prefixes come first: if a block was evicted, only longer ones hit the block that is computed in its place.
    # Both servers are asked in one phase, since neither waits for the other, and counters are read for each of them.
    asked = [(one, Route.DECODE) for one in chosen] + [(one, Route.PREFILL) for one in on_prefill]
    probes = (
        _probe(one, route, _PREFIX_CACHE[route], Condition.PREFIX_CACHE)
        for one, route in sorted(asked, key=lambda pair: pair[0].tokens)
    )
    return verification.phase("probe", probes, history, watched=_settled(history))


def _most_probed(verification: Verification, history: History) -> int | None:
    """How many prefixes the policy allows in this step; None: all.

    If time is limited, a few come first, to see how long they take. Too many would be cut off at the end of their time,
    and those are the longest ones.
    """
    policy = verification.how.policy
    if policy.extent is Extent.ALL:
        return None
    if policy.extent is Extent.SAMPLE:
        # A sample of no outputs probes no prefixes either.
        return min(1, int(policy.amount)) * _SAMPLED
    timed = any(o.request.purpose is Purpose.PROBE for o in asked_of(history))
    # Of most prefixes, both servers are asked.
    most = verification.ledger(history).probes_left(PROBES) // 2
    return most if timed else min(most, _TIMED)


def tier_phase(verification: Verification, history: History, route: Route, chosen: Sequence[Prefix]) -> Phases:
    """One phase that sends the prefixes, in this order, to the servers of a route, whose prefix caches are empty."""
    name = f"probe-{route}-tier"
    probes = (_probe(prefix, route, name, Condition.OFFLOAD_TIER) for prefix in chosen)
    return verification.phase(name, probes, history, watched=_settled(history))


def _on_prefill(chosen: Iterable[Prefix], deployment: Deployment) -> list[Prefix]:
    """The same prefixes for the prefill servers."""
    servers = ((one, holders(deployment, one.source, Route.PREFILL)) for one in chosen)
    return once_each(replace(one, server=server) for one, holders in servers for server in holders)


def _settled(history: History) -> bool:
    """Whether every server had settled when its counters were last read after a phase of the load."""
    last = {one.server: one.settled for one in history.of(Scraped) if one.label == "after"}
    return all(last.values())


def _probe(prefix: Prefix, route: Route, phase: str, cache: Condition) -> Request:
    return replace(
        prefix.source.request,
        request_id=prefix.name(phase),
        prompt=(prefix.source.prompt_token_ids or ())[: prefix.tokens + 1],
        sampling=Sampling(max_tokens=1, logprobs=2, ignore_eos=True),
        route=route,
        server=prefix.server,
        endpoint=Endpoint.COMPLETIONS,
        stream=False,
        continues=None,
        purpose=Purpose.PROBE,
        about=prefix.source.request.request_id,
        condition=cache,
    )
