"""The entries of a history."""

from dataclasses import dataclass
from typing import TypeVar

from harness.history.ends import Ended
from harness.history.faults import FaultBegan, FaultHealed, FaultPlanned, FaultProved
from harness.history.measured import ClientHealth, ClockCompared, NoiseMeasured, Sampled, Scraped, ScrapeFailed
from harness.scenario import Request


@dataclass(frozen=True, slots=True)
class RunStarted:
    """First entry: what is needed to read the history and to repeat the run."""

    wall: float
    """Calendar time of ``at == 0``: seconds since 1970."""
    argv: tuple[str, ...]
    seed: int
    harness_version: str
    commit: str | None
    scenarios: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PhaseStarted:
    """A phase of a scenario begins."""

    at: float
    scenario: str
    phase: str


@dataclass(frozen=True, slots=True)
class Sent:
    """An operation begins. The whole request is kept, so that a stored run can be judged."""

    at: float
    request: Request
    scenario: str
    phase: str
    intended_at: float
    """The time in the load's schedule; latencies count from here (coordinated omission)."""
    allowed_at: float | None = None
    """When the limit of requests in flight allowed the sending, if that was later than ``intended_at``: waiting for the
    limit is no fault of the client. None: at ``intended_at``."""


@dataclass(frozen=True, slots=True)
class Noted:
    """A message for a reader of the history, such as progress or a warning. Checkers ignore it."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Decoding:
    """How the servers choose tokens and end answers, beyond the parameters of each request."""

    at: float
    end_token_ids: tuple[int, ...]
    """Special tokens of the model's files, which end an answer before its length. Empty if no files were found."""
    shifted_by: tuple[str, ...] = ()
    """Fields of every request body that make a server choose tokens other than the best: a penalty, a bias."""
    ends_complete: bool = True
    """Whether ``end_token_ids`` is complete. If not, the servers may have read more files than the harness."""


@dataclass(frozen=True, slots=True)
class VerificationPlanned:
    """The load has ended and its verification begins: what it means to look at, and what it may cost."""

    at: float
    outputs: int
    """Outputs of the load that are to be teacher-forced or compared with a reference."""
    expected: float
    """Seconds that verification is expected to take."""
    seconds: float | None = None
    """Seconds that it may take; None: no limit."""
    tokens: int | None = None
    """Engine tokens that it may compute; None: no limit."""


@dataclass(frozen=True, slots=True)
class DeadProcess:
    """A process that the harness had started and that ended by itself."""

    name: str
    """``prefill-0``, ``proxy``, ..."""
    text: str
    """One sentence or more: the name, the exit status, and the end of the process's log."""


@dataclass(frozen=True, slots=True)
class RunEnded:
    """Last entry of a run that was not killed."""

    at: float
    interrupted: bool = False
    """Whether the user or an error ended the run early."""
    died: tuple[DeadProcess, ...] = ()
    """Processes that the harness had started and that ended by themselves."""


Entry = (
    RunStarted
    | PhaseStarted
    | Sent
    | Ended
    | Scraped
    | ScrapeFailed
    | Sampled
    | ClientHealth
    | ClockCompared
    | Noted
    | NoiseMeasured
    | Decoding
    | VerificationPlanned
    | FaultPlanned
    | FaultBegan
    | FaultProved
    | FaultHealed
    | RunEnded
)


E = TypeVar("E", bound=Entry)
