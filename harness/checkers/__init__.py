"""Was it right? Pure functions of the deployment's facts and the run's history; :func:`judge` composes them."""

from harness.checkers.by_scenario import judge_scenario, of_nobody, of_run, seconds_of
from harness.checkers.compose import CHECKERS, Checker, judge

__all__ = ["CHECKERS", "Checker", "judge", "judge_scenario", "of_nobody", "of_run", "seconds_of"]
