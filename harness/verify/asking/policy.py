"""How much of a load is verified, and what that may cost. Pure.

Costs are engine tokens, prompt and output together. For a request of t tokens, a teacher forcing or a reference costs t
and a control output 2t: t to make it and t to force it.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from harness.errors import UsageError

DEFAULT = "budget:10%"
TIME_PER_TOKENS = 2.5
"""A percentage limits time to so many times the share that it limits tokens to: forcings, probes and retries are short
requests, which take more of an engine's time than of its tokens."""
_SHORT, _SHORT_SECONDS = 1000, 30.0
"""A load of at most so many requests is short, unless its share of time is longer than so many seconds: its
verification takes more than its share, but seconds."""
_FLOORS = 600, 200
"""The tokens that any percentage allows a short load and a longer one, as a number of the load's average requests. 600
requests are 128 forcings, 80 controls and as many again for outputs that look wrong, all of them forced, and a search
for owners. A load of 2,000 requests allows 200 requests at 10 %, so that the floor ends there."""
_FLOOR_SECONDS = 20.0, 10.0
"""The seconds that any percentage allows a load that takes no time, or is short; and a load of 40 s, to which 10 %
allow 10 s anyway. In between, a quarter of a second less for each second of the load."""
_FORCED = 0.7
"""The part of the tokens for forcings, of strange outputs and of those drawn at random, and for controls."""
_FORCED_SECONDS = 0.4
"""The part of the seconds for the same, if only seconds are limited."""
_CONTROLS_SHARE = 0.25
"""The part of the same tokens that controls may cost: outputs drawn at random show noise, too, at half the cost."""
CONTROL_OUTPUT = 8
"""Fewest tokens of a control output: noise is measured by token, so answers of one would need hundreds of controls."""
FEWEST_CONTROLS = 16
"""Limits from control outputs alone need a sample of 16 averages (noise.MIN_SAMPLE), and a first token that differs in
its last bits counts only beside 16 control outputs whose first tokens do not (judging/unequal.py)."""
_CONTROL_TOKENS = 640
"""Output tokens of all control requests: their tail, the largest 5 %, has 32 values. Small loads have as many, since
short runs would raise false alarms with fewer."""
_EXACT_DRAWN = 48
"""Outputs drawn at random where first tokens are equal to the last bit, if the budget does not suffice for all outputs:
nearly everything wrong is strange there, and what is left of the budget is for that. Elsewhere at least as many."""
_MANY_BEYOND = 4
"""So many outputs whose first token lies beyond the noise are no chance: of 7,500 clean ones on two H100s, none did."""
_OWNER_TOKENS = 500
"""What the search for the owner of one wrong output costs on average, at any length of prompts: 100 owner tests of two
tokens, and 300 tokens of continuations, decoys and rivals."""
_FORMS = (
    "it must be all, sample:N with a number of outputs, budget:PCT% with a percentage of the load's tokens, or a time: "
    "budget:60s, budget:2m"
)
_TEXT = re.compile(r"all|sample:[0-9]{1,12}|budget:[0-9]{1,12}(\.[0-9]{1,40})?[%sm]?")
_SECONDS = {"s": 1.0, "m": 60.0}


class Extent(StrEnum):
    """Kinds of policy."""

    ALL = "all"
    SAMPLE = "sample"
    BUDGET = "budget"
    TIME = "time"


@dataclass(frozen=True, slots=True)
class Budget:
    """What the verification of a load may cost; infinite if there is no limit."""

    tokens: float = math.inf
    """Engine tokens."""
    seconds: float = math.inf


