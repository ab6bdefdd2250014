"""Reads events that differ in nothing but the one choice of their chunk, as nearly all events of a stream do. Pure.

    data: {"id":"cmpl-1","object":"text_completion","created":1,"model":"m","choices":[   {"index":0, ...}   ]}
    |------------------------------- start --------------------------------------------|  |--- choice --|  |-- end

Start and end are read once for all events, and of each event only the choice.

Rule 1: the start goes up to the first ``[`` of the event, and the end begins with the last ``]``. Start and end alone
        must be a chunk whose list of choices is empty. Since they hold no other list, whatever JSON object stands
        between them is the one choice of its chunk.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from harness.load.answers.kinds import StreamKind

_COMPARED = 64
"""Events that are compared at once."""


@dataclass(frozen=True, slots=True)
class Frame:
    """What the events of a stream have in common."""

    start: bytes
    end: bytes

    @property
    def chunk(self) -> bytes:
        """The JSON of a chunk without choices."""
        return self.start[6:] + self.end[:-2]

    def holds(self, event: bytes) -> bool:
        """Whether the event seems to be of this frame; ``cut`` makes sure."""
        return event.startswith(self.start) and event.endswith(self.end)

    def cut(self, events: Sequence[bytes]) -> list[bytes] | None:
        """The choice of each event, not yet read; None if one is not an event of this frame, on one line.

        A few comparisons of many events take less time than one comparison for each event, as long as what is compared
        is so small that the process has the memory already.
        """
        first, last = len(self.start), -len(self.end)
        found: list[bytes] = []
        for at in range(0, len(events), _COMPARED):
            some = events[at : at + _COMPARED]
            cut = [event[first:last] for event in some]
            whole = b"%b%b%b" % (self.start, (self.end + self.start).join(cut), self.end)
            if whole != b"".join(some) or b"\n" in b"".join(cut):
                return None
            found += cut
        return found


def frame_of(kind: StreamKind, event: bytes) -> Frame | None:
    """The frame of an event, which begins with ``data: `` and ends with an empty line; None if it has none.

    Raises msgspec.MsgspecError if there is something else around its list.
    """
    start, end = event.find(b"[") + 1, event.rfind(b"]")
    if not 0 < start <= end:
        return None
    frame = Frame(event[:start], event[end:])
    chunk = kind.read_chunk(frame.chunk)
    return None if chunk.choices or chunk.usage or b"\n" in frame.chunk else frame


def read_choices(kind: StreamKind, cut: Sequence[bytes]) -> tuple[list[Any], list[Any]]:
    """The choices, and those of them that are not plain. All between the first and the last are, or none is sought.

    Raises msgspec.MsgspecError if one is not a JSON object with the fields of a choice.
    """
    if len(cut) > 2:
        with contextlib.suppress(msgspec.MsgspecError):
            between = list(map(kind.read_plain, cut[1:-1]))
            first, last = kind.read_choice(cut[0]), kind.read_choice(cut[-1])
            return [first, *between, last], [first, last]
    choices = list(map(kind.read_choice, cut))
    return [*choices], choices
