"""A real pair whose decode server damages KV on a test's orders, and lists the damage in a ledger for the test."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from command_line import Ran, Served, run_harness

PLUGIN_PATH = Path(__file__).parent / "damage_plugin"

THE_LOAD = "load-[0-9]+"
"""Requests that may be damaged; the requests of verification are answered correctly."""


@dataclass(frozen=True)
class Blow:
    """The damage to one request."""

    request: str
    kind: str
    details: dict[str, Any]

    @property
    def owner(self) -> str | None:
        """The request whose KV the damaged request got; None for other damage."""
        return self.details.get("owner")


@dataclass(frozen=True)
class Damaged:
    """One run of the harness, and the damage during this run."""

    ran: Ran
    blows: tuple[Blow, ...]

    def of(self, *kinds: str) -> tuple[Blow, ...]:
        """The damage of some kinds."""
        return tuple(blow for blow in self.blows if blow.kind in kinds)


@dataclass(frozen=True)
class Saboteur:
    """The orders for the plugin in the decode server, and the plugin's ledger: two files in ``directory``."""

    directory: Path

    @property
    def environment(self) -> dict[str, str]:
        """The environment for ``python -m harness serve``, which passes it on to the engines."""
        paths = [str(PLUGIN_PATH), os.environ.get("PYTHONPATH", "")]
        return dict(os.environ) | {
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "PD_DAMAGE_ORDERS": str(self._orders),
            "PD_DAMAGE_LEDGER": str(self._ledger),
        }

    def run(self, served: Served, kinds: Sequence[str], *, one_in: int, seed: int, prompts: int) -> Damaged:
        """One run at concurrency 32 in which one request of ``one_in`` is damaged; the kinds take turns."""
        self._ledger.unlink(missing_ok=True)
        self._order({"kinds": list(kinds), "one_in": one_in, "seed": seed, "only": THE_LOAD})
        load = ["--num-prompts", str(prompts), "--concurrency", "32", "--verify", "all", "--seed", str(seed)]
        try:
            ran = run_harness(self.directory / f"seed-{seed}", *load, *served.attach())
        finally:
            self._orders.unlink()
        return Damaged(ran, self._blows())

    @property
    def _orders(self) -> Path:
        return self.directory / "orders.json"

    @property
    def _ledger(self) -> Path:
        return self.directory / "ledger.jsonl"

    def _order(self, orders: dict[str, Any]) -> None:
        draft = self._orders.with_suffix(".draft")
        draft.write_text(json.dumps(orders))
        draft.rename(self._orders)

    def _blows(self) -> tuple[Blow, ...]:
        lines = self._ledger.read_text().splitlines() if self._ledger.exists() else []
        return tuple(Blow(details["request"], details["kind"], details) for details in map(json.loads, lines))
