"""Puts spans of time into lanes so that no two of a lane overlap, in as few lanes as possible. Pure."""

import heapq
from collections.abc import Sequence


def lanes(spans: Sequence[tuple[float, float]]) -> list[int]:
    """The lane of each span, from 0: the first one that is free when the span begins.

    ``spans``: begin and end of each. A span that begins when another ends does not overlap it.
    """
    found = [0] * len(spans)
    free: list[int] = []
    busy: list[tuple[float, int]] = []
    used = 0
    for number in sorted(range(len(spans)), key=spans.__getitem__):
        begin, end = spans[number]
        while busy and busy[0][0] <= begin:
            heapq.heappush(free, heapq.heappop(busy)[1])
        if not free:
            free, used = [used], used + 1
        found[number] = heapq.heappop(free)
        heapq.heappush(busy, (end, found[number]))
    return found
