"""NIXL pull transfers between simulated servers, as in vLLM 0.32.0's ``kv_connector/v1/nixl``.

Rule 1. P holds a finished request's blocks under a lease, until D's notification or the end of the lease. Reading
blocks does not check the lease: D reads the present contents of P's memory.

Rule 2. A pull fetches the *last* blocks of P's list, as many as D's prefix cache lacked. So the KV is shifted if P's
list is longer than the prompt needs.

Rule 3. Parameters are used once: ``do_remote_prefill`` is set to False when blocks have been allocated.

Rule 4. If a ``remote_*`` key is missing, D waits for tokens that no pull fetches, and the request hangs. When its
client leaves, its blocks stay held if it was streamed, and else the engine dies of a KeyError. If ``remote_block_ids``
is empty or has too few blocks for D, an assertion fails, and the engine is dead.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

from harness.sim.blocks import BlockPool, KVMemory, Page
from harness.sim.config import SimConfig
from harness.sim.fabric import Address, Fabric, Layout, Reached
from harness.sim.leases import Heartbeats, Leases, ReleaseFaults
from harness.sim.pull import EngineDead, Planned, Pull, read, remote_blocks
from harness.sim.sequence import Finish, Sequence
from harness.sim.stats import ServerStats

REMOTE_KEYS = ("remote_engine_id", "remote_request_id", "remote_host", "remote_port")


class PullFaults(ReleaseFaults, Protocol):
    """The hooks through which planted bugs change a transfer."""

    def on_pull(self, pull: Pull, decode: "Nixl") -> None:
        """Change a pull before it is carried out."""

    def on_handover(self, sequence: Sequence, params: dict[str, Any]) -> dict[str, Any] | None:
        """Return the ``kv_transfer_params`` that P answers with."""


class Nixl:
    """One server's NIXL connector; ``fabric`` is its way to those of other servers."""

    label = "p2p"

    def __init__(  # noqa: PLR0913 - all parts of a server that a transfer uses
        self,
        engine_id: str,
        config: SimConfig,
        *,
        pool: BlockPool,
        memory: KVMemory,
        stats: ServerStats,
        fabric: Fabric,
        faults: PullFaults,
        now: Callable[[], float],
    ) -> None:
        self.engine_id, self.config, self.pool, self.memory, self.stats = engine_id, config, pool, memory, stats
        self.fabric, self.faults, self.now = fabric, faults, now
        self.layout = Layout(config.block_size, config.num_blocks, config.block_bytes)
        self.leases = Leases(config, stats, now, faults)
        self._heartbeats = Heartbeats(config, fabric, now)
        self._pulls: list[Planned] = []
        self._under_way = 0
        """Number of pulls that P has not answered."""
        self._answered: list[tuple[Planned, Reached]] = []
        self._lacking: str | None = None
        """The key that the parameters of a request lack whose client has left (rule 4)."""
        self.wake: Callable[[], None] = lambda: None
        """Called when a notification or the answer to a pull has arrived."""
        self.address = fabric.join(engine_id, self)

    # --- scheduler side ---

    def arrived(self, sequence: Sequence) -> None:
        """Remember the lease on P, to renew it while the request waits."""
        params = sequence.params or {}
        if params.get("do_remote_prefill") and all(params.get(key) is not None for key in REMOTE_KEYS):
            self._heartbeats.begin(sequence, Address.of(params), str(params["remote_request_id"]))

    def matched(self, sequence: Sequence, computed: int) -> int | None:
        """Return the prompt tokens that P can supply beyond those computed here."""
        if (sequence.params or {}).get("do_remote_prefill"):
            return max(len(sequence.prompt) - computed, 0)
        return 0

    def allocated(self, sequence: Sequence, external: int) -> None:
        """Plan the pull, or only the notification if nothing has to be fetched (rules 3 and 4)."""
        params = sequence.params
        if not params:
            return
        if params.get("do_remote_decode"):
            self.leases.held[sequence.id] = sequence
        elif params.get("do_remote_prefill"):
            if not params.get("remote_block_ids"):
                if external:
                    raise EngineDead("assert num_external_tokens == 0: remote_block_ids are empty")
            elif all(key in params for key in REMOTE_KEYS):
                local = [block for block in sequence.blocks if not self.pool.is_cached(block)] if external else []
                self._pulls.append(Planned(sequence, local, external > 0))
            params["do_remote_prefill"] = False

    def finished(self, sequence: Sequence) -> tuple[bool, dict[str, Any] | None]:
        """Return whether to hold the blocks, and the ``kv_transfer_params`` of the answer."""
        params = sequence.params
        self._heartbeats.end(sequence)
        if not params:
            return False, None
        if params.get("do_remote_prefill"):
            # The request was aborted before it was scheduled: P is notified, so that it releases the blocks.
            self._pulls.append(Planned(sequence, [], awaited=False))
            params["do_remote_prefill"] = False
            return False, None
        if not params.get("do_remote_decode"):
            return False, None
        if sequence.finish not in (Finish.STOP, Finish.LENGTH):
            self.leases.held.pop(sequence.id, None)
            return False, None
        self.leases.begin(sequence)
        return True, self.faults.on_handover(sequence, self._answer(sequence))

    def left(self, params: Mapping[str, Any]) -> None:
        """Note that a client left which had asked for a whole answer, not a stream (rule 4)."""
        if params.get("remote_block_ids"):
            self._lacking = next((key for key in REMOTE_KEYS if key not in params), None)
            self.wake()

    def _answer(self, sequence: Sequence) -> dict[str, Any]:
        used = -(-sequence.computed // self.config.block_size)
        return {
            "do_remote_prefill": True,
            "do_remote_decode": False,
            "remote_block_ids": [sequence.blocks[:used]],
            "remote_engine_id": self.engine_id,
            "remote_request_id": sequence.id,
            "remote_host": self.address.host,
            "remote_port": self.address.port,
            "tp_size": 1,
            "dcp_size": 1,
            "pp_size": 1,
            "remote_num_tokens": sequence.computed,
            "remote_blocks_expiry_time": None,
            "transfer_mode": "pull",
        }

    # --- worker side ---

    def run(self) -> list[tuple[Sequence, bool]]:
        """Start the planned pulls; return each request whose pull ended, and whether the pull failed."""
        if self._lacking:
            raise EngineDead(f"KeyError: {self._lacking!r}")
        pulls, self._pulls = self._pulls, []
        for planned in pulls:
            self._start(planned)
        answered, self._answered = self._answered, []
        results = [self._carry_out(planned, reached) for planned, reached in answered]
        self._heartbeats.send()
        return [result for result in results if result]

    def _start(self, planned: Planned) -> None:
        self._under_way += 1
        params = planned.sequence.params or {}
        blocks = remote_blocks(planned.sequence) if planned.local else []
        done = partial(self._take, planned)
        self.fabric.reach(Address.of(params), str(params.get("remote_request_id")), blocks, done)

    def _take(self, planned: Planned, reached: Reached) -> None:
        """Keep P's answer for the next step."""
        self._under_way -= 1
        self._answered.append((planned, reached))
        self.wake()

    def _carry_out(self, planned: Planned, reached: Reached) -> tuple[Sequence, bool] | None:
        sequence, local, awaited = planned
        self._heartbeats.end(sequence)
        pull = Pull(sequence, reached.peer, local, fails=reached.lost)
        if pull.remote is not None and local and not pull.fails:
            read(pull, pull.remote, self.config.block_size)
        if local:
            self.faults.on_pull(pull, self)
        if pull.hangs:
            return None
        if pull.remote is None or pull.fails:
            self.stats.failed_handshakes += pull.remote is None
            self.stats.failed_transfers += pull.remote is not None
            return (sequence, True) if awaited else None
        self._write(pull, pull.remote.layout)
        if pull.notify and not pull.remote.notify(str((sequence.params or {}).get("remote_request_id"))):
            self.stats.failed_notifications += 1
        return (sequence, False) if awaited else None

    def page(self, block: int) -> Page:
        """Copy the present contents of a block."""
        return self.memory.read(block)

    def still_holds(self, sequence: Sequence) -> bool:
        """Ground truth: whether the parameters of a request on D name exactly the blocks that P holds for it."""
        return self.leases.still_holds(sequence)

    def _write(self, pull: Pull, remote: Layout) -> None:
        for block, page in zip(pull.local, pull.pages, strict=False):
            self.memory.write(block, page)
        if pull.local:
            size = pull.blocks_read * remote.block_bytes
            self.stats.nixl_bytes.observe(size)
            self.stats.nixl_descriptors.observe(pull.blocks_read * self.config.geometry.layers * 2)
            self.stats.nixl_time.observe(size / 1e10)
            self.stats.nixl_post.observe(1e-5)

    # --- notifications and leases ---

    def notify(self, request_id: str) -> bool:
        """Take D's notification that it has read a request's blocks."""
        self.leases.notify(request_id)
        self.wake()
        return True

    def lapse(self, request_id: str, pages: Mapping[int, Page]) -> bool:
        """End a request's lease and overwrite blocks, for a planted bug; False if there is no such lease."""
        if not self.leases.lapse(request_id, pages, self.pool, self.memory):
            return False
        self.wake()
        return True

    def renew(self, request_id: str) -> None:
        """Renew the lease of a request that still waits on D."""
        self.leases.renew(request_id)

    @property
    def _beats_idle(self) -> bool:
        """Whether leases must be renewed even if the engine has nothing to compute: a pull is under way."""
        return bool(self._heartbeats and self._under_way)

    @property
    def has_work(self) -> bool:
        """Whether a step would do something now."""
        beat = self._beats_idle and self.now() >= self._heartbeats.next_beat
        if self._lacking:
            return True
        return bool(self._pulls or self._answered or self.leases.has_work or beat)

    @property
    def next_deadline(self) -> float | None:
        """When the next lease ends or must be renewed, on the engine's clock."""
        beat = (self._heartbeats.next_beat,) if self._beats_idle else ()
        return min((*self.leases.ends.values(), *beat), default=None)
