"""From a run that failed to the smallest load that still fails.

*candidate* is what is tried; *search* decides what to try next and knows no deployment; *shrinker* tries it often
enough and within limits; *case* reads a stored run; *script* writes the curl lines of a bug report.
"""

from harness.shrink.candidate import Candidate, Cutting, Piece
from harness.shrink.failing_load import FailingLoad, failing_load_of
from harness.shrink.script import ScriptContent, script
from harness.shrink.search import search
from harness.shrink.shrinker import Limits, Shrinker, tries_for

__all__ = [
    "Candidate",
    "Cutting",
    "FailingLoad",
    "Limits",
    "Piece",
    "ScriptContent",
    "Shrinker",
    "failing_load_of",
    "script",
    "search",
    "tries_for",
]
