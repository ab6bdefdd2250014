"""How much of a load is verified, and how many control requests measure noise. Pure.

Costs are engine tokens, prompt and output together. For a request of t tokens, a teacher forcing or a reference costs t
and a control output 2t: t to make it and t to force it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from harness.errors import UsageError

DEFAULT = "budget:10"
_FEWEST_VERIFIED = 128
"""Outputs that any budget verifies: a run of a hundred requests is too short for verification to be a burden."""
CONTROL_OUTPUT = 8
"""Fewest tokens of a control output: noise is measured by token, so answers of one would need hundreds of controls."""
FEWEST_CONTROLS = 16
"""The limit of an output's mean drift needs 16 outputs (averages.py)."""
_CONTROL_TOKENS = 640
"""Output tokens of all control requests: enough for a tail of the 25 largest values (the square root of their number).
Small loads have as many, since short runs would raise false alarms with fewer."""
_FEWEST_PREFIXES = 1024
_PREFIX_TOKENS = 64
"""A probe computes two tokens, but takes an engine as long as so many tokens of a load: 58 on two CPU cores (100
probes/s at 5,800 tokens/s), 115 on an H100 (270 at 31,000)."""
_TIER_SHARE = 4
_PROBE_TOKENS = 5
"""Engine tokens for each prefix: two on either server, and a quarter of that for either tier."""


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
        """Raises UsageError for any other text."""
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
    """How many requests verify a load."""

    verified: int
    """Outputs of the load that are teacher-forced."""
    controls: int
    """Control requests, if noise matters. If they are more than the outputs, prompts are repeated."""
    control_tokens: int = CONTROL_OUTPUT
    """Tokens of each control output."""


def sizes(
    policy: VerifyPolicy, tokens: Sequence[int], output_tokens: int, in_flight: int, *, referenced: int = 0
) -> Sizes:
    """Sizes for a load. ``tokens``: of each request, prompt and output; ``output_tokens``: of all outputs together.

    ``in_flight``: requests in flight at once; ``referenced``: how many outputs need a reference too.
    """
    count = len(tokens)
    if count == 0:
        return Sizes(0, 0)
    each = max(int(output_tokens / count), CONTROL_OUTPUT)
    controls = max(FEWEST_CONTROLS, in_flight, -(-_CONTROL_TOKENS // each))
    probes = _PROBE_TOKENS * (prefixes_probed(policy, tokens) or 0) / max(sum(tokens) / count, 1)
    verified = _verified(policy, count, 2 * controls + math.ceil(probes), 1 + referenced / count)
    return Sizes(min(count, verified), controls, each)


def prefixes_probed(policy: VerifyPolicy, tokens: Sequence[int]) -> int | None:
    """How many prefixes of prompts are probed; None: all. ``tokens``: of each request of the load."""
    if policy.extent is Extent.ALL:
        return None
    if policy.extent is Extent.SAMPLE:
        # A sample of no outputs probes no prefixes either.
        return min(1, int(policy.amount)) * _FEWEST_PREFIXES
    return max(_FEWEST_PREFIXES, int(policy.amount / 100 * sum(tokens)) // _PREFIX_TOKENS)


def tier_prefixes(policy: VerifyPolicy, prefixes: int | None, most: int) -> int:
    """How many prefixes each offload tier is asked for, ``most`` at most. ``prefixes``: those of the prefix cache."""
    return most if prefixes is None or policy.extent is not Extent.BUDGET else min(most, prefixes // _TIER_SHARE)


def _verified(policy: VerifyPolicy, count: int, others: int, each: float) -> int:
    """``others``: the cost of all but the outputs; ``each``: that of one output; both in requests of the load."""
    if policy.extent is Extent.ALL:
        return count
    if policy.extent is Extent.SAMPLE:
        return int(policy.amount)
    # Requests are picked at random, so that each costs the average number of tokens.
    return max(_FEWEST_VERIFIED, int((policy.amount / 100 * count - others) / each))
