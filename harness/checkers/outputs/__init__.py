"""Were the answers right? From the statistics up: noise, forcing, floor, judging; strict; ownership; check."""

from harness.checkers.outputs.check import (
    compare_outputs,
    count_outputs,
    doubted_probes,
    noise_matters,
    outputs,
    owned_outputs,
    suspects,
    wrong_outputs,
)
from harness.checkers.outputs.evidence import OutputEvidence, control_outputs, look_at_outputs
from harness.checkers.outputs.part import Part, part_of

__all__ = [
    "OutputEvidence",
    "Part",
    "compare_outputs",
    "control_outputs",
    "count_outputs",
    "doubted_probes",
    "look_at_outputs",
    "noise_matters",
    "outputs",
    "owned_outputs",
    "part_of",
    "suspects",
    "wrong_outputs",
]
