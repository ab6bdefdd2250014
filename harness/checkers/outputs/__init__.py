"""Were the answers right? From the statistics up: noise, forcing, floor, judging; strict; ownership; check."""

from harness.checkers.outputs.check import (
    compare_outputs,
    count_outputs,
    doubted_probes,
    outputs,
    owned_outputs,
    suspects,
    wrong_outputs,
)
from harness.checkers.outputs.evidence import control_outputs

__all__ = [
    "compare_outputs",
    "control_outputs",
    "count_outputs",
    "doubted_probes",
    "outputs",
    "owned_outputs",
    "suspects",
    "wrong_outputs",
]
