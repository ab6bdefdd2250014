"""The growth of each counter by one server request, given its hits in the caches.

T: prompt tokens; B: tokens per block; L: tokens found in the server's own prefix cache (full blocks); O: tokens loaded
from the offload tier. As read from the scheduler of vLLM 0.32:

- Prefix-cache lookups count T queries and L hits; none for a request with prompt_logprobs or where prefix caching is
  off. External lookups count T-L queries on every server that has a connector.
- For a request with transfer parameters, NIXL brings T-L tokens and counts them as external hits. It moves
  ceil(T/B) - L/B blocks: the partial last block moves as a whole one. The first connector that offers tokens brings
  them: with [offloading, nixl] that is the tier if it has a chunk; the rest is computed, and NIXL only notifies.
- From 0.31 on no connector brings anything for a request with prompt_logprobs; 0.26 skips only the prefix cache for
  such a request (seen: it pulls all of T).
- By token source: L local_cache_hit, T-L or O external_kv_transfer, the rest local_compute. If no token is left to
  compute, the last one is computed all the same, to sample from, and is not counted.
- Before 0.20 that last token is also counted as computed, in addition to the T tokens that were brought.
- Before 0.26 a lookup that is repeated is counted again.
- T = 1, pulled: the one token that arrives must be computed again, so the scheduler starts the request over. Both
  lookups count twice (external hits once), and the token's source is local_compute.
- A decode server whose blocks are r times as large as prefill's reads blocks of prefill's size: r for each of its own
  missing blocks, at most the ceil(T/Bp) that prefill has. vLLM does not accept smaller blocks or other ratios.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from harness.facts import Connector, Deployment, Role, Server
from harness.oracle.expectation import ServerExpectation
from harness.oracle.releases import brings_prompts_for_logprobs, counts_retried_lookups, counts_the_last_token_again
from harness.oracle.server_request import ServerRequest
from harness.verdict import Bounds

_BYTES = ("nixl_bytes", "offload_load_bytes", "offload_store_bytes")
_MOVED = ("nixl_bytes", "nixl_transfers")
_OFFLOADED = ("offload_load_bytes", "offload_store_bytes")
_BROUGHT = ("external_kv_transfer", "external_hits", "local_compute")
_exactly = Bounds.exactly


def unknown_on(server: Server) -> str:
    """Why counters that depend on the server's unknown connectors cannot be predicted; names these connectors."""
    names = server.unknown_connectors
    one = len(names) == 1
    return (
        f"{' and '.join(names)} on {server.name} {'is not a connector' if one else 'are not connectors'} that the "
        f"harness knows: the tokens that {'it brings' if one else 'they bring'} cannot be predicted"
    )


