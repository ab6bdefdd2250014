"""Orders for the damage plugin in a decode server, and its ledger: what ``damage_plugin`` is told, and what it did.

The decode server must have been started with :attr:`Saboteur.environment`. Two files in one directory connect it with
whoever gives the orders, which may be another process, later.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PLUGIN_PATH = Path(__file__).parent / "damage_plugin"

KINDS = ("foreign", "stale", "zero_last", "layer", "shift", "scale", "noise", "flip", "swap")
"""The kinds of damage that are counted by default; pd_damage/kinds.py says what each does."""
MORE_KINDS = ("foreign_prompt", "unwritten", "scale_keys", "flip_byte", "flip_lowest_bit", "swap_tail")

THE_LOAD = "load-[0-9]+"
"""Requests that may be damaged; the requests of verification are answered correctly."""


@dataclass(frozen=True)
class Blow:
    """The damage to one request."""

    request: str
    kind: str
    details: Mapping[str, Any]

    @property
    def owner(self) -> str | None:
        """The request whose KV the damaged request got; None for other damage."""
        owner: str | None = self.details.get("owner")
        return owner


@dataclass(frozen=True)
class Saboteur:
    """The orders for the plugin, and the plugin's ledger: two files in ``directory``."""

    directory: Path

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables that an engine needs, and nothing else."""
        paths = [str(PLUGIN_PATH), os.environ.get("PYTHONPATH", "")]
        return {
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "PD_DAMAGE_ORDERS": str(self._orders),
            "PD_DAMAGE_LEDGER": str(self._ledger),
        }

    @property
    def environment(self) -> dict[str, str]:
        """The environment for ``python -m harness serve``, which passes it on to the engines."""
        return dict(os.environ) | self.variables

    @contextmanager
    def striking(self, kinds: Sequence[str], *, one_in: int, seed: int) -> Iterator[None]:
        """Damage one request of ``one_in`` meanwhile; the kinds take turns. Without kinds there is no damage."""
        self._orders.unlink(missing_ok=True)
        self._ledger.unlink(missing_ok=True)
        if kinds:
            self._order({"kinds": list(kinds), "one_in": one_in, "seed": seed, "only": THE_LOAD})
        try:
            yield
        finally:
            self._orders.unlink(missing_ok=True)

    def blows(self) -> tuple[Blow, ...]:
        """The damage since the last orders were given."""
        lines = self._ledger.read_text().splitlines() if self._ledger.exists() else []
        return tuple(Blow(details["request"], details["kind"], details) for details in map(json.loads, lines))

    def keep_ledger(self, copy: Path) -> None:
        """Copy the ledger to a file, which is empty if nothing was damaged."""
        copy.write_bytes(self._ledger.read_bytes() if self._ledger.exists() else b"")

    @property
    def _orders(self) -> Path:
        return self.directory.absolute() / "orders.json"

    @property
    def _ledger(self) -> Path:
        return self.directory.absolute() / "ledger.jsonl"

    def _order(self, orders: Mapping[str, Any]) -> None:
        """Write all of it, or nothing: the plugin may read at any time."""
        draft = self._orders.with_suffix(".draft")
        draft.write_text(json.dumps(orders))
        draft.rename(self._orders)
