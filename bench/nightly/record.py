"""A night as it is stored, in ``night.json``: written when the night begins, and again after each run.

Readers of other versions meet it, so that fields are added and never change their meaning.
"""

from dataclasses import dataclass, field
from enum import StrEnum

import msgspec

from harness.errors import ExitCode


class State(StrEnum):
    """How far a night came."""

    RUNNING = "running"
    """It goes on, or its process ended without a word."""
    ENDED = "ended"


class Result(StrEnum):
    """What a run or a night found out."""

    VALID = "valid"
    WORSE = "worse"
    """Valid, and worse than the last good night by more than ``--fail-on`` allows."""
    INVALID = "invalid"
    UNKNOWN = "unknown"
    FAILED = "failed"
    """The harness, the night or the machine failed: nothing was found out."""


RESULT_OF = {
    ExitCode.VALID: Result.VALID,
    ExitCode.INVALID: Result.INVALID,
    ExitCode.UNKNOWN: Result.UNKNOWN,
    ExitCode.USAGE: Result.FAILED,
    ExitCode.HARNESS: Result.FAILED,
}


@dataclass(slots=True)
class Run:
    """One run of a job."""

    job: str
    repeat: int
    """From 1."""
    started: str
    """UTC, ISO 8601."""
    seconds: float
    status: int
    """The process's status; -N: it was killed by signal N."""
    exit_code: int
    """The harness's exit code that this amounts to."""
    result: Result
    reasons: list[str] = field(default_factory=list)
    """Why it is not valid."""
    directories: list[str] = field(default_factory=list)
    """The stored runs, relative to the night's directory. A catalogue has one for each deployment."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Figures of result.json, by the names there."""
    deployment: dict[str, str] = field(default_factory=dict)
    """What must be the same for two nights to be comparable: engine, model, connector, ..."""
    engine_version: str = ""


@dataclass(slots=True)
class Planned:
    """A job that the night was to run."""

    name: str
    repeat: int
    measured: bool
    """Whether its latencies can be compared with those of other nights."""
    flags: list[str]


@dataclass(slots=True)
class Compared:
    """One job beside the last good night."""

    job: str
    worse: bool
    """Whether it is worse: with ``--fail-on``, whether a limit was broken."""
    unknown: bool
    """Whether it cannot be told: too few runs, runs that cannot be compared, or limits within the noise."""
    lines: list[str]
    """What differs, or why nothing could be compared."""
    file: str = ""
    """The comparison as JSON, relative to the night's directory."""


@dataclass(slots=True)
class Night:
    """One night."""

    name: str
    """The date; a second night of a date is called ``2026-03-04.2``."""
    state: State
    started: str
    """UTC, ISO 8601."""
    pid: int
    boot_id: str
    """Identifies the machine's start, so that a restart shows."""
    seed: int
    planned: list[Planned]
    words: list[str]
    """Flags of the harness after ``--``, without credentials."""
    harness_version: str
    commit: str
    format: int = 1
    ended: str = ""
    runs: list[Run] = field(default_factory=list)
    result: Result = Result.UNKNOWN
    exit_code: int = int(ExitCode.UNKNOWN)
    reasons: list[str] = field(default_factory=list)
    """Why it is not valid: of its runs, of the comparison, and of the night itself."""
    compared_with: str = ""
    """Name of the last good night; empty: there was none."""
    comparisons: list[Compared] = field(default_factory=list)

    @property
    def engine_version(self) -> str:
        """The engine's versions in this night; empty if no run came so far."""
        return ", ".join(dict.fromkeys(run.engine_version for run in self.runs if run.engine_version))

    @property
    def good(self) -> bool:
        """Whether it ended, and everything in it is valid."""
        return self.state is State.ENDED and self.result is Result.VALID

    @property
    def baseline(self) -> bool:
        """Whether later nights may be compared with it: it is good, or would be, had it had a night to compare with.

        With ``--fail-on``, a night that nothing can be compared with is unknown. If it were no baseline either, all
        later nights would be unknown in the same way.
        """
        told = any(one.unknown and one.file for one in self.comparisons)
        whole = len(self.runs) == sum(job.repeat for job in self.planned)
        runs_valid = whole and all(run.result is Result.VALID for run in self.runs)
        alone = self.state is State.ENDED and self.result is Result.UNKNOWN and runs_valid and not told
        return self.good or alone


def to_json(night: Night) -> str:
    """The record's text."""
    return msgspec.json.format(msgspec.json.encode(night), indent=2).decode() + "\n"


def from_json(text: bytes) -> Night:
    """The record of a text. Raises ValueError (msgspec's own is one) if it is damaged."""
    return msgspec.json.decode(text, type=Night)
