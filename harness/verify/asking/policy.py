"""How much of a load is verified, and how large the arm is that measures noise. Pure.

Costs are engine tokens, prompt and output together, of one request's tokens t: teacher forcing costs t, a control
output 2t, once to make it and once to force it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from harness.errors import UsageError
from harness.verify.asking.reference import CONTROL_OUTPUT

DEFAULT = "budget:10"
_FEWEST_VERIFIED = 128
"""Below this a budget does not go: a run of a hundred requests is too short for verification to be a burden."""
_FEWEST_CONTROLS = 32
_CONTROL_TOKENS = 640
"""Output tokens of the control arm: enough for its 25 largest to be its tail (square root of their number)."""


_FEWEST_PREFIXES = 1024
_PREFIX_TOKENS = 64
"""A probe computes two tokens, and takes an engine as long as so many of a load's: 58 on two CPU cores (100 probes/s
beside 5,800 tokens/s), 115 on an H100 (270 beside 31,000)."""
_TIER_SHARE = 4
_PROBE_TOKENS = 5
"""For each prefix: two tokens on either server, and a quarter of that for either tier."""


class Extent(StrEnum):
    """Kinds of policy."""

    ALL = "all"
    SAMPLE = "sample"
    BUDGET = "budget"


@dataclass(frozen=True, slots=True)
class VerifyPolicy:
    """``all``, ``sample:N`` (N outputs), or ``budget:PCT`` (percent of the load's engine tokens)."""

    extent: Extent
    amount: float = 0.0

    @classmethod
    def parse(cls, text: str) -> "VerifyPolicy":
        """Raises UsageError for anything else."""
        name, _, amount = text.partition(":")
        try:
            policy = cls(Extent(name), float(amount or 0))
        except ValueError:
            policy = None
        if policy is None or (policy.extent is Extent.ALL) != (amount == "") or policy.amount < 0:
            raise UsageError(
                f"--verify {text}: it must be all, sample:N with a number of outputs, or budget:PCT with a percentage "
                "of the load's tokens."
            )
        return policy


@dataclass(frozen=True, slots=True)
class ArmSizes:
    """How many requests each arm has."""

    verified: int
    """Outputs of the load that are teacher-forced."""
    controls: int
    """Control outputs; more than there are requests: some are repeated."""


def arm_sizes(policy: VerifyPolicy, tokens: Sequence[int], output_tokens: int, concurrency: int) -> ArmSizes:
    """Sizes for a load whose requests have so many ``tokens``, ``output_tokens`` of them generated in all."""
    count = len(tokens)
    if count == 0:
        return ArmSizes(0, 0)
    mean_output = max(output_tokens / count, CONTROL_OUTPUT)
    controls = max(_FEWEST_CONTROLS, concurrency, -(-_CONTROL_TOKENS // int(mean_output)))
    probes = _PROBE_TOKENS * (prefixes_probed(policy, tokens) or 0) / max(sum(tokens) / count, 1)
    return ArmSizes(min(count, _verified(policy, count, 2 * controls + math.ceil(probes))), controls)


def prefixes_probed(policy: VerifyPolicy, tokens: Sequence[int]) -> int | None:
    """How many prefixes of prompts are probed after a load whose requests have so many ``tokens``; None: all."""
    if policy.extent is Extent.ALL:
        return None
    if policy.extent is Extent.SAMPLE:
        # As much of a prompt's caches as of the outputs is looked at: a sample of nothing is nothing.
        return min(1, int(policy.amount)) * _FEWEST_PREFIXES
    return max(_FEWEST_PREFIXES, int(policy.amount / 100 * sum(tokens)) // _PREFIX_TOKENS)


def tier_prefixes(policy: VerifyPolicy, prefixes: int | None, most: int) -> int:
    """How many prefixes each offload tier is asked for, ``most`` at most, where D's prefix cache is for so many."""
    return most if prefixes is None or policy.extent is not Extent.BUDGET else min(most, prefixes // _TIER_SHARE)


def _verified(policy: VerifyPolicy, count: int, others: int) -> int:
    """``others``: what else verifies, in requests of the load."""
    if policy.extent is Extent.ALL:
        return count
    if policy.extent is Extent.SAMPLE:
        return int(policy.amount)
    # In units of one request's tokens, which are taken to be alike: requests are picked at random.
    return max(_FEWEST_VERIFIED, int(policy.amount / 100 * count) - others)
