"""What a run did to its deployment on purpose, and what was observed of it."""

from dataclasses import dataclass
from enum import StrEnum


class Tolerated(StrEnum):
    """What a fault may do to a deployment that handles it well. It never includes wrong outputs or hung requests."""

    ERRORS = "errors"
    """Requests during the fault end with an error, or without an answer."""
    RESTART = "restart"
    """The target's counters begin again from zero, and its caches are empty."""
    FAILED_TRANSFERS = "failed-transfers"
    """KV transfers fail, or requests expire on a prefill server; a decode server may compute such prompts itself."""
    EVICTION = "eviction"
    """Blocks are evicted or requests preempted, so that fewer tokens are found in caches and more are computed."""
    UNREAD_METRICS = "unread-metrics"
    """Counters cannot be read during the fault."""


@dataclass(frozen=True, slots=True)
class FaultPlanned:
    """A fault that the run means to cause."""

    at: float
    fault: str
    """The fault's name in this run: ``pause-1``."""
    fault_kind: str
    """The kind, as in ``--fault``: ``pause``. (``kind`` is the entry's own kind in the journal.)"""
    target: str
    """The server, link or load that the fault is about: ``decode-0``, ``proxy``."""
    text: str
    """What the fault does, in words."""
    tolerates: tuple[Tolerated, ...] = ()
    """What may happen to the requests that overlap the fault."""
    scenario: str = ""
    phase: str = ""
    """The phase during which the fault is caused."""
    provokes: str = ""
    """The counter that must have grown in the phase, or the situation that the run was to test did not occur."""


@dataclass(frozen=True, slots=True)
class FaultBegan:
    """The harness begins to do what the fault does."""

    at: float
    fault: str


@dataclass(frozen=True, slots=True)
class FaultProved:
    """It was observed that the fault took hold: without this entry, nobody knows whether the run tested anything."""

    at: float
    fault: str
    evidence: str
    """What was observed, with figures: a process's state, its new id, bytes that a relay held back."""


@dataclass(frozen=True, slots=True)
class FaultHealed:
    """The fault was undone, or could not be undone."""

    at: float
    fault: str
    healed: bool
    text: str
    """What was observed of the healing, or why it failed; for a fault that was not proved, also why."""
