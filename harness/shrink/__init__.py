"""Shrinks the load of a failed run to the smallest load that still fails.

*failing_load* reads the load from a stored run; *candidate* is a part of it; *search* decides which candidate to try
next; *shrinker* tries it often enough and within limits; *script* writes the curl commands of a bug report.
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
