"""The busiest second of a load, counted as ``vllm bench serve`` counts it. Pure.

Time is cut into seconds from the first sending on. In each, tokens that arrived and requests that were in flight at any
moment of it are counted; the largest number of each is the peak. So more requests may be counted than were ever in
flight at one moment.
"""

from typing import NamedTuple

import numpy as np

from harness.load.latency.arrivals import Arrivals, Seconds, Whole


class Peaks(NamedTuple):
    """Of operations that ended OK; 0 without any."""

    tokens: int
    """Output tokens that arrived in one second."""
    requests: int
    """Requests that were in flight at any moment of one second."""


def peaks(arrived: Arrivals) -> Peaks:
    """The peaks of these operations."""
    if not len(arrived.sent):
        return Peaks(0, 0)
    begin = arrived.sent.min()
    tokens = np.bincount(_seconds(_token_times(arrived), begin), minlength=1)
    begun, gone = _seconds(arrived.sent, begin), _seconds(arrived.last, begin) + 1
    size = int(gone.max()) + 1
    requests = np.cumsum(np.bincount(begun, minlength=size) - np.bincount(gone, minlength=size))
    return Peaks(int(tokens.max()), int(requests.max()))


def _seconds(times: Seconds, begin: float) -> Whole:
    # A worker's clock may be off by a little, so that a time lies before the first sending.
    return np.maximum(times - begin, 0).astype(np.int64)


def _token_times(arrived: Arrivals) -> Seconds:
    """When each token arrived: the first one of each answer, and those after it."""
    lengths = np.diff(arrived.ends, prepend=0)
    sums = np.concatenate(([0.0], np.cumsum(arrived.itl)))
    later = np.repeat(arrived.first - sums[arrived.ends - lengths], lengths) + sums[1:]
    return np.concatenate((arrived.first[arrived.streamed], later))
