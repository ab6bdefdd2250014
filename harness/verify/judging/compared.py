"""The result of comparing one output with what it should be."""

from dataclasses import dataclass
from enum import Enum, auto


class Match(Enum):
    """How an output compares with what it should be."""

    EXACT = auto()
    """Every token is the right one."""
    TIE = auto()
    """It differs only where two tokens are equally good within the noise."""
    MISMATCH = auto()
    """It is wrong."""
    UNVERIFIED = auto()
    """It was to be verified, and that failed."""
    LEFT_OUT = auto()
    """It was not to be verified; of a probe, nothing is known that it could be compared with."""


RIGHT = (Match.EXACT, Match.TIE)


@dataclass(frozen=True, slots=True)
class Compared:
    """One output compared."""

    request_id: str
    match: Match
    text: str = ""
    """What is wrong, or why it could not be verified."""
    first: int | None = None
    """The first wrong output token, counted from 0; None if no single token is known to be wrong."""
    doubt: str = ""
    """Why a right output is doubtful: it exceeds a near limit of noise, but no far limit (floor.py)."""
