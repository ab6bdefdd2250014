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

from dataclasses import dataclass

from harness.facts import Connector, Deployment, Role, Server
from harness.oracle.expectation import ServerExpectation
from harness.oracle.releases import brings_prompts_for_logprobs, counts_retried_lookups, counts_the_last_token_again
from harness.oracle.visit import Visit
from harness.verdict import Bounds

_BYTES = ("nixl_bytes", "offload_load_bytes", "offload_store_bytes")
_exactly = Bounds.exactly


@dataclass(frozen=True, slots=True)
class Formulas:
    """For one server of one deployment."""

    deployment: Deployment
    server: Server

    def counted(self, visit: Visit, local: int, offered: int, *, connected: bool) -> ServerExpectation:
        """The counters of a visit that found ``local`` tokens here and is offered ``offered`` by the tier.

        ``connected``: whether its connectors are asked for anything.
        """
        rest = visit.tokens - local
        pulled = rest if visit.pulls and connected and not (offered and self.tier_first) else 0
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
    def tier_first(self) -> bool:
        """Whether the tier is asked before NIXL."""
        return (self.server.connectors or ())[:1] == (Connector.OFFLOADING,)

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

    def unpredictable(self) -> dict[str, str]:
        """Counters that a missing fact leaves open, and why."""
        if self.server.block_size is None:
            why = f"the block size of {self.server.name} is not known"
            hits = ("local_compute", "local_cache_hit", "external_kv_transfer", "prefix_hits", "external_hits")
            return dict.fromkeys((*hits, "external_queries", *_BYTES), why)
        if self.deployment.geometry_of(self.server) is None:
            return dict.fromkeys(_BYTES, "the shape of the model's KV cache is not known")
        if self.server.connectors is None:
            why = "whether an offloading connector is configured is not known"
            return dict.fromkeys(("offload_load_bytes", "offload_store_bytes"), why)
        return self._unlike_block_sizes()

    def _unlike_block_sizes(self) -> dict[str, str]:
        theirs = self.prefill_block_size
        if theirs is not None and self.block_size % theirs == 0:
            return {}
        why = (
            "prefill servers have different block sizes"
            if theirs is None
            else "its blocks are no multiple of prefill's"
        )
        return dict.fromkeys(("nixl_bytes",), why)
