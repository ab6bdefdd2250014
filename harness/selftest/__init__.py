"""Tests the checkers: plants known bugs in a simulated pair of servers, and counts how many are caught.

A trial is a run like any other (load, verification, counters, judgement) on simulated servers in the same process and
in virtual time: without sockets, without sleeping, and deterministic. Trials without a bug measure false alarms.
"""

from harness.selftest.plan import SelftestOptions, plan_trials
from harness.selftest.pool import run_trials
from harness.selftest.report import make_report
from harness.selftest.text import LEGEND, table_lines
from harness.selftest.trial import Result, Trial, run_trial

__all__ = [
    "LEGEND",
    "Result",
    "SelftestOptions",
    "Trial",
    "make_report",
    "plan_trials",
    "run_trial",
    "run_trials",
    "table_lines",
]
