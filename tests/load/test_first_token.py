"""What the history keeps of the first output token: the decode server's whole row and the prefill server's."""

import json
import math
from typing import Any

import load_wire as wire
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.history import Ended, Named
from harness.load.answers.answer import Answer
from harness.load.answers.outcome import Reply, conclude
from harness.scenario import Endpoint, Request, Sampling
from harness.store import decode_entry, encode_entry

TOPS = {5: -1.0, 8: -0.5, 3: -0.1 - 0.2, 9: -4.0, 2: -5.0, 7: -6.0}
"""The sampled token is not the best. It is the first key of a completion's alternatives, as vLLM writes them."""
NAMED = ((5, -1.0), (8, -0.5), (3, -0.30000000000000004), (9, -4.0), (2, -5.0), (7, -6.0))
NEXT = {6: -0.25, 1: -2.0}


def ended(*messages: wire.Json, stream: bool = True, header: str | None = None, **sampling: Any) -> Ended:
    request = Request("r", (1, 2, 3), Sampling(2, logprobs=5, **sampling), stream=stream)
    answer = Answer()
    for at, message in enumerate(messages):
        payload = json.dumps(message).encode()
        if stream:
            answer.event(payload, float(at))
        else:
            answer.body(payload, float(at))
    answer.event(b"[DONE]", 9.0)
    assert not answer.fault
    return conclude(request, Reply(200, prefill_first=header), answer, 9.0)


def rows(*tokens: tuple[int, dict[int, float]]) -> wire.Json:
    return wire.completion_logprobs(*((token, tops[token], tops) for token, tops in tokens))


def chat_rows(*tokens: tuple[int, dict[int, float]]) -> wire.Json:
    return wire.chat_logprobs(*((token, tops[token], tops) for token, tops in tokens))


def whole(token_ids: list[int], logprobs: wire.Json, **fields: Any) -> wire.Json:
    (choice,) = wire.completion_chunk(token_ids, logprobs=logprobs, finish="length", **fields)["choices"]
    return wire.completion_body([choice], {})


STREAMED = (wire.completion_chunk([5], logprobs=rows((5, TOPS))), wire.completion_chunk([6], logprobs=rows((6, NEXT))))
CHATTED = (
    wire.chat_role_chunk([1, 2, 3]),
    wire.chat_chunk([5], logprobs=chat_rows((5, TOPS))),
    wire.chat_chunk([6], logprobs=chat_rows((6, NEXT))),
)


def test_a_stream_of_either_endpoint() -> None:
    assert ended(*STREAMED).first_logprobs == ended(*CHATTED).first_logprobs == NAMED


def test_an_answer_that_is_not_streamed() -> None:
    body = whole([5, 6], rows((5, TOPS), (6, NEXT)))
    assert ended(body, stream=False).first_logprobs == NAMED


def test_several_tokens_in_the_first_chunk() -> None:
    chunk = wire.completion_chunk([5, 6], logprobs=rows((5, TOPS), (6, NEXT)))
    assert ended(chunk).first_logprobs == NAMED


@pytest.mark.parametrize("stream", [False, True])
def test_with_echo_it_is_the_first_output_token_and_not_the_prompt(stream: bool) -> None:
    prompt = [(5, {5: -3.0, 4: -1.0}), (5, {5: -9.0, 4: -1.0})]
    outputs = [5] if stream else [5, 6]
    logprobs = rows(*prompt, (5, TOPS), *([] if stream else [(6, NEXT)]))
    logprobs["token_logprobs"][0] = logprobs["top_logprobs"][0] = None
    first = whole(outputs, logprobs, prompt_token_ids=[5, 5])
    assert ended(first, *STREAMED[1:] if stream else (), stream=stream, echo=True).first_logprobs == NAMED


def test_of_several_choices_it_is_the_first_one_however_they_arrive() -> None:
    second = wire.completion_chunk([6], index=1, logprobs=rows((6, NEXT)))
    assert ended(second, *STREAMED, n=2).first_logprobs == NAMED
    assert ended(second).first_logprobs == ()


def test_rows_that_come_late_belong_to_the_tokens_they_name() -> None:
    late = wire.completion_chunk([6], logprobs=rows((5, TOPS), (6, NEXT)))
    assert ended(wire.completion_chunk([5]), late).first_logprobs == NAMED


def test_without_a_row_of_its_own_the_first_token_gets_none() -> None:
    own = wire.completion_chunk([6], logprobs=rows((6, NEXT)))
    assert ended(wire.completion_chunk([5]), own).first_logprobs == ()
    two = wire.completion_chunk([5, 6], logprobs=rows((6, NEXT)))
    assert ended(two).first_logprobs == ()
    # Either of two equal tokens may be without a row.
    equal = wire.completion_chunk([6, 6], logprobs=rows((6, NEXT)))
    assert ended(equal).first_logprobs == ()


@pytest.mark.parametrize("chunk", [wire.completion_chunk([5]), wire.completion_chunk([], text="a")])
def test_an_answer_without_log_probabilities_has_none(chunk: wire.Json) -> None:
    assert ended(chunk).first_logprobs == ended(chunk).prefill_first == ()


