"""Carries out scenarios on a deployment: sends requests, reads counters, verifies the answers, and judges.

The command line, the Python API, the pytest plugin, shrinking and the selftest all call :func:`carry_out`. This package
prints nothing, stores nothing and reads no command line.
"""

from harness.run.carry_out import Carried, carry_out
from harness.run.prompts import with_tokens
from harness.run.recorder import Recorder
from harness.run.started import fresh_salt, run_started_now
from harness.run.transport import Sending, Transport
from harness.run.workloads import fit

__all__ = [
    "Carried",
    "Recorder",
    "Sending",
    "Transport",
    "carry_out",
    "fit",
    "fresh_salt",
    "run_started_now",
    "with_tokens",
]
