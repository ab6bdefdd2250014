"""Plans a step's tokens and blocks, as vLLM 0.32.0's ``v1/core/sched/scheduler.py`` and ``kv_cache_manager.py`` do.

Rule 1. Running requests are scheduled first, then requests whose KV is being loaded, then waiting requests, until the
token budget, the blocks or the sequences of the step are used up.

Rule 2. A request without computed tokens is looked up in the prefix cache and then in the connectors. The lookup is
counted when the request is admitted, unless the request was preempted before. A request for prompt_logprobs is not
looked up in the prefix cache, but it counts as an external query.

Rule 3. A request that loads KV gets its blocks at once, and their hashes when the load has ended. It then computes the
remaining tokens, at least its last token. If no token remains computed (a prompt of one token), the request is looked
up and counted once more.

Rule 4. Full blocks get their hashes when they are allocated for computing, so that a later request of the same step
already hits them.

Rule 5. If a running request cannot get a block, the last running request is preempted: its blocks are freed, and it
moves to the front of the waiting queue.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from harness.sim.blocks import BlockPool
from harness.sim.config import SimConfig
from harness.sim.connectors import Connectors
from harness.sim.prefix_cache import extend_hashes, longest_hit
from harness.sim.sequence import Sequence, Status
from harness.sim.stats import ServerStats


@dataclass(frozen=True, slots=True)
class Work:
    """The tokens of one sequence that a step computes: positions ``start`` up to, not including, ``end``."""

    sequence: Sequence
    start: int
    end: int


@dataclass(slots=True)
class Scheduler:
    """Queues and block tables of one server."""

    config: SimConfig
    pool: BlockPool
    connectors: Connectors
    stats: ServerStats
    waiting: deque[Sequence] = field(default_factory=deque)
    loading: deque[Sequence] = field(default_factory=deque)
    """Requests that hold blocks and wait for their KV."""
    running: list[Sequence] = field(default_factory=list)
    prefilling: set[Sequence] = field(default_factory=set)
    """Admitted requests whose prompt is not fully computed; loads must leave enough blocks for them."""

    def add(self, sequence: Sequence) -> None:
        """Queue a new request."""
        self.waiting.append(sequence)
        self.connectors.arrived(sequence)

    def schedule(self) -> list[Work]:
        """Plan one step."""
        budget = self.config.max_num_batched_tokens
        work, preempted = self._schedule_running(budget)
        budget -= sum(part.end - part.start for part in work)
        if not preempted:
            work += self._schedule_waiting(budget)
        for part in work:
            part.sequence.computed = part.end
            if part.end >= len(part.sequence.tokens):
                self.prefilling.discard(part.sequence)
        return work

    def remove(self, sequence: Sequence) -> None:
        """Remove a request from every queue, without freeing its blocks."""
        self.prefilling.discard(sequence)
        for queue in (self.running, self.loading, self.waiting):
            if sequence in queue:
                queue.remove(sequence)

    def free(self, sequence: Sequence) -> None:
        """Free a sequence's blocks."""
        self.pool.release(sequence.blocks)
        sequence.blocks = []
        sequence.num_cached = 0
        sequence.total_at = -1

    # --- running ---

    def _schedule_running(self, budget: int) -> tuple[list[Work], bool]:
        work: list[Work] = []
        preempted = False
        index = 0
        while index < len(self.running) and budget > 0:
            sequence = self.running[index]
            count = min(len(sequence.tokens) - sequence.computed, budget)
            if not self._make_room(sequence, sequence.computed + count):
                return work, True
            preempted |= sequence.status is Status.PREEMPTED
            work.append(self._place(sequence, sequence.computed, count))
            budget -= count
            index += 1
        return work, preempted

    def _make_room(self, sequence: Sequence, upto: int) -> bool:
        """Preempt requests until a running one has enough blocks (rule 5); False if it was preempted itself."""
        while self._missing(sequence, upto) > self.pool.num_free:
            victim = self.running.pop()
            self._preempt(victim)
            if victim is sequence:
                return False
        return True

    def _preempt(self, sequence: Sequence) -> None:
        self.free(sequence)
        self.prefilling.discard(sequence)
        sequence.computed = 0
        sequence.status = Status.PREEMPTED
        sequence.preemptions += 1
        self.stats.preemptions += 1
        self.waiting.appendleft(sequence)

    # --- waiting ---

    def _schedule_waiting(self, budget: int) -> list[Work]:
        work: list[Work] = []
        skipped: list[tuple[deque[Sequence], Sequence]] = []
        while budget > 0 and len(self.running) < self.config.max_num_seqs:
            queue = self.loading or self.waiting
            if not queue:
                break
            sequence = queue[0]
            admitted = self._admit(sequence, budget) if self._ready(sequence) else ()
            # If one request gets no blocks, no later request is tried.
            if admitted is None:
                break
            queue.popleft()
            if not admitted:
                skipped.append((self.loading if sequence.blocks else self.waiting, sequence))
                continue
            work += admitted
            budget -= sum(part.end - part.start for part in admitted)
        for origin, sequence in reversed(skipped):
            origin.appendleft(sequence)
        return work

    def _ready(self, sequence: Sequence) -> bool:
        """Whether a request may be scheduled; if its load has ended, it continues from the loaded KV (rule 3)."""
        if sequence.status is not Status.REMOTE:
            return True
        if not sequence.received:
            return False
        sequence.received = False
        if sequence.load_failed and not sequence.computed:
            self.free(sequence)
        else:
            self._commit(sequence, sequence.computed)
        sequence.load_failed = False
        if sequence.computed == len(sequence.tokens):
            sequence.computed -= 1
        sequence.status = Status.PREEMPTED if sequence.preemptions else Status.WAITING
        return True

    def _admit(self, sequence: Sequence, budget: int) -> Iterable[Work] | None:
        """Admit a waiting request; empty if it loads KV or its lookup must be repeated, None if blocks are missing."""
        hit: list[int] = []
        external = 0
        lookup = sequence.computed == 0
        if lookup:
            hit = self._local_hit(sequence)
            found = self.connectors.matched(sequence, len(hit) * self.config.block_size)
            if found is None:
                return ()
            external = 0 if sequence.skips_reading else found
        local = len(hit) * self.config.block_size if lookup else sequence.computed
        count = 0 if external else min(len(sequence.tokens) - local, budget)
        if not self._fits(sequence, hit, loads=external > 0):
            return None
        self._hold(sequence, hit, local + external + count)
        self.connectors.allocated(sequence, external)
        if lookup:
            self._count_lookup(sequence, local, external)
        if external:
            sequence.computed = local + external
            sequence.status = Status.REMOTE
            self.prefilling.add(sequence)
            return ()
        return (self._start(sequence, local, count),)

    def _local_hit(self, sequence: Sequence) -> list[int]:
        size = self.config.block_size
        extend_hashes(sequence.hashes, sequence.tokens, size, sequence.root)
        if sequence.skips_reading or not self.config.prefix_caching:
            return []
        return longest_hit(self.pool, sequence.hashes, len(sequence.tokens), size)

    def _fits(self, sequence: Sequence, hit: list[int], *, loads: bool) -> bool:
        """Whether there are blocks for the whole sequence; a load must leave enough for requests in prefill."""
        needed = self._missing(sequence, len(sequence.tokens)) - len(hit) + self.pool.num_evictable(hit)
        reserved = 0
        if loads:
            reserved = sum(self._missing(other, len(other.tokens)) for other in self.prefilling)
        return needed + reserved <= self.pool.num_free

    def _hold(self, sequence: Sequence, hit: list[int], upto: int) -> None:
        if hit:
            self.pool.touch(hit)
            sequence.blocks = list(hit)
            sequence.num_cached = len(hit)
        sequence.blocks += self.pool.take(self._missing(sequence, upto))

    def _count_lookup(self, sequence: Sequence, local: int, external: int) -> None:
        if sequence.preemptions:
            return
        length = len(sequence.tokens)
        if self.config.prefix_caching and not sequence.skips_reading:
            self.stats.prefix_queries += length
            self.stats.prefix_hits += local
        if self.connectors.members:
            self.stats.external_queries += length - local
            self.stats.external_hits += external
            if external:
                self.stats.external_hits_by_tier[sequence.chosen.label] += external
        sequence.sources = local, external
        sequence.found = local + external

    def _start(self, sequence: Sequence, start: int, count: int) -> Work:
        self.running.append(sequence)
        sequence.status = Status.RUNNING
        if start + count < len(sequence.tokens):
            self.prefilling.add(sequence)
        return self._place(sequence, start, count)

    # --- block tables ---

    def _missing(self, sequence: Sequence, upto: int) -> int:
        """Count the further blocks that a sequence needs to hold ``upto`` tokens."""
        return max(-(-upto // self.config.block_size) - len(sequence.blocks), 0)

    def _place(self, sequence: Sequence, start: int, count: int) -> Work:
        missing = self._missing(sequence, start + count)
        if missing:
            sequence.blocks += self.pool.take(missing)
        self._commit(sequence, min(start + count, len(sequence.tokens)))
        return Work(sequence, start, start + count)

    def _commit(self, sequence: Sequence, upto: int) -> None:
        """Give the sequence's full blocks their hashes, so that lookups find them (rule 4)."""
        size = self.config.block_size
        full = upto // size
        if full <= sequence.num_cached:
            return
        extend_hashes(sequence.hashes, sequence.tokens, size, sequence.root)
        if self.config.prefix_caching:
            for index in range(sequence.num_cached, full):
                self.pool.cache(sequence.blocks[index], sequence.hashes[index])
        sequence.num_cached = full
