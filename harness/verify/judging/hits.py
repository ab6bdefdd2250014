"""Whether the probes were answered from the caches that they were to look into.

A probe whose blocks had been evicted is computed anew and answered rightly, and has looked at nothing. That it hit is
shown, on the server that it was asked of, by one of two things:

1. Its own usage says how many of its prompt's tokens were cached (vLLM: ``--enable-prompt-tokens-details``, which
   leaves a 0 out). A probe of k whole blocks and one token hit where these are k blocks.
2. The server's counters, read around all probes of one phase, grew by what all of these were to hit, and its prompt
   tokens by just what they have: then nobody else was served, and each of them hit. Where the sum falls short, it is
   known how many tokens were computed anew, and that it were at most so many probes as that is blocks.

Whatever a probe computes anew is cached in its turn, and a later probe of the same blocks finds that: a hit, but not of
what the load left. So with a probe that missed falls every one that may have found its blocks: by usage those that read
beyond where it missed, by counters all that begin like it.

Usage does not tell a prefix cache from a tier that gave the block back. Where a server has a tier, what connectors
restored meanwhile is taken off.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from harness.facts import Connector, Deployment, Role, Server
from harness.history import History, Operation, Outcome
from harness.observe.counters import Delta
from harness.observe.watched import grown
from harness.scenario import Condition, Purpose, Route

ROLES = {Route.DECODE: Role.DECODE, Route.PREFILL: Role.PREFILL}
_SOURCES = (
    ("prompt_tokens", "local_cache_hit", "external_kv_transfer"),
    ("prefix_queries", "prefix_hits", "external_hits"),
)
"""What a server was asked, found in its prefix cache, and got from connectors. The first are counted once for each
request; the others, on older engines, also for lookups that are repeated."""


@dataclass(frozen=True, slots=True)
class Hits:
    """What the probes of one server's cache hit."""

    cache: Condition | None
    """Which of the server's caches was asked."""
    server: str
    """Its name; the route's where nobody wrote down which of several servers was asked."""
    asked: int
    """Probes."""
    least: int = 0
    """Probes that are shown to have been answered from the cache, with nothing of their prefix computed anew."""
    missing: int | None = None
    """Prefix tokens that were not found there; None: not known."""
    restored: int | None = None
    """Tokens that connectors gave back meanwhile; None: not known."""
    why: str = ""
    """Why nothing is shown; empty where something is."""


class _Key(NamedTuple):
    """Probes that are counted together."""

    cache: Condition | None
    server: str
    scenario: str
    phase: str


def probe_hits(deployment: Deployment, history: History) -> tuple[Hits, ...]:
    """One for each cache that was asked, in the order in which they were asked."""
    groups: dict[_Key, list[Operation]] = {}
    for operation in history.operations():
        request = operation.request
        if request.purpose is Purpose.PROBE:
            key = _Key(
                request.condition, server_name(deployment, operation), operation.sent.scenario, operation.sent.phase
            )
            groups.setdefault(key, []).append(operation)
    return tuple(_hits(deployment, history, key, probes) for key, probes in groups.items())


def server_name(deployment: Deployment, operation: Operation) -> str:
    """The server that a request was sent to past the proxy; its route where nobody wrote down which of several."""
    request = operation.request
    servers = deployment.of(ROLES[request.route]) if request.route in ROLES else ()
    index = 0 if len(servers) == 1 else request.server
    return str(request.route) if index is None or index >= len(servers) else servers[index].name


def tells_usage(history: History, server: str, deployment: Deployment) -> bool:
    """Whether the server says of any answer how much of its prompt was cached; then it does of all."""
    return any(
        operation.ended.usage is not None and operation.ended.usage.cached_tokens is not None
        for operation in history.operations()
        if operation.request.route in ROLES and server_name(deployment, operation) == server
    )


def _hits(deployment: Deployment, history: History, key: _Key, probes: list[Operation]) -> Hits:
    cache, name, scenario, phase = key
    server = next((one for one in deployment.servers if one.name == name), None)
    if server is None:
        return Hits(cache, name, len(probes), why="which of several servers was asked was not written down")
    grew = grown(history, scenario, phase, name)
    asked = _Asked(server, probes, tier=cache is Condition.OFFLOAD_TIER)
    usage = tells_usage(history, name, deployment)
    told = asked.by_usage(grew) if usage else asked.by_counters(grew)
    return Hits(cache, name, len(probes), *told)


