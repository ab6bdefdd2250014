"""Closed forms for a prompt of which no cache holds a whole block.

Read off vLLM 0.32.0's code. T prompt tokens, G generated, B tokens per block, Bc tokens per chunk of the offload
tier (a multiple of B), on a server whose caches know nothing of the prompt:

P, asked by the proxy for one token and for its blocks
    compute T; one token generated; prefix and external lookups of T tokens, none hit.
D, pulling P's blocks over NIXL
    external T; lookups of T tokens in both caches, the external one hits T; ceil(T/B) blocks move, the partial
    tail as a whole block, in one read per rank. The last prompt token is computed again to sample from, and that is
    not counted.
D with T = 1
    the one token that arrives must be computed again, so the scheduler begins anew: the lookups are counted twice
    (2 and 2, 1 external hit) and the source is local_compute. One block moves nevertheless.
Any server asked directly, without transfer parameters
    compute T; lookups as on P.
A request for prompt_logprobs, on any server
    compute T; no prefix lookup is counted; an external one is (T, no hit), for its result is thrown away after the
    query. D notifies P without reading.

Stores to the offload tier, on P and on D alike: floor(N/Bc) chunks of Bc/B blocks each, where N = T when the tier is
given prompts only (``offload_prompt_only``, the default), else max(T, T+G-1): the last token sampled has no KV.
D stores what it pulled over NIXL as if it had computed it: the store looks at blocks of the request and at computed
tokens, not at where they came from. A store is queued in the step that computes its tokens, and once more when the
request ends for what is left, so nothing is dropped by a request's end. Chunks that the tier holds already are not
stored again. A store that finds no room, because everything in the tier is pinned by transfers in flight, is tried
again in the request's next step and lost when there is none: the engine counts that, and the checker looks there.
"""

from dataclasses import dataclass

from harness.facts import Connector, Deployment, Server
from harness.oracle.expectation import ServerExpectation
from harness.oracle.shape import Shape
from harness.verdict import Bounds

_BYTES = ("nixl_bytes", "offload_load_bytes", "offload_store_bytes")


@dataclass(frozen=True, slots=True)
class Cold:
    """The formulas for one kind of server of one deployment."""

    deployment: Deployment
    server: Server

    def alone(self, shape: Shape) -> ServerExpectation:
        """Asked directly, without transfer parameters."""
        return self._computed(shape, shape.generated)

    def prefill(self, shape: Shape) -> ServerExpectation:
        """Asked by the proxy for the prompt's KV."""
        return self._computed(shape, Bounds.exactly(1))

    def decode(self, shape: Shape) -> ServerExpectation:
        """Asked by the proxy with P's transfer parameters."""
        if shape.skips_caches or not self._pulls:
            return self._computed(shape, shape.generated)
        return self._pulled(shape) if shape.tokens > 1 else self._pulled_single(shape)

    def _computed(self, shape: Shape, generated: Bounds) -> ServerExpectation:
        tokens = Bounds.exactly(shape.tokens)
        return ServerExpectation(
            prompt_tokens=tokens,
            local_compute=tokens,
            generation_tokens=generated,
            prefix_queries=self._prefix_queries(shape, shape.tokens),
            external_queries=tokens if self.deployment.connectors != () else Bounds.exactly(0),
            offload_store_bytes=self._stored(shape, generated),
            unpredictable=self._unpredictable(),
        )

    def _pulled(self, shape: Shape) -> ServerExpectation:
        tokens = Bounds.exactly(shape.tokens)
        return ServerExpectation(
            prompt_tokens=tokens,
            external_kv_transfer=tokens,
            generation_tokens=shape.generated,
            prefix_queries=self._prefix_queries(shape, shape.tokens),
            external_queries=tokens,
            external_hits=tokens,
            nixl_bytes=self._bytes_of(-(-shape.tokens // self._block_size)),
            nixl_transfers=self._reads,
            offload_store_bytes=self._stored(shape, shape.generated),
            unpredictable=self._unpredictable(),
        )

    def _pulled_single(self, shape: Shape) -> ServerExpectation:
        return ServerExpectation(
            prompt_tokens=Bounds.exactly(1),
            local_compute=Bounds.exactly(1),
            generation_tokens=shape.generated,
            prefix_queries=self._prefix_queries(shape, 2),
            external_queries=Bounds.exactly(2),
            external_hits=Bounds.exactly(1),
            nixl_bytes=self._bytes_of(1),
            nixl_transfers=self._reads,
            offload_store_bytes=self._stored(shape, shape.generated),
            unpredictable=self._unpredictable(),
        )

    @property
    def _pulls(self) -> bool:
        # Unknown connectors: the path under test is one that transfers, and that is what must be seen.
        connectors = self.deployment.connectors
        return connectors is None or Connector.NIXL in connectors

    @property
    def _offloads(self) -> bool:
        connectors = self.deployment.connectors
        return connectors is None or Connector.OFFLOADING in connectors

    @property
    def _block_size(self) -> int:
        return self.server.block_size or 1

    @property
    def _reads(self) -> Bounds:
        # One per rank, and a rank holds a KV head or more; ranks are not told over HTTP.
        geometry = self.deployment.geometry
        return Bounds(1, geometry.kv_heads if geometry else 1)

    def _prefix_queries(self, shape: Shape, tokens: int) -> Bounds:
        counted = not shape.skips_caches and self.server.prefix_caching is not False
        return Bounds.exactly(tokens if counted else 0)

    def _bytes_of(self, blocks: int) -> Bounds:
        geometry = self.deployment.geometry
        return Bounds.exactly(blocks * geometry.block_bytes(self._block_size) if geometry else 0)

    def _stored(self, shape: Shape, generated: Bounds) -> Bounds:
        if not self._offloads:
            return Bounds.exactly(0)
        with_output = max(shape.tokens, shape.tokens + generated.high - 1)
        prompt_only = self.deployment.offload_prompt_only
        # Not told whether output is stored: at least the prompt's chunks are, at most the output's too.
        longest = shape.tokens if prompt_only else with_output
        shortest = max(shape.tokens, shape.tokens + generated.low - 1) if prompt_only is False else shape.tokens
        return Bounds(self._chunks_bytes(shortest).low, self._chunks_bytes(longest).high)

    def _chunks_bytes(self, tokens: int) -> Bounds:
        chunk = self.deployment.offload_block_size
        if chunk is None:
            # Chunks are whole blocks, of a number not told: one long chunk is never filled, one block is always.
            return Bounds(0, self._bytes_of(tokens // self._block_size).high)
        return self._bytes_of(tokens // chunk * (chunk // self._block_size))

    def _unpredictable(self) -> dict[str, str]:
        if self.server.block_size is None:
            why = f"the block size of {self.server.name} is not known"
            return dict.fromkeys(_BYTES, why)
        if self.deployment.geometry is None:
            return dict.fromkeys(_BYTES, "the shape of the model's KV cache is not known")
        if self.deployment.connectors is None:
            why = "whether an offloading connector is configured is not known"
            return dict.fromkeys(("offload_load_bytes", "offload_store_bytes"), why)
        return self._unlike_block_sizes()

    def _unlike_block_sizes(self) -> dict[str, str]:
        sizes = {server.block_size for server in self.deployment.servers}
        if len(sizes) <= 1:
            return {}
        return dict.fromkeys(("nixl_bytes",), "servers have different block sizes: not modelled yet")
