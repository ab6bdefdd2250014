"""Which of the requests that share a block may have a second copy of it, because they overlap."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence

from harness.oracle.server_request import ServerRequest


class Sharing:
    """All requests that have one block. ``loads_parts``: see :class:`harness.oracle.prefix_cache.PrefixCache`."""

    def __init__(self, requests: Sequence[ServerRequest], *, loads_parts: bool) -> None:
        self._requests, self._loads_parts = len(requests), loads_parts
        self._every = _Times(requests)
        self._pulling = _Times(one for one in requests if one.pulls)

    def may_copy(self, request: ServerRequest) -> bool:
        """Whether one of these requests may take a block of its own although another has the same."""
        if not request.reads_caches:
            return self._requests > 1
        # Of two requests computed here, the second hits the first one's blocks. Loads wait for chunks in transfer.
        if request.pulls or self._loads_parts:
            return self._every.overlapping(request) > 1
        return self._pulling.overlapping(request) > 0


class _Times:
    """When requests start, and when they hold nothing any more."""

    def __init__(self, requests: Iterable[ServerRequest]) -> None:
        times = [(one.start, one.released) for one in requests]
        self._starts, self._released = sorted(start for start, _ in times), sorted(released for _, released in times)

    def overlapping(self, request: ServerRequest) -> int:
        """How many of them overlap the request, which may be one of them."""
        return bisect_right(self._starts, request.released) - bisect_left(self._released, request.start)
