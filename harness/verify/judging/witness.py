"""The first output token as prefill and as decode computed it: a comparison of every request, at no cost. Pure.

Prefill's first token is the witness: it was computed without KV transfer. The prefill server is asked for one token, so
that it computes the first output token from its own KV; decode computes it again from the KV that was transferred. If
both report log-probabilities, and the proxy hands prefill's on (``X-PD-Prefill-First``), each request has a reference
for its first token. Two distances are used:

equal   Both report the same tokens with the same log-probabilities, to the last bit. On some engines (float32 on CPUs)
        this holds for every request whose KV is right: 2,537 of 2,537 on vLLM 0.32, while 236 of 237 requests with
        damaged KV differed. Whether it holds is measured: if nine tenths of a run's requests are equal, the others are
        strange.
gap     The distance of their vectors of log-probabilities, nats (first_token.py). It ignores a shift of all of them,
        which rounding causes most.

On GPUs in bfloat16 gaps are noise, mostly. Of requests with damaged KV (nine kinds of damage, two models), most are
among the 2 % with the largest gaps. So a strange output is not wrong for that: its first token tells that it should be
teacher-forced, and its prompt's blocks probed, before others are drawn at random. (unequal.py has the exception.)

Left out are requests without log-probabilities (of other proxies, or if they were not asked for), answers that did not
complete, and requests that were not sent through the proxy. Sampling does not matter: log-probabilities are those of
the model, whichever token is drawn. Nor do n > 1 (the first choice is compared), chat, echo, or streaming.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from harness.history import History, Operation, Outcome
from harness.memo import once
from harness.scenario import Route
from harness.verify.judging.first_token import MIN_COMMON, own_first
from harness.verify.judging.load_part import Load, load_of

MOSTLY_EQUAL = 0.9
"""If this share of a run's requests is equal to the last bit, the others are strange."""
STRANGE = 0.02
"""Otherwise, the share of requests with the largest gaps that is strange, at least."""
_FAR, _USUAL = 2.0, 0.9
"""Gaps beyond this multiple of this quantile of the finite gaps are strange in any case: where one request in twenty is
damaged, the share above would leave most of them out. On two H200s, one clean request in 700 was as far out."""
_FEWEST = 16
"""Requests that must have been compared before any of them is strange."""


@dataclass(frozen=True, slots=True)
class Witnessed:
    """The first tokens of a run's requests compared."""

    gaps: Mapping[str, float]
    """Nats, by request id, in the order sent; 0 only for requests that are equal to the last bit."""
    served: int
    """How many outputs of the load came through the proxy, compared or not."""
    equal: int = field(init=False)
    """How many are equal to the last bit."""
    strangest: tuple[str, ...] = field(init=False)
    """Ids of the strange requests, the largest gap first."""

    def __post_init__(self) -> None:
        # Once: every output asks for the one, and every step of verification for the other.
        object.__setattr__(self, "equal", sum(gap == 0 for gap in self.gaps.values()))
        object.__setattr__(self, "strangest", self._strangest())

    @property
    def exact(self) -> bool:
        """Whether prefill and decode are equal to the last bit for nearly all requests."""
        return len(self.gaps) >= _FEWEST and self.equal >= MOSTLY_EQUAL * len(self.gaps)

    def _strangest(self) -> tuple[str, ...]:
        if len(self.gaps) < _FEWEST:
            return ()
        falling = sorted((name for name, gap in self.gaps.items() if gap > 0), key=lambda name: -self.gaps[name])
        if self.exact:
            return tuple(falling)
        usual = float(np.quantile([gap for gap in self.gaps.values() if math.isfinite(gap)] or [0.0], _USUAL))
        far = sum(gap > _FAR * usual for gap in self.gaps.values())
        return tuple(falling[: max(math.ceil(STRANGE * len(self.gaps)), far)])

    @property
    def note(self) -> str:
        """What was compared, in words; empty if nothing came through the proxy."""
        if not self.served:
            return ""
        if not self.gaps:
            return (
                "first tokens were not compared with prefill's: no answer says what prefill computed. Requests must "
                "ask for log-probabilities, and the proxy must hand prefill's on, as python -m harness.proxy does"
            )
        compared = f"first tokens were compared with prefill's for {len(self.gaps):,} of {self.served:,} outputs"
        if self.exact or not self.strangest:
            return f"{compared}: {self.equal:,} equal to the last bit"
        smallest, strange = self.gaps[self.strangest[-1]], f"the {len(self.strangest):,} strangest"
        if math.isinf(smallest):
            return f"{compared}; the most probable tokens of {strange} are not prefill's"
        return f"{compared}; {strange} differ by {smallest:.2g} nats or more"

    def doubt(self, request_id: str) -> str:
        """Why an output is doubtful by its first token, in words; empty if it is not."""
        if not self.exact or not self.gaps.get(request_id, 0.0):
            return ""
        return f"{self.difference(request_id)}, while {self.equal:,} other outputs are equal to the last bit"

    def difference(self, request_id: str) -> str:
        """How far an output's first token is from prefill's, in words."""
        if math.isinf(self.gaps[request_id]):
            return "its first token's most probable tokens are not prefill's"
        return f"its first token's log-probabilities differ from prefill's by {self.gaps[request_id]:.2g} nats"


def witnessed(history: History) -> Witnessed:
    """The first tokens of all outputs of the load that came through the proxy."""
    return _witnessed(load_of(history))


@once
def _witnessed(load: Load) -> Witnessed:
    served = [o for o in load if o.request.route is Route.PROXY and o.outcome is Outcome.OK]
    return Witnessed({o.request.request_id: _gap(o) for o in served if _comparable(o)}, len(served))


def _comparable(operation: Operation) -> bool:
    # If two tokens that are equal counted, but not two that differ, servers would seem more exact than they are.
    return own_first(operation).named >= MIN_COMMON


def _gap(operation: Operation) -> float:
    first = own_first(operation)
    if first.equal:
        return 0.0
    return math.inf if first.apart is None else max(first.apart, math.ulp(0.0))
