"""Verdicts on the outputs of a history, from teacher forcing, measured noise, references and probes of caches."""

from harness.verify.judging.check import (
    count_outputs,
    doubted_probes,
    doubtful,
    near_regret,
    noise_matters,
    outputs,
    owned_outputs,
    suspects,
    tier_suspected,
    unconfirmed,
    wrong_outputs,
)
from harness.verify.judging.control_outputs import control_outputs
from harness.verify.judging.evidence import OutputEvidence, look_at_outputs
from harness.verify.judging.part import Part, part_of

__all__ = [
    "OutputEvidence",
    "Part",
    "control_outputs",
    "count_outputs",
    "doubted_probes",
    "doubtful",
    "look_at_outputs",
    "near_regret",
    "noise_matters",
    "outputs",
    "owned_outputs",
    "part_of",
    "suspects",
    "tier_suspected",
    "unconfirmed",
    "wrong_outputs",
]
