"""What verification may still spend: every step takes its tokens and seconds from one ledger.

The ledger is computed anew from the history before each step. Steps come in a fixed order, and each has a *mark*: the
part of the budget that may be spent when the step ends, by it and by all steps before it. So the first probes and
forcings leave something for outputs that look wrong, and what a step leaves is there for later ones.

Tokens are paid in advance: requests that the tokens do not suffice for are not sent. A control output and a retry are
forced later, so their forcings are paid with them. Seconds are limited by ``Phase.seconds``: after so long, no further
request of the phase is sent, and those in flight take about as long as the ledger leaves for them.

How long a request takes is estimated from the load, until requests of its own kind have been timed.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from harness.history import History
from harness.scenario import Phase, Purpose, Request
from harness.verify.asking.policy import Budget
from harness.verify.judging.cost import CACHED, Cost, computed, load_cost, share_computed, spans
from harness.verify.judging.load_part import asked_of

PROBE_TOKENS = 64
"""A probe computes two tokens, but takes an engine as long as so many tokens of a load: 58 on two CPU cores (100
probes/s at 5,800 tokens/s), 115 on an H100 (270 at 31,000)."""

_PROBE_COST = 2
"""Engine tokens of a probe: one of its prompt and one of its answer."""
_PILOT = 24
"""Owner tests that are sent before their price is known: where caches are small, each computes its whole prompt."""
_MOSTLY_LOST = 0.5
"""Where caches have lost more than this share of what was asked for so far, the next requests are priced as if they had
lost everything: other caches, and blocks that were used longer ago, may have lost more."""
_UNLIMITED = 1 << 40
"""More requests than any step makes."""


@dataclass(frozen=True, slots=True)
class Mark:
    """Parts of the budget that may be spent when a step ends."""

    tokens: float
    seconds: float


EVERYTHING = Mark(1.0, 0.92)
"""Requests in flight when the time is up are waited for, and are the reason that some of it is left."""


@dataclass(frozen=True, slots=True)
class Rates:
    """How long requests take when as many are in flight as the load had."""

    token: float
    """Seconds per engine token of anything but a probe or an owner test."""
    probe: float
    """Seconds per probe, and at least per owner test."""
    uncached: Mapping[Purpose, float | None] = field(default_factory=dict)
    """The share of what they were meant to find in caches that probes and owner tests had to compute; None if that was
    not seen yet."""

    @classmethod
    def of(cls, history: History) -> "Rates":
        """Measured from the load, and from forcings and probes if there are any."""
        load = load_cost(history)
        token = load.seconds / load.tokens if load.tokens else 0.0
        forcings = [o for o in asked_of(history) if o.request.purpose is Purpose.FORCING]
        probes = [o for o in asked_of(history) if o.request.purpose is Purpose.PROBE]
        forced = sum(map(computed, forcings))
        return cls(
            token=spans(forcings) / forced if forced else token,
            probe=spans(probes) / len(probes) if probes else PROBE_TOKENS * token,
            uncached={purpose: share_computed(history, purpose) for purpose in CACHED},
        )

    def expected_share(self, purpose: Purpose) -> float | None:
        """The share that the next requests of a purpose are expected to compute; None if nothing was seen yet."""
        seen = self.uncached.get(purpose)
        return 1.0 if seen is not None and seen > _MOSTLY_LOST else seen

    def seconds(self, request: Request, tokens: float) -> float:
        """Of one request that computes so many tokens."""
        if request.purpose is Purpose.OWNER_TEST:
            return max(self.probe, tokens * self.token)
        return self.probe if request.purpose is Purpose.PROBE else tokens * self.token


@dataclass(frozen=True, slots=True)
class Ledger:
    """The budget, and what of it is spent."""

    budget: Budget
    spent: Cost
    rates: Rates
    prompt_tokens: Callable[[Request], int]
    """Tokens of a prompt, also of one that is sent as a text."""
    cached: Callable[[Request], int]
    """Tokens of a prompt that a cache is expected to have."""

    @property
    def unlimited(self) -> bool:
        """Whether there is no limit at all."""
        return math.isinf(self.budget.tokens) and math.isinf(self.budget.seconds)

    def tokens_left(self, until: Mark) -> float:
        """Engine tokens that may be spent before the mark."""
        return max(self.budget.tokens * until.tokens - self.spent.tokens, 0.0)

    def seconds_left(self, until: Mark) -> float:
        """Seconds that may be spent before the mark."""
        return max(self.budget.seconds * until.seconds - self.spent.seconds, 0.0)

    def affordable_tokens(self, until: Mark) -> float:
        """Engine tokens that the tokens and the time before the mark suffice for."""
        seconds = self.seconds_left(until)
        return min(self.tokens_left(until), seconds / self.rates.token if self.rates.token else math.inf)

    def probes_left(self, until: Mark) -> int:
        """How many probes the time and the tokens before the mark suffice for."""
        tokens, seconds = self.tokens_left(until) / _PROBE_COST, self.seconds_left(until)
        affordable = min(tokens, seconds / self.rates.probe if self.rates.probe else math.inf)
        return int(min(affordable, _UNLIMITED))

    def afford(self, phases: Sequence[Phase], until: Mark) -> tuple[Phase, ...]:
        """The phases without the requests that cannot be paid, each with its limit of time."""
        if self.unlimited:
            return tuple(phases)
        paid = [replace(one, requests=kept) for one, kept in zip(phases, self._paid(phases, until), strict=True)]
        expected = [self.expected(one.requests) for one in paid]
        seconds, total = self.seconds_left(until), sum(expected)
        parts = [seconds * (each / total if total else 1.0) for each in expected]
        limited = [self._limited(*one) for one in zip(paid, parts, expected, strict=True)]
        return tuple(one for one in limited if one.requests and (one.seconds is None or one.seconds > 0))

    def expected(self, requests: Iterable[Request]) -> float:
        """Seconds that the requests take, without the forcings that follow from them."""
        return sum(self.rates.seconds(one, self._own(one)) for one in requests)

    def _paid(self, phases: Iterable[Phase], until: Mark) -> Iterator[tuple[Request, ...]]:
        left = self.tokens_left(until)
        for phase in phases:
            kept: list[Request] = []
            for request in phase.requests:
                left -= self.price(request)
                if left < 0 or (len(kept) >= _PILOT and self._price_unknown(request)):
                    break
                kept.append(request)
            yield tuple(kept)

    def _price_unknown(self, request: Request) -> bool:
        """Whether no request of its purpose has shown yet whether a cache still has its prompt."""
        test = request.purpose is Purpose.OWNER_TEST and request.owner is not None
        return test and self.rates.uncached.get(Purpose.OWNER_TEST) is None

    def _limited(self, phase: Phase, seconds: float, expected: float) -> Phase:
        """The phase, which stops sending early enough for its last requests to end in time."""
        if math.isinf(seconds):
            return phase
        last = phase.concurrency * expected / max(len(phase.requests), 1)
        return replace(phase, seconds=seconds - min(last, seconds / 2))

    def price(self, request: Request) -> int:
        """Engine tokens of a request and of the forcing that must follow it."""
        forced = request.purpose in (Purpose.CONTROL, Purpose.RETRY)
        return self._own(request) * (1 + forced)

    def _own(self, request: Request) -> int:
        if request.purpose is Purpose.RESET:
            return 0
        answer, prompt = request.sampling.max_tokens * (request.sampling.n or 1), self.prompt_tokens(request)
        about_blocks = request.purpose is Purpose.OWNER_TEST and request.owner is None
        share = None if about_blocks else self.rates.expected_share(request.purpose)
        if request.purpose is Purpose.PROBE and share is not None:
            return math.ceil(share * prompt) + answer
        cached = self.cached(request)
        return prompt - cached + math.ceil((share or 0.0) * cached) + answer
