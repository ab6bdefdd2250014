"""How many probes hit the cache that they were to read.

If the blocks of a probe were evicted, the server computes them anew: the answer is right, but no cache was tested. A
hit is shown by usage or by counters:

1. The usage in the answer reports the cached prompt tokens (vLLM: ``--enable-prompt-tokens-details``, which leaves a 0
   out). A probe of k whole blocks and one token hit if k blocks were cached.
2. The server's counters are read around all probes of one phase. If its prompt tokens grew by exactly the tokens of the
   probes, no other request was served. If its hits grew by all prefix tokens, each probe hit. Otherwise the missing
   tokens were computed anew, and each probe that missed, missed at least one block.

The blocks of a probe that missed are cached anew. A later probe of the same blocks hits them, and not the blocks that
the load left. So no probe counts that may have hit such blocks: by usage, each probe that reads beyond the point of the
miss; by counters, each probe that begins like one that missed.

Usage does not distinguish the prefix cache from an offload tier that restored a block. If a server has a tier, the
tokens that connectors restored meanwhile are subtracted.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from harness.facts import Connector, Deployment, Role, Server
from harness.history import History, Operation, Outcome
from harness.observe.growth import Delta
from harness.observe.watched import grown
from harness.scenario import Condition, Purpose, Route
from harness.verify.judging.cache_counts import counted_cached_tokens, reported_cached_tokens
from harness.verify.judging.load_part import asked_of

ROLES = {Route.DECODE: Role.DECODE, Route.PREFILL: Role.PREFILL}


def largest_block_size(deployment: Deployment) -> int:
    """The largest block size of the servers, in tokens; 0 if none is known."""
    return max((server.block_size or 0 for server in deployment.servers), default=0)


@dataclass(frozen=True, slots=True)
class Hits:
    """How many probes of one server's cache hit it."""

    cache: Condition | None
    """The prefix cache or the offload tier."""
    server: str
    """Its name; that of the route if it was not recorded which of several servers the probes were sent to."""
    asked: int
    """How many probes there were."""
    least: int = 0
    """Probes whose whole prefix is shown to have hit the cache."""
    missing: int | None = None
    """Prefix tokens that were not found in the cache; None if not known."""
    restored: int | None = None
    """Tokens that connectors restored meanwhile; None if not known."""
    why: str = ""
    """Why no probe is shown to have hit; empty if one is."""


class _Group(NamedTuple):
    """Probes that are counted together."""

    cache: Condition | None
    server: str
    scenario: str
    phase: str


def probe_hits(deployment: Deployment, history: History) -> tuple[Hits, ...]:
    """The hits of each cache that was probed, in the order in which they were probed; phases are added up."""
    by_cache: dict[tuple[Condition | None, str], Hits] = {}
    for one in _hits_by_phase(deployment, history):
        before = by_cache.get((one.cache, one.server))
        by_cache[one.cache, one.server] = one if before is None else _both(before, one)
    return tuple(by_cache.values())


def _both(one: Hits, other: Hits) -> Hits:
    """The hits of one cache in two phases."""
    least = one.least + other.least
    return Hits(
        one.cache,
        one.server,
        one.asked + other.asked,
        least,
        None if one.missing is None or other.missing is None else one.missing + other.missing,
        None if one.restored is None or other.restored is None else one.restored + other.restored,
        "" if least else one.why or other.why,
    )


def _hits_by_phase(deployment: Deployment, history: History) -> tuple[Hits, ...]:
    groups: dict[_Group, list[Operation]] = {}
    for operation in asked_of(history):
        request = operation.request
        if request.purpose is Purpose.PROBE:
            sent = operation.sent
            group = _Group(request.condition, server_name(deployment, operation), sent.scenario, sent.phase)
            groups.setdefault(group, []).append(operation)
    reporting = _reporting_usage(deployment, history) if groups else set()
    return tuple(
        _hits(deployment, history, group, probes, reports_usage=group.server in reporting)
        for group, probes in groups.items()
    )


def server_name(deployment: Deployment, operation: Operation) -> str:
    """The name of the server that a request was sent to; its route if the server was not recorded."""
    request = operation.request
    servers = deployment.of(ROLES[request.route]) if request.route in ROLES else ()
    index = 0 if len(servers) == 1 else request.server
    return str(request.route) if index is None or index >= len(servers) else servers[index].name


def prefix_hashes(operation: Operation, block_size: int) -> Iterator[int]:
    """A hash of each prefix of whole blocks that leaves at least one token of the prompt, the shortest first."""
    prompt, key = operation.prompt_token_ids or (), hash(operation.request.cache_salt)
    for start in range(0, len(prompt) - block_size, block_size):
        key = hash((key, prompt[start : start + block_size]))
        yield key


