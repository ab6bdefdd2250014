"""A client that leaves before the end of its answer, as the run has planned (``Request.leaves``).

Rule 1: what arrived before is read like any other answer: it may be wrong.
Rule 2: the connection is closed at once. What the kernel has received, but the harness has not read, is dropped.
Rule 3: an answer other than 200 is read to its end: a refusal must not be taken for a client that left.
Rule 4: how long a request usually waits is learned from the answers of others. Until there is one, a client that is to
        leave before its first token leaves as that token arrives, without reading it.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from statistics import median

from harness.history import Ended, Outcome
from harness.load.transport.connection import Feed, Receiver
from harness.scenario import Moment, Request

_EVENT = b"data:"
"""How each event of a stream begins (server-sent events)."""
_OK = 200
_REMEMBERED = 32
"""Answers from which the usual times are learned: enough for a median, and few enough to follow a changing load."""


class Left(Exception):  # noqa: N818 - reads as what happened
    """The client closed the connection. The message says when."""


@asynccontextmanager
async def left_in_time(seconds: float | None) -> AsyncIterator[None]:
    """Raises Left if the body takes longer; None: no limit."""
    try:
        async with asyncio.timeout(seconds) as limit:
            yield
    except TimeoutError as error:
        if limit.expired():
            raise Left(f"the client left {seconds:.3g} s after it sent the request, as planned") from error
        raise


class UsualTimes:
    """When, after a request was sent, prefill has usually answered and the first token usually arrives; seconds.

    They are learned from the first request on that is to leave: other runs need them not.
    """

    def __init__(self) -> None:
        self._learns = False
        self._times: deque[tuple[float, float]] = deque(maxlen=_REMEMBERED)

    def began(self, request: Request, now: Callable[[], float]) -> float | None:
        """When the request is sent, by the clock; None if nothing is to be learned from it."""
        self._learns = self._learns or request.leaves is not None
        return now() if self._learns and request.of_load else None

    def learn(self, ended: Ended, began: float | None) -> None:
        """Learn from how a request ended that was sent at this time."""
        if began is None or ended.outcome is not Outcome.OK or not ended.token_times:
            return
        first = ended.token_times[0] - began
        shares = ended.proxy_seconds, ended.prefill_seconds
        # Other proxies do not say when prefill answered.
        before = first / 2 if None in shares else sum(share or 0.0 for share in shares)
        self._times.append((min(before, first), first))

    def wait(self, request: Request) -> float | None:
        """Seconds for which the client waits for an answer; None: it does not leave at a time."""
        if request.leaves not in (Moment.FIRST_TOKEN, Moment.TRANSFER) or not self._times:
            return None
        transfers = request.leaves is Moment.TRANSFER
        begin = median(answered for answered, _ in self._times) if transfers else 0.0
        lengths = [first - answered if transfers else first for answered, first in self._times]
        return begin + request.leaves_after * _short(lengths)


def _short(lengths: Sequence[float]) -> float:
    """A length that three quarters of them exceed: most of those who wait so long have no token yet."""
    return sorted(lengths)[len(lengths) // 4]


class Leaving:
    """Takes an answer until its client leaves, and passes on what arrives before. Raises Left, which ends the exchange.

    ``receiver``: what reads the answer.
    """

    __slots__ = ("_events", "_feed", "_receiver", "_request")

    def __init__(self, request: Request, receiver: Receiver) -> None:
        self._request = request
        self._receiver = receiver
        self._events = 0
        self._feed: Feed

    def head(self, status: int, headers: Mapping[str, str]) -> Feed:
        """Take the status and the headers; returns what takes the body."""
        self._feed = self._receiver.head(status, headers)
        if status != _OK:
            return self._feed
        return self._some if self._request.leaves is Moment.STREAM else self._none

    def _none(self, pieces: Sequence[bytes], at: float) -> None:  # noqa: ARG002 - what arrived is not read
        raise Left("the client left as the first token arrived, as planned")

    def _some(self, pieces: Sequence[bytes], at: float) -> None:
        self._feed(pieces, at)
        self._events += sum(piece.count(_EVENT) for piece in pieces)
        if self._events >= self._request.leaves_after:
            raise Left(f"the client left after {self._events} events of the stream, as planned")
