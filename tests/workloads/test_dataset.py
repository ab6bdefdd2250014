"""Loads from dataset files."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import UsageError
from harness.loads.dataset import Line, dataset_load, read_lines, write_lines
from harness.scenario import LOAD_LOGPROBS, Endpoint, Message, Request, Route, Sampling

TEXTS = st.text(min_size=1, max_size=20)
SAMPLINGS = st.builds(
    Sampling,
    max_tokens=st.integers(1, 100),
    min_tokens=st.none() | st.integers(0, 5),
    ignore_eos=st.booleans(),
    temperature=st.sampled_from([0.0, 0.7]),
    seed=st.none() | st.integers(0, 9),
    n=st.none() | st.integers(1, 3),
    stop=st.none() | st.lists(TEXTS, min_size=1, max_size=2).map(tuple),
    logprobs=st.just(LOAD_LOGPROBS),
)
SALTS = st.none() | TEXTS
IDS = st.lists(st.integers(0, 5000), min_size=1, max_size=20).map(tuple)
MESSAGES = st.lists(st.builds(Message, st.sampled_from(["user", "system"]), TEXTS), min_size=1, max_size=3).map(tuple)
ROUTES = st.sampled_from([Route.PROXY, Route.PREFILL, Route.DECODE])
PLAIN = st.builds(Request, TEXTS, IDS | TEXTS, sampling=SAMPLINGS, route=ROUTES, stream=st.booleans(), cache_salt=SALTS)
CHAT = st.builds(Request, TEXTS, MESSAGES, sampling=SAMPLINGS, endpoint=st.just(Endpoint.CHAT), cache_salt=SALTS)
LINES = st.lists(
    st.builds(Line, PLAIN | CHAT, TEXTS), min_size=1, max_size=5, unique_by=lambda line: line.request.request_id
)


@given(LINES)
def test_written_lines_read_back_as_the_same_requests(lines: list[Line]) -> None:
    assert read_lines(write_lines(lines), "x.jsonl") == tuple(lines)


def test_the_benchmarks_own_format_is_read() -> None:
    text = (
        '{"prompt": "What is the capital of India?", "output_tokens": 10}\n\n'
        '{"prompt": [5, 6, 7], "category": "other keys are ignored"}\n'
        '{"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 3, "id": 1}\n'
    )
    first, second, third = (line.request for line in read_lines(text, "x.jsonl", output_len=7))
    assert (first.prompt, first.sampling.max_tokens) == ("What is the capital of India?", 10)
    assert (second.prompt, second.sampling.max_tokens, second.request_id) == ((5, 6, 7), 7, "load-00001")
    assert (third.endpoint, third.sampling.max_tokens) == (Endpoint.CHAT, 3)
    assert all(request.sampling.logprobs == LOAD_LOGPROBS for request in (first, second, third)), (
        "the noise of outputs is measured by them"
    )


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("{", "not JSON"),
        ("[1]", "not a JSON object"),
        ('{"output_tokens": 5}', 'either a "prompt" or "messages"'),
        ('{"prompt": "a", "messages": []}', 'either a "prompt" or "messages"'),
        ('{"prompt": ""}', "non-empty text or list of token ids"),
        ('{"prompt": [1, "2"]}', "non-empty text or list of token ids"),
        ('{"prompt": [1, -2]}', "non-empty text or list of token ids"),
        ('{"prompt": [true]}', "non-empty text or list of token ids"),
        ('{"prompt": "a", "output_tokens": 0}', "at least 1"),
        ('{"prompt": "a", "output_tokens": "many"}', "whole number"),
        ('{"prompt": "a", "ignore_eos": 1}', "its ignore_eos is 1"),
        ('{"prompt": "a", "n": true}', "its n is True"),
        ('{"prompt": "a", "stop": 3}', "its stop"),
        ('{"prompt": "a", "route": "sideways"}', "its route is 'sideways'"),
        ('{"messages": [{"role": "user"}]}', '"role" and "content"'),
        ('{"messages": "hello"}', "must be a non-empty list"),
        ('{"prompt": "a", "request_id": "first"}', "line 1 has the request_id 'first', too"),
    ],
)
def test_the_error_about_a_bad_line_has_its_number(content: str, why: str) -> None:
    text = json.dumps({"prompt": "fine", "request_id": "first"}) + "\n\n" + content + "\n"
    with pytest.raises(UsageError) as raised:
        read_lines(text, "load.jsonl")
    assert str(raised.value).startswith("load.jsonl, line 3: ")
    assert why in str(raised.value)


def test_a_file_without_a_request_is_refused() -> None:
    with pytest.raises(UsageError, match=r"load\.jsonl holds no request"):
        read_lines("\n \n", "load.jsonl")


def test_phases_keep_their_order_and_salts_are_new_for_the_run() -> None:
    requests = [Request(f"r{n}", (n,), cache_salt=salt) for n, salt in enumerate([None, "a", "a", None])]
    lines = [Line(request, phase) for request, phase in zip(requests, ["x", "x", "y", "x"], strict=True)]
    scenario = dataset_load(lines, concurrency=4, salt="run-1")
    assert [[one.request_id for one in phase.requests] for phase in scenario.phases] == [["r0", "r1"], ["r2"], ["r3"]]
    assert len({phase.name for phase in scenario.phases}) == 3
    salts = [request.cache_salt for phase in scenario.phases for request in phase.requests]
    assert salts == ["run-1", "run-1-a", "run-1-a", "run-1"]
