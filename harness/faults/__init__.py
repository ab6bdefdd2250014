"""What can be done to a deployment while it serves a load, each kind with its evidence and its healer.

As in Jepsen: a fault is struck at a chosen moment, the evidence that it took hold is *observed*, it is healed on every
way out, and the history has an entry of each step, so that checkers know which operations overlapped it.
"""

from harness.faults.fault import Fault, NoEvidence
from harness.faults.final_reads import joined, under_faults
from harness.faults.kinds import KINDS, USUAL
from harness.faults.nemesis import Nemesis
from harness.faults.plan import FaultPlan, faults_of_workloads, parse_fault, relays_for
from harness.faults.possible import Reach
from harness.faults.random_plans import random_faults
from harness.faults.relay_control import control_of
from harness.faults.site import Processes, Site

__all__ = [
    "KINDS",
    "USUAL",
    "Fault",
    "FaultPlan",
    "Nemesis",
    "NoEvidence",
    "Processes",
    "Reach",
    "Site",
    "control_of",
    "faults_of_workloads",
    "joined",
    "parse_fault",
    "random_faults",
    "relays_for",
    "under_faults",
]
