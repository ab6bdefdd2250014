"""The cache probe: beginnings of served prompts, asked again through the caches that the load has filled.

A block that arrived wrong can leave its own request right (two whole blocks that changed places do: keys are rotated
before they are cached, so attention does not see their order) and still be found, by its hash, by every later prompt
that begins alike. So the probe asks for such prompts: each is a *prefix* of a served prompt, some whole blocks and the
token after them, and hits these blocks and no other. Blocks i and j that changed places are seen by every prefix that
ends between them, and two neighbours by one prefix alone: only all prefixes of a prompt are sure to find it.

Rule 1. A probe computes one token and generates one: a prefix costs two engine tokens, whatever its prompt's length.
Rule 2. What is right comes for nothing where the prompt is teacher-forced anyway: that forcing tells the best token
        after every beginning of it. Prefixes of other prompts are asked of the prefill server too, whose cache nothing
        was transferred to. Where the two disagree, and nowhere else, the probe itself is forced.
Rule 3. Not all that could be asked needs to be: prefixes are drawn from all of them, prompts and places alike, and the
        checker of outputs says how many there were.
Rule 4. Prompts that begin alike share blocks, and a prefix of them is asked once of each server that may hold it.
Rule 5. The server that served the prompt is asked, for no other has its blocks. Where nobody knows which of several it
        was (a proxy that does not say), each of them is.
Rule 6. A probe that hit nothing was computed anew, and says nothing about a cache. So counters are read around the
        probes, from which the checker of outputs tells how many hit (checkers/outputs/hits.py). Not where the
        deployment was seen busy with something else: it would be waited for in vain, and its counters would tell
        nothing. There the answers' own usage tells, if anything.

Asked of D directly a probe reads D's prefix cache, of P P's. To read an offload tier the prefix cache must have lost
the blocks first. It is emptied by ``POST /reset_prefix_cache``, which leaves the tier; where a server has no such
endpoint, or it is not ours to empty its caches, its tier is not asked, and that is said. (Prompts enough to fill the
pool would push the blocks out too, but out of the tier as well: they are offloaded themselves.)

Not counted: what is cached by then depends on evictions that nobody predicts.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from harness.facts import Role, Server, serving
from harness.history import History, Operation, Outcome, Scraped
from harness.scenario import Condition, Endpoint, Phase, Purpose, Request, Route, Sampling, Scenario

ON_PREFILL = 64
"""Prefixes asked of the prefill server for its own sake: what it restored from an offload tier may be wrong too."""
TIER_PREFIXES = 1024
"""Prefixes that each tier is asked for at most, the longer ones first: they restore what the shorter ones read."""
_PURPOSE = "Blocks that were stored wrong although every answer was right: poison for the prompts that hit them later."
_ROLES = {Route.DECODE: Role.DECODE, Route.PREFILL: Role.PREFILL}


@dataclass(frozen=True, slots=True)
class Places:
    """The servers of a deployment, and which of them served a request."""

    servers: tuple[Server, ...] = ()
    """None: one of each role, about which nothing else is known."""

    def of(self, operation: Operation, route: Route) -> tuple[int, ...]:
        """Indices among the route's servers: the one that served the operation, or all that may have."""
        servers = [server for server in self.servers if server.role is _ROLES[route]]
        ended = operation.ended
        index = serving(servers, ended.decode_server if route is Route.DECODE else ended.prefill_server)
        return tuple(range(max(len(servers), 1))) if index is None else (index,)


@dataclass(frozen=True, slots=True)
class Prefix:
    """A beginning of a served prompt, to be asked of one server."""

    source: Operation
    tokens: int
    """Whole blocks of them; the probe has one more."""
    server: int
    """Index among the servers of the route that it is asked of."""

    @property
    def key(self) -> tuple[int, str | None, tuple[int, ...]]:
        """Equal for prefixes that read the same blocks."""
        return self.server, self.source.request.cache_salt, (self.source.prompt_token_ids or ())[: self.tokens]


@dataclass(frozen=True, slots=True, kw_only=True)
class Probing:
    """Which prefixes are asked, and how many at once."""

    scenario: str
    block_size: int
    concurrency: int
    seed: int = 0
    most: int | None = None
    """None: all."""
    places: Places = field(default_factory=Places)

    def drawn(self, history: History, route: Route, most: int | None) -> list[Prefix]:
        """At most so many of the route's prefixes, in an order drawn from the seed."""
        everything = prefixes(history, self.scenario, self.block_size, route, self.places)
        order = np.random.default_rng(self.seed).permutation(len(everything))
        return [everything[index] for index in order[:most]]


