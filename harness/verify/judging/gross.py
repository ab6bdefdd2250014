"""Damage that no noise explains: what can be said of an output where there is no noise floor, only its forcing.

For a run whose control requests cannot be trusted. A teacher forcing that reads no cache still tells what is right, and
a token more than ``GROSS`` nats behind the best one is wrong whatever the noise: that is 55 times less likely. The
largest regret among 9,250 clean outputs on two H100s was 0.375 nats, the widest limit drawn from any control requests
there 1.44.

A sampler may choose what a model does not find best (penalties, biases). Then the server itself served the token as one
that lags behind. So only a token counts whose lead, as served, is off by as much: the server took it for the best.
"""

from collections.abc import Sequence

import numpy as np

from harness.history import Operation
from harness.verify.judging.compared import Compared, Match
from harness.verify.judging.forcing import Forced
from harness.verify.judging.judging import judged_regret

GROSS = 4.0
"""Nats."""


def grossly_wrong(operation: Operation, outputs: Sequence[Forced]) -> Compared | None:
    """The mismatch, or None where nothing is wrong beyond all noise. Tokens that were drawn are not judged."""
    if operation.request.sampling.temperature > 0:
        return None
    for choice, forced in zip(operation.ended.choices, outputs, strict=True):
        regret = judged_regret(operation, forced)
        over = np.flatnonzero((regret > GROSS) & (forced.margin_error > GROSS))
        if len(over):
            at = int(over[0])
            text = (
                f"output token {at} is {choice.token_ids[at]}, {regret[at]:.3g} nats behind the best, beyond any noise "
                f"({GROSS:g}), and was served as the best; so {len(over)} of {forced.tokens} tokens"
            )
            return Compared(operation.request.request_id, Match.MISMATCH, text, at)
    return None
