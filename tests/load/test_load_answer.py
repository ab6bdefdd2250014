"""Reading answers of both endpoints, streamed and whole, and faulty ones."""

import json
import math
from typing import Any

import load_wire as wire
import pytest

from harness.history import Choice, TokenLogprob, Usage
from harness.load.answers.answer import Answer

DONE = b"[DONE]"


def streamed(*messages: Any) -> Answer:
    """Read messages that arrive at 1, 2, 3, …"""
    answer = Answer()
    for at, message in enumerate(messages, 1):
        answer.event(message if isinstance(message, bytes) else json.dumps(message).encode(), float(at))
    return answer


def whole(message: Any) -> Answer:
    answer = Answer()
    answer.body(json.dumps(message).encode(), 9.0)
    return answer


def test_a_completions_stream() -> None:
    answer = streamed(
        wire.completion_chunk([11], text="a", prompt_token_ids=[1, 2]),
        wire.completion_chunk([12, 13], text="bc"),
        wire.completion_chunk([], finish="stop"),
        wire.usage(2, 3),
        DONE,
    )
    assert answer.choices == (Choice((11, 12, 13), "abc", "stop"),)
    assert (answer.token_times, answer.tokens_per_chunk) == ([1.0, 2.0, 2.0], [1, 2])
    assert (answer.prompt_token_ids, answer.usage) == ((1, 2), Usage(2, 3))
    assert (answer.done_at, answer.fault) == (5.0, "")


def test_a_chat_stream() -> None:
    rows = wire.chat_logprobs((11, -0.5, {11: -0.5, 40: -1.5}))
    answer = streamed(
        wire.chat_role_chunk([1, 2, 3]),
        wire.chat_chunk([11], text="a", logprobs=rows),
        wire.chat_chunk([12], text="b", finish="length", stop_reason=None),
        DONE,
    )
    assert answer.choices == (Choice((11, 12), "ab", "length", (TokenLogprob(11, -0.5, -1.5, 40), None)),)
    assert answer.token_times == [2.0, 3.0]
    assert answer.prompt_token_ids == (1, 2, 3)


def test_choices_are_kept_apart_and_the_first_choices_tokens_are_timed() -> None:
    answer = streamed(
        wire.completion_chunk([21], index=1, prompt_token_ids=[1]),
        wire.completion_chunk([11], index=0, prompt_token_ids=[1]),
        wire.completion_chunk([22], index=1, finish="length"),
        wire.completion_chunk([12], index=0, finish="length"),
        DONE,
    )
    assert [choice.token_ids for choice in answer.choices] == [(11, 12), (21, 22)]
    assert answer.token_times == [2.0, 4.0]


def test_a_whole_completion_with_prompt_logprobs() -> None:
    prompt_logprobs = [
        None,
        {
            "2": {"logprob": -1.5, "rank": 3, "decoded_token": "b"},
            "9": {"logprob": -0.5, "rank": 1, "decoded_token": "z"},
        },
    ]
    choice = {
        "index": 0,
        "text": "a",
        "logprobs": None,
        "finish_reason": "length",
        "stop_reason": None,
        "token_ids": [11],
        "prompt_logprobs": prompt_logprobs,
        "prompt_token_ids": [1, 2],
        "routed_experts": None,
    }
    answer = whole(wire.completion_body([choice], {"usage": {"prompt_tokens": 2, "completion_tokens": 1}}))
    assert answer.choices == (Choice((11,), "a", "length"),)
    assert answer.prompt_logprobs == (None, TokenLogprob(2, -1.5, -0.5, 9))
    assert (answer.token_times, answer.done_at, answer.fault) == ([], 9.0, "")


def test_a_whole_chat_answer() -> None:
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": "a"},
        "logprobs": wire.chat_logprobs((11, -0.5, {11: -0.5})),
        "finish_reason": "stop",
        "token_ids": [11],
    }
    top = {
        "prompt_token_ids": [1, 2],
        "prompt_logprobs": [None, {"2": {"logprob": -1.0, "rank": 1, "decoded_token": "b"}}],
    }
    answer = whole(wire.completion_body([choice], top))
    assert answer.choices == (Choice((11,), "a", "stop", (TokenLogprob(11, -0.5, None),)),)
    assert answer.prompt_logprobs == (None, TokenLogprob(2, -1.0, None))
    assert answer.usage is None


