"""Outputs that are wrong beyond any noise, for runs whose control requests cannot be trusted.

A teacher forcing that reads no cache still shows the right tokens. A token more than ``GROSS`` behind the best
one is wrong at any noise: it is 55 times less likely than the best one. The largest regret among 9,250 clean outputs on
two H100s was 0.375 nats; the widest limit that any control requests gave there was 1.44 nats.

A sampler with penalties or biases may choose a token that the server itself reports far behind the best one. So a token
counts only if its margin error is as large: the server took the token for the best one.
"""

from collections.abc import Sequence

import numpy as np

from harness.history import Operation
from harness.verify.judging.compared import Compared, Match
from harness.verify.judging.forcing import Forced, free_regret
from harness.verify.judging.limits import GROSS


def gross_mismatch(operation: Operation, outputs: Sequence[Forced]) -> Compared | None:
    """The mismatch; None if no token is wrong beyond any noise, or if the temperature is above 0."""
    if operation.request.sampling.temperature > 0:
        return None
    for choice, forced in zip(operation.ended.choices, outputs, strict=True):
        over = np.flatnonzero((free_regret(operation, forced) > GROSS) & (forced.margin_error > GROSS))
        if len(over):
            at = int(over[0])
            text = (
                f"output token {at} (id {choice.token_ids[at]}) was served as the best one, but is "
                f"{forced.regret[at]:.3g} nats behind the best one by teacher forcing, beyond any noise "
                f"({GROSS:g} nats); {len(over)} of {forced.tokens} tokens are wrong like this"
            )
            return Compared(operation.request.request_id, Match.MISMATCH, text, at)
    return None
