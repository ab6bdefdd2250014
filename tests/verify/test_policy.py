"""The texts of ``--verify``, and what each allows verification to cost."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import UsageError
from harness.verify.asking.policy import DEFAULT, Budget, Extent, VerifyPolicy, sizes

PERCENT = st.decimals(0, 1000, places=3, allow_nan=False).map(lambda number: f"budget:{number}%")
SECONDS = st.decimals(0, 100_000, places=2, allow_nan=False).map(lambda number: f"budget:{number}s")
MINUTES = st.decimals(0, 1000, places=2, allow_nan=False).map(lambda number: f"budget:{number}m")
SAMPLE = st.integers(0, 10**9).map(lambda number: f"sample:{number}")


@given(text=st.one_of(st.just("all"), SAMPLE, PERCENT, SECONDS, MINUTES))
def test_a_policy_written_as_text_is_read_as_the_same_policy(text: str) -> None:
    policy = VerifyPolicy.parse(text)
    assert VerifyPolicy.parse(str(policy)) == policy


@given(text=st.text(max_size=20))
def test_any_other_text_is_refused_and_the_forms_are_named(text: str) -> None:
    if re.fullmatch(r"all|sample:[0-9]+|budget:[0-9]+([.][0-9]+)?[%sm]?", text):
        return
    with pytest.raises(UsageError, match=r"all, sample:N .*budget:PCT%.*budget:60s, budget:2m"):
        VerifyPolicy.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        *("", "some", "sample", "sample:x", "sample:1.5", "sample:5%", "budget", "budget:", "budget:-1", "budget:%"),
        *("budget:nan", "budget:inf", "budget:1e3", "budget:٣%", "budget:10 %", "budget:5h", "all:3", "ALL"),
    ],
)
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--verify"):
        VerifyPolicy.parse(text)


def test_the_units() -> None:
    assert VerifyPolicy.parse("budget:10") == VerifyPolicy.parse("budget:10%") == VerifyPolicy(Extent.BUDGET, 10)
    assert VerifyPolicy.parse("budget:2m") == VerifyPolicy.parse("budget:120s") == VerifyPolicy(Extent.TIME, 120)
    assert VerifyPolicy.parse(DEFAULT) == VerifyPolicy(Extent.BUDGET, 10)


def test_a_percentage_limits_tokens_and_two_and_a_half_times_as_much_of_the_time() -> None:
    assert VerifyPolicy.parse("budget:10%").budget(5000, 1_000_000, 200.0) == Budget(100_000.0, 50.0)
    assert VerifyPolicy.parse("budget:40%").budget(5000, 1_000_000, 200.0) == Budget(400_000.0, 200.0)


def test_a_short_load_has_a_floor_of_requests_and_of_seconds() -> None:
    # 100 requests of 200 tokens in a second: as much as 600 such requests, and 20 seconds.
    assert VerifyPolicy.parse("budget:10%").budget(100, 20_000, 1.0) == Budget(120_000.0, 20.0)
    # From 2,000 requests and 40 seconds on, the floor is no more than the share.
    assert VerifyPolicy.parse("budget:10%").budget(2000, 400_000, 40.0) == Budget(40_000.0, 10.0)


def test_a_time_limits_no_tokens_and_the_others_limit_nothing() -> None:
    assert VerifyPolicy.parse("budget:60s").budget(100, 20_000, 1.0) == Budget(math.inf, 60.0)
    for text in ("all", "sample:7"):
        assert VerifyPolicy.parse(text).budget(100, 20_000, 1.0) == Budget(math.inf, math.inf)


def test_a_time_is_enough_for_the_outputs_that_the_engines_compute_in_it() -> None:
    # In 40 % of a minute, engines of 5,000 tokens/s compute 600 requests of 200 tokens: 2 * 40 for controls.
    policy = VerifyPolicy.parse("budget:60s")
    assert sizes(policy, [200] * 9000, 20 * 9000, 40, tokens_per_second=5000.0).drawn == 600 - 80


@given(requests=st.integers(1, 10**5), each=st.integers(1, 5000), percent=st.floats(0, 100))
def test_the_budget_for_tokens_is_never_less_than_the_share_nor_than_200_requests(
    requests: int, each: int, percent: float
) -> None:
    budget = VerifyPolicy(Extent.BUDGET, percent).budget(requests, requests * each, 1.0)
    assert budget.tokens >= 0.999 * max(percent / 100 * requests, 200) * each
    assert budget.seconds >= 10


def test_control_outputs_are_as_long_as_the_loads_even_if_one_of_those_ended_early() -> None:
    assert sizes(VerifyPolicy(Extent.ALL), [200] * 100, 20 * 100 - 1, 32).control_tokens == 20


def test_where_many_first_tokens_are_beyond_the_noise_fewer_outputs_are_drawn_and_the_rest_is_for_owners() -> None:
    policy, load = VerifyPolicy.parse(DEFAULT), [250] * 4000

    def drawn(beyond: int) -> int:
        return sizes(policy, load, 80_000, 32, strange=20, beyond=beyond).drawn

    # Each search costs two requests of 250 tokens. A clean run has as good as none.
    assert drawn(0) == drawn(3) > 100
    assert drawn(0) - drawn(20) == 40
    assert drawn(1000) == 48
    # Nothing changes where the budget suffices for all outputs, or there is none.
    assert sizes(policy, [250] * 100, 2000, 32, beyond=50).drawn == 100
    assert sizes(VerifyPolicy(Extent.ALL), load, 80_000, 32, beyond=50).drawn == 4000
    # A budget that suffices for fewer than 48 is left as it is.
    few = [sizes(policy, [250] * 2000, 40_000, 32, strange=99, beyond=n, referenced=2000).drawn for n in (0, 50)]
    assert few[0] == few[1] < 48
