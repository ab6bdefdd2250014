"""Rows of log-probabilities are assigned to the tokens they name, however a stream splits tokens and rows."""

from typing import Any

import load_wire as wire
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.history import TokenLogprob
from harness.load.answers.alignment import Alignment
from harness.load.answers.answer import Answer
from harness.load.answers.logprobs import Row


def aligned(*chunks: tuple[list[int], list[tuple[int | None, int]]]) -> list[int | None]:
    """The true position of each token's row. ``chunks``: token ids, and rows as (id, true position)."""
    alignment, tokens = Alignment(), list[int]()
    for ids, rows in chunks:
        before = len(tokens)
        tokens += ids
        if rows:
            alignment.add(before, len(tokens), [Row(token, -float(at), (None, None, None, None)) for token, at in rows])
    return [None if one is None else -int(one.logprob) for one in alignment.of(tokens)]


def test_a_chunk_without_rows_shifts_nothing() -> None:
    assert aligned(([5], [(5, 0)]), ([6], []), ([7], [(7, 2)])) == [0, None, 2]


def test_a_chunk_without_rows_among_equal_tokens_shifts_nothing() -> None:
    assert aligned(([5], [(5, 0)]), ([5], []), ([5], [(5, 2)])) == [0, None, 2]


def test_rows_may_come_a_chunk_later() -> None:
    assert aligned(([5, 6], []), ([7], [(5, 0), (6, 1)]), ([8], [(7, 2), (8, 3)])) == [0, 1, 2, 3]
    assert aligned(([5], []), ([5], [(5, 0)]), ([6], [(5, 1)]), ([], [(6, 2)])) == [0, 1, 2]


def test_rows_may_come_a_chunk_earlier() -> None:
    assert aligned(([], [(5, 0), (6, 1)]), ([5, 6], []), ([7], [(7, 2)])) == [0, 1, 2]


def test_a_token_whose_row_is_missing_gets_none() -> None:
    assert aligned(([5, 6, 7], [(5, 0), (7, 2)])) == [0, None, 2]


def test_a_row_that_fits_two_tokens_is_given_to_neither() -> None:
    assert aligned(([5, 6], [(5, 0), (6, 1)]), ([7, 7], [(7, 2)]), ([8], [(8, 4)])) == [0, 1, None, None, 4]


def test_rows_of_the_prompt_come_before_the_first_token() -> None:
    assert aligned(([5], [(1, 90), (5, 91), (5, 0)]), ([6], [(6, 1)])) == [0, 1]
    assert aligned(([], [(1, 90), (2, 91)]), ([5], [(5, 0)])) == [0]


def test_rows_that_name_other_tokens_are_dropped() -> None:
    assert aligned(([5], [(9, 0)]), ([6], [(6, 1)])) == [None, None]


def test_rows_in_text_are_assigned_by_position_if_a_chunk_has_as_many_as_tokens() -> None:
    assert aligned(([5, 6], [(None, 0), (None, 1)]), ([7], []), ([8], [(None, 3)])) == [0, 1, None, 3]
    assert aligned(([5, 6], [(None, 0)])) == [None, None]


def test_an_answer_without_rows_has_no_entries() -> None:
    assert aligned(([5, 6], [])) == []


def test_the_first_tokens_row_is_looked_for_in_the_first_rows_alone() -> None:
    alignment = Alignment()
    # From the end: with echo, rows of the prompt precede the rows of the chunk's two tokens.
    assert alignment.first_of(0, 2) == 2
    # The first chunk had no rows, so these may be its late ones.
    assert alignment.first_of(2, 3) == 3
    alignment.add(2, 3, [Row(5, -1.0, (None, None, None, None))])
    assert alignment.first_of(3, 4) == 0


TOKENS = st.lists(st.integers(1, 3), min_size=1, max_size=12)


@given(TOKENS, st.data())
def test_no_token_gets_the_row_of_another_token(tokens: list[int], data: st.DataObject) -> None:
    """Rows may be lost, or come late and in order: a token gets its own row or none."""
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
    found = aligned(*chunks)
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


@pytest.mark.parametrize(("rows", "no_rows"), [(completion, wire.completion_chunk), (chat, wire.chat_chunk)])
def test_both_endpoints_and_each_choice(rows: Any, no_rows: Any) -> None:
    answer = streamed(rows(5), rows(7, index=1), no_rows([6]), no_rows([8], index=1), rows(9), rows(9, index=1))
    first, second = answer.choices
    assert first.logprobs == (TokenLogprob(5, -0.5), None, TokenLogprob(9, -0.9))
    assert second.logprobs == (TokenLogprob(7, -0.7), None, TokenLogprob(9, -0.9))


def test_an_answer_that_is_not_streamed() -> None:
    rows = wire.completion_logprobs((5, -0.5, None), (7, -0.7, None))
    answer = Answer()
    choice = wire.completion_chunk([5, 6, 7], logprobs=rows)["choices"][0]
    answer.body(wire.sse(wire.completion_body([choice], {}))[6:], 1.0)
    assert answer.choices[0].logprobs == (TokenLogprob(5, -0.5), None, TokenLogprob(7, -0.7))
