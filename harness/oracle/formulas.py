"""What one request adds to each counter, once it is known what it found in the caches.

T prompt tokens, B per block, L found in the server's own prefix cache (whole blocks), O loaded from the offload tier.
Read off vLLM 0.32's scheduler:

- Prefix lookups count T, hits L; none for prompt_logprobs or where prefix caching is off. External lookups count T-L on
  any server that has a connector.
- Asked with transfer parameters, a request whose prompt NIXL brings gets T-L tokens and counts them as external hits.
  The blocks that move are ceil(T/B) - L/B: the partial tail as a whole one. The first connector that offers tokens
  brings them: of [offloading, nixl] it is the tier if it has a chunk; what is left is computed, and NIXL only notifies.
- A request for prompt_logprobs is brought nothing by any connector from 0.31 on; 0.26 skips its prefix cache alone
  (seen: it pulls all of T).
- By source: L local_cache_hit, T-L or O external_kv_transfer, the rest local_compute. If nothing is left to compute,
  the last token is computed all the same, to sample from, and not counted.
- Before 0.20 such a token is counted as computed, too, beside the T that were brought.
- Before 0.26 a lookup that is tried again counts again.
- T = 1, pulled: the one token that arrives must be computed again, so the scheduler begins anew. Both lookups count
  twice (external hits once), and the source is local_compute.
- A decode server with blocks r times as large as prefill's reads in prefill's blocks: r for each of its own that is
  missing, at most the ceil(T/Bp) that prefill has. Smaller or odd ones the engine does not take.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from harness.facts import Connector, Deployment, Role, Server
from harness.oracle.expectation import ServerExpectation
from harness.oracle.releases import brings_prompts_for_logprobs, counts_retried_lookups, counts_the_last_token_again
from harness.oracle.visit import Visit
from harness.verdict import Bounds

_BYTES = ("nixl_bytes", "offload_load_bytes", "offload_store_bytes")
_MOVED = ("nixl_bytes", "nixl_transfers")
_OFFLOADED = ("offload_load_bytes", "offload_store_bytes")
_BROUGHT = ("external_kv_transfer", "external_hits", "local_compute")
_exactly = Bounds.exactly


def unknown_on(server: Server) -> str:
    """Why what depends on the server's unknown connectors cannot be predicted, by their names."""
    names = server.unknown_connectors
    one = len(names) == 1
    return (
        f"{' and '.join(names)} on {server.name} {'is not a connector' if one else 'are not connectors'} that the "
        f"harness knows: what {'it brings' if one else 'they bring'} cannot be predicted"
    )


