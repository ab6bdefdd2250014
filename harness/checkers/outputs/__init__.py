"""Were the answers right? From the statistics up: noise, forcing, floor, judging; strict; ownership; check."""

from harness.checkers.outputs.check import compare_outputs, count_outputs, noise_matters, outputs, wrong_outputs
from harness.checkers.outputs.evidence import OutputEvidence, look_at_outputs
from harness.checkers.outputs.part import Part, part_of

__all__ = [
    "OutputEvidence",
    "Part",
    "compare_outputs",
    "count_outputs",
    "look_at_outputs",
    "noise_matters",
    "outputs",
    "part_of",
    "wrong_outputs",
]
