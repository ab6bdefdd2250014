"""Checkers: pure functions that judge a deployment by its facts and a run's history; :func:`judge` calls them all."""

from harness.checkers.by_scenario import judge_rest, judge_scenario, seconds_of
from harness.checkers.compose import CHECKERS, Checker, judge

__all__ = ["CHECKERS", "Checker", "judge", "judge_rest", "judge_scenario", "seconds_of"]