@dataclass(frozen=True, slots=True)
class Formulas:
    """For one server of one deployment."""

    deployment: Deployment
    server: Server

    def counted(
        self, visit: Visit, local: int, offered: int, *, connected: bool, tier_first: bool
    ) -> ServerExpectation:
        """The counters of a visit that found ``local`` tokens here and is offered ``offered`` by the tier.

        ``connected``: whether its connectors are asked for anything; ``tier_first``: whether the tier is, before NIXL.
        """
        rest = visit.tokens - local
        pulled = rest if visit.pulls and connected and not (offered and tier_first) else 0
        external = pulled or offered
        times = 2 if pulled == visit.tokens == 1 else 1
        looks = visit.reads and self.caching
        taken = 0 if times > 1 else external
        again = self._counted_again(whole=bool(taken) and taken == rest)
        return ServerExpectation(
            prompt_tokens=_exactly(visit.tokens),
            local_compute=Bounds(rest - taken, rest - taken + again),
            local_cache_hit=_exactly(local),
            external_kv_transfer=Bounds(taken - again, taken),
            generation_tokens=visit.generated,
            prefix_queries=_exactly(visit.tokens * times if looks else 0),
            prefix_hits=_exactly(local),
            external_queries=_exactly(rest * times if self.connected_at_all else 0),
            external_hits=_exactly(external),
            nixl_bytes=_exactly(self.moved(visit, local) if pulled else 0),
            nixl_transfers=self._reads if pulled else _exactly(0),
            offload_load_bytes=_exactly(0 if pulled else offered // self.block_size * self.block_bytes),
            counted_again=again,
            at_least=self._at_least(looks=looks, found=local > 0),
            bounded=self._bounded(again),
        )

    def _counted_again(self, *, whole: bool) -> int:
        """Tokens that may be counted as computed though they were brought; ``whole``: nothing is left to compute."""
        return int(whole and counts_the_last_token_again(self.server.version) is not False)

    def _at_least(self, *, looks: bool, found: bool) -> frozenset[str]:
        if counts_retried_lookups(self.server.version) is False:
            return frozenset()
        return frozenset(name for name, moves in (("prefix_queries", looks), ("prefix_hits", found)) if moves)

    def _bounded(self, again: int) -> dict[str, str]:
        why = {} if self._reads.exact else {"nixl_transfers": "a read for each rank, and how many is not known"}
        if again:
            reason = (
                f"whether {self.server.version or 'this version'} counts the last token of a prompt that is brought "
                "whole as computed, too, is not known"
            )
            why |= dict.fromkeys(("local_compute", "external_kv_transfer"), reason)
        return why

    def moved(self, visit: Visit, local: int) -> int:
        """Bytes that NIXL reads for a visit that has ``local`` tokens already."""
        missing = -(-visit.tokens // self.block_size) - local // self.block_size
        theirs = self.prefill_block_size or self.block_size
        ratio = self.block_size // theirs
        if ratio <= 1:
            return missing * self.block_bytes
        return min(missing * ratio, -(-visit.tokens // theirs)) * (self.block_bytes // ratio)

    @property
    def block_size(self) -> int:
        """Tokens; 1 where it is not known, and then all bytes are unpredictable."""
        return self.server.block_size or 1

    @property
    def block_bytes(self) -> int:
        """Of one of this server's blocks; 0 where it is not known."""
        geometry = self.deployment.geometry_of(self.server)
        return geometry.block_bytes(self.block_size) if geometry else 0

    def connected(self, visit: Visit) -> tuple[bool, ...]:
        """Whether connectors may bring something for the visit: the ways that there are."""
        if visit.reads:
            return (True,)
        brings = brings_prompts_for_logprobs(self.server.version)
        return (True, False) if brings is None else (brings,)

    @property
    def caching(self) -> bool:
        """Whether the prefix cache is on, as it is unless the server says otherwise."""
        return self.server.prefix_caching is not False

    @property
    def pulls(self) -> bool:
        """Whether NIXL brings prompts, as it must where any server of the deployment has it.

        Where the connectors are not known: the path under test is one that transfers, and that is what must be seen.
        """
        return self.deployment.has(Connector.NIXL) is not False

    @property
    def connected_at_all(self) -> bool:
        """Whether the server has any connector, as it is taken to have where it does not say."""
        return self.server.connectors != () or bool(self.server.unknown_connectors)

    @property
    def offloads(self) -> bool | None:
        """Whether there is an offload tier; None where that is not known."""
        return self.server.has(Connector.OFFLOADING)

    @property
    def tier_first(self) -> tuple[bool, ...]:
        """Whether the tier is asked before NIXL: both ways where the order of the connectors is not known."""
        connectors = self.server.connectors or ()
        if not self.server.connectors_listed and len(connectors) > 1:
            return (False, True)
        return (connectors[:1] == (Connector.OFFLOADING,),)

    @property
    def prefill_block_size(self) -> int | None:
        """Tokens per block of the prefill servers, if it is one size."""
        sizes = {server.block_size for server in self.deployment.of(Role.PREFILL)}
        return sizes.pop() if len(sizes) == 1 else None

    @property
    def most_reads(self) -> int:
        """Reads that NIXL does for one request, at most."""
        return self._reads.high

    @property
    def _reads(self) -> Bounds:
        if {server.ranks for server in self.deployment.servers} == {1}:
            return _exactly(1)
        # One per rank, and a rank holds a KV head or more; which of its peers' each reads is not followed.
        geometry = self.deployment.geometry
        return Bounds(1, geometry.kv_heads if geometry else 1)

    def with_other_rules(self, visit: Visit, expectation: ServerExpectation) -> ServerExpectation:
        """The same where prefill may leave a prompt's last token to decode, as it does for layers that keep a state."""
        if not self.deployment.cache_rules_unknown or visit.tokens < 2:
            return expectation
        if self.server.role is Role.PREFILL:
            fewer: tuple[str, ...] = ("prompt_tokens", "local_compute", "prefix_queries", "external_queries")
            more: tuple[str, ...] = ()
        else:
            fewer = ("external_kv_transfer", "external_hits") if visit.pulls else ()
            more = ("local_compute",) if visit.pulls else ()
        changed: dict[str, Any] = {}
        for name in fewer:
            low, high = getattr(expectation, name).low, getattr(expectation, name).high
            changed[name] = Bounds(max(low - 1, 0), high)
        for name in more:
            changed[name] = getattr(expectation, name) + Bounds(0, 1)
        return replace(expectation, **changed)

    def unpredictable(self) -> dict[str, str]:
        """Counters that a missing fact leaves open, and why."""
        if self.server.block_size is None:
            why = f"the block size of {self.server.name} is not known"
            hits = ("local_compute", "local_cache_hit", "external_kv_transfer", "prefix_hits", "external_hits")
            return dict.fromkeys((*hits, "external_queries", *_BYTES), why)
        if self.deployment.geometry_of(self.server) is None:
            return dict.fromkeys(_BYTES, self._why_no_bytes)
        if self.server.connectors is None and not self.server.unknown_connectors:
            why = "whether an offloading connector is configured is not known"
            return dict.fromkeys(_OFFLOADED, why)
        return self._unlike_types() or self._unlike_block_sizes()

    def _unlike_types(self) -> dict[str, str]:
        mine = self.server.kv_dtype
        theirs = {server.kv_dtype for server in self.deployment.of(Role.PREFILL)} - {None}
        if mine is None or theirs <= {mine}:
            return {}
        other = ", ".join(sorted(map(str, theirs - {mine})))
        return {"nixl_bytes": f"the KV of {self.server.name} is of type {mine}, and prefill's of type {other}"}

    def brought_by_unknown(self, visit: Visit) -> dict[str, str]:
        """Counters of a visit that depend on what an unknown connector does, and why; none where it is not asked.

        It may bring any part of the prompt, unless one before it brings all that is missing, as NIXL does. It may be
        a variety of the connectors that are known, and count what those count; what these themselves do after it has
        been asked depends on its answer.
        """
        if not self.server.unknown_connectors:
            return {}
        asked_first = (self.server.connectors or ())[: self.server.asked_before_unknown]
        brings = any(self.connected(visit)) and not (visit.pulls and Connector.NIXL in asked_first)
        return dict.fromkeys(self._of_unknown(visit, asked_first, brings=brings), unknown_on(self.server))

    def _of_unknown(self, visit: Visit, asked_first: tuple[Connector, ...], *, brings: bool) -> Iterator[str]:
        if brings:
            yield from _BROUGHT
        if brings and visit.tokens == 1:  # looked up once more if it is brought
            yield from ("prefix_queries", "external_queries")
        if self.server.has(Connector.NIXL) is None or (brings and visit.pulls):
            yield from _MOVED
        if self.server.has(Connector.OFFLOADING) is None:
            yield from _OFFLOADED
        elif brings and Connector.OFFLOADING not in asked_first:
            yield "offload_load_bytes"

    @property
    def _why_no_bytes(self) -> str:
        if self.deployment.geometry is not None:
            return f"the size of an element of {self.server.name}'s KV, {self.server.kv_dtype}, is not known"
        shape = "the shape of the model's KV cache is not known"
        return f"{shape}: {self.deployment.geometry_unknown}" if self.deployment.geometry_unknown else shape

    def _unlike_block_sizes(self) -> dict[str, str]:
        theirs = self.prefill_block_size
        if theirs is not None and self.block_size % theirs == 0:
            return {}
        silent = [server.name for server in self.deployment.of(Role.PREFILL) if server.block_size is None]
        if silent:
            why = f"the block size of {silent[0]}, whose blocks it reads, is not known"
        elif theirs is None:
            why = "prefill servers have different block sizes"
        else:
            why = "its blocks are no multiple of prefill's"
        return dict.fromkeys(("nixl_bytes",), why)
