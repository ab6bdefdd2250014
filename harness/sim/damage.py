"""Applies planted bugs at the engine's hooks; the bugs of the pull itself are in pulls.py.

Whether a bug strikes a request depends only on the request's id and the seed. Without planted bugs, no hook changes
anything.
"""

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from harness.errors import UsageError
from harness.sim.blocks import Page
from harness.sim.bugs import BUGS
from harness.sim.config import SimConfig
from harness.sim.language import hash_text, mix, uniform
from harness.sim.ledger import Ledger
from harness.sim.offload import Chunk, Offload
from harness.sim.pull import Pull
from harness.sim.pulls import PULL_BUGS
from harness.sim.scheduler import Scheduler
from harness.sim.sequence import Sequence
from harness.sim.stats import ServerStats
from harness.sim.transfer import Nixl

_REMEMBERED = 64
"""Pulls whose KV is kept, to be given to other requests."""


class BuggyEngine(Protocol):
    """The parts of an engine that planted bugs use."""

    scheduler: Scheduler
    stats: ServerStats
    now: Callable[[], float]
    started: float

    @property
    def offload(self) -> Offload | None:
        """The offload tier, if there is one."""

    @property
    def nixl(self) -> Nixl | None:
        """The transfer agent, if there is one."""


class PlantedBugs:
    """One engine's planted bugs."""

    def __init__(self, config: SimConfig, ledger: Ledger, engine: BuggyEngine) -> None:
        self.config, self.ledger, self.engine = config, ledger, engine
        self._rates = {bug.name: bug.rate for bug in config.bugs}
        if unknown := self._rates.keys() - BUGS.keys():
            raise UsageError(f"No such planted bug: {', '.join(sorted(unknown))}. Choose from: {', '.join(BUGS)}.")
        self._pull_bugs = {name: apply for name, apply in PULL_BUGS.items() if name in self._rates}
        self._recent: deque[tuple[Sequence, list[Page]]] = deque(maxlen=_REMEMBERED)
        self.legacy_offset = 0
        """Bytes by which the deprecated offload counters differ from the newer ones."""

    def strikes(self, bug: str, request_id: str) -> bool:
        """Whether a bug is drawn for a request; the caller applies it if it can, and then records it."""
        rate = self._rates.get(bug)
        if rate is None:
            return False
        return rate >= 1.0 or uniform(mix(self.config.seed ^ hash_text(bug)) ^ hash_text(request_id)) < rate

    def strike(self, bug: str, request_id: str) -> bool:
        """Like `strikes`, but records the request at once: for bugs that can always be applied."""
        struck = self.strikes(bug, request_id)
        if struck:
            self.ledger.strike(bug, request_id)
        return struck

    def on_arrival(self, sequence: Sequence) -> None:
        """Apply bugs that make the engine or its MultiConnector ignore a part of the request."""
        if (sequence.params or {}).get("do_remote_prefill"):
            if self.strike("dropped_params", sequence.request_id):
                sequence.params = None
            elif self.strike("ignores_nixl", sequence.request_id):
                sequence.ignored_connectors |= {"p2p"}
        if self.engine.offload and self.strike("ignores_offload", sequence.request_id):
            sequence.ignored_connectors |= {"host"}

    # --- decode server ---

    def on_pull(self, pull: Pull, decode: Nixl) -> None:
        """Apply bugs to a pull that would have succeeded."""
        if not self._rates or pull.remote is None or pull.fails:
            return
        request_id = pull.sequence.request_id
        for name, apply in self._pull_bugs.items():
            if pull.pages and self.strikes(name, request_id) and apply(pull, decode):
                self.ledger.strike(name, request_id)
        self._involve_others(pull, decode)

    def _involve_others(self, pull: Pull, decode: Nixl) -> None:
        """Apply bugs that need another request."""
        own = list(pull.pages)
        request_id = pull.sequence.request_id
        foreign = self._foreign(pull)
        if foreign and self.strikes("foreign_blocks", request_id):
            pull.pages = self._foreign_pages(foreign, pull)
            self.ledger.strike("foreign_blocks", request_id)
        if foreign and self.strikes("expired_read", request_id):
            self._let_expire(pull, self._foreign_pages(foreign, pull))
        if self.strikes("bystander_write", request_id):
            self._overwrite_bystander(pull, decode)
        if own and not any(page.tainted for page in own):
            self._recent.append((pull.sequence, own))

    def _foreign(self, pull: Pull) -> tuple[Sequence, list[Page]] | None:
        """Pick a recent pull of another prompt, at least as long as this one; both must have been pulled whole."""
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

    def _foreign_pages(self, foreign: tuple[Sequence, list[Page]], pull: Pull) -> list[Page]:
        """Return the foreign prompt's KV from the places that the pull fetches."""
        owner, pages = foreign
        self.ledger.owners[pull.sequence.request_id] = owner.request_id
        return [Page(page.rows, tainted=True) for page in pages[: len(pull.pages)]]

    def _let_expire(self, pull: Pull, foreign: list[Page]) -> None:
        """End P's lease and give the blocks to another prompt before D reads them."""
        params, remote = pull.sequence.params or {}, pull.remote
        pages = dict(zip(params["remote_block_ids"][0][-len(foreign) :], foreign, strict=True))
        if remote is None or not remote.lapse(str(params["remote_request_id"]), pages):
            return
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
        """Apply bugs of the counters themselves."""
        stats, length, request_id = self.engine.stats, len(sequence.prompt), sequence.request_id
        if external and self.strike("source_doubled", request_id):
            stats.external_kv_transfer += external
        if external and self.strike("source_negative", request_id):
            stats.local_compute -= length
        if self.strike("queries_doubled", request_id):
            stats.prefix_queries += length
        if self.engine.offload and self.strike("legacy_offload_mismatch", request_id):
            self.legacy_offset += self.config.block_bytes
        if external and self.strike("counter_reset", request_id):
            self._reset_counters()

    def _reset_counters(self) -> None:
        """Set every counter to zero in place, since the scheduler and the connectors share the object."""
        fresh = ServerStats()
        for name in ServerStats.__slots__:
            setattr(self.engine.stats, name, getattr(fresh, name))
        self.engine.started = self.engine.now()

    # --- prefill server ---

    def on_handover(self, sequence: Sequence, params: dict[str, Any]) -> dict[str, Any] | None:
        """Return the ``kv_transfer_params`` that P answers with."""
        if self.strike("handover_missing", sequence.request_id):
            return None
        if self.strike("unknown_engine", sequence.request_id):
            return params | {"remote_engine_id": "no-such-engine"}
        return params

    def ignores_notification(self, request_id: str) -> bool:
        """Whether P forgets to release a request's blocks."""
        if not self._rates:
            return False
        return self.strike("leaked_blocks", request_id) or self._leaks_exact(request_id)

    def on_release(self, sequence: Sequence) -> None:
        """Hold the last block of a request once more, so that the release that follows does not free it.

        Drawn from the prompt too: in repeated loads, whose requests have the same ids, other requests leak.
        """
        if not self._rates or not sequence.blocks:
            return
        if self.strikes("leaked_block", f"{sequence.request_id} {sequence.prompt}"):
            self.ledger.strike("leaked_block", sequence.request_id)
            self.engine.scheduler.pool.touch(sequence.blocks[-1:])

    def _leaks_exact(self, request_id: str) -> bool:
        held = self.engine.nixl.leases.held.values() if self.engine.nixl else ()
        exact = any(
            other.request_id == request_id and len(other.prompt) % self.config.block_size == 0 for other in held
        )
        return exact and self.strike("exact_block_leak", request_id)

    # --- offload tier ---

    def on_store(self, request_id: str, pages: tuple[Page, ...]) -> tuple[Page, ...]:
        """Return the pages that the tier stores."""
        if not self.strike("offload_stores_wrong", request_id):
            return pages
        return tuple(Page(tuple(map(mix, page.rows)), tainted=True) for page in pages)

    def on_restore(self, sequence: Sequence, pages: list[Page], chunks: list[Chunk], tier: Offload) -> list[Page]:
        """Return the pages that the tier restores."""
        if not self.strikes("offload_wrong_block", sequence.request_id) or not pages:
            return pages
        own = {id(chunk) for chunk in chunks}
        other = next((c.pages for c in tier.chunks.values() if c.pages and id(c) not in own), None)
        if other is None:
            return pages
        self.ledger.strike("offload_wrong_block", sequence.request_id)
        return [Page(other[0].rows, tainted=True), *pages[1:]]