@dataclass(frozen=True, slots=True)
class Formulas:
    """The counting rules of one server of one deployment."""

    deployment: Deployment
    server: Server

    def counted(
        self, request: ServerRequest, local: int, offered: int, *, asks_connectors: bool, tier_first: bool
    ) -> ServerExpectation:
        """The counters of a request that found ``local`` tokens in the prefix cache.

        ``offered``: tokens that the offload tier has for the request; ``asks_connectors``: whether connectors are asked
        to bring anything; ``tier_first``: whether the tier is asked before NIXL.
        """
        rest = request.tokens - local
        pulled = rest if request.pulls and asks_connectors and not (offered and tier_first) else 0
        external = pulled or offered
        lookups = 2 if pulled == request.tokens == 1 else 1
        reads_prefix_cache = request.reads_caches and self.caching
        brought = 0 if lookups > 1 else external
        again = self._counted_again(whole=bool(brought) and brought == rest)
        return ServerExpectation(
            prompt_tokens=_exactly(request.tokens),
            local_compute=Bounds(rest - brought, rest - brought + again),
            local_cache_hit=_exactly(local),
            external_kv_transfer=Bounds(brought - again, brought),
            generation_tokens=request.generated,
            prefix_queries=_exactly(request.tokens * lookups if reads_prefix_cache else 0),
            prefix_hits=_exactly(local),
            external_queries=_exactly(rest * lookups if self.has_connectors else 0),
            external_hits=_exactly(external),
            nixl_bytes=_exactly(self._moved(request, local) if pulled else 0),
            nixl_transfers=self._reads if pulled else _exactly(0),
            offload_load_bytes=_exactly(0 if pulled else offered // self.block_size * self.block_bytes),
            counted_again=again,
            at_least=self._at_least(queries=reads_prefix_cache, hits=local > 0),
            bounded=self._bounded(again),
        )

    def _counted_again(self, *, whole: bool) -> int:
        """Tokens that may count as computed though connectors brought them; ``whole``: no token is left to compute."""
        return int(whole and counts_the_last_token_again(self.server.version) is not False)

    def _at_least(self, *, queries: bool, hits: bool) -> frozenset[str]:
        if counts_retried_lookups(self.server.version) is False:
            return frozenset()
        return frozenset(name for name, grows in (("prefix_queries", queries), ("prefix_hits", hits)) if grows)

    def _bounded(self, again: int) -> dict[str, str]:
        ranks_unknown = "each rank reads once, and the number of ranks is not known"
        why = {} if self._reads.exact else {"nixl_transfers": ranks_unknown}
        if again:
            reason = (
                f"whether {self.server.version or 'this version'} also counts the last token of a prompt as computed "
                "when the whole prompt was brought is not known"
            )
            why |= dict.fromkeys(("local_compute", "external_kv_transfer"), reason)
        return why

    def _moved(self, request: ServerRequest, local: int) -> int:
        """Bytes that NIXL reads for a request that found ``local`` tokens in the prefix cache."""
        missing = -(-request.tokens // self.block_size) - local // self.block_size
        remote_size = self.prefill_block_size or self.block_size
        ratio = self.block_size // remote_size
        if ratio <= 1:
            return missing * self.block_bytes
        return min(missing * ratio, -(-request.tokens // remote_size)) * (self.block_bytes // ratio)

    @property
    def block_size(self) -> int:
        """Tokens per block; 1 if it is not known, and then all bytes are unpredictable."""
        return self.server.block_size or 1

    @property
    def block_bytes(self) -> int:
        """Bytes of one of this server's blocks; 0 if not known."""
        geometry = self.deployment.geometry_of(self.server)
        return geometry.block_bytes(self.block_size) if geometry else 0

    def asks_connectors(self, request: ServerRequest) -> tuple[bool, ...]:
        """Whether connectors are asked to bring anything for the request: both answers if that is not known."""
        if request.reads_caches:
            return (True,)
        brings = brings_prompts_for_logprobs(self.server.version)
        return (True, False) if brings is None else (brings,)

    @property
    def caching(self) -> bool:
        """Whether the prefix cache is on; assumed unless the server reports otherwise."""
        return self.server.prefix_caching is not False

    @property
    def pulls(self) -> bool:
        """Whether NIXL brings prompts: if any server of the deployment has it, or if the connectors are not known."""
        return self.deployment.has(Connector.NIXL) is not False

    @property
    def has_connectors(self) -> bool:
        """Whether the server has any connector; assumed if the server does not report its connectors."""
        return self.server.connectors != () or bool(self.server.unknown_connectors)

    @property
    def offloads(self) -> bool | None:
        """Whether there is an offload tier; None if not known."""
        return self.server.has(Connector.OFFLOADING)

    @property
    def tier_first(self) -> tuple[bool, ...]:
        """Whether the tier is asked before NIXL: both answers if the order of the connectors is not known."""
        connectors = self.server.connectors or ()
        if not self.server.connectors_listed and len(connectors) > 1:
            return (False, True)
        return (connectors[:1] == (Connector.OFFLOADING,),)

    @property
    def prefill_block_size(self) -> int | None:
        """Tokens per block on the prefill servers; None if they differ."""
        sizes = {server.block_size for server in self.deployment.of(Role.PREFILL)}
        return sizes.pop() if len(sizes) == 1 else None

    @property
    def most_reads(self) -> int:
        """Upper bound on the reads that NIXL does for one request."""
        return self._reads.high

    @property
    def _reads(self) -> Bounds:
        if {server.ranks for server in self.deployment.servers} == {1}:
            return _exactly(1)
        # One read per rank, and a rank holds at least one KV head; which rank reads from which peer is not modelled.
        geometry = self.deployment.geometry
        return Bounds(1, geometry.kv_heads if geometry else 1)

    def with_unknown_cache_rules(self, request: ServerRequest, expectation: ServerExpectation) -> ServerExpectation:
        """Widens the bounds by one token if prefill may leave a prompt's last token to decode, as for state layers."""
        on_prefill = self.server.role is Role.PREFILL
        if not self.deployment.cache_rules_unknown or request.tokens < 2 or not (on_prefill or request.pulls):
            return expectation
        on_decode: tuple[str, ...] = ("external_kv_transfer", "external_hits")
        fewer = ("prompt_tokens", "local_compute", "prefix_queries", "external_queries") if on_prefill else on_decode
        changed: dict[str, Any] = {}
        for name in fewer:
            low, high = getattr(expectation, name).low, getattr(expectation, name).high
            changed[name] = Bounds(max(low - 1, 0), high)
        if not on_prefill:
            changed["local_compute"] = expectation.local_compute + Bounds(0, 1)
        return replace(expectation, **changed)

    def unpredictable(self) -> dict[str, str]:
        """Counters that cannot be predicted because a fact is missing, and why."""
        if self.server.block_size is None:
            why = f"the block size of {self.server.name} is not known"
            hits = ("local_compute", "local_cache_hit", "external_kv_transfer", "prefix_hits", "external_hits")
            return dict.fromkeys((*hits, "external_queries", *_BYTES), why)
        if self.deployment.geometry_of(self.server) is None:
            return dict.fromkeys(_BYTES, self._why_no_bytes)
        if self.server.connectors is None and not self.server.unknown_connectors:
            why = "whether an offloading connector is configured is not known"
            return dict.fromkeys(_OFFLOADED, why)
        return self._different_kv_types() or self._different_block_sizes()

    def _different_kv_types(self) -> dict[str, str]:
        own = self.server.kv_dtype
        of_prefill = {server.kv_dtype for server in self.deployment.of(Role.PREFILL)} - {None}
        if own is None or of_prefill <= {own}:
            return {}
        other = ", ".join(sorted(map(str, of_prefill - {own})))
        return {"nixl_bytes": f"the KV of {self.server.name} is of type {own}, and prefill's of type {other}"}

    def brought_by_unknown(self, request: ServerRequest) -> dict[str, str]:
        """Counters of a request that depend on an unknown connector, and why; empty if that connector is not asked.

        The unknown connector may bring any part of the prompt, unless a connector before it brings everything that is
        missing, as NIXL does. It may be a variant of a known connector and grow the same counters. The tokens that
        later connectors bring depend on its answer.
        """
        if not self.server.unknown_connectors:
            return {}
        asked_first = (self.server.connectors or ())[: self.server.asked_before_unknown]
        brings = any(self.asks_connectors(request)) and not (request.pulls and Connector.NIXL in asked_first)
        return dict.fromkeys(self._affected_by_unknown(request, asked_first, brings=brings), unknown_on(self.server))

    def _affected_by_unknown(
        self, request: ServerRequest, asked_first: tuple[Connector, ...], *, brings: bool
    ) -> Iterator[str]:
        if brings:
            yield from _BROUGHT
        # A prompt of one token is looked up again if it is brought.
        if brings and request.tokens == 1:
            yield from ("prefix_queries", "external_queries")
        if self.server.has(Connector.NIXL) is None or (brings and request.pulls):
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

    def _different_block_sizes(self) -> dict[str, str]:
        remote_size = self.prefill_block_size
        if remote_size is not None and self.block_size % remote_size == 0:
            return {}
        silent = [server.name for server in self.deployment.of(Role.PREFILL) if server.block_size is None]
        if silent:
            why = f"the block size of {silent[0]}, whose blocks {self.server.name} reads, is not known"
        elif remote_size is None:
            why = "prefill servers have different block sizes"
        else:
            why = f"the block size of {self.server.name} is no multiple of prefill's"
        return dict.fromkeys(("nixl_bytes",), why)
