"""Checkers: pure functions that judge a deployment by its facts and a run's history; :func:`judge` calls them all."""

from harness.checkers.by_scenario import judge_rest, judge_scenario, seconds_of
from harness.checkers.compose import CHECKERS, Checker, judge
from harness.checkers.predictions import Along, Predictions, Source, digest_of, predictable

__all__ = [
    "CHECKERS",
    "Along",
    "Checker",
    "Predictions",
    "Source",
    "digest_of",
    "judge",
    "judge_rest",
    "judge_scenario",
    "predictable",
    "seconds_of",
]
