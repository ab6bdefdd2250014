"""How much of a load is verified, and how many control requests measure noise. Pure.

Costs are engine tokens, prompt and output together, of one request's tokens t: teacher forcing costs t, so does a
reference, and a control output costs 2t, once to make it and once to force it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from harness.errors import UsageError

DEFAULT = "budget:10"
_FEWEST_VERIFIED = 128
"""Below this a budget does not go: a run of a hundred requests is too short for verification to be a burden."""
CONTROL_OUTPUT = 8
"""Tokens of a control output at least: noise is measured in tokens, and answers of one would need hundreds of them."""
FEWEST_CONTROLS = 16
"""The limit of an output's mean drift needs 16 outputs (averages.py)."""
_FEWEST_CONTROL_TOKENS = 128
"""A noise limit needs 100 (noise.py)."""
_CONTROL_TOKENS = 640
"""Output tokens of all control requests at most: enough for their 25 largest to be their tail (square root of their
number)."""
_OUTPUT_SHARE = 4
"""One control token for so many output tokens of the load: measuring noise must not cost more than what it is for."""
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
class Sizes:
    """How much is asked to verify a load."""

    verified: int
    """Outputs of the load that are teacher-forced."""
    controls: int
    """Control requests, where noise matters. If there are more than outputs, prompts are repeated."""
    control_tokens: int = CONTROL_OUTPUT
    """Tokens of each control output."""


def sizes(
    policy: VerifyPolicy, tokens: Sequence[int], output_tokens: int, in_flight: int, *, referenced: int = 0
) -> Sizes:
    """Sizes for a load whose requests have so many ``tokens``, ``output_tokens`` of them generated in all.

    ``in_flight``: requests in flight at once; ``referenced``: how many of the outputs need a reference too.
    """
    count = len(tokens)
    if count == 0:
        return Sizes(0, 0)
    each = max(int(output_tokens / count), CONTROL_OUTPUT)
    wanted = min(max(output_tokens // _OUTPUT_SHARE, _FEWEST_CONTROL_TOKENS), _CONTROL_TOKENS)
    controls = max(FEWEST_CONTROLS, in_flight, -(-wanted // each))
    probes = _PROBE_TOKENS * (prefixes_probed(policy, tokens) or 0) / max(sum(tokens) / count, 1)
    verified = _verified(policy, count, 2 * controls + math.ceil(probes), 1 + referenced / count)
    return Sizes(min(count, verified), controls, each)


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


def _verified(policy: VerifyPolicy, count: int, others: int, each: float) -> int:
    """``others``: what else verifies; ``each``: what verifies one output; both in requests of the load."""
    if policy.extent is Extent.ALL:
        return count
    if policy.extent is Extent.SAMPLE:
        return int(policy.amount)
    # In units of one request's tokens, which are taken to be alike: requests are picked at random.
    return max(_FEWEST_VERIFIED, int((policy.amount / 100 * count - others) / each))
