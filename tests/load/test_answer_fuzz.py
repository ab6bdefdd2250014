"""Arbitrary bytes instead of an answer: no exception, and no nonsense is read as output."""

import json
import math
from itertools import pairwise
from typing import Any

import load_wire as wire
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.history import Ended, Ending, Outcome
from harness.load.answers.answer import Answer
from harness.load.answers.logprobs import UNREADABLE, of_prompt, read_rows
from harness.load.answers.outcome import Reply, conclude
from harness.load.answers.quoting import SHOWN, quoted
from harness.load.answers.sse import EventParser
from harness.scenario import Endpoint, Request, Sampling
from harness.store import decode_entry, encode_entry

MANY = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])

# --- server-sent events ---

BITS = st.sampled_from(
    [b"data: ", b"data:", b"data", b"\n", b"\n\n", b"\r", b"\r\n", b": ping", b"{", b"\xef\xbb\xbf", b"\x00", b"[DONE]"]
)
STREAMS = st.lists(st.one_of(BITS, st.binary(max_size=6)), max_size=30).map(b"".join)


def fed(*pieces: bytes) -> tuple[list[bytes], bytes, bytes | None]:
    parser = EventParser()
    payloads = [payload for piece in pieces for payload in parser.feed(piece)]
    return payloads, parser.stray, parser.unended


@MANY
@given(STREAMS, st.data())
def test_any_bytes_in_any_split_are_the_same_events_as_in_one_piece(stream: bytes, data: st.DataObject) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=12).map(sorted))
    pieces = [stream[start:end] for start, end in pairwise([0, *cuts, len(stream)])]
    assert fed(*pieces) == fed(stream)
    assert fed(*(stream[at : at + 1] for at in range(len(stream)))) == fed(stream)


def test_a_byte_order_mark_hides_no_event() -> None:
    assert fed(b"\xef\xbb\xbfdata: x\n\n") == fed(b"\xef", b"\xbb\xbfdata: x\n\n") == ([b"x"], b"", None)


def test_an_event_of_many_reads_is_searched_once() -> None:
    """The cost is counted in searched bytes, not in time: twice the reads cost twice as much."""

    class Counted(bytearray):
        searched = 0

        def find(self, sub: Any, start: Any = 0, end: Any = None, /) -> int:
            Counted.searched += len(self) - start
            return super().find(sub, start) if end is None else super().find(sub, start, end)

    def cost(reads: int) -> int:
        parser, Counted.searched = EventParser(), 0
        parser._rest = Counted()
        for _ in range(reads):
            assert parser.feed(b"data: " + b"x" * 100) == []
        return Counted.searched

    assert cost(400) < 3 * cost(200)


# --- messages ---

NUMBERS = st.one_of(
    st.integers(), st.floats(), st.sampled_from([10**400, -1, True, 1 << 31, 1 << 63, math.nan, math.inf, -0.0])
)
WORDS = st.one_of(
    st.text(max_size=8),
    st.sampled_from(
        ["token_id:11", "token_id:-1", "token_id:" + "9" * 5000, "\ud800", "\x1b[2J", "stop", "length", ""]
    ),
)
LEAVES = st.one_of(st.none(), st.booleans(), NUMBERS, WORDS)
KEYS = st.sampled_from(
    [
        *("choices", "error", "usage", "prompt_tokens", "completion_tokens", "index", "text", "delta", "message"),
        *("content", "logprobs", "tokens", "token_logprobs", "top_logprobs", "token", "logprob", "token_ids"),
        *("finish_reason", "stop_reason", "prompt_token_ids", "prompt_logprobs", "detail", "11", "x"),
    ]
)
JSON = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(KEYS, inner, max_size=5)),
    max_leaves=25,
)


def bent(message: Any, path: list[int], value: Any) -> Any:
    """The message with one of its values, however deep, replaced."""
    if not path or not isinstance(message, dict | list) or not message:
        return value
    keys = list(message) if isinstance(message, dict) else list(range(len(message)))
    key = keys[path[0] % len(keys)]
    copy = dict(message) if isinstance(message, dict) else list(message)
    copy[key] = bent(message[key], path[1:], value)
    return copy


LOGPROBS = wire.completion_logprobs((11, -0.5, {11: -0.5, 12: -1.0}))
GOOD = [
    wire.completion_chunk([11], text="a", prompt_token_ids=[1, 2, 3], logprobs=LOGPROBS),
    wire.chat_chunk([12], text="b", logprobs=wire.chat_logprobs((12, -0.5, {12: -0.5, 13: -1.0}))),
    wire.completion_chunk([13], text="c", finish="length", prompt_logprobs=[None, {"2": {"logprob": -1.0, "rank": 1}}]),
    wire.usage(3, 3),
]
NEARLY = st.builds(bent, st.sampled_from(GOOD), st.lists(st.integers(0, 9), max_size=6), JSON)
MESSAGES = st.one_of(
    JSON.map(lambda one: json.dumps(one).encode()),
    NEARLY.map(lambda one: json.dumps(one).encode()),
    st.sampled_from(GOOD).map(lambda one: json.dumps(one).encode()),
    st.binary(max_size=20),
    st.sampled_from(
        [
            b"[DONE]",
            b" [DONE] ",
            b"",
            b"\n",
            b"[" * 100_000,
            b'{"choices":' * 50_000,
            b'{"error":' + b"[" * 900 + b"]" * 900 + b"}",
            b'{"choices":[{"index":0,"token_ids":[' + b"1" * 5000 + b"]}]}",
            b'{"choices":[{"index":0,"text":"\\ud800"}]}',
            b'{"usage":{"prompt_tokens":1e999,"completion_tokens":NaN}}',
        ]
    ),
)
REQUESTS = st.builds(
    Request,
    st.just("r"),
    st.just((1, 2, 3)),
    st.builds(Sampling, n=st.sampled_from([None, 1, 2])),
    endpoint=st.sampled_from(Endpoint),
    stream=st.booleans(),
)


