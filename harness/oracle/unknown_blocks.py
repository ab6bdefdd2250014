"""How much of its prompt each request may find because a request whose tokens are not all known may have left it.

Such a request may have left any blocks that continue its known tokens, up to its largest length. Another request may
find them if these known tokens are the beginning of its prompt (under the same salt), and if the first was sent before
the other had ended. Requests are grouped by their last known full block and the known tokens behind it: a request looks
up each of its own blocks, and the tokens behind it, instead of comparing itself with every other request.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import inf

from harness.oracle.server_request import ServerRequest

_Key = int | tuple[str | None]
"""The last known full block, or the salt if there is none."""


@dataclass(slots=True)
class _Alike:
    """Requests with the same known tokens, in the order of their starts."""

    starts: list[float] = field(default_factory=list)
    reached: list[tuple[float, int, float]] = field(default_factory=list)
    """For each place: the largest length up to there, the index of its request, and the next largest length."""

    def add(self, index: int, request: ServerRequest) -> None:
        """Add the next request."""
        length = inf if request.prompt_unknown else float(request.max_length)
        best, of, second = self.reached[-1] if self.reached else (0.0, -1, 0.0)
        self.starts.append(request.start)
        self.reached.append((length, index, best) if length > best else (best, of, max(second, length)))

    def reach(self, index: int, end: float) -> float:
        """The largest length of the requests that were sent by ``end``, apart from one."""
        place = bisect_right(self.starts, end)
        best, of, second = self.reached[place - 1] if place else (0.0, -1, 0.0)
        return second if of == index else best


class UnknownBlocks:
    """All requests of one server in order."""

    def __init__(self, requests: Sequence[ServerRequest], block_size: int) -> None:
        self._requests, self._size = requests, block_size
        self._groups: dict[_Key, dict[tuple[int, ...], _Alike]] = {}
        for index, request in enumerate(requests):
            if not request.blocks_known:
                blocks = (*request.chain, *request.output_chain)
                key = blocks[-1] if blocks else (request.salt,)
                self._groups.setdefault(key, {}).setdefault(request.rest, _Alike()).add(index, request)

    def reach(self, index: int) -> float:
        """Tokens of its prompt up to which the request may find unknown blocks; infinite if up to any length."""
        end = self._requests[index].end
        return max((alike.reach(index, end) for alike in self._beginnings(index)), default=0.0)

    def _beginnings(self, index: int) -> Iterator[_Alike]:
        """The groups whose known tokens are the beginning of the request's prompt."""
        request = self._requests[index]
        keys: tuple[_Key, ...] = ((request.salt,), *request.chain) if self._groups else ()
        for number, key in enumerate(keys):
            group = self._groups.get(key, {})
            start = number * self._size
            for length in {len(rest) for rest in group}:
                rest = request.prompt[start : start + length]
                if rest in group:
                    yield group[rest]
