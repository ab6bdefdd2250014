"""What the harness's main process and its workers tell each other. Frozen data."""

import pickle
from dataclasses import dataclass
from typing import Any

from harness.facts import Deployment
from harness.history import ClientHealth, Ended, Sent
from harness.run import Sending
from harness.scenario import Phase, Request
from harness.store.written import put_together, taken_apart


@dataclass(frozen=True, slots=True)
class Setup:
    """Where a worker sends, and what its clock counts from."""

    deployment: Deployment
    sending: Sending
    zero: float
    """The reading of the main process's monotonic clock when the run's clock was 0, in seconds."""


@dataclass(frozen=True, slots=True)
class Part:
    """A worker's part of a phase."""

    scenario: str
    phase: Phase
    turns: tuple[tuple[Request, Ended], ...] = ()
    """Earlier phases' requests that requests of this part continue, or whose references they send, with their ends."""
    holds_back: bool = False
    """Whether a client whose request did not complete waits until it is told to go on."""
    lasts: bool = False
    """Whether the part goes on although the phase's time is over, until it is told that time counts."""


Report = tuple[float, bytes]
"""An operation that began or ended: its time on the run's clock in seconds, and the packed entry.

Entries are packed one by one, as they happen: packing many at once would stop the worker's event loop for milliseconds,
and the stamps of all streams would be late by as much."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What a worker has to report since its last batch."""

    reports: tuple[Report, ...]
    until: float
    """The time up to which everything has been reported."""
    last: bool = False
    """Whether the part has ended: sent completely, interrupted, or failed."""
    health: ClientHealth | None = None
    """How well the worker kept up, if the part was sent completely."""
    trouble: str = ""
    """Why the part failed, if it failed."""


def pack(entry: Sent | Ended, known: dict[str, Request]) -> Report:
    """An entry to report. A request that the main process knows (``known``, by id) is only named."""
    if isinstance(entry, Ended):
        content: Any = taken_apart(entry)
    else:
        request = entry.request
        named = request.request_id if known.get(request.request_id) is request else request
        content = (entry.at, named, entry.scenario, entry.phase, entry.intended_at, entry.allowed_at)
    return entry.at, pickle.dumps(content, pickle.HIGHEST_PROTOCOL)


def unpack(packed: bytes, known: dict[str, Request]) -> Sent | Ended:
    """The entry of a report."""
    content: Any = pickle.loads(packed)  # noqa: S301 - our own worker packed it
    if isinstance(content[0], tuple):
        return put_together(content)
    at, request, *rest = content
    return Sent(at, known[request] if isinstance(request, str) else request, *rest)