def ended(answer: Answer, request: Request) -> Ended:
    """How the request ended, after asserting that this can be stored, printed, and read again."""
    end = conclude(request, Reply(status=200), answer, 9.0)
    end.cause.encode()
    assert end.cause.isprintable()
    assert repr(decode_entry(encode_entry(end))).replace("-0.0", "0.0") == repr(end).replace("-0.0", "0.0")
    assert (end.outcome is Outcome.OK) == (end.ending is Ending.COMPLETED)
    return end


def assert_ok_is_sense(end: Ended, request: Request) -> None:
    if end.outcome is not Outcome.OK:
        return
    assert len(end.choices) == (request.sampling.n or 1)
    for choice in end.choices:
        assert choice.finish_reason
        assert all(type(token) is int and 0 <= token < 1 << 31 for token in choice.token_ids)
        assert len(choice.logprobs) in (0, len(choice.token_ids))
        assert all(one is None or one.token_id == t for one, t in zip(choice.logprobs, choice.token_ids, strict=False))
    tokens = sum(len(choice.token_ids) for choice in end.choices)
    assert tokens or any(choice.text for choice in end.choices) or (end.usage and end.usage.completion_tokens > 0)
    assert not tokens or end.usage is None or end.usage.completion_tokens == tokens


@MANY
@given(st.lists(MESSAGES, max_size=8), REQUESTS)
def test_any_events_are_an_answer_or_a_fault(payloads: list[bytes], request: Request) -> None:
    answer = Answer()
    for at, payload in enumerate(payloads):
        answer.event(payload, float(at))
    assert_ok_is_sense(ended(answer, request), request)


@MANY
@given(MESSAGES, REQUESTS)
def test_any_body_is_an_answer_or_a_fault(payload: bytes, request: Request) -> None:
    answer = Answer()
    answer.body(payload, 1.0)
    assert_ok_is_sense(ended(answer, request), request)


@MANY
@given(JSON, REQUESTS)
def test_json_in_an_unknown_format_never_completes(message: Any, request: Request) -> None:
    """No random JSON is a list of choices with a finish reason."""
    answer = Answer()
    answer.event(json.dumps(message).encode(), 1.0)
    answer.event(b"[DONE]", 2.0)
    end = ended(answer, request)
    assert end.outcome is Outcome.INFO or end.choices[0].finish_reason


@MANY
@given(MESSAGES)
def test_stray_text_of_any_kind_can_be_quoted(payload: bytes) -> None:
    answer = Answer()
    answer.read_stray(payload)
    assert ended(answer, Request("r", (1,))).outcome is Outcome.INFO


@MANY
@given(JSON)
def test_log_probabilities_in_any_format_are_rows_or_unreadable(written: Any) -> None:
    try:
        rows = read_rows(written)
    except UNREADABLE:
        return
    assert all(row.token_id is None or 0 <= row.token_id < 1 << 31 for row in rows)
    assert all(isinstance(row.logprob, float) for row in rows)


@MANY
@given(JSON, st.one_of(st.none(), st.lists(st.integers(0, 20), max_size=5)))
def test_prompt_log_probabilities_in_any_format_are_rows_or_unreadable(written: Any, ids: list[int] | None) -> None:
    try:
        rows = of_prompt(written, ids)
    except UNREADABLE:
        return
    assert all(row is None or 0 <= row.token_id < 1 << 31 for row in rows)


@MANY
@given(st.one_of(WORDS, st.binary(), JSON))
def test_a_quote_is_one_printable_line(words: Any) -> None:
    assert len(quoted(words)) <= SHOWN
    assert quoted(words).isprintable()


@pytest.mark.parametrize(
    "choice",
    [
        {"index": 0, "text": "a", "token_ids": [-1], "finish_reason": "stop"},
        {"index": 0, "text": "a", "token_ids": [1 << 31], "finish_reason": "stop"},
        {"index": 0, "text": "a", "token_ids": [True], "finish_reason": "stop"},
        {"index": 0, "text": "a", "token_ids": ["11"], "finish_reason": "stop"},
        {"index": 0, "text": "a", "token_ids": {"11": 1}, "finish_reason": "stop"},
        {"index": 0, "text": ["a"], "token_ids": [11], "finish_reason": "stop"},
        {"index": 0, "text": "a", "token_ids": [11], "finish_reason": 5},
        {"index": 0, "text": "a", "token_ids": [11], "finish_reason": "stop", "stop_reason": [1]},
        {"index": 0, "text": "a", "token_ids": [11], "logprobs": {"tokens": ["x"], "token_logprobs": ["-1"]}},
        {"index": 0, "text": "a", "token_ids": [11], "logprobs": {"tokens": ["x"], "token_logprobs": [10**400]}},
        {"index": True, "text": "a", "token_ids": [11], "finish_reason": "stop"},
        {"index": "0", "text": "a", "token_ids": [11], "finish_reason": "stop"},
        {"index": 7, "text": "a", "token_ids": [11], "finish_reason": "stop"},
        "a choice",
    ],
)
def test_a_choice_with_one_invalid_value_does_not_complete(choice: Any) -> None:
    answer = Answer()
    answer.body(json.dumps({"choices": [choice]}).encode(), 1.0)
    assert ended(answer, Request("r", (1,))).ending is Ending.UNFINISHED