@dataclass(frozen=True, slots=True)
class VerifyPolicy:
    """``all``, ``sample:N`` (N outputs), ``budget:PCT%`` (of the load's tokens), or ``budget:60s`` (also ``2m``)."""

    extent: Extent
    amount: float = 0.0
    """Outputs, percent of the load's engine tokens, or seconds."""

    @classmethod
    def parse(cls, text: str) -> "VerifyPolicy":
        """Raises UsageError for any other text. ``budget:10`` means ``budget:10%``."""
        if not _TEXT.fullmatch(text):
            raise UsageError(f"--verify {text}: {_FORMS}.")
        name, _, amount = text.partition(":")
        if (unit := amount[-1:]) in _SECONDS:
            return cls(Extent.TIME, float(amount[:-1]) * _SECONDS[unit])
        return cls(Extent(name), float(amount.removesuffix("%") or 0))

    def __str__(self) -> str:
        """The text that ``parse`` reads as this policy."""
        amount = format(Decimal(repr(self.amount)).normalize(), "f")
        forms = {
            Extent.SAMPLE: f"sample:{amount}",
            Extent.BUDGET: f"budget:{amount}%",
            Extent.TIME: f"budget:{amount}s",
        }
        return forms.get(self.extent, str(self.extent))

    @property
    def bound(self) -> str:
        """What verification may cost, for people, before a load has been seen; empty if there is no limit."""
        if self.extent is Extent.TIME:
            return f"at most {self.amount:g} s"
        if self.extent is not Extent.BUDGET:
            return ""
        seconds = TIME_PER_TOKENS * self.amount
        return (
            f"at most {seconds:g} % of the load's time and {self.amount:g} % of its tokens (more if the load is short)"
        )

    def budget(self, requests: int, tokens: int, seconds: float) -> Budget:
        """For a load of so many requests, engine tokens and seconds."""
        if self.extent is Extent.TIME:
            return Budget(seconds=self.amount)
        if self.extent is not Extent.BUDGET:
            return Budget()
        share = self.amount / 100
        timed = TIME_PER_TOKENS * share * seconds
        long = requests > _SHORT or timed > _SHORT_SECONDS
        most_seconds, least_seconds = _FLOOR_SECONDS
        floor = max(most_seconds - seconds / 4, least_seconds) if long else most_seconds
        return Budget(max(share * tokens, _FLOORS[long] * tokens / max(requests, 1)), max(timed, floor))


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many requests verify a load."""

    drawn: int
    """Outputs of the load that are drawn at random and teacher-forced."""
    suspects: int
    """Further outputs that are teacher-forced because they look strange, at most."""
    controls: int
    """Control requests, if noise matters. If they are more than the outputs, prompts are repeated."""
    control_tokens: int = CONTROL_OUTPUT
    """Tokens of each control output."""


def sizes(  # noqa: PLR0913 - the last five are keyword-only
    policy: VerifyPolicy,
    tokens: Sequence[int],
    output_tokens: int,
    in_flight: int,
    *,
    strange: int = 0,
    exact: bool = False,
    beyond: int = 0,
    referenced: int = 0,
    tokens_per_second: float = math.inf,
) -> Sizes:
    """Sizes for a load. ``tokens``: of each request, prompt and output; ``output_tokens``: of all outputs together.

    ``in_flight``: requests in flight at once; ``strange``: how many outputs look strange; ``exact``: whether all
    others are equal to the last bit in their first token; ``beyond``: how many outputs' first tokens lie beyond the
    noise; ``referenced``: how many outputs need a reference too; ``tokens_per_second``: how fast the engines are.
    """
    count = len(tokens)
    if count == 0:
        return Sizes(0, 0, 0)
    each = max(math.ceil(output_tokens / count), CONTROL_OUTPUT)
    wanted = max(FEWEST_CONTROLS, in_flight, -(-_CONTROL_TOKENS // each))
    affordable = _affordable(policy, count, sum(tokens), tokens_per_second)
    # A control output is made and forced.
    controls = int(max(FEWEST_CONTROLS, min(wanted, affordable * _CONTROLS_SHARE / 2)))
    if policy.extent in (Extent.ALL, Extent.SAMPLE):
        # More than any load has, if all.
        most = int(policy.amount) if policy.extent is Extent.SAMPLE else count
        return Sizes(min(count, most), 0, wanted, each)
    forced = affordable - 2 * controls
    # Strange outputs have no references.
    suspects = min(strange, int(forced / 2))
    drawn = min(count, max(int((forced - suspects) / (1 + referenced / count)), 1))
    if drawn < count:
        # What is not drawn is left for the owners of wrong outputs.
        least = min(drawn, _EXACT_DRAWN)
        searched = math.ceil(beyond * _OWNER_TOKENS * count / max(sum(tokens), 1)) if beyond >= _MANY_BEYOND else 0
        drawn = least if exact else max(least, drawn - searched)
    return Sizes(drawn, suspects, controls, each)


def _affordable(policy: VerifyPolicy, count: int, tokens: int, tokens_per_second: float) -> float:
    """How many average requests forcings and controls may cost."""
    limit = policy.budget(count, tokens, tokens / tokens_per_second).tokens * _FORCED
    if policy.extent is Extent.TIME:
        limit = policy.amount * _FORCED_SECONDS * tokens_per_second
    return limit * count / max(tokens, 1)