def test_tokens_in_text_are_left_out() -> None:
    texts = {"text_offset": [0], "tokens": ["five"], "token_logprobs": [-1.0], "top_logprobs": [{"five": -1.0}]}
    assert ended(wire.completion_chunk([5], logprobs=texts)).first_logprobs == ()
    mixed = rows((5, TOPS))
    mixed["top_logprobs"][0]["eight"] = -0.5
    assert ended(wire.completion_chunk([5], logprobs=mixed)).first_logprobs == NAMED


def test_null_is_kept_as_nan() -> None:
    for chunk in (
        wire.completion_chunk([5], logprobs=wire.completion_logprobs((5, None, {5: None, 8: -0.5}))),  # type: ignore[dict-item]
        wire.chat_chunk([5], logprobs={"content": [{"token": "token_id:5", "top_logprobs": [_top(8, -0.5)]}]}),
    ):
        (five, nan), eight = ended(chunk).first_logprobs
        assert (five, eight) == (5, (8, -0.5))
        assert math.isnan(nan)


def _top(token: int, logprob: float) -> wire.Json:
    return {"token": f"token_id:{token}", "logprob": logprob}


def test_only_the_first_token_keeps_more_than_three_tokens() -> None:
    answer = ended(
        wire.completion_chunk([5], logprobs=rows((5, TOPS))), wire.completion_chunk([5], logprobs=rows((5, TOPS)))
    )
    first, second = answer.choices[0].logprobs
    assert first == second
    assert first is not None
    assert first.named == {5: -1.0, 8: -0.5, 3: -0.30000000000000004}


# --- the proxy's header ---

HEADER = json.dumps(rows((5, TOPS)))
OF_CHAT = json.dumps(chat_rows((5, TOPS)))


@pytest.mark.parametrize("header", [HEADER, OF_CHAT])
def test_the_header_of_either_endpoint(header: str) -> None:
    assert ended(*STREAMED, header=header).prefill_first == NAMED


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("endpoint", list(Endpoint))
async def test_the_client_reads_the_header_of_an_answer(endpoint: Endpoint, stream: bool) -> None:
    headers = {"x-pd-prefill-first": HEADER}
    script = wire.streams(wire.whole_stream(), headers=headers) if stream else wire.answers(200, {}, headers=headers)
    prompt: Any = (1, 2, 3) if endpoint is Endpoint.COMPLETIONS else "text"
    request = Request("r-1", prompt, Sampling(3, logprobs=5), endpoint=endpoint, stream=stream)
    assert (await wire.ask(script, request)).prefill_first == NAMED


async def test_the_answer_of_a_server_without_the_header_has_none() -> None:
    answer = await wire.ask(wire.streams(wire.whole_stream()))
    assert (answer.prefill_first, answer.first_logprobs) == ((), ((11, -0.5), (40, -1.25)))


def of_header(header: str) -> Named:
    return conclude(wire.REQUEST, Reply(200, prefill_first=header), Answer(), 1.0).prefill_first


@pytest.mark.parametrize(
    "header",
    [
        *("", "{", "null", "[]", "7", '"content"', "{}", '{"content": []}', '{"content": null}', "NaN", "[" * 100_000),
        '{"tokens": ["token_id:5"]}',
        '{"tokens": ["five"], "token_logprobs": [-1.0]}',
        '{"tokens": ["token_id:99999999999"], "token_logprobs": [-1.0]}',
        '{"tokens": ["token_id:5"], "token_logprobs": ["-1.0"]}',
        '{"tokens": ["token_id:5"], "token_logprobs": [1e999], "top_logprobs": [{"token_id:6": %s}]}' % ("9" * 400),
        '{"tokens": [5], "token_logprobs": [-1.0]}',
        '{"tokens": ["token_id:5", "token_id:6"], "token_logprobs": [-1.0, -1.0]}',
    ],
    ids=lambda header: header[:50],
)
def test_a_header_in_another_form_is_empty(header: str) -> None:
    assert of_header(header) == ()


PLAIN = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.just("token_id:5"))
KEYS = st.sampled_from(["content", "tokens", "token_logprobs", "top_logprobs", "token", "logprob", "token_id:5", "x"])
JSON = st.recursive(
    PLAIN, lambda one: st.one_of(st.lists(one, max_size=3), st.dictionaries(KEYS, one, max_size=4)), max_leaves=20
)


@given(
    st.one_of(
        st.text(), JSON.map(json.dumps), st.tuples(st.just(HEADER), st.integers(0, 300)).map(lambda x: x[0][: x[1]])
    )
)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_header_raises_and_what_is_read_can_be_stored(header: str) -> None:
    entry = conclude(wire.REQUEST, Reply(200, prefill_first=header), Answer(), 1.0)
    assert all(type(token) is int and type(logprob) is float for token, logprob in entry.prefill_first)
    assert repr(decode_entry(encode_entry(entry))) == repr(entry)
