"""How far another process's clock is from ours, from timed round trips, as in NTP (RFC 5905, section 8). Pure.

We note t0 when we ask, the other notes t1 when the question arrives and t2 when it answers, we note t3 when the answer
arrives. If both ways take equally long, the other's clock is ahead by ((t1 - t0) + (t2 - t3)) / 2. Nobody knows whether
they do, so this may be wrong by half of the time that both ways took. That is why the shortest round trip counts.
"""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Exchange:
    """One question and its answer: asked and answered on our clock, arrived and replied on the other's; seconds."""

    asked: float
    arrived: float
    replied: float
    answered: float

    @property
    def ahead(self) -> float:
        """Seconds by which the other clock is ahead of ours, if both ways took equally long."""
        return ((self.arrived - self.asked) + (self.replied - self.answered)) / 2

    @property
    def uncertainty(self) -> float:
        """Seconds by which ``ahead`` may be wrong: half of the time that both ways took."""
        return max(0.0, (self.answered - self.asked) - (self.replied - self.arrived)) / 2


def best(exchanges: Iterable[Exchange]) -> Exchange:
    """The exchange that tells most: the one with the shortest way."""
    return min(exchanges, key=lambda one: one.uncertainty)


def correction(exchange: Exchange) -> float:
    """Seconds to add to the other clock.

    An offset that cannot be told from 0 is 0: processes of one machine share its clock, and a correction by noise would
    only set them apart.
    """
    return 0.0 if abs(exchange.ahead) <= exchange.uncertainty else -exchange.ahead