def _reporting_usage(deployment: Deployment, history: History) -> set[str]:
    """The servers that report cached tokens in any answer: then they report them in all."""
    return {
        server_name(deployment, operation)
        for operation in history.operations()
        if operation.request.route in ROLES and reported_cached_tokens(operation) is not None
    }


def _hits(
    deployment: Deployment, history: History, group: _Group, probes: list[Operation], *, reports_usage: bool
) -> Hits:
    cache, name, scenario, phase = group
    server = next((one for one in deployment.servers if one.name == name), None)
    if server is None:
        return Hits(cache, name, len(probes), why="it was not recorded which of several servers was asked")
    grew = grown(history, scenario, phase, name)
    probed = _ProbedServer(server, probes, tier=cache is Condition.OFFLOAD_TIER)
    found = probed.by_usage(grew) if reports_usage else probed.by_counters(grew)
    return Hits(cache, name, len(probes), *found)


Found = tuple[int, int | None, int | None, str]
"""``least``, ``missing``, ``restored`` and ``why`` of :class:`Hits`."""


@dataclass(frozen=True, slots=True)
class _ProbedServer:
    """A server and the probes of one of its caches."""

    server: Server
    probes: Sequence[Operation]
    tier: bool
    """Whether the offload tier was probed, so that tokens that connectors brought are hits."""

    @property
    def block(self) -> int:
        return self.server.block_size or 1

    def wanted(self, probe: Operation) -> int:
        """Prefix tokens in whole blocks of this server."""
        return (len(probe.request.prompt) - 1) // self.block * self.block

    def by_usage(self, grew: Delta) -> Found:
        cached = [reported_cached_tokens(probe) or 0 for probe in self.probes]
        clean = list(self._clean(cached))
        missing = sum(max(self.wanted(probe) - found, 0) for probe, found in zip(self.probes, cached, strict=True))
        restored = _restored(grew)
        # ``has`` is None for a server that may have a tier.
        if self.tier or self.server.has(Connector.OFFLOADING) is False:
            return sum(clean), missing, restored, "" if any(clean) else "usage reports that none of them hit"
        if restored is None:
            return 0, missing, None, "usage does not distinguish its prefix cache from its offload tier"
        # Each probe that the tier answered took at least a block from it. The blocks of an unknown tier are not known.
        unit = 1 if self.server.unknown_connectors else self.block
        least = max(sum(clean) - -(-restored // unit), 0)
        return least, missing + restored, restored, "" if least else "all that they hit may have come from its tier"

    def by_counters(self, grew: Delta) -> Found:
        engines, restored = self.server.engines, _restored(grew)
        if engines > 1:
            return 0, None, None, f"{engines} engines share its URL, and its answers do not report what was cached"
        if not all(probe.outcome is Outcome.OK for probe in self.probes):
            return 0, None, restored, "some of them were not answered, so that its counters show nothing"
        sent = sum(len(probe.request.prompt) for probe in self.probes)
        cached = counted_cached_tokens(grew, sent, with_connectors=self.tier)
        if isinstance(cached, str):
            return 0, None, restored, cached
        missing = sum(map(self.wanted, self.probes)) - cached
        if missing < 0:
            return 0, None, restored, "it counted more hits than the probes can have had"
        # Each probe that missed, missed at least a block.
        missed = -(-missing // self.block)
        alike = Counter(
            (probe.request.cache_salt, (probe.prompt_token_ids or ())[: self.block]) for probe in self.probes
        )
        least = len(self.probes) - sum(count for _, count in alike.most_common(missed))
        return least, missing, restored, "" if least else f"{missing:,} tokens of them were computed anew"

    def _clean(self, cached: Sequence[int]) -> Iterator[bool]:
        """For each probe, whether its whole prefix hit blocks of which no earlier probe had computed any anew."""
        anew: dict[int, float] = {}
        for probe, found in zip(self.probes, cached, strict=True):
            if found < self.wanted(probe):
                for key in [*prefix_hashes(probe, self.block)][found // self.block :]:
                    anew[key] = min(anew.get(key, probe.sent.at), probe.sent.at)
        for probe, found in zip(self.probes, cached, strict=True):
            hit = probe.outcome is Outcome.OK and found >= self.wanted(probe) > 0
            keys = prefix_hashes(probe, self.block)
            yield hit and not any(key in anew and anew[key] < probe.ended.at for key in keys)


def _restored(grew: Delta) -> int | None:
    found = grew.of("external_hits")
    return None if found is None else int(found)
