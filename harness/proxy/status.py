"""The proxy's counts since it started; ``GET /proxy/status`` shows them as JSON.

Counters are never reset. ``stranded_prefills`` and ``client_gone`` cannot count every case.
"""

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class Stage(StrEnum):
    """A request's progress through the proxy."""

    REQUEST = "request"
    """The request has not arrived whole, or was refused: no server was asked."""
    PREFILL = "prefill"
    """P has been asked."""
    HANDOVER = "handover"
    """P's parameters have arrived, D's answer has not begun."""
    DECODE = "decode"
    """D's answer has begun."""


@dataclass(slots=True)
class UpstreamCounts:
    """The counts of one server."""

    url: str
    requests: int = 0
    completed: int = 0
    """Answers with status 200 that arrived whole (and, from D, reached the client whole)."""
    http_errors: int = 0
    """Answers with any other status, which are forwarded to the client unchanged."""
    unreachable: int = 0
    """Requests for which no connection could be made."""
    broken: int = 0
    """Requests whose connection broke before the end of the answer."""
    incomplete_handovers: int = 0
    """Of P: completed answers that could not be handed to D."""


@dataclass(slots=True)
class Status:
    """All counts of one proxy; ``requests`` counts completions and chat completions."""

    prefill: list[UpstreamCounts]
    decode: list[UpstreamCounts]
    other: UpstreamCounts
    """Requests to all other endpoints, which the first D answers."""
    requests: int = 0
    in_flight: int = 0
    rejected: int = 0
    """Requests that the proxy refused (400; 413 and 415 for bodies) without asking a server."""
    client_gone: dict[Stage, int] = field(default_factory=lambda: dict.fromkeys(Stage, 0))
    """Clients that disconnected, by stage. In ``prefill`` P may just have finished, and in ``handover`` D may not have
    been asked yet: then P holds its blocks until their lease ends."""
    stranded_prefills: int = 0
    """P finished and D could not be reached: P certainly holds its blocks until their lease ends."""

    def as_json(self) -> dict[str, Any]:
        """A copy as plain dicts, lists, strings and integers."""
        return asdict(self)
