"""Collects the pieces of a stream and reads their events, all at once, when the stream has ended or enough is held.

A client that reads each event as it arrives spends its time between two reads of the socket, and so records later
arrivals late. Here, a read costs its time stamp; what the events hold is found out afterwards.

Rule 1: not more than about ``MOST_HELD`` bytes wait for being read. A stream without end, or with an event without end,
        is cut off at ``most`` bytes, or at the client's time limit if that comes first.
Rule 2: whatever ``harness.load.answers.chunks`` does not recognise is read event by event, with the same time stamps.
"""

import gc
from collections.abc import Sequence
from dataclasses import dataclass, field

from harness.load.answers import chunks
from harness.load.answers.answer import Answer
from harness.load.answers.size import LARGEST_ANSWER
from harness.load.answers.sse import EventParser

MOST_HELD = 1 << 17
"""Bytes. Reading so many takes about a millisecond, during which no other arrival is recorded."""


class TooLarge(ConnectionError):  # noqa: N818 - reads as what happened
    """The answer is larger than any that its request can have (``size.py``)."""

    def __init__(self, most: int) -> None:
        super().__init__(f"the answer has more than {most} bytes, which is more than this request can be answered with")


@dataclass(slots=True)
class EventStream:
    """The events of one stream of at most ``most`` bytes.

    ``typed`` False: all events are read one by one (for comparisons).
    """

    answer: Answer
    typed: bool = True
    most: int = LARGEST_ANSWER
    _parser: EventParser = field(default_factory=EventParser)
    _pieces: list[bytes] = field(default_factory=list)
    _times: list[float] = field(default_factory=list)
    _held: int = 0
    _taken: int = 0
    """Bytes that were read before those that are held."""

    def feed(self, pieces: Sequence[bytes], at: float) -> None:
        """Add what was read from the connection at ``at``, in seconds. Raises TooLarge."""
        self._pieces += pieces
        if len(pieces) == 1:
            # At a rate that the client keeps up with, nearly every read is one event.
            self._times.append(at)
            self._held += len(pieces[0])
        else:
            self._times += [at] * len(pieces)
            self._held += sum(map(len, pieces))
        if self._held > MOST_HELD:
            if self._taken + self._held > self.most:
                raise TooLarge(self.most)
            self._read(self._last_whole() or len(self._pieces))

    def cut(self) -> None:
        """Read what has arrived, of a stream that did not end."""
        self._read(len(self._pieces))

    def end(self, at: float) -> None:
        """Read what has arrived, of a stream that ended as HTTP says that it should."""
        self._read(len(self._pieces))
        if (last := self._parser.unended) is not None:
            self.answer.last_event(last, at)
        if self.answer.done_at is None and self._parser.stray:
            self.answer.read_stray(self._parser.stray)

    def _last_whole(self) -> int:
        """The number of pieces up to the last one that ends with an event; 0 if none does."""
        return next((n for n in range(len(self._pieces), 0, -1) if self._pieces[n - 1].endswith(b"\n\n")), 0)

    def _read(self, count: int) -> None:
        if not count:
            return
        pieces, times, held = self._pieces[:count], self._times[:count], self._held
        self._pieces, self._times = self._pieces[count:], self._times[count:]
        self._held = sum(map(len, self._pieces))
        self._taken += held - self._held
        # The objects of a stream's JSON would start one or two garbage collections, in which all of them are alive.
        # That took a third of the client's time, and nearly all are freed when the stream has been read.
        collects = gc.isenabled()
        gc.disable()
        try:
            if not self._read_at_once(pieces, times):
                self._read_singly(pieces, times)
        finally:
            if collects:
                gc.enable()

    def _read_at_once(self, pieces: list[bytes], times: list[float]) -> bool:
        if not (self.typed and self._parser.between_events and self.answer.done_at is None):
            return False
        if (batch := chunks.read(pieces, times)) is None:
            return False
        self._parser.begun()
        self.answer.extend(batch)
        return True

    def _read_singly(self, pieces: list[bytes], times: list[float]) -> None:
        for data, at in zip(pieces, times, strict=True):
            for payload in self._parser.feed(data):
                self.answer.event(payload, at)
