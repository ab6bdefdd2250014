"""Observers of progress (a terminal, a log, a notebook), used while deploying, running and shrinking."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Protocol, cast

from harness.history import Entry

UP = "up"
"""The state of a server that answers, or of another process that runs."""


@dataclass(frozen=True, slots=True)
class PhasePlan:
    """What a phase that begins is about to send."""

    scenario: str
    phase: str
    total: int
    """Requests; of an open loop with a time limit, at most."""
    of_load: bool
    """Whether the deployment is tested by them. Otherwise they verify the load."""
    concurrency: int
    """Most requests in flight, without background requests."""
    last_due: float | None = None
    """Open loop: when the last request is due, in seconds from now. None: requests are sent when others have ended."""
    seconds: float | None = None
    """No request is sent later than so many seconds from now; None: no limit."""


@dataclass(frozen=True, slots=True)
class VerifiedSoFar:
    """What verification has found out about the outputs of the load; it may still change its mind."""

    planned: int
    """Outputs that are to be teacher-forced or compared with a reference."""
    outputs: int
    """Outputs of the load that can be verified."""
    verified: int = 0
    """Outputs that agree with their teacher forcing or reference."""
    witnessed: int = 0
    """Outputs whose first token was compared with the prefill server's."""
    doubtful: int = 0
    wrong: int = 0


class RunObserver(Protocol):
    """Is informed of progress. Its methods are called from the event loop: they must neither raise nor block."""

    def deploy(self, server: str, text: str, seconds: float) -> None:
        """A server reached a stage of starting: ``prefill-0``, ``loading weights``, seconds since its start."""

    def phase(self, scenario: str, phase: str, total: int) -> None:
        """A phase of ``total`` requests begins; the phase before it has ended."""

    def advance(self, done: int, total: int, failed: int) -> None:
        """Of the current phase, ``done`` requests have ended, and ``failed`` of these did not end OK."""

    def sending(self, plan: PhasePlan) -> None:
        """Said just before :meth:`phase`, for phases that send requests of a run."""

    def recorded(self, entry: Entry) -> None:
        """The run's history has a new entry: a request was sent or ended, a server was read, a fault began.

        Called twice for each request. What an entry has for each token should not be read.
        """

    def server(self, name: str, state: str) -> None:
        """The state of a server is known, or has changed: ``up``, ``not answering: ...``, ``ended with code 137``.

        Told during the whole run, also of other processes that the harness started (``proxy``).
        """

    def verified(self, so_far: VerifiedSoFar) -> None:
        """A step of verification has ended."""

    def verifying(self, expected: float, seconds: float | None, tokens: int | None) -> None:
        """Verification begins. It will take about ``expected`` seconds.

        It may take ``seconds`` and compute ``tokens`` engine tokens; None: there is no limit.
        """

    def note(self, text: str) -> None:
        """A message for the user."""


class SilentObserver:
    """Ignores everything. Observers of only some events can inherit the other methods from it."""

    def deploy(self, server: str, text: str, seconds: float) -> None:
        """Do nothing."""

    def phase(self, scenario: str, phase: str, total: int) -> None:
        """Do nothing."""

    def advance(self, done: int, total: int, failed: int) -> None:
        """Do nothing."""

    def sending(self, plan: PhasePlan) -> None:
        """Do nothing."""

    def recorded(self, entry: Entry) -> None:
        """Do nothing."""

    def server(self, name: str, state: str) -> None:
        """Do nothing."""

    def verified(self, so_far: VerifiedSoFar) -> None:
        """Do nothing."""

    def verifying(self, expected: float, seconds: float | None, tokens: int | None) -> None:
        """Do nothing."""

    def note(self, text: str) -> None:
        """Do nothing."""


SILENT: RunObserver = SilentObserver()
"""The default observer."""

_EVENTS = ("deploy", "phase", "advance", "sending", "recorded", "server", "verified", "verifying", "note")


def complete(observer: RunObserver) -> RunObserver:
    """The observer; events that it has no method for are ignored, as of an observer that was written before them."""
    if all(hasattr(observer, event) for event in _EVENTS):
        return observer
    methods = {event: getattr(observer, event, getattr(SILENT, event)) for event in _EVENTS}
    return cast("RunObserver", SimpleNamespace(**methods))
