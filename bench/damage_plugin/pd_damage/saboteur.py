"""Damages KV between the end of its transfer and the step that first reads it."""

from collections import OrderedDict, deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .kinds import FROM_BEFORE, KINDS, OF_ANOTHER, Kept, Scene
from .orders import Orders, Turns, read_orders, record
from .pages import Content, Pages
from .prompt import Prompt, client_id

_KEPT = 24
"""Requests whose KV is kept to be given to other requests: about 2 MB each with the canary."""
_AWAITED = 256
"""Requests in transfer whose blocks' old content is kept; the oldest are dropped, since aborted ones never end."""


class Saboteur:
    """Damages the KV of one decode worker. ``orders`` and ``ledger`` are files."""

    def __init__(self, orders: Path, ledger: Path) -> None:
        self._path, self._ledger = orders, ledger
        self._orders: Orders | None = None
        self._begin(None)

    def before_read(self, worker: Any, engine_id: str, meta: Any) -> None:
        """Keep the blocks' old content, if the orders need it."""
        self._look()
        if self._orders is None or FROM_BEFORE.isdisjoint(self._orders.kinds):
            return
        prompt = self._prompt(worker, engine_id, meta)
        if prompt is not None and engine_id not in self._before:
            self._before[engine_id] = Pages.of_worker(worker).copy(prompt.blocks)
            while len(self._before) > _AWAITED:
                self._before.popitem(last=False)

    def after_read(self, worker: Any, received: Mapping[str, Any]) -> None:
        """``received``: the metadata of successful transfers, by the engine's request id."""
        if received:
            self._look()
        for engine_id, meta in received.items():
            before = self._before.pop(engine_id, None)
            prompt = self._prompt(worker, engine_id, meta)
            if prompt is not None and self._orders is not None:
                self._damage(Pages.of_worker(worker), prompt, before, self._orders)

    def _damage(self, pages: Pages, prompt: Prompt, before: Content | None, orders: Orders) -> None:
        intact = None if OF_ANOTHER.isdisjoint(orders.kinds) else Kept(prompt, pages.copy(prompt.blocks))
        if self._turns is not None and (kind := self._turns.next()):
            scene = Scene(pages, prompt, orders.rng(kind, prompt.request), before, tuple(self._others))
            done = KINDS[kind](scene)
            if done is not None:
                pages.finish()
                self._turns.done()
                record(self._ledger, {"request": prompt.request, "kind": kind, **done})
        if intact is not None:
            self._others.append(intact)

    def _prompt(self, worker: Any, engine_id: str, meta: Any) -> Prompt | None:
        concerned = self._orders is not None and self._orders.concern(client_id(engine_id))
        if not concerned or not any(meta.local_physical_block_ids):
            return None
        return Prompt.of(engine_id, meta, worker.block_size)

    def _look(self) -> None:
        orders = read_orders(self._path)
        if orders != self._orders:
            self._begin(orders)

    def _begin(self, orders: Orders | None) -> None:
        self._orders = orders
        self._turns = Turns(orders) if orders is not None else None
        self._others: deque[Kept] = deque(maxlen=_KEPT)
        self._before: OrderedDict[str, Content] = OrderedDict()
