"""What faults may add to a decode server's counters, and what they may not."""

import pytest

from harness.checkers.under_faults import Allowance
from harness.facts import Role
from harness.oracle import ServerExpectation
from harness.verdict import Bounds

PREDICTED = ServerExpectation(
    prompt_tokens=Bounds(100, 100),
    external_kv_transfer=Bounds(100, 100),
    prefix_queries=Bounds(100, 100),
    external_queries=Bounds(100, 100),
    external_hits=Bounds(100, 100),
)
FAILED = Allowance(transfers_failed=1, tokens=30)


@pytest.mark.parametrize("counter", ["prefix_queries", "external_queries"])
def test_a_prompt_that_decode_computes_after_all_is_looked_up_twice(counter: str) -> None:
    assert FAILED.widen(PREDICTED, Role.DECODE).of(counter) == Bounds(100, 130)


def test_no_more_is_computed_than_the_prompts_whose_transfers_failed() -> None:
    widened = FAILED.widen(PREDICTED, Role.DECODE)
    assert widened.local_compute == Bounds(0, 30)
    assert widened.external_kv_transfer == Bounds(0, 100)
    assert widened.prompt_tokens == Bounds(100, 100)


@pytest.mark.parametrize(("allowance", "role"), [(Allowance(), Role.DECODE), (FAILED, Role.PREFILL)])
def test_without_failed_transfers_on_decode_nothing_is_allowed(allowance: Allowance, role: Role) -> None:
    assert allowance.widen(PREDICTED, role) == PREDICTED
