"""Shrinks the load of a failed run to the smallest load that still fails.

*failing_load* reads the load from a stored run; a *candidate* is a part of it; *search* decides which candidate to try
next; *shrinker* tries each candidate often enough and within limits; *script* writes the curl commands of a bug report.
"""

from harness.shrink.candidate import Candidate, Piece
from harness.shrink.failing_load import failing_load_of
from harness.shrink.script import ScriptContent, script

__all__ = ["Candidate", "Piece", "ScriptContent", "failing_load_of", "script"]
