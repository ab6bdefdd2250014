"""Carries out scenarios on a deployment: sends requests, reads counters, verifies the answers, and judges.

:func:`carry_out` is the one entry. The command line, the Python API, the pytest plugin, shrinking and the selftest call
it. The room prints nothing, stores nothing and reads no command line.
"""

from harness.run.carry_out import Carried, carry_out
from harness.run.recorder import Recorder
from harness.run.started import fresh_salt, run_started_now
from harness.run.transport import Sending, Transport
from harness.run.workloads import Fitting, fit

__all__ = [
    "Carried",
    "Fitting",
    "Recorder",
    "Sending",
    "Transport",
    "carry_out",
    "fit",
    "fresh_salt",
    "run_started_now",
]
