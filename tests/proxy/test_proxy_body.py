"""What P and D receive means the same whether contract.py made it or the fast way of body.py."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from proxy_fakes import PARAMS

from harness.proxy.body import Body
from harness.proxy.contract import Endpoint, RejectedRequest, decode_body, parse_request, prefill_body

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=6
)
prompts = st.one_of(
    st.text(),
    st.lists(st.integers(-5, 200_000), max_size=5),
    st.lists(st.lists(st.integers(0, 9), max_size=2), max_size=2),
    st.lists(st.text(), max_size=2),
    st.lists(scalars, max_size=3),
    values,
)
fields = st.sampled_from(
    [
        "model", "temperature", "seed", "stop", "logprobs", "prompt_logprobs", "echo", "min_tokens", "n", "best_of",
        "stream", "stream_options", "max_tokens", "max_completion_tokens", "return_token_ids", "messages", "request_id",
        "kv_transfer_params", "use_beam_search", "truncate_prompt_tokens", "prompt_embeds", "\u00e9",
    ]
)  # fmt: skip
bodies = st.dictionaries(fields | st.text(), values, max_size=6)
endpoints = st.sampled_from(Endpoint)


def spelled(body: Any, *, indent: bool, escaped: bool) -> bytes:
    return json.dumps(body, indent=1 if indent else None, ensure_ascii=escaped).encode(errors="surrogatepass")


raws = st.builds(
    lambda body, prompt, indent, escaped: spelled(body | prompt, indent=indent, escaped=escaped),
    bodies,
    st.just({}) | prompts.map(lambda prompt: {"prompt": prompt}),
    st.booleans(),
    st.booleans(),
)
ODD = [
    b"",
    b"[]",
    b"null",
    b"{",
    b"{} x",
    b' {"a": 1.50E0, "prompt": [ 1 ,2]} \n',
    b'{"prompt": [1.5]}',
    b'{"prompt": [-1, "a"]}',
    b'{"prompt": [true, 2]}',
    b'{"prompt": [ ]}',
    b'{"prompt": [1e5, 2]}',
    b'{"prompt": [[1, 2]]}',
    b'{"n": NaN, "a": Infinity}',
    b'{"a": "\\ud800"}',
    b'{"a": "\xff"}',
    b'{"a": {"b": "\xc3"}}',
    b'{"\xff": 1}',
    b'{"a": 1, "a": 2}',
    b'{"n": 5, "n": 6, "prompt": "a", "prompt": ["b", "c"]}',
    b'{"prompt": ["b", "c"], "prompt": "a"}',
    b'{"kv_transfer_params": null, "kv_transfer_params": {"a": 1}}',
    b'{"kv_transfer_params": {"a": 1}, "kv_transfer_params": null}',
    b'{"kv_transfer\\u005fparams": {"a": 1}}',
    b'{"use_beam_searc\\u0068": true}',
    b'{"n":' + b"9" * 5000 + b"}",
    b'{"request_id":' + b"9" * 5000 + b"}",
    b'\xef\xbb\xbf{"n": 1}',
    b'{"a": "\x01"}',
    b'{"a": 01}',
    b'{"a": 1}\x0b',
]


def outcome(raw: bytes, endpoint: Endpoint) -> Any:
    """By contract.py alone: what P and D would read, and the id; or the field for which the request is refused."""
    try:
        body = parse_request(raw, endpoint)
        to_p, to_d = prefill_body(body, endpoint), decode_body(raw, body, PARAMS)
    except RejectedRequest as error:
        return error.param, str(error)
    return read(to_p), read(to_d), repr(body.get("request_id"))


def fast_outcome(raw: bytes, endpoint: Endpoint) -> Any:
    try:
        body = Body(raw, endpoint)
        to_p, to_d = body.for_prefill(), body.for_decode(PARAMS)
    except RejectedRequest as error:
        return error.param, str(error)
    return read(to_p), read(to_d), repr(body.request_id)


def read(raw: bytes) -> str:
    """The value as text: NaN equals itself, 1 differs from 1.0 and True, and the order of fields counts."""
    return repr(json.loads(raw))


@given(raws, endpoints)
def test_any_body_means_the_same_on_both_ways(raw: bytes, endpoint: Endpoint) -> None:
    assert fast_outcome(raw, endpoint) == outcome(raw, endpoint)


@pytest.mark.parametrize("endpoint", Endpoint)
@pytest.mark.parametrize("raw", ODD, ids=lambda raw: repr(raw[:40]))
def test_odd_bodies_mean_the_same_on_both_ways(raw: bytes, endpoint: Endpoint) -> None:
    assert fast_outcome(raw, endpoint) == outcome(raw, endpoint)


@given(st.binary(max_size=40), st.integers(0, 60), endpoints)
@example(b"\xff", 15, Endpoint.COMPLETIONS)
def test_a_damaged_body_means_the_same_on_both_ways(damage: bytes, at: int, endpoint: Endpoint) -> None:
    raw = b'{"prompt": "caf\xc3\xa9", "stop": ["a", {"b": 1}], "n": 3}'
    damaged = raw[:at] + damage + raw[at + len(damage) :]
    assert fast_outcome(damaged, endpoint) == outcome(damaged, endpoint)


@pytest.mark.parametrize("prompt", ["a", "caf\u00e9", [1], [5, 6, 7]])
@pytest.mark.parametrize("endpoint", Endpoint)
def test_an_ordinary_body_is_only_split(prompt: Any, endpoint: Endpoint) -> None:
    raw = json.dumps({"prompt": prompt, "stream": True, "max_tokens": 5, "request_id": "a"}).encode()
    body = Body(raw, endpoint)
    assert body._fields is not None
    assert body.request_id == "a"


def test_numbers_reach_p_as_the_client_spelled_them() -> None:
    raw = b'{"temperature": 1.50E0, "seed": 18446744073709551616, "prompt": [1, 2]}'
    to_p = Body(raw, Endpoint.COMPLETIONS).for_prefill()
    assert to_p.startswith(b'{"temperature":1.50E0,"seed":18446744073709551616,"prompt":[1, 2],')
