"""From a run that failed to the smallest load that still fails.

*candidate* is what is tried; *search* decides what to try next and knows no deployment; *shrinker* tries it often
enough and within limits; *case* reads a stored run; *script* writes the curl lines of a bug report.
"""

from harness.shrink.candidate import Candidate, Cutting, Piece
from harness.shrink.case import Case, case_of
from harness.shrink.script import Told, script
from harness.shrink.search import search
from harness.shrink.shrinker import Limits, Shrinker, tries_for

__all__ = [
    "Candidate",
    "Case",
    "Cutting",
    "Limits",
    "Piece",
    "Shrinker",
    "Told",
    "case_of",
    "script",
    "search",
    "tries_for",
]
