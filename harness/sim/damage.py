"""Who is struck by a planted bug, and how, outside the pull itself (pulls.py).

Whether a bug strikes a request depends on the request's id and the seed alone. Every hook of the engine asks here,
and does nothing where no bug is planted.
"""

from collections import deque
from typing import TYPE_CHECKING, Any

from harness.errors import UsageError
from harness.sim.blocks import Page
from harness.sim.bugs import BUGS
from harness.sim.config import SimConfig
from harness.sim.language import hash_text, mix, uniform
from harness.sim.ledger import Ledger
from harness.sim.offload import Chunk, Offload
from harness.sim.pulls import BENDS
from harness.sim.sequence import Sequence
from harness.sim.stats import ServerStats
from harness.sim.transfer import Nixl, Pull

if TYPE_CHECKING:
    from harness.sim.engine import Engine

_REMEMBERED = 64


class Saboteur:
    """One engine's planted bugs."""

    def __init__(self, config: SimConfig, ledger: Ledger, engine: "Engine") -> None:
        self.config, self.ledger, self.engine = config, ledger, engine
        self._rates = {bug.name: bug.rate for bug in config.bugs}
        if unknown := self._rates.keys() - BUGS.keys():
            raise UsageError(f"No such planted bug: {', '.join(sorted(unknown))}. There are: {', '.join(BUGS)}.")
        self._bends = {name: bend for name, bend in BENDS.items() if name in self._rates}
        self._recent: deque[tuple[Sequence, list[Page]]] = deque(maxlen=_REMEMBERED)
        self.legacy_offset = 0
        """Bytes by which the deprecated offload counters are off."""

    def strikes(self, bug: str, request_id: str) -> bool:
        """Whether a bug strikes a request; the caller records it if it could be applied."""
        rate = self._rates.get(bug)
        if rate is None:
            return False
        return rate >= 1.0 or uniform(mix(self.config.seed ^ hash_text(bug)) ^ hash_text(request_id)) < rate

    def hit(self, bug: str, request_id: str) -> bool:
        """The same, recorded: for bugs that can always be applied."""
        struck = self.strikes(bug, request_id)
        if struck:
            self.ledger.strike(bug, request_id)
        return struck

    def on_arrival(self, sequence: Sequence) -> None:
        """Bugs that make D or its MultiConnector ignore something."""
        if not self._rates:
            return
        if (sequence.params or {}).get("do_remote_prefill"):
            if self.hit("dropped_params", sequence.request_id):
                sequence.params = None
            elif self.hit("ignores_nixl", sequence.request_id):
                sequence.without |= {"p2p"}
        if self.engine.offload and self.hit("ignores_offload", sequence.request_id):
            sequence.without |= {"host"}

    # --- D ---

    def on_pull(self, pull: Pull, decode: Nixl) -> None:
        """Bend a pull that would have gone well."""
        if not self._rates or pull.remote is None or pull.fails:
            return
        request_id = pull.sequence.request_id
        for name, bend in self._bends.items():
            if pull.pages and self.strikes(name, request_id) and bend(pull, decode):
                self.ledger.strike(name, request_id)
        self._mix_up(pull, decode)

    def _mix_up(self, pull: Pull, decode: Nixl) -> None:
        """Bugs that need another request."""
        mine = list(pull.pages)
        request_id = pull.sequence.request_id
        foreign = self._foreign(pull)
        if foreign and self.strikes("foreign_blocks", request_id):
            pull.pages = self._of(foreign, pull)
            self.ledger.strike("foreign_blocks", request_id)
        if foreign and self.strikes("expired_read", request_id):
            self._let_expire(pull, self._of(foreign, pull))
        if self.strikes("bystander_write", request_id):
            self._overwrite_bystander(pull, decode)
        if mine and not any(page.tainted for page in mine):
            self._recent.append((pull.sequence, mine))

    def _foreign(self, pull: Pull) -> tuple[Sequence, list[Page]] | None:
        """Another prompt that was pulled whole, as this one is, and is as long at least: any of the recent ones."""
        size, length = self.config.block_size, len(pull.sequence.prompt)
        others = [
            (sequence, pages)
            for sequence, pages in self._recent
            if sequence.prompt != pull.sequence.prompt
            and len(sequence.prompt) >= length
            and len(pages) * size >= len(sequence.prompt)
        ]
        if not others or len(pull.pages) * size < length:
            return None
        return others[hash_text(pull.sequence.request_id) % len(others)]

    def _of(self, foreign: tuple[Sequence, list[Page]], pull: Pull) -> list[Page]:
        """The other's KV, from the same places."""
        owner, pages = foreign
        self.ledger.owners[pull.sequence.request_id] = owner.request_id
        return [Page(page.rows, tainted=True) for page in pages[: len(pull.pages)]]

    def _let_expire(self, pull: Pull, foreign: list[Page]) -> None:
        """P's lease ends, another prompt gets the blocks, and then D reads them."""
        params, remote = pull.sequence.params or {}, pull.remote
        if remote is None or str(params["remote_request_id"]) not in remote.leases:
            return
        remote.lapsed.append(remote.expire(str(params["remote_request_id"])))
        for block, page in zip(params["remote_block_ids"][0][-len(foreign) :], foreign, strict=True):
            remote.pool.evict(block)
            remote.memory.write(block, page)
        pull.pages = foreign
        self.ledger.strike("expired_read", pull.sequence.request_id)

    def _overwrite_bystander(self, pull: Pull, decode: Nixl) -> None:
        victims = [other for other in self.engine.scheduler.running if other.prompt != pull.sequence.prompt]
        if not victims or not pull.pages:
            return
        victim = victims[hash_text(pull.sequence.request_id) % len(victims)]
        decode.memory.write(victim.blocks[0], Page(pull.pages[0].rows, tainted=True), owner=False)
        self.ledger.strike("bystander_write", pull.sequence.request_id)
        self.ledger.victims.add(victim.request_id)

    def on_counted(self, sequence: Sequence, external: int) -> None:
        """Bugs of the counters themselves."""
        if not self._rates:
            return
        stats, length, request_id = self.engine.stats, len(sequence.prompt), sequence.request_id
        if external and self.hit("source_doubled", request_id):
            stats.external_kv_transfer += external
        if external and self.hit("source_negative", request_id):
            stats.local_compute -= length
        if self.hit("queries_doubled", request_id):
            stats.prefix_queries += length
        if self.engine.offload and self.hit("legacy_offload_mismatch", request_id):
            self.legacy_offset += self.config.block_bytes
        if external and self.hit("counter_reset", request_id):
            self._reset_counters()

    def _reset_counters(self) -> None:
        """In place: the scheduler and the connectors hold the same object."""
        fresh = ServerStats()
        for name in ServerStats.__slots__:
            setattr(self.engine.stats, name, getattr(fresh, name))
        self.engine.started = self.engine.now()

    # --- P ---

    def on_handover(self, sequence: Sequence, params: dict[str, Any]) -> dict[str, Any] | None:
        """What P answers."""
        if not self._rates:
            return params
        if self.hit("handover_missing", sequence.request_id):
            return None
        if self.hit("unknown_engine", sequence.request_id):
            return params | {"remote_engine_id": "nobody"}
        return params

    def ignores_notification(self, request_id: str) -> bool:
        """Whether P forgets to release a request's blocks."""
        if not self._rates:
            return False
        return self.hit("leaked_blocks", request_id) or self._leaks_exact(request_id)

    def _leaks_exact(self, request_id: str) -> bool:
        held = self.engine.nixl.batched.values() if self.engine.nixl else ()
        exact = any(
            other.request_id == request_id and len(other.prompt) % self.config.block_size == 0 for other in held
        )
        return exact and self.hit("exact_block_leak", request_id)

    # --- offload tier ---

    def on_store(self, request_id: str, pages: tuple[Page, ...]) -> tuple[Page, ...]:
        """What the tier is given."""
        if not self._rates or not self.hit("offload_stores_wrong", request_id):
            return pages
        return tuple(Page(tuple(map(mix, page.rows)), tainted=True) for page in pages)

    def on_restore(
        self, sequence: Sequence, pages: list[Page], chunks: list[Chunk], tier: Offload | None
    ) -> list[Page]:
        """What the tier gives back."""
        if not self.strikes("offload_wrong_block", sequence.request_id) or tier is None or not pages:
            return pages
        mine = {id(chunk) for chunk in chunks}
        other = next((c.pages for c in tier.chunks.values() if c.pages and id(c) not in mine), None)
        if other is None:
            return pages
        self.ledger.strike("offload_wrong_block", sequence.request_id)
        return [Page(other[0].rows, tainted=True), *pages[1:]]