def cache_probe(history: History, how: Probing, *, forced: Collection[str] = ()) -> Scenario | None:
    """Prefixes of the served prompts through D's cache, and those that need it through P's.

    ``forced``: request ids of outputs that will be teacher-forced. None where no prompt has a block.
    """
    chosen = how.drawn(history, Route.DECODE, how.most)
    if not chosen:
        return None
    # The shorter ones first: should a block be gone, whatever is computed in its place is found by longer ones only.
    told = [prefix for prefix in chosen if prefix.source.request.request_id in forced]
    untold = [prefix for prefix in chosen if prefix.source.request.request_id not in forced]
    on_prefill = _elsewhere([*untold, *told[:ON_PREFILL]], Route.PREFILL, how.places)
    watched = _rested(history, how.scenario)
    phases = (
        replace(
            _phase(route, sorted(asked, key=lambda prefix: prefix.tokens), how.concurrency, Condition.PREFIX_CACHE),
            watched=watched,
        )
        for route, asked in ((Route.DECODE, chosen), (Route.PREFILL, on_prefill))
    )
    return Scenario(how.scenario, _PURPOSE, tuple(phases))


def prefixes(history: History, scenario: str, block_size: int, route: Route, places: Places) -> list[Prefix]:
    """Every prefix of every served prompt, once for each server of the route that may hold it (rules 4 and 5)."""
    return _once(
        Prefix(operation, tokens, server)
        for operation in history.operations(scenario=scenario)
        if _is_served(operation)
        for server in places.of(operation, route)
        for tokens in range(block_size, len(operation.prompt_token_ids or ()), block_size)
    )


def _elsewhere(chosen: Iterable[Prefix], route: Route, places: Places) -> list[Prefix]:
    """The same prefixes for the servers of another route."""
    return _once(replace(one, server=server) for one in chosen for server in places.of(one.source, route))


def _once(found: Iterable[Prefix]) -> list[Prefix]:
    by_key: dict[tuple[int, str | None, tuple[int, ...]], Prefix] = {}
    for prefix in found:
        by_key.setdefault(prefix.key, prefix)
    return list(by_key.values())


def _rested(history: History, scenario: str) -> bool:
    """Whether the deployment came to rest after the load, as far as it was looked at (rule 6)."""
    readings = [one for one in history.of(Scraped) if one.scenario == scenario and one.label == "after"]
    return all(one.settled for one in readings)


def _is_served(operation: Operation) -> bool:
    request = operation.request
    of_the_load = request.route is Route.PROXY and request.of_load
    return of_the_load and operation.outcome is Outcome.OK


def _phase(route: Route, chosen: Sequence[Prefix], concurrency: int, cache: Condition) -> Phase:
    name = f"probe-{route}" if cache is Condition.PREFIX_CACHE else f"probe-{route}-tier"
    return Phase(name, tuple(_probes(chosen, route, name, cache)), concurrency, counted=False)


def _probes(chosen: Sequence[Prefix], route: Route, name: str, cache: Condition) -> Iterator[Request]:
    for prefix in chosen:
        who = prefix.source.request.request_id
        where = f"@{prefix.server}" if prefix.server else ""
        yield replace(
            prefix.source.request,
            request_id=f"{who}-{name}-{prefix.tokens}{where}",
            prompt=(prefix.source.prompt_token_ids or ())[: prefix.tokens + 1],
            sampling=Sampling(max_tokens=1, logprobs=2, ignore_eos=True),
            route=route,
            server=prefix.server,
            endpoint=Endpoint.COMPLETIONS,
            stream=False,
            continues=None,
            purpose=Purpose.PROBE,
            about=who,
            condition=cache,
        )


# --- the offload tier ---


def tier_reset(scenario: str, servers: Mapping[Route, Sequence[int]]) -> Scenario:
    """Empties the prefix caches of these servers of each route, and leaves what is in their offload tiers.

    The deployment is at rest before, since a cache of which a request holds blocks is not emptied.
    """
    requests = tuple(
        Request(
            f"reset-{route}-{number}",
            (),
            route=route,
            server=number,
            stream=False,
            purpose=Purpose.RESET,
        )
        for route, numbers in servers.items()
        for number in numbers
    )
    return Scenario(scenario, _PURPOSE, (Phase("reset", requests, counted=False, watched=True),))


def tier_probe(history: History, how: Probing) -> Scenario | None:
    """The prefixes once more, of each server whose prefix cache was emptied since; None where none was."""
    emptied = {
        (o.request.route, o.request.server or 0)
        for o in history.operations(scenario=how.scenario)
        if o.request.purpose is Purpose.RESET and o.outcome is Outcome.OK
    }
    phases = []
    for route in (Route.DECODE, Route.PREFILL):
        drawn = [one for one in how.drawn(history, route, None) if (route, one.server) in emptied]
        chosen = sorted(drawn[: how.most], key=lambda prefix: -prefix.tokens)
        if chosen:
            phases.append(replace(_phase(route, chosen, how.concurrency, Condition.OFFLOAD_TIER), watched=True))
    return Scenario(how.scenario, _PURPOSE, tuple(phases)) if phases else None
