"""How a relay passes bytes. No I/O."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class How(StrEnum):
    """What a relay does with the bytes that come."""

    PASS = "pass"  # noqa: S105 - no password
    """Passes them on at once."""
    DELAY = "delay"
    """Passes each on a time after it came, both ways."""
    THROTTLE = "throttle"
    """Passes so many a second, each way, all connections together."""
    CUT = "cut"
    """Resets every connection, and refuses new ones."""
    HALF_OPEN = "half-open"
    """Accepts connections, swallows what comes, and never answers."""
    IDLE = "idle"
    """Forgets connections that were silent for a time, and tells nobody, as a firewall that keeps state does: what
    comes on them later is swallowed. All others are passed on."""


DROPPING = (How.HALF_OPEN, How.IDLE)
"""How bytes are swallowed."""


@dataclass(frozen=True, slots=True)
class Manner:
    """One way to pass bytes, with its figures."""

    how: How = How.PASS
    seconds: float = 0.0
    """``delay``: how long each byte waits; ``idle``: silence after which a connection is forgotten."""
    rate: float = 0.0
    """``throttle``: bytes a second, each way."""
    refuses: bool = False
    """``cut``: whether the port does not listen meanwhile (a client is refused, and the relay cannot count it). If not,
    new connections are reset as soon as they are there, and counted."""

    @classmethod
    def read(cls, order: Mapping[str, Any]) -> "Manner":
        """The manner of an order that came as JSON. Raises ValueError."""
        try:
            made = cls(**{**order, "how": How(order.get("how", How.PASS))})
            bad = not all(math.isfinite(value) and value >= 0 for value in (made.seconds, made.rate))
        except TypeError as error:
            raise ValueError(f"no relay can do that: {error}") from None
        needed = {How.DELAY: made.seconds, How.IDLE: made.seconds, How.THROTTLE: made.rate}
        if bad or not needed.get(made.how, 1):
            raise ValueError(f"a relay cannot {made.how} with seconds={made.seconds} and rate={made.rate}")
        return made
