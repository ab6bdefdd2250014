"""What to do, told by a file that is read again at each transfer; and what was done, told by another.

Orders are one JSON object::

    {"kinds": ["flip_byte", "swap_tail"], "one_in": 50, "seed": 7, "only": "load-[0-9]+"}

The kinds take turns, so that one run shows them all. ``only`` is a regular expression that the client's whole request
id must match: warm-ups and the harness's own questions are left alone, or it would be told what it is to find. No file:
no damage. New orders begin anew. Write the file under another name and rename it, so that nobody reads half of it.

The ledger is JSON Lines, one object for each damaged request.
"""

import json
import random
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .kinds import KINDS


@dataclass(frozen=True, slots=True)
class Orders:
    """One of ``one_in`` requests that match ``only``."""

    kinds: tuple[str, ...]
    one_in: int
    seed: int
    only: str = ".*"

    def __post_init__(self) -> None:
        if not self.kinds or set(self.kinds) - KINDS.keys():
            raise ValueError(f"no such kinds of damage: {', '.join(self.kinds)}; there are {', '.join(KINDS)}")
        if self.one_in < 1:
            raise ValueError(f"one_in is {self.one_in}; it must be 1 or more")

    def concern(self, request: str) -> bool:
        """Whether a client's request may be damaged, and its KV given to others."""
        return re.fullmatch(self.only, request) is not None

    def rng(self, *salt: object) -> random.Random:
        """Chance that the seed and ``salt`` alone decide."""
        return random.Random(":".join(map(str, (self.seed, *salt))))  # noqa: S311 - to be repeatable


def read_orders(path: Path) -> Orders | None:
    """What the file says now; None if there is none. Raises ValueError, TypeError or KeyError if it is no order."""
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        return None
    told = json.loads(text)
    return Orders(**told | {"kinds": tuple(told["kinds"])})


class Turns:
    """Whose turn it is: one request in each ``one_in`` that pass, at a place in the row that the seed decides.

    A row has its one, instead of each request its chance, so that a short run always has something to find. If the one
    cannot be damaged in the way whose turn it is, the next that can be takes its place.
    """

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self._passed = self._owed = self._done = 0

    def next(self) -> str | None:
        """Let a request pass; the kind of damage that it is to suffer, if any."""
        row, place = divmod(self._passed, self._orders.one_in)
        self._passed += 1
        self._owed += place == self._orders.rng("row", row).randrange(self._orders.one_in)
        return self._orders.kinds[self._done % len(self._orders.kinds)] if self._owed else None

    def done(self) -> None:
        """It was damaged."""
        self._owed -= 1
        self._done += 1


def record(ledger: Path, line: dict[str, Any]) -> None:
    """Append one line."""
    with ledger.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