Told = tuple[int, int | None, int | None, str]
"""Least, missing, restored, why: as :class:`Hits` has them."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """The probes of one server."""

    server: Server
    probes: Sequence[Operation]
    tier: bool
    """Whether a tier is what they are to read: then what a connector gave back is a hit."""

    @property
    def block(self) -> int:
        return self.server.block_size or 1

    def wanted(self, probe: Operation) -> int:
        """Tokens of its prefix, as far as this server's blocks reach."""
        return (len(probe.request.prompt) - 1) // self.block * self.block

    def by_usage(self, grew: Delta) -> Told:
        found = [_cached(probe) for probe in self.probes]
        clean = list(self._clean(found))
        missing = sum(max(self.wanted(probe) - cached, 0) for probe, cached in zip(self.probes, found, strict=True))
        restored = _restored(grew)
        # None: it may have a tier, for all that is known.
        if self.tier or self.server.has(Connector.OFFLOADING) is False:
            return sum(clean), missing, restored, "" if any(clean) else "usage says that none of them hit"
        if restored is None:
            return 0, missing, None, "usage does not tell its prefix cache from its offload tier"
        # Each probe that the tier answered took a block from it at least.
        least = max(sum(clean) - -(-restored // self._unit()), 0)
        return least, missing + restored, restored, "" if least else "all that they hit may have come from its tier"

    def by_counters(self, grew: Delta) -> Told:
        engines = self.server.engines
        if engines > 1:
            return 0, None, None, f"{engines} engines share its URL, and its answers do not say what was cached"
        if not all(probe.outcome is Outcome.OK for probe in self.probes):
            return 0, None, _restored(grew), "not all of them were answered, so that its counters do not tell"
        told = self._found(grew)
        if isinstance(told, str):
            return 0, None, _restored(grew), told
        missing = sum(map(self.wanted, self.probes)) - told
        if missing < 0:
            return 0, None, _restored(grew), "it counted more hits than the probes can have had"
        spoilt = -(-missing // self.block)  # each that missed, missed a block at least
        alike = Counter((probe.request.cache_salt, _ids(probe)[: self.block]) for probe in self.probes)
        least = len(self.probes) - sum(count for _, count in alike.most_common(spoilt))
        return least, missing, _restored(grew), "" if least else f"{missing:,} tokens of them were computed anew"

    def _found(self, grew: Delta) -> int | str:
        """Tokens that the probes hit, or why its counters do not tell."""
        everything = sum(len(probe.request.prompt) for probe in self.probes)
        why = ""
        for asked, local, external in _SOURCES:
            there, given = grew.of(local), grew.of(external) or 0
            if grew.of(asked) is None or there is None:
                why = why or grew.why(asked) or grew.why(local)
            elif grew.of(asked) == everything:
                return int(there + (given if self.tier else 0))
            else:
                why = f"it counted {grew.of(asked):,.0f} prompt tokens meanwhile, and the probes have {everything:,}"
        return why

    def _clean(self, found: Sequence[int]) -> Iterator[bool]:
        """Of each probe whether it hit all of its prefix, and nothing of it had been computed anew by another."""
        fresh: dict[int, float] = {}
        for probe, cached in zip(self.probes, found, strict=True):
            if cached < self.wanted(probe):
                for key in self._keys(probe)[cached // self.block :]:
                    fresh[key] = min(fresh.get(key, probe.sent.at), probe.sent.at)
        for probe, cached in zip(self.probes, found, strict=True):
            hit = probe.outcome is Outcome.OK and cached >= self.wanted(probe) > 0
            yield hit and not any(key in fresh and fresh[key] < probe.ended.at for key in self._keys(probe))

    def _keys(self, probe: Operation) -> list[int]:
        """A hash for each block of its prefix, which covers all before it."""
        prompt, keys = _ids(probe), [hash(probe.request.cache_salt)]
        for start in range(0, self.wanted(probe), self.block):
            keys.append(hash((keys[-1], prompt[start : start + self.block])))
        return keys[1:]

    def _unit(self) -> int:
        """The least that a tier gives back, tokens: of one that nobody knows nothing is known."""
        return 1 if self.server.unknown_connectors else self.block


def _restored(grew: Delta) -> int | None:
    found = grew.of("external_hits")
    return None if found is None else int(found)


def _cached(probe: Operation) -> int:
    """As usage says; a server that tells it leaves a 0 out."""
    usage = probe.ended.usage
    return (usage.cached_tokens or 0) if usage is not None else 0


def _ids(probe: Operation) -> tuple[int, ...]:
    return probe.prompt_token_ids or ()
