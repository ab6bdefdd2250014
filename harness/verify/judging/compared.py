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
    """Its verification failed."""
    LEFT_OUT = auto()
    """It was not to be verified; or it is a probe, and there is nothing to compare it with."""


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
    certain: bool = False
    """Whether it is wrong beyond any noise (gross_mismatch.py): measuring noise again would change nothing."""
    doubt: str = ""
    """Why a right output is doubtful: which near limit of noise it exceeds (floor.py); empty if it exceeds none."""
