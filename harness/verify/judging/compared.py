"""What the comparison of one output with the truth comes to."""

from dataclasses import dataclass
from enum import Enum, auto


class Match(Enum):
    """How an output compares with what it should be."""

    EXACT = auto()
    """Every token the one that the clean path has."""
    TIE = auto()
    """It differs where two tokens are as good as equal, within the noise."""
    MISMATCH = auto()
    UNVERIFIED = auto()
    """Verification was asked for, and failed."""
    UNSAMPLED = auto()
    """Verification was not asked for."""


@dataclass(frozen=True, slots=True)
class Compared:
    """One output compared."""

    request_id: str
    match: Match
    text: str = ""
    """What is wrong, or why it could not be verified."""
    first: int = 0
    """The first output token that is wrong, counted from 0."""
    doubt: str = ""
    """Why it is doubtful though it counts as right: it shows more than the control outputs make likely, and less than
    noise cannot explain."""
