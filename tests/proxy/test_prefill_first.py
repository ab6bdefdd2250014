"""What P says about the first output token reaches the client as a response header, unless it is missing or odd."""

import json
import math
from typing import Any

import load_wire as wire
import pytest
from hypothesis import given
from hypothesis import strategies as st
from proxy_fakes import CHAT, COMPLETIONS, PARAMS, Script, answering, pair

from harness.proxy.first_token import LONGEST, first_token

NAME = "X-PD-Prefill-First"
TENTH = 0.1 + 0.2
"""A number that needs 17 digits."""
TOP = {5: -TENTH, 7: -1.25, 9: None}
OF_COMPLETION = wire.completion_logprobs((5, -TENTH, TOP))  # type: ignore[arg-type]  # null stands for NaN
OF_CHAT = wire.chat_logprobs((5, -TENTH, {5: -TENTH, 7: -1.25}))
IN_HEADER = {
    COMPLETIONS: (
        '{"tokens":["token_id:5"],"token_logprobs":[-0.30000000000000004],'
        '"top_logprobs":[{"token_id:5":-0.30000000000000004,"token_id:7":-1.25,"token_id:9":null}]}'
    ),
    CHAT: (
        '{"content":[{"token":"token_id:5","logprob":-0.30000000000000004,"top_logprobs":'
        '[{"token":"token_id:5","logprob":-0.30000000000000004},{"token":"token_id:7","logprob":-1.25}]}]}'
    ),
}
EVENTS = [b"data: {1}\n\n", b"data: [DONE]\n\n"]


def prefilling(logprobs: Any) -> Script:
    return answering(200, {"choices": [{"logprobs": logprobs}], "kv_transfer_params": PARAMS})


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("path", "logprobs"), [(COMPLETIONS, OF_COMPLETION), (CHAT, OF_CHAT)])
async def test_the_client_gets_the_row_of_p_beside_the_answer_of_d(path: str, logprobs: Any, stream: bool) -> None:
    decoding = wire.streams(*EVENTS) if stream else answering(200, {"choices": []})
    body = {"stream": stream, "logprobs": 2}
    async with pair(prefilling(logprobs), decoding) as servers, servers.post(body, path) as answer:
        assert answer.headers.getall(NAME) == [IN_HEADER[path]]
        assert await answer.read() == (b"".join(EVENTS) if stream else b'{"choices": []}')


@pytest.mark.parametrize("logprobs", [None, OF_COMPLETION])
@pytest.mark.parametrize("name", [NAME, NAME.lower()])
async def test_a_header_of_this_name_comes_from_the_proxy_alone(name: str, logprobs: Any) -> None:
    decoding = wire.streams(*EVENTS, headers={name: "of D"})
    sent = {name: "of the client"}
    async with pair(prefilling(logprobs), decoding) as servers, servers.post({}, headers=sent) as answer:
        assert answer.headers.getall(NAME, []) == ([IN_HEADER[COMPLETIONS]] if logprobs else [])
        assert await answer.read() == b"".join(EVENTS)


async def test_a_header_of_this_name_from_p_does_not_reach_the_client() -> None:
    async with pair(wire.answers(400, {}, headers={NAME: "of P"})) as servers, servers.post({}) as answer:
        assert answer.status == 400
        assert NAME not in answer.headers


ODD: list[Any] = [
    {},
    [],
    [1],
    7,
    "content",
    {"content": None},
    {"content": []},
    {"content": {}},
    {"content": [None]},
    {"content": [{"logprob": -1.0}]},
    {"content": [{"token": 5, "logprob": -1.0}]},
    {"content": [{"token": "a", "logprob": "-1.0"}]},
    {"content": [{"token": "a", "logprob": -1.0, "top_logprobs": {"a": -1.0}}]},
    {"tokens": ["a"]},
    {"tokens": [], "token_logprobs": [], "top_logprobs": []},
    {"tokens": "a", "token_logprobs": {"a": -1.0}},
    {"tokens": [None], "token_logprobs": [-1.0]},
    {"tokens": ["a"], "token_logprobs": [True]},
    {"tokens": ["a"], "token_logprobs": [-1.0], "top_logprobs": ["a"]},
    {"tokens": ["a"], "token_logprobs": [-1.0], "top_logprobs": [{"a": [[]]}]},
    {"tokens": ["a"], "token_logprobs": [math.nan]},
    {"tokens": ["a"], "token_logprobs": [-1.0], "top_logprobs": [{str(n): -1.0 for n in range(LONGEST)}]},
]


@pytest.mark.parametrize("logprobs", ODD, ids=lambda one: json.dumps(one)[:60])
async def test_log_probabilities_in_another_form_are_left_out_and_the_request_is_served(logprobs: Any) -> None:
    async with pair(prefilling(logprobs)) as servers, servers.post({"logprobs": 2}) as answer:
        assert answer.status == 200
        assert NAME not in answer.headers


@pytest.mark.parametrize("answer", [{}, {"choices": None}, {"choices": []}, {"choices": [None]}, {"choices": {}}])
def test_an_answer_without_a_choice_has_none(answer: Any) -> None:
    assert first_token(answer) is None


def test_the_row_of_the_first_token_is_taken_alone() -> None:
    several = wire.completion_logprobs((5, -TENTH, TOP), (6, -2.0, {6: -2.0}))  # type: ignore[arg-type]  # as above
    assert first_token({"choices": [{"logprobs": several}, {"logprobs": OF_CHAT}]}) == IN_HEADER[COMPLETIONS]


def test_a_value_is_left_out_only_if_it_is_too_long() -> None:
    def answer(length: int) -> Any:
        return {"choices": [{"logprobs": {"tokens": ["x" * length], "token_logprobs": [-1.0], "top_logprobs": None}}]}

    around = len(first_token(answer(0)) or "")
    assert len(first_token(answer(LONGEST - around)) or "") == LONGEST
    assert first_token(answer(LONGEST - around + 1)) is None


@given(st.text(), st.floats(allow_nan=False, allow_infinity=False))
def test_any_token_and_number_are_printable_ascii_and_read_back_exactly(token: str, logprob: float) -> None:
    value = first_token({"choices": [{"logprobs": {"content": [{"token": token, "logprob": logprob, "bytes": [1]}]}}]})
    if value is None:
        assert len(json.dumps(token)) > LONGEST // 2
        return
    assert value.isascii()
    assert value.isprintable()
    (entry,) = json.loads(value)["content"]
    assert (entry["token"], repr(entry["logprob"])) == (token, repr(logprob))
    assert entry.keys() == {"token", "logprob"}
