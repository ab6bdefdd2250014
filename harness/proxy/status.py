"""What the proxy has counted since it started; ``GET /proxy/status`` shows it as JSON.

No counter is reset and none is exact about what it cannot know: see ``stranded_prefills`` and ``client_gone``.
"""

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class Phase(StrEnum):
    """How far a request has come, seen from the proxy."""

    REQUEST = "request"
    """The request has not arrived whole, or was answered with 400: no server was asked."""
    PREFILL = "prefill"
    """P has been asked."""
    HANDOVER = "handover"
    """P's parameters are here, D's answer has not begun."""
    DECODE = "decode"
    """D's answer has begun."""


@dataclass(slots=True)
class UpstreamCounts:
    """One server's share."""

    url: str
    requests: int = 0
    completed: int = 0
    """Answers with status 200 that arrived whole (and, from D, were passed on whole)."""
    http_errors: int = 0
    """Answers with any other status; passed to the client as they were."""
    unreachable: int = 0
    """No connection."""
    broken: int = 0
    """Connected, but gone before the end of its answer."""
    incomplete_handovers: int = 0
    """P only: those of the completed that could not be handed to D."""


@dataclass(slots=True)
class Status:
    """All counts of one proxy; ``requests`` are those to the two endpoints that generate."""

    prefill: list[UpstreamCounts]
    decode: list[UpstreamCounts]
    other: UpstreamCounts
    """Requests to all other endpoints, which the first D answers."""
    requests: int = 0
    in_flight: int = 0
    rejected: int = 0
    """Answered with 400 by the proxy; no server was asked."""
    client_gone: dict[Phase, int] = field(default_factory=lambda: dict.fromkeys(Phase, 0))
    """Clients that went away, by phase. In ``prefill`` P may have finished at that moment, and in ``handover`` D may
    not have been asked yet: P's blocks then wait for the end of their lease."""
    stranded_prefills: int = 0
    """P finished and D could not be reached: P's blocks certainly wait for the end of their lease."""

    def as_json(self) -> dict[str, Any]:
        """A copy made of plain dicts, lists, strings and integers."""
        return asdict(self)