def logprobs_of(token_ids: list[int], written: Any) -> tuple[TokenLogprob, ...]:
    answer = streamed(wire.completion_chunk(token_ids, logprobs=written))
    assert not answer.fault
    return answer.choices[0].logprobs


def test_the_runner_up_is_the_best_other_token() -> None:
    row = (11, -2.0, {11: -2.0, 40: -0.5, 41: -1.0})
    assert logprobs_of([11], wire.completion_logprobs(row)) == (TokenLogprob(11, -2.0, -0.5, 40, -1.0, 41),)


def test_the_sampled_token_alone_has_no_runner_up() -> None:
    assert logprobs_of([11], wire.completion_logprobs((11, -0.5, {11: -0.5}))) == (TokenLogprob(11, -0.5, None),)


def test_minus_infinity_is_written_as_minus_9999() -> None:
    row = (11, -0.0, {11: -0.0, 40: -9999.0})
    assert logprobs_of([11], wire.completion_logprobs(row)) == (TokenLogprob(11, 0.0, -9999.0, 40),)


@pytest.mark.parametrize(
    "written",
    [
        wire.completion_logprobs((11, None, None)),
        wire.completion_logprobs((11, None, {11: None, 40: None})),  # type: ignore[dict-item] # NaN as JSON has it
        wire.chat_logprobs((11, None, {})),
    ],
)
def test_null_is_nan_and_has_no_runner_up(written: Any) -> None:
    (token,) = logprobs_of([11], written)
    assert token.token_id == 11
    assert math.isnan(token.logprob)
    assert token.runner_up is None


def test_with_echo_the_outputs_rows_come_last() -> None:
    rows = wire.completion_logprobs((1, None, None), (2, -3.0, {2: -3.0}), (11, -0.5, {11: -0.5}))
    assert logprobs_of([11], rows) == (TokenLogprob(11, -0.5, None),)


def test_rows_of_a_server_that_writes_text_are_assigned_by_position() -> None:
    written = {"tokens": ["a"], "token_logprobs": [-0.5], "top_logprobs": [{"a": -0.5, "b": -1.0}], "text_offset": [0]}
    assert logprobs_of([11], written) == (TokenLogprob(11, -0.5, -1.0),)


@pytest.mark.parametrize(
    ("payload", "fault"),
    [
        (json.dumps(wire.ERROR).encode(), "Internal server error"),
        (b'{"choices": [', "unreadable chunk"),
        (b"\xff\xfe", "unreadable chunk"),
        (b"[]", "unreadable chunk"),
        (b"null", "unreadable chunk"),
        (b'{"choices": [{"text": "no number", "index": null}]}', "unreadable chunk"),
        (b'{"choices": [{"index": 0, "text": "", "token_ids": 5}]}', "unreadable chunk"),
        (b'{"choices": [{"index": 0, "logprobs": {"tokens": 1}, "token_ids": [1]}]}', "unreadable chunk"),
    ],
)
def test_an_unreadable_payload_is_a_fault(payload: bytes, fault: str) -> None:
    assert fault in streamed(payload).fault


def test_the_first_fault_is_kept_and_later_tokens_are_read() -> None:
    answer = streamed(b"{", wire.completion_chunk([11]), wire.ERROR, DONE)
    assert "unreadable" in answer.fault
    assert answer.choices[0].token_ids == (11,)


def test_an_event_after_the_end_marker_is_a_fault() -> None:
    answer = streamed(wire.completion_chunk([11]), DONE, wire.completion_chunk([12]))
    assert "an event follows the end marker" in answer.fault
    assert answer.done_at == 2.0


def test_unreadable_prompt_logprobs_are_a_fault() -> None:
    choice = {"index": 0, "text": "a", "token_ids": [11], "prompt_logprobs": [{"x": {"logprob": -1.0}}]}
    answer = whole(wire.completion_body([choice], {}))
    assert answer.prompt_logprobs is None
    assert "prompt_logprobs" in answer.fault
