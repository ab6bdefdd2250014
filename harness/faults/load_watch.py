"""What is known of a load while it is sent, by all that is recorded of it, and when it is over."""

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass, field

from harness.history import Ended, Ending, Entry, Outcome, Sent
from harness.scenario import Request


@dataclass(slots=True)
class LoadWatch:
    """The operations of one phase of the load, from this process or from workers."""

    sent: int = 0
    """Requests that were sent."""
    answers: int = 0
    """Answers that arrived whole; a request for n choices has n of them."""
    left: list[tuple[Request, Ended]] = field(default_factory=list)
    """Requests whose clients left as planned."""
    over: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when every operation has ended."""
    newest_served: float = -math.inf
    """When the newest of the requests that completed was sent."""
    _in_flight: dict[str, Sent] = field(default_factory=dict)

    def beside(self, record: Callable[[Entry], None]) -> Callable[[Entry], None]:
        """The same recording, of which this learns."""

        def recording(entry: Entry) -> None:
            record(entry)
            if isinstance(entry, Sent):
                self.sent += 1
                self._in_flight[entry.request.request_id] = entry
            elif isinstance(entry, Ended):
                self._ended(entry)

        return recording

    def _ended(self, ended: Ended) -> None:
        sent = self._in_flight.pop(ended.request_id, None)
        if sent is None:
            return
        request = sent.request
        if ended.ending is Ending.LEFT:
            self.left.append((request, ended))
        elif ended.outcome is Outcome.OK:
            self.answers += request.sampling.n or 1
            self.newest_served = max(self.newest_served, sent.at)
