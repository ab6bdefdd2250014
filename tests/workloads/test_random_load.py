"""The random load: prompts that share no block."""

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from harness.deferred import tokens_put_away
from harness.errors import UsageError
from harness.loads.random_load import random_load
from harness.scenario import Request, Route, Sampling, Scenario

DEFAULTS: dict[str, Any] = {
    "seed": 7,
    "num_prompts": 64,
    "concurrency": 8,
    "vocab_size": 512,
    "special_token_ids": (0, 1, 2),
    "block_size": 32,
}


def load(**changes: Any) -> Scenario:
    return random_load(**{**DEFAULTS, **changes})


def prompts(scenario: Scenario) -> list[tuple[Any, ...]]:
    return [tuple(request.prompt) for request in scenario.phases[0].requests]


def test_the_load_is_greedy_counted_and_through_the_proxy() -> None:
    (phase,) = load().phases
    assert (phase.name, phase.counted, phase.concurrency) == ("load", True, 8)
    assert [request.request_id for request in phase.requests] == [f"load-{n:05d}" for n in range(64)]
    assert {request.route for request in phase.requests} == {Route.PROXY}
    assert {request.sampling for request in phase.requests} == {Sampling(max_tokens=20, logprobs=5)}
    assert all(20 <= len(prompt) <= 400 for prompt in prompts(load()))


def test_a_salt_reaches_every_request() -> None:
    def salts(scenario: Scenario) -> set[str | None]:
        return {request.cache_salt for phase in scenario.phases for request in phase.requests}

    assert not salts(load(salt="one")) & salts(load(salt="two"))


def test_the_same_seed_gives_the_same_load_and_another_seed_another_load() -> None:
    assert load() == load()
    assert prompts(load()) != prompts(load(seed=8))


# Two ordinary tokens and 300 prompts: random first blocks of nine tokens would be equal by chance.
@example(seed=0, num_prompts=300, vocab_size=4, block_size=9, least=20, extra=5, special={0, 1})
@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    num_prompts=st.integers(1, 300),
    vocab_size=st.integers(4, 300),
    block_size=st.integers(9, 32),
    least=st.integers(9, 40),
    extra=st.integers(0, 40),
    special=st.sets(st.integers(0, 1)),
)
def test_no_two_prompts_share_a_first_block(  # noqa: PLR0917 - Hypothesis draws them
    seed: int, num_prompts: int, vocab_size: int, block_size: int, least: int, extra: int, special: set[int]
) -> None:
    drawn = prompts(
        load(
            seed=seed,
            num_prompts=num_prompts,
            vocab_size=vocab_size,
            block_size=block_size,
            input_len=(least, least + extra),
            special_token_ids=tuple(special),
        )
    )
    assert len({prompt[: min(block_size, least)] for prompt in drawn}) == num_prompts
    assert all(least <= len(prompt) <= least + extra for prompt in drawn)
    assert all(0 <= token < vocab_size and token not in special for prompt in drawn for token in prompt)
    assert all(type(token) is int for prompt in drawn for token in prompt)


def test_lengths_reach_both_ends() -> None:
    lengths = {len(prompt) for prompt in prompts(load(num_prompts=200, input_len=(20, 22)))}
    assert lengths == {20, 21, 22}


def test_requests_can_ignore_the_end_of_sequence_token() -> None:
    request: Request = load(ignore_eos=True, output_len=5).phases[0].requests[0]
    assert request.sampling == Sampling(max_tokens=5, logprobs=5, ignore_eos=True)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"vocab_size": 5, "num_prompts": 300, "block_size": 8}, "first 9 tokens, and a block has 8"),
        ({"input_len": (1, 4), "num_prompts": 600}, "the shortest prompt has 1"),
        ({"input_len": (9, 4)}, "from 9 to 4"),
        ({"vocab_size": 3, "special_token_ids": (0, 1)}, "not special"),
    ],
)
def test_a_load_whose_prompts_cannot_be_unique_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        load(**changes)


def test_prompts_are_packed_until_they_are_read() -> None:
    """A load of 100,000 prompts would need gigabytes otherwise."""
    [phase] = load().phases
    packed = [tokens_put_away(request) for request in phase.requests]
    assert packed == [len(request.prompt) for request in phase.requests]
    assert all(type(token) is int for request in phase.requests for token in request.prompt)
