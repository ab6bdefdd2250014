"""Whose share of the latencies is it: waiting to be sent, the proxy, the prefill server or the decode server? Pure.

The proxy reports, with each answer, how long it took itself and how long the prefill server took to answer it. The rest
of the time from the sending to the first token is the decode server's: it loads the KV, computes the last prompt token
and samples. The network between client and proxy is in that rest, too, since nobody can tell it apart. After the first
token all time is the decode server's. Shares are means: those of percentiles would not add up.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.history import Operation
from harness.load.latency.arrivals import last_arrival


@dataclass(frozen=True, slots=True)
class Shares:
    """Mean times in milliseconds, of the OK operations for which the proxy reported its and the prefill server's."""

    requests: int
    waiting: float
    """From when a request was due until it was sent."""
    proxy: float
    prefill: float
    decode_first: float
    """The decode server's share of the time to first token, KV transfer and network included."""
    decode_rest: float
    """From the first token to the last."""

    @property
    def ttft(self) -> float:
        """The mean time to first token of these operations: the sum of all shares but the last."""
        return self.waiting + self.proxy + self.prefill + self.decode_first


def latency_shares(done: Sequence[Operation]) -> Shares | None:
    """The shares; None if no streamed operation has them. ``done``: operations that ended OK."""
    rows = [row for operation in done if (row := _row(operation)) is not None]
    if not rows:
        return None
    return Shares(len(rows), *(float(mean) * 1000 for mean in np.mean(rows, axis=0)))


def _row(operation: Operation) -> tuple[float, float, float, float, float] | None:
    """Seconds: waiting, proxy, prefill, decode until the first token, decode from then on."""
    sent, ended = operation.sent, operation.ended
    proxy, prefill = ended.proxy_seconds, ended.prefill_seconds
    if proxy is None or prefill is None or not (times := ended.token_times[:1]):
        return None
    first = times[0] - sent.at
    # The proxy's clock runs evenly with the client's; a stamp that is late on this side cannot make a share negative.
    rest = max(0.0, first - proxy - prefill)
    return sent.at - sent.intended_at, proxy, prefill, rest, last_arrival(ended) - times[0]
