"""Prompts of token ids are packed until they are sent, and look as before to whoever reads them."""

import pytest

from harness.deferred import tokens_put_away
from harness.loads.packed import packed
from harness.scenario import Message, Prompt, Request


@pytest.mark.parametrize("largest", [3, 255, 256, 70_000, 1 << 40])
def test_packed_prompts_are_read_as_they_were(largest: int) -> None:
    prompts: list[tuple[int, ...]] = [(1, 2, largest), (largest,), (0, 1)]
    found = list(packed(Request(f"r{number}", prompt) for number, prompt in enumerate(prompts)))
    assert [tokens_put_away(one) for one in found] == [3, 1, 2]
    assert [one.prompt for one in found] == prompts
    assert {type(token) for one in found for token in one.prompt} == {int}
    assert found == [Request(f"r{number}", each) for number, each in enumerate(prompts)]


@pytest.mark.parametrize("prompt", ["a text", (Message("user", "hello"),), ()])
def test_other_prompts_are_left_as_they_are(prompt: Prompt) -> None:
    (found,) = packed([Request("r", prompt)])
    assert tokens_put_away(found) is None
    assert found.prompt == prompt


def test_requests_keep_their_order_beyond_one_array() -> None:
    found = list(packed(Request(f"r{number}", (number, 7)) for number in range(3000)))
    assert [one.prompt for one in found] == [(number, 7) for number in range(3000)]
