"""The orders, in a file that is read again at each transfer, and the ledger of the damage done, in another file.

Orders are one JSON object::

    {"kinds": ["foreign", "noise"], "one_in": 50, "seed": 7, "only": "load-[0-9]+"}

The kinds take turns, so that one run has them all. ``only`` is a regular expression that the client's whole request id
must match, so that warm-ups and verification stay undamaged. Without a file there is no damage; new orders start the
turns again. Write the file under another name and rename it, so that it is never read half written.

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
    """Damage one in ``one_in`` of the requests that match ``only``."""

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
        """Whether a client's request may be damaged, and its KV given to other requests."""
        return re.fullmatch(self.only, request) is not None

    def rng(self, *salt: object) -> random.Random:
        """A random generator that depends only on the seed and ``salt``."""
        return random.Random(":".join(map(str, (self.seed, *salt))))  # noqa: S311 - to be repeatable


def read_orders(path: Path) -> Orders | None:
    """The orders in the file; None without a file. Raises ValueError, TypeError or KeyError for invalid orders."""
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        return None
    fields = json.loads(text)
    return Orders(**fields | {"kinds": tuple(fields["kinds"])})


class Turns:
    """Chooses the requests to damage: one in each row of ``one_in``, at a place in the row that the seed decides.

    So even a short run has some damage, which independent chances would not guarantee. If the chosen request cannot be
    damaged in the way whose turn it is, the next request that can be damaged takes its place.
    """

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self._passed = self._owed = self._done = 0

    def next(self) -> str | None:
        """Count a request; returns the kind of damage to do to it, if any."""
        row, place = divmod(self._passed, self._orders.one_in)
        self._passed += 1
        self._owed += place == self._orders.rng("row", row).randrange(self._orders.one_in)
        return self._orders.kinds[self._done % len(self._orders.kinds)] if self._owed else None

    def done(self) -> None:
        """Record that the request was damaged."""
        self._owed -= 1
        self._done += 1


def record(ledger: Path, line: dict[str, Any]) -> None:
    """Append one line."""
    with ledger.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
