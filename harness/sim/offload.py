"""The offload tier. Semantics of vLLM 0.32.0's ``kv_connector/v1/offloading`` and ``kv_offload/cpu``.

Rule 1. Whole chunks of whole blocks, keyed by the hash of their last block. Each step offers the chunks that it has
completed, of the prompt alone unless configured otherwise; those the tier has already are skipped. A request that has
finished offers once more what its last token completed.

Rule 2. A store is copied after the step that computed it and is readable when the *next* step has ended. A lookup
that meets one earlier waits (None: ask again).

Rule 3. Least recently used goes first. Storing makes a chunk recent, and so does the end of a request that stored,
found or loaded it: its last chunk becomes the oldest of them, its first the most recent. Chunks in transfer and those
of the offer itself are not evicted; if too few others can be, nothing of the offer is stored, and the next step tries
again.

Rule 4. A lookup counts in whole chunks from the chunk that the local hit ends in, all the prompt, the last token
included. A hit of less than a chunk is none.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from harness.sim.blocks import BlockPool, KVMemory, Page
from harness.sim.config import SimConfig
from harness.sim.prefix_cache import extend_hashes, root_hash
from harness.sim.sequence import Finish, Sequence
from harness.sim.stats import ServerStats


@dataclass(slots=True)
class Chunk:
    """One place of the tier."""

    pages: tuple[Page, ...] | None = None
    """None: its store has not been copied."""
    ready: bool = False
    readers: int = 0


@dataclass(slots=True)
class _Progress:
    """What the connector knows of one request."""

    keys: list[int] = field(default_factory=list)
    unsalted: list[int] = field(default_factory=list)
    """Hashes of its blocks as without a salt."""
    blocks: list[int] = field(default_factory=list)
    next_chunk: int = 0
    local: int = 0
    touched: dict[int, int] = field(default_factory=dict)
    """Keys stored, found or loaded, with their position."""
    jobs: int = 0


@dataclass(slots=True)
class _Store:
    progress: _Progress
    keys: list[int]
    blocks: list[int]
    request_id: str = ""
    age: int = 0


class Offload:
    """One server's connector and tier."""

    label = "host"

    def __init__(  # noqa: PLR0913, PLR0917 - as the engine makes it: what it shares with the engine, and two hooks
        self,
        config: SimConfig,
        pool: BlockPool,
        memory: KVMemory,
        stats: ServerStats,
        on_restore: Callable[[Sequence, list[Page], list[Chunk]], list[Page]],
        on_store: Callable[[str, tuple[Page, ...]], tuple[Page, ...]],
    ) -> None:
        self.config, self.pool, self.memory, self.stats = config, pool, memory, stats
        self.on_restore, self.on_store = on_restore, on_store
        self.chunks: OrderedDict[int, Chunk] = OrderedDict()
        self._requests: dict[str, _Progress] = {}
        self._stores: list[_Store] = []
        self._loads: list[tuple[Sequence, list[int], list[int]]] = []
        self._loading: set[int] = set()
        self._tokens_per_chunk = config.block_size * config.blocks_per_chunk

    def arrived(self, sequence: Sequence) -> None:
        """A new request."""
        self._requests[sequence.id] = _Progress()

    # --- lookup and load ---

    def matched(self, sequence: Sequence, computed: int) -> int | None:
        """Tokens that the tier can restore beyond those computed; None: ask again later (rule 2)."""
        progress = self._requests[sequence.id]
        progress.blocks.clear()
        if progress.jobs:
            return None
        self._update_keys(sequence, progress)
        progress.local = computed
        if sequence.skips_reading:
            return 0
        self.stats.lookups.observe(1e-5)
        return self._look_up(sequence, progress, computed)

    def _look_up(self, sequence: Sequence, progress: _Progress, computed: int) -> int | None:
        size = self._tokens_per_chunk
        limit = min(len(sequence.tokens), len(progress.keys) * size)
        if limit - computed < size:
            return 0
        first = computed // size
        hits, pending = 0, False
        for key in progress.keys[first : -(-limit // size)]:
            chunk = self.chunks.get(key)
            if chunk is None:
                break
            pending |= not chunk.ready
            hits += 1
        tokens = min(limit, size * (first + hits)) - computed
        if not hits or (tokens < size and not pending):
            return 0
        if pending or not self._loading.isdisjoint(progress.keys[first : first + hits]):
            return None
        return tokens

    def allocated(self, sequence: Sequence, external: int) -> None:
        """Plan the load of what was promised."""
        if not external:
            return
        progress = self._requests[sequence.id]
        end = -(-(progress.local + external) // self.config.block_size)
        start = next(
            (
                index
                for index in range(progress.local // self.config.block_size, end)
                if not self.pool.is_cached(sequence.blocks[index])
            ),
            end,
        )
        last = -(-(progress.local + external) // self._tokens_per_chunk)
        keys = progress.keys[start // self.config.blocks_per_chunk : last]
        for key in keys:
            self.chunks[key].readers += 1
        self._touch(progress, keys)
        self._loads.append((sequence, keys, sequence.blocks[start:end]))
        if self.config.prefix_caching:
            self._loading.update(keys)
        progress.next_chunk = last
        progress.jobs += 1

    def run(self) -> list[tuple[Sequence, bool]]:
        """Carry out the planned loads."""
        loads, self._loads = self._loads, []
        for sequence, keys, blocks in loads:
            chunks = [self.chunks[key] for key in keys]
            pages = [page for chunk in chunks for page in chunk.pages or ()]
            skip = len(pages) - len(blocks)  # the first chunk may begin in blocks that are cached here
            pages = self.on_restore(sequence, pages[skip:] if skip > 0 else pages, chunks)
            for block, page in zip(blocks, pages, strict=False):
                self.memory.write(block, page)
            for key in keys:
                self.chunks[key].readers -= 1
            self._loading.difference_update(keys)
            self._requests[sequence.id].jobs -= 1
            self.stats.load_sizes.observe(len(blocks) * self.config.block_bytes)
        return [(sequence, False) for sequence, _, _ in loads]

    # --- store ---

    def offer(self, scheduled: Iterable[Sequence], finished: Iterable[Sequence]) -> None:
        """After scheduling: what this step will have completed, and what finished requests left (rule 1)."""
        for sequence in scheduled:
            progress = self._requests[sequence.id]
            progress.blocks = list(sequence.blocks)
            self._offer(sequence, progress, sequence.computed)
        for sequence in finished:
            progress = self._requests[sequence.id]
            aborted = sequence.finish in (Finish.ABORT, Finish.ERROR)
            done = sequence.computed if aborted else max(len(sequence.prompt), len(sequence.tokens) - 1)
            self._offer(sequence, progress, done, at_once=True)
            self._end(sequence, progress)

    def _offer(self, sequence: Sequence, progress: _Progress, done: int, *, at_once: bool = False) -> None:
        self._update_keys(sequence, progress)
        last = len(sequence.prompt) if self.config.offload_prompt_only else len(sequence.tokens)
        end = min(
            min(done, last) // self._tokens_per_chunk,
            len(progress.blocks) // self.config.blocks_per_chunk,
            len(progress.keys),
        )
        start = progress.next_chunk
        if end <= start:
            return
        offered = progress.keys[start:end]
        wanted = self._make_room(progress, offered)
        if wanted is None:
            self.stats.allocation_failures += 1
            return
        progress.next_chunk = end
        if wanted:
            size = self.config.blocks_per_chunk
            sources = [
                block
                for index, key in enumerate(offered, start)
                if key in wanted
                for block in progress.blocks[index * size : (index + 1) * size]
            ]
            store = _Store(progress, list(wanted), sources, sequence.request_id)
            progress.jobs += 1
            self._stores.append(store)
            if at_once:  # its blocks are free and may be overwritten by the step that begins
                self._copy(store)

    def _make_room(self, progress: _Progress, offered: list[int]) -> dict[int, None] | None:
        """The keys to store, with a place for each; None where there is no room for all of them."""
        wanted = dict.fromkeys(key for key in offered if key not in self.chunks)
        self._touch(progress, (key for key in offered if key in wanted or self.chunks[key].ready))
        if not wanted:
            return wanted
        self.stats.allocations.observe(len(wanted))
        excess = len(self.chunks) + len(wanted) - self.config.offload_chunks
        if excess > 0:
            protected = set(offered)
            idle = (
                key for key, chunk in self.chunks.items() if chunk.ready and not chunk.readers and key not in protected
            )
            victims = list(islice(idle, excess))
            if len(victims) < excess:
                return None
            for key in victims:
                del self.chunks[key]
        for key in wanted:
            self.chunks[key] = Chunk()
        return wanted

    def _touch(self, progress: _Progress, keys: Iterable[int]) -> None:
        for key in keys:
            progress.touched.setdefault(key, progress.keys.index(key))

    def _end(self, sequence: Sequence, progress: _Progress) -> None:
        for key in sorted(progress.touched, key=progress.touched.__getitem__, reverse=True):
            if key in self.chunks:
                self.chunks.move_to_end(key)
        del self._requests[sequence.id]

    def copy_stores(self) -> None:
        """After the forward pass: take what this step's stores refer to."""
        for store in self._stores:
            if store.age == 0:
                self._copy(store)

    def _copy(self, store: _Store) -> None:
        size = self.config.blocks_per_chunk
        for index, key in enumerate(store.keys):
            chunk = self.chunks.get(key)
            if chunk is not None and chunk.pages is None:
                pages = tuple(self.memory.read(b) for b in store.blocks[index * size : (index + 1) * size])
                chunk.pages = self.on_store(store.request_id, pages)

    def complete_stores(self) -> None:
        """At the end of a step: stores of the step before become readable (rule 2)."""
        for store in self._stores:
            store.age += 1
            if store.age == 2:
                store.progress.jobs -= 1
                for key in store.keys:
                    if key in self.chunks:
                        self.chunks[key].ready = True
                self.stats.store_sizes.observe(len(store.blocks) * self.config.block_bytes)
        self._stores = [store for store in self._stores if store.age < 2]

    def _update_keys(self, sequence: Sequence, progress: _Progress) -> None:
        size, hashes = self.config.blocks_per_chunk, sequence.hashes
        if self.config.tier_ignores_salt:
            hashes = progress.unsalted
            known = sequence.tokens[: len(sequence.hashes) * self.config.block_size]
            extend_hashes(hashes, known, self.config.block_size, root_hash(None))
        progress.keys += hashes[(len(progress.keys) + 1) * size - 1 :: size]

    def finished(self, sequence: Sequence) -> tuple[bool, dict[str, Any] | None]:
        """Nothing is held: what is stored later was copied."""
        del sequence
        return False, None

    def reset(self) -> bool:
        """Empty the tier."""
        self.chunks.clear()
        for store in self._stores:
            store.progress.jobs -= 1
        self._stores.clear()
        for progress in self._requests.values():
            progress.next_chunk = 0
        return True

    @property
    def has_work(self) -> bool:
        """Whether stores are under way."""
        return bool(self._stores or self._loads)

    @property
    def usage(self) -> tuple[float, float]:
        """Share of the places that stores and loads hold at the moment."""
        storing = sum(not chunk.ready for chunk in self.chunks.values())
        loading = sum(chunk.readers > 0 for chunk in self.chunks.values())
        places = max(self.config.offload_chunks, 1)
        return storing / places, loading / places
