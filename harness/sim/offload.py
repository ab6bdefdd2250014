"""The offload tier, as in vLLM 0.32.0's ``kv_connector/v1/offloading`` and ``kv_offload/cpu``.

Rule 1. The tier holds whole chunks of whole blocks, keyed by the hash of their last block. Each step offers the chunks
that it completes, by default only those of the prompt. Chunks that the tier already has are skipped. When a request
finishes, it also offers the chunk that its last token completed.

Rule 2. A store is copied after the step that computed it and becomes readable at the end of the *next* step. A lookup
that finds the chunk before then must be repeated (`matched` returns None).

Rule 3. The least recently used chunk is evicted first. A chunk becomes recently used when it is stored, and when a
request ends that stored, found or loaded it; of that request's chunks, the first becomes the most recent and the last
the least recent. Chunks in transfer and chunks of the same offer are never evicted. If too few other chunks can be
evicted, nothing of the offer is stored, and the next step tries again.

Rule 4. A lookup covers the whole prompt, including its last token, in whole chunks from the chunk in which the local
hit ends. A hit of fewer tokens than a chunk does not count.
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
    """A chunk in the tier."""

    pages: tuple[Page, ...] | None = None
    """None until the store is copied."""
    ready: bool = False
    """Whether the chunk can be read (rule 2)."""
    readers: int = 0
    """Loads of this chunk that are planned but not carried out."""


@dataclass(slots=True)
class _Progress:
    """The connector's state of one request."""

    keys: list[int] = field(default_factory=list)
    """Keys of the request's full chunks, in order."""
    unsalted: list[int] = field(default_factory=list)
    """Block hashes computed without the request's salt."""
    blocks: list[int] = field(default_factory=list)
    next_chunk: int = 0
    """Index of the first chunk that has been neither stored nor loaded."""
    local: int = 0
    """Tokens that the last lookup found in the local prefix cache."""
    touched: dict[int, int] = field(default_factory=dict)
    """Keys of chunks that the request stored, found or loaded, with their index in the request."""
    jobs: int = 0
    """Stores and loads that have not ended."""


@dataclass(slots=True)
class _Store:
    progress: _Progress
    keys: list[int]
    blocks: list[int]
    request_id: str = ""
    age: int = 0
    """Steps that have ended since the store was planned."""


class Offload:
    """One server's offloading connector and its tier."""

    label = "host"

    def __init__(  # noqa: PLR0913, PLR0917 - the engine's parts that it shares, and two hooks
        self,
        config: SimConfig,
        pool: BlockPool,
        memory: KVMemory,
        stats: ServerStats,
        on_restore: Callable[[Sequence, list[Page], list[Chunk], "Offload"], list[Page]],
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
        """Take note of a new request."""
        self._requests[sequence.id] = _Progress()

    # --- lookup and load ---

    def matched(self, sequence: Sequence, computed: int) -> int | None:
        """Return the tokens that the tier can restore beyond those computed; None means: ask again later (rule 2)."""
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
        """Plan to load the ``external`` tokens that the lookup promised."""
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
        """Carry out the planned loads; return their requests, none of which failed."""
        loads, self._loads = self._loads, []
        for sequence, keys, blocks in loads:
            chunks = [self.chunks[key] for key in keys]
            pages = [page for chunk in chunks for page in chunk.pages or ()]
            # The first chunk may begin with blocks that the local prefix cache has.
            skip = len(pages) - len(blocks)
            pages = self.on_restore(sequence, pages[skip:] if skip > 0 else pages, chunks, self)
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
        """Plan to store the chunks that this step completes, and the last chunks of finished requests (rule 1)."""
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
            # The blocks of a finished request are free: this step may overwrite them.
            if at_once:
                self._copy(store)

    def _make_room(self, progress: _Progress, offered: list[int]) -> dict[int, None] | None:
        """Make room for the offered chunks that are new, and return their keys; None if there is no room for all."""
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
        """Copy the blocks of this step's stores, after the forward pass."""
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
        """Make the stores of the previous step readable, at the end of a step (rule 2)."""
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

    def finished(self, _sequence: Sequence) -> tuple[bool, dict[str, Any] | None]:
        """Hold no blocks, because the blocks of pending stores have been copied."""
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
        """Whether a store or a load has not ended."""
        return bool(self._stores or self._loads)

    @property
    def usage(self) -> tuple[float, float]:
        """Shares of the tier, 0 to 1, that pending stores and pending loads occupy."""
        storing = sum(not chunk.ready for chunk in self.chunks.values())
        loading = sum(chunk.readers > 0 for chunk in self.chunks.values())
        places = max(self.config.offload_chunks, 1)
        return storing / places, loading / places
