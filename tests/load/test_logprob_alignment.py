"""Log-probabilities belong to the tokens that they name, however a stream brings the two."""

from typing import Any

import load_wire as wire
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.history import TokenLogprob
from harness.load.alignment import Alignment
from harness.load.answer import Answer
from harness.load.logprobs import Row


def laid(*chunks: tuple[list[int], list[tuple[int | None, int]]]) -> list[int | None]:
    """Chunks of tokens and of rows as (id, place that they are of); the place that each token's row is of."""
    alignment, tokens = Alignment(), list[int]()
    for ids, rows in chunks:
        before = len(tokens)
        tokens += ids
        if rows:
            alignment.add(before, len(tokens), [Row(token, -float(at), (None, None, None, None)) for token, at in rows])
    return [None if one is None else -int(one.logprob) for one in alignment.of(tokens)]


def test_a_chunk_without_rows_shifts_nothing() -> None:
    assert laid(([5], [(5, 0)]), ([6], []), ([7], [(7, 2)])) == [0, None, 2]


def test_nor_does_one_in_a_loop_of_equal_tokens() -> None:
    assert laid(([5], [(5, 0)]), ([5], []), ([5], [(5, 2)])) == [0, None, 2]


def test_rows_may_come_a_chunk_later() -> None:
    assert laid(([5, 6], []), ([7], [(5, 0), (6, 1)]), ([8], [(7, 2), (8, 3)])) == [0, 1, 2, 3]
    assert laid(([5], []), ([5], [(5, 0)]), ([6], [(5, 1)]), ([], [(6, 2)])) == [0, 1, 2]


def test_or_a_chunk_earlier() -> None:
    assert laid(([], [(5, 0), (6, 1)]), ([5, 6], []), ([7], [(7, 2)])) == [0, 1, 2]


def test_a_row_too_few_is_none_for_the_token_that_it_would_name() -> None:
    assert laid(([5, 6, 7], [(5, 0), (7, 2)])) == [0, None, 2]


def test_a_row_that_fits_two_tokens_is_given_to_neither() -> None:
    assert laid(([5, 6], [(5, 0), (6, 1)]), ([7, 7], [(7, 2)]), ([8], [(8, 4)])) == [0, 1, None, None, 4]


def test_rows_of_the_prompt_come_before_the_first_token() -> None:
    assert laid(([5], [(1, 90), (5, 91), (5, 0)]), ([6], [(6, 1)])) == [0, 1]
    assert laid(([], [(1, 90), (2, 91)]), ([5], [(5, 0)])) == [0]


def test_rows_that_name_tokens_of_no_answer_are_nobodys() -> None:
    assert laid(([5], [(9, 0)]), ([6], [(6, 1)])) == [None, None]


def test_rows_in_text_are_read_by_position_and_only_where_there_are_as_many() -> None:
    assert laid(([5, 6], [(None, 0), (None, 1)]), ([7], []), ([8], [(None, 3)])) == [0, 1, None, 3]
    assert laid(([5, 6], [(None, 0)])) == [None, None]


def test_no_rows_at_all_are_no_placeholders() -> None:
    assert laid(([5, 6], [])) == []


TOKENS = st.lists(st.integers(1, 3), min_size=1, max_size=12)


@given(TOKENS, st.data())
def test_no_token_ever_gets_anothers_row(tokens: list[int], data: st.DataObject) -> None:
    """Rows may be lost, or come late and in order: each that is given to a token is that token's own."""
    kept = [at for at in range(len(tokens)) if data.draw(st.booleans())]
    late = data.draw(st.lists(st.integers(0, 2), min_size=len(kept), max_size=len(kept)))
    arrival, latest = dict[int, list[int]](), 0
    for at, delay in zip(kept, late, strict=True):
        latest = max(latest, min(at + delay, len(tokens)))
        arrival.setdefault(latest, []).append(at)
    chunks = [
        ([tokens[at]] if at < len(tokens) else [], [(tokens[row], row) for row in arrival.get(at, ())])
        for at in range(len(tokens) + 1)
    ]
    found = laid(*chunks)
    if len(kept) == len(tokens):
        assert found == kept
    elif not any(late):
        assert found in ([], [at if at in kept else None for at in range(len(tokens))])


def streamed(*messages: Any) -> Answer:
    answer = Answer()
    for at, message in enumerate(messages, 1):
        answer.event(wire.sse(message)[6:], float(at))
    answer.event(b"[DONE]", 99.0)
    assert not answer.fault
    return answer


def completion(token: int, **fields: Any) -> wire.Json:
    return wire.completion_chunk([token], logprobs=wire.completion_logprobs((token, -token / 10, None)), **fields)


def chat(token: int, **fields: Any) -> wire.Json:
    return wire.chat_chunk([token], logprobs=wire.chat_logprobs((token, -token / 10, {})), **fields)


@pytest.mark.parametrize(("told", "untold"), [(completion, wire.completion_chunk), (chat, wire.chat_chunk)])
def test_both_endpoints_and_each_choice(told: Any, untold: Any) -> None:
    answer = streamed(told(5), told(7, index=1), untold([6]), untold([8], index=1), told(9), told(9, index=1))
    first, second = answer.choices
    assert first.logprobs == (TokenLogprob(5, -0.5), None, TokenLogprob(9, -0.9))
    assert second.logprobs == (TokenLogprob(7, -0.7), None, TokenLogprob(9, -0.9))


def test_an_answer_that_is_not_streamed() -> None:
    rows = wire.completion_logprobs((5, -0.5, None), (7, -0.7, None))
    answer = Answer()
    choice = wire.completion_chunk([5, 6, 7], logprobs=rows)["choices"][0]
    answer.body(wire.sse(wire.completion_body([choice], {}))[6:], 1.0)
    assert answer.choices[0].logprobs == (TokenLogprob(5, -0.5), None, TokenLogprob(7, -0.7))
